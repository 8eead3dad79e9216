# SPDX-License-Identifier: Apache-2.0
"""What users hold that is no plain ndarray, keys as labels, NaN policies; and wrong arguments of selections."""

import cases
import numpy as np
import pytest
import selection_reference

import anynorm

F32 = np.float32


@pytest.fixture
def x(rng):
    return rng.normal(3, 2, (40, 3))


KEYS = ["b", "a", "c", "a"] * 10


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys", [KEYS, np.array(KEYS), np.array(KEYS, object), np.array(KEYS, "S")], ids=["list", "str", "object", "bytes"]
)
def test_keys_are_numbered_in_their_order(keys, x):
    labels, names = anynorm.codes(keys)
    assert list(names) == sorted(set(keys))
    assert list(np.asarray(names)[labels]) == list(np.asarray(keys))
    used = anynorm.moments(x, 0, labels=keys)
    assert cases.same_moments(used, anynorm.moments(x, 0, labels=labels, num_groups=3))


def test_codes_are_labels(x):
    """With a group for every name, whether it occurs or not."""
    codes = anynorm.codes(KEYS)
    assert cases.same_moments(anynorm.moments(x, 0, labels=codes), anynorm.moments(x, 0, labels=KEYS))
    assert cases.same_bits(anynorm.normalize(x, 0, labels=codes), anynorm.normalize(x, 0, labels=KEYS))
    more = codes._replace(names=np.append(codes.names, "none"))
    assert anynorm.moments(x, 0, labels=more).count[:, 0].tolist() == [20, 10, 10, 0]
    assert anynorm.moments(x, 0, labels=codes, num_groups=5).shape == (5, 3)
    with pytest.raises(ValueError, match=r"^moments: expected labels below num_groups=2, got 2"):
        anynorm.moments(x, 0, labels=codes, num_groups=2)


def test_missing_keys_are_in_no_set():
    assert anynorm.codes([None, "b", float("nan"), "a"]).labels.tolist() == [-1, 1, -1, 0]
    dates = np.array(["2026-02-01", "NaT", "2026-01-01"], "datetime64[D]")
    assert anynorm.codes(dates).labels.tolist() == [1, -1, 0]
    assert anynorm.codes(np.array([["b", "a"], ["a", "b"]])).labels.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("keys, message", [
    ([1.0, 2.0], "expected keys of integers, strings, dates or objects, got float64"),
    ([1, "a", None], "expected keys that can be sorted, got a mixture"),
], ids=["floats", "mixture"])  # fmt: skip
def test_what_is_no_key(keys, message):
    keys = np.array(keys, object if "a" in keys else None)
    with pytest.raises(TypeError, match=f"^codes: {message}"):
        anynorm.codes(keys)
    with pytest.raises(TypeError, match=r"^moments: expected labels of integers"):
        anynorm.moments(np.ones(len(keys)), 0, labels=keys)


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.peer
def test_pandas(x):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(x, columns=["r", "g", "b"]).assign(key=KEYS)
    grouped = frame.groupby("key")
    used = anynorm.moments(frame[["r", "g", "b"]], 0, labels=frame["key"])
    np.testing.assert_allclose(used.mean, grouped.mean(), rtol=1e-12)
    np.testing.assert_allclose(used.var(1), grouped.var(), rtol=1e-12)
    y = anynorm.normalize(x, 0, labels=frame["key"], eps=0)
    np.testing.assert_allclose(y, grouped.transform(lambda column: (column - column.mean()) / column.std(ddof=0)), rtol=1e-11)  # fmt: skip
    category = pd.Categorical(KEYS, categories=["c", "none", "a", "b"])
    labels, names = anynorm.codes(category)
    assert names.tolist() == ["c", "none", "a", "b"]
    assert anynorm.moments(x, 0, labels=category).count[:, 0].tolist() == [10, 0, 20, 10]
    assert cases.same_moments(anynorm.moments(x, 0, labels=pd.Series(category)), anynorm.moments(x, 0, labels=labels))
    assert anynorm.codes(pd.Series(["b", None, "a"])).labels.tolist() == [1, -1, 0]
    assert anynorm.codes(pd.Index([3, 1, 3])).names.tolist() == [1, 3]
    numbers = pd.Series([7, None, 3], dtype="Int64")
    assert anynorm.codes(numbers).labels.tolist() == [1, -1, 0]


