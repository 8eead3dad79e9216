# SPDX-License-Identifier: Apache-2.0
"""The engine: statistics of any sets, and normalization by them."""

from __future__ import annotations

from typing import Any, Literal, SupportsIndex, Unpack, cast, overload

import numpy.typing as npt

from anynorm import _sets
from anynorm._moments import Moments
from anynorm._selection import Selection
from anynorm._shared import Activation, Array, Axis, EngineTail, Excluded, NanPolicy, Result, Sets, compiled, documented

# Only patterns, selections and containers run the bodies of these functions: see `compiled`.


@compiled
@documented(shape="Any shape of at most 16 axes.")
def moments(
    x: npt.ArrayLike,
    axis: Sets | None = None,
    *,
    keepdims: bool = False,
    num_threads: SupportsIndex | None = None,
    labels: npt.ArrayLike | None = None,
    num_groups: SupportsIndex | None = None,
    segments: npt.ArrayLike | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    nan_policy: NanPolicy = "propagate",
    **sizes: SupportsIndex,
) -> Moments:
    """Compute count, mean and sum of squared deviations along `axis`, in one read of `x`.

    Parameters
    ----------
    {x}
    axis : int, tuple of ints or str, optional
        The axes to reduce; all of them by default, as in ``numpy.mean``.
    {pattern}
    keepdims : bool, default False
        Keep the reduced axes with length 1, so that the result broadcasts against `x`.
    {num_threads}
    {moments_selection}
    {sizes}

    Returns
    -------
    Moments
        ``count``, ``mean`` and ``mean_low``, ``m2``, and from them ``var()``, ``std()`` and ``rstd(eps)``; all in float64.

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

    By a pattern, here of groups of channels:

    >>> anynorm.moments(np.ones((8, 6, 5, 5)), "n (g c) h w -> g n", g=2).shape
    (2, 8)
    """
    selection = Selection(labels, num_groups, segments, where, sample_weight, "zero", nan_policy)
    return cast(Moments, _sets.by_pattern("moments", (x, axis, keepdims, num_threads), None, sizes, selection))


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
    **tail: Unpack[EngineTail],
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
    **tail: Unpack[EngineTail],
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
    **tail: Unpack[EngineTail],
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
    **tail: Unpack[EngineTail],
) -> tuple[Array, Array, Moments]: ...
@overload
def normalize(
    x: npt.ArrayLike, axis: str, *, residual: None = None, return_moments: Literal[False] = False, **options: Any
) -> Array: ...
@overload
def normalize(
    x: npt.ArrayLike, axis: str, *, residual: None = None, return_moments: Literal[True], **options: Any
) -> tuple[Array, Moments]: ...
@overload
def normalize(
    x: npt.ArrayLike, axis: str, *, residual: npt.ArrayLike, return_moments: Literal[False] = False, **options: Any
) -> tuple[Array, Array]: ...
@overload
def normalize(
    x: npt.ArrayLike, axis: str, *, residual: npt.ArrayLike, return_moments: Literal[True], **options: Any
) -> tuple[Array, Array, Moments]: ...
@compiled
@documented(
    shape="Any shape of at most 16 axes.",
    weight_shape="Any shape that broadcasts against `x` by NumPy's rules.",
    sets="of the shape of `x` without `axis`, or with it at length 1.",
)
def normalize(
    x: npt.ArrayLike,
    axis: Sets | None,
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
    parameters: str | None = None,
    **sizes: SupportsIndex,
) -> Result:
    """Normalize `x` along `axis`: ``(x - mean) / sqrt(var + eps) * weight + bias``.

    Every norm of this package is this function with its own choice of axes.

    Parameters
    ----------
    {x}
    axis : int, tuple of ints, str or None
        The axes along which elements share a mean and a variance; None for all of them.
    {pattern}
    {weight}
    {bias}
    {eps}
    center : bool, default True
        False holds the mean at 0, as RMS norm does.
    {tail}
    {selection}
    {parameters}
    {sizes}

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

    Group norm as a pattern, with a weight for every channel:

    >>> images = np.ones((8, 6, 5, 5))
    >>> anynorm.normalize(images, "n (g c) h w -> n g", g=2, weight=np.ones(6), parameters="(g c)").shape
    (8, 6, 5, 5)
    >>> anynorm.normalize(images, "n h w c -> n k")
    Traceback (most recent call last):
    ValueError: normalize: pattern 'n h w c -> n k': expected the axes before the arrow, got k
      n h w c -> n k
                   ^
    """
    arguments = (
        x, axis, weight, bias, eps, center, moments, residual, activation,
        out, sum_out, dtype, out_scale, out_zero_point, return_moments, num_threads,
    )  # fmt: skip
    selection = Selection(labels, num_groups, segments, where, sample_weight, excluded, nan_policy)
    return cast(Result, _sets.by_pattern("normalize", arguments, parameters, sizes, selection))
