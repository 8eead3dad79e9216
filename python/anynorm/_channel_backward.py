# SPDX-License-Identifier: Apache-2.0
"""Gradients of the norms of data with samples and channels."""

from __future__ import annotations

from typing import SupportsIndex, cast

import numpy.typing as npt

from anynorm import _sets
from anynorm._gradients import Gradients
from anynorm._moments import Moments
from anynorm._selection import Selection
from anynorm._shared import Activation, Excluded, NanPolicy, Wanted, compiled, documented

_ALONE = "True where the parameter is not given is the gradient of one that is 1 or 0, in the dtype of `x`."


@compiled
@documented(
    shape="Shape (N, C, ...), or with C where `channel_axis` says; 2 to 15 axes.",
    weight_shape="Shape (C,).",
    sets="of shape (N, num_groups).",
    alone=_ALONE,
)
def group_norm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    num_groups: SupportsIndex,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    channel_axis: SupportsIndex = 1,
    moments: Moments | None = None,
    activation: Activation | None = None,
    grad_sum: npt.ArrayLike | None = None,
    grad_input: Wanted = True,
    grad_weight: Wanted | None = None,
    grad_bias: Wanted | None = None,
    num_threads: SupportsIndex | None = None,
    labels: npt.ArrayLike | None = None,
    segments: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
) -> Gradients:
    """Compute the gradients of `group_norm` for `grad_output`, the gradient of its result.

    Parameters
    ----------
    {grad_output}
    {x}
    num_groups : int
        As in the forward call.
    {weight}
    {bias_shape}
    {eps}
    {channel_axis}
    {saved_moments}
    {undone_activation}
    {grad_sum}
    {gradients}
    {num_threads}
    {group_backward_selection}

    Returns
    -------
    {returns_gradients}

    Raises
    ------
    {raises}

    Notes
    -----
    Wu, He: Group Normalization, arXiv:1803.08494. Formula, accuracy and cost as for `normalize_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[0.0, 0.0, 2.0, 2.0, 1.0, 3.0, 1.0, 3.0]])
    >>> grad_output = np.array([[4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0]])
    >>> anynorm.group_norm_backward(grad_output, x, 2, eps=0).grad_input
    array([[ 2., -2.,  0.,  0.,  0., -2.,  0.,  2.]])
    """
    arguments = (
        grad_output, x, num_groups, weight, bias, eps, channel_axis, moments, activation, grad_sum, grad_input,
        grad_weight, grad_bias, num_threads,
    )  # fmt: skip
    return cast(
        Gradients,
        _sets.by_axes(
            "group_norm_backward",
            arguments,
            Selection(labels, None, segments, where, sample_weight, excluded, nan_policy),
            _sets.Channels(channel_axis, False),
        ),
    )


@compiled
@documented(
    shape="Shape (N, C, ...), or with C where `channel_axis` says; 2 to 16 axes.",
    weight_shape="Shape (C,).",
    sets="of shape (N, C).",
    reads="`use_input_stats`",
    alone=_ALONE,
)
def instance_norm_backward(
    grad_output: npt.ArrayLike,
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
    """Compute the gradients of `instance_norm` for `grad_output`, the gradient of its result.

    Parameters
    ----------
    {grad_output}
    {x}
    {read_running}
    {weight}
    {bias_shape}
    use_input_stats : bool, default True
        As in the forward call. False: the running statistics, or `moments`, are constants, and no gradient flows
        through them.
    {unused_momentum}
    {eps}
    {channel_axis}
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
    Ulyanov, Vedaldi, Lempitsky: Instance Normalization, arXiv:1607.08022. Formula, accuracy and cost as for
    `normalize_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[[0.0, 0.0, 2.0, 2.0], [1.0, 3.0, 1.0, 3.0]]])
    >>> grad_output = np.array([[[4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 4.0]]])
    >>> anynorm.instance_norm_backward(grad_output, x, eps=0).grad_input
    array([[[ 2., -2.,  0.,  0.],
            [ 0., -2.,  0.,  2.]]])
    """
    arguments = (
        grad_output, x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, channel_axis, moments,
        activation, grad_sum, grad_input, grad_weight, grad_bias, num_threads,
    )  # fmt: skip
    return cast(
        Gradients,
        _sets.by_axes(
            "instance_norm_backward",
            arguments,
            Selection(labels, num_groups, segments, where, sample_weight, excluded, nan_policy),
            _sets.Channels(channel_axis, False),
        ),
    )


@compiled
@documented(
    shape="Shape (N, C, ...), or with C where `channel_axis` says; 2 to 16 axes.",
    weight_shape="Shape (C,).",
    sets="of shape (C,).",
    reads="`training`",
    alone=_ALONE,
)
def batch_norm_backward(
    grad_output: npt.ArrayLike,
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
    """Compute the gradients of `batch_norm` for `grad_output`, the gradient of its result.

    Parameters
    ----------
    {grad_output}
    {x}
    {read_running}
    {weight}
    {bias_shape}
    training : bool, default False
        As in the forward call. False: the running statistics, or `moments`, are constants, and no gradient flows
        through them.
    {unused_momentum}
    {eps}
    {channel_axis}
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
    Ioffe, Szegedy: Batch Normalization, arXiv:1502.03167. Formula, accuracy and cost as for `normalize_backward`.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[0.0], [0.0], [2.0], [2.0]])
    >>> grad_output = np.array([[4.0], [0.0], [0.0], [0.0]])
    >>> anynorm.batch_norm_backward(grad_output, x, training=True, eps=0).grad_input.T
    array([[ 2., -2.,  0.,  0.]])

    Constant statistics only scale:

    >>> anynorm.batch_norm_backward(grad_output, x, np.zeros(1), np.full(1, 4.0), eps=0).grad_input.T
    array([[2., 0., 0., 0.]])
    """
    arguments = (
        grad_output, x, running_mean, running_var, weight, bias, training, momentum, eps, channel_axis, moments,
        activation, grad_sum, grad_input, grad_weight, grad_bias, num_threads,
    )  # fmt: skip
    return cast(
        Gradients,
        _sets.by_axes(
            "batch_norm_backward",
            arguments,
            Selection(labels, num_groups, segments, where, sample_weight, excluded, nan_policy),
            _sets.Channels(channel_axis, True),
        ),
    )
