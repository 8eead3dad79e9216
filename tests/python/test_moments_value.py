# SPDX-License-Identifier: Apache-2.0
"""Moments as a value: weights, indexing, equality, merging along axes, records for NumPy and C++."""

import copy
import functools
import pickle
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import cases
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import anynorm
from anynorm import Moments

INCLUDE = Path(__file__).parents[2] / "cpp" / "include"


def weighted(x, w):
    """The oracle: weighted statistics along axis 0, in two passes."""
    count = w.sum(0)
    mean = (w * x).sum(0) / count
    return Moments(count, mean, (w * (x - mean) ** 2).sum(0), (w * w).sum(0))


@pytest.fixture
def x(rng):
    return rng.normal(3, 2, (60, 4))


@pytest.fixture
def w(rng):
    return rng.uniform(0, 2, (60, 4))


@pytest.fixture(params=["plain", "weighted"])
def sets(request, x, w):
    """Moments of shape (60, 4), of twelve elements each."""
    if request.param == "plain":
        return anynorm.moments(np.stack([x + i for i in range(12)]), 0)
    return weighted(np.stack([x + i for i in range(12)]), np.stack([w + i for i in range(12)]))


def assert_close(a, b, rtol=1e-14):
    for name in ("count", "mean", "m2", "weight2"):  # and the low part of a mean is below its last digit
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=rtol, atol=1e-300, err_msg=name)


# --- weights ---------------------------------------------------------------------------------------------------------


def test_integer_weights_are_repetition(x, rng):
    times = rng.integers(0, 4, len(x))
    whole = anynorm.moments(np.repeat(x, times, axis=0), 0)
    used = weighted(x, np.broadcast_to(times[:, None].astype(float), x.shape))
    np.testing.assert_allclose(used.var(1), whole.var(1), rtol=1e-13)
    np.testing.assert_allclose(used.std(1), whole.std(1), rtol=1e-13)


def test_reliability_weights(x, w):
    used = weighted(x, w)
    v1, v2 = w.sum(0), (w * w).sum(0)
    expected = used.m2 / (v1 - v2 / v1)
    np.testing.assert_allclose(used.var(1, weights="reliability"), expected, rtol=1e-14)
    np.testing.assert_allclose(used.std(1, "reliability"), np.sqrt(expected), rtol=1e-14)
    scaled = weighted(x, 1024 * w)
    np.testing.assert_allclose(scaled.var(1, "reliability"), expected, rtol=1e-14)
    assert np.all(scaled.var(1) < expected), "frequency weights are not scale-free"
    assert cases.same_bits(used.var(0, "reliability"), used.var())
    equal = anynorm.moments(x, 0)
    assert cases.same_bits(equal.var(1, "reliability"), equal.var(1))
    assert np.isnan(Moments(0, np.nan, 0, 0).var(1, "reliability"))
    with pytest.raises(ValueError, match="'frequency' or 'reliability', got 'analytic'"):
        used.var(1, weights="analytic")


def test_weighted_parts_are_the_whole(x, w):
    whole = weighted(x, w)
    parts = [weighted(x[i : i + 7], w[i : i + 7]) for i in range(0, 60, 7)]
    assert_close(functools.reduce(Moments.merge, parts), whole)
    total = Moments.empty(4)
    for part in parts:
        total.update(part)
    assert_close(total, whole)
    assert_close(Moments.stack(parts).reduce(0), whole)


def test_weights_of_one_are_no_weights(x, w):
    plain = anynorm.moments(x, 0)
    assert cases.same_bits(plain.weight2, plain.count)
    assert Moments(plain.count, plain.mean, plain.m2, plain.count)._weight2 is None
    both = plain + weighted(x, w)
    np.testing.assert_allclose(both.weight2, 60 + (w * w).sum(0), rtol=1e-14)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((1, 0, 1, -1), "weight2 of at least 0, got -1.0"),
        ((1, 0, 1, np.nan), "weight2 of at least 0, got nan"),
        ((1, 0, 1, None, [0, np.inf]), "mean_low that is finite, got inf"),
        ((1, 0, [1, 2], None, [1, 2, 3]), r"broadcast, got count \(\), mean \(\), m2 \(2,\), mean_low \(3,\)"),
        ((np.nan, 0, 1), "count of at least 0, got nan"),
        (([1, np.nan], 0, -1), "count of at least 0, got nan"),
        ((1, 0, [np.nan, -2.0]), r"m2 of at least 0, got -2.0"),
        ((1, 0, [1, 2], [1, 2, 3]), r"broadcast, got count \(\), mean \(\), m2 \(2,\), weight2 \(3,\)"),
    ],
)
def test_construction_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Moments(*arguments)


# --- as a container --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [3, -1, slice(1, 9, 3), (slice(None), 2), (..., 0), (5, 1), None, [1, 5, 5]], ids=str)
def test_indexing_is_numpys_and_copies(sets, key):
    part = sets[key]
    for name in ("count", "mean", "m2", "mean_low", "weight2"):
        assert cases.same_bits(getattr(part, name), getattr(sets, name)[key])
        assert not np.shares_memory(np.asarray(getattr(part, name)), getattr(sets, name))
    before = copy.deepcopy(sets)
    part.update(part)
    assert sets == before


