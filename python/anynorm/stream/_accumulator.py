# SPDX-License-Identifier: Apache-2.0
"""The moments of every set while its parts come one after the other."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from anynorm._merge import Cells, FloatArray, two_sum
from anynorm._moments import Moments

BLOCK = 8192  # sets at a time, whose temporary arrays stay in the cache: 12 ns a set instead of 72 for a million


class Accumulator:
    """Chan's formula with the low parts of mean and m2 carried along, so that roundings do not grow with the number of
    parts: with 10,000 of them the last digits would be lost otherwise.
    """

    FIELDS: ClassVar = ("count", "mean", "mean_low", "m2", "m2_low")

    def __init__(
        self, shape: tuple[int, ...], *, groups: int | None = None, uneven: bool = False, weighted: bool = False
    ) -> None:
        """Begin with empty sets; `shape` has length 1 where axes are reduced. With `groups` there is an axis of them in
        front. `uneven`: counts differ from set to set, and may be sums of weights.
        """
        self._grouped, self._uneven, self._weighted = groups is not None, uneven, weighted
        fields = self.FIELDS + (("count_low",) if uneven else ()) + (("weight2", "weight2_low") if weighted else ())
        lead = () if groups is None else (groups,)
        self.arrays: dict[str, FloatArray] = {name: np.zeros(lead + shape) for name in fields}
        self.arrays["mean"].fill(np.nan)

    def add(self, index: tuple[slice, ...], part: Moments) -> None:
        """Merge the moments of a part into those at `index`; if they are not uneven, all counts there are equal."""
        if self._uneven:
            own = {
                name: array[(slice(None), *index) if self._grouped else index] for name, array in self.arrays.items()
            }
            _merge_uneven(own, part._cells)
            return
        # Views: the sets of a slab are adjacent.
        count, *sums = (self.arrays[name][index].reshape(-1) for name in self.FIELDS)
        new_count = part._count.reshape(-1)
        new = [array.reshape(-1) for array in (part._mean, part._mean_low, part._m2)]
        if not new_count.size or not new_count[0]:
            return
        for start in range(0, len(count), BLOCK):
            block = slice(start, start + BLOCK)
            _merge(float(count[start]), float(new_count[start]), [a[block] for a in sums], [a[block] for a in new])
        count += new_count

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
        count, mean, mean_low = (self.arrays[name] for name in ("count", "mean", "mean_low"))
        if self._uneven:
            count = count + self.arrays["count_low"]
        m2 = self.arrays["m2"] + self.arrays["m2_low"]
        if not center:
            m2 = np.where(count > 0, m2 + count * mean * mean, m2)
            mean = mean_low = np.zeros_like(mean)
        back: Any = np.argsort(np.asarray(order, np.intp))
        if self._grouped:
            back, axes = np.concatenate([[0], back + 1]), tuple(axis + 1 for axis in axes)
        squares = [self.arrays["weight2"] + self.arrays["weight2_low"]] if self._weighted else []
        sums = [np.transpose(array, back) for array in (count, mean, m2, mean_low, *squares)]
        if not keepdims:
            sums = [np.squeeze(array, axes) for array in sums]
        return Moments._wrap(*(np.array(array, order="C") for array in sums))


def _merge(n: float, new_n: float, sums: list[FloatArray], new: list[FloatArray]) -> None:
    mean, mean_low, m2, m2_low = sums
    new_mean, new_low, new_m2 = new
    if not n:
        mean[...], mean_low[...], m2[...] = new_mean, new_low, new_m2
        return
    share = new_n / (n + new_n)
    with np.errstate(all="ignore"):
        delta = (new_mean - mean) + (new_low - mean_low)
        merged, low = two_sum(mean, mean_low + delta * share)
        finite = np.isfinite(delta)
        if not finite.all():  # an infinite mean stays what NumPy's mean of all elements is
            merged = np.where(finite, merged, mean * (1 - share) + new_mean * share)
        mean[...], mean_low[...] = merged, low
        merged, low = two_sum(m2, new_m2 + delta * delta * (n * share))
        m2[...] = merged
        m2_low += low


def _merge_uneven(own: dict[str, FloatArray], new: Cells) -> None:
    """Merge parts of any counts, some of them empty, into `own`, which are views."""
    count, mean, m2 = own["count"].copy(), own["mean"], own["m2"]
    with np.errstate(all="ignore"):
        total = count + new.count
        share = np.where(total > 0, new.count / total, 0.0)
        delta = (new.mean - mean) + (new.mean_low - own["mean_low"])
        merged, low = two_sum(mean, own["mean_low"] + delta * share)
        finite = np.isfinite(delta)
        if not finite.all():
            merged = np.where(finite, merged, mean * (1 - share) + new.mean * share)
        term = new.m2 + delta * delta * (count * share)
        sums, lost = two_sum(m2, term)
    both, first = (new.count > 0) & (count > 0), (new.count > 0) & (count == 0)
    for name, of_both, of_first in (("mean", merged, new.mean), ("mean_low", low, new.mean_low), ("m2", sums, new.m2)):
        np.copyto(own[name], of_both, where=both)
        np.copyto(own[name], of_first, where=first)
    own["m2_low"] += np.where(both, lost, 0.0)
    squares = new.count if new.weight2 is None else new.weight2
    for name, more in (("count", new.count), ("weight2", squares)):
        if name in own:
            own[name][...], lost = two_sum(own[name], more)
            own[f"{name}_low"] += lost
