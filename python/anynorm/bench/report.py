# SPDX-License-Identifier: Apache-2.0
"""Tables in Markdown, and the numbers as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

from anynorm import _info
from anynorm.bench.contestants import HEAP_REUSE, PEERS, TITLES, Contestant
from anynorm.bench.progress import milliseconds
from anynorm.bench.result import Result

HOW_TO_READ = """\
Median milliseconds of a call. *memory pass*: NumPy touches what the case must, in parts on the same threads: copies x
to y, reads x for moments, adds two arrays to a third for gradients; it cannot choose stores that go past the caches, so
a norm that does may be above 1 *of pass*. *anynorm*: with `out=`, where there is one. Gradients are computed from saved
statistics. Of all others, in brackets, how many of anynorm's times they take: **bold** where anynorm loses."""
HEAP_REUSE_NOTE = """\
*torch, heap reuse* runs in a process whose allocator keeps freed memory; its factor compares with anynorm in there."""
ERRORS = "Largest error of any element, against the expression in float64 (in long double for float64 input):"


@dataclass
class Report:
    """All that a run has found out."""

    command: str
    machine: dict[str, str]
    absent: dict[str, str]
    results: list[Result]

    def json(self) -> str:
        """Write the numbers."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def markdown(self) -> str:
        """Write the tables: times by section, errors, and who stayed away."""
        parts = [f"`{self.command}`", "; ".join(f"{name} {text}" for name, text in self.machine.items()), HOW_TO_READ]
        peers = [name for name in PEERS if any(result.ratio(name) is not None for result in self.results)]
        if HEAP_REUSE in peers:
            parts.append(HEAP_REUSE_NOTE)
        measured = [result for result in self.results if result.seconds]
        rivals = [result.rival[1] for result in measured if result.rival]
        if rivals:
            parts.append(f"anynorm is faster than every peer in {sum(r >= 1 for r in rivals)} of {len(rivals)} rows.")
        for section, results in groupby(measured, key=lambda result: result.section):
            parts += [f"### {section}"] if section else []
            parts.append(_times(list(results), peers))
        parts += ["### Errors", ERRORS, _errors(measured)] if measured else []
        if notes := list(self._notes()):
            parts += ["### Not measured", "\n".join(notes)]
        return "\n\n".join(parts) + "\n"

    def _notes(self) -> Iterable[str]:
        """Every reason once, with the cases that it concerns."""
        for name, reason in self.absent.items():
            yield f"* {TITLES[name]}: {reason}."
        cases: dict[tuple[str, str], list[str]] = {}
        for result in self.results:
            for name, reason in result.skipped.items():
                if name != "out":  # moments have none; what else stops it stops both
                    concerned = cases.setdefault((TITLES.get(name, "everybody"), reason), [])
                    concerned += [result.case] if result.case not in concerned else []
        for (title, reason), concerned in cases.items():
            yield f"* {title}: {reason.rstrip('.')}. {_listed(concerned)}"


def machine(contestants: Iterable[Contestant]) -> dict[str, str]:
    """Say what the numbers belong to; no names of hosts."""
    found = _info.facts()
    versions = {each.title: each.version for each in contestants if each.version and each.name not in {"out", "new"}}
    return {
        "CPU": f"{found['CPU']}, {found['CPUs']} usable ({', '.join(f'{k} {v}' for k, v in found['caches'].items())})",
        "anynorm": f"{found['anynorm']} ({found['instruction set']})",
        "Python": found["Python"],
        **versions,
        **({"load of the machine": f"{os.getloadavg()[0]:.1f}"} if hasattr(os, "getloadavg") else {}),
    }


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown: the first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def _times(results: Sequence[Result], peers: Sequence[str]) -> str:
    header = ["case", "threads", "memory pass", "anynorm", "GB/s", "of pass", "fastest peer", "allocating"]
    rows = []
    for result in results:
        seconds, ours = result.seconds, result.ours
        row = [result.case, str(result.threads), milliseconds(seconds["memory"]), milliseconds(seconds[ours])]
        row += [f"{result.bytes * 1e-9 / seconds[ours]:.2f}", f"{result.of_pass:.2f}" if result.of_pass else "-"]
        row.append(f"{TITLES[result.rival[0]]} {_factor(result.rival[1])}" if result.rival else "-")
        row += [_against(result, name) if name != ours else "-" for name in ("new", *peers)]
        rows.append(row)
    return table([*header, *(TITLES[name] for name in peers)], rows)


def _against(result: Result, name: str) -> str:
    """Milliseconds of another, and how many of our times they are."""
    ratio = result.ratio(name)
    if ratio is None:
        return "-"
    seconds = result.heap_reuse["torch"] if name == HEAP_REUSE else result.seconds[name]
    return f"{milliseconds(seconds)} ({_factor(ratio)})"


def _factor(ratio: float) -> str:
    return f"**{ratio:.2f}x**" if ratio < 1 else f"{ratio:.2f}x"


def _errors(results: Sequence[Result]) -> str:
    """The worst over all numbers of threads: a result should not depend on it."""
    worst: dict[str, dict[str, float]] = {}
    for result in results:
        for name, error in result.error.items():
            errors = worst.setdefault(result.case, {})
            errors[name] = max(error, errors.get(name, 0.0))
    who = [name for name in TITLES if any(name in errors for errors in worst.values())]
    rows = [[case, *(_error(errors, name) for name in who)] for case, errors in worst.items()]
    return table(["case", *(TITLES[name] for name in who)], rows)


def _error(errors: Mapping[str, float], name: str) -> str:
    return f"{errors[name]:.1e}" if name in errors else "-"


def _listed(cases: Sequence[str]) -> str:
    """Some names, and how many more."""
    more = f" and {len(cases) - 3} more" if len(cases) > 3 else ""
    return f"({', '.join(cases[:3])}{more})"