def test_iteration(sets):
    assert len(sets) == 60
    assert functools.reduce(Moments.merge, sets) == functools.reduce(Moments.merge, [sets[i] for i in range(60)])
    with pytest.raises(IndexError):
        sets[60]
    for refused in (len, list):
        with pytest.raises(TypeError, match="single set"):
            refused(sets[0, 0])


def test_equality_is_one_bool(sets):
    again = copy.copy(sets)
    assert sets == again
    assert Moments.empty(3) == Moments.empty(3)
    assert sets != sets[0]
    assert sets[:1] != sets[0], "shapes are part of the value"
    again._m2[1, 1] += 1e-9
    assert sets != again
    assert sets != 3
    assert Moments(2, 0, 1) != Moments(2, 0, 1, 3)
    assert Moments(2, 1, 1) != Moments(2, 1, 1, mean_low=1e-17)
    with pytest.raises(TypeError, match="unhashable"):
        hash(sets)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids="cdp")
def test_copies_keep_everything(sets, again):
    assert again(sets) == sets
    assert again(sets)._count is not sets._count


def test_pickles_from_before_the_low_part():
    for arguments in ((2.0, 3.0, 4.0), (2.0, 3.0, 4.0, 5.0)):
        assert Moments(*arguments) == Moments(*arguments, mean_low=0)
        assert float(Moments(*arguments).mean_low) == 0


def test_repr_shows_weights():
    assert repr(Moments(2, 3, 4)) == "Moments(shape=(), count=2., mean=3., m2=4.)"
    assert repr(Moments(2, 3, 4, mean_low=1e-16)) == "Moments(shape=(), count=2., mean=3., m2=4.)"
    assert repr(Moments(2, 3, 4, 5)) == "Moments(shape=(), count=2., mean=3., m2=4., weight2=5.)"


# --- merging along axes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 1), (1, 0), ()], ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_reduce(sets, axis, keepdims):
    used = sets.reduce(axis, keepdims=keepdims)
    assert used.shape == np.sum(sets.mean, axis=axis, keepdims=keepdims).shape
    np.testing.assert_allclose(used.count, np.sum(sets.count, axis=axis, keepdims=keepdims), rtol=1e-14)
    np.testing.assert_allclose(used.weight2, np.sum(sets.weight2, axis=axis, keepdims=keepdims), rtol=1e-14)
    mean = np.sum(sets.count * sets.mean, axis=axis, keepdims=True) / np.sum(sets.count, axis=axis, keepdims=True)
    np.testing.assert_allclose(np.ravel(used.mean), np.ravel(mean), rtol=1e-14)
    m2 = np.sum(sets.m2 + sets.count * (sets.mean - mean) ** 2, axis=axis)
    np.testing.assert_allclose(np.ravel(used.m2), np.ravel(m2), rtol=1e-13)


def test_reduce_is_a_balanced_tree(sets):
    a, b, c, d, e = sets[:5]
    assert sets[:5].reduce(0) == ((a + b) + (c + d)) + e


def test_reduce_of_nothing_is_empty():
    assert Moments.empty((0, 3)).reduce(0) == Moments.empty(3)
    assert Moments.empty((3, 0)).reduce(0) == Moments.empty(0)


@pytest.mark.parametrize("axis, error", [(2, ValueError), ((0, -2), ValueError), (1.0, TypeError)], ids=str)
def test_reduce_refuses(sets, axis, error):
    with pytest.raises(error):
        sets.reduce(axis)


def test_stack_refuses(sets):
    for wrong, message in (([], "no part"), ([sets, sets[0]], r"\(4,\), \(60, 4\)")):
        with pytest.raises(ValueError, match=message):
            Moments.stack(wrong)
    with pytest.raises(TypeError, match="got float"):
        Moments.stack([1.0])
    assert Moments.stack([sets, sets], axis=-1).shape == (60, 4, 2)


def in_a_tree(parts):
    return Moments.stack(parts).reduce(0)


def one_after_the_other(parts):
    return functools.reduce(Moments.merge, parts)


def in_place(parts):
    total = Moments.empty(parts[0].shape)
    for part in parts:
        total.update(part)
    return total


@pytest.mark.parametrize("merge", [in_a_tree, one_after_the_other, in_place])
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12),
    st.sampled_from([0.0, 3.0, -1e4, 1e8, -1e12]),
    st.sampled_from([None, np.nan, np.inf]),
    st.integers(0, 2**32 - 1),
)
def test_any_split_is_the_whole(merge, lengths, mean, spoiler, seed):
    """To 1e-14 of the exact variance and of a deviation, at any mean."""
    rng = np.random.default_rng(seed)
    x = rng.normal(mean, 1, (sum(lengths), 2))
    if spoiler is not None and len(x):
        x[rng.integers(len(x)), 0] = spoiler
    used = merge([anynorm.moments(part, 0) for part in np.split(x, np.cumsum(lengths)[:-1])])
    expected = reference.moments(x, 0)
    assert np.array_equal(used.count, expected.count)
    for column in range(2):
        if not np.isfinite(x[:, column]).all() or not len(x):
            assert np.array_equal(used.mean[column], expected.mean[column], equal_nan=True)
            assert np.isnan(used.var()[column])
            assert used.mean_low[column] == 0
            continue
        exact = reference.exact_moments(x[:, column])
        found = Fraction(float(used.mean[column])) + Fraction(float(used.mean_low[column]))
        assert abs(found - exact.mean) < 1e-14
        assert abs(Fraction(float(used.m2[column])) - exact.m2) <= Fraction(1e-14) * exact.m2


