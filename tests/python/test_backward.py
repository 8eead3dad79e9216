# SPDX-License-Identifier: Apache-2.0
"""Gradients: every norm, layout and type against the oracle, their bits, which of them are made, torch and jax."""

import itertools

import cases
import ml_dtypes
import numpy as np
import pytest
import reference
from cases import Backward
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import anynorm

BF16, F16, F32, F64 = (np.dtype(name) for name in (ml_dtypes.bfloat16, np.float16, np.float32, np.float64))
SHAPE = (3, 8, 5, 6)
LARGE = (4, 32, 17, 19)  # above the size from which threads are used

# grad_output, x, weight and bias, grad_input.
TYPES = {
    "f32": (F32, F32, F32, F32),
    "f64": (F64, F64, F64, F64),
    "f16": (F16, F16, F16, F16),
    "bf16": (BF16, BF16, BF16, BF16),
    "f16_with_f32_parameters": (F16, F16, F32, F16),
    "f32_of_bf16_into_f32": (F32, BF16, F32, F32),
    "f64_of_f32_into_f32": (F64, F32, F16, F32),
    "f32_of_f32_into_f64": (F32, F32, F64, F64),
    "bf16_of_f64_into_f16": (BF16, F64, F64, F16),
}
ROUNDING = {F64: 2.0**-53, F32: 2.0**-24, F16: 2.0**-11, BF16: 2.0**-8}
SMALLEST = {F64: 0, F32: 1e-45, F16: 2.0**-25, BF16: 1e-40}  # half of the smallest number


def sample(shape, dtype, mean=0.0, seed=3):
    return np.random.default_rng(seed).normal(mean, 1, shape).astype(dtype)


def assert_close(got, exact, arithmetic, scale):
    """Half a step of the type, and the error of the arithmetic, which counts in units of `scale`."""
    assert got.shape == exact.shape
    error = np.abs(got.astype(F64) - exact)
    allowed = np.abs(exact) * ROUNDING[got.dtype] * 1.01 + SMALLEST[got.dtype] + arithmetic * scale
    assert np.all(error <= allowed), f"{np.max(error / allowed):.3g} times what is allowed"


def check(gradients, exact, wide):
    """`wide`: computed in float64. Sums are of float64 always, their terms x - mean of the type to compute in."""
    grad_input = exact.grad_input
    if gradients.grad_input is not None:
        assert_close(gradients.grad_input, grad_input, 1e-12 if wide else 3e-6, 1 + np.abs(grad_input).max())
    if gradients.grad_weight is not None:
        terms = grad_input.size / exact.grad_weight.size
        assert_close(gradients.grad_weight, exact.grad_weight, 1e-13 if wide else 2e-6, terms)
    if gradients.grad_bias is not None:
        assert_close(gradients.grad_bias, exact.grad_bias, 1e-14, grad_input.size / exact.grad_bias.size)


def neighbour(layout, step, layouts):
    """Another layout for another operand."""
    return layouts[(cases.LAYOUTS.index(layout) + step) % len(layouts)]


@pytest.mark.parametrize("types", TYPES.values(), ids=TYPES.keys())
def test_gradients(layout, norm, types):
    """x, grad_output and grad_input in three layouts."""
    dy_dtype, x_dtype, parameter_dtype, dx_dtype = types
    x = layout.place(sample(SHAPE, x_dtype, mean=3.0))
    grad_output = neighbour(layout, 5, cases.LAYOUTS).place(sample(SHAPE, dy_dtype, mean=0.5, seed=4))
    before = x.copy(), grad_output.copy()
    weight, bias = norm.parameters(x, parameter_dtype)
    out = neighbour(layout, 3, cases.OUTPUT_LAYOUTS).empty(SHAPE, dx_dtype)
    gradients = norm.call(Backward(anynorm, grad_output), x, weight, bias, grad_input=out)
    assert gradients.grad_input is out
    assert {g.dtype for g in gradients[1:] if g is not None} == {parameter_dtype}
    check(gradients, norm.call(Backward(reference, grad_output), x, weight, bias), wide=F64 in types[:2] + types[3:])
    assert cases.same_bits(x, before[0])
    assert cases.same_bits(grad_output, before[1])


