# SPDX-License-Identifier: Apache-2.0
"""What the contestants of a case share: the arrays, and what they should make of them."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anynorm.bench.by_label import by_label
from anynorm.bench.expression import expression
from anynorm.bench.gradient import gradient, statistics
from anynorm.bench.masked import masked
from anynorm.bench.shapes import Case

Array = NDArray[Any]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Look up an element type of the list; bfloat16 is that of ml_dtypes."""
    if name == "bf16":
        dtype: np.dtype[Any] = np.dtype(importlib.import_module("ml_dtypes").bfloat16)
        return dtype
    return np.dtype({"f16": "float16", "f32": "float32", "f64": "float64"}[name])


class Arena:
    """The arrays of a case. Parameters and running statistics are float32 for the half types."""

    def __init__(self, case: Case) -> None:
        """Draw everything, and touch the memory of y."""
        random = np.random.default_rng(7)
        dtype = numpy_dtype(case.dtype)
        drawn: Any = np.float64 if case.dtype == "f64" else np.float32
        x = random.standard_normal(case.memory_shape, drawn)
        x *= 2
        x += 3
        x = x.astype(dtype, copy=False)
        y = np.ones_like(x, np.int8 if case.result else None)
        self.read: list[Array] = [x]
        """The arrays that x, and what is read beside it, are views of: all that a pass over them touches."""
        self.written: list[Array] = [y]
        """The same for y, and what is written beside it."""
        self.x, self.y = viewed(case, x), viewed(case, y)
        parameters = random.standard_normal((4, case.channels), drawn) + np.array([[1], [0], [3], [0]], drawn)
        parameters[3] = parameters[3] ** 2 + 2
        # Rounded to the type of x, which some peers want: else they would seem to err.
        self.weight, self.bias, self.mean, self.var = parameters.astype(dtype).astype(drawn)
        if case.residual:
            self.read.append(random.standard_normal(case.memory_shape, drawn).astype(dtype, copy=False))
            self.written.append(np.ones_like(x))
            self.residual, self.sum = viewed(case, self.read[1]), viewed(case, self.written[1])
        if case.backward:
            self.read.append(random.standard_normal(case.memory_shape, drawn).astype(dtype, copy=False))
            self.grad_output = viewed(case, self.read[1])
            self.saved = statistics(np, case, self.x)
        if case.labels:
            # Every label is there: what an empty group has, peers do not agree on.
            drawn_labels = random.integers(0, case.labels, case.shape[0])
            drawn_labels[: case.labels] = np.arange(case.labels)
            random.shuffle(drawn_labels)
            self.labels = np.sort(drawn_labels) if case.sorted else drawn_labels
        if case.segments:
            self.offsets = np.arange(case.segments + 1) * case.shape[0] // case.segments
            self.labels = np.repeat(np.arange(case.segments), np.diff(self.offsets))
        if case.where:
            self.where = drawn_mask(case, random)
        self._case = case

    @property
    def operands(self) -> tuple[Array, ...]:
        """The arguments of the expression; of a gradient x follows, so that the first is always as long as x."""
        if self._case.backward:
            return self.grad_output, self.x, self.weight, *self.saved
        if self._case.row_sets:
            return self.x, self.labels
        if self._case.where:
            return self.x, self.where
        residual = (self.residual,) if self._case.residual else ()
        return self.x, self.weight, self.bias, self.mean, self.var, *residual


def written_out(case: Case) -> Any:
    """Choose the array expression of a case, for an array library, the case and its operands."""
    if case.where:
        return masked
    return by_label if case.row_sets else gradient if case.backward else expression


def drawn_mask(case: Case, random: np.random.Generator) -> Array:
    """Draw what is used: samples from a quarter of their length on, or seven rows or elements of ten."""
    if case.where == "padding":
        samples, length = case.shape[:2]
        used = random.integers(max(length // 4, 1), length, samples, endpoint=True)
        return (np.arange(length) < used[:, None]).reshape(case.mask_shape)
    mask = random.random(case.mask_shape, np.float32) < 0.7
    mask[(0,) * (mask.ndim - 1)] = True  # one at least for each set
    return mask


def viewed(case: Case, memory: Array) -> Array:
    """See an array in C order as the case wants it."""
    whole = memory.T if case.order == "F" else memory
    return whole[..., :: case.step]


def exact_arrays(case: Case, arena: Arena) -> tuple[Array, ...]:
    """Compute what everybody should return: float64, or the long double of the platform for float64 input."""
    wider = np.longdouble if case.dtype == "f64" else np.float64
    operands = [operand if operand.dtype.kind in "bi" else operand.astype(wider) for operand in arena.operands]
    if case.backward:
        operands[3:] = statistics(np, case, operands[1])
    result = written_out(case)(np, case, *operands)
    return result if isinstance(result, tuple) else (result,)


def max_error(results: tuple[Array, ...], exact: tuple[Array, ...]) -> float:
    """Find the largest difference of any element; NaN if there is one.

    A long sum, as the gradient of a parameter is, is compared with the largest of its kind where that is above 16, which
    no other result exceeds by much.
    """
    return max(
        float(np.max(np.abs(y.astype(z.dtype) - z))) / max(1.0, float(np.max(np.abs(z))) / 16 if z.ndim == 1 else 1.0)
        for y, z in zip(results, exact, strict=True)
    )