# --- streaming -------------------------------------------------------------------------------------------------------


def test_update_takes_data(x):
    total, kept, by_hand = Moments.empty(4), Moments.empty((1, 4)), Moments.empty(4)
    for part in np.split(x, [10, 10, 45]):
        total.update(part, axis=0)
        kept.update(part.astype(np.float64), 0, num_threads=1)
        by_hand.update(anynorm.moments(part, 0))
    assert total == by_hand
    assert kept[0] == by_hand


@pytest.mark.parametrize(
    "other, axis, error, message",
    [
        (np.ones((3, 4), np.float32), 1, ValueError, r"shape \(4,\), got \(3,\)"),
        (np.ones((3, 4), int), 0, TypeError, "got int"),
        (Moments.empty(4), 0, TypeError, "axis with an array only"),
        (Moments.empty(3), None, ValueError, r"got \(3,\)"),
    ],
)
def test_update_refuses_and_changes_nothing(x, other, axis, error, message):
    total = anynorm.moments(x, 0)
    with pytest.raises(error, match=message):
        total.update(other, axis)
    assert cases.same_moments(total, anynorm.moments(x, 0))


def test_any_number_of_threads_may_read(sets):
    def read(_):
        return sets.var(1).tobytes(), sets.reduce(0).mean.tobytes(), pickle.dumps(sets), repr(sets[3])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(read, range(200)))) == 1


# --- records ---------------------------------------------------------------------------------------------------------


def test_records_round_trip(sets):
    records = sets.to_structured()
    weights = sets._weight2 is not None
    assert records.shape == sets.shape
    assert records.dtype.names == ("count", "mean", "m2", "mean_low", *(["weight2"] if weights else []))
    assert records.itemsize == 32 + 8 * weights
    assert Moments.from_structured(records) == sets
    assert cases.same_bits(np.asarray(sets)["mean"], sets.mean)
    narrow = np.asarray(sets, dtype=[("count", "i4"), ("mean", "f4"), ("m2", "f4")]) if not weights else records
    assert np.array_equal(Moments.from_structured(narrow).count, sets.count)


def test_records_with_fewer_fields(x):
    sets = anynorm.moments(x + 1e8, 0)
    assert np.any(sets.mean_low)
    known = np.asarray(sets, dtype=[("m2", "f8"), ("count", "f8"), ("mean", "f8")])
    assert known.dtype.names == ("m2", "count", "mean")
    assert Moments.from_structured(known) == Moments(sets.count, sets.mean, sets.m2)
    assert Moments.from_structured(sets.to_structured()) == sets


def test_records_are_refused_without_their_fields():
    with pytest.raises(TypeError, match="fields count, mean and m2, got"):
        Moments.from_structured(np.zeros(3, [("count", "f8"), ("mean", "f8")]))
    with pytest.raises(ValueError, match="copy"):
        Moments.empty(3).__array__(copy=False)


PROGRAM = """
#include <anynorm/moments.hpp>
#include <cstddef>
#include <cstdio>
static_assert(sizeof(anynorm::Moments) == 32 && offsetof(anynorm::Moments, count) == 0);
static_assert(offsetof(anynorm::Moments, mean) == 8 && offsetof(anynorm::Moments, m2) == 16);
static_assert(offsetof(anynorm::Moments, mean_low) == 24);
int main() {
    anynorm::Moments total, part;
    while (std::fread(&part, sizeof part, 1, stdin) == 1) total.merge(part);
    std::fwrite(&total, sizeof total, 1, stdout);
}
"""


@pytest.mark.native
@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_cpp_reads_and_writes_records(tmp_path, x):
    """The bytes of an array of anynorm::Moments, and the bits of its merge."""
    (tmp_path / "merge.cpp").write_text(PROGRAM, encoding="utf-8")
    command = ["g++", "-std=c++20", "-O1", "-ffp-contract=off", f"-I{INCLUDE}", "merge.cpp", "-o", "merge"]
    subprocess.run(command, cwd=tmp_path, check=True)
    sets = Moments.stack([anynorm.moments(x), Moments.empty(), anynorm.moments(x + 1e6)])
    done = subprocess.run([tmp_path / "merge"], input=sets.to_structured().tobytes(), capture_output=True, check=True)
    record = np.frombuffer(done.stdout, sets.to_structured().dtype)
    assert Moments.from_structured(record)[0] == functools.reduce(Moments.merge, sets)
