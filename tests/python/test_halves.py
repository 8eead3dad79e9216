# SPDX-License-Identifier: Apache-2.0
"""float16 and bfloat16: statistics as of the same values in float64, results rounded once, in every layout."""

import cases
import ml_dtypes
import numpy as np
import pytest
import reference

import anynorm

BF16, F16, F32, F64 = (np.dtype(name) for name in (ml_dtypes.bfloat16, np.float16, np.float32, np.float64))
DTYPES = (F16, BF16, F32, F64)
SHAPE = (3, 8, 5, 6)
# Bits of the fraction, and the exponent of the smallest normal number.
FORMAT = {F16: (10, -14), BF16: (7, -126), F32: (23, -126), F64: (52, -1022)}


@pytest.fixture(params=[F16, BF16], ids=str)
def half(request):
    return request.param


def ulp(values, dtype):
    """The spacing of a type at these float64 values."""
    bits, smallest = FORMAT[dtype]
    exponent = np.frexp(np.abs(values))[1] - 1
    return 2.0 ** (np.maximum(exponent, smallest) - bits)


def sample(shape, dtype, mean=2.0):
    return np.random.default_rng(3).normal(mean, 1, shape).astype(dtype)


def check(y, exact, size, dtype):
    """Half an ulp of the result's type, and the arithmetic's rounding of terms as large as `size`."""
    assert y.dtype == dtype
    arithmetic = 3e-6 if dtype != F64 else 1e-12
    error = np.abs(y.astype(np.float64) - exact)
    assert np.all(error <= 0.5 * ulp(exact, dtype) * (1 + 1e-6) + arithmetic * size)


@pytest.mark.parametrize("y_dtype", DTYPES, ids=str)
def test_layouts_norms_and_dtypes(layout, norm, half, y_dtype):
    """x of a half type, results and parameters of every type."""
    x = layout.place(sample(SHAPE, half))
    assert x.dtype == half
    for parameter_dtype in DTYPES:
        weight, bias = norm.parameters(x, parameter_dtype)
        y = norm.call(anynorm, x, weight, bias, dtype=y_dtype)
        exact = norm.call(reference, x, weight, bias)
        size = np.abs(norm.call(reference, x, weight, None)) + 4
        check(y, exact, size, y_dtype)


@pytest.mark.parametrize("x_dtype", [F32, F64], ids=str)
def test_half_results_and_parameters_of_wide_data(norm, half, x_dtype):
    x = sample(SHAPE, x_dtype)
    weight, bias = norm.parameters(x, half)
    y = norm.call(anynorm, x, weight, bias, out=np.empty(SHAPE, half))
    check(y, norm.call(reference, x, weight, bias), np.abs(norm.call(reference, x, weight, None)) + 4, half)


def test_results_go_anywhere(layout, out_layout, half):
    """The layout of the result does not show in it."""
    x = layout.place(sample(SHAPE, half))
    weight = np.linspace(1, 2, SHAPE[-1]).astype(half)
    expected = anynorm.layer_norm(x, weight=weight)
    out = out_layout.empty(SHAPE, half)
    assert anynorm.layer_norm(x, weight=weight, out=out) is out
    assert cases.same_bits(out, expected)


def test_moments_are_those_of_the_same_values_in_float64(kernel, half):
    x = sample(kernel.shape, half, mean=30)
    used = anynorm.moments(x, kernel.axes)
    exact = reference.moments(x, kernel.axes)
    assert used.mean.dtype == used.m2.dtype == np.float64
    np.testing.assert_array_equal(used.count, exact.count)
    np.testing.assert_allclose(used.mean, exact.mean, rtol=1e-12)
    np.testing.assert_allclose(used.m2, exact.m2, rtol=1e-12, atol=1e-300)


def test_the_same_bits(isa, half):
    """For every number of threads and every batch size."""
    x = sample((403, 1027), half)
    weight = np.linspace(-1, 1, 1027).astype(half)
    y = anynorm.layer_norm(x, weight=weight, num_threads=1)
    assert cases.same_bits(anynorm.layer_norm(x, weight=weight, num_threads=3), y)
    assert cases.same_bits(anynorm.layer_norm(x[7:8], weight=weight), y[7:8])
    expected = anynorm.layer_norm(x.astype(np.float32), weight=weight.astype(np.float32)).astype(half)
    assert cases.same_bits(y, expected)


# --- conversion ------------------------------------------------------------------------------------------------------

IDENTITY = {"moments": anynorm.Moments.from_arrays(1, 0, 1), "eps": 0}


def test_every_value_is_read(isa, half):
    bits = np.arange(2**16, dtype=np.uint16)
    x = bits.view(half)
    x = x[np.isfinite(x.astype(np.float32))]
    np.testing.assert_array_equal(anynorm.normalize(x, 0, dtype=np.float64, **IDENTITY), x.astype(np.float64))
    np.testing.assert_array_equal(anynorm.normalize(x, 0, dtype=np.float32, **IDENTITY), x.astype(np.float32))
    np.testing.assert_array_equal(anynorm.normalize(x, 0, **IDENTITY).astype(np.float32), x.astype(np.float32))


