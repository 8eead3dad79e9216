# SPDX-License-Identifier: Apache-2.0
"""The two passes: one sums the statistics of blocks, the other writes their results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, SupportsIndex, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from anynorm._merge import Cells
from anynorm._moments import Moments
from anynorm._progress import ByteProgress, Report
from anynorm._shared import Excluded
from anynorm.functional import moments as moments_of
from anynorm.functional import normalize as normalize_one
from anynorm.stream._accumulator import Accumulator
from anynorm.stream._interrupts import Uninterrupted
from anynorm.stream._selected import Selection
from anynorm.stream._slabs import broadcast_index
from anynorm.stream._sources import Array, Block, Source
from anynorm.stream._statistics_file import StatisticsFile

Path: TypeAlias = str | os.PathLike[str]
Progress: TypeAlias = bool | Report | None


@dataclass(frozen=True, slots=True)
class Job:
    """A source, the axes to reduce, in its own order and in that of its memory, and how to run."""

    source: Source
    axes: tuple[int, ...]
    chunk_bytes: int
    progress: Progress
    num_threads: SupportsIndex | None
    selection: Selection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.source.close()

    @property
    def ordered_axes(self) -> tuple[int, ...]:
        """The reduced axes, in the order of memory."""
        return tuple(sorted(self.source.order.index(axis) for axis in self.axes))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the data in its own order; -1 where it is not known."""
        return tuple(self.source.shape[self.source.order.index(axis)] for axis in range(len(self.source.order)))

    @contextmanager
    def blocks(self, title: str, start: int = 0) -> Iterator[Iterator[Block]]:
        """Read all blocks, with a bar that counts those which were worked on."""
        size = self.source.dtype.itemsize
        with ByteProgress(title, self.source.size * size, self.progress) as bar:

            def counted() -> Iterator[Block]:
                bar.done(start * size)
                rows = 0
                for block in self.source.blocks(start):
                    yield block
                    rows = block.index[0].stop
                    self.selection.forget()
                    bar.done(block.done * size)
                if self.source.shape[0] < 0:
                    self.selection.check_rows(rows)

            yield counted()


def sum_up(job: Job, statistics: Path | None) -> Accumulator:
    """The first pass: the moments of all sets, with those of an earlier run if there is a file of them."""
    source, axes, selection = job.source, job.ordered_axes, job.selection
    total = Accumulator(
        tuple(1 if axis in axes else n for axis, n in enumerate(source.shape)),
        groups=selection.groups,
        uneven=selection.uneven,
        weighted=selection.weighted,
    )
    file, start = None, 0
    if statistics is not None:
        identity = source.identity()
        if identity is None:
            raise ValueError("expected a file or an array with statistics, got an iterable of chunks")
        about = {"shape": list(job.shape), "dtype": source.dtype.name, "axis": list(job.axes)}
        about |= {"order": list(source.order)} | identity | selection.identity()
        file = StatisticsFile(statistics, about, job.chunk_bytes)
        start = file.resume(total)

    def save(done: int) -> None:
        if file is not None:
            file.save(total, total.moments(source.order, job.axes, keepdims=False, center=True), done, source.size)

    if start == 0:
        save(0)  # a file that cannot be written is known before the work
    if 0 < start == source.size:
        return total
    saved = done = start
    consistent = True
    try:
        with job.blocks("statistics", start) as blocks:
            for block in blocks:
                options = selection.of(block.index)
                part = moments_of(block.data, axes, keepdims=True, num_threads=job.num_threads, **options)
                where = tuple(slice(0, 1) if axis in axes else one for axis, one in enumerate(block.index))
                with Uninterrupted():
                    consistent = False
                    total.add(where, part)
                    done, consistent = block.done, True
                if file is not None and file.due():
                    save(done)
                    saved = done
    finally:  # whether it is finished or interrupted, but not after an error in the middle of a sum
        if consistent and done > saved:
            save(done)
    return total


