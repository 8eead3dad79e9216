# SPDX-License-Identifier: Apache-2.0
"""Who runs a case: the memory pass, anynorm, NumPy and torch, all on the same arrays."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapes import Case

import anynorm

Array = NDArray[Any]
Call = Callable[[], Any]

TITLES = {
    "memory": "memory pass",
    "out": "anynorm, out=",
    "new": "anynorm",
    "numpy": "NumPy",
    "torch": "torch",
}
EPS = 1e-5
SERIAL_BYTES = 1 << 20  # a pass over less than this takes no longer than waking another thread

torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None


class Arena:
    """The arrays of a case."""

    def __init__(self, case: Case) -> None:
        """Draw x and the parameters, and touch the memory of y."""
        random = np.random.default_rng(7)
        dtype: Any = {"f32": np.float32, "f64": np.float64}[case.dtype]
        self.x: Array = random.standard_normal(case.shape, dtype)
        self.x *= 2
        self.x += 3
        self.y: Array = np.ones_like(self.x)
        length = case.shape[-1] if case.kind in {"layer_norm", "rms_norm"} else case.shape[case.channel]
        self.weight: Array = random.standard_normal(length, dtype) + dtype(1)
        self.bias: Array = random.standard_normal(length, dtype)


def memory_pass(case: Case, arena: Arena, threads: int, pool: ThreadPoolExecutor) -> Call:
    """Touch what the case must touch and do nothing else: a copy for a norm; for moments the largest element, which
    NumPy finds as fast as it can read."""
    x, y = arena.x.reshape(-1), arena.y.reshape(-1)
    step = x.size if x.nbytes < SERIAL_BYTES else -(-x.size // threads)
    parts = [slice(start, start + step) for start in range(0, x.size, step)]
    works: list[Call] = [
        partial(np.max, x[part]) if case.kind == "moments" else partial(np.copyto, y[part], x[part]) for part in parts
    ]
    if len(works) == 1:
        return works[0]

    def run() -> None:
        others = [pool.submit(work) for work in works[1:]]
        works[0]()
        for other in others:
            other.result()

    return run


def anynorm_call(case: Case, arena: Arena, threads: int, out: Array | None) -> Call:
    """The call of this library."""
    if case.kind == "moments":
        return partial(anynorm.moments, arena.x, case.axis, num_threads=threads)
    options: dict[str, Any] = {"weight": arena.weight, "eps": EPS, "num_threads": threads}
    if out is not None:
        options["out"] = out
    if case.kind == "rms_norm":
        return partial(anynorm.rms_norm, arena.x, **options)
    options["bias"] = arena.bias
    if case.kind == "layer_norm":
        return partial(anynorm.layer_norm, arena.x, **options)
    options["channel_axis"] = case.channel
    if case.kind == "batch_norm":
        return partial(anynorm.batch_norm, arena.x, training=True, **options)
    if case.kind == "instance_norm":
        return partial(anynorm.instance_norm, arena.x, **options)
    return partial(anynorm.group_norm, arena.x, case.groups, **options)


def numpy_call(case: Case, arena: Arena, dtype: Any = None) -> Call:
    """The NumPy expression that a user writes; in a wider type it is what the errors are measured against."""
    x, weight, bias = (array if dtype is None else array.astype(dtype) for array in (arena.x, arena.weight, arena.bias))
    if case.kind == "moments":
        return lambda: (np.mean(x, case.axis), np.var(x, case.axis))
    if case.kind == "rms_norm":
        return lambda: x / np.sqrt(np.mean(np.square(x), -1, keepdims=True) + EPS) * weight
    axes: tuple[int, ...] = (-1,)
    shape = x.shape
    if case.kind != "layer_norm":
        channel = case.channel % x.ndim
        split = case.groups if case.kind == "group_norm" else 1
        # The channel axis becomes (group, channel of the group), for all three norms.
        shape = (*x.shape[:channel], split, x.shape[channel] // split, *x.shape[channel + 1 :])
        spatial = tuple(axis + (axis > channel) for axis in range(1, x.ndim) if axis != channel)
        axes = {
            "batch_norm": (0, channel, *spatial),
            "instance_norm": spatial,
            "group_norm": (channel + 1, *spatial),
        }[case.kind]
        lengths = (*shape[channel : channel + 2], *[1] * (len(shape) - channel - 2))
        weight, bias = weight.reshape(lengths), bias.reshape(lengths)

    def run() -> Array:
        v = x.reshape(shape)
        mean, var = np.mean(v, axes, keepdims=True), np.var(v, axes, keepdims=True)
        y: Array = (v - mean) / np.sqrt(var + EPS) * weight + bias
        return y.reshape(x.shape)

    return run


def torch_call(case: Case, arena: Arena) -> Call:
    """The call of torch.nn.functional; data with the channels last in torch's own memory format for that."""
    functional = torch.nn.functional
    x, weight, bias = map(torch.from_numpy, (arena.x, arena.weight, arena.bias))
    if case.kind == "moments":
        return partial(torch.var_mean, x, dim=case.axis, correction=0)
    if case.kind == "layer_norm":
        return partial(functional.layer_norm, x, x.shape[-1:], weight, bias, EPS)
    if case.kind == "rms_norm":
        return partial(functional.rms_norm, x, x.shape[-1:], weight, EPS)
    x = x.movedim(case.channel, 1)
    if case.kind == "batch_norm":
        return partial(functional.batch_norm, x, None, None, weight, bias, training=True, eps=EPS)
    if case.kind == "instance_norm":
        return partial(functional.instance_norm, x, weight=weight, bias=bias, eps=EPS)
    return partial(functional.group_norm, x, case.groups, weight, bias, EPS)


def exact_arrays(case: Case, arena: Arena) -> tuple[Array, ...]:
    """What everybody should have returned, up to rounding."""
    wider = np.float64 if case.dtype == "f32" else np.longdouble
    return as_arrays(case, "numpy", numpy_call(case, arena, wider)())


def make_calls(case: Case, arena: Arena, threads: int, pool: ThreadPoolExecutor, names: list[str]) -> dict[str, Call]:
    """The calls of all contestants that are asked for and can take part."""
    calls = {"memory": memory_pass(case, arena, threads, pool)}
    if case.kind != "moments":
        calls["out"] = anynorm_call(case, arena, threads, arena.y)
    calls["new"] = anynorm_call(case, arena, threads, None)
    calls["numpy"] = numpy_call(case, arena)
    if torch is not None:
        calls["torch"] = torch_call(case, arena)
    return {name: call for name, call in calls.items() if name in names}


def as_arrays(case: Case, name: str, result: Any) -> tuple[Array, ...]:
    """What a contestant returned: y, or mean and variance."""
    if case.kind == "moments":
        if isinstance(result, anynorm.Moments):
            return result.mean, result.var()
        first, second = (np.asarray(part) for part in result)
        return (second, first) if name == "torch" else (first, second)
    return (np.asarray(result if name != "torch" else result.movedim(1, case.channel)),)


def max_error(results: tuple[Array, ...], exact: tuple[Array, ...]) -> float:
    """The largest difference of any element."""
    return max(float(np.max(np.abs(y - z))) for y, z in zip(results, exact, strict=True))
