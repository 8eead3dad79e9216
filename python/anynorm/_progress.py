# SPDX-License-Identifier: Apache-2.0
"""What is going on now: a line on stderr that is written over, with the time that is left."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias

Report: TypeAlias = Callable[[int, int], object]
"""Is called with what is done and what there is to do, in bytes; the latter is 0 where nobody knows."""

REDRAW_SECONDS = 0.1


def write(text: str) -> None:
    """Write to stderr at once."""
    sys.stderr.write(text)
    sys.stderr.flush()


def overwrite(text: str) -> None:
    """Replace the line on the terminal."""
    write("\r" + text[: shutil.get_terminal_size().columns - 1] + "\x1b[K")


def time_left(seconds: float) -> str:
    """Say it in minutes or seconds."""
    return f"{seconds / 60:.0f} min left" if seconds > 90 else f"{seconds:.0f} s left"


class ByteProgress:
    """A bar for work that is measured in bytes, as a context that clears it.

    `wanted` is True or False, or None to draw on a terminal only; or a function that is called instead.
    """

    def __init__(self, title: str, total: int, wanted: bool | Report | None) -> None:
        """Start the clock."""
        self._title = title
        self._total = total
        self._report = wanted if callable(wanted) else None
        self._draws = wanted is True or (wanted is None and sys.stderr.isatty())
        self._start = self._drawn = time.monotonic()
        self._first: int | None = None  # what an earlier run has done says nothing about the speed of this one

    def done(self, done: int) -> None:
        """Say how many bytes are done."""
        if self._report is not None:
            self._report(done, self._total)
        now = time.monotonic()
        if self._first is None:
            self._first, self._start = done, now
        elif self._draws and (now - self._drawn >= REDRAW_SECONDS or done == self._total):
            self._drawn = now
            overwrite(self._line(done, now - self._start))

    def _line(self, done: int, seconds: float) -> str:
        rate = (done - (self._first or 0)) / max(seconds, 1e-9)
        speed = f"{rate / 1e6:.0f} MB/s"
        if not self._total:
            return f"{self._title} {done / 1e6:.0f} MB, {speed}"
        share = done / self._total
        bar = ("#" * round(24 * share)).ljust(24, ".")
        return f"{self._title} [{bar}] {share:4.0%}, {speed}, {time_left((self._total - done) / max(rate, 1))}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._draws:
            write("\r\x1b[K")
