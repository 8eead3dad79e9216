# SPDX-License-Identifier: Apache-2.0
"""The statistics as values: shapes, dtypes, derived quantities, merging, pickling."""

import copy
import itertools
import pickle

import cases
import numpy as np
import pytest
import reference

import anynorm


@pytest.fixture
def x(rng):
    return rng.normal(3, 2, (4, 5, 6)).astype(np.float32)


@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -3, (0, 1), (0, 2), (2, 0), (-1, -2), (0, 1, 2), ()], ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_axes_and_shapes_are_those_of_numpy(x, axis, keepdims):
    used = anynorm.moments(x, axis, keepdims=keepdims)
    expected = reference.moments(x, axis, keepdims=keepdims)
    shape = np.sum(x, axis=axis, keepdims=keepdims).shape
    for field in ("count", "mean", "m2"):
        array = np.asarray(getattr(used, field))
        assert array.dtype == np.float64
        assert array.shape == shape
        np.testing.assert_allclose(array, getattr(expected, field), rtol=1e-14, atol=1e-14)


def test_var_std_rstd(x):
    used = anynorm.moments(x, (0, 2))
    wide = x.astype(np.float64)
    for correction in (0, 1, 2.5):
        np.testing.assert_allclose(used.var(correction), wide.var((0, 2), ddof=correction), rtol=1e-13)
        np.testing.assert_allclose(used.std(correction), wide.std((0, 2), ddof=correction), rtol=1e-13)
        np.testing.assert_allclose(used.var(correction=correction), used.std(correction=correction) ** 2, rtol=1e-14)
    assert cases.same_bits(used.var(), used.var(0))
    np.testing.assert_allclose(used.rstd(0.1), 1 / np.sqrt(wide.var((0, 2)) + 0.1), rtol=1e-13)


def test_correction_not_below_the_count_gives_nan():
    used = anynorm.moments(np.float32([[1, 2], [3, 4]]), 0)
    assert np.all(np.isfinite(used.var(1)))
    assert np.all(np.isnan(used.var(2)))
    assert np.all(np.isnan(used.var(3)))
    assert np.all(np.isnan(used.std(2)))


def test_one_element():
    used = anynorm.moments(np.float64([7.25]))
    assert (float(used.count), float(used.mean), float(used.m2)) == (1, 7.25, 0)
    assert float(used.var()) == 0
    assert np.isnan(float(used.var(1)))


def test_golden():
    used = anynorm.moments(np.float32([1, 3, 5]))
    assert (float(used.count), float(used.mean), float(used.m2)) == (3, 3, 8)
    assert float(used.var()) == pytest.approx(8 / 3, rel=1e-15)


# --- merging ---------------------------------------------------------------------------------------------------------


def assert_close(a, b):
    assert np.array_equal(a.count, b.count)
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(a.var(), b.var(), rtol=5e-14)


def test_merged_parts_are_the_whole(dtype, rng):
    x = rng.normal(3, 2, (1_000, 7)).astype(dtype)
    whole = anynorm.moments(x, 0)
    for cuts in [(0,), (1,), (500,), (999,), (1_000,), (10, 20, 700), (0, 0, 1_000)]:
        parts = [anynorm.moments(part, 0) for part in np.split(x, cuts)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        assert_close(total, whole)


def test_merge_is_the_sum(x):
    a, b = anynorm.moments(x[:2], 0), anynorm.moments(x[2:], 0)
    before = copy.deepcopy(a)
    total = a + b
    assert cases.same_moments(a, before)
    merged = a.merge(b)
    assert cases.same_moments(a if merged is None else merged, total)


def test_order_and_brackets_do_not_matter_much(rng):
    parts = [anynorm.moments(rng.normal(mean, 1, (n, 3)), 0) for mean, n in [(0, 5), (10, 500), (-3, 1), (1, 77)]]
    whole = parts[0] + parts[1] + parts[2] + parts[3]
    for a, b, c, d in itertools.permutations(parts):
        assert_close((a + b) + (c + d), whole)
        assert_close(a + (b + (c + d)), whole)


def test_empty_is_neutral(x):
    full = anynorm.moments(x, 0)
    empty = anynorm.moments(x[:0], 0)
    assert np.all(empty.count == 0)
    assert cases.same_moments(full + empty, full)
    assert cases.same_moments(empty + full, full)
    assert np.all((empty + empty).count == 0)
    assert np.all(np.isnan((empty + empty).mean))


def test_merging_far_sets_does_not_cancel():
    a, b = np.float64([1e9, 1e9 + 1]), np.float64([1e9 + 2, 1e9 + 3, 1e9 + 4])
    total = anynorm.moments(a) + anynorm.moments(b)
    assert float(total.var()) == pytest.approx(2, rel=1e-14)


def test_merging_not_finite_spoils_its_own_set():
    a = anynorm.moments(np.float32([[1, np.nan, 1], [2, 1, np.inf]]), 0)
    b = anynorm.moments(np.float32([[3, 1, 1], [4, 2, 2]]), 0)
    total = a + b
    assert float(total.var()[0]) == pytest.approx(1.25)
    assert np.all(np.isnan(total.var()[1:]))


def test_sum_of_other_things_is_refused(x):
    a = anynorm.moments(x, 0)
    for other in (1, 1.0, None, x, "a"):
        with pytest.raises(TypeError):
            a + other
    with pytest.raises(ValueError, match=r"\(5, 6\)"):
        a + anynorm.moments(x, 1)


# --- construction ----------------------------------------------------------------------------------------------------


def test_from_arrays_round_trip(x):
    used = anynorm.moments(x, (0, 2))
    again = anynorm.Moments.from_arrays(used.count, used.mean, used.m2, mean_low=used.mean_low)
    assert cases.same_moments(again, used)
    assert cases.same_bits(again.var(), used.var())


def test_from_arrays_of_a_known_variance():
    """A mean and a variance from elsewhere: a count of one, or the true one."""
    known = anynorm.Moments.from_arrays(count=np.ones(2), mean=np.float64([1, 2]), m2=np.float64([4, 9]))
    np.testing.assert_array_equal(known.var(), [4, 9])
    np.testing.assert_array_equal(known.std(), [2, 3])


def test_from_arrays_refuses_shapes_that_differ():
    with pytest.raises(ValueError, match="shape"):
        anynorm.Moments.from_arrays(np.ones(3), np.ones(2), np.ones(2))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(x, protocol):
    used = anynorm.moments(x, (0, 2))
    assert cases.same_moments(pickle.loads(pickle.dumps(used, protocol)), used)


def test_copies(x):
    used = anynorm.moments(x, (0, 2))
    assert cases.same_moments(copy.copy(used), used)
    assert cases.same_moments(copy.deepcopy(used), used)


def test_repr_names_the_type(x):
    assert "Moments" in repr(anynorm.moments(x, (0, 2)))
