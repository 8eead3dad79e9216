# SPDX-License-Identifier: Apache-2.0
"""The norms of data with samples and channels.

Two conventions differ between libraries; here both are PyTorch's by default. *momentum* is the share of the new value
(Keras, Flax and ONNX mean the share of the old one). The running *variance* is the unbiased one (the others keep that
of the population, ``correction=0``).
"""

from __future__ import annotations

from typing import Literal, SupportsIndex, Unpack, cast, overload

import numpy as np
import numpy.typing as npt

from anynorm import _sets
from anynorm._moments import Moments
from anynorm._selection import Selection
from anynorm._shared import (
    Activation,
    Array,
    ChannelTail,
    Excluded,
    NanPolicy,
    NonFinite,
    OneElement,
    Result,
    RunningTail,
    compiled,
    documented,
)


@overload
def group_norm(
    x: npt.ArrayLike,
    num_groups: SupportsIndex,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    residual: None = None,
    return_moments: Literal[False] = False,
    **tail: Unpack[ChannelTail],
) -> Array: ...
@overload
def group_norm(
    x: npt.ArrayLike,
    num_groups: SupportsIndex,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    residual: None = None,
    return_moments: Literal[True],
    **tail: Unpack[ChannelTail],
) -> tuple[Array, Moments]: ...
@overload
def group_norm(
    x: npt.ArrayLike,
    num_groups: SupportsIndex,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    residual: npt.ArrayLike,
    return_moments: Literal[False] = False,
    **tail: Unpack[ChannelTail],
) -> tuple[Array, Array]: ...
@overload
def group_norm(
    x: npt.ArrayLike,
    num_groups: SupportsIndex,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    residual: npt.ArrayLike,
    return_moments: Literal[True],
    **tail: Unpack[ChannelTail],
) -> tuple[Array, Array, Moments]: ...
@compiled
@documented(
    shape="Shape (N, C, ...), or with C where `channel_axis` says; 2 to 15 axes.",
    weight_shape="Shape (C,).",
    sets="of shape (N, num_groups).",
)
def group_norm(
    x: npt.ArrayLike,
    num_groups: SupportsIndex,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    channel_axis: SupportsIndex = 1,
    moments: Moments | None = None,
    residual: npt.ArrayLike | None = None,
    activation: Activation | None = None,
    out: Array | None = None,
    sum_out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    out_scale: npt.ArrayLike | None = None,
    out_zero_point: npt.ArrayLike = 0,
    return_moments: bool = False,
    num_threads: SupportsIndex | None = None,
    labels: npt.ArrayLike | None = None,
    segments: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
) -> Result:
    """Normalize each sample over groups of consecutive channels.

    Parameters
    ----------
    {x}
    num_groups : int
        A divisor of the number of channels; 1 makes one group of all channels.
    {weight}
    {bias}
    {eps}
    {channel_axis}
    {tail}
    {group_selection}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}

    Notes
    -----
    Wu, He: Group Normalization, arXiv:1803.08494. Accuracy and cost as for `normalize`.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[1.0, 3.0, 10.0, 30.0]])
    >>> anynorm.group_norm(x, 2, eps=0)
    array([[-1.,  1., -1.,  1.]])
    """
    arguments = (
        x, num_groups, weight, bias, eps, channel_axis, moments, residual, activation,
        out, sum_out, dtype, out_scale, out_zero_point, return_moments, num_threads,
    )  # fmt: skip
    return cast(
        Result,
        _sets.by_axes(
            "group_norm",
            arguments,
            Selection(labels, None, segments, where, sample_weight, excluded, nan_policy),
            _sets.Channels(channel_axis, False),
        ),
    )


