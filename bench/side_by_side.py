# SPDX-License-Identifier: Apache-2.0
"""anynorm beside NumPy, torch and a plain memory pass: the same arrays, one process, everybody takes turns.

python bench/side_by_side.py --threads 1 2 --cases layer_norm moments --markdown table.md
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from contestants import TITLES, Arena, Call, as_arrays, exact_arrays, make_calls, max_error, torch
from shapes import SHAPES, Case, read_cases

import anynorm

# With these, glibc keeps freed memory instead of returning it to the system, so that a result does not have to be
# paged in anew at every call.
HEAP_REUSE = {"MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
LAP_SECONDS = 2e-3


@dataclass
class Result:
    """One case on one number of threads: median seconds a call, and largest error, of every contestant."""

    case: str
    threads: int
    bytes: int
    seconds: dict[str, float] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)
    tuned: dict[str, float] = field(default_factory=dict)

    @property
    def ours(self) -> str:
        """The contestant that the others are compared with."""
        return "out" if "out" in self.seconds else "new"


def lap(call: Call, count: int, threads: int) -> float:
    """Seconds a call."""
    if threads > 1:
        # The threads of the contestant before (torch brings an OpenMP of its own) spin for some milliseconds.
        time.sleep(0.01)
    call()  # for nothing: it finds in the caches what another has left, and wakes the threads
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def measure(calls: dict[str, Call], threads: int, repeat: int) -> dict[str, float]:
    """Median over rounds in which everybody has one lap, in an order that changes."""
    counts = {}
    for name, call in calls.items():
        first = lap(call, 1, threads)
        # The first time can be anything; a short call gets a better estimate.
        estimate = first if first > LAP_SECONDS else lap(call, math.ceil(LAP_SECONDS / 10 / max(first, 1e-8)), threads)
        counts[name] = max(1, math.ceil(LAP_SECONDS / max(estimate, 1e-8)))
    laps: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(7).shuffle
    for _ in range(repeat):
        shuffle(order)
        for name in order:
            laps[name].append(lap(calls[name], counts[name], threads))
    return {name: statistics.median(values) for name, values in laps.items()}


def run_case(case: Case, threads: list[int], repeat: int, names: list[str], with_errors: bool) -> list[Result]:
    """Measure a case on all numbers of threads."""
    arena = Arena(case)
    exact = exact_arrays(case, arena) if with_errors else ()
    results = []
    for count in threads:
        result = Result(case.name, count, case.bytes)
        if torch is not None:
            torch.set_num_threads(count)
        with ThreadPoolExecutor(count) as pool, torch.inference_mode() if torch is not None else nullcontext():
            calls = make_calls(case, arena, count, pool, names)
            for name, call in calls.items():
                if name != "memory" and with_errors:
                    result.error[name] = max_error(as_arrays(case, name, call()), exact)
            result.seconds = measure(calls, count, repeat)
        results.append(result)
    return results


def run_tuned(arguments: list[str], results: list[Result]) -> None:
    """Run torch again, beside us, in a process whose allocator keeps its memory, and add what came out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tuned.json"
        command = [sys.executable, __file__, *arguments, "--json", str(path), "--no-errors", "--no-torch-tuned"]
        command += ["--markdown", os.devnull, "--contestants", "out", "new", "torch"]
        subprocess.run(command, check=True, env={**os.environ, **HEAP_REUSE})
        tuned = {(row["case"], row["threads"]): row["seconds"] for row in json.loads(path.read_text())["results"]}
    for result in results:
        result.tuned = tuned[result.case, result.threads]


