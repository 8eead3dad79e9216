# SPDX-License-Identifier: Apache-2.0
"""Files, memory maps and chunks give what arrays in memory give, with constant memory, or a clear refusal."""

import json
import os
from fractions import Fraction
from pathlib import Path

import cases
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import anynorm
from anynorm import stream

SHAPE = (7, 5, 6)
AXES = [0, 1, -1, (0, 2), (1, 2), None, ()]
DTYPES = ["float16", "bfloat16", "float32", "float64"]


def of_dtype(x, name):
    if name == "bfloat16":
        return x.astype(pytest.importorskip("ml_dtypes").bfloat16)
    return x.astype(name)


@pytest.fixture
def save(tmp_path):
    def write(x, name="big.npy"):
        np.save(tmp_path / name, x)
        return tmp_path / name

    return write


@pytest.fixture(params=["path", "memmap", "array", "chunks"])
def as_source(request, save):
    """Turns an array into what is streamed."""

    def make(x):
        if request.param == "chunks":
            return [x[:2], x[2:2], x[2:3], x[3:]]
        if request.param == "array":
            return x
        path = save(x)
        return path if request.param == "path" else np.load(path, mmap_mode="r").view(x.dtype)

    return make


def assert_close(used, expected):
    assert used.shape == np.shape(expected.mean)
    assert np.array_equal(used.count, expected.count)
    np.testing.assert_allclose(used.mean, expected.mean, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(used.var(), expected.var() if callable(expected.var) else expected.var, rtol=2e-14)


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("order", "CF")
def test_moments(as_source, rng, axis, order):
    x = np.asarray(rng.normal(3, 2, SHAPE), order=order)
    for keepdims, chunk_bytes in ((False, 1), (True, 200), (False, 1 << 20)):
        used = stream.moments(as_source(x), axis, keepdims=keepdims, chunk_bytes=chunk_bytes)
        assert_close(used, reference.moments(x, axis, keepdims=keepdims))


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("order", "CF")
def test_normalize(as_source, rng, tmp_path, axis, order):
    x = np.asarray(rng.normal(3, 2, SHAPE), order=order)
    options = {"weight": rng.normal(size=(5, 1)), "bias": rng.normal(size=6).astype(np.float32), "eps": 1e-3}
    for number, chunk_bytes in enumerate((1, 200, 1 << 20)):
        out = tmp_path / f"out{number}.npy"
        y = stream.normalize(as_source(x), axis, out, chunk_bytes=chunk_bytes, **options)
        np.testing.assert_allclose(y, reference.normalize(x, axis, **options), rtol=2e-14, atol=2e-14)
        assert not y.flags.writeable
        assert np.array_equal(np.load(out), y)
    assert not list(tmp_path.glob(".*")), "a temporary file is left"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", "CF")
def test_every_dtype_has_the_bits_of_the_call_in_memory(save, rng, tmp_path, dtype, order):
    x = np.asarray(of_dtype(rng.normal(3, 2, SHAPE), dtype), order=order)
    path = save(x)
    split, whole = (0, 2) if order == "C" else (2, 0)
    used = stream.moments(path, split, chunk_bytes=64)
    assert_close(used, anynorm.moments(x, split))
    y = stream.normalize(path, split, tmp_path / "out.npy", chunk_bytes=64)
    assert cases.same_bits(y, anynorm.normalize(x, split, moments=used))
    assert y.flags.f_contiguous == (order == "F")
    y = stream.normalize(path, whole, tmp_path / "out.npy", chunk_bytes=64)
    assert cases.same_bits(y, anynorm.normalize(x, whole)), "sets within a chunk are normalized as in memory"
    for wanted in DTYPES:
        y = stream.normalize(path, split, tmp_path / "out.npy", chunk_bytes=64, dtype=wanted)
        assert cases.same_bits(y, anynorm.normalize(x, split, moments=used, dtype=wanted))


@pytest.mark.parametrize("axis", [0, 1], ids=["split", "whole"])
def test_without_centering_it_is_rms_norm(save, rng, tmp_path, axis):
    x = rng.normal(3, 2, (50, 6))
    y = stream.normalize(save(x), axis, tmp_path / "out.npy", center=False, eps=1e-3, chunk_bytes=100)
    np.testing.assert_allclose(y, reference.normalize(x, axis, center=False, eps=1e-3), rtol=1e-14)


def test_given_moments(as_source, rng, tmp_path):
    x, other = rng.normal(3, 2, SHAPE), anynorm.moments(rng.normal(1, 4, SHAPE), (0, 2), keepdims=True)
    expected = anynorm.normalize(x, (0, 2), moments=other)
    for moments in (other, other[0, :, 0]):
        y = stream.normalize(as_source(x), (0, 2), tmp_path / "out.npy", moments=moments, chunk_bytes=99)
        assert cases.same_bits(y, expected)


def test_bits_do_not_depend_on_threads(save, rng, tmp_path):
    path = save(rng.normal(3, 2, (4_000, 96)).astype(np.float32))
    one, two = (stream.moments(path, 0, chunk_bytes=1 << 18, num_threads=n) for n in (1, 2))
    assert cases.same_moments(one, two)
    one = np.array(stream.normalize(path, 0, tmp_path / "out.npy", chunk_bytes=1 << 18, num_threads=1))
    assert cases.same_bits(one, stream.normalize(path, 0, tmp_path / "out.npy", chunk_bytes=1 << 18, num_threads=2))


def test_many_chunks_cost_no_digits():
    """Five thousand merges one after the other, against exact arithmetic."""
    x = np.random.default_rng(3).normal(50, 1, (5_000, 3))
    used, exact = stream.moments(x, chunk_bytes=24), reference.exact_moments(x)
    assert abs(Fraction(float(used.m2)) / exact.m2 - 1) < 1e-15
    assert abs(Fraction(float(used.mean)) / exact.mean - 1) < 2e-16


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=9).filter(any),
    st.sampled_from([0.0, -3.0, 1e4, 1e8]),
    st.sampled_from([None, np.nan, np.inf]),
    st.integers(0, 2**32 - 1),
)
def test_any_chunks_are_the_whole(lengths, mean, spoiler, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(mean, 1, (sum(lengths), 2))
    if spoiler is not None:
        x[rng.integers(len(x)), 0] = spoiler
    parts = np.split(x, np.cumsum(lengths)[:-1])
    used, whole = stream.moments(parts, 0), anynorm.moments(x, 0)
    assert np.array_equal(used.count, whole.count)
    np.testing.assert_allclose(used.mean, whole.mean, rtol=1e-15, atol=1e-14)
    np.testing.assert_allclose(used.var(), whole.var(), rtol=3e-14, atol=1e-28)
    y = np.concatenate(list(stream.normalize_chunks(parts, 0)))
    np.testing.assert_allclose(y, anynorm.normalize(x, 0), rtol=1e-13, atol=1e-13)
    y = np.concatenate(list(stream.normalize_chunks(iter(parts), 0, moments=used)))
    assert np.array_equal(y, anynorm.normalize(x, 0, moments=used), equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)], ids=str)
