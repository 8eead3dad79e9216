# SPDX-License-Identifier: Apache-2.0
"""What came out of a case."""

from __future__ import annotations

from dataclasses import dataclass, field

from anynorm.bench.contestants import HEAP_REUSE, PEERS


@dataclass
class Result:
    """One case on one number of threads: median seconds a call, and largest error, of every contestant."""

    case: str
    section: str
    threads: int
    bytes: int
    seconds: dict[str, float] = field(default_factory=dict)
    error: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    heap_reuse: dict[str, float] = field(default_factory=dict)
    """Seconds in the process that keeps its heap: anynorm and torch."""

    @property
    def ours(self) -> str:
        """The contestant that the others are compared with."""
        return "out" if "out" in self.seconds else "new"

    def ratio(self, name: str) -> float | None:
        """Divide the time of another by ours in the same process: above 1 anynorm is faster."""
        seconds, name = (self.heap_reuse, "torch") if name == HEAP_REUSE else (self.seconds, name)
        return seconds[name] / seconds[self.ours] if {name, self.ours} <= seconds.keys() else None

    @property
    def of_pass(self) -> float | None:
        """Our share of the speed of memory: 1 is a norm as fast as a copy."""
        return self.ratio("memory")

    @property
    def rival(self) -> tuple[str, float] | None:
        """The fastest peer, and how many of our times it takes."""
        ratios = [(ratio, name) for name in PEERS if (ratio := self.ratio(name)) is not None]
        ratio, name = min(ratios, default=(0.0, ""))
        return (name, ratio) if name else None
