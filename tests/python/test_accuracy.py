# SPDX-License-Identifier: Apache-2.0
"""The accuracy that is promised, on data made to break single precision, against exact rational arithmetic."""

import functools
from fractions import Fraction

import cases
import numpy as np
import pytest
import reference

import anynorm

MAX = float(np.finfo(np.float32).max)


def each_norm(*, without=()):
    norms = [norm for norm in cases.NORMS if norm.name not in without]
    return pytest.mark.parametrize("norm", norms, ids=lambda norm: norm.name)


def normal(mean, std):
    return lambda rng, n: rng.normal(mean, std, n)


def with_first(value):
    return lambda rng, n: np.concatenate([[value], rng.normal(0, 1, n - 1)])


HOSTILE = {
    "unit": normal(0, 1),
    "mean_1e4_std_1e-2": normal(1e4, 1e-2),
    "mean_1e6_std_1": normal(1e6, 1),
    "mean_-1e6_std_1e-1": normal(-1e6, 0.1),
    "ramp": lambda rng, n: 1e5 + np.arange(n) / 16,
    "near_the_maximum": lambda rng, n: rng.uniform(0.9 * MAX, MAX, n),
    "alternating_maximum": lambda rng, n: np.where(np.arange(n) % 2, MAX, -MAX),
    "alternating_1e30": lambda rng, n: 1e30 * np.where(np.arange(n) % 2, 1, -1),
    "size_1e-30": normal(0, 1e-30),
    "denormal": lambda rng, n: rng.integers(-1000, 1000, n) * 2.0**-149,
    "first_is_an_outlier": with_first(1e8),
    "first_is_a_huge_outlier": with_first(1e30),
    "last_is_an_outlier": lambda rng, n: with_first(1e8)(rng, n)[::-1],
    "sixty_decades": lambda rng, n: 10.0 ** rng.uniform(-30, 30, n),
    "one_bit_apart": lambda rng, n: 1 + rng.integers(0, 2, n) * 2.0**-23,
}
HOSTILE_F64 = {
    "unit": normal(0, 1),
    "mean_1e8_std_1": normal(1e8, 1),
    "mean_1e8_std_1e-2": normal(1e8, 1e-2),
    "mean_-1e6_std_1e-3": normal(-1e6, 1e-3),
    "alternating_1e100": lambda rng, n: 1e100 * np.where(np.arange(n) % 2, 1, -1),
    "size_1e-100": normal(0, 1e-100),
    "first_is_an_outlier": with_first(1e8),
    "last_is_an_outlier": lambda rng, n: with_first(1e8)(rng, n)[::-1],
}
LENGTHS = [1, 2, 3, 15, 16, 17, 31, 100, 4095, 4096, 4097, 9001]


def as_row(data):
    x = np.zeros((3, data.size), data.dtype)
    x[1] = data
    return x, 1, 1


def as_spread_row(data):
    x = np.zeros((3, data.size, 2), data.dtype)
    x[1, :, 0] = data
    return x[..., 0], 1, 1


