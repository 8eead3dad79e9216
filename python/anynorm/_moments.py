# SPDX-License-Identifier: Apache-2.0
"""Statistics as a value: count, mean and sum of squared deviations of every set, which merge."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class Moments:
    """Count, mean and sum of squared deviations (m2) of every set, in float64.

    `anynorm.moments` and `return_moments=True` make them. The moments of two parts of the data add up to the moments
    of the whole, so parts can come from different files, processes or machines.

    Parameters
    ----------
    count, mean, m2 : array_like
        Real numbers, broadcast against each other and copied. A variance that is known is ``m2`` with a ``count`` of 1.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If the shapes do not broadcast, or an element of `count` or `m2` is negative.

    Notes
    -----
    The attributes cannot be replaced, and nothing but `update`, and a norm that it is given to as `pooled`, changes
    what their arrays hold. As from ``numpy.mean``, they are arrays, or scalars for a single set without axes. A set without elements has count 0, mean NaN and m2 0, and is neutral in a merge. Moments taken without
    centering (by RMS norm) have mean 0 and the sum of squares as m2; they merge with each other, not with centered ones.

    Sources: Welford, Technometrics 4 (1962); Chan, Golub, LeVeque, The American Statistician 37 (1983).

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[1.0, 2.0, 3.0], [4.0, 6.0, 8.0]])
    >>> anynorm.moments(x, axis=1)
    Moments(shape=(2,), count=[3. 3.], mean=[2. 6.], m2=[2. 8.])
    >>> whole = anynorm.moments(x[:, :1], axis=1) + anynorm.moments(x[:, 1:], axis=1)
    >>> whole.mean, whole.var(), whole.var(correction=1)
    (array([2., 6.]), array([0.66666667, 2.66666667]), array([1., 4.]))
    """

    __slots__ = ("_count", "_m2", "_mean")

    # Without this, ndarray + Moments would be an array of objects.
    __array_ufunc__ = None

    _count: FloatArray
    _mean: FloatArray
    _m2: FloatArray

    def __init__(self, count: npt.ArrayLike, mean: npt.ArrayLike, m2: npt.ArrayLike) -> None:
        given = {"count": count, "mean": mean, "m2": m2}
        arrays = [_to_float64(name, values) for name, values in given.items()]
        try:
            shape = np.broadcast_shapes(*(array.shape for array in arrays))
        except ValueError:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(given, arrays, strict=True))
            raise ValueError(f"Moments: expected shapes that broadcast, got {shapes}") from None
        self._count, self._mean, self._m2 = (np.array(np.broadcast_to(array, shape), order="C") for array in arrays)
        if not np.all(self._count >= 0):
            raise ValueError(f"Moments: expected count of at least 0, got {np.min(self._count)}")
        if np.any(self._m2 < 0):
            raise ValueError(f"Moments: expected m2 of at least 0, got {np.nanmin(self._m2)}")

    @classmethod
    def from_arrays(cls, count: npt.ArrayLike, mean: npt.ArrayLike, m2: npt.ArrayLike) -> Moments:
        """Make moments of statistics that come from elsewhere.

        Parameters
        ----------
        count, mean, m2 : array_like
            As for `Moments`.

        Returns
        -------
        Moments
            Of the shape to which the arguments broadcast.

        Examples
        --------
        A mean and a population variance that are already known, to normalize with:

        >>> import anynorm
        >>> known = anynorm.Moments.from_arrays(1, [0.0, 10.0], [1.0, 4.0])
        >>> anynorm.normalize([[1.0, 10.0], [2.0, 14.0]], 0, moments=known, eps=0)
        array([[1., 0.],
               [2., 2.]])
        """
        return cls(count, mean, m2)

    @classmethod
    def empty(cls, shape: SupportsIndex | tuple[SupportsIndex, ...] = ()) -> Moments:
        """Make moments of sets without elements, to merge others into.

        Parameters
        ----------
        shape : int or tuple of ints, default ()
            Shape of the moments.

        Returns
        -------
        Moments
            With count 0, mean NaN and m2 0.

        Raises
        ------
        TypeError, ValueError
            If `shape` is not one, as from ``numpy.zeros``.

        Examples
        --------
        >>> import anynorm
        >>> anynorm.Moments.empty(2)
        Moments(shape=(2,), count=[0. 0.], mean=[nan nan], m2=[0. 0.])
        """
        return cls._wrap(np.zeros(shape), np.full(shape, np.nan), np.zeros(shape))

    @classmethod
    def _wrap(cls, count: FloatArray, mean: FloatArray, m2: FloatArray) -> Moments:
        """Take three new arrays of one shape as they are."""
        self = cls.__new__(cls)
        self._count, self._mean, self._m2 = count, mean, m2
        return self

    @property
    def count(self) -> FloatArray:
        """Number of elements of every set."""
        return _scalar_if_0d(self._count)

    @property
    def mean(self) -> FloatArray:
        """Mean of every set; NaN for a set without elements."""
        return _scalar_if_0d(self._mean)

    @property
    def m2(self) -> FloatArray:
        """Sum of the squared deviations from the mean of every set."""
        return _scalar_if_0d(self._m2)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `count`, `mean` and `m2`."""
        return self._count.shape

    def var(self, correction: float = 0) -> FloatArray:
        """Variance of every set, ``m2 / (count - correction)``.

        Parameters
        ----------
        correction : float, default 0
            0 for the population variance, 1 for the unbiased estimate.

        Returns
        -------
        ndarray of float64
            NaN where ``count - correction`` is not positive.
        """
        divisor = self._count - correction
        with np.errstate(all="ignore"):
            return np.where(divisor > 0, self._m2 / divisor, np.nan)[()]

    def std(self, correction: float = 0) -> FloatArray:
        """Standard deviation of every set, the square root of `var`.

        Parameters
        ----------
        correction : float, default 0
            0 for the population's, 1 for the square root of the unbiased variance.

        Returns
        -------
        ndarray of float64
            NaN where ``count - correction`` is not positive.
        """
        return np.sqrt(self.var(correction))

    def rstd(self, eps: float) -> FloatArray:
        """Factor by which a norm multiplies, ``1 / sqrt(var() + eps)``.

        Parameters
        ----------
        eps : float
            Added to the variance; at least 0.

        Returns
        -------
        ndarray of float64
            NaN for a set without elements; infinite where the variance and `eps` are both 0.

        Raises
        ------
        ValueError
            If `eps` is negative or NaN.
        """
        if not eps >= 0:
            raise ValueError(f"Moments.rstd: expected eps of at least 0, got {eps}")
        with np.errstate(all="ignore"):
            return 1 / np.sqrt(self.var() + eps)

    def merge(self, other: Moments) -> Moments:
        """Moments of the elements of both; the same as ``self + other``.

        Parameters
        ----------
        other : Moments
            Of other elements of the same sets.

        Returns
        -------
        Moments
            New ones; `self` and `other` stay as they are.

        Raises
        ------
        TypeError
            If `other` is not a `Moments`.
        ValueError
            If the shapes differ: sets are merged one by one, never broadcast.

        Notes
        -----
        Chan's formula in float64. Merging in another order gives the same result up to rounding.

        Examples
        --------
        >>> import numpy as np
        >>> import anynorm
        >>> from functools import reduce
        >>> parts = np.array_split(np.arange(10.0), 3)
        >>> reduce(anynorm.Moments.merge, map(anynorm.moments, parts))
        Moments(shape=(), count=10., mean=4.5, m2=82.5)
        """
        if not isinstance(other, Moments):
            raise TypeError(f"Moments.merge: expected other of type Moments, got {type(other).__name__}")
        if self.shape != other.shape:
            raise ValueError(f"Moments.merge: expected other of shape {self.shape}, got {other.shape}")
        with np.errstate(all="ignore"):
            total = self._count + other._count
            share = other._count / total
            delta = other._mean - self._mean
            # An infinite mean stays what NumPy's mean of all elements is.
            average = self._mean * (self._count / total) + other._mean * share
            mean = np.where(np.isfinite(delta), self._mean + delta * share, average)
            m2 = self._m2 + other._m2 + delta * delta * (self._count * share)
        only_self, only_other = other._count == 0, self._count == 0
        return type(self)._wrap(
            np.asarray(total),
            np.asarray(np.where(only_self, self._mean, np.where(only_other, other._mean, mean))),
            np.asarray(np.where(only_self, self._m2, np.where(only_other, other._m2, m2))),
        )

    def update(self, other: Moments) -> None:
        """Merge `other` in place.

        Parameters
        ----------
        other : Moments
            Of other elements of the same sets.

        Raises
        ------
        TypeError, ValueError
            As from `merge`; `self` stays as it is then.

        Notes
        -----
        What `count`, `mean` and `m2` returned before are the arrays that change.

        Examples
        --------
        >>> import anynorm
        >>> total = anynorm.Moments.empty()
        >>> for part in ([1.0, 2.0], [3.0, 6.0]):
        ...     total.update(anynorm.moments(part))
        >>> total
        Moments(shape=(), count=4., mean=3., m2=14.)
        """
        merged = self.merge(other)
        self._count[...], self._mean[...], self._m2[...] = merged._count, merged._mean, merged._m2

    def __add__(self, other: Moments) -> Moments:
        return self.merge(other)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._count, self._mean, self._m2)

    def __repr__(self) -> str:
        fields = (f"{name}={_short(getattr(self, name))}" for name in ("count", "mean", "m2"))
        return f"Moments(shape={self.shape}, {', '.join(fields)})"


def _to_float64(name: str, values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"Moments: expected {name} of real numbers, got {array.dtype}")
    return array.astype(np.float64)


def _scalar_if_0d(array: FloatArray) -> FloatArray:
    # A scalar is no ndarray to a type checker, but has its attributes and arithmetic; a union of the two types would
    # make every caller tell them apart.
    return array if array.ndim else array[()]


def _short(array: FloatArray) -> str:
    text = np.array2string(np.asarray(array), precision=6, threshold=8, edgeitems=2)
    return " ".join(text.split())
