# SPDX-License-Identifier: Apache-2.0
"""Gradients of the engine, and of the norms whose sets are named by axes."""

from __future__ import annotations

from typing import SupportsIndex, cast

import numpy.typing as npt

from anynorm import _sets
from anynorm._gradients import Gradients
from anynorm._moments import Moments
from anynorm._selection import Selection
from anynorm._shared import Activation, Axis, Excluded, Lengths, NanPolicy, Sets, Wanted, compiled, documented

# Only patterns, selections and containers run the bodies of these functions: see `compiled`.


@compiled
@documented(
    shape="Any shape of at most 16 axes.",
    weight_shape="Any shape that broadcasts against `x` by NumPy's rules.",
    sets="of the shape of `x` without `axis`, or with it at length 1.",
    alone="True where the parameter is not given is an error, since its shape is not known.",
)
def normalize_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    axis: Sets | None,
    *,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    center: bool = True,
    frozen: bool = False,
    moments: Moments | None = None,
    activation: Activation | None = None,
    grad_sum: npt.ArrayLike | None = None,
    grad_input: Wanted = True,
    grad_weight: Wanted | None = None,
    grad_bias: Wanted | None = None,
    num_threads: SupportsIndex | None = None,
    labels: npt.ArrayLike | None = None,
    num_groups: SupportsIndex | None = None,
    segments: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
    parameters: str | None = None,
    **sizes: SupportsIndex,
) -> Gradients:
    """Compute the gradients of `normalize` for `grad_output`, the gradient of its result.

    Parameters
    ----------
    {grad_output}
    {x}
    axis : int, tuple of ints, str or None
        As in the forward call.
    {pattern}
    {weight}
    {bias_shape}
    {eps}
    center : bool, default True
        As in the forward call.
    frozen : bool, default False
        True: `moments` are constants, as where the forward call was given statistics that are not those of `x`. No
        gradient flows through them.
    {saved_moments}
    {undone_activation}
    {grad_sum}
    {gradients}
    {num_threads}
    {backward_selection}
    {parameters}
    {sizes}

    Returns
    -------
    {returns_gradients}

    Raises
    ------
    {raises}

    Notes
    -----
    With ``xhat = (x - mean) * rstd`` and ``g = grad_output * weight``, and the means taken over each set::

        grad_input = rstd * (g - mean(g) - xhat * mean(g * xhat))
        grad_weight = sum(grad_output * xhat)
        grad_bias = sum(grad_output)

    without ``mean(g)`` if `center` is False, and without both means if `frozen`; `grad_sum` is added to the first. A
    parameter that broadcasts along an axis gets the sum along it. Computed in float64 if `x`, `grad_output`, `grad_sum`
    or `grad_input` is, else in float32; all sums are of float64, in an order that the number of threads does not change.
    Reads `x` and `grad_output` twice, and `x` once more where `moments` are not given, without copies.

    Source: Ioffe, Szegedy: Batch Normalization, arXiv:1502.03167, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[0.0, 0.0, 2.0, 2.0]])
    >>> grad_output = np.array([[4.0, 0.0, 0.0, 0.0]])
    >>> anynorm.normalize_backward(grad_output, x, 1, eps=0).grad_input
    array([[ 2., -2.,  0.,  0.]])

    Each parameter gets a gradient of its own shape, here one for each column and one for all elements:

    >>> g = anynorm.normalize_backward(grad_output, x, 1, weight=np.ones(4), bias=np.zeros(1), eps=0)
    >>> g.grad_weight, g.grad_bias
    (array([-4.,  0.,  0.,  0.]), array([4.]))
    """
    arguments = (
        grad_output, x, axis, weight, bias, eps, center, frozen, moments, activation, grad_sum, grad_input, grad_weight,
        grad_bias, num_threads,
    )  # fmt: skip
    selection = Selection(labels, num_groups, segments, where, sample_weight, excluded, nan_policy)
    return cast(Gradients, _sets.by_pattern("normalize_backward", arguments, parameters, sizes, selection))


