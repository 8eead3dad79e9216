# SPDX-License-Identifier: Apache-2.0
"""Gradients of arrays with few channels in the last place, which are walked as rows of many periods: oracle and bits."""

import cases
import ml_dtypes
import numpy as np
import pytest
import reference
from cases import Backward

import anynorm

BF16, F16, F32, F64 = (np.dtype(name) for name in (ml_dtypes.bfloat16, np.float16, np.float32, np.float64))
CHANNELS = [1, 2, 3, 5, 8, 12, 16, 17, 24, 31, 32, 33, 48, 100, 128]
# grad_output, x, parameters.
TYPES = {"f32": (F32, F32, F32), "f64": (F64, F64, F64), "f16": (F16, F16, F32), "bf16": (BF16, BF16, F32),
         "mixed": (F32, BF16, F16)}  # fmt: skip
TOLERANCE = {F64: 1e-12, F32: 4e-6, F16: 2e-3, BF16: 1.6e-2}


def norms(c):
    """The norms by channel of samples of h x w pixels."""
    groups = next(g for g in (4, 3, 2, 1) if c % g == 0)
    return {
        "batch": lambda lib, x, w, b, **options: lib.batch_norm(
            x, weight=w, bias=b, training=True, channel_axis=-1, **options
        ),
        "instance": lambda lib, x, w, b, **options: lib.instance_norm(x, weight=w, bias=b, channel_axis=-1, **options),
        "group": lambda lib, x, w, b, **options: lib.group_norm(x, groups, w, b, channel_axis=-1, **options),
    }


def operands(shape, types, seed=0):
    rng = np.random.default_rng(seed)
    grad_output, x = (rng.normal(mean, 1, shape).astype(dtype) for mean, dtype in zip((0.5, 3), types, strict=False))
    weight, bias = (rng.normal(1, 0.5, shape[-1]).astype(types[2]) for _ in range(2))
    return grad_output, x, weight, bias, rng.normal(size=shape).astype(types[1])


def shape_of(c, elements):
    """Images of this many elements together, whose pixels fill no whole number of rows."""
    return (2, elements // (14 * c) + 1, 7, c)


@pytest.mark.parametrize("c", CHANNELS)
@pytest.mark.parametrize("types", TYPES.values(), ids=TYPES.keys())
@pytest.mark.parametrize(
    "activation, adds", [(None, False), ("silu", False), (None, True)], ids=["plain", "silu", "sum"]
)
def test_against_the_oracle(c, types, activation, adds):
    grad_output, x, weight, bias, grad_sum = operands(shape_of(c, 9000), types)
    wide = [array.astype(F64) for array in (grad_output, x, weight, bias)]
    for name, call in norms(c).items():
        options = {"grad_sum": grad_sum} if adds else {}
        gradient = wide[0]
        if activation is not None:
            options["activation"] = activation
            gradient = gradient * reference.activation_slope(activation, call(reference, *wide[1:]))
        exact = call(Backward(reference, gradient), *wide[1:])
        got = call(Backward(anynorm, grad_output), x, weight, bias, **options)
        expected = exact.grad_input + grad_sum.astype(F64) if adds else exact.grad_input
        assert np.abs(got.grad_input.astype(F64) - expected).max() <= TOLERANCE[x.dtype] * np.abs(expected).max(), name
        terms = np.sqrt(x.size / c)
        for one, other in zip(got[1:], exact[1:], strict=True):
            scale = np.abs(other).max() + terms
            assert np.abs(one.astype(F64) - other).max() <= max(4e-6, TOLERANCE[one.dtype]) * scale, name


@pytest.mark.parametrize("c", CHANNELS)
@pytest.mark.parametrize("types", TYPES.values(), ids=TYPES.keys())
@pytest.mark.parametrize("activation", [None, "relu"])
def test_bits(c, types, activation, wide_isas):
    """Of several pieces, whatever the number of threads and the instruction set."""
    grad_output, x, weight, bias, grad_sum = operands(shape_of(c, 70_000), types)
    for name, call in norms(c).items():
        results = []
        for isa in wide_isas:
            anynorm.use_isa(isa)
            options = {"grad_sum": grad_sum, "activation": activation}
            results += [
                call(Backward(anynorm, grad_output), x, weight, bias, num_threads=n, **options) for n in (1, 2, 3)
            ]
        for other in results[1:]:
            assert all(cases.same_bits(a, b) for a, b in zip(other, results[0], strict=True)), name


@pytest.mark.parametrize("c", [3, 16, 31, 48])
def test_views(c, layout):
    """Strided in memory, so that the elements of a row do not run on, or do so with a step."""
    grad_output, x, weight, bias, _ = operands(shape_of(c, 9000), TYPES["f32"])
    grad_output, x = layout.place(grad_output), layout.place(x)
    for name, call in norms(c).items():
        exact = call(Backward(reference, grad_output.astype(F64)), x.astype(F64), weight, bias)
        got = call(Backward(anynorm, grad_output), x, weight, bias)
        assert np.abs(got.grad_input - exact.grad_input).max() <= 4e-6 * np.abs(exact.grad_input).max(), name
        for one, other in zip(got[1:], exact[1:], strict=True):
            assert np.abs(one - other).max() <= 4e-6 * (np.abs(other).max() + np.sqrt(x.size / c)), name