def test_no_elements(save, tmp_path, shape):
    path = save(np.empty(shape))
    for axis in (0, 1):
        assert stream.moments(path, axis) == anynorm.moments(np.empty(shape), axis)
        assert stream.normalize(path, axis, tmp_path / "out.npy").shape == shape


# --- chunks ----------------------------------------------------------------------------------------------------------


def test_chunks_of_a_function_are_read_twice(rng):
    x = rng.normal(3, 2, (20, 3))
    calls = []

    def chunks():
        calls.append(1)
        yield from np.array_split(x, 6)

    y = list(stream.normalize_chunks(chunks, 0, dtype=np.float32))
    assert [len(part) for part in y] == [4, 4, 3, 3, 3, 3]
    assert cases.same_bits(np.concatenate(y), anynorm.normalize(x, 0, moments=stream.moments(chunks, 0), dtype="f4"))


def test_an_iterator_is_read_once(rng, tmp_path):
    x = rng.normal(3, 2, (20, 3))
    assert_close(stream.moments(iter(np.array_split(x, 6)), 0), anynorm.moments(x, 0))
    y = stream.normalize((part for part in np.array_split(x, 6)), 1, tmp_path / "out.npy")
    assert cases.same_bits(y, anynorm.normalize(x, 1))
    with pytest.raises(ValueError, match="can be iterated twice, got an iterator"):
        stream.normalize(iter([x]), 0, tmp_path / "not.npy")
    assert not (tmp_path / "not.npy").exists()


@pytest.mark.parametrize("wrong", ["big.npy", Path("big.npy"), np.ones((4, 3))], ids=["str", "path", "array"])
def test_only_chunks_are_chunks(wrong):
    with pytest.raises(TypeError, match=r"stream.normalize_chunks: expected an iterable of chunks, got"):
        stream.normalize_chunks(wrong, 0)


def test_a_chunk_that_differs_leaves_no_output(rng, tmp_path):
    x = rng.normal(3, 2, (20, 3))
    for wrong in (x[:, :2], x.astype(np.float32), x[0]):
        with pytest.raises(
            ValueError, match=r"stream.normalize: expected chunk 1 of shape \(any, 3\) and dtype float64"
        ):
            stream.normalize([x, wrong], 1, tmp_path / "out.npy")
    assert not list(tmp_path.iterdir())