@pytest.mark.peer
def test_polars(x):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(x, schema=["r", "g", "b"]).with_columns(pl.Series("key", KEYS))
    grouped = frame.group_by("key").agg(pl.all().var()).sort("key")
    for keys in (frame["key"], frame["key"].cast(pl.Categorical), frame["key"].cast(pl.Enum(["a", "b", "c"]))):
        used = anynorm.moments(frame.drop("key"), 0, labels=keys)
        np.testing.assert_allclose(used.var(1), grouped.drop("key").to_numpy(), rtol=1e-12)
    assert anynorm.codes(pl.Series(["b", None, "a"])).labels.tolist() == [1, -1, 0]
    integers = pl.Series(np.tile([2, 0], 20))
    assert anynorm.moments(x, 0, labels=integers).count[:, 0].tolist() == [20, 0, 20]


@pytest.mark.peer
def test_flox(rng):
    flox = pytest.importorskip("flox")
    x, labels = rng.normal(3, 2, (7, 500)), rng.integers(0, 9, 500)
    used = anynorm.moments(x, 1, labels=labels)
    for found, func in ((used.mean, "mean"), (used.var(), "var")):
        expected, *_ = flox.groupby_reduce(x, labels, func=func)
        np.testing.assert_allclose(found, expected.T, rtol=1e-12)


# --- lists of different lengths ---------------------------------------------------------------------------------------


def by_hand(rows, width=()):
    return [anynorm.normalize(np.array(row, F32).reshape(-1, *width), 0) for row in rows]


ROWS = [[1.0, 2.0, 4.0], [], [8.0, 16.0], [3.0]]


@pytest.mark.peer
def test_awkward(rng):
    ak = pytest.importorskip("awkward")
    lists = ak.values_astype(ak.Array(ROWS), F32)
    for given in (lists, ak.concatenate([lists[:1], lists])[1:]):
        y, used = anynorm.normalize(given, 0, return_moments=True)
        assert isinstance(y, ak.Array)
        assert ak.num(y).tolist() == [3, 0, 2, 1]
        assert used.count.tolist() == [3, 0, 2, 1]
        for found, expected in zip(y, by_hand(ROWS), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    points = ak.unflatten(ak.from_numpy(rng.normal(size=(6, 2)), regulararray=True), [4, 2])
    centred = anynorm.normalize(points, 0)
    assert anynorm.moments(points, 0).shape == (2, 2)
    np.testing.assert_allclose(centred[1], anynorm.normalize(np.asarray(points[1]), 0), rtol=1e-12)
    gradient = anynorm.normalize_backward(points, points, 0).grad_input
    assert ak.num(gradient).tolist() == [4, 2]
    with pytest.raises(ValueError, match=r"^normalize_backward: expected grad_output of lists as long as those of x"):
        anynorm.normalize_backward(lists, points, 0)
    with pytest.raises(ValueError, match=r"^normalize: expected no segments for x of lists"):
        anynorm.normalize(lists, 0, segments=[0, 6])


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["list_", "large_list"])
def test_pyarrow(kind):
    pa = pytest.importorskip("pyarrow")
    lists = pa.array([*ROWS, None], getattr(pa, kind)(pa.float32()))
    y, used = anynorm.normalize(lists, 0, return_moments=True)
    assert y.type == lists.type
    assert used.count.tolist() == [3, 0, 2, 1, 0]
    assert y.null_count == 1
    for found, expected in zip(y.to_pylist(), by_hand(ROWS), strict=False):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert anynorm.moments(lists[2:4], 0).count.tolist() == [2, 1]
    np.testing.assert_allclose(anynorm.normalize(lists[2:4], 0).to_pylist()[0], by_hand(ROWS)[2], rtol=1e-6)


# --- masked arrays ---------------------------------------------------------------------------------------------------


