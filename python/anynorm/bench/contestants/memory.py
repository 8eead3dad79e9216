# SPDX-License-Identifier: Apache-2.0
"""The floor: touch what the case must touch, gaps between elements included, and do nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np

from anynorm.bench.arena import Arena, Array
from anynorm.bench.contestants.base import Call, Contestant
from anynorm.bench.shapes import Case

SERIAL_BYTES = 1 << 20  # a pass over less than this takes no longer than waking another thread


class MemoryPass(Contestant):
    """A copy for a norm, and a sum of two arrays into a third for gradients.

    For moments it is the largest element, which NumPy finds as fast as it can read, and for results of 8 bits the same
    before their memory is filled.
    """

    name = "memory"
    title = "memory pass"

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """Keep the threads alive."""
        with ThreadPoolExecutor(threads) as self._pool:
            yield

    def call(self, case: Case, arena: Arena, threads: int) -> Call:
        """Cut the arrays into as many parts as there are threads."""
        count = 1 if arena.read[0].nbytes < SERIAL_BYTES else threads
        # As integers: NumPy has no vector code for the largest float16.
        read = [np.array_split(array.reshape(-1).view(np.int16), count) for array in arena.read]
        written = [np.array_split(array.reshape(-1), count) for array in arena.written]
        works = [_work(case, parts[: len(read)], parts[len(read) :]) for parts in zip(*read, *written, strict=True)]
        if len(works) == 1:
            return works[0]
        pool = self._pool

        def run() -> None:
            others = [pool.submit(work) for work in works[1:]]
            works[0]()
            for other in others:
                other.result()

        return run

    def arrays(self, case: Case, result: object) -> tuple[Array, ...]:
        """Nothing: a pass computes nothing."""
        del case, result
        return ()


def _work(case: Case, read: tuple[Array, ...], written: tuple[Array, ...]) -> Call:
    """Touch one part of the arrays of a case."""
    if case.kind == "moments":
        return partial(np.max, read[0])
    if case.result:
        return partial(_read_and_fill, read, written)
    targets = [array.view(np.int16) for array in written]
    if case.backward:
        return partial(np.add, *read, out=targets[0])
    if case.residual:
        return partial(_copy_all, targets, read)
    return partial(np.copyto, targets[0], read[0])


def _copy_all(targets: Sequence[Array], sources: Sequence[Array]) -> None:
    for target, source in zip(targets, sources, strict=True):
        np.copyto(target, source)


def _read_and_fill(read: Sequence[Array], written: Sequence[Array]) -> None:
    for source in read:
        np.max(source)
    for target in written:
        target.fill(1)