def as_column(columns):
    def arrange(data):
        x = np.zeros((data.size, columns), data.dtype)
        x[:, columns // 2] = data
        return x, 0, columns // 2

    return arrange


def as_planes(data):
    """One of three channels, over as many samples as the length allows."""
    samples = next((n for n in (16, 17, 5, 3, 2) if data.size % n == 0), 1)
    x = np.zeros((samples, 3, data.size // samples), data.dtype)
    x[:, 1] = data.reshape(samples, -1)
    return x, (0, 2), 1


ARRANGEMENTS = {"row": as_row, "spread_row": as_spread_row, "column_of_3": as_column(3), "column_of_37": as_column(37),
                "planes": as_planes}  # fmt: skip


@functools.cache
def hostile_sets(make, dtype):
    """Sets of all lengths with their exact statistics, which take longer to compute than everything else here."""
    rng = np.random.default_rng(11)
    sets = [make(rng, n).astype(dtype) for n in LENGTHS]
    return [(data, reference.exact_moments(data)) for data in sets]


def check_statistics(x, axis, index, exact, tolerance):
    used = anynorm.moments(x, axis)
    assert used.count[index] == exact.count
    mean, var = float(used.mean[index]), float(used.var()[index])
    assert var >= 0
    if exact.m2 == 0:
        assert var == 0
        assert mean == float(exact.mean)
        return
    assert float(abs(Fraction(var) / exact.var - 1)) <= tolerance, f"n = {exact.count}"
    # The mean is a float64, so it carries that rounding; beyond it, the error counts in units of the deviation.
    error = float(abs(Fraction(mean) - exact.mean))
    assert error <= 1e-9 * float(exact.var) ** 0.5 + 2 * np.spacing(abs(mean)), f"n = {exact.count}"


@pytest.mark.parametrize("arrange", ARRANGEMENTS.values(), ids=ARRANGEMENTS.keys())
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_variance_f32(make, arrange, isa):
    for data, exact in hostile_sets(make, np.float32):
        check_statistics(*arrange(data), exact, 1e-6)


@pytest.mark.parametrize("arrange", ARRANGEMENTS.values(), ids=ARRANGEMENTS.keys())
@pytest.mark.parametrize("make", HOSTILE_F64.values(), ids=HOSTILE_F64.keys())
def test_variance_f64(make, arrange, isa):
    for data, exact in hostile_sets(make, np.float64):
        check_statistics(*arrange(data), exact, 1e-12)


@pytest.mark.parametrize("mean, std", [(0, 1), (1e4, 1e-2), (1e6, 1)])
def test_variance_of_long_sets(mean, std, dtype, isa, rng):
    x = rng.normal(mean, std, 100_003).astype(dtype)
    exact = reference.exact_moments(x)
    for view in (x, x[::-1], np.repeat(x, 2)[::2], x[:, None], np.stack([x, -x], axis=1)):
        var = np.ravel(anynorm.moments(view, 0).var())[0]
        assert float(abs(Fraction(float(var)) / exact.var - 1)) <= (1e-6 if dtype is np.float32 else 1e-12)


# --- constants -------------------------------------------------------------------------------------------------------

CONSTANTS = [0.0, -0.0, 0.1, 1.1, -271.46, 14.7, 1e-30, 1e30, 2.0**-149, MAX, 150_000.1]


@pytest.mark.parametrize("value", CONSTANTS)
def test_constant_has_no_variance_and_gives_the_bias(value, dtype, isa):
    weight, bias = dtype(1.7), dtype(-0.3)
    shapes = [shape for n in (1, 2, 17, 4097, 100_003) for shape in [(n,), (n, 1), (n, 3), (1, 2, n)]]
    for shape in shapes:
        for axis in (0, len(shape) - 1):
            x = np.full((*shape, 2), value, dtype)[..., 0]
            # eps that is not a power of four: a rounded 1 / sqrt(eps) shows where x * scale + shift cancels.
            y, used = anynorm.normalize(
                x, axis, weight=np.asarray(weight), bias=np.asarray(bias), eps=3 * 2.0**-17, return_moments=True
            )
            assert np.all(used.var() == 0)
            assert np.all(used.mean == float(dtype(value)))
            assert np.all(y == bias)


@each_norm(without=["rms_last", "rms_channels", "batch_eval"])  # their mean is not that of x
def test_constant_norms_give_the_bias(layout, norm, dtype, isa):
    for shape in [(3, 8, 5, 7), (2, 16, 17, 19)]:
        x = layout.place(np.full(shape, 1.1, dtype))
        weight, bias = norm.parameters(x)
        y, used = norm.call(anynorm, x, weight, bias, return_moments=True)
        assert np.all(used.m2 == 0)
        zero = np.zeros_like(x)
        assert np.array_equal(y, norm.call(reference, zero, weight, bias).astype(dtype))


def test_ten_million_equal_elements(isa):
    x = np.full(10_000_019, 1.1, np.float32)
    used = anynorm.moments(x)
    assert used.m2 == 0
    assert used.mean == float(np.float32(1.1))


# --- output ----------------------------------------------------------------------------------------------------------

SCALES = [(0, 1), (1e2, 1), (1e3, 1), (1e4, 1), (1e5, 1), (1e6, 1), (-1e6, 1), (1e4, 1e-2)]


@pytest.mark.parametrize("mean, std", SCALES)
@pytest.mark.parametrize("place", ["c", "channels_last", "step2_inner", "negative_all"])
def test_output_error_f32(mean, std, place, norm, isa, rng):
    x = cases.LAYOUT[place].place(rng.normal(mean, std, (2, 16, 17, 19)).astype(np.float32))
    if norm.name == "batch_eval":  # its statistics are given, and have to fit the data
        m, v = np.full(16, mean, np.float32), np.full(16, std**2, np.float32)
        y, expected = anynorm.batch_norm(x, m, v), reference.batch_norm(x, m, v)
    else:
        y, expected = norm.call(anynorm, x, None, None), norm.call(reference, x, None, None)
    assert np.abs(y - expected).max() <= 2e-6


@pytest.mark.parametrize("mean, std", SCALES)
def test_output_error_f32_long_sets(mean, std, isa, rng):
    x = rng.normal(mean, std, (200_003, 2)).astype(np.float32)
    for view, axis in [(x, 0), (x, None), (x.T, 1), (x.reshape(2, -1), 1), (x[:, :1], 0)]:
        error = np.abs(anynorm.normalize(view, axis) - reference.normalize(view, axis))
        assert error.max() <= 2e-6


@pytest.mark.parametrize("mean", [0, 1e3, 1e8])
@each_norm(without=["batch_eval"])  # its statistics do not fit the data
def test_output_error_f64(mean, norm, isa, rng):
    x = rng.normal(mean, 1, (4, 8, 17, 19))
    y, expected = norm.call(anynorm, x, None, None), norm.call(reference, x, None, None)
    # The mean of either side is rounded to float64 once.
    assert np.abs(y - expected).max() <= 1e-13 + 4 * np.spacing(abs(mean))


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@each_norm(without=["batch_eval"])
def test_range(scale, norm, isa, rng):
    """Squares leave the range of float32; the result does not."""
    x = (rng.normal(0.5, 1, (4, 16, 9, 11)) * scale).astype(np.float32)
    y = norm.call(anynorm, x, None, None, eps=0.0)
    assert np.abs(y - norm.call(reference, x, None, None, eps=0.0)).max() <= 2e-6


@pytest.mark.parametrize("name", ["near_the_maximum", "alternating_maximum"])
def test_output_near_the_maximum(name, isa, rng):
    x = HOSTILE[name](rng, 1000).astype(np.float32)
    for view, axis in [(x, 0), (x[:, None], 0)]:
        assert np.abs(anynorm.normalize(view, axis) - reference.normalize(view, axis)).max() <= 2e-6


# --- values that are not finite ---------------------------------------------------------------------------------------

SPOILERS = {"nan": [np.nan], "-inf": [-np.inf], "both": [np.inf, -np.inf]}


@pytest.mark.parametrize("spoilers", SPOILERS.values(), ids=SPOILERS.keys())
@pytest.mark.parametrize("kernel", [k for k in cases.KERNELS if k.name != "R"], ids=lambda kernel: kernel.name)
def test_not_finite_spoils_its_own_set_only(kernel, spoilers, dtype, isa, rng):
    clean = rng.normal(3, 1, kernel.shape).astype(dtype)
    clean_y, clean_moments = anynorm.normalize(clean, kernel.axes, return_moments=True)
    kept = [axis for axis in range(clean.ndim) if axis not in kernel.axes]
    sets, n = clean_moments.mean.shape, int(clean_moments.count.flat[0])
    target = tuple(length // 2 for length in sets)
    others = np.ones(sets, bool)
    others[target] = False
    others_everywhere = np.broadcast_to(np.expand_dims(others, kernel.axes), clean.shape)
    for first in (0, n - len(spoilers)):
        x = clean.copy()
        members = x.transpose(*kept, *kernel.axes)[target]
        for i, value in enumerate(spoilers):
            members[np.unravel_index(first + i, members.shape)] = value
        y, used = anynorm.normalize(x, kernel.axes, return_moments=True)

        with np.errstate(invalid="ignore"):
            expected = np.sum(spoilers)  # as NumPy: inf for [inf, 1], NaN for [inf, -inf]
        np.testing.assert_equal(used.mean[target], expected)
        assert np.isnan(used.var()[target])
        assert np.all(np.isnan(y.transpose(*kept, *kernel.axes)[target]))
        assert cases.same_bits(used.mean[others], clean_moments.mean[others])
        assert cases.same_bits(used.m2[others], clean_moments.m2[others])
        assert cases.same_bits(y[others_everywhere], clean_y[others_everywhere])


def test_mean_of_values_that_are_not_finite(dtype, isa):
    """Everywhere in a set, in every number: the mean and the variance that NumPy gives."""
    for n in (1, 2, 5, 17, 40, 5_000):
        for spoilers in ([np.inf], [-np.inf], [np.nan], [np.inf] * n, [np.inf, -np.inf], [np.inf, np.nan]):
            for first in {0, n // 2, max(n - len(spoilers), 0)}:
                x = np.ones(n, dtype)
                x[first : first + len(spoilers)] = spoilers[: n - first]
                with np.errstate(invalid="ignore"):
                    mean = x.mean(dtype=np.float64)
                for view, axis in [(x, 0), (np.stack([x, x], 1), 0), (np.repeat(x, 2)[::2], 0)]:
                    used = anynorm.moments(view, axis)
                    np.testing.assert_array_equal(used.mean, np.broadcast_to(mean, np.shape(used.mean)))
                    assert np.all(np.isnan(used.var()))
                    assert np.all(np.isnan(anynorm.normalize(view, axis)))