def test_masked_arrays_use_their_mask(x, rng):
    mask = rng.random(x.shape) < 0.3
    masked = np.ma.MaskedArray(np.where(mask, np.nan, x), mask)
    y, used = anynorm.normalize(masked, 0, return_moments=True)
    assert isinstance(y, np.ma.MaskedArray)
    assert np.array_equal(y.mask, mask)
    expected, statistics = anynorm.normalize(x, 0, where=~mask, return_moments=True)
    assert cases.same_bits(y.data, expected)
    assert cases.same_moments(used, statistics)
    np.testing.assert_allclose(used.var(1), masked.var(0, ddof=1), rtol=1e-12)
    also = rng.random(x.shape) < 0.8
    assert cases.same_bits(anynorm.normalize(masked, 0, where=also).data, anynorm.normalize(x, 0, where=also & ~mask))
    for call in (anynorm.layer_norm, anynorm.rms_norm, lambda x: anynorm.batch_norm(x, training=True)):
        assert cases.same_bits(call(masked).data, call(np.ma.array(x, mask=mask)).data)
    gradient = anynorm.normalize_backward(np.ma.array(x), masked, 0).grad_input
    assert np.array_equal(gradient.mask, mask)
    out = np.empty_like(x)
    assert anynorm.normalize(masked, 0, out=out) is out
    plain = anynorm.normalize(np.ma.array(x), 0)
    assert isinstance(plain, np.ma.MaskedArray)
    assert cases.same_bits(plain.data, anynorm.normalize(x, 0))
    split = anynorm.normalize(masked.reshape(40, 3, 1), "n (g c) k -> g", g=3)
    assert cases.same_bits(split.data, anynorm.normalize(x.reshape(40, 3, 1), (0, 2), where=~mask.reshape(40, 3, 1)))


# --- NaN -------------------------------------------------------------------------------------------------------------


def test_nan_policy(x, rng):
    nan = rng.random(x.shape) < 0.2
    x[nan] = np.nan
    assert np.isnan(anynorm.normalize(x, 0)).all()
    y, used = anynorm.normalize(x, 0, nan_policy="omit", return_moments=True)
    np.testing.assert_allclose(used.mean, np.nanmean(x, 0), rtol=1e-13)
    np.testing.assert_allclose(used.var(1), np.nanvar(x, 0, ddof=1), rtol=1e-12)
    assert np.array_equal(np.isnan(y), nan)
    np.testing.assert_allclose(y, (x - np.nanmean(x, 0)) / np.sqrt(np.nanvar(x, 0) + 1e-5), rtol=1e-11, atol=1e-12)
    assert cases.same_moments(anynorm.moments(x, 0, nan_policy="omit"), used)
    layer = anynorm.layer_norm(x, nan_policy="omit")
    assert np.array_equal(np.isnan(layer), nan)
    gradient = anynorm.normalize_backward(np.ones_like(x), x, 0, nan_policy="omit").grad_input
    assert not np.isnan(gradient).any()
    residual = np.where(rng.random(x.shape) < 0.1, np.nan, 1.0)
    y, total = anynorm.normalize(x, 0, nan_policy="omit", residual=residual)
    assert np.array_equal(np.isnan(y), np.isnan(total))


def test_nan_is_raised_before_anything_is_written(x):
    out = np.full_like(x, 7)
    anynorm.normalize(x, 0, nan_policy="raise", out=out)
    x[3, 1], out[...] = np.nan, 7
    with pytest.raises(ValueError, match=r"^normalize: expected x without NaN where nan_policy is 'raise', got 1$"):
        anynorm.normalize(x, 0, nan_policy="raise", out=out)
    assert (out == 7).all()
    anynorm.normalize(x, 0, nan_policy="raise", where=~np.isnan(x), out=out)
    with pytest.raises(ValueError, match=r"^moments: expected x without NaN"):
        anynorm.moments(x, nan_policy="raise")


# --- wrong calls -----------------------------------------------------------------------------------------------------