@pytest.mark.parametrize("name", ["c", "fortran", "step2_inner", "negative_all"])
def test_every_loop_nest(kernel, name, dtype, isa):
    """Above the size from which threads are used; one parameter along the innermost axis, one along the outermost."""
    place = cases.LAYOUT[name].place if len(kernel.shape) > 1 else np.copy
    x, grad_output = place(sample(kernel.shape, dtype, 3.0)), place(sample(kernel.shape, dtype, 0.5, seed=4))
    weight = sample(kernel.shape[-1:], dtype, 1.0)
    bias = sample((kernel.shape[0], *[1] * (x.ndim - 1)), dtype)
    arguments = {"weight": weight, "bias": bias}
    gradients = anynorm.normalize_backward(grad_output, x, kernel.axes, **arguments)
    check(gradients, reference.normalize_backward(grad_output, x, kernel.axes, **arguments), dtype == F64)


@pytest.mark.parametrize("norm", [n for n in cases.NORMS if n.name != "batch_eval"], ids=lambda norm: norm.name)
def test_a_mean_that_is_large_against_the_deviation(norm):
    x = sample(LARGE, F32, mean=1e4)
    grad_output = sample(LARGE, F32, seed=4)
    weight, bias = norm.parameters(x)
    exact = norm.call(Backward(reference, grad_output), x, weight, bias)
    check(norm.call(Backward(anynorm, grad_output), x, weight, bias), exact, wide=False)


@pytest.mark.parametrize("mean", [0.0, 1e4, 1e6])
@pytest.mark.parametrize("data", ["random", "along_x"])
@pytest.mark.parametrize("shape, axes", [((700, 768), 1), ((6, 70_000), 1), ((16, 8, 28, 28), (0, 2, 3)), ((9000, 16), 1), ((1, 999), 1)],
                         ids=["layer", "long_rows", "batch", "short_rows", "one_row"])  # fmt: skip
def test_float32_errors(shape, axes, data, mean, isa):
    """What numerics.md promises at any mean, in units of what is added up."""
    x, grad_output = sample(shape, F32, mean), sample(shape, F32, 0.5, seed=4)
    if data == "along_x":  # the terms cancel
        grad_output = (x - x.mean(axes, keepdims=True) + 0.01 * grad_output).astype(F32)
    weight = np.random.default_rng(5).uniform(0.5, 1.5, (shape[1], *[1] * (len(shape) - 2))).astype(F32)
    got = anynorm.normalize_backward(
        grad_output, x, axes, weight=weight, grad_weight=np.empty(weight.shape), grad_bias=np.empty(weight.shape)
    )
    exact = reference.normalize_backward(grad_output, x, axes, weight=weight, bias=weight)
    xhat = np.abs(reference.normalize(x, axes))
    rstd = 1 / np.sqrt(reference.moments(x, axes, keepdims=True).var + 1e-5)
    size, g = np.abs(grad_output.astype(F64)), np.abs(grad_output.astype(F64) * weight)
    means = g.mean(axes, keepdims=True), (g * xhat).mean(axes, keepdims=True)
    others = tuple(a for a in range(x.ndim) if a != 1)
    sums = [terms.sum(others).reshape(weight.shape) for terms in (size * np.maximum(1, xhat), size)]
    units = rstd * (g + means[0] + np.maximum(1, xhat) * means[1])
    assert np.max(np.abs(got.grad_input - exact.grad_input) / units) < 4e-7
    assert np.max(np.abs(got.grad_weight - exact.grad_weight) / sums[0]) < 4e-7
    assert np.max(np.abs(got.grad_bias - exact.grad_bias) / sums[1]) < 1e-14


@pytest.mark.parametrize("shape", [(1,), (7,), (1, 1), (1, 5), (5, 1), (1, 4, 1, 9, 1)], ids=str)
def test_axes_of_length_one(shape, dtype):
    x, grad_output = sample(shape, dtype, 3.0), sample(shape, dtype, seed=4)
    weight, bias = sample(shape, dtype, 1.0, seed=5), sample(shape[-1:], dtype)
    for axis in [None, (), *range(len(shape))]:
        arguments = {"weight": weight, "bias": bias, "eps": 0.1}
        gradients = anynorm.normalize_backward(grad_output, x, axis, **arguments)
        check(gradients, reference.normalize_backward(grad_output, x, axis, **arguments), dtype == F64)