def machine() -> dict[str, str]:
    """What the numbers belong to; no names of hosts."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "anynorm": f"{anynorm.__version__} ({anynorm.active_isa()})",
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "torch": torch.__version__ if torch is not None else "not installed",
    }


def milliseconds(seconds: float) -> str:
    """Three digits, from 0.0001 ms on."""
    value = 1e3 * seconds
    return f"{value:.{max(0, min(4, 2 - math.floor(math.log10(max(value, 1e-9)))))}f}"


def against(seconds: dict[str, float], name: str, ours: str) -> str:
    """Milliseconds of another, and how many of our times they are; bold where we lose."""
    if name not in seconds:
        return "-"
    if ours not in seconds:
        return milliseconds(seconds[name])
    ratio = f"{seconds[name] / seconds[ours]:.2f}x"
    return f"{milliseconds(seconds[name])} ({f'**{ratio}**' if seconds[name] < seconds[ours] else ratio})"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, rule, *rows])


def markdown(results: list[Result], command: str) -> str:
    """Times, then errors."""
    about = "; ".join(f"{name} {value}" if name != "cpu" else value for name, value in machine().items())
    header = ["case", "threads", "memory pass", "ours", "GB/s", "of pass"]
    header += ["anynorm, allocating", "NumPy", "torch", "torch, heap reuse"]
    rows = []
    for result in results:
        seconds, ours = result.seconds, result.ours
        row = [result.case, str(result.threads)]
        row += [milliseconds(seconds[name]) if name in seconds else "-" for name in ("memory", ours)]
        row.append(f"{result.bytes * 1e-9 / seconds[ours]:.2f}" if ours in seconds else "-")
        row.append(f"{seconds['memory'] / seconds[ours]:.2f}" if {"memory", ours} <= seconds.keys() else "-")
        row += [against(seconds, name, ours) if name != ours else "-" for name in ("new", "numpy", "torch")]
        rows.append([*row, against(result.tuned, "torch", ours)])
    text = f"`{command}`\n\n{about}\n\n" + table(header, rows)
    if any(result.error for result in results):
        # The result does not depend on the threads, or should not: the worst of all.
        worst: dict[str, dict[str, float]] = {}
        for result in results:
            for name, error in result.error.items():
                errors = worst.setdefault(result.case, {})
                errors[name] = max(error, errors.get(name, 0.0))
        who = [name for name in TITLES if any(name in errors for errors in worst.values())]
        rows = [
            [case, *(f"{errors[name]:.1e}" if name in errors else "-" for name in who)]
            for case, errors in worst.items()
        ]
        text += "\nLargest error of any element, against NumPy in the next wider type:\n\n" + table(
            ["case", *(TITLES[name] for name in who)], rows
        )
    return text


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--threads", type=int, nargs="+", default=sorted({1, anynorm.max_threads()}), help="default: 1 and all")
    option("--cases", nargs="+", metavar="PART", help="only cases whose name contains one of these")
    option("--contestants", nargs="+", choices=TITLES, default=list(TITLES), help="default: all that are installed")
    option("--repeat", type=int, default=9, help="rounds in which everybody has one lap (default: 9)")
    option("--torch-tuned", action=argparse.BooleanOptionalAction, help="torch again, in a process that keeps its heap")
    option("--errors", action=argparse.BooleanOptionalAction, default=True, help="compare with float64 (default: yes)")
    option("--json", type=Path, help="write the numbers")
    option("--markdown", type=Path, help="write the tables, instead of printing them")
    option("--shapes", type=Path, default=SHAPES, help="another list than bench/shapes.txt")
    option("--min-mib", type=int, default=0, help="repeat the first axis of every shape until x has as many MiB")
    option("--max-length", type=int, help="cut longer axes, for a quick look")
    return parser.parse_args()


def main() -> None:
    """Measure, report progress on stderr, write the tables."""
    options = read_arguments()
    try:
        cases = read_cases(options.shapes, max_length=options.max_length, min_bytes=options.min_mib << 20)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    cases = [case for case in cases if not options.cases or any(part in case.name for part in options.cases)]
    if not cases:
        raise SystemExit(f"--cases: expected parts of names in {options.shapes.name}, got {options.cases}")
    results: list[Result] = []
    for number, case in enumerate(cases, 1):
        for result in run_case(case, options.threads, options.repeat, options.contestants, options.errors):
            times = ", ".join(f"{TITLES[name]} {milliseconds(seconds)}" for name, seconds in result.seconds.items())
            print(f"{number}/{len(cases)} {case.name} on {result.threads}, ms: {times}", file=sys.stderr, flush=True)
            results.append(result)
    if options.torch_tuned and torch is not None:
        print("again, with heap reuse:", file=sys.stderr, flush=True)
        run_tuned(sys.argv[1:], results)

    command = f"python bench/side_by_side.py {shlex.join(sys.argv[1:])}".strip()
    if options.json:
        report: dict[str, Any] = {
            "command": command,
            "machine": machine(),
            "results": [asdict(each) for each in results],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown(results, command), encoding="utf-8")
    else:
        print(markdown(results, command))


if __name__ == "__main__":
    main()
