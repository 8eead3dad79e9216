# SPDX-License-Identifier: Apache-2.0
"""The NumPy expression that one writes: temporary arrays, one thread."""

from __future__ import annotations

from functools import partial

import numpy as np

from anynorm.bench.arena import Arena, written_out
from anynorm.bench.contestants.base import Call, Contestant
from anynorm.bench.shapes import Case


class NumpyExpression(Contestant):
    """`expression` or `gradient` with NumPy."""

    name = "numpy"
    title = "NumPy"
    version = np.__version__

    def call(self, case: Case, arena: Arena, threads: int) -> Call:
        """Bind the operands; NumPy does not know of threads."""
        del threads
        return partial(written_out(case), np, case, *arena.operands)
