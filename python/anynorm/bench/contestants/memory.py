# SPDX-License-Identifier: Apache-2.0
"""The floor: touch what the case must touch, gaps between elements included, and do nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np

from anynorm.bench.arena import Arena, Array
from anynorm.bench.contestants.base import Call, Contestant
from anynorm.bench.shapes import Case

SERIAL_BYTES = 1 << 20  # a pass over less than this takes no longer than waking another thread


class MemoryPass(Contestant):
    """A copy for a norm; for moments the largest element, which NumPy finds as fast as it can read."""

    name = "memory"
    title = "memory pass"

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """Keep the threads alive."""
        with ThreadPoolExecutor(threads) as self._pool:
            yield

    def call(self, case: Case, arena: Arena, threads: int) -> Call:
        """Cut the arrays into as many parts as there are threads."""
        # As integers: NumPy has no vector code for the largest float16.
        x, y = (array.reshape(-1).view(np.int16) for array in arena.memory)
        step = x.size if x.nbytes < SERIAL_BYTES else -(-x.size // threads)
        parts = [slice(start, start + step) for start in range(0, x.size, step)]
        works: list[Call] = [
            partial(np.max, x[part]) if case.kind == "moments" else partial(np.copyto, y[part], x[part])
            for part in parts
        ]
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
