# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of moments as arrays: merging two, merging along axes, and the layout that C++ has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import index
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cells:
    """Arrays of one shape; `weight2` is None where it is `count`."""

    count: FloatArray
    mean: FloatArray
    m2: FloatArray
    mean_low: FloatArray
    weight2: FloatArray | None = None

    def arrays(self) -> dict[str, FloatArray]:
        """Return those that there are, by name; without weights in the order of `anynorm::Moments`."""
        named = {"count": self.count, "mean": self.mean, "m2": self.m2, "mean_low": self.mean_low}
        return named if self.weight2 is None else named | {"weight2": self.weight2}

    def map(self, function: Callable[[FloatArray], FloatArray]) -> Cells:
        """Do the same to all arrays."""
        return cells({name: function(array) for name, array in self.arrays().items()})


def cells(arrays: dict[str, FloatArray]) -> Cells:
    """Undo `Cells.arrays`."""
    return Cells(**arrays)


def two_sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Add, and return what the rounding has lost as well (Knuth); 0 where the sum is not finite."""
    total = a + b
    part = total - a
    lost = (a - (total - part)) + (b - part)
    finite = np.isfinite(lost)
    return total, lost if finite.all() else np.where(finite, lost, 0.0)


def merged(a: Cells, b: Cells) -> Cells:
    """Merge set by set, by Chan's formula; what the rounding of the means loses is carried along."""
    with np.errstate(all="ignore"):
        total = a.count + b.count
        share = b.count / total
        delta = (b.mean - a.mean) + (b.mean_low - a.mean_low)
        mean, low = two_sum(a.mean, delta * share + a.mean_low)
        near = np.isfinite(delta)
        if not near.all():  # an infinite mean stays what NumPy's mean of all elements is
            average = a.mean * (a.count / total) + b.mean * share
            mean, low = np.where(near, mean, average), np.where(near, low, 0.0)
        m2 = a.m2 + b.m2 + delta * delta * (a.count * share)
    only_a, only_b = b.count == 0, a.count == 0

    def one_of(of_a: FloatArray, of_b: FloatArray, of_both: FloatArray) -> FloatArray:
        return np.where(only_a, of_a, np.where(only_b, of_b, of_both))

    return Cells(
        np.asarray(total),
        one_of(a.mean, b.mean, mean),
        one_of(a.m2, b.m2, m2),
        one_of(a.mean_low, b.mean_low, low),
        None if a.weight2 is None and b.weight2 is None else np.asarray(_weight2(a) + _weight2(b)),
    )


def merged_along_first(sets: Cells) -> Cells:
    """Merge all sets along axis 0: neighbours, then neighbours of those, an odd one out waiting for the next round.

    The order depends on the length alone, and roundings add up over log2 of it.
    """
    if not len(sets.count):
        shape = sets.count.shape[1:]
        return Cells(np.zeros(shape), np.full(shape, np.nan), np.zeros(shape), np.zeros(shape))
    while (n := len(sets.count)) > 1:
        pairs = merged(sets.map(lambda a: a[: len(a) - len(a) % 2 : 2]), sets.map(lambda a: a[1::2]))
        if n % 2:
            last = sets.arrays()
            pairs = cells({name: np.concatenate((a, last[name][-1:])) for name, a in pairs.arrays().items()})
        sets = pairs
    return sets.map(lambda a: np.array(a[0]))


def merged_along(sets: Cells, axes: tuple[int, ...], keepdims: bool) -> Cells:
    """Merge all sets along axes, those of several axes in C order."""
    shape = sets.count.shape
    n = math.prod(shape[axis] for axis in axes)
    rest = tuple(length for axis, length in enumerate(shape) if axis not in axes)
    result = merged_along_first(sets.map(lambda a: np.moveaxis(a, axes, range(len(axes))).reshape(n, *rest)))
    kept = tuple(1 if axis in axes else length for axis, length in enumerate(shape))
    return result.map(lambda a: a.reshape(kept if keepdims else rest))


def _weight2(sets: Cells) -> FloatArray:
    return sets.count if sets.weight2 is None else sets.weight2


def positive_axes(caller: str, axis: SupportsIndex | tuple[SupportsIndex, ...] | None, rank: int) -> tuple[int, ...]:
    """Name axes from 0 on, in ascending order; None is all of them."""
    if axis is None:
        return tuple(range(rank))
    axes = [index(one) for one in (axis if isinstance(axis, tuple) else (axis,))]
    for one in axes:
        if not -rank <= one < rank:
            expected = f"axis from {-rank} to {rank - 1}" if rank else "no axis for an array of rank 0"
            raise ValueError(f"{caller}: expected {expected}, got {one}")
    positive = sorted(one % rank for one in axes)
    for one, after in itertools.pairwise(positive):
        if one == after:
            raise ValueError(f"{caller}: expected each axis once, got axis {one} twice")
    return tuple(positive)


def structured(sets: Cells) -> npt.NDArray[np.void]:
    """Interleave: one record a set, which is what an array of `anynorm::Moments` is in C++."""
    arrays = sets.arrays()
    result = np.empty(sets.count.shape, [(name, np.float64) for name in arrays])
    for name, array in arrays.items():
        result[name] = array
    return result