@compiled
@documented(
    shape="Any shape of 1 to 16 axes.",
    weight_shape="Shape of `x` along the normalized axes, in ascending order of the axes.",
    sets="of the shape of `x` without the normalized axes, or with them at length 1.",
    alone="True where the parameter is not given is the gradient of one that is 1 or 0, in the dtype of `x`.",
)
def layer_norm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    normalized_shape: Lengths | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    axis: Axis | None = None,
    moments: Moments | None = None,
    activation: Activation | None = None,
    grad_sum: npt.ArrayLike | None = None,
    grad_input: Wanted = True,
    grad_weight: Wanted | None = None,
    grad_bias: Wanted | None = None,
    num_threads: SupportsIndex | None = None,
    labels: npt.ArrayLike | None = None,
    num_groups: SupportsIndex | None = None,
    segments: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
) -> Gradients:
    """Compute the gradients of `layer_norm` for `grad_output`, the gradient of its result.

    Parameters
    ----------
    {grad_output}
    {x}
    {normalized_shape}
    {weight}
    {bias_shape}
    {eps}
    {axis}
    {saved_moments}
    {undone_activation}
    {grad_sum}
    {gradients}
    {num_threads}
    {backward_selection}

    Returns
    -------
    {returns_gradients}

    Raises
    ------
    {raises}

    Notes
    -----
    Ba, Kiros, Hinton: Layer Normalization, arXiv:1607.06450. Formula, accuracy and cost as for `normalize_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[0.0, 0.0, 2.0, 2.0]])
    >>> grad_output = np.array([[4.0, 0.0, 0.0, 0.0]])
    >>> g = anynorm.layer_norm_backward(grad_output, x, (4,), np.ones(4), np.zeros(4), 0.0)
    >>> g.grad_input
    array([[ 2., -2.,  0.,  0.]])
    >>> g.grad_weight, g.grad_bias
    (array([-4.,  0.,  0.,  0.]), array([4., 0., 0., 0.]))

    The moments of the forward call need not be computed again:

    >>> y, moments = anynorm.layer_norm(x, eps=0, return_moments=True)
    >>> anynorm.layer_norm_backward(grad_output, x, eps=0, moments=moments).grad_input
    array([[ 2., -2.,  0.,  0.]])
    """
    arguments = (
        grad_output, x, normalized_shape, weight, bias, eps, axis, moments, activation, grad_sum, grad_input, grad_weight,
        grad_bias, num_threads,
    )  # fmt: skip
    return cast(
        Gradients,
        _sets.by_axes(
            "layer_norm_backward",
            arguments,
            Selection(labels, num_groups, segments, where, sample_weight, excluded, nan_policy),
            _sets.trailing(normalized_shape, axis),
        ),
    )


@compiled
@documented(
    shape="Any shape of 1 to 16 axes.",
    weight_shape="Shape of `x` along the normalized axes, in ascending order of the axes.",
    sets="of the shape of `x` without the normalized axes, or with them at length 1.",
)
def rms_norm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    normalized_shape: Lengths | None = None,
    weight: npt.ArrayLike | None = None,
    eps: float | None = None,
    *,
    axis: Axis | None = None,
    moments: Moments | None = None,
    activation: Activation | None = None,
    grad_sum: npt.ArrayLike | None = None,
    grad_input: Wanted = True,
    grad_weight: Wanted | None = None,
    num_threads: SupportsIndex | None = None,
    labels: npt.ArrayLike | None = None,
    num_groups: SupportsIndex | None = None,
    segments: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
) -> Gradients:
    """Compute the gradients of `rms_norm` for `grad_output`, the gradient of its result.

    Parameters
    ----------
    {grad_output}
    {x}
    {normalized_shape}
    {weight}
    eps : float, optional
        As in the forward call. Left out: the machine epsilon of float64 for `x` of float64, else that of float32.
    {axis}
    {saved_moments}
    {undone_activation}
    {grad_sum}
    {grad_input}
    grad_weight : bool or ndarray of float16, bfloat16, float32 or float64, optional
        Likewise for `weight`, in its shape and dtype. Left out: True if `weight` is given. True without it is the
        gradient of a weight that is 1, in the dtype of `x`.
    {num_threads}
    {backward_selection}

    Returns
    -------
    Gradients
        ``(grad_input, grad_weight, None)``, with None also for what was not computed.

    Raises
    ------
    {raises}

    Notes
    -----
    Zhang, Sennrich: Root Mean Square Layer Normalization, arXiv:1910.07467. Formula, accuracy and cost as for
    `normalize_backward` with `center` False.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[1.0, 1.0], [2.0, -2.0]])
    >>> anynorm.rms_norm_backward(np.array([[2.0, 0.0], [4.0, 0.0]]), x, eps=0).grad_input
    array([[ 1., -1.],
           [ 1.,  1.]])
    """
    arguments = (
        grad_output, x, normalized_shape, weight, eps, axis, moments, activation, grad_sum, grad_input, grad_weight,
        num_threads,
    )  # fmt: skip
    return cast(
        Gradients,
        _sets.by_axes(
            "rms_norm_backward",
            arguments,
            Selection(labels, num_groups, segments, where, sample_weight, excluded, nan_policy),
            _sets.trailing(normalized_shape, axis),
        ),
    )
