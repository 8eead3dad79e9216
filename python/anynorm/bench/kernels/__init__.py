# SPDX-License-Identifier: Apache-2.0
"""A fused loop for each case, as somebody writes it who has numba and an afternoon.

One pass sums deviations from a value near by, in float64; a second pass, while the set is in cache if it can be, writes
the result. Sums may be reordered, without which no compiler makes vectors of them. `rows`, `planes` and `columns` are
the three ways in which sets lie in memory. Without numba the loops are plain, slow Python.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

numba: Any = importlib.import_module("numba") if importlib.util.find_spec("numba") else None

prange: type[range] = numba.prange if numba else range

FASTMATH = {"reassoc", "contract", "nsz"}


def parallel(function: Function) -> Function:
    """Compile a kernel when it is first called; `prange` runs on threads."""
    if numba is None:
        return function
    compiled: Function = numba.njit(parallel=True, fastmath=FASTMATH)(function)
    return compiled


def inlined(function: Function) -> Function:
    """Compile a part of a kernel."""
    if numba is None:
        return function
    compiled: Function = numba.njit(inline="always", fastmath=FASTMATH)(function)
    return compiled
