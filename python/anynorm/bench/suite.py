# SPDX-License-Identifier: Apache-2.0
"""Run cases: prepare everybody, check what they compute, measure them in turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from anynorm.bench.arena import Arena, exact_arrays, max_error
from anynorm.bench.contestants import Call, Contestant, Skipped
from anynorm.bench.laps import measure
from anynorm.bench.result import Result
from anynorm.bench.shapes import Case

OURS = ("memory", "out", "new")


def run_case(
    case: Case, threads: Sequence[int], repeat: int, contestants: Sequence[Contestant], *, check: bool = True
) -> Iterator[Result]:
    """Measure a case on each number of threads; `check` the results, too."""
    try:
        arena = Arena(case)
    except ImportError as error:
        reason = f"needs {error.name}"
        yield from (Result(case.name, case.section, count, case.bytes, skipped={"all": reason}) for count in threads)
        return
    exact = exact_arrays(case, arena) if check else ()
    for count in threads:
        result = Result(case.name, case.section, count, case.bytes)
        calls: dict[str, Call] = {}
        with ExitStack() as sessions:
            for contestant in contestants:
                try:
                    sessions.enter_context(contestant.session(count))
                    call = contestant.call(case, arena, count)
                    arrays = contestant.arrays(case, call())
                    if arrays and check:
                        result.error[contestant.name] = max_error(arrays, exact)
                    calls[contestant.name] = call
                except Exception as error:  # noqa: BLE001 (a peer may raise anything)
                    result.skipped[contestant.name] = reason_of(contestant, error)
                    if contestant.name == "new":
                        break  # there is nothing to compare with a case that anynorm refuses
            else:
                result.seconds = measure(calls, count, repeat)
        yield result


def reason_of(contestant: Contestant, error: Exception) -> str:
    """Say in a line why somebody stays away. A peer may fail as it likes; of ours only a refused dtype is no bug."""
    if isinstance(error, Skipped):
        return str(error)
    if contestant.name in OURS and not isinstance(error, TypeError):
        raise error
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"[:160]
