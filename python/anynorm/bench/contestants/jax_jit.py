# SPDX-License-Identifier: Apache-2.0
"""The same expression in jax.numpy, compiled by XLA for the CPU."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from anynorm.bench.arena import Arena, written_out
from anynorm.bench.contestants.base import Call, Contestant, Skipped, want_axes, want_dense
from anynorm.bench.shapes import Case


class JaxJit(Contestant):
    """`expression` or `gradient` under ``jax.jit``; every call waits for its result, which is a new array."""

    name = "jax"
    title = "jax"

    def __init__(self) -> None:
        """Import and choose the CPU, whatever else there is; float64 must be asked for."""
        self._jax: Any = importlib.import_module("jax")
        self._backend: Any = importlib.import_module("jax.extend.backend")
        self.version = self._jax.__version__
        self._jax.config.update("jax_platforms", "cpu")
        self._jax.config.update("jax_enable_x64", True)

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """Start XLA anew: it reads the number of threads when its client starts, and nowhere else."""
        before = os.environ.get("NPROC")
        os.environ["NPROC"] = str(threads)
        self._backend.clear_backends()
        self._jax.clear_caches()
        try:
            yield
        finally:
            if before is None:
                del os.environ["NPROC"]
            else:
                os.environ["NPROC"] = before

    def call(self, case: Case, arena: Arena, threads: int) -> Call:
        """Compile for the operands, which stay where XLA puts them."""
        want_axes(case)
        del threads
        want_dense(case)
        if case.labels:
            raise Skipped("bincount has a shape that XLA does not know")
        x, *parameters = map(self._jax.device_put, arena.operands)
        compiled = self._jax.jit(partial(written_out(case), self._jax.numpy, case)).lower(x, *parameters).compile()
        wait = self._jax.block_until_ready
        return lambda: wait(compiled(x, *parameters))
