# SPDX-License-Identifier: Apache-2.0
"""Laws that hold for any data, any shape and any strides."""

import itertools

import cases
import numpy as np
import pytest
import reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import anynorm

DTYPES = st.sampled_from([np.float32, np.float64])
SEEDS = st.integers(0, 2**32 - 1)
SHAPES = hnp.array_shapes(min_dims=1, max_dims=5, max_side=9)


def data(seed, shape, dtype, mean=3.0):
    return np.random.default_rng(seed).normal(mean, 1, shape).astype(dtype)


def axes_of(shape):
    return st.sets(st.integers(0, len(shape) - 1)).map(lambda axes: tuple(sorted(axes)))


def assert_close(y, expected):
    tolerance = {"rtol": 5e-7, "atol": 2e-6} if y.dtype == np.float32 else {"rtol": 2e-15, "atol": 2e-13}
    np.testing.assert_allclose(y, expected, **tolerance)


@st.composite
def strided_views(draw, dtype, max_side=7):
    """Any view that slicing, reversing, transposing and repeating can make of an array, and its axes to reduce."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=5, max_side=max_side))
    steps = [draw(st.sampled_from([1, 1, 1, 2, 3, -1, -2])) for _ in shape]
    starts = [draw(st.integers(0, 2)) for _ in shape]
    base = data(draw(SEEDS), [s + n * abs(step) for s, n, step in zip(starts, shape, steps, strict=True)], dtype)
    for axis, (start, n, step) in enumerate(zip(starts, shape, steps, strict=True)):
        index = [slice(None)] * base.ndim
        index[axis] = slice(start, start + n * abs(step), abs(step))
        base = base[tuple(index)]
        base = np.flip(base, axis) if step < 0 else base
    view = base.transpose(draw(st.permutations(range(len(shape)))))
    if draw(st.booleans()):
        axis = draw(st.integers(0, view.ndim - 1))
        view = np.broadcast_to(view.take([0], axis), view.shape)
    return view, draw(axes_of(view.shape))


@settings(max_examples=300)
@given(st.data(), DTYPES)
def test_any_view_equals_the_oracle(draws, dtype):
    x, axes = draws.draw(strided_views(dtype))
    y, used = anynorm.normalize(x, axes, return_moments=True)
    expected, statistics = reference.normalize(x, axes, return_moments=True)
    assert_close(y, expected)
    np.testing.assert_allclose(used.mean, statistics.mean, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(used.var(), statistics.var, rtol=1e-12, atol=1e-28)


@settings(max_examples=200)
@given(st.data(), DTYPES, DTYPES)
def test_any_view_into_any_other(draws, dtype, out_dtype):
    x, axes = draws.draw(strided_views(dtype))
    order = draws.draw(st.permutations(range(x.ndim)))
    base = np.full([x.shape[a] * 2 for a in order], np.nan, out_dtype)
    out = base[(slice(None, None, draws.draw(st.sampled_from([2, -2]))),) * x.ndim].transpose(np.argsort(order))
    weight = data(draws.draw(SEEDS), x.shape, out_dtype)[tuple(slice(0, draws.draw(st.sampled_from([1, n])))
                                                              for n in x.shape)]  # fmt: skip
    anynorm.normalize(x, axes, weight=weight, out=out)
    assert_close(out, reference.normalize(x, axes, weight=weight))
    assert np.count_nonzero(~np.isnan(base)) == out.size


@given(st.data(), SHAPES, DTYPES, SEEDS)
def test_permuting_the_axes_permutes_the_answer(draws, shape, dtype, seed):
    x = data(seed, shape, dtype)
    axes, order = draws.draw(axes_of(shape)), draws.draw(st.permutations(range(len(shape))))
    y, used = anynorm.normalize(x, axes, return_moments=True)
    turned, turned_used = anynorm.normalize(
        x.transpose(order), tuple(order.index(a) for a in axes), return_moments=True
    )
    # The same memory, described in another order: the same loops, and so the same bits.
    assert cases.same_bits(turned, y.transpose(order))
    kept = [a for a in order if a not in axes]
    position = [sorted(kept).index(a) for a in kept]
    assert cases.same_bits(turned_used.m2, np.transpose(used.m2, position))


@given(st.data(), SHAPES, DTYPES, SEEDS)
def test_axes_of_length_one_change_nothing(draws, shape, dtype, seed):
    x = data(seed, shape, dtype)
    axes = draws.draw(axes_of(shape))
    place = draws.draw(st.integers(0, len(shape)))
    moved = tuple(a + (a >= place) for a in axes)
    for reduced in (moved, (*moved, place)):
        y = anynorm.normalize(np.expand_dims(x, place), reduced)
        assert cases.same_bits(y.squeeze(place), anynorm.normalize(x, axes))


@given(SHAPES, DTYPES, SEEDS, st.integers(-20, 20))
def test_powers_of_two_leave_the_bits(shape, dtype, seed, exponent):
    """Without eps, a norm does not depend on the scale of its input: neither data nor weights that are scaled."""
    x = data(seed, (2, *shape, 3), dtype)
    scaled = np.ldexp(x, exponent).astype(dtype)
    for axis, center in itertools.product([0, -1, None], [True, False]):
        y, used = anynorm.normalize(x, axis, eps=0.0, center=center, return_moments=True)
        again, scaled_used = anynorm.normalize(scaled, axis, eps=0.0, center=center, return_moments=True)
        assert cases.same_bits(again, y)
        assert cases.same_bits(scaled_used.mean, np.ldexp(used.mean, exponent))
        assert cases.same_bits(scaled_used.m2, np.ldexp(used.m2, 2 * exponent))


@given(SHAPES, DTYPES, SEEDS)
def test_negation_negates(shape, dtype, seed):
    x = data(seed, (2, *shape, 3), dtype)
    for axis in (0, -1, None):
        assert np.array_equal(anynorm.normalize(-x, axis), -anynorm.normalize(x, axis))


@pytest.mark.parametrize("name", ["layer", "instance", "group", "rms", "batch"])
def test_rescaling_table(name, rng):
    """What does not change when the data, one channel's weights, or one sample is scaled by 4 (Ba et al., table 1)."""
    x = rng.normal(3, 1, (4, 6, 8, 9)).astype(np.float32)
    run = {
        "layer": lambda x: anynorm.layer_norm(x, x.shape[1:], eps=0.0),
        "instance": lambda x: anynorm.instance_norm(x, eps=0.0),
        "group": lambda x: anynorm.group_norm(x, 3, eps=0.0),
        "rms": lambda x: anynorm.rms_norm(x, x.shape[1:], eps=0.0),
        "batch": lambda x: anynorm.batch_norm(x, training=True, eps=0.0),
    }[name]
    one_channel, one_sample = np.ones((6, 1, 1), np.float32), np.ones((4, 1, 1, 1), np.float32)
    one_channel[2], one_sample[1] = 4, 4
    y = run(x)
    assert cases.same_bits(run(x * np.float32(4)), y)
    assert cases.same_bits(run(x * one_channel), y) == (name in ("instance", "batch"))
    assert cases.same_bits(run(x * one_sample), y) == (name != "batch")


