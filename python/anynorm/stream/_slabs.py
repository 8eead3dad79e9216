# SPDX-License-Identifier: Apache-2.0
"""Geometry: an array cut into slabs, each of which is one stretch of its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Slab:
    """A part of an array: where it is, the number of elements before it in memory, and its own number."""

    index: tuple[slice, ...]
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Cut:
    """How an array of `shape`, outermost axis first, is cut: `step` indices of `axis` at a time."""

    shape: tuple[int, ...]
    axis: int
    step: int

    def slabs(self) -> Iterator[Slab]:
        """Yield all slabs, in the order of memory."""
        start = 0
        inner = self.shape[self.axis + 1 :]
        for outer in np.ndindex(self.shape[: self.axis]):
            for low in range(0, self.shape[self.axis], self.step):
                high = min(low + self.step, self.shape[self.axis])
                index = (*(slice(i, i + 1) for i in outer), slice(low, high), *(slice(0, n) for n in inner))
                size = (high - low) * math.prod(inner)
                if size:
                    yield Slab(index, start, size)
                start += size

    def splits(self, axes: tuple[int, ...]) -> bool:
        """Whether some set, of those that reduce `axes`, has elements in several slabs."""
        parts = [*self.shape[: self.axis], -(-self.shape[self.axis] // self.step)]
        return any(parts[axis] > 1 for axis in axes if axis < len(parts))


def cut(shape: tuple[int, ...], most: int) -> Cut:
    """Cut along the outermost axis if `most` elements are enough for one of its indices, else along the next."""
    axis, inner = 0, math.prod(shape[1:])
    while inner > most and axis + 1 < len(shape):
        axis += 1
        inner = math.prod(shape[axis + 1 :])
    return Cut(shape, axis, max(1, most // max(inner, 1)))


def broadcast_index(shape: tuple[int, ...], index: tuple[slice, ...]) -> tuple[slice, ...]:
    """Index what broadcasts against an array: its axes of length 1 stay whole."""
    return tuple(slice(0, 1) if n == 1 else one for n, one in zip(shape, index, strict=True))
