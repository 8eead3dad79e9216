# SPDX-License-Identifier: Apache-2.0
"""The engine, and the norms whose sets are named by axes."""

from __future__ import annotations

from typing import Literal, SupportsIndex, Unpack, overload

import numpy.typing as npt

from anynorm import _core
from anynorm._moments import Moments
from anynorm._shared import Activation, Array, Axis, AxisTail, Lengths, Result, Tail, compiled, documented

# The bodies of these functions say what a call does and are not run: see `compiled`.


@compiled
@documented(shape="Any shape of at most 16 axes.")
def moments(
    x: npt.ArrayLike,
    axis: Axis | None = None,
    *,
    keepdims: bool = False,
    num_threads: SupportsIndex | None = None,
) -> Moments:
    """Compute count, mean and sum of squared deviations along `axis`, in one read of `x`.

    Parameters
    ----------
    {x}
    axis : int or tuple of ints, optional
        The axes to reduce; all of them by default, as in ``numpy.mean``.
    keepdims : bool, default False
        Keep the reduced axes with length 1, so that the result broadcasts against `x`.
    num_threads : int, optional
        As many as OpenMP would use by default, less those that other calls are using. The result does not depend on it.

    Returns
    -------
    Moments
        ``count``, ``mean``, ``m2``, and from them ``var()``, ``std()`` and ``rstd(eps)``; all in float64.

    Raises
    ------
    {raises}

    Notes
    -----
    Deviations are summed in float64 around an element near by (Welford 1962; Chan, Golub, LeVeque 1983), so that a mean
    which is large against the deviation costs no digits. Reads `x` once, without copies. A value that is not finite
    spoils only the set it belongs to.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[1.0, 2.0, 3.0], [4.0, 6.0, 8.0]], dtype=np.float32)
    >>> m = anynorm.moments(x, axis=1)
    >>> m.mean
    array([2., 6.])
    >>> m.var(correction=1)
    array([1., 4.])
    """
    return _core.moments(x, axis, keepdims, num_threads)


@overload
def normalize(
    x: npt.ArrayLike,
    axis: Axis | None,
    *,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    center: bool = True,
    residual: None = None,
    return_moments: Literal[False] = False,
    **tail: Unpack[Tail],
) -> Array: ...
@overload
def normalize(
    x: npt.ArrayLike,
    axis: Axis | None,
    *,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    center: bool = True,
    residual: None = None,
    return_moments: Literal[True],
    **tail: Unpack[Tail],
) -> tuple[Array, Moments]: ...
@overload
def normalize(
    x: npt.ArrayLike,
    axis: Axis | None,
    *,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    center: bool = True,
    residual: npt.ArrayLike,
    return_moments: Literal[False] = False,
    **tail: Unpack[Tail],
) -> tuple[Array, Array]: ...
@overload
def normalize(
    x: npt.ArrayLike,
    axis: Axis | None,
    *,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    center: bool = True,
    residual: npt.ArrayLike,
    return_moments: Literal[True],
    **tail: Unpack[Tail],
) -> tuple[Array, Array, Moments]: ...
@compiled
@documented(
    shape="Any shape of at most 16 axes.",
    weight_shape="Any shape that broadcasts against `x` by NumPy's rules.",
    sets="of the shape of `x` without `axis`, or with it at length 1.",
)
def normalize(
    x: npt.ArrayLike,
    axis: Axis | None,
    *,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    center: bool = True,
    moments: Moments | None = None,
    residual: npt.ArrayLike | None = None,
    activation: Activation | None = None,
    out: Array | None = None,
    sum_out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    out_scale: float | None = None,
    out_zero_point: SupportsIndex = 0,
    return_moments: bool = False,
    num_threads: SupportsIndex | None = None,
) -> Result:
    """Normalize `x` along `axis`: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Every norm of this package is this function with its own choice of axes.

    Parameters
    ----------
    {x}
    axis : int or tuple of ints or None
        The axes along which elements share a mean and a variance; None for all of them.
    {weight}
    {bias}
    {eps}
    center : bool, default True
        False holds the mean at 0, as RMS norm does.
    {tail}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    The variance is that of the population. Computed in float64 if `x` or the result is, else in float32 with float64
    statistics; float32 results are within 2e-6 at any mean where they are below 10 before `weight` and `bias`, and a
    set of equal elements gives exactly `bias` if `eps` is above 0. Reads `x` once for the statistics and once to write
    the result, without copies.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[1.0, 3.0], [10.0, 30.0]])
    >>> anynorm.normalize(x, axis=1, eps=0)
    array([[-1.,  1.],
           [-1.,  1.]])

    With statistics from elsewhere, here those of the training data:

    >>> train = anynorm.moments(np.array([[0.0, 0.0], [2.0, 20.0]]), axis=0)
    >>> anynorm.normalize(x, axis=0, moments=train, eps=0)
    array([[ 0. , -0.7],
           [ 9. ,  2. ]])
    """
    return _core.normalize(
        x, axis, weight, bias, eps, center, moments, residual, activation,
        out, sum_out, dtype, out_scale, out_zero_point, return_moments, num_threads,
    )  # fmt: skip


