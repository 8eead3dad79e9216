# SPDX-License-Identifier: Apache-2.0
"""``python -m anynorm selftest``: does this install compute what it promises on this CPU?

Every norm runs on every instruction set, element type, number of threads and on some memory layouts; so do gradients,
but for the layouts. Results are compared with `anynorm._reference`, and bit for bit with each other. The project's own
tests go much further; these need nothing but the installed package, and take seconds.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import anynorm
from anynorm import _reference as reference
from anynorm._shared import Array

SHAPE = (12, 16, 30, 31)  # N, C, H, W: odd planes, and above the size from which threads are used
MEAN = {"float64": 1e4, "float32": 1e4, "float16": 8.0, "bfloat16": 8.0}
"""Of the data; their deviation is 1."""
TOLERANCE = {"float64": 1e-10, "float32": 4e-6, "float16": 5e-3, "bfloat16": 4e-2}
"""Largest error of an element, all of which are below 16; for float64 at this mean, for half types half a step."""

Norm = Callable[..., Any]  # norm(library, x, weight, bias, running statistics, **options), of anynorm or the reference

NORMS: dict[str, Norm] = {
    "layer_norm": lambda lib, x, w, b, _, **o: lib.layer_norm(x, x.shape[3], w[: x.shape[3]], b[: x.shape[3]], **o),
    "rms_norm": lambda lib, x, w, _b, _, **o: lib.rms_norm(x, x.shape[3], w[: x.shape[3]], 1e-5, **o),
    "group_norm": lambda lib, x, w, b, _, **o: lib.group_norm(x, 4, w[:16], b[:16], **o),
    "instance_norm": lambda lib, x, w, b, _, **o: lib.instance_norm(x, None, None, w[:16], b[:16], **o),
    "batch_norm, training": lambda lib, x, w, b, r, **o: lib.batch_norm(x, *r, w[:16], b[:16], True, **o),
    "batch_norm, inference": lambda lib, x, w, b, r, **o: lib.batch_norm(x, *r, w[:16], b[:16], **o),
    "normalize, two axes": lambda lib, x, _w, _b, _, **o: lib.normalize(x, (0, 2), **o),
}

LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "C": np.ascontiguousarray,
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "every other element": lambda x: np.repeat(x, 2, axis=3)[..., ::2],
    "reversed": lambda x: np.ascontiguousarray(x[::-1, :, :, ::-1])[::-1, :, :, ::-1],
}

REFUSALS: dict[str, tuple[type[Exception], Callable[[Array], Any]]] = {
    "integers": (TypeError, lambda _: anynorm.layer_norm(np.arange(6))),
    "a weight that is too long": (ValueError, lambda x: anynorm.layer_norm(x, weight=np.ones(x.shape[-1] + 1), out=x)),
    "an out of another shape": (ValueError, lambda x: anynorm.layer_norm(x, out=np.empty(3))),
    "an axis that is not there": (ValueError, lambda x: anynorm.normalize(x, 9, out=x)),
    "groups that do not divide": (ValueError, lambda x: anynorm.group_norm(x, 7, out=x)),
    "inference without statistics": (ValueError, lambda x: anynorm.batch_norm(x, out=x)),
    "a negative eps": (ValueError, lambda x: anynorm.layer_norm(x, eps=-1.0, out=x)),
    "an output that overlaps": (ValueError, lambda x: anynorm.layer_norm(x[1:], out=x[:-1])),
    "a gradient of another shape": (ValueError, lambda x: anynorm.layer_norm_backward(x, x, grad_weight=x)),
}


@dataclass
class Outcome:
    """What was found."""

    calls: int = 0
    worst: dict[tuple[str, str], float] = field(default_factory=dict)
    """The largest error by norm and dtype."""
    failures: list[str] = field(default_factory=list)

    def compare(self, what: str, key: tuple[str, str], got: Array, exact: Array) -> None:
        """Note the error, and a failure if it is too large or NaN."""
        self.calls += 1
        error = float(np.max(np.abs(got.astype(np.float64) - exact)))
        self.worst[key] = max(error, self.worst.get(key, 0.0), key=lambda value: (np.isnan(value), value))
        if not error <= TOLERANCE[key[1]]:
            self.failures.append(f"{what}: expected an error of at most {TOLERANCE[key[1]]:.0e}, got {error:.1e}")


def dtypes() -> Iterator[np.dtype[Any]]:
    """The element types that this build takes; bfloat16 is that of ml_dtypes, where it is installed."""
    yield from (np.dtype(np.float32), np.dtype(np.float64))
    half = [np.dtype(np.float16)]
    with suppress(ImportError):
        half.append(np.dtype(importlib.import_module("ml_dtypes").bfloat16))
    for dtype in half:
        try:
            anynorm.moments(np.ones(3, dtype))
        except TypeError:
            continue
        yield dtype


def check_norms(outcome: Outcome, dtype: np.dtype[Any], threads: list[int]) -> None:
    """Values against the reference; bits of all threads and instruction sets against each other."""
    random = np.random.default_rng(11)
    x = (random.standard_normal(SHAPE) + MEAN[dtype.name]).astype(dtype)
    parameter = np.float64 if dtype == np.float64 else np.float32
    weight, bias = random.uniform(0.5, 1.5, (2, 31)).astype(parameter)
    statistics = (random.normal(MEAN[dtype.name], 1, 16).astype(parameter), random.uniform(1, 2, 16).astype(parameter))
    for name, norm in NORMS.items():
        expected_running = [np.array(part, np.float64) for part in statistics]
        exact = norm(reference, x, weight, bias, expected_running)
        for layout, place in LAYOUTS.items():
            placed = place(x)
            bits: dict[bool, bytes] = {}
            for isa in anynorm.available_isas():
                anynorm.use_isa(isa)
                for count in threads:
                    what = f"{name}, {dtype.name}, {layout}, {isa}, {count} threads"
                    running = tuple(part.copy() for part in statistics)
                    y = norm(anynorm, placed, weight, bias, running, num_threads=count)
                    outcome.compare(what, (name, dtype.name), y, exact)
                    if not np.allclose(running, expected_running, rtol=1e-6):
                        outcome.failures.append(f"{what}: wrong running statistics")
                    # The baseline has no fused multiply-add: its bits are its own.
                    if bits.setdefault(isa == "baseline", y.tobytes()) != y.tobytes():
                        outcome.failures.append(f"{what}: other bits than on another number of threads or set")


def check_moments(outcome: Outcome, dtype: np.dtype[Any], threads: list[int]) -> None:
    """Mean and variance along two choices of axes."""
    x = (np.random.default_rng(12).standard_normal(SHAPE) + MEAN[dtype.name]).astype(dtype)
    for axes in ((3,), (0, 2, 3)):
        mean, var = reference.mean_and_var(x, axes)
        for isa in anynorm.available_isas():
            anynorm.use_isa(isa)
            for count in threads:
                got = anynorm.moments(x, axes, num_threads=count)
                for part, exact in ((got.mean, mean), (got.var(), var)):
                    what = f"moments along {axes}, {dtype.name}, {isa}, {count} threads"
                    outcome.compare(what, ("moments", dtype.name), part, exact.reshape(part.shape))


def check_gradients(outcome: Outcome, dtype: np.dtype[Any], threads: list[int]) -> None:
    """Values for three kinds of sets, and their bits as in `check_norms`."""
    random = np.random.default_rng(14)
    x = (random.standard_normal(SHAPE) + MEAN[dtype.name]).astype(dtype)
    grad_output = random.standard_normal(SHAPE).astype(dtype)
    weight = random.uniform(0.5, 1.5, SHAPE[3]).astype(np.float32)
    terms = x.size // weight.size
    for axes in ((3,), (0, 2, 3), (2, 3)):
        exact = reference.gradients(grad_output, x, axes, weight)
        bits: dict[bool, bytes] = {}
        for isa in anynorm.available_isas():
            anynorm.use_isa(isa)
            for count in threads:
                what = f"gradients along {axes}, {dtype.name}, {isa}, {count} threads"
                sums = np.empty((2, weight.size))
                options: dict[str, Any] = {"grad_weight": sums[0], "grad_bias": sums[1], "num_threads": count}
                grad_input = anynorm.normalize_backward(grad_output, x, axes, weight=weight, **options).grad_input
                assert grad_input is not None
                for part, expected in zip((grad_input, *sums / terms), exact, strict=True):
                    outcome.compare(what, ("gradients", dtype.name), part, expected)
                made = grad_input.tobytes() + sums.tobytes()
                if bits.setdefault(isa == "baseline", made) != made:
                    outcome.failures.append(f"{what}: other bits than on another number of threads or set")


def check_refusals(outcome: Outcome) -> None:
    """Wrong arguments raise, and leave the output as it was."""
    before = np.random.default_rng(13).standard_normal((4, 6))
    for name, (error, call) in REFUSALS.items():
        x = before.copy()
        try:
            call(x)
        except error:
            if not np.array_equal(x, before):
                outcome.failures.append(f"{name}: refused after the output had been written")
        else:
            outcome.failures.append(f"{name}: expected {error.__name__}, got a result")


def check() -> Outcome:
    """Run all checks; the instruction set in use stays."""
    outcome = Outcome()
    threads = sorted({1, 2, anynorm.max_threads()})
    before = anynorm.active_isa()
    try:
        for dtype in dtypes():
            check_norms(outcome, dtype, threads)
            check_moments(outcome, dtype, threads)
            check_gradients(outcome, dtype, threads)
        check_refusals(outcome)
    finally:
        anynorm.use_isa(before)
    return outcome


def table(outcome: Outcome) -> str:
    """Worst errors: a row a norm, a column a dtype."""
    names = list(dict.fromkeys(name for name, _ in outcome.worst))
    kinds = list(dict.fromkeys(kind for _, kind in outcome.worst))
    lines = [f"{'largest error':24}" + "".join(f"{kind:>10}" for kind in kinds)]
    for name in names:
        errors = (f"{outcome.worst[name, kind]:10.1e}" if (name, kind) in outcome.worst else "" for kind in kinds)
        lines.append(f"{name:24}" + "".join(errors))
    lines.append(f"{'allowed':24}" + "".join(f"{TOLERANCE[kind]:10.0e}" for kind in kinds))
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no options."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Check and print; the status is 1 if anything failed."""
    del options
    start = time.perf_counter()
    outcome = check()
    sets = ", ".join(anynorm.available_isas())
    print(table(outcome))
    print(
        f"\n{outcome.calls} comparisons on {sets}; {len(LAYOUTS)} memory layouts; up to {anynorm.max_threads()} threads"
    )
    print(f"{len(REFUSALS)} kinds of wrong arguments")
    for failure in outcome.failures[:20]:
        print(f"FAILED {failure}")
    if len(outcome.failures) > 20:
        print(f"and {len(outcome.failures) - 20} more failures")
    print(f"{'FAILED' if outcome.failures else 'passed'} in {time.perf_counter() - start:.1f} s")
    return 1 if outcome.failures else 0