def test_sixteen_axes(dtype):
    x, grad_output = sample((2,) * 16, dtype, 3.0), sample((2,) * 16, dtype, seed=4)
    weight = sample((2, 1) * 8, dtype, 1.0)
    for axes in [tuple(range(0, 16, 2)), tuple(range(1, 16, 2)), (15,), None]:
        gradients = anynorm.normalize_backward(grad_output, x, axes, weight=weight, eps=0.1)
        exact = reference.normalize_backward(grad_output, x, axes, weight=weight, eps=0.1)
        check(gradients, exact, dtype == F64)


# --- bits ------------------------------------------------------------------------------------------------------------


def assert_same(a, b):
    for one, other in zip(a, b, strict=True):
        assert (one is None) == (other is None)
        assert one is None or cases.same_bits(one, other)


@pytest.mark.parametrize("shape", [LARGE, (2, 8, 71, 69)], ids=str)
def test_threads(norm, shape, dtype, isa):
    x, grad_output = sample(shape, dtype, 3.0), sample(shape, dtype, seed=4)
    weight, bias = norm.parameters(x)
    one = norm.call(Backward(anynorm, grad_output), x, weight, bias, num_threads=1)
    for threads in [None, 2, 3, 4, 8]:
        assert_same(norm.call(Backward(anynorm, grad_output), x, weight, bias, num_threads=threads), one)


def test_threads_of_every_loop_nest(kernel, dtype):
    x, grad_output = sample(kernel.shape, dtype, 3.0), sample(kernel.shape, dtype, seed=4)
    for weight in (np.ones(kernel.shape[-1:], dtype), np.ones((kernel.shape[0], *[1] * (x.ndim - 1)), dtype)):
        one = anynorm.normalize_backward(grad_output, x, kernel.axes, weight=weight, bias=weight, num_threads=1)
        again = anynorm.normalize_backward(grad_output, x, kernel.axes, weight=weight, bias=weight, num_threads=3)
        assert_same(again, one)


@pytest.mark.parametrize("types", [TYPES[name] for name in ("f32", "f64", "bf16")], ids=["f32", "f64", "bf16"])
def test_instruction_sets(kernel, types, wide_isas):
    x, grad_output = sample(kernel.shape, types[1], 3.0), sample(kernel.shape, types[0], seed=4)
    weight = np.ones(kernel.shape[-1:], types[2])
    results = []
    for isa in wide_isas:
        anynorm.use_isa(isa)
        results.append(anynorm.normalize_backward(grad_output, x, kernel.axes, weight=weight, bias=weight))
    for other in results[1:]:
        assert_same(other, results[0])


def test_in_place(out_layout, norm, dtype):
    for over in ("grad_output", "x"):
        values, gradient = sample(SHAPE, dtype, 3.0), sample(SHAPE, dtype, seed=4)
        x, grad_output = out_layout.place(values), out_layout.place(gradient)
        weight, bias = norm.parameters(values)
        target = {"grad_output": grad_output, "x": x}[over]
        gradients = norm.call(Backward(anynorm, grad_output), x, weight, bias, grad_input=target)
        assert gradients.grad_input is target
        check(gradients, norm.call(Backward(reference, gradient), values, weight, bias), dtype == F64)


# --- which gradients -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [*itertools.product([True, False], repeat=3)], ids=str)
def test_each_gradient_is_optional(norm, wanted, dtype):
    x, grad_output = sample(LARGE, dtype, 3.0), sample(LARGE, dtype, seed=4)
    weight, bias = norm.parameters(x)
    everything = norm.call(Backward(anynorm, grad_output), x, weight, bias)
    names = [name for name in everything._fields if getattr(everything, name) is not None]
    asked = {name: want for name, want in zip(everything._fields, wanted, strict=True) if name in names}
    some = norm.call(Backward(anynorm, grad_output), x, weight, bias, **asked)
    assert isinstance(some, anynorm.Gradients)
    exact = norm.call(Backward(reference, grad_output), x, weight, bias)
    check(some, exact, dtype == F64)
    for name in some._fields:
        assert (getattr(some, name) is not None) == asked.get(name, False)


def test_into_arrays_of_the_caller(norm, out_layout, dtype):
    """Of any strides, and of another type than the parameters."""
    x, grad_output = sample(SHAPE, dtype, 3.0), sample(SHAPE, dtype, seed=4)
    weight, bias = norm.parameters(x)
    exact = norm.call(Backward(reference, grad_output), x, weight, bias)
    shape = exact.grad_weight.shape
    strided = np.full((*shape[:-1], 2 * shape[-1]), np.nan, F64)[..., ::-2]
    out = {"grad_input": out_layout.empty(SHAPE, dtype), "grad_weight": strided}
    if exact.grad_bias is not None:
        out["grad_bias"] = np.full(shape, np.nan, F32, order="F")
    gradients = norm.call(Backward(anynorm, grad_output), x, weight, bias, **out)
    for name, array in out.items():
        assert getattr(gradients, name) is array
    check(gradients, exact, dtype == F64)
    assert np.count_nonzero(~np.isnan(strided.base)) == strided.size


