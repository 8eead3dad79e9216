# SPDX-License-Identifier: Apache-2.0
"""The moments of every set while its parts come one after the other."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from anynorm._merge import FloatArray
from anynorm._moments import Moments


def two_sum(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Add, and return what the rounding has lost as well (Knuth); 0 where the sum is not finite."""
    total = a + b
    part = total - a
    lost = (a - (total - part)) + (b - part)
    return total, np.where(np.isfinite(lost), lost, 0)


class Accumulator:
    """Chan's formula with the low parts of mean and m2 carried along, so that roundings do not grow with the number of
    parts: with 10,000 of them the last digits would be lost otherwise.
    """

    FIELDS: ClassVar = ("count", "mean", "mean_low", "m2", "m2_low")

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Begin with empty sets; `shape` has length 1 where axes are reduced."""
        self.arrays: dict[str, FloatArray] = {name: np.zeros(shape) for name in self.FIELDS}
        self.arrays["mean"].fill(np.nan)

    def add(self, index: tuple[slice, ...], part: Moments) -> None:
        """Merge the moments of a part into those at `index`."""
        view = {name: array[index] for name, array in self.arrays.items()}
        count, mean, mean_low, m2, m2_low = itemgetter(*self.FIELDS)(view)
        new_count, new_mean, new_m2 = part._count, part._mean, part._m2
        with np.errstate(all="ignore"):
            total = count + new_count
            share = new_count / total
            delta = (new_mean - mean) - mean_low
            merged_mean, low = two_sum(mean, mean_low + delta * share)
            # An infinite mean stays what NumPy's mean of all elements is.
            average = mean * (count / total) + new_mean * share
            finite = np.isfinite(delta)
            merged_m2, lost = two_sum(m2, new_m2 + delta * delta * (count * share))
            both, first = (count > 0) & (new_count > 0), (count == 0) & (new_count > 0)
            mean_low[...] = np.where(both, np.where(finite, low, 0), mean_low)
            m2_low[...] = np.where(both, np.where(np.isfinite(merged_m2), m2_low + lost, 0), m2_low)
        _choose(mean, first, new_mean, both, np.where(finite, merged_mean, average))
        _choose(m2, first, new_m2, both, merged_m2)
        count[...] = total

    def moments(self, order: tuple[int, ...], axes: tuple[int, ...], keepdims: bool, center: bool) -> Moments:
        """Return them with the axes of the array in their own order.

        Parameters
        ----------
        order : tuple of ints
            The axes of the array, in the order in which they are here.
        axes : tuple of ints
            The reduced ones, of the array.
        keepdims : bool
            Keep them.
        center : bool
            False: around 0, as of RMS norm.
        """
        mean = self.arrays["mean"] + self.arrays["mean_low"]
        m2 = self.arrays["m2"] + self.arrays["m2_low"]
        back: Any = np.argsort(np.asarray(order, np.intp))
        count, mean, m2 = (np.transpose(array, back) for array in (self.arrays["count"], mean, m2))
        if not center:
            m2 = np.where(count > 0, m2 + count * mean * mean, m2)
            mean = np.zeros_like(mean)
        if not keepdims:
            count, mean, m2 = (np.squeeze(array, axes) for array in (count, mean, m2))
        return Moments._wrap(*(np.array(array, order="C") for array in (count, mean, m2)))


def _choose(
    target: FloatArray, first: npt.NDArray[np.bool_], new: FloatArray, both: npt.NDArray[np.bool_], merged: FloatArray
) -> None:
    target[...] = np.where(both, merged, np.where(first, new, target))
