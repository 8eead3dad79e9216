# SPDX-License-Identifier: Apache-2.0
"""Loops written by hand and compiled by numba: `anynorm.bench.kernels`."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from anynorm.bench.arena import Arena, Array
from anynorm.bench.contestants.base import Call, Contestant, Skipped, want_axes
from anynorm.bench.expression import EPS
from anynorm.bench.shapes import Case

CHUNKS_PER_THREAD = 4  # so that a thread which is late does not hold up the others for long


class NumbaKernels(Contestant):
    """The result goes to an array that is there already."""

    name = "numba"
    title = "numba"

    def __init__(self) -> None:
        """Import."""
        self._numba: Any = importlib.import_module("numba")
        self.version = self._numba.__version__

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """Set the threads; more than numba has started are refused."""
        before = self._numba.get_num_threads()
        self._numba.set_num_threads(min(threads, self._numba.config.NUMBA_NUM_THREADS))
        try:
            yield
        finally:
            self._numba.set_num_threads(before)

    def call(self, case: Case, arena: Arena, threads: int) -> Call:
        """Choose a kernel by where the sets lie in memory."""
        want_axes(case)
        if threads > self._numba.config.NUMBA_NUM_THREADS:
            raise Skipped(f"numba has {self._numba.config.NUMBA_NUM_THREADS} threads")
        if case.backward or case.fused or case.labels or case.where:
            raise Skipped("no kernel was written for gradients, fused norms, labels and masks")
        if arena.x.dtype.itemsize == 2:
            raise Skipped("numba does not compute with half types on a CPU")
        chunks = CHUNKS_PER_THREAD * threads if threads > 1 else 1
        x, y = arena.x, arena.y
        if case.order == "F":
            case, x, y = _transposed(case), x.T, y.T
        if case.kind == "moments":
            return _moments(case, x, chunks)
        run = _channel_norm(case, arena, x, y, chunks) if case.over_channels else _row_norm(case, arena, x, y)

        def run_for_y() -> Array:
            run()
            return arena.y

        return run_for_y


def _transposed(case: Case) -> Case:
    """Make a case in Fortran order one in C order, of the transposed array."""
    if case.kind not in {"moments", "batch_norm"}:
        raise Skipped("no kernel was written for sets across the order of memory")
    last = len(case.shape) - 1
    axis = tuple(last - axis for axis in case.set_axes)
    return replace(case, shape=case.shape[::-1], axis=axis, channel=last - case.channel % (last + 1), order="C")


def _row_norm(case: Case, arena: Arena, x: Array, y: Array) -> Call:
    """Layer and RMS norm."""
    from anynorm.bench.kernels import rows

    x, y = (_reshaped(array, (-1, case.channels)) for array in (x, y))
    if case.kind == "rms_norm":
        return partial(rows.rms_norm, x, arena.weight, EPS, y)
    return partial(rows.layer_norm, x, arena.weight, arena.bias, EPS, y)


def _channel_norm(case: Case, arena: Arena, x: Array, y: Array, chunks: int) -> Call:
    """The norms of data with channels, which are first or last in memory."""
    from anynorm.bench.kernels import columns, planes

    last = case.channel % x.ndim == x.ndim - 1
    kernels: Any = columns if last else planes
    parameters: tuple[Any, ...] = (arena.weight, arena.bias, EPS)
    if case.kind == "batch_norm":
        shape = (-1, case.channels) if last else (math.prod(x.shape[: case.channel]), case.channels, -1)
        kernel = kernels.batch_norm if case.training else kernels.batch_norm_inference
        parameters = parameters if case.training else (arena.mean, arena.var, *parameters)
        cut = (chunks,) if last else ()
        return partial(kernel, _reshaped(x, shape), *parameters, _reshaped(y, shape), *cut)
    shape = (case.shape[0], -1, case.channels) if last else (case.shape[0], case.channels, -1)
    groups = case.groups if case.kind == "group_norm" else case.channels
    return partial(kernels.group_norm, _reshaped(x, shape), groups, *parameters, _reshaped(y, shape))


def _moments(case: Case, x: Array, chunks: int) -> Call:
    """Moments of everything, or of every index of one axis."""
    from anynorm.bench.kernels import columns, planes, rows

    kept = [axis for axis in range(x.ndim) if axis not in case.set_axes]
    if len(kept) > 1:
        raise Skipped("no kernel was written for sets along more than one axis")
    if not kept:
        return partial(_joined, rows.moments, _reshaped(x, (-1, x.shape[-1])))
    axis, length = kept[0], x.shape[kept[0]]
    if axis == x.ndim - 1:
        return partial(columns.moments, _reshaped(x, (-1, length)), chunks)
    if axis == 0:
        return partial(_filled, rows.moments, _reshaped(x, (length, -1)))
    return partial(_filled, planes.moments, _reshaped(x, (math.prod(x.shape[:axis]), length, -1)))


def _reshaped(array: Array, shape: tuple[int, ...]) -> Array:
    """Join axes without a copy, which would be a part of nobody's time."""
    result = array.reshape(shape)
    if not np.may_share_memory(result, array):
        raise Skipped("no kernel was written for axes that do not join")
    return result


def _filled(kernel: Callable[[Array, Array, Array], None], x: Array) -> tuple[Array, Array]:
    """Results in float64; the sets are along axis 0 of rows, axis 1 of planes."""
    mean, var = np.empty((2, x.shape[x.ndim - 2]))
    kernel(x, mean, var)
    return mean, var


def _joined(kernel: Callable[[Array, Array, Array], None], x: Array) -> tuple[Array, Array]:
    """One mean and variance from those of rows, which are of equal length."""
    mean, var = _filled(kernel, x)
    return mean.mean(), var.mean() + mean.var()