@pytest.mark.parametrize("x_dtype", [*ROUNDING], ids=str)
def test_gradients_of_parameters_that_are_not_given(norm, x_dtype):
    """Those of a weight of 1 and a bias of 0, in the dtype of x; by default there are none."""
    x, grad_output = sample(SHAPE, x_dtype, 3.0), sample(SHAPE, x_dtype, seed=4)
    plain = norm.call(Backward(anynorm, grad_output), x, None, None)
    assert plain.grad_weight is None
    assert plain.grad_bias is None
    assert plain.grad_input.dtype == x_dtype
    if norm.name == "free_axes":
        return  # parameters that broadcast have no shape by themselves
    asked = {"grad_weight": True} if norm.name.startswith("rms") else {"grad_weight": True, "grad_bias": True}
    gradients = norm.call(Backward(anynorm, grad_output), x, None, None, **asked)
    assert {g.dtype for g in gradients if g is not None} == {x_dtype}
    check(gradients, norm.call(Backward(reference, grad_output), x, None, None), x_dtype == F64)


def test_shapes_and_memory_orders(layout):
    x = layout.place(sample(SHAPE, F32, 3.0))
    weight = np.ones((5, 6), F64)
    gradients = anynorm.layer_norm_backward(np.ones_like(x), x, (5, 6), weight, grad_bias=True)
    assert gradients.grad_input.strides == np.empty_like(x).strides
    assert (gradients.grad_weight.shape, gradients.grad_weight.dtype) == ((5, 6), F64)
    assert (gradients.grad_bias.shape, gradients.grad_bias.dtype) == ((5, 6), F32)
    narrow = anynorm.normalize_backward(x, x, 3, weight=weight[:1], bias=np.float16(0))
    assert narrow.grad_weight.shape == (1, 6)
    assert (narrow.grad_bias.shape, narrow.grad_bias.dtype) == ((), F16)


def test_flags_of_numpy():
    x = sample((4, 6), F32)
    assert anynorm.layer_norm_backward(x, x, grad_input=np.bool_(False)).grad_input is None
    assert anynorm.layer_norm_backward(x, x, grad_weight=np.bool_(True)).grad_weight.shape == (6,)


# --- statistics ------------------------------------------------------------------------------------------------------


def test_moments_of_the_forward_call(norm, dtype):
    """They save a pass over x, and change nothing that matters."""
    for shape in (SHAPE, LARGE):
        x, grad_output = sample(shape, dtype, 3.0), sample(shape, dtype, seed=4)
        weight, bias = norm.parameters(x)
        _, used = norm.call(anynorm, x, weight, bias, return_moments=True)
        gradients = norm.call(Backward(anynorm, grad_output), x, weight, bias, moments=used)
        check(gradients, norm.call(Backward(reference, grad_output), x, weight, bias), dtype == F64)


def test_frozen_statistics(dtype):
    """Those of other data are constants."""
    x, grad_output = sample(SHAPE, dtype, 3.0), sample(SHAPE, dtype, seed=4)
    weight = sample((8, 1, 1), dtype, 1.0)
    known = anynorm.Moments.from_arrays(1, np.linspace(2, 4, 8), np.linspace(0.5, 2, 8))
    gradients = anynorm.normalize_backward(grad_output, x, (0, 2, 3), weight=weight, moments=known, frozen=True)
    exact = grad_output * (weight.astype(F64) * known.rstd(1e-5)[:, None, None])
    assert_close(gradients.grad_input, exact, 1e-12 if dtype == F64 else 3e-6, 1)
    named = anynorm.batch_norm_backward(grad_output, x, known.mean, known.m2, weight.ravel())
    assert_same((gradients.grad_input, gradients.grad_weight.ravel()), named[:2])
    single = anynorm.instance_norm_backward(grad_output, x, known.mean, known.m2, weight.ravel(), use_input_stats=False)
    check(single, reference.batch_norm_backward(grad_output, x, known.mean, known.m2, weight.ravel()), dtype == F64)


