# SPDX-License-Identifier: Apache-2.0
"""Gradients of norms with an activation: the oracle, finite differences, torch, bits and errors."""

import cases
import numpy as np
import pytest
import reference
from cases import Backward

import anynorm

SHAPE = (5, 8, 6, 7)
ACTIVATIONS = ["relu", "silu", "gelu", "gelu_tanh"]
LAYOUTS = [cases.LAYOUT[name] for name in ("c", "channels_last", "step2_inner", "negative_all")]
F32, F64 = np.float32, np.float64


def operands(norm, dtype, place=np.copy):
    rng = np.random.default_rng(5)
    x, grad_output = (rng.normal(1, 2, SHAPE).astype(dtype) for _ in range(2))
    weight, bias = norm.parameters(x)
    return place(grad_output), place(x), weight, bias


def gradients(norm, activation, grad_output, x, weight, bias, **options):
    return norm.call(Backward(anynorm, grad_output), x, weight, bias, activation=activation, **options)


def expected_gradients(norm, activation, grad_output, x, weight, bias):
    wide = [array.astype(F64) for array in (grad_output, x, weight, bias)]
    eps = {"eps": np.finfo(F32).eps} if "rms" in norm.name and x.dtype != F64 else {}
    h = norm.call(reference, *wide[1:], **eps)
    return norm.call(Backward(reference, wide[0] * reference.activation_slope(activation, h)), *wide[1:], **eps)


@pytest.mark.parametrize("dtype, tolerance", [(F64, 1e-13), (F32, 2e-6), (np.float16, 2e-3)], ids=["f64", "f32", "f16"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", cases.NORMS, ids=lambda norm: norm.name)
def test_against_the_oracle(norm, activation, dtype, tolerance):
    if norm.name == "batch_eval":
        dtype = F64 if dtype == F64 else F32  # whose running statistics are made in the dtype of x
        tolerance = max(tolerance, 2e-6) if dtype == F32 else tolerance
    for layout in LAYOUTS:
        arrays = operands(norm, dtype, layout.place)
        expected = expected_gradients(norm, activation, *arrays)
        for got, exact in zip(gradients(norm, activation, *arrays), expected, strict=True):
            if exact is not None:
                assert got.dtype == dtype
                assert np.abs(got - exact).max() <= tolerance * np.abs(exact).max(), layout.name


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_finite_differences(activation):
    norm = cases.NORM["group"]
    grad_output, x, weight, bias = operands(norm, F64)
    step = np.random.default_rng(1).normal(size=SHAPE) * 1e-6

    def loss(x):
        return np.sum(grad_output * norm.call(anynorm, x, weight, bias, activation=activation))

    slope = np.sum(gradients(norm, activation, grad_output, x, weight, bias).grad_input * step)
    assert abs(loss(x + step) - loss(x - step) - 2 * slope) < 1e-4 * abs(slope)


@pytest.mark.parametrize("name", ["layer_last", "batch_train", "group", "instance_last"])
def test_bits_depend_on_neither_threads_nor_what_is_asked_for(name):
    norm = cases.NORM[name]
    rng = np.random.default_rng(2)
    x, grad_output = (rng.normal(size=(16, 8, 33, 34)).astype(F32) for _ in range(2))
    arrays = (grad_output, x, *norm.parameters(x))
    one = gradients(norm, "gelu", *arrays, num_threads=1)
    two = gradients(norm, "gelu", *arrays, num_threads=2)
    assert all(map(cases.same_bits, one, two))
    weight = gradients(norm, "gelu", *arrays, grad_input=False, grad_bias=False).grad_weight
    assert cases.same_bits(weight, one.grad_weight)
    in_place = grad_output.copy()
    gradients(norm, "gelu", in_place, *arrays[1:], grad_input=in_place)
    assert cases.same_bits(in_place, one.grad_input)


def test_the_sum_with_a_residual_has_the_gradient_of_both():
    rng = np.random.default_rng(3)
    x, residual, grad_output = (rng.normal(size=(4, 64)) for _ in range(3))
    y, total = anynorm.layer_norm(x, residual=residual, activation="silu")
    got = anynorm.layer_norm_backward(grad_output, total, activation="silu").grad_input
    step = 1e-6 * rng.normal(size=x.shape)
    moved = anynorm.layer_norm(x, residual=residual + step, activation="silu")[0]
    assert abs(np.sum(grad_output * (moved - y)) - np.sum(got * step)) < 1e-9


@pytest.mark.parametrize("activation, error", [("tanh", ValueError), (1, TypeError), ("", ValueError)])
def test_errors(activation, error):
    x = np.ones((3, 4))
    out = np.full_like(x, 7)
    with pytest.raises(error, match="layer_norm_backward: expected activation"):
        anynorm.layer_norm_backward(x, x, activation=activation, grad_input=out)
    assert np.all(out == 7)


def test_grad_bias_may_not_lie_in_the_bias_that_is_read():
    x, bias = np.ones((3, 4)), np.ones(4)
    with pytest.raises(ValueError, match=r"grad_bias.*bias"):
        anynorm.layer_norm_backward(x, x, bias=bias, activation="relu", grad_bias=bias)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_against_torch(activation):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    grad_output, x, weight, bias = operands(cases.NORM["layer_last"], F64)
    leaves = [torch.from_numpy(array.copy()).requires_grad_() for array in (x, weight, bias)]
    h = functional.layer_norm(leaves[0], x.shape[-1:], *leaves[1:])
    y = functional.gelu(h, approximate="tanh") if activation == "gelu_tanh" else getattr(functional, activation)(h)
    y.backward(torch.from_numpy(grad_output.copy()))
    for got, leaf in zip(
        gradients(cases.NORM["layer_last"], activation, grad_output, x, weight, bias), leaves, strict=True
    ):
        assert np.allclose(got, leaf.grad.numpy(), rtol=1e-12, atol=1e-12)
