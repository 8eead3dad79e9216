# SPDX-License-Identifier: Apache-2.0
"""What a contestant is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np

from anynorm.bench.arena import Arena, Array
from anynorm.bench.shapes import Case

Call = Callable[[], Any]


class Skipped(Exception):
    """Why a contestant does not take part in a case."""


def want_dense(case: Case) -> None:
    """Say no to views, for a contestant that would copy x first."""
    if not case.dense:
        raise Skipped("takes arrays that are dense and in C order")


def want_axes(case: Case) -> None:
    """Say no to sets that data name, for a contestant that has the moments of labels or under a mask at most."""
    if case.segments or case.kind == "normalize":
        raise Skipped("was written out for moments by label or mask, not for segments and norms by label or mask")


class Contestant(ABC):
    """Somebody who can run cases. The constructor raises ImportError where the library is not installed."""

    name: ClassVar[str]
    """In the numbers and on the command line."""
    title: ClassVar[str]
    """In tables and charts."""
    version: str = ""

    def session(self, threads: int) -> AbstractContextManager[object]:
        """Open what the calls run in: a setting of threads, a pool."""
        del threads
        return nullcontext()

    @abstractmethod
    def call(self, case: Case, arena: Arena, threads: int) -> Call:
        """Prepare a case, within a session; raises `Skipped`, or what the library raises."""

    def arrays(self, case: Case, result: Any) -> tuple[Array, ...]:
        """Convert what a call returned: y, or several in the order of the expression."""
        del case
        return tuple(map(np.asarray, result)) if isinstance(result, tuple) else (np.asarray(result),)
