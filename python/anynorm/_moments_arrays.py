# SPDX-License-Identifier: Apache-2.0
"""Moments as a container: float64 arrays of one shape that are indexed, compared, pickled and laid out together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from anynorm._merge import Cells, FloatArray, structured


class MomentsArrays:
    """What `anynorm.Moments` holds; its arithmetic is there."""

    __slots__ = ("_count", "_m2", "_mean", "_mean_low", "_weight2")

    # Without this, ndarray + Moments would be an array of objects.
    __array_ufunc__ = None

    # `update` changes what it is called on.
    __hash__: ClassVar[None]  # type: ignore[assignment]

    _count: FloatArray
    _mean: FloatArray
    _m2: FloatArray
    _mean_low: FloatArray
    _weight2: FloatArray | None  # None where it is `_count`

    def __init__(
        self,
        count: npt.ArrayLike,
        mean: npt.ArrayLike,
        m2: npt.ArrayLike,
        weight2: npt.ArrayLike | None = None,
        mean_low: npt.ArrayLike | None = None,
    ) -> None:
        given = {"count": count, "mean": mean, "m2": m2, "mean_low": 0.0 if mean_low is None else mean_low}
        if weight2 is not None:
            given["weight2"] = weight2
        arrays = {name: _to_float64(name, values) for name, values in given.items()}
        try:
            shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
        except ValueError:
            named = (n for n in arrays if n != "mean_low" or mean_low is not None)
            shapes = ", ".join(f"{name} {arrays[name].shape}" for name in named)
            raise ValueError(f"Moments: expected shapes that broadcast, got {shapes}") from None
        for name, array in arrays.items():
            _check(name, array)
            arrays[name] = np.array(np.broadcast_to(array, shape), order="C")
        self._count, self._mean, self._m2 = arrays["count"], arrays["mean"], arrays["m2"]
        self._mean_low = arrays["mean_low"]
        squares = arrays.get("weight2")
        self._weight2 = None if squares is None or np.array_equal(squares, self._count) else squares

    @classmethod
    def _wrap(
        cls,
        count: FloatArray,
        mean: FloatArray,
        m2: FloatArray,
        mean_low: FloatArray,
        weight2: FloatArray | None = None,
    ) -> Self:
        """Take new arrays of one shape as they are."""
        self = cls.__new__(cls)
        self._count, self._mean, self._m2, self._mean_low, self._weight2 = count, mean, m2, mean_low, weight2
        return self

    @classmethod
    def _of(cls, sets: Cells) -> Self:
        return cls._wrap(sets.count, sets.mean, sets.m2, sets.mean_low, sets.weight2)

    @property
    def _cells(self) -> Cells:
        return Cells(self._count, self._mean, self._m2, self._mean_low, self._weight2)

    @classmethod
    def from_structured(cls, records: npt.ArrayLike) -> Self:
        """Make moments of what `to_structured` returned, or of an array of `anynorm::Moments` that C++ wrote.

        Parameters
        ----------
        records : array_like
            A structured array with fields ``count``, ``mean`` and ``m2`` of real numbers, and ``mean_low`` and ``weight2``
            or not. Other fields are not looked at.

        Returns
        -------
        Moments
            Of the shape of `records`, a copy.

        Raises
        ------
        TypeError
            If `records` lacks one of the fields.
        ValueError
            As from `Moments`.

        Examples
        --------
        >>> import numpy as np
        >>> import anynorm
        >>> memory = np.array([3.0, 2.0, 2.0, 0.0, 3.0, 6.0, 8.0, 0.0])  # two anynorm::Moments of 32 bytes
        >>> fields = [("count", "f8"), ("mean", "f8"), ("m2", "f8"), ("mean_low", "f8")]
        >>> anynorm.Moments.from_structured(memory.view(fields))
        Moments(shape=(2,), count=[3. 3.], mean=[2. 6.], m2=[2. 8.])
        """
        array = np.asarray(records)
        names = array.dtype.names or ()
        if not {"count", "mean", "m2"} <= set(names):
            raise TypeError(f"Moments.from_structured: expected fields count, mean and m2, got {array.dtype}")
        weight2, low = (array[name] if name in names else None for name in ("weight2", "mean_low"))
        return cls(array["count"], array["mean"], array["m2"], weight2, low)

    @property
    def count(self) -> FloatArray:
        """Number of elements of every set, or the sum of their weights."""
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
    def mean_low(self) -> FloatArray:
        """What the rounding of `mean` to float64 has lost; 0 where nothing is known.

        The mean is the unevaluated sum of both. This part is at most half of the spacing of float64 at `mean`, too small
        for the sum to show; but that is 7e-9 for a mean of 1e8, which merging and normalizing take into account.

        Examples
        --------
        >>> import anynorm
        >>> used = anynorm.moments([1e8, 1e8 + 1, 1e8 + 1])
        >>> float(used.mean), float(used.mean_low.round(15))
        (100000000.66666667, -4.967054e-09)
        """
        return _scalar_if_0d(self._mean_low)

    @property
    def weight2(self) -> FloatArray:
        """Sum of the squared weights of every set; `count` where there are no weights."""
        return self.count if self._weight2 is None else _scalar_if_0d(self._weight2)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `count`, `mean`, `m2` and `mean_low`."""
        return self._count.shape

    def to_structured(self) -> npt.NDArray[np.void]:
        """Write one record a set: what C++ has as an array of `anynorm::Moments`, and `numpy.save` can store.

        Returns
        -------
        ndarray
            A new array of the shape of these moments, in C order, of dtype
            ``[("count", "f8"), ("mean", "f8"), ("m2", "f8"), ("mean_low", "f8")]``, 32 bytes a record; with
            ``("weight2", "f8")`` at the end if there are weights.

        Examples
        --------
        >>> import anynorm
        >>> anynorm.moments([[1.0, 2.0, 3.0], [4.0, 6.0, 8.0]], axis=1).to_structured()
        array([(3., 2., 2., 0.), (3., 6., 8., 0.)],
              dtype=[('count', '<f8'), ('mean', '<f8'), ('m2', '<f8'), ('mean_low', '<f8')])
        """
        return structured(self._cells)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("Moments: expected copy=True or None for an array of records, got False")
        records = self.to_structured()
        if dtype is None:
            return records
        wanted = np.dtype(dtype)
        # NumPy casts fields by their places: those that are named are found first, of whoever wants fewer.
        if set(wanted.names or ["all"]) <= set(records.dtype.names or ()):
            records = records[list(wanted.names or ())]
        return records.astype(wanted)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("Moments: expected an axis for len(), got moments of a single set")
        return self.shape[0]

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Self:
        return self._of(self._cells.map(lambda array: np.array(array[key])))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MomentsArrays):
            return NotImplemented
        fields = ("count", "mean", "m2", "mean_low", "weight2")
        return all(np.array_equal(getattr(self, f), getattr(other, f), equal_nan=True) for f in fields)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._count, self._mean, self._m2, self._weight2, self._mean_low)

    def __repr__(self) -> str:
        arrays = self._cells.arrays()
        fields = (f"{name}={_short(_scalar_if_0d(array))}" for name, array in arrays.items() if name != "mean_low")
        return f"Moments(shape={self.shape}, {', '.join(fields)})"


def _check(name: str, array: FloatArray) -> None:
    if name == "mean":
        return
    if name == "mean_low":
        refused, expected = ~np.isfinite(array), "that is finite"
    else:  # an m2 of NaN is that of data which are not finite
        refused, expected = array < 0 if name == "m2" else ~(array >= 0), "of at least 0"
    if np.any(refused):
        raise ValueError(f"Moments: expected {name} {expected}, got {np.min(array[refused])}")


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