@overload
def layer_norm(
    x: npt.ArrayLike,
    normalized_shape: Lengths | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    residual: None = None,
    return_moments: Literal[False] = False,
    **tail: Unpack[AxisTail],
) -> Array: ...
@overload
def layer_norm(
    x: npt.ArrayLike,
    normalized_shape: Lengths | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    residual: None = None,
    return_moments: Literal[True],
    **tail: Unpack[AxisTail],
) -> tuple[Array, Moments]: ...
@overload
def layer_norm(
    x: npt.ArrayLike,
    normalized_shape: Lengths | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    residual: npt.ArrayLike,
    return_moments: Literal[False] = False,
    **tail: Unpack[AxisTail],
) -> tuple[Array, Array]: ...
@overload
def layer_norm(
    x: npt.ArrayLike,
    normalized_shape: Lengths | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    residual: npt.ArrayLike,
    return_moments: Literal[True],
    **tail: Unpack[AxisTail],
) -> tuple[Array, Array, Moments]: ...
@compiled
@documented(
    shape="Any shape of 1 to 16 axes.",
    weight_shape="Shape of `x` along the normalized axes, in ascending order of the axes.",
    sets="of the shape of `x` without the normalized axes, or with them at length 1.",
)
def layer_norm(
    x: npt.ArrayLike,
    normalized_shape: Lengths | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    axis: Axis | None = None,
    moments: Moments | None = None,
    residual: npt.ArrayLike | None = None,
    activation: Activation | None = None,
    out: Array | None = None,
    sum_out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    out_scale: float | None = None,
    out_zero_point: SupportsIndex = 0,
    return_moments: bool = False,
    num_threads: SupportsIndex | None = None,
) -> Result:
    """Normalize over the last axis, or others; statistics and parameters share the same axes.

    Parameters
    ----------
    {x}
    {normalized_shape}
    {weight}
    {bias}
    {eps}
    {axis}
    {tail}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    Ba, Kiros, Hinton: Layer Normalization, arXiv:1607.06450. Accuracy and cost as for `normalize`.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[1.0, 3.0], [10.0, 30.0]])
    >>> anynorm.layer_norm(x, weight=np.array([1.0, 2.0]), eps=0)
    array([[-1.,  2.],
           [-1.,  2.]])

    A call of torch.nn.functional works as it is; so does any other axis:

    >>> anynorm.layer_norm(x, (2,), np.ones(2), np.zeros(2), 0.0)
    array([[-1.,  1.],
           [-1.,  1.]])
    >>> anynorm.layer_norm(x, axis=0, eps=0)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    return _core.layer_norm(
        x, normalized_shape, weight, bias, eps, axis, moments, residual, activation,
        out, sum_out, dtype, out_scale, out_zero_point, return_moments, num_threads,
    )  # fmt: skip


@overload
def rms_norm(
    x: npt.ArrayLike,
    normalized_shape: Lengths | None = None,
    weight: npt.ArrayLike | None = None,
    eps: float | None = None,
    *,
    residual: None = None,
    return_moments: Literal[False] = False,
    **tail: Unpack[AxisTail],
) -> Array: ...
@overload
def rms_norm(
    x: npt.ArrayLike,
    normalized_shape: Lengths | None = None,
    weight: npt.ArrayLike | None = None,
    eps: float | None = None,
    *,
    residual: None = None,
    return_moments: Literal[True],
    **tail: Unpack[AxisTail],
) -> tuple[Array, Moments]: ...
@overload
def rms_norm(
    x: npt.ArrayLike,
    normalized_shape: Lengths | None = None,
    weight: npt.ArrayLike | None = None,
    eps: float | None = None,
    *,
    residual: npt.ArrayLike,
    return_moments: Literal[False] = False,
    **tail: Unpack[AxisTail],
) -> tuple[Array, Array]: ...
@overload
def rms_norm(
    x: npt.ArrayLike,
    normalized_shape: Lengths | None = None,
    weight: npt.ArrayLike | None = None,
    eps: float | None = None,
    *,
    residual: npt.ArrayLike,
    return_moments: Literal[True],
    **tail: Unpack[AxisTail],
) -> tuple[Array, Array, Moments]: ...
@compiled
@documented(
    shape="Any shape of 1 to 16 axes.",
    weight_shape="Shape of `x` along the normalized axes, in ascending order of the axes.",
    sets="of the shape of `x` without the normalized axes, or with them at length 1. Their mean is 0.",
)
def rms_norm(
    x: npt.ArrayLike,
    normalized_shape: Lengths | None = None,
    weight: npt.ArrayLike | None = None,
    eps: float | None = None,
    *,
    axis: Axis | None = None,
    moments: Moments | None = None,
    residual: npt.ArrayLike | None = None,
    activation: Activation | None = None,
    out: Array | None = None,
    sum_out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    out_scale: float | None = None,
    out_zero_point: SupportsIndex = 0,
    return_moments: bool = False,
    num_threads: SupportsIndex | None = None,
) -> Result:
    """Divide by the root mean square over the last axis, or others: ``x / sqrt(mean(x**2) + eps) * weight``.

    Parameters
    ----------
    {x}
    {normalized_shape}
    {weight}
    eps : float, optional
        Added to the mean square; at least 0. Left out: the machine epsilon of float64 for `x` of float64, else that
        of float32, as in PyTorch.
    {axis}
    {tail}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    Zhang, Sennrich: Root Mean Square Layer Normalization, arXiv:1910.07467. Layer norm with the mean held at 0: `moments`
    that are given count with their ``m2 / count``, and their mean is ignored. Cost as for `normalize`.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> anynorm.rms_norm(np.array([[1.0, 1.0], [3.0, 3.0]]), eps=0)
    array([[1., 1.],
           [1., 1.]])
    """
    return _core.rms_norm(
        x, normalized_shape, weight, eps, axis, moments, residual, activation,
        out, sum_out, dtype, out_scale, out_zero_point, return_moments, num_threads,
    )  # fmt: skip
