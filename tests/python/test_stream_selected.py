# SPDX-License-Identifier: Apache-2.0
"""Labels, masks and weights beside data larger than memory: what the calls in memory give, or a clear refusal."""

import math
import os
import re
import subprocess
import sys

import cases
import numpy as np
import pytest

import anynorm
from anynorm import stream

SHAPE = (14, 5, 6)
KINDS = ["labels", "labels_inner", "where", "where_rows", "weights", "weights_all", "omit", "everything"]


def selection(kind, rng, x):
    """The options of a kind, for sets over the axes 0 and 2."""
    ids = np.array([0, 2, 1, -1, 0, 0, 4, 2, 2, -1, 1, 0, 4, 4])
    choices = {
        "labels": {"labels": ids.astype(np.int16)},
        "labels_inner": {"labels": rng.integers(-1, 3, (1, 1, 6)), "num_groups": 5},
        "where": {"where": rng.random(SHAPE) < 0.6},
        "where_rows": {"where": rng.random((14, 1, 1)) < 0.6},
        "weights": {"sample_weight": rng.integers(0, 4, 14) / 2},
        "weights_all": {"sample_weight": rng.random(SHAPE).astype(np.float32)},
        "omit": {"nan_policy": "omit"},
        "everything": {"labels": ids, "where": rng.random((5, 1)) < 0.7, "sample_weight": rng.random(14), "nan_policy": "omit"},
    }  # fmt: skip
    if choices[kind].get("nan_policy") == "omit":
        x[rng.random(SHAPE) < 0.2] = np.nan
    return choices[kind]


def mapped(tmp_path, name, array):
    np.save(tmp_path / f"{name}.npy", array)
    return np.load(tmp_path / f"{name}.npy", mmap_mode="r")


@pytest.fixture(params=["path", "memmap", "array", "chunks"])
def as_source(request, tmp_path):
    def make(x):
        if request.param == "chunks":
            return [x[:2], x[2:2], x[2:3], x[3:]]
        if request.param == "array":
            return x
        array = mapped(tmp_path, "big", x)
        return tmp_path / "big.npy" if request.param == "path" else array

    return make


