# SPDX-License-Identifier: Apache-2.0
"""What one sees while it runs, on stderr: a line for every result, and on a terminal what is going on now."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence

from anynorm._progress import overwrite, time_left, write
from anynorm.bench.contestants import TITLES
from anynorm.bench.result import Result
from anynorm.bench.shapes import Case


class Progress:
    """Counts the bytes that are done, of all cases, to guess what is left."""

    def __init__(self, cases: Sequence[Case]) -> None:
        """Start the clock."""
        # Every case also costs about as much as moving 32 MiB: setting up, compiling.
        self._work = {case.name: case.bytes + (32 << 20) for case in cases}
        self._total = sum(self._work.values())
        self._done = 0
        self._finished = 0
        self._start = time.monotonic()
        self._width = max(len(case.name) for case in cases)
        self._terminal = sys.stderr.isatty()

    def begin(self, case: Case) -> None:
        """Say which case runs and how long the rest may take."""
        if not self._terminal:
            return
        left = ""
        if self._done:
            seconds = (time.monotonic() - self._start) * (self._total / self._done - 1)
            left = f", {time_left(seconds)}"
        overwrite(f"{self._finished + 1}/{len(self._work)} {case.name}{left}")

    def end(self, case: Case, results: Sequence[Result]) -> None:
        """Say what came out."""
        self._finished += 1
        self._done += self._work[case.name]
        place = f"{self._finished:{len(str(len(self._work)))}}/{len(self._work)}"
        for result in results:
            line = f"{place} {case.name:{self._width}} {self._outcome(result)}"
            write(f"\r{line}\x1b[K\n" if self._terminal else f"{line}\n")

    @staticmethod
    def _outcome(result: Result) -> str:
        if not result.seconds:
            return f"skipped: {result.skipped.get('new') or result.skipped.get('all')}"
        text = f"{result.threads} thr. {milliseconds(result.seconds[result.ours]):>7} ms"
        if result.of_pass is not None:
            text += f" {result.of_pass:5.2f} of pass"
        if result.rival is not None:
            name, ratio = result.rival
            text += f", {TITLES[name]} {ratio:.2f}x"
        return text


def milliseconds(seconds: float) -> str:
    """Write three digits, from 0.0001 ms on."""
    value = 1e3 * seconds
    return f"{value:.{max(0, min(4, 2 - math.floor(math.log10(max(value, 1e-9)))))}f}"
