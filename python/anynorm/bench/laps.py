# SPDX-License-Identifier: Apache-2.0
"""The clock: laps in turns, medians over rounds."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Mapping

from anynorm.bench.contestants import Call

LAP_SECONDS = 2e-3


def lap(call: Call, count: int, threads: int) -> float:
    """Measure seconds a call."""
    if threads > 1:
        # The threads of the contestant before (torch brings an OpenMP of its own) spin for some milliseconds.
        time.sleep(0.01)
    call()  # for nothing: it finds in the caches what another has left, and wakes the threads
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def measure(calls: Mapping[str, Call], threads: int, repeat: int) -> dict[str, float]:
    """Take the median over rounds in which everybody has one lap, in an order that changes."""
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