@overload
def instance_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    use_input_stats: bool = True,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    residual: None = None,
    return_moments: Literal[False] = False,
    **tail: Unpack[RunningTail],
) -> Array: ...
@overload
def instance_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    use_input_stats: bool = True,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    residual: None = None,
    return_moments: Literal[True],
    **tail: Unpack[RunningTail],
) -> tuple[Array, Moments]: ...
@overload
def instance_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    use_input_stats: bool = True,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    residual: npt.ArrayLike,
    return_moments: Literal[False] = False,
    **tail: Unpack[RunningTail],
) -> tuple[Array, Array]: ...
@overload
def instance_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    use_input_stats: bool = True,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    residual: npt.ArrayLike,
    return_moments: Literal[True],
    **tail: Unpack[RunningTail],
) -> tuple[Array, Array, Moments]: ...
@compiled
@documented(
    shape="Shape (N, C, ...), or with C where `channel_axis` says; 2 to 16 axes.",
    weight_shape="Shape (C,).",
    sets="of shape (N, C).",
    updates="`use_input_stats`",
    one_element="ValueError, where there is a `running_var` to update; else the result is `bias`",
    alone_result="exactly `bias`",
)
def instance_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    use_input_stats: bool = True,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: SupportsIndex = 1,
    num_batches: npt.NDArray[np.int64] | None = None,
    correction: float = 1.0,
    pooled: Moments | None = None,
    nonfinite: NonFinite = "warn",
    one_element: OneElement = "raise",
    moments: Moments | None = None,
    residual: npt.ArrayLike | None = None,
    activation: Activation | None = None,
    out: Array | None = None,
    sum_out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    out_scale: npt.ArrayLike | None = None,
    out_zero_point: npt.ArrayLike = 0,
    return_moments: bool = False,
    num_threads: SupportsIndex | None = None,
    labels: npt.ArrayLike | None = None,
    num_groups: SupportsIndex | None = None,
    segments: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
) -> Result:
    """Normalize each channel of each sample.

    `momentum` is the share of the new value (Keras, Flax and ONNX: of the old one), and the running variance is the
    unbiased one by default (there: that of the population).

    Parameters
    ----------
    {x}
    {running}
    {weight}
    {bias}
    use_input_stats : bool, default True
        True: normalize with the statistics of `x`, and update the running ones with their average over the samples.
        False: normalize with the running statistics.
    {momentum}
    {eps}
    {channel_axis}
    {running_options}
    {tail}
    {selection}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}
    {not_finite}

    Notes
    -----
    `pooled` holds the moments of all samples of a channel; ``batch_norm(x, moments=pooled)`` normalizes with them.

    Ulyanov, Vedaldi, Lempitsky: Instance Normalization, arXiv:1607.08022. Accuracy and cost as for `normalize`.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[[1.0, 3.0], [10.0, 30.0]]])
    >>> anynorm.instance_norm(x, eps=0)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    arguments = (
        x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, channel_axis,
        num_batches, correction, pooled, nonfinite, one_element,
        moments, residual, activation, out, sum_out, dtype, out_scale, out_zero_point, return_moments, num_threads,
    )  # fmt: skip
    return cast(
        Result,
        _sets.by_axes(
            "instance_norm",
            arguments,
            Selection(labels, num_groups, segments, where, sample_weight, excluded, nan_policy),
            _sets.Channels(channel_axis, False),
        ),
    )


@overload
def batch_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    residual: None = None,
    return_moments: Literal[False] = False,
    **tail: Unpack[RunningTail],
) -> Array: ...
@overload
def batch_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    residual: None = None,
    return_moments: Literal[True],
    **tail: Unpack[RunningTail],
) -> tuple[Array, Moments]: ...
@overload
def batch_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    residual: npt.ArrayLike,
    return_moments: Literal[False] = False,
    **tail: Unpack[RunningTail],
) -> tuple[Array, Array]: ...
@overload
def batch_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    residual: npt.ArrayLike,
    return_moments: Literal[True],
    **tail: Unpack[RunningTail],
) -> tuple[Array, Array, Moments]: ...
@compiled
@documented(
    shape="Shape (N, C, ...), or with C where `channel_axis` says; 2 to 16 axes.",
    weight_shape="Shape (C,).",
    sets="of shape (C,).",
    updates="`training`",
    one_element="ValueError",
    alone_result="exactly `bias`",
)
def batch_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None = None,
    running_var: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: SupportsIndex = 1,
    num_batches: npt.NDArray[np.int64] | None = None,
    correction: float = 1.0,
    pooled: Moments | None = None,
    nonfinite: NonFinite = "warn",
    one_element: OneElement = "raise",
    moments: Moments | None = None,
    residual: npt.ArrayLike | None = None,
    activation: Activation | None = None,
    out: Array | None = None,
    sum_out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    out_scale: npt.ArrayLike | None = None,
    out_zero_point: npt.ArrayLike = 0,
    return_moments: bool = False,
    num_threads: SupportsIndex | None = None,
    labels: npt.ArrayLike | None = None,
    num_groups: SupportsIndex | None = None,
    segments: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
) -> Result:
    """Normalize each channel over everything else.

    `momentum` is the share of the new value (Keras, Flax and ONNX: of the old one), and the running variance is the
    unbiased one by default (there: that of the population).

    Parameters
    ----------
    {x}
    {running}
    {weight}
    {bias}
    training : bool, default False
        True: normalize with the statistics of `x`, and update the running ones, if there are any. False: normalize
        with the running statistics, which must be given, or with `moments`.
    {momentum}
    {eps}
    {channel_axis}
    {running_options}
    {tail}
    {selection}

    Returns
    -------
    {returns}

    Raises
    ------
    {raises}
    {not_finite}

    Notes
    -----
    Ioffe, Szegedy: Batch Normalization, arXiv:1502.03167. Accuracy and cost as for `normalize`.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> anynorm.batch_norm(x, mean, var, training=True, eps=0)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> mean, var
    (array([0.2, 2. ]), array([ 1.1, 20.9]))
    >>> anynorm.batch_norm(np.array([[0.2, 2.0]]), mean, var)
    array([[0., 0.]])

    Exact statistics of all batches, to normalize with:

    >>> pooled = anynorm.Moments.empty(2)
    >>> for batch in (x, x + 10):
    ...     _ = anynorm.batch_norm(batch, training=True, pooled=pooled)
    >>> pooled.mean, pooled.var()
    (array([ 7., 25.]), array([ 26., 125.]))
    >>> anynorm.batch_norm(np.array([[7.0, 25.0]]), moments=pooled)
    array([[0., 0.]])
    """
    arguments = (
        x, running_mean, running_var, weight, bias, training, momentum, eps, channel_axis,
        num_batches, correction, pooled, nonfinite, one_element,
        moments, residual, activation, out, sum_out, dtype, out_scale, out_zero_point, return_moments, num_threads,
    )  # fmt: skip
    return cast(
        Result,
        _sets.by_axes(
            "batch_norm",
            arguments,
            Selection(labels, num_groups, segments, where, sample_weight, excluded, nan_policy),
            _sets.Channels(channel_axis, True),
        ),
    )
