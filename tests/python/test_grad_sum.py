# SPDX-License-Identifier: Apache-2.0
"""The gradient that comes to the sum with a residual from elsewhere: the oracle, finite differences, containers, errors."""

import re

import cases
import numpy as np
import pytest
import reference
from cases import Backward

import anynorm

SHAPE = (5, 8, 6, 7)
F32, F64 = np.float32, np.float64
LAYOUTS = [cases.LAYOUT[name] for name in ("c", "channels_last", "step2_inner", "negative_all")]


def operands(norm, dtype, place=np.copy):
    rng = np.random.default_rng(5)
    x, grad_output, grad_sum = (rng.normal(1, 2, SHAPE).astype(dtype) for _ in range(3))
    return place(grad_output), place(x), place(grad_sum), *norm.parameters(x)


@pytest.mark.parametrize("dtype, tolerance", [(F64, 1e-13), (F32, 2e-6), (np.float16, 1e-3)], ids=["f64", "f32", "f16"])
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("norm", cases.NORMS, ids=lambda norm: norm.name)
def test_against_the_oracle(norm, activation, dtype, tolerance):
    if norm.name == "batch_eval":
        dtype = F64 if dtype == F64 else F32  # whose running statistics are made in the dtype of x
    eps = {"eps": np.finfo(F32).eps} if "rms" in norm.name and dtype != F64 else {}
    for layout in LAYOUTS:
        grad_output, x, grad_sum, weight, bias = operands(norm, dtype, layout.place)
        wide = [array.astype(F64) for array in (grad_output, x, weight, bias)]
        if activation is not None:
            h = norm.call(reference, *wide[1:], **eps)
            wide[0] *= reference.activation_slope(activation, h)
        exact = norm.call(Backward(reference, wide[0]), *wide[1:], **eps)
        got = norm.call(Backward(anynorm, grad_output), x, weight, bias, activation=activation, grad_sum=grad_sum)
        expected = exact.grad_input + grad_sum
        assert got.grad_input.dtype == dtype
        assert np.abs(got.grad_input - expected).max() <= tolerance * np.abs(expected).max(), layout.name
        if exact.grad_weight is not None:
            assert np.abs(got.grad_weight - exact.grad_weight).max() <= tolerance * np.abs(exact.grad_weight).max()


def test_both_terms_of_a_residual_have_the_gradient_of_the_block():
    rng = np.random.default_rng(0)
    x, residual, from_y, from_sum, step = rng.normal(size=(5, 6, 30))

    def loss(x, residual):
        y, total = anynorm.layer_norm(x, residual=residual, activation="gelu")
        return np.sum(y * from_y) + np.sum(total * from_sum)

    total = anynorm.layer_norm(x, residual=residual)[1]
    got = anynorm.layer_norm_backward(from_y, total, activation="gelu", grad_sum=from_sum).grad_input
    slope, h = np.sum(got * step), 1e-5 * step
    assert abs(loss(x + h, residual) - loss(x - h, residual) - 2e-5 * slope) < 1e-9 * abs(slope)
    assert abs(loss(x, residual + h) - loss(x, residual - h) - 2e-5 * slope) < 1e-9 * abs(slope)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_rounded_once(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    half = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    rng = np.random.default_rng(1)
    grad_output, x, grad_sum = (rng.normal(size=(64, 96)).astype(half) for _ in range(3))
    wide = anynorm.layer_norm_backward(grad_output, x, grad_input=np.empty(x.shape, F32)).grad_input
    once = (wide + grad_sum.astype(F32)).astype(half)
    got = anynorm.layer_norm_backward(grad_output, x, grad_sum=grad_sum).grad_input
    assert np.array_equal(got, once)
    twice = (wide.astype(half).astype(F32) + grad_sum.astype(F32)).astype(half)
    assert not np.array_equal(twice, once)


def test_selections():
    rng = np.random.default_rng(2)
    x, grad_output, grad_sum = rng.normal(size=(3, 6, 20, 9))
    where = rng.random((6, 20, 1)) < 0.6
    for chosen in ({"where": where}, {"labels": np.array([0, 1, -1, 0, 1, 1])}, {"segments": [1, 4, 6]}):
        for excluded in ("zero", "input"):
            options = dict(chosen, excluded=excluded)
            plain = anynorm.normalize_backward(grad_output, x, (0, 1), **options).grad_input
            got = anynorm.normalize_backward(grad_output, x, (0, 1), grad_sum=grad_sum, **options).grad_input
            assert np.array_equal(got, plain + grad_sum)
    kept = np.full(x.shape, 7.0)
    anynorm.layer_norm_backward(grad_output, x, where=where, excluded="keep", grad_sum=grad_sum, grad_input=kept)
    plain = anynorm.layer_norm_backward(grad_output, x, where=where).grad_input
    assert np.array_equal(kept, np.where(where, plain + grad_sum, 7.0))


def test_patterns_and_masked_arrays():
    rng = np.random.default_rng(3)
    x, grad_output, grad_sum = rng.normal(size=(3, 4, 6, 5))
    plain = anynorm.normalize_backward(grad_output, x, "n (g c) w -> n g", g=2).grad_input
    for _ in range(2):  # the second call knows the pattern
        got = anynorm.normalize_backward(grad_output, x, "n (g c) w -> n g", g=2, grad_sum=grad_sum).grad_input
        assert np.array_equal(got, plain + grad_sum)
    masked = np.ma.MaskedArray(x, mask=x > 1)
    got = anynorm.rms_norm_backward(
        grad_output, masked, grad_sum=np.ma.MaskedArray(grad_sum, mask=masked.mask)
    ).grad_input
    plain = anynorm.rms_norm_backward(grad_output, x, where=x <= 1).grad_input
    assert isinstance(got, np.ma.MaskedArray)
    assert np.array_equal(got.data, plain + grad_sum)


def test_in_place_and_lists():
    x = np.array([[0.0, 0.0, 2.0, 2.0]])
    grad_output, grad_sum = np.array([[4.0, 0.0, 0.0, 0.0]]), np.ones((1, 4))
    expected = [[3.0, -1.0, 1.0, 1.0]]
    got = anynorm.layer_norm_backward(grad_output, x, eps=0, grad_sum=[[1.0, 1.0, 1.0, 1.0]]).grad_input
    assert got.tolist() == expected
    assert anynorm.layer_norm_backward(grad_output, x, eps=0, grad_sum=grad_sum, grad_input=grad_sum)[0] is grad_sum
    assert grad_sum.tolist() == expected


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"grad_sum": np.ones((3, 5))}, ValueError, "expected grad_sum of shape (3, 4), got (3, 5)"),
        ({"grad_sum": np.ones((3, 4), int)}, TypeError, "expected grad_sum of dtype float16"),
        ({"grad_sum": np.ones((3, 4)), "grad_input": False}, ValueError, "expected grad_input with grad_sum, got none"),
    ],
)
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm"])
def test_errors(name, change, error, message):
    x = np.arange(12.0).reshape(3, 4)
    arguments = (2,) if name == "group_norm" else ()
    options = {"training": True} if name == "batch_norm" else {}
    with pytest.raises(error, match=re.escape(message)):
        getattr(anynorm, f"{name}_backward")(x, x, *arguments, **options, **change)