def test_running_statistics_are_not_touched():
    x = sample(SHAPE, F32, 3.0)
    mean, var = np.zeros(8, F32), np.ones(8, F32)
    mean.flags.writeable = var.flags.writeable = False
    plain = anynorm.batch_norm_backward(x, x, training=True)
    assert_same(anynorm.batch_norm_backward(x, x, mean, var, training=True), plain)
    plain = anynorm.instance_norm_backward(x, x)
    assert_same(anynorm.instance_norm_backward(x, x, mean, var), plain)
    assert np.all(mean == 0)
    assert np.all(var == 1)


# --- laws ------------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.data(), st.sampled_from([F32, F64]), hnp.array_shapes(min_dims=1, max_dims=5, max_side=7))
def test_any_axes_and_parameters(draws, dtype, shape):
    axes = tuple(draws.draw(st.sets(st.integers(0, len(shape) - 1))))
    order = draws.draw(st.permutations(range(len(shape))))
    seed = draws.draw(st.integers(0, 2**32 - 1))
    x, grad_output = sample(shape, dtype, 3.0, seed), sample(shape, dtype, 0.0, seed + 1)
    x = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    parameters = [
        sample([draws.draw(st.sampled_from([1, n])) for n in shape][draws.draw(st.integers(0, len(shape))) :], dtype)
        for _ in range(2)
    ]
    arguments = {"weight": parameters[0], "bias": parameters[1], "center": draws.draw(st.booleans()), "eps": 0.1}
    gradients = anynorm.normalize_backward(grad_output, x, axes, **arguments)
    check(gradients, reference.normalize_backward(grad_output, x, axes, **arguments), dtype == F64)


AXES = {"layer_last": 3, "layer_channels": 1, "layer_sample": (1, 2, 3), "layer_mixed": (0, 2), "instance": (2, 3),
        "instance_last": (1, 2), "batch_train": (0, 2, 3), "batch_last": (0, 1, 2)}  # fmt: skip


@pytest.mark.parametrize("name, axes", AXES.items(), ids=AXES.keys())
def test_gradients_are_orthogonal_to_what_changes_nothing(name, axes):
    """A constant added to x, and with eps=0 a multiple of x - mean, leave y as it is."""
    x, grad_output = sample(SHAPE, F64, 3.0), sample(SHAPE, F64, seed=4)
    gradient = cases.NORM[name].call(Backward(anynorm, grad_output), x, None, None, eps=0).grad_input
    assert np.abs(gradient.sum(axis=axes)).max() < 1e-12
    assert np.abs((gradient * (x - x.mean(axis=axes, keepdims=True))).sum(axis=axes)).max() < 1e-12


def test_equal_elements_have_finite_gradients(dtype):
    x, grad_output = np.full((4, 40), 0.1, dtype), sample((4, 40), dtype)
    gradients = anynorm.layer_norm_backward(grad_output, x, grad_weight=True, eps=1e-2)
    assert not np.any(gradients.grad_weight)
    exact = (grad_output - grad_output.mean(axis=1, keepdims=True, dtype=F64)) / 0.1
    assert_close(gradients.grad_input, exact, 1e-12 if dtype == F64 else 3e-6, 30)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["x", "grad_output"])
def test_values_that_are_not_finite_spoil_their_own_set(bad, where):
    x, grad_output = sample((9, 33), F32, 3.0), sample((9, 33), F32, seed=4)
    expected = anynorm.layer_norm_backward(grad_output, x).grad_input
    {"x": x, "grad_output": grad_output}[where][4, 7] = bad
    got = anynorm.layer_norm_backward(grad_output, x).grad_input
    assert not np.any(np.isfinite(got[4]))
    assert cases.same_bits(np.delete(got, 4, 0), np.delete(expected, 4, 0))


def test_no_elements():
    x = np.empty((0, 6), F32)
    gradients = anynorm.batch_norm_backward(x, x, weight=np.ones(6), bias=np.ones(6), training=True)
    assert gradients.grad_input.shape == (0, 6)
    assert np.array_equal(gradients.grad_weight, np.zeros(6))
    assert np.array_equal(gradients.grad_bias, np.zeros(6))


def test_array_likes():
    expected = anynorm.layer_norm_backward(np.float64([[4, 0, 0, 0]]), np.float64([[0, 0, 2, 2]]))
    assert_same(anynorm.layer_norm_backward([[4.0, 0.0, 0.0, 0.0]], [[0.0, 0.0, 2.0, 2.0]]), expected)


