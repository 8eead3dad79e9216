# SPDX-License-Identifier: Apache-2.0
"""Statistics as a value: count, mean and sum of squared deviations of every set, which merge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from anynorm._merge import FloatArray, merged, merged_along, positive_axes
from anynorm._moments_arrays import MomentsArrays

Axis: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...]

Weights: TypeAlias = Literal["frequency", "reliability"]
"""What weights mean: how often an element was seen, or how far it is to be trusted."""


class Moments(MomentsArrays):
    """Count, mean and sum of squared deviations (m2) of every set, in float64.

    `anynorm.moments` and `return_moments=True` make them. The moments of two parts of the data add up to the moments
    of the whole, so parts can come from different files, processes or machines.

    Parameters
    ----------
    count, mean, m2 : array_like
        Real numbers, broadcast against each other and copied. A variance that is known is ``m2`` with a ``count`` of 1.
        With weights, `count` is their sum.
    weight2 : array_like, optional
        Likewise, the sum of squared weights. Left out: `count`, as without weights.
    mean_low : array_like, optional
        Likewise, what the rounding of `mean` to float64 has lost: the mean is ``mean + mean_low``. Left out: 0.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers.
    ValueError
        If the shapes do not broadcast, an element of `count`, `m2` or `weight2` is negative, or one of `mean_low` is not
        finite.

    Notes
    -----
    The attributes cannot be replaced, and nothing but `update`, and a norm that it is given to as `pooled`, changes
    what their arrays hold; while neither runs, any number of threads may read. As from ``numpy.mean``, they are arrays,
    or scalars for a single set without axes. A set without elements has count 0, mean NaN and m2 0, and is neutral in a
    merge. Moments taken without centering (by RMS norm) have mean 0 and the sum of squares as m2; they merge with each
    other, not with centered ones.

    ``m[i]`` indexes the sets as NumPy does and copies, since moments are values. ``a == b`` is one bool: the same shape
    and the same numbers, NaN being the same as NaN. ``numpy.asarray(m)`` is `to_structured`.

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

    __slots__ = ()

    @classmethod
    def from_arrays(
        cls,
        count: npt.ArrayLike,
        mean: npt.ArrayLike,
        m2: npt.ArrayLike,
        weight2: npt.ArrayLike | None = None,
        *,
        mean_low: npt.ArrayLike | None = None,
    ) -> Moments:
        """Make moments of statistics that come from elsewhere.

        Parameters
        ----------
        count, mean, m2 : array_like
            As for `Moments`.
        weight2, mean_low : array_like, optional
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
        return cls(count, mean, m2, weight2, mean_low)

    @classmethod
    def stack(cls, parts: Iterable[Moments], axis: SupportsIndex = 0) -> Moments:
        """Put moments of one shape beside each other along a new axis, as ``numpy.stack`` does with arrays.

        Parameters
        ----------
        parts : iterable of Moments
            At least one, all of the same shape.
        axis : int, default 0
            Where the new axis is in the result.

        Returns
        -------
        Moments
            With the parts along `axis`; ``stack(parts).reduce(0)`` merges them.

        Raises
        ------
        TypeError
            If a part is not a `Moments`.
        ValueError
            If there is no part, the shapes differ, or `axis` does not fit.
        """
        sets = list(parts)
        for part in sets:
            if not isinstance(part, Moments):
                raise TypeError(f"Moments.stack: expected parts of type Moments, got {type(part).__name__}")
        shapes = {part.shape for part in sets}
        if len(shapes) != 1:
            raise ValueError(f"Moments.stack: expected parts of one shape, got {sorted(shapes) or 'no part'}")
        (where,) = positive_axes("Moments.stack", axis, len(shapes.pop()) + 1)
        weighted = any(part._weight2 is not None for part in sets)
        return cls._wrap(
            np.stack([part._count for part in sets], where),
            np.stack([part._mean for part in sets], where),
            np.stack([part._m2 for part in sets], where),
            np.stack([part._mean_low for part in sets], where),
            np.stack([np.asarray(part.weight2) for part in sets], where) if weighted else None,
        )

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
        return cls._wrap(np.zeros(shape), np.full(shape, np.nan), np.zeros(shape), np.zeros(shape))

    def var(self, correction: float = 0, weights: Weights = "frequency") -> FloatArray:
        """Variance of every set, ``m2 / (count - correction)``.

        Parameters
        ----------
        correction : float, default 0
            0 for the population variance, 1 for the unbiased estimate.
        weights : {"frequency", "reliability"}, default "frequency"
            What the weights of the elements mean. "frequency": how often each was seen, so that `count` is their number.
            "reliability": how far each is to be trusted; the divisor is ``count - correction * weight2 / count``, which
            no factor common to all weights changes. The same without weights, and for a `correction` of 0.

        Returns
        -------
        ndarray of float64
            NaN where the divisor is not positive.

        Raises
        ------
        ValueError
            For another word as `weights`.

        Notes
        -----
        The unbiased variance of reliability weights is that of the GNU Scientific Library (``gsl_stats_wvariance``).
        """
        if weights not in ("frequency", "reliability"):
            raise ValueError(f"Moments: expected weights of 'frequency' or 'reliability', got {weights!r}")
        with np.errstate(all="ignore"):
            divisor = self._count - correction
            if weights == "reliability" and self._weight2 is not None:
                divisor = self._count - correction * self._weight2 / self._count
            return np.where(divisor > 0, self._m2 / divisor, np.nan)[()]

    def std(self, correction: float = 0, weights: Weights = "frequency") -> FloatArray:
        """Standard deviation of every set, the square root of `var`.

        Parameters
        ----------
        correction : float, default 0
            0 for the population's, 1 for the square root of the unbiased variance.
        weights : {"frequency", "reliability"}, default "frequency"
            As for `var`.

        Returns
        -------
        ndarray of float64
            NaN where the variance is.

        Raises
        ------
        ValueError
            As from `var`.
        """
        return np.sqrt(self.var(correction, weights))

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
        Chan's formula in float64, with what the rounding of the means loses carried along in `mean_low`: the moments of
        the whole to 1e-14 at any mean. Merging in another order gives the same result up to rounding.

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
        return self._of(merged(self._cells, other._cells))

    def reduce(self, axis: Axis | None = None, *, keepdims: bool = False) -> Moments:
        """Merge all sets along axes, in an order that depends on their number alone.

        Parameters
        ----------
        axis : int or tuple of ints, optional
            The axes whose sets are merged; all of them by default, as in ``numpy.sum``.
        keepdims : bool, default False
            Keep these axes with length 1.

        Returns
        -------
        Moments
            New ones; empty sets where `axis` has length 0.

        Raises
        ------
        TypeError, ValueError
            If `axis` does not name axes of these moments, each once.

        Notes
        -----
        A balanced tree: neighbours are merged, then neighbours of the results, so that roundings add up over log2 of
        the number of sets.

        Examples
        --------
        >>> import numpy as np
        >>> import anynorm
        >>> hours = anynorm.moments(np.arange(24.0).reshape(4, 6), axis=1)
        >>> hours.reduce()
        Moments(shape=(), count=24., mean=11.5, m2=1150.)

        Of parts that come one by one:

        >>> anynorm.Moments.stack(anynorm.moments(part) for part in ([1.0, 2.0], [3.0], [6.0])).reduce(0)
        Moments(shape=(), count=4., mean=3., m2=14.)
        """
        axes = positive_axes("Moments.reduce", axis, len(self.shape))
        return self._of(merged_along(self._cells, axes, keepdims))

    def update(
        self,
        other: Moments | npt.ArrayLike,
        axis: Axis | None = None,
        *,
        num_threads: SupportsIndex | None = None,
    ) -> None:
        """Merge the moments of more elements in place.

        Parameters
        ----------
        other : Moments or array_like of float16, bfloat16, float32 or float64
            Of other elements of the same sets, or these elements.
        axis : int or tuple of ints, optional
            For an array: the axes that it is reduced along, as in `moments`; all of them by default. They are kept at
            length 1 if these moments have as many axes as the array.
        num_threads : int, optional
            For an array, as in `moments`.

        Raises
        ------
        TypeError, ValueError
            As from `merge` and from `moments`; `self` stays as it is then.

        Notes
        -----
        What `count`, `mean`, `m2` and `mean_low` returned before are the arrays that change.

        Examples
        --------
        >>> import anynorm
        >>> total = anynorm.Moments.empty()
        >>> for part in ([1.0, 2.0], [3.0, 6.0]):
        ...     total.update(part)
        >>> total
        Moments(shape=(), count=4., mean=3., m2=14.)
        """
        if isinstance(other, Moments):
            if axis is not None:
                raise TypeError("Moments.update: expected axis with an array only, got Moments")
        else:
            from anynorm.functional import moments  # which imports this module

            other = moments(other, axis, keepdims=np.ndim(other) == len(self.shape), num_threads=num_threads)
        total = self.merge(other)
        self._count[...], self._mean[...], self._m2[...] = total._count, total._mean, total._m2
        self._mean_low[...] = total._mean_low
        if self._weight2 is None:
            self._weight2 = total._weight2
        else:
            self._weight2[...] = total.weight2

    def __add__(self, other: Moments) -> Moments:
        return self.merge(other)