WRONG = [
    (
        {"labels": np.zeros(3, int)},
        ValueError,
        r"expected labels of shape \(40,\), as the first reduced axes of x .*, got \(3,\)",
    ),
    ({"labels": np.zeros((40, 3), int)}, ValueError, "expected labels of length 1 along axis 1, which is not reduced"),
    ({"labels": np.full(40, 7), "num_groups": 5}, ValueError, "expected labels below num_groups=5, got 7"),
    ({"labels": np.zeros(40, int), "num_groups": -1}, ValueError, "expected num_groups of at least 0, got -1"),
    (
        {"labels": np.zeros(40, int), "num_groups": 2.0},
        TypeError,
        "expected num_groups to be an int or None, got float",
    ),
    ({"labels": np.zeros(40)}, TypeError, "expected labels of integers"),
    ({"labels": np.zeros(40, bool)}, TypeError, "expected labels of integers, got bool"),
    ({"labels": np.full(40, 2**63, np.uint64)}, ValueError, "expected labels within int64"),
    ({"num_groups": 3}, ValueError, "expected num_groups with labels, got it without"),
    ({"segments": [0, 5.0]}, TypeError, "expected segments of integers, got float64"),
    ({"segments": [0, 41]}, ValueError, "expected segments that rise from at least 0 to at most 40"),
    ({"segments": [5, 4]}, ValueError, "expected segments that rise"),
    ({"segments": [[0, 1, 2]]}, ValueError, r"expected segments of shape \(groups \+ 1,\) or \(groups, 2\)"),
    ({"segments": [0, 4], "axis": 1}, ValueError, "expected axis 0 among the reduced axes where there are segments"),
    ({"segments": [0, 4], "labels": np.zeros(40, int)}, ValueError, "expected"),
    ({"where": np.ones((40, 3))}, TypeError, "expected where of dtype bool, got float64"),
    ({"where": np.ones(4, bool)}, ValueError, "expected where"),
    ({"where": np.ma.array([True, False, True])}, TypeError, "expected where without a mask of its own"),
    ({"sample_weight": np.full(40, -1.0)}, ValueError, "expected sample_weight that is finite and at least 0, got -1"),
    ({"sample_weight": np.full(40, np.inf)}, ValueError, "expected sample_weight that is finite"),
    ({"sample_weight": ["a"] * 40}, TypeError, "expected sample_weight of"),
    ({"sample_weight": np.ones(5)}, ValueError, "expected sample_weight of shape"),
    ({"excluded": "none"}, ValueError, "expected excluded to be 'zero', 'input' or 'keep', got 'none'"),
    ({"nan_policy": "ignore"}, ValueError, "expected nan_policy to be 'propagate', 'omit' or 'raise', got 'ignore'"),
    ({"nan_policy": 3}, TypeError, "expected nan_policy to be a str, got int"),
]


@pytest.mark.parametrize("wrong, error, message", WRONG, ids=[f"{next(iter(w[0]))}{i}" for i, w in enumerate(WRONG)])
def test_wrong_arguments_are_refused_by_name(wrong, error, message):
    x, out, gradient = np.ones((40, 3)), np.full((40, 3), 7.0), np.full((40, 3), 7.0)
    options = {"axis": 0, **wrong}
    with pytest.raises(error, match=f"^normalize: {message}"):
        anynorm.normalize(x, out=out, **options)
    with pytest.raises(error, match=f"^normalize_backward: {message}"):
        anynorm.normalize_backward(x, x, grad_input=gradient, **options)
    if "excluded" not in wrong:
        with pytest.raises(error, match=f"^moments: {message}"):
            anynorm.moments(x, **options)
    assert (out == 7).all()
    assert (gradient == 7).all()


def test_labels_of_any_integer_type(x):
    labels = np.arange(40) % 3
    expected = selection_reference.moments(x, 0, labels=labels[:, np.newaxis], num_groups=3)
    for dtype in ("int8", "uint8", "int16", "uint16", ">i4", "uint32", "int64", "uint64", "q"):
        used = anynorm.moments(x, 0, labels=labels.astype(dtype))
        np.testing.assert_allclose(used.mean, expected.mean, rtol=1e-14)
    assert anynorm.moments(x, 0, labels=labels.tolist()).shape == (3, 3)