# --- where results go ------------------------------------------------------------------------------------------------


def test_into_an_array(rng):
    x = rng.normal(3, 2, (40, 5))
    expected = anynorm.normalize(x, 0, moments=stream.moments(x, 0, chunk_bytes=100))
    out = np.full((40, 10), np.nan)[:, ::2]
    assert stream.normalize(x, 0, out, chunk_bytes=100) is out
    assert cases.same_bits(out, expected)
    assert stream.normalize(x, 0, x, chunk_bytes=100) is x
    assert cases.same_bits(x, expected)


def test_an_output_is_replaced_when_all_is_done(save, rng, tmp_path):
    x, out = rng.normal(3, 2, (40, 5)), tmp_path / "out.npy"
    out.write_bytes(b"before")
    link = tmp_path / "link.npy"
    link.symlink_to(out)

    def look(done, total):
        assert out.read_bytes() == b"before"

    stream.normalize(save(x), 0, link, chunk_bytes=100, progress=look)
    assert link.is_symlink()
    assert np.load(out).shape == x.shape
    plain = tmp_path / "plain"
    plain.touch()
    assert out.stat().st_mode == plain.stat().st_mode, "permissions are those of any new file"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_whatever_happens_no_half_of_an_output_is_left(save, rng, tmp_path, error):
    path = save(rng.normal(3, 2, (40, 5)))
    calls = []

    def stop(done, total):
        calls.append(done)
        if len(calls) == 3:
            raise error

    for axis in (0, 1):
        calls.clear()
        with pytest.raises(error):
            stream.normalize(path, axis, tmp_path / "out.npy", chunk_bytes=100, progress=stop)
    assert [file.name for file in tmp_path.iterdir()] == ["big.npy"]


FULL = """
import resource, numpy as np
from anynorm import stream
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # writing beyond fails, as on a full disk
x = np.ones((1000, 20))
for source in (x, [x[:300], x[300:]]):
    try:
        stream.normalize(source, 0, "out.npy")
    except OSError as error:
        print(error)
"""


def test_a_full_disk(run_python, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known, unknown = run_python(FULL).splitlines()
    assert known == "[Errno 27] no room for 160128 bytes: File too large: 'out.npy'"
    assert unknown == "[Errno 27] File too large: 'out.npy'"
    assert not list(tmp_path.iterdir())


# --- refusals --------------------------------------------------------------------------------------------------------


def cut_off(path):
    os.truncate(path, path.stat().st_size - 1)


REFUSED = {
    "truncated": (cut_off, ValueError, "big.npy is truncated: expected 1728 bytes, got 1727"),
    "header only": (lambda path: os.truncate(path, 60), ValueError, "expected a .npy file, got .*big.npy"),
    "empty": (lambda path: os.truncate(path, 0), ValueError, "expected a .npy file, got .*big.npy"),
    "text": (lambda path: path.write_text("1,2\n" * 50), ValueError, "expected a .npy file, got .*big.npy"),
    "integers": (lambda path: np.save(path, np.arange(6)), TypeError, "or float64, got int64"),
    "swapped": (lambda path: np.save(path, np.ones(6, ">f4")), TypeError, "got >f4 .of another byte order"),
    "objects": (lambda path: np.save(path, np.array([None])), TypeError, "got object"),
    "records": (lambda path: np.save(path, np.zeros(3, "f4,f4")), TypeError, "got void64"),
    "scalar": (lambda path: np.save(path, 3.0), ValueError, "at least one axis, got a scalar"),
    "missing": (Path.unlink, FileNotFoundError, "big.npy"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), OSError, "big.npy"),
}


@pytest.mark.parametrize("change, error, message", REFUSED.values(), ids=REFUSED)
def test_files_that_are_refused(save, rng, tmp_path, change, error, message):
    path = save(rng.normal(3, 2, (40, 5)))
    change(path)
    before = sorted(tmp_path.iterdir())
    for call in (lambda: stream.moments(path), lambda: stream.normalize(path, None, tmp_path / "out.npy")):
        with pytest.raises(error, match=message):
            call()
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_shrinks_meanwhile(save, rng, tmp_path):
    path = save(rng.normal(3, 2, (40, 5)))
    with pytest.raises(ValueError, match=r"big\.npy was truncated while it was read"):
        stream.normalize(path, 0, tmp_path / "out.npy", chunk_bytes=100, progress=lambda *_: os.truncate(path, 900))
    assert [file.name for file in tmp_path.iterdir()] == ["big.npy"]


