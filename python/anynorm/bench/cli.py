# SPDX-License-Identifier: Apache-2.0
"""The command: arguments in, table.md, results.json and chart.png out."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

import anynorm
from anynorm.bench import chart, heap_reuse
from anynorm.bench.contestants import HEAP_REUSE, PEERS, Contestant, invite
from anynorm.bench.heap_reuse import HeapReuse
from anynorm.bench.progress import Progress
from anynorm.bench.report import Report, machine
from anynorm.bench.result import Result
from anynorm.bench.shapes import SHAPES, Case, Resize, one_of_each, read_cases
from anynorm.bench.suite import run_case

QUICK_BYTES = 1 << 20
QUICK_REPEAT = 3
BUSY = 0.7  # a thread that waits for another which has lost its CPU waits for milliseconds


def at_least_one(text: str) -> int:
    """Read a number; argparse turns the error into its own."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    option = parser.add_argument
    option("--quick", action="store_true", help="a minute: one case of each kind, x of at most 1 MiB, all threads")
    option("--cases", nargs="+", metavar="PART", help="only cases whose section/name contains one of these")
    option("--list", action="store_true", help="print the names of the cases and stop")
    option("--threads", type=at_least_one, nargs="+", metavar="N", help="default: 1 and all")
    option("--repeat", type=at_least_one, metavar="N", help="rounds in which everybody has one lap (default: 9)")
    known = f"some of {', '.join(PEERS)} (default: all that are installed)"
    option("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER", help=known)
    option("--output", type=Path, metavar="DIR", help="where to write table.md, results.json and chart.png")
    option("--shapes", type=Path, default=SHAPES, metavar="FILE", help="another list of cases")
    option("--min-mib", type=int, default=0, metavar="N", help="repeat the first axis until x has as many MiB")
    option("--max-length", type=at_least_one, metavar="N", help="cut longer axes")


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    """Read the list and choose; exits with a message if nothing is left."""
    quick = options.quick and not options.min_mib
    resize = Resize(options.max_length, options.min_mib << 20, QUICK_BYTES if quick else None)
    try:
        cases = read_cases(options.shapes, resize, options.cases or ("",))
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    if not cases:
        raise SystemExit(f"--cases: expected parts of names in {options.shapes.name}, got {options.cases}")
    return one_of_each(cases) if options.quick else cases


def measure(cases: list[Case], options: argparse.Namespace, report: Report, contestants: list[Contestant]) -> None:
    """Run all cases, with progress; an interruption keeps what is there."""
    progress = Progress(cases)
    with ExitStack() as stack:
        child = None
        if HEAP_REUSE in options.peers:
            if reason := heap_reuse.available():
                report.absent[HEAP_REUSE] = reason
            else:
                child = stack.enter_context(HeapReuse(options.threads, options.repeat))
        for case in cases:
            progress.begin(case)
            results: list[Result] = list(run_case(case, options.threads, options.repeat, contestants))
            if child is not None and any(result.seconds for result in results):
                try:
                    seconds = child.run_case(case)
                    for result in results:
                        result.heap_reuse = seconds[result.threads]
                except ChildProcessError as error:
                    report.absent[HEAP_REUSE] = str(error)
                    child = None
            report.results += results
            progress.end(case, results)


def write(report: Report, folder: Path) -> None:
    """Write the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(report.markdown(), encoding="utf-8")
    (folder / "results.json").write_text(report.json(), encoding="utf-8")
    try:
        chart.draw(report.results, "; ".join(f"{k} {v}" for k, v in report.machine.items()), folder / "chart.png")
    except ImportError as error:
        print(f"no chart: needs {error.name}", file=sys.stderr)


def run(options: argparse.Namespace) -> int:
    """Measure, print the tables, write the files."""
    cases = chosen_cases(options)
    if options.list:
        print("\n".join(case.listed for case in cases))
        return 0
    every = anynorm.max_threads()
    options.threads = options.threads or ([every] if options.quick else sorted({1, every}))
    options.repeat = options.repeat or (QUICK_REPEAT if options.quick else 9)
    contestants, absent = invite(options.peers)
    command = f"python -m anynorm bench {shlex.join(options.words)}".strip()
    report = Report(command, machine(contestants), absent, [])
    load = float(report.machine.get("load of the machine", 0))
    if load > BUSY:
        print(
            f"the load is {load}: other programs take CPUs, so figures on several threads say little", file=sys.stderr
        )
    status = 0
    try:
        measure(cases, options, report, contestants)
    except KeyboardInterrupt:
        print("\ninterrupted: the report has what was measured until now", file=sys.stderr)
        status = 130  # as a shell says of SIGINT
    print(report.markdown())
    if options.output:
        write(report, options.output)
    return status