class Parameters(TypedDict):
    """What a norm has beside its data."""

    weight: npt.ArrayLike | None
    bias: npt.ArrayLike | None
    eps: float
    center: bool
    excluded: Excluded


class Normalizer:
    """The second pass: the results of blocks, with given moments or with their own."""

    def __init__(self, job: Job, parameters: Parameters, moments: Moments | None, dtype: npt.DTypeLike | None) -> None:
        """Refuse whatever the engine would refuse later."""
        self._job = job
        self._rank = len(job.source.order)
        self._options: dict[str, Any] = {"eps": parameters["eps"], "center": parameters["center"]}
        self._options |= {"num_threads": job.num_threads, "excluded": parameters["excluded"]}
        self._weight = self._placed("weight", parameters["weight"])
        self._bias = self._placed("bias", parameters["bias"])
        self._cells = None if moments is None else self._placed_moments(moments)
        one = np.zeros((1,) * self._rank, job.source.dtype)
        first = (slice(0, 1),) * self._rank
        self.dtype = self._normalized(Block(first, one, 1), first=True, dtype=dtype).dtype

    def use(self, total: Accumulator, center: bool) -> None:
        """Take the moments of the first pass."""
        moments = total.moments(self._job.source.order, self._job.axes, keepdims=True, center=center)
        self._cells = self._placed_moments(moments)

    def write(self, block: Block, out: Array) -> None:
        """Write the result of a block."""
        self._normalized(block, out=out)

    def result(self, block: Block) -> Array:
        """Return the result of a block in a new array."""
        return self._normalized(block, dtype=self.dtype)

    def _normalized(self, block: Block, first: bool = False, **where: Any) -> Array:
        options: dict[str, Any] = {}
        if not first:
            options |= self._job.selection.of(block.index, weights=self._cells is None)
        for name, parameter in (("weight", self._weight), ("bias", self._bias)):
            if parameter is not None:
                options[name] = parameter[broadcast_index(parameter.shape, block.index)]
        if self._cells is not None and not (first and self._job.selection.groups is not None):
            lead = self._cells.count.ndim - self._rank
            index = (slice(None),) * lead + broadcast_index(self._cells.count.shape[lead:], block.index)
            options["moments"] = Moments._of(self._cells.map(lambda array: array[index]))
        y: Array = normalize_one(block.data, self._job.ordered_axes, **self._options, **options, **where)
        return y

    def _placed(self, name: str, parameter: npt.ArrayLike | None) -> Array | None:
        """View a parameter with all axes of the data, in the order of memory."""
        if parameter is None:
            return None
        array = np.asarray(parameter)
        shape = (1,) * (self._rank - array.ndim) + array.shape
        if len(shape) != self._rank or any(
            n not in (1, length) for n, length in zip(shape, self._job.shape, strict=True)
        ):
            raise ValueError(f"expected {name} that broadcasts to {_text(self._job.shape)}, got {array.shape}")
        return array.reshape(shape).transpose(self._job.source.order)

    def _placed_moments(self, moments: Moments) -> Cells:
        if not isinstance(moments, Moments):
            raise TypeError(f"expected moments of type anynorm.Moments, got {type(moments).__name__}")
        groups = self._job.selection.groups
        lead = () if groups is None else (groups,)
        shape = lead + tuple(1 if axis in self._job.axes else n for axis, n in enumerate(self._job.shape))
        kept = lead + tuple(n for axis, n in enumerate(self._job.shape) if axis not in self._job.axes)
        if -1 in shape or moments.shape not in (shape, kept):
            raise ValueError(f"expected moments of shape {_text(kept)}, got {moments.shape}")
        order = (*range(len(lead)), *(axis + len(lead) for axis in self._job.source.order))
        return moments._cells.map(lambda array: array.reshape(shape).transpose(order))


def _text(shape: tuple[int, ...]) -> str:
    return str(shape).replace("-1", "any")
