# SPDX-License-Identifier: Apache-2.0
"""The list of shapes that the C++ and the Python benchmark share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

SHAPES = Path(__file__).with_name("shapes.txt")


@dataclass(frozen=True)
class Case:
    """One line of the list: which function, on what."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    axis: tuple[int, ...] = (-1,)
    channel: int = 1
    groups: int = 1

    @property
    def bytes(self) -> int:
        """Bytes that must move: all of x, and all of y if there is one."""
        element = {"f32": 4, "f64": 8}[self.dtype]
        return math.prod(self.shape) * element * (1 if self.kind == "moments" else 2)


def read_case(line: str, max_length: int, min_bytes: int) -> Case:
    """Understand one line; see `read_cases`."""
    kind, dtype, lengths, *words = line.split()
    shape = [min(int(length), max_length) for length in lengths.split("x")]
    size = math.prod(shape) * {"f32": 4, "f64": 8}[dtype]
    shape[0] *= max(1, -(-min_bytes // size))
    options: dict[str, tuple[int, ...]] = {}
    for word in words:
        key, values = word.split("=")
        options[key] = tuple(map(int, values.split(",")))
    if "groups" in options:
        options["groups"] = (min(*options["groups"], max_length),)
    if unknown := options.keys() - ({"axis"} if kind == "moments" else {"channel", "groups"}):
        raise ValueError(unknown)
    told = [f"{key}={','.join(map(str, values))}" for key, values in options.items()]
    return Case(
        name="/".join([kind, "x".join(map(str, shape)), dtype, *told]),
        kind=kind,
        dtype=dtype,
        shape=tuple(shape),
        axis=options.get("axis", (-1,)),
        channel=options.get("channel", (1,))[0],
        groups=options.get("groups", (1,))[0],
    )


def read_cases(path: Path = SHAPES, *, max_length: int | None = None, min_bytes: int = 0) -> list[Case]:
    """Read the list. Cases that become equal are measured once.

    `max_length` cuts longer axes, for a quick look; `min_bytes` repeats the first axis until x has as many, to leave
    the cache behind.
    """
    cases: dict[str, Case] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line and not line.startswith("#"):
            try:
                case = read_case(line, max_length or 2**62, min_bytes)
            except (KeyError, ValueError):
                expected = "expected `kind dtype shape`, then axis= of moments or channel= and groups= of a norm"
                raise ValueError(f"{path}:{number}: {expected}; got `{line}`") from None
            cases.setdefault(case.name, case)
    return list(cases.values())
