# SPDX-License-Identifier: Apache-2.0
"""Batch renormalization: batch norm that trains small batches with what inference will use."""

from __future__ import annotations

from typing import Literal, SupportsIndex, Unpack, cast, overload

import numpy as np
import numpy.typing as npt

from anynorm import _sets
from anynorm._gradients import Gradients
from anynorm._moments import Moments
from anynorm._selection import Selection
from anynorm._shared import (
    Array,
    Excluded,
    MaskTail,
    NanPolicy,
    NonFinite,
    OneElement,
    PlainTail,
    RunningOptions,
    Wanted,
    compiled,
    documented,
)


class RenormTail(PlainTail, RunningOptions, MaskTail, total=False):
    """The keyword arguments of `batch_renorm`."""

    channel_axis: SupportsIndex
    r_max: float
    d_max: float


@overload
def batch_renorm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.01,
    eps: float = 1e-5,
    *,
    return_moments: Literal[False] = False,
    **tail: Unpack[RenormTail],
) -> Array: ...
@overload
def batch_renorm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.01,
    eps: float = 1e-5,
    *,
    return_moments: Literal[True],
    **tail: Unpack[RenormTail],
) -> tuple[Array, Moments]: ...
@compiled
@documented(
    shape="Shape (N, C, ...), or with C where `channel_axis` says; 2 to 16 axes.",
    weight_shape="Shape (C,).",
    sets="of shape (C,).",
    one_element="ValueError",
    alone_result="``d * weight + bias``, since an element is its own mean",
)
def batch_renorm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.01,
    eps: float = 1e-5,
    *,
    r_max: float = 3.0,
    d_max: float = 5.0,
    channel_axis: SupportsIndex = 1,
    num_batches: npt.NDArray[np.int64] | None = None,
    correction: float = 1.0,
    pooled: Moments | None = None,
    nonfinite: NonFinite = "warn",
    one_element: OneElement = "raise",
    moments: Moments | None = None,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    return_moments: bool = False,
    num_threads: SupportsIndex | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
) -> Array | tuple[Array, Moments]:
    """Normalize each channel over everything else, corrected towards the running statistics when training.

    ``y = ((x - mean) / sigma * r + d) * weight + bias`` with ``r = clip(sigma / running_sigma, 1 / r_max, r_max)`` and
    ``d = clip((mean - running_mean) / running_sigma, -d_max, d_max)``, where ``sigma = sqrt(var + eps)`` and the
    running statistics are those from before the call. Where nothing is clipped, this is what inference gives.

    Parameters
    ----------
    {x}
    running_mean, running_var : ndarray of float32 or float64
        Shape (C,). Updated in place if `training`, and then nothing but a writeable ndarray will do.
    {weight}
    {bias}
    training : bool, default False
        True: normalize with the statistics of `x`, corrected by r and d, and update the running ones. False: normalize
        with the running statistics, or with `moments`, as `batch_norm` does.
    momentum : float or None, default 0.01
        The share of the new value, which is small because r and d lean on the running statistics. None: the average
        over all batches, which needs `num_batches`.
    {eps}
    r_max : float, default 3
        At least 1. The paper begins with 1 and goes to 3 within 40,000 steps.
    d_max : float, default 5
        At least 0. The paper begins with 0 and goes to 5 within 25,000 steps. With ``r_max=1`` and ``d_max=0`` the
        result is that of `batch_norm`, to the bit.
    {channel_axis}
    {running_options}
    {plain_tail}
    {mask}

    Returns
    -------
    {plain_returns}

    Raises
    ------
    {raises}
    {not_finite}

    Notes
    -----
    Ioffe: Batch Renormalization, arXiv:1702.03275. The paper averages sigma, here it is the variance that is averaged,
    so that a model can go from `batch_norm` to this and back. Keras' ``eps`` is 1e-3. Accuracy as for `normalize`;
    reads `x` once more, since r and d must be known before anything is written.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[1.0], [3.0]])
    >>> mean, var = np.array([1.0]), np.array([4.0])
    >>> anynorm.batch_renorm(x, mean, var, training=True, eps=0).T  # (x - running_mean) / running_sigma
    array([[0., 1.]])
    >>> mean, var
    (array([1.01]), array([3.98]))
    """
    arguments = (
        x, running_mean, running_var, weight, bias, training, momentum, eps, r_max, d_max, channel_axis, num_batches,
        correction, pooled, nonfinite, one_element, moments, out, dtype, return_moments, num_threads,
    )  # fmt: skip
    selection = Selection(None, None, None, where, sample_weight, excluded, nan_policy)
    return cast(
        Array | tuple[Array, Moments],
        _sets.by_axes("batch_renorm", arguments, selection, _sets.Channels(channel_axis, True)),
    )


@compiled
@documented(
    shape="Shape (N, C, ...), or with C where `channel_axis` says; 2 to 16 axes.",
    weight_shape="Shape (C,).",
    sets="of shape (C,).",
    alone="True where the parameter is not given is the gradient of one that is 1 or 0, in the dtype of `x`.",
)
def batch_renorm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.01,
    eps: float = 1e-5,
    *,
    r_max: float = 3.0,
    d_max: float = 5.0,
    channel_axis: SupportsIndex = 1,
    moments: Moments | None = None,
    grad_input: Wanted = True,
    grad_weight: Wanted | None = None,
    grad_bias: Wanted | None = None,
    num_threads: SupportsIndex | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
) -> Gradients:
    """Compute the gradients of `batch_renorm` for `grad_output`; r and d are constants, as in the paper.

    Parameters
    ----------
    {grad_output}
    {x}
    running_mean, running_var : array_like of float32 or float64
        Shape (C,), *as they were before the forward call*, which updates them and so changes r and d. Never changed
        here. Copies will do, or a forward call with ``momentum=0`` and `update_running` after this one.
    {weight}
    {bias_shape}
    training : bool, default False
        As in the forward call. False: the running statistics, or `moments`, are constants, and no gradient flows
        through them.
    momentum : float or None, default 0.01
        As in the forward call; not used.
    {eps}
    r_max, d_max : float, default 3 and 5
        As in the forward call.
    {channel_axis}
    {saved_moments}
    {gradients}
    {num_threads}
    {backward_mask}

    Returns
    -------
    {returns_gradients}

    Raises
    ------
    {raises}

    Notes
    -----
    Ioffe: Batch Renormalization, arXiv:1702.03275. Accuracy and cost as for `normalize_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[0.0], [0.0], [2.0], [2.0]])
    >>> grad_output = np.array([[4.0], [0.0], [0.0], [0.0]])
    >>> mean, var = np.zeros(1), np.full(1, 4.0)
    >>> y, used = anynorm.batch_renorm(x, mean, var, training=True, momentum=0, eps=0, return_moments=True)
    >>> anynorm.batch_renorm_backward(grad_output, x, mean, var, training=True, eps=0, moments=used).grad_input.T
    array([[ 1., -1.,  0.,  0.]])
    >>> anynorm.update_running(mean, var, used, momentum=0.01)
    """
    arguments = (
        grad_output, x, running_mean, running_var, weight, bias, training, momentum, eps, r_max, d_max, channel_axis,
        moments, grad_input, grad_weight, grad_bias, num_threads,
    )  # fmt: skip
    selection = Selection(None, None, None, where, sample_weight, excluded, nan_policy)
    return cast(
        Gradients,
        _sets.by_axes("batch_renorm_backward", arguments, selection, _sets.Channels(channel_axis, True)),
    )