@given(st.data(), SHAPES, DTYPES, SEEDS)
def test_affine_with_the_statistics_restores_the_input(draws, shape, dtype, seed):
    x = data(seed, shape, dtype)
    axes = draws.draw(axes_of(shape))
    used = anynorm.moments(x, axes, keepdims=True)
    assume(np.all(used.m2 > 0))
    y = anynorm.normalize(x, axes, weight=np.asarray(used.std()), bias=np.asarray(used.mean), eps=0.0)
    assert np.abs(y - x).max() <= 4 * np.finfo(dtype).eps * np.abs(x).max()


@given(st.data(), DTYPES, SEEDS, st.integers(1, 400), st.sampled_from([0.0, 3.0, 1e4, 1e6]))
def test_merging_any_split_is_the_whole(draws, dtype, seed, n, mean):
    x = data(seed, (n, 2), dtype, mean)
    cuts = sorted(draws.draw(st.lists(st.integers(0, n), max_size=6)))
    total = anynorm.moments(x[:0], 0)
    for part in np.split(x, cuts):
        total = total + anynorm.moments(part, 0)
    whole = anynorm.moments(x, 0)
    assert np.array_equal(total.count, whole.count)
    np.testing.assert_allclose(total.mean, whole.mean, rtol=1e-15, atol=1e-14)
    np.testing.assert_allclose(total.m2, whole.m2, rtol=1e-14, atol=1e-28 * mean)


FINITE = {
    np.float32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    np.float64: st.floats(-1e150, 1e150, allow_nan=False),
}


@settings(max_examples=300)
@given(st.data(), DTYPES)
def test_variance_of_anything_finite(draws, dtype):
    """Never negative, 0 for equal elements only, right to 1e-6 or 1e-12, whatever the elements are."""
    values = draws.draw(st.lists(FINITE[dtype], min_size=1, max_size=40))
    repeats = draws.draw(st.sampled_from([1, 1, 7, 150]))
    x = np.tile(np.array(values, dtype), repeats)
    exact = reference.exact_moments(x)
    for view, axis in [(x, 0), (x[:, None], 0), (np.stack([x, x[::-1]], 1), 0)]:
        used = anynorm.moments(view, axis)
        var = float(np.ravel(used.var())[0])
        assert var >= 0
        assert np.all(np.isfinite(used.mean))
        assert np.all(np.min(x) <= used.mean)
        assert np.all(used.mean <= np.max(x))
        if exact.m2 == 0:
            assert var == 0
        elif float(exact.var) > 1e-290:
            tolerance = 1e-6 if dtype is np.float32 else 1e-12
            assert abs(var / float(exact.var) - 1) <= tolerance


@given(SHAPES, DTYPES, SEEDS)
def test_the_result_is_normalized(shape, dtype, seed):
    x = data(seed, (*shape, 50), dtype, 100.0)
    y = anynorm.normalize(x, -1, eps=0.0).astype(np.float64)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(-1), 1, atol=1e-6)
