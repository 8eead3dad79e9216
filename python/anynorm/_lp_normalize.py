# SPDX-License-Identifier: Apache-2.0
"""Sets divided by their norm: the sum, the root of the squares, or the maximum of their magnitudes."""

from __future__ import annotations

from typing import SupportsIndex, cast

import numpy.typing as npt

from anynorm import _sets
from anynorm._selection import Selection
from anynorm._shared import Array, Excluded, NanPolicy, Sets, compiled, documented


def _refuse(function: str, sizes: dict[str, SupportsIndex]) -> None:
    for name in ("labels", "segments", "sample_weight", "num_groups"):
        if name in sizes:
            raise TypeError(f"{function}: expected sets that axes name, and a mask thins, got {name}")


# Only patterns, masks and containers run the bodies of these functions: see `compiled`.


@compiled
@documented(shape="Any shape of at most 16 axes; `axis` must be one of them.")
def lp_normalize(
    x: npt.ArrayLike,
    p: float = 2,
    axis: Sets | None = 1,
    eps: float = 1e-12,
    *,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    num_threads: SupportsIndex | None = None,
    where: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
    **sizes: SupportsIndex,
) -> Array:
    """Divide `x` by its p-norm along `axis`: ``x / max(norm(x, p), eps)``.

    Parameters
    ----------
    {x}
    p : float, default 2
        1 for ``sum(abs(x))``, 2 for ``sqrt(sum(x**2))``, ``inf`` for ``max(abs(x))``.
    axis : int, tuple of ints, str or None, default 1
        The axes along which elements share a norm; None for all of them.
    {pattern}
    eps : float, default 1e-12
        What is divided by where the norm is smaller; at least 0.
    out : ndarray of float16, bfloat16, float32 or float64, optional
        Where to write the result: shape of `x`, any strides, `x` itself for in-place work.
    dtype : float16, bfloat16, float32 or float64, optional
        Of the result; that of `x` by default. ``"bfloat16"`` needs the package ml_dtypes, which defines it.
    {num_threads}
    {where}
    {excluded}
    {nan_policy}
    {sizes}

    Returns
    -------
    ndarray
        `out`, or a new array of the shape and memory order of `x`.

    Raises
    ------
    {raises}

    Notes
    -----
    The values of ``torch.nn.functional.normalize(x, p, dim, eps)``, over several axes too. Norms are summed in float64,
    so that squares of float32 cannot overflow. With p=2 the norm of float64 data overflows from 1e154 on, and the result
    is 0 then; below 1e-154 the squares lose digits. Scale such data by a power of two first. Where a norm of 0 meets
    ``eps=0`` the result is NaN.

    Reads `x` once for the norms and once to write the result, without copies. p=2 without a mask is RMS norm with another
    divisor, and as fast.

    With `where` the norms are those of `x` with 0 at the elements that it excludes, whatever these hold. There are no
    labels, segments and weights: a set is summed where its elements lie along axes, and one that labels name is gathered
    with ``x[labels == label]``, or a segment cut out, for a call of its own.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[3.0, -4.0], [0.0, 0.0]])
    >>> anynorm.lp_normalize(x)
    array([[ 0.6, -0.8],
           [ 0. ,  0. ]])
    >>> anynorm.lp_normalize(x, p=np.inf)
    array([[ 0.75, -1.  ],
           [ 0.  ,  0.  ]])

    Without what a mask excludes:

    >>> anynorm.lp_normalize(np.array([[3.0, -4.0, 12.0]]), where=[True, True, False])
    array([[ 0.6, -0.8,  0. ]])
    """
    _refuse("lp_normalize", sizes)
    arguments = (x, p, axis, eps, out, dtype, num_threads)
    selection = Selection(None, None, None, where, None, excluded, nan_policy)
    return cast(Array, _sets.by_pattern("lp_normalize", arguments, None, sizes, selection))


@compiled
@documented(shape="What the forward call normalized.")
def lp_normalize_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    p: float = 2,
    axis: Sets | None = 1,
    eps: float = 1e-12,
    *,
    out: Array | None = None,
    dtype: npt.DTypeLike | None = None,
    num_threads: SupportsIndex | None = None,
    where: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
    **sizes: SupportsIndex,
) -> Array:
    """Compute the gradient of `lp_normalize` for `grad_output`, the gradient of its result.

    Parameters
    ----------
    {grad_output}
    {x}
    p : float, default 2
        As in the forward call, like `axis` and `eps`.
    axis : int, tuple of ints, str or None, default 1
        As in the forward call.
    {pattern}
    eps : float, default 1e-12
        As in the forward call.
    out : ndarray of float16, bfloat16, float32 or float64, optional
        Where to write the gradient: shape of `x`, any strides, `grad_output` or `x` itself for in-place work.
    dtype : float16, bfloat16, float32 or float64, optional
        Of the result; that of `x` by default.
    {num_threads}
    where, nan_policy : optional
        As in the forward call.
    excluded : {"zero", "input", "keep"}, default "zero"
        What the gradient has at elements that are in no set: 0, `grad_output`, or what `out` holds already.
    {sizes}

    Returns
    -------
    ndarray
        The gradient with respect to `x`: `out`, or a new array of the shape and memory order of `x`.

    Raises
    ------
    {raises}

    Notes
    -----
    With the norm n of a set, ``y = x / n`` and ``s = sum(grad_output * y)`` over it::

        grad_input = (grad_output - s * g) / n

    where g is ``sign(x)`` for p=1 and y for p=2. For the maximum it is ``sign(x) / ties`` at the elements of magnitude n,
    `ties` of them, and 0 elsewhere: the gradient of a maximum is shared equally among those that reach it, as in PyTorch.
    Where n is below `eps` the divisor is constant, and the gradient ``grad_output / eps``. Computed in float64 and
    rounded once; the sums have an order that the number of threads does not change.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[3.0, -4.0]])
    >>> anynorm.lp_normalize_backward(np.array([[1.0, 0.0]]), x).round(3)
    array([[0.128, 0.096]])

    The result does not change along `x` itself, and neither does what the gradient adds up to there:

    >>> bool(abs(np.sum(x * anynorm.lp_normalize_backward(np.array([[1.0, 0.0]]), x))) < 1e-15)
    True
    """
    _refuse("lp_normalize_backward", sizes)
    arguments = (grad_output, x, p, axis, eps, out, dtype, num_threads)
    selection = Selection(None, None, None, where, None, excluded, nan_policy)
    return cast(Array, _sets.by_pattern("lp_normalize_backward", arguments, None, sizes, selection))