def assert_moments(used, expected):
    assert used.shape == expected.shape
    np.testing.assert_allclose(used.count, expected.count, rtol=1e-15)
    np.testing.assert_allclose(used.mean, expected.mean, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(used.m2, expected.m2, rtol=2e-14, atol=1e-14)
    assert (used._weight2 is None) == (expected._weight2 is None)
    if expected._weight2 is not None:
        np.testing.assert_allclose(used.weight2, expected.weight2, rtol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", "CF")
def test_moments(as_source, rng, tmp_path, kind, order):
    x = np.asarray(rng.normal(1e4, 2, SHAPE), order=order)
    options = selection(kind, rng, x)
    for keepdims, chunk_bytes in ((False, 1), (True, 300), (False, 1 << 20)):
        expected = anynorm.moments(x, (0, 2), keepdims=keepdims, **options)
        used = stream.moments(as_source(x), (0, 2), keepdims=keepdims, chunk_bytes=chunk_bytes, **options)
        assert_moments(used, expected)
        maps = {
            name: mapped(tmp_path, name, each) if isinstance(each, np.ndarray) else each
            for name, each in options.items()
        }
        again = stream.moments(as_source(x), (0, 2), keepdims=keepdims, chunk_bytes=chunk_bytes, **maps)
        assert cases.same_moments(used, again)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", "CF")
def test_normalize(as_source, rng, tmp_path, kind, order):
    x = np.asarray(rng.normal(3, 2, SHAPE), order=order)
    options = {**selection(kind, rng, x), "weight": rng.normal(size=(5, 1)), "eps": 1e-3}
    for excluded, chunk_bytes in (("zero", 1), ("input", 300), ("zero", 1 << 20)):
        expected = anynorm.normalize(x, (0, 2), excluded=excluded, **options)
        y = stream.normalize(
            as_source(x), (0, 2), tmp_path / "out.npy", chunk_bytes=chunk_bytes, excluded=excluded, **options
        )
        np.testing.assert_allclose(y, expected, rtol=2e-14, atol=2e-14)
    parts = stream.normalize_chunks([x[:5], x[5:]], (0, 2), excluded="input", **options)
    expected = anynorm.normalize(x, (0, 2), excluded="input", **options)
    np.testing.assert_allclose(np.concatenate(list(parts)), expected, rtol=2e-14, atol=2e-14)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_dtype(rng, tmp_path, dtype):
    x = rng.normal(3, 2, SHAPE).astype(dtype)
    where, ids = rng.random(SHAPE) < 0.6, np.array([0, 1, 1, 0, -1, 1])
    for options in ({"where": where}, {"labels": ids}, {"sample_weight": rng.random(SHAPE)}):
        y = stream.normalize(x, 2, tmp_path / "out.npy", chunk_bytes=64, **options)
        expected = anynorm.normalize(x, 2, **options)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14 if dtype == np.float64 else 8 * np.finfo(dtype).eps)
    used = stream.moments(x, 0, labels=np.arange(14) % 3, chunk_bytes=64)
    y = stream.normalize(x, 0, tmp_path / "out.npy", labels=np.arange(14) % 3, chunk_bytes=64)
    assert cases.same_bits(y, anynorm.normalize(x, 0, labels=np.arange(14) % 3, moments=used))
    given = stream.normalize(x, 0, tmp_path / "out.npy", labels=np.arange(14) % 3, moments=used, chunk_bytes=64)
    assert cases.same_bits(given, y)


def test_keep_leaves_an_array_alone(rng):
    x, where = rng.normal(size=SHAPE), rng.random(SHAPE) < 0.5
    out, expected = np.full(SHAPE, 7.0), np.full(SHAPE, 7.0)
    stream.normalize(x, 0, out, where=where, excluded="keep", chunk_bytes=300)
    anynorm.normalize(x, 0, where=where, excluded="keep", out=expected)
    np.testing.assert_allclose(out, expected, rtol=1e-14, atol=1e-14)


def test_many_chunks_cost_no_digits():
    rng = np.random.default_rng(3)
    x, ids, weight = rng.normal(1e8, 1, 20_000), rng.integers(0, 3, 20_000), rng.random(20_000)
    used = stream.moments(x, labels=ids, sample_weight=weight, chunk_bytes=32)
    for group in range(3):
        w, own = weight[ids == group].astype(np.longdouble), x[ids == group].astype(np.longdouble)
        mean = (w * own).sum() / w.sum()
        assert abs(used.count[group] / w.sum() - 1) < 1e-15
        assert abs(used.mean[group] + used.mean_low[group] - mean) < 1e-14 * 1e8
        assert abs(used.m2[group] / (w * (own - mean) ** 2).sum() - 1) < 1e-13


def test_statistics_go_on_and_remember_what_they_are_of(rng, tmp_path):
    x, ids, where = rng.normal(size=(400, 6)), rng.integers(0, 4, 400), rng.random((400, 1)) < 0.7
    options = {"labels": ids, "where": where, "nan_policy": "omit", "chunk_bytes": 1_000}
    file = tmp_path / "stats.npz"
    expected = stream.moments(x, 0, **options)

    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream.moments(x, 0, statistics=file, progress=stop, **options)
    with pytest.raises(ValueError, match="expected finished statistics"):
        stream.load_moments(file)
    other = ids.copy()
    other[7] += 1
    for change in ({"labels": other}, {"labels": None}, {"where": ~where}, {"where": None}, {"nan_policy": "propagate"},
                   {"num_groups": 9}, {"sample_weight": np.ones(400)}):  # fmt: skip
        with pytest.raises(ValueError, match="of other data"):
            stream.moments(x, 0, statistics=file, **(options | change))
    assert cases.same_moments(stream.moments(x, 0, statistics=file, **options), expected)
    assert cases.same_moments(stream.load_moments(file), expected)
    y = stream.normalize(x, 0, np.empty_like(x), statistics=file, **options)
    np.testing.assert_allclose(y, anynorm.normalize(x, 0, labels=ids, where=where), rtol=1e-13, atol=1e-14)
    with pytest.raises(ValueError, match="of other data"):
        stream.moments(x, 0, statistics=file)


def test_keys_and_the_group_nobody_is_in(rng):
    x = rng.normal(size=(9, 2))
    keys = np.array(["b", "a", "b", "c", "a", "b", "c", "a", "b"])
    assert_moments(stream.moments(x, 0, labels=keys, chunk_bytes=1), anynorm.moments(x, 0, labels=keys))
    codes = anynorm.codes(keys)
    assert_moments(stream.moments(x, 0, labels=codes, chunk_bytes=1), anynorm.moments(x, 0, labels=codes))
    used = stream.moments(x, 0, labels=np.zeros(9, int), num_groups=2, chunk_bytes=1)
    assert used.count.tolist() == [[9, 9], [0, 0]]
    assert np.isnan(used.mean[1]).all()


@pytest.mark.slow  # under a sanitizer, which leaves slow tests out, the memory would be its own
def test_constant_memory(tmp_path):
    """A mask of the size of the data, mapped: neither grows with the file."""
    code = """
import sys
import numpy as np
from anynorm import stream
rows = int(sys.argv[2])
for name, dtype in (("x", np.float32), ("where", np.bool_), ("ids", np.int32)):
    shape = (rows,) if name == "ids" else (rows, 64)
    out = np.lib.format.open_memmap(f"{sys.argv[1]}/{name}.npy", "w+", dtype, shape)
    out[:] = 1
    del out
x, where, ids = (np.load(f"{sys.argv[1]}/{name}.npy", mmap_mode="r") for name in ("x", "where", "ids"))
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
stream.normalize(x, 0, f"{sys.argv[1]}/out.npy", labels=ids, where=where, chunk_bytes=1 << 20, num_threads=1)
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs Linux")
    peaks = []
    for rows in (20_000, 200_000):
        run = subprocess.run(
            [sys.executable, "-c", code, tmp_path, str(rows)], capture_output=True, text=True, check=True, timeout=300
        )
        peaks.append(int(run.stdout))
    assert peaks[1] - peaks[0] < 12_000, "kilobytes; the data grows by 46 MB, the mask by 12"


X = np.ones((6, 4), np.float32)
ERRORS = {
    "labels": ({"labels": [0, 1]}, ValueError, "stream.moments: expected labels of shape (6,), as the first reduced axes of (6, 4), got (2,)"),
    "labels_float": ({"labels": np.ones(6)}, TypeError, "stream.moments: expected labels of integers"),
    "labels_large": ({"labels": [9] * 6, "num_groups": 3}, ValueError, "labels below num_groups"),
    "groups": ({"num_groups": 3}, ValueError, "stream.moments: expected num_groups with labels"),
    "where": ({"where": np.ones((6, 3), bool)}, ValueError, "stream.moments: expected where that broadcasts to (6, 4), got (6, 3)"),
    "where_float": ({"where": np.ones((6, 4))}, TypeError, "stream.moments: expected where of dtype bool"),
    "weights": ({"sample_weight": -np.ones(6)}, ValueError, "expected sample_weight that is finite and at least 0"),
    "policy": ({"nan_policy": "drop"}, ValueError, "expected nan_policy to be 'propagate', 'omit' or 'raise', got 'drop'"),
}  # fmt: skip


@pytest.mark.parametrize("options, error, message", ERRORS.values(), ids=ERRORS.keys())
def test_errors(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        stream.moments(X, 0, chunk_bytes=32, **options)


def test_lengths_that_only_the_end_knows(tmp_path):
    chunks = [np.ones((2, 3)), np.ones((2, 3))]
    for n in (3, 5):
        with pytest.raises(ValueError, match=f"expected data of {n} rows as labels has, got"):
            stream.moments(chunks, 0, labels=np.zeros(n, int))
        with pytest.raises(ValueError, match=f"expected data of {n} rows as where has, got"):
            stream.normalize(chunks, 0, tmp_path / "out.npy", where=np.ones((n, 1), bool))
        with pytest.raises(ValueError, match=f"expected data of {n} rows as where has, got"):
            list(stream.normalize_chunks(chunks, 1, where=np.ones((n, 1), bool)))
    assert not (tmp_path / "out.npy").exists()


def test_refusals_leave_no_output(tmp_path):
    x = np.ones((6, 4))
    x[5, 0] = math.nan
    with pytest.raises(ValueError, match="expected x without NaN where nan_policy is 'raise', got 1"):
        stream.normalize(x, 0, tmp_path / "out.npy", nan_policy="raise", chunk_bytes=32)
    with pytest.raises(ValueError, match="expected excluded to be 'zero' or 'input' for a new file, got 'keep'"):
        stream.normalize(x, 0, tmp_path / "out.npy", excluded="keep")
    with pytest.raises(ValueError, match="expected excluded to be 'zero' or 'input' for new arrays, got 'keep'"):
        stream.normalize_chunks([x], 0, excluded="keep")
    with pytest.raises(ValueError, match="moments of shape"):
        stream.normalize(x, 0, tmp_path / "out.npy", labels=[0, 1] * 3, moments=anynorm.moments(x, 0))
    assert not list(tmp_path.iterdir())


def test_command(tmp_path, rng):
    x, ids, where = rng.normal(size=(50, 4)), rng.integers(-1, 3, 50), rng.random((50, 4)) < 0.8
    weight = rng.random(50)
    x[3, 1] = math.nan
    for name, array in {"big": x, "ids": ids, "mask": where, "w": weight}.items():
        np.save(tmp_path / f"{name}.npy", array)
    chosen = ["--labels", "ids.npy", "--where", "mask.npy", "--sample-weight", "w.npy", "--nan-policy", "omit"]
    options = {"labels": ids, "where": where, "sample_weight": weight, "nan_policy": "omit"}

    def run(*words):
        command = [sys.executable, "-m", "anynorm", *words, "--axis", "0", "--chunk-bytes", "256"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)

    for _ in range(2):  # again from the file
        assert run("moments", "big.npy", "-o", "stats.npz", *chosen).returncode == 0
        assert_moments(stream.load_moments(tmp_path / "stats.npz"), anynorm.moments(x, 0, **options))
    refused = run("moments", "big.npy", "-o", "stats.npz", *chosen[2:])
    assert refused.returncode == 1
    assert "of other data (its labels, num_groups differ)" in refused.stderr
    done = run("normalize", "big.npy", "-o", "out.npy", "--statistics", "stats.npz", "--excluded", "input", *chosen)
    assert (done.returncode, done.stderr) == (0, "")
    expected = anynorm.normalize(x, 0, excluded="input", **options)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-13, atol=1e-14)