def test_results_round_to_nearest_even(isa, half):
    """At every value of the type, half way to the next one, and next to half way; and beyond the largest."""
    values = np.arange(2**15, dtype=np.uint16).view(half)
    values = values[np.isfinite(values.astype(np.float32))].astype(np.float32)
    steps = np.append(np.diff(values), values[-1] - values[-2])
    middle = values + steps / 2
    x = np.concatenate([values, middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(np.inf))])
    x = x[x != 0]
    with np.errstate(over="ignore"):
        expected = x.astype(half)
    y = anynorm.normalize(x, 0, dtype=half, **IDENTITY)
    assert cases.same_bits(y, expected)
    assert cases.same_bits(anynorm.normalize(-x, 0, dtype=half, **IDENTITY), -expected)


# --- hard values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, large", [(F16, 65504), (BF16, 1.6e38)], ids=["float16", "bfloat16"])
def test_the_largest_values(dtype, large):
    x = np.asarray([[large, -large] * 50, [large, -large] * 50]).astype(dtype)
    assert np.all(np.abs(anynorm.layer_norm(x, eps=0).astype(np.float32)) == 1)
    near = np.asarray([3e38, 2.9e38] * 50 if dtype == BF16 else [65504, 65000] * 50).astype(dtype)
    assert np.all(np.abs(anynorm.layer_norm(near, eps=0).astype(np.float32)) == 1)
    assert anynorm.moments(near).m2 == pytest.approx(reference.moments(near).m2, rel=1e-12)


def test_subnormal_values(half):
    smallest = np.arange(1, 101, dtype=np.uint16).view(half)
    exact = reference.moments(smallest)
    used = anynorm.moments(smallest)
    assert used.mean == pytest.approx(float(exact.mean), rel=1e-12)
    assert used.m2 == pytest.approx(float(exact.m2), rel=1e-12)
    y = anynorm.layer_norm(smallest, eps=0, dtype=np.float64)
    np.testing.assert_allclose(y, reference.layer_norm(smallest, eps=0), rtol=1e-9)


def test_zeros_and_equal_values_give_the_bias(half):
    bias = np.linspace(-3, 3, 40).astype(half)
    zeros = np.where(np.arange(40) % 2 == 0, 0.0, -0.0).astype(half)
    for x in (zeros, np.full(40, 0.1, half), np.full(40, -333.25, half)):
        assert cases.same_bits(anynorm.layer_norm(x, bias=bias), bias)
        assert not np.any(anynorm.layer_norm(x))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_spoil_their_own_set(half, bad):
    x = sample((9, 33), half)
    expected = anynorm.layer_norm(x)
    x[4, 7] = bad
    y = anynorm.layer_norm(x)
    assert np.all(np.isnan(y[4].astype(np.float32)))
    assert cases.same_bits(np.delete(y, 4, 0), np.delete(expected, 4, 0))


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_dtype_by_name(name):
    x = np.asfortranarray(sample((4, 6), F32))
    y = anynorm.layer_norm(x, dtype=name)
    assert y.dtype == np.dtype(name)
    assert y.flags.f_contiguous
    assert cases.same_bits(y, anynorm.layer_norm(x, dtype=np.dtype(name)))


def test_the_result_has_the_dtype_of_x(half):
    x = sample((4, 6), half)
    assert anynorm.layer_norm(x).dtype == half
    assert anynorm.layer_norm(x, weight=np.ones(6, np.float64)).dtype == half
    assert anynorm.batch_norm(x, np.zeros(6), np.ones(6)).dtype == half


def test_running_statistics_are_wide(half):
    x = sample((50, 6), half)
    mean, var = np.zeros(6, np.float32), np.ones(6, np.float32)
    exact_mean, exact_var = np.zeros(6), np.ones(6)
    anynorm.batch_norm(x, mean, var, training=True)
    reference.batch_norm(x, exact_mean, exact_var, training=True)
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-6)
    np.testing.assert_allclose(var, exact_var, rtol=1e-6)


def test_default_eps_of_rms_norm_is_that_of_torch(half):
    torch = pytest.importorskip("torch")
    x = (np.arange(1, 65, dtype=np.float32) * 2e-5).astype(half)
    own = torch.from_numpy(x.astype(np.float32)).to(torch.float16 if half == F16 else torch.bfloat16)
    expected = torch.nn.functional.rms_norm(own, (64,)).to(torch.float64).numpy()
    y = anynorm.rms_norm(x).astype(np.float64)
    assert np.all(np.abs(y - expected) <= 2 * ulp(expected, half))
