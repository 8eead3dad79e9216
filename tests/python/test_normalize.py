# SPDX-License-Identifier: Apache-2.0
"""The engine: free axes, parameters along any axes, given statistics, mixed dtypes."""

import itertools

import cases
import numpy as np
import pytest
import reference

import anynorm

F32, F64 = np.float32, np.float64
SHAPE = (3, 4, 5, 6)
ALL_AXES = [axes for count in range(5) for axes in itertools.combinations(range(4), count)]


def close(y, expected):
    tolerance = {"rtol": 5e-7, "atol": 2e-6} if y.dtype == F32 else {"rtol": 2e-15, "atol": 2e-13}
    np.testing.assert_allclose(y, expected, **tolerance)


@pytest.fixture
def x(rng):
    return rng.normal(3, 2, SHAPE).astype(F32)


@pytest.mark.parametrize("axes", ALL_AXES, ids=str)
def test_every_set_of_axes(axes, dtype, isa, rng):
    for shape in [SHAPE, (5, 17, 33, 16)]:
        x = rng.normal(3, 2, shape).astype(dtype)
        y, used = anynorm.normalize(x, axes, return_moments=True)
        expected, statistics = reference.normalize(x, axes, return_moments=True)
        close(y, expected)
        np.testing.assert_allclose(used.mean, statistics.mean, rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(used.m2, statistics.m2, rtol=1e-12)
        assert cases.same_moments(used, anynorm.moments(x, axes))


@pytest.mark.parametrize("axes", ALL_AXES, ids=str)
def test_parameters_are_independent_of_the_axes(axes, isa, rng):
    """Every subset of axes that weight and bias may vary along, for every subset that is averaged over."""
    x = rng.normal(3, 2, SHAPE).astype(F32)
    for along in ALL_AXES:
        shape = tuple(n if a in along else 1 for a, n in enumerate(SHAPE))
        weight, bias = rng.normal(size=(2, *shape)).astype(F32)
        for kind in ({"weight": weight}, {"bias": bias}, {"weight": weight, "bias": bias}):
            close(anynorm.normalize(x, axes, **kind), reference.normalize(x, axes, **kind))


@pytest.mark.parametrize("shape", [(), (1,), (6,), (1, 6), (5, 1), (5, 6), (4, 1, 1), (3, 1, 1, 6), (1, 1, 1, 1)],
                         ids=str)  # fmt: skip
def test_parameters_broadcast_as_in_numpy(x, shape, rng):
    weight, bias = np.asarray(rng.normal(size=shape), F32), np.asarray(rng.normal(), F32)
    for axis in (0, (1, 3), None):
        close(anynorm.normalize(x, axis, weight=weight, bias=bias),
              reference.normalize(x, axis, weight=weight, bias=bias))  # fmt: skip
        close(anynorm.normalize(x, axis, weight=bias, bias=weight),
              reference.normalize(x, axis, weight=bias, bias=weight))  # fmt: skip


def test_axis_is_an_int_a_tuple_or_none(x):
    y = anynorm.normalize(x, (1, 3))
    for same in [(3, 1), (-1, 1), (-1, -3), (np.int64(1), 3)]:
        assert cases.same_bits(anynorm.normalize(x, same), y)
    assert cases.same_bits(anynorm.normalize(x, 2), anynorm.normalize(x, (-2,)))
    assert cases.same_bits(anynorm.normalize(x, None), anynorm.normalize(x, (0, 1, 2, 3)))


def test_no_axes_make_every_element_a_set(x):
    assert np.all(anynorm.normalize(x, ()) == 0)
    assert np.all(anynorm.normalize(x, (), weight=x, bias=np.asarray(0.7, F32)) == F32(0.7))


def test_without_centre(x, dtype, isa):
    x = x.astype(dtype)
    for axes in [(3,), (1,), (0, 2), (0, 1, 2, 3)]:
        y, used = anynorm.normalize(x, axes, center=False, eps=0.1, return_moments=True)
        close(y, x / np.sqrt(np.square(x.astype(F64)).mean(axes, keepdims=True) + 0.1))
        assert np.all(used.mean == 0)
        np.testing.assert_allclose(used.m2, np.square(x.astype(F64)).sum(axes), rtol=1e-13)


@pytest.mark.parametrize("eps", [0, 0.0, 1e-12, 1e-5, 0.5, 100, np.float32(1e-3)], ids=str)
def test_eps(x, eps):
    close(anynorm.normalize(x, 1, eps=eps), reference.normalize(x, 1, eps=float(eps)))


def test_eps_is_not_rounded_to_the_dtype_of_x():
    """1e-50 is 0 in float32; the variance of these is smaller still."""
    x = np.float32([1e-30, 3e-30])
    close(anynorm.normalize(x, 0, eps=1e-50), reference.normalize(x, 0, eps=1e-50))


# --- given statistics ------------------------------------------------------------------------------------------------


def test_given_moments(x, dtype, isa):
    x = x.astype(dtype)
    for axes in [(3,), (1,), (0, 2), (0, 1, 2, 3), ()]:
        used = anynorm.moments(x, axes)
        y = anynorm.normalize(x, axes, moments=used)
        kept = anynorm.moments(x, axes, keepdims=True)
        assert cases.same_bits(anynorm.normalize(x, axes, moments=kept), y)
        if dtype == F32:
            assert cases.same_bits(y, anynorm.normalize(x, axes))
        else:  # given moments are rounded to float64, those of the call itself are not
            np.testing.assert_allclose(y, anynorm.normalize(x, axes), rtol=0, atol=1e-14)


def test_given_moments_of_other_data(x, rng):
    other = rng.normal(-2, 5, SHAPE)
    for axes in [(3,), (1,), (0, 2)]:
        used = anynorm.moments(other, axes)
        y, returned = anynorm.normalize(x, axes, moments=used, return_moments=True)
        close(y, reference.normalize(x, axes, moments=reference.moments(other, axes)))
        assert cases.same_moments(returned, used)


def test_given_mean_and_variance(x, rng):
    mean, var = rng.normal(size=4), rng.uniform(0.5, 2, 4)
    known = anynorm.Moments.from_arrays(np.ones(4), mean, var)
    y = anynorm.normalize(x, (0, 2, 3), moments=known)
    close(y, (x - mean[:, None, None]) / np.sqrt(var[:, None, None] + 1e-5))


def test_given_moments_without_centre(x):
    _, used = anynorm.normalize(x, 1, center=False, return_moments=True)
    assert cases.same_bits(anynorm.normalize(x, 1, center=False, moments=used), anynorm.normalize(x, 1, center=False))


def test_merged_moments_normalize_the_parts(x):
    """Statistics of all chunks, applied chunk by chunk, are the call on the whole."""
    total = anynorm.moments(x[:1], (0, 2)) + anynorm.moments(x[1:], (0, 2))
    parts = [anynorm.normalize(part, (0, 2), moments=total) for part in (x[:1], x[1:])]
    close(np.concatenate(parts), reference.normalize(x, (0, 2)))


# --- dtypes and out --------------------------------------------------------------------------------------------------

MIXES = list(itertools.product([F32, F64], repeat=4))


@pytest.mark.parametrize("x_type, y_type, weight_type, bias_type", MIXES,
                         ids=["-".join(np.dtype(t).name for t in mix) for mix in MIXES])  # fmt: skip
def test_mixed_dtypes(x_type, y_type, weight_type, bias_type, isa, rng):
    """Float32 anywhere limits the result to its accuracy only where the compute type is float32 or y is."""
    for shape, axes in [(SHAPE, (1, 3)), (SHAPE, (0, 2, 3)), ((70, 90, 9), (0,)), ((7, 9_001), (1,))]:
        x = rng.normal(3, 2, shape).astype(x_type)
        weight = rng.normal(size=shape[-1:]).astype(weight_type)
        bias = rng.normal(size=(shape[0], *[1] * (len(shape) - 1))).astype(bias_type)
        expected = reference.normalize(x, axes, weight=weight, bias=bias)
        y = anynorm.normalize(x, axes, weight=weight, bias=bias, dtype=y_type)
        assert y.dtype == y_type
        close(y, expected)
        out = np.full(shape, np.nan, y_type)
        assert anynorm.normalize(x, axes, weight=weight, bias=bias, out=out) is out
        assert cases.same_bits(out, y)


@pytest.mark.parametrize("given", [F32, F64], ids=["f32", "f64"])
def test_dtype_of_given_moments(x, given):
    mean, m2 = np.linspace(1, 2, 4).astype(given), np.linspace(3, 4, 4).astype(given)
    known = anynorm.Moments.from_arrays(np.ones(4, given), mean, m2)
    close(anynorm.normalize(x, (0, 2, 3), moments=known),
          (x - mean.astype(F64)[:, None, None]) / np.sqrt(m2.astype(F64)[:, None, None] + 1e-5))  # fmt: skip


def test_float64_output_of_float32_input_is_accurate(rng):
    x = rng.normal(1e4, 1, (5, 1000)).astype(F32)
    error = np.abs(anynorm.normalize(x, 1, dtype=F64) - reference.normalize(x, 1))
    assert error.max() < 1e-11


def test_dtype_by_any_name(x):
    for dtype in (F64, "float64", np.dtype("float64"), "d", float):
        assert anynorm.normalize(x, 0, dtype=dtype).dtype == F64


def test_result_has_the_dtype_of_x_whatever_the_parameters(x):
    assert anynorm.normalize(x, 0, weight=np.ones(6), bias=np.ones(6)).dtype == F32
    assert anynorm.normalize(x.astype(F64), 0, weight=np.ones(6, F32)).dtype == F64


def test_result_is_fresh_and_writable(x):
    y = anynorm.normalize(x, 0)
    assert type(y) is np.ndarray
    assert y.flags.writeable
    assert not np.shares_memory(x, y)


def test_read_only_input_is_welcome(x):
    expected = anynorm.normalize(x, 0, weight=x[0, 0, 0])
    x.flags.writeable = False
    assert cases.same_bits(anynorm.normalize(x, 0, weight=x[0, 0, 0]), expected)


def test_disjoint_halves_of_one_array_may_be_input_and_output(rng):
    base = rng.normal(3, 2, (4, 20)).astype(F32)
    expected = anynorm.normalize(base[:, ::2].copy(), 1)
    anynorm.normalize(base[:, ::2], 1, out=base[:, 1::2])
    assert cases.same_bits(base[:, 1::2], expected)
