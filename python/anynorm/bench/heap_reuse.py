# SPDX-License-Identifier: Apache-2.0
"""torch with the other setting of the allocator, in a process of its own.

glibc gives the memory of a large array back to the system when it is freed, so that the next result is paged in anew.
With two variables set it keeps the memory. They are read when a process starts: hence a child, which measures anynorm
and torch beside each other, case by case as the parent does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from anynorm.bench.contestants import invite
from anynorm.bench.shapes import Case
from anynorm.bench.suite import run_case

VARIABLES = {"MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}


def available() -> str:
    """Say why there can be no such process; an empty text if there can."""
    if not importlib.util.find_spec("torch"):
        return "not installed (torch)"
    return "" if platform.libc_ver()[0] == "glibc" else "needs glibc, whose variables it sets"


class HeapReuse:
    """The child, for the length of a ``with``."""

    def __init__(self, threads: Sequence[int], repeat: int) -> None:
        """Start it."""
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps({"threads": threads, "repeat": repeat})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is the parent's affair
            env={**os.environ, **VARIABLES},
        )

    def __enter__(self) -> Self:
        """Keep it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End it: it stops when its input does."""
        if kind is not None:
            self._child.kill()
        with suppress(BrokenPipeError):
            self._child.communicate()

    def run_case(self, case: Case) -> dict[int, dict[str, float]]:
        """Measure a case: seconds by number of threads and contestant."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        answer = ""
        with suppress(BrokenPipeError):
            print(json.dumps(asdict(case)), file=self._child.stdin, flush=True)
            answer = self._child.stdout.readline()
        if not answer:
            raise ChildProcessError(f"the process that keeps its heap ended with status {self._child.wait()}")
        return {int(threads): seconds for threads, seconds in json.loads(answer).items()}


def main() -> None:
    """Answer: a case a line."""
    settings = json.loads(sys.argv[1])
    contestants = [each for each in invite(["torch"])[0] if each.name != "memory"]
    for line in sys.stdin:
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(line).items()
        }
        results = run_case(Case(**fields), settings["threads"], settings["repeat"], contestants, check=False)
        print(json.dumps({result.threads: result.seconds for result in results}), flush=True)


if __name__ == "__main__":
    main()