# --- torch and jax ---------------------------------------------------------------------------------------------------


TORCH = {
    "layer_last": lambda f, x, w, b: f.layer_norm(x, x.shape[-1:], w, b),
    "layer_sample": lambda f, x, w, b: f.layer_norm(x, x.shape[1:], w, b),
    "rms_last": lambda f, x, w, b: f.rms_norm(x, x.shape[-1:], w, 1e-5),
    "group": lambda f, x, w, b: f.group_norm(x, 4, w, b),
    "instance": lambda f, x, w, b: f.instance_norm(x, None, None, w, b),
    "batch_train": lambda f, x, w, b: f.batch_norm(x, None, None, w, b, True),
}


@pytest.mark.parametrize("name, call", TORCH.items(), ids=TORCH.keys())
@pytest.mark.parametrize("place", ["c", "channels_last"])
def test_against_torch(name, call, place, dtype):
    """Its autograd, in float64."""
    torch = pytest.importorskip("torch")
    x, grad_output = (cases.LAYOUT[place].place(sample(LARGE, dtype, mean, seed=3)) for mean in (3.0, 0.5))
    weight, bias = cases.NORM[name].parameters(x)
    gradients = cases.NORM[name].call(Backward(anynorm, grad_output), x, weight, bias, eps=1e-5)
    tensors = [torch.from_numpy(np.array(a, F64)).requires_grad_() for a in (x, weight, bias)]
    call(torch.nn.functional, *tensors).backward(torch.from_numpy(np.array(grad_output, F64)))
    theirs = reference.Gradients(*(None if t.grad is None else t.grad.numpy() for t in tensors))
    check(gradients, theirs, dtype == F64)


def test_inference_against_torch():
    torch = pytest.importorskip("torch")
    x, grad_output = sample(LARGE, F64, 3.0), sample(LARGE, F64, seed=4)
    mean, var, weight, bias = np.linspace(1, 2, 4 * 32).reshape(4, 32)
    ours = anynorm.batch_norm_backward(grad_output, x, mean, var, weight, bias)
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, weight, bias)]
    running = torch.from_numpy(mean), torch.from_numpy(var)
    torch.nn.functional.batch_norm(tensors[0], *running, *tensors[1:]).backward(torch.from_numpy(grad_output))
    check(ours, reference.Gradients(*(t.grad.numpy() for t in tensors)), wide=True)


@pytest.mark.peer
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "batch_norm", "group_norm"])
def test_against_jax(name):
    """The gradients that jax derives from the formulas."""
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    x, grad_output = sample((4, 12, 30), F32, 3.0), sample((4, 12, 30), F32, seed=4)
    axes, shape, length = {
        "layer_norm": ((2,), x.shape, 30),
        "rms_norm": ((2,), x.shape, 30),
        "batch_norm": ((0, 2), x.shape, (12, 1)),
        "group_norm": ((2, 3), (4, 3, 4, 30), (3, 4, 1)),
    }[name]
    parameters = [sample(np.prod(length), F32, 1.0, seed=seed) for seed in (5, 6)]

    def forward(x, weight, bias):
        split = x.reshape(shape)
        mean = 0.0 if name == "rms_norm" else split.mean(axes, keepdims=True)
        square = jnp.square(split - mean).mean(axes, keepdims=True)
        y = (split - mean) / jnp.sqrt(square + 1e-5) * weight.reshape(length)
        return (y if name == "rms_norm" else y + bias.reshape(length)).reshape(x.shape)

    _, pull_back = jax.vjp(forward, x, *parameters)
    theirs = reference.Gradients(*(np.asarray(g, F64) for g in pull_back(grad_output)))
    if name == "rms_norm":
        ours = anynorm.rms_norm_backward(grad_output, x, 30, parameters[0], 1e-5)
    elif name == "layer_norm":
        ours = anynorm.layer_norm_backward(grad_output, x, 30, *parameters)
    elif name == "batch_norm":
        ours = anynorm.batch_norm_backward(grad_output, x, None, None, *parameters, True)
    else:
        ours = anynorm.group_norm_backward(grad_output, x, 3, *parameters)
    for mine, expected in zip(ours, theirs, strict=True):
        if mine is not None:
            np.testing.assert_allclose(mine, expected, rtol=2e-5, atol=2e-5 * max(1.0, np.sqrt(x.size / mine.size)))