@pytest.mark.parametrize("axis", [0, 1], ids=["first pass", "second pass"])
def test_a_file_that_changes_meanwhile(save, rng, tmp_path, axis):
    path = save(rng.normal(3, 2, (40, 5)))
    with pytest.raises(ValueError, match=r"big\.npy was changed while it was read"):
        stream.normalize(path, axis, tmp_path / "out.npy", chunk_bytes=100, progress=lambda *_: os.utime(path, (1, 1)))
    assert [file.name for file in tmp_path.iterdir()] == ["big.npy"]


X = np.ones((40, 5))


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"axis": 2}, ValueError, "axis from -2 to 1, got 2"),
        ({"axis": (0, -2)}, ValueError, "axis 0 twice"),
        ({"axis": 1.0}, TypeError, "float"),
        ({"weight": np.ones(4)}, ValueError, r"weight that broadcasts to \(40, 5\), got \(4,\)"),
        ({"bias": np.ones((1, 40, 5))}, ValueError, r"bias that broadcasts"),
        ({"weight": np.ones(5, int)}, TypeError, "weight"),
        ({"eps": -1.0}, ValueError, "eps"),
        ({"dtype": "int32"}, (TypeError, ValueError), "dtype"),
        ({"moments": 3.0}, TypeError, "moments of type anynorm.Moments, got float"),
        ({"moments": anynorm.Moments.empty(4)}, ValueError, r"moments of shape \(5,\), got \(4,\)"),
        ({"moments": anynorm.Moments.empty(5), "statistics": "s.npz"}, ValueError, "moments or statistics, got both"),
        ({"chunk_bytes": 0}, ValueError, "chunk_bytes of at least 1, got 0"),
        ({"source": 3}, TypeError, "a path, an array or an iterable of chunks, got int"),
        ({"source": []}, ValueError, "at least one chunk, got none"),
        ({"source": [1.0]}, ValueError, "chunks of at least one axis"),
        ({"source": np.ma.masked_array(X)}, TypeError, "without a mask"),
        ({"source": [X], "statistics": "s.npz"}, ValueError, "got an iterable of chunks"),
        ({"out": X[:3]}, ValueError, r"out of shape \(40, 5\), got \(3, 5\)"),
        ({"out": X[::-1]}, ValueError, "got an overlap"),
        ({"out": np.ones((40, 5)), "dtype": "f4"}, TypeError, "out of dtype float32, got float64"),
        ({"out": "."}, ValueError, "a file to write to"),
        ({"out": "missing/out.npy"}, FileNotFoundError, "'missing/out.npy'"),
        ({"out": "s.npz", "statistics": "s.npz"}, ValueError, "another file as out than statistics"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_that_are_refused(tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    before = X.copy()
    with pytest.raises(error, match=message):
        stream.normalize(**{"source": X, "axis": 0, "out": "out.npy", **options})
    assert not list(tmp_path.iterdir())
    assert np.array_equal(X, before)


def test_an_input_is_not_an_output(save, rng, tmp_path):
    path = save(rng.normal(3, 2, (40, 5)))
    hard = tmp_path / "hard.npy"
    hard.hardlink_to(path)
    for source in (path, np.load(path, mmap_mode="r")):
        for out in (path, str(path), hard):
            with pytest.raises(ValueError, match="another file as out than source"):
                stream.normalize(source, 0, out)


def test_it_is_imported_when_it_is_used(run_python):
    code = "import sys, anynorm; a = 'anynorm.stream' in sys.modules; print(a, anynorm.stream.moments([[1.0]]).count)"
    assert run_python(code) == "False 1.0"


# --- memory ----------------------------------------------------------------------------------------------------------

CONSTANT = """
import json, numpy as np
from anynorm import stream

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

extra = {}
for size in (4, 32):
    file = np.lib.format.open_memmap(f"big{size}.npy", "w+", np.float32, (size << 12, 64))
    file[:] = 1
    del file
for size in (4, 32):
    for kind in ("path", "memmap"):
        source = f"big{size}.npy" if kind == "path" else np.load(f"big{size}.npy", mmap_mode="r")
        stream.normalize(source, 0, "out.npy", chunk_bytes=1 << 18, num_threads=1)
        with open("/proc/self/clear_refs", "w") as control:
            control.write("5")
        before = peak()
        stream.normalize(source, 0, "out.npy", chunk_bytes=1 << 18, num_threads=1)
        extra[f"{kind} {size}"] = peak() - before
print(json.dumps(extra))
"""


@pytest.mark.slow  # under a sanitizer, which leaves slow tests out, the memory would be its own
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured through Linux's /proc")
def test_memory_is_constant(run_python, tmp_path, monkeypatch):
    """Files of 4 and 32 MiB in chunks of a quarter of a MiB."""
    monkeypatch.chdir(tmp_path)
    extra = json.loads(run_python(CONSTANT))
    assert max(extra.values()) < 2 << 20, extra
