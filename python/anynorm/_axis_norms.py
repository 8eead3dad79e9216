# SPDX-License-Identifier: Apache-2.0
"""The norms whose sets are named by axes."""

from __future__ import annotations

from typing import Literal, SupportsIndex, Unpack, cast, overload

import numpy.typing as npt

from anynorm import _sets
from anynorm._moments import Moments
from anynorm._selection import Selection
from anynorm._shared import (
    Activation,
    Array,
    Axis,
    AxisTail,
    Excluded,
    Lengths,
    NanPolicy,
    Result,
    compiled,
    documented,
)

# Only selections and containers run the bodies of these functions: see `compiled`.


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
    {selection}

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
    arguments = (
        x, normalized_shape, weight, bias, eps, axis, moments, residual, activation,
        out, sum_out, dtype, out_scale, out_zero_point, return_moments, num_threads,
    )  # fmt: skip
    return cast(
        Result,
        _sets.by_axes(
            "layer_norm",
            arguments,
            Selection(labels, num_groups, segments, where, sample_weight, excluded, nan_policy),
            _sets.trailing(normalized_shape, axis),
        ),
    )


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
    {selection}

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
    arguments = (
        x, normalized_shape, weight, eps, axis, moments, residual, activation,
        out, sum_out, dtype, out_scale, out_zero_point, return_moments, num_threads,
    )  # fmt: skip
    return cast(
        Result,
        _sets.by_axes(
            "rms_norm",
            arguments,
            Selection(labels, num_groups, segments, where, sample_weight, excluded, nan_policy),
            _sets.trailing(normalized_shape, axis),
        ),
    )
