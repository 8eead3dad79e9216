# SPDX-License-Identifier: Apache-2.0
"""The statistics file: what is interrupted goes on, what is finished serves other data, what is of other data is
refused. And the commands that write it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cases
import numpy as np
import pytest

import anynorm
from anynorm import stream
from anynorm.__main__ import main
from anynorm.stream import _accumulator, _statistics_file
from anynorm.stream._sources import FileSource

CHUNK = 1_000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def x(folder, rng):
    x = rng.normal(3, 2, (600, 5)).astype(np.float32)
    np.save("big.npy", x)
    return x


@pytest.fixture
def reads(monkeypatch):
    """The slabs that are read from files."""
    seen = []
    original = FileSource._read

    def read(self, slab, data):
        seen.append(slab.start)
        original(self, slab, data)

    monkeypatch.setattr(FileSource, "_read", read)
    return seen


def interrupt_after(count):
    calls = iter(range(count))

    def stop(done, total):
        if next(calls, None) is None:
            raise KeyboardInterrupt

    return stop


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["path", "memmap"])
def test_an_interrupted_sum_goes_on(x, reads, kind):
    def source():
        return "big.npy" if kind == "path" else np.load("big.npy", mmap_mode="r")

    whole = stream.moments(source(), 0, chunk_bytes=CHUNK)
    reads.clear()
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            stream.moments(source(), 0, statistics="s.npz", chunk_bytes=CHUNK, progress=interrupt_after(3))
        with pytest.raises(ValueError, match=r"expected finished statistics, got s\.npz with \d+% of the data"):
            stream.load_moments("s.npz")
    again = stream.moments(source(), 0, statistics="s.npz", chunk_bytes=CHUNK)
    assert cases.same_moments(again, whole), "bits are those of an uninterrupted run"
    if kind == "path":
        # A chunk that was read when the interruption came is read again.
        assert sorted(set(reads)) == list(range(0, 3000, 250))
        assert len(reads) <= 12 + 3
    assert stream.load_moments("s.npz") == whole


def test_finished_statistics_are_not_summed_again(x, reads, folder):
    first = np.array(stream.normalize("big.npy", 0, "out.npy", statistics="s.npz", chunk_bytes=CHUNK))
    assert len(reads) == 24
    with pytest.raises(KeyboardInterrupt):
        stream.normalize("big.npy", 0, "no.npy", statistics="s.npz", chunk_bytes=CHUNK, progress=interrupt_after(5))
    assert names(folder) == ["big.npy", "out.npy", "s.npz"]
    reads.clear()
    again = stream.normalize("big.npy", 0, "out.npy", statistics="s.npz", chunk_bytes=CHUNK)
    assert len(reads) == 12
    assert cases.same_bits(again, first)
    assert cases.same_bits(first, anynorm.normalize(x, 0, moments=stream.load_moments("s.npz")))
    larger = stream.normalize("big.npy", 0, "out.npy", statistics="s.npz", chunk_bytes=2 * CHUNK)
    assert cases.same_bits(larger, first), "finished statistics do not depend on how the rest is read"


def test_other_chunks_begin_anew(x):
    with pytest.raises(KeyboardInterrupt):
        stream.moments("big.npy", 0, statistics="s.npz", chunk_bytes=CHUNK, progress=interrupt_after(3))
    used = stream.moments("big.npy", 0, statistics="s.npz", chunk_bytes=2 * CHUNK)
    assert cases.same_moments(used, stream.moments("big.npy", 0, chunk_bytes=2 * CHUNK))


def touched(x):
    os.utime("big.npy", (1, 1))


def changed(x):
    before = Path("big.npy").stat()
    y = x.copy()
    y[300] += 1
    np.save("big.npy", y)
    os.utime("big.npy", ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change, axis, what",
    [
        (touched, 0, "mtime_ns"),
        (changed, 0, "fingerprint"),
        (lambda x: np.save("big.npy", x[:-1]), 0, "shape, fingerprint, size, mtime_ns"),
        (lambda x: np.save("big.npy", np.asfortranarray(x)), 0, "order, fingerprint, mtime_ns"),
        (lambda x: None, 1, "axis"),
    ],
    ids=["touched", "changed", "shorter", "order", "axis"],
)
@pytest.mark.parametrize("complete", [False, True], ids=["unfinished", "finished"])
def test_statistics_of_other_data_are_refused(x, folder, change, axis, what, complete):
    progress = None if complete else interrupt_after(3)
    with contextlib.nullcontext() if complete else pytest.raises(KeyboardInterrupt):
        stream.moments("big.npy", 0, statistics="s.npz", chunk_bytes=CHUNK, progress=progress)
    before = Path("s.npz").read_bytes()
    change(x)
    message = rf"stream.normalize: expected statistics of this data, got s.npz of other data \(its {what} differ\)"
    with pytest.raises(ValueError, match=message):
        stream.normalize("big.npy", axis, "out.npy", statistics="s.npz", chunk_bytes=CHUNK)
    assert Path("s.npz").read_bytes() == before
    assert names(folder) == ["big.npy", "s.npz"]


def test_a_moved_file_is_the_same_data(x):
    used = stream.moments("big.npy", 0, statistics="s.npz")
    Path("big.npy").rename("moved.npy")
    assert stream.moments("moved.npy", 0, statistics="s.npz", chunk_bytes=77) == used


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", None], ids=["empty", "zip", "text", "npy"])
def test_what_is_no_statistics_file_is_refused(x, content):
    if content is None:
        Path("s.npz").write_bytes(Path("big.npy").read_bytes())
    else:
        Path("s.npz").write_bytes(content)
    for call in (lambda: stream.load_moments("s.npz"), lambda: stream.moments("big.npy", 0, statistics="s.npz")):
        with pytest.raises(ValueError, match=r"expected a statistics file.* got s\.npz"):
            call()
    np.savez("s.npz", count=1, mean=1, m2=1, about="lunch")
    with pytest.raises(ValueError, match="about something else"):
        stream.load_moments("s.npz")
    np.savez("s.npz", count=1)
    with pytest.raises(ValueError, match="count, mean and m2"):
        stream.load_moments("s.npz")


def test_moments_of_any_npz(x):
    np.savez("s.npz", count=3.0, mean=[1.0, 2.0], m2=[3.0, 4.0], weight2=5.0)
    assert stream.load_moments("s.npz") == anynorm.Moments(3, [1, 2], [3, 4], 5)
    with pytest.raises(ValueError, match=r"of other data \(its format, shape"):
        stream.moments("big.npy", 0, statistics="s.npz")


def test_they_are_saved_now_and_then(x, monkeypatch):
    monkeypatch.setattr(_statistics_file, "SAVE_SECONDS", 0)
    monkeypatch.setattr(_statistics_file, "SAVE_SHARE", 1e9)
    seen = []

    def look(done, total):
        about = json.loads(str(np.load("s.npz")["about"]))
        seen.append((done, 4 * about["done"]))

    stream.moments("big.npy", 0, statistics="s.npz", chunk_bytes=CHUNK, progress=look)
    assert [saved for _, saved in seen] == [0, *range(1000, 12_001, 1000)]


def test_statistics_that_cannot_be_written_are_known_before_the_work(x, reads, folder):
    with pytest.raises(FileNotFoundError, match=r"'missing/s\.npz'"):
        stream.normalize("big.npy", 0, "out.npy", statistics="missing/s.npz")
    assert not reads
    assert names(folder) == ["big.npy"]


# --- the commands ----------------------------------------------------------------------------------------------------


def test_commands(x, folder, capsys):
    weight = np.arange(1, 6, dtype=np.float32)
    np.save("w.npy", weight)
    assert main(["moments", "big.npy", "--axis", "0", "-o", "s.npz", "--chunk-bytes", "1K"]) == 0
    used = stream.load_moments("s.npz")
    assert used == stream.moments("big.npy", 0, chunk_bytes=1024)
    np.save("test.npy", x[::-1] + 1)
    words = "--axis 0 -o out.npy --moments s.npz --weight w.npy --bias w.npy --eps 0 --dtype float64 --num-threads 1"
    assert main(["normalize", "test.npy", *words.split()]) == 0
    expected = anynorm.normalize(x[::-1] + 1, 0, moments=used, weight=weight, bias=weight, eps=0, dtype=np.float64)
    assert cases.same_bits(np.load("out.npy"), expected)
    assert main(["normalize", "big.npy", "--axis=-1,-2", "-o", "out.npy", "--no-center", "--progress"]) == 0
    np.testing.assert_allclose(np.mean(np.load("out.npy") ** 2), 1, rtol=1e-6)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "normalizing [########################] 100%" in shown.err
    assert main(["normalize", "big.npy", "--axis", "all", "-o", "out.npy"]) == 0
    assert capsys.readouterr() == ("", "")
    assert names(folder) == ["big.npy", "out.npy", "s.npz", "test.npy", "w.npy"]


def test_the_commands_of_the_page(x, folder):
    np.save("test.npy", x[:7])
    ids, mask = np.arange(len(x)) % 3, x > x.min()
    np.save("ids.npy", ids)
    np.save("mask.npy", mask)
    page = Path(__file__).parents[2].joinpath("docs", "larger-than-memory.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:time )?python -m anynorm (.*)$", page, re.MULTILINE)
    assert {line.split()[0] for line in lines} == {"moments", "normalize"}
    for line in lines:
        assert main(line.split()) == 0
    assert cases.same_bits(np.load("test_out.npy"), anynorm.normalize(x[:7], 0, moments=anynorm.moments(x, 0)))
    assert cases.same_bits(stream.load_moments("by_label.npz").count, anynorm.moments(x, 0, labels=ids).count)
    expected = anynorm.normalize(x, 0, labels=ids, where=mask)
    np.testing.assert_allclose(np.load("by_label.npy"), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "words, message",
    [
        ("normalize missing.npy --axis 0 -o out.npy", "missing.npy: No such file or directory"),
        ("normalize cut.npy --axis 0 -o out.npy", "cut.npy is truncated: expected 12128 bytes, got 9000"),
        ("normalize ints.npy --axis 0 -o out.npy", "expected ints.npy of dtype .*, got int64"),
        ("normalize big.npy --axis 2 -o out.npy", "expected axis from -2 to 1, got 2"),
        ("normalize big.npy --axis 0 -o big.npy", "expected another file as out than source, got big.npy for both"),
        ("normalize big.npy --axis 0 -o missing/out.npy", "missing/out.npy: No such file or directory"),
        ("normalize big.npy --axis 0 -o .", "expected a file to write to, got ."),
        ("normalize big.npy --axis 0 -o out.npy --eps -1", "expected eps .*"),
        ("normalize big.npy --axis 0 -o out.npy --weight ints.npy", "expected weight that broadcasts to .*"),
        ("normalize big.npy --axis 0 -o out.npy --moments big.npy", "expected a statistics file, got big.npy"),
        ("moments cut.npy --axis 0 -o s.npz", "cut.npy is truncated: expected 12128 bytes, got 9000"),
        ("moments big.npy --axis 0 -o big.npy", "expected a statistics file, got big.npy"),
    ],
    ids=lambda text: text if " --axis" in text else "",
)
def test_one_line_says_what_is_wrong(x, folder, capsys, words, message):
    np.save("ints.npy", np.arange(7))
    Path("cut.npy").write_bytes(Path("big.npy").read_bytes()[:9000])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(words.split()) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(rf"python -m anynorm {words.split()[0]}: {message}\n", shown.err), shown.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("words", ["--axis x", "--axis 0 --chunk-bytes 3T", "--axis 0 --moments a --statistics b", ""])
def test_words_that_argparse_refuses(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["normalize", "big.npy", "-o", "out.npy", *words.split()])
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


def start(*words):
    command = [sys.executable, "-m", "anynorm", "normalize", "big.npy", "--axis", "0", "-o", "out.npy", *words]
    return subprocess.Popen(
        [*command, "--chunk-bytes=1K", "--num-threads=1", "--progress"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  as in the foreground
    )


def stop_when(process, word, number):
    """Send a signal as soon as the progress says a word; the rest of what it says, and its exit status."""
    shown = ""
    while word not in shown:
        character = process.stderr.read(1)
        assert character, shown
        shown += character
    process.send_signal(number)
    rest = process.communicate(timeout=60)[1]
    return rest.splitlines()[-1], process.returncode


@pytest.fixture
def interruptible():
    """As in the foreground: a shell has background jobs ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signal_in_the_middle_of_a_sum(folder, rng, monkeypatch, number):
    """It waits for the end of the sum: what is saved is whole, and goes on to the bits of an undisturbed run."""
    np.save("big.npy", rng.normal(3, 2, (1000, 8)))
    merge, calls = _accumulator._merge, []

    def interrupted(*sums):
        calls.append(None)
        if len(calls) == 5:
            signal.raise_signal(number)
        merge(*sums)

    words = ["moments", "big.npy", "--axis", "0", "-o", "s.npz", "--chunk-bytes=1K"]
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(_accumulator, "_merge", interrupted)
        if number == signal.SIGTERM:
            with pytest.raises(SystemExit, match="143"):
                main(words)
        else:
            assert main(words) == 130
    assert len(calls) == 5
    assert signal.getsignal(number) == before
    assert json.loads(str(np.load("s.npz")["about"]))["done"] == 5 * 1024 // 8
    assert main(words) == 0
    assert stream.load_moments("s.npz") == stream.moments("big.npy", 0, chunk_bytes=1024)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_kill_and_restart(folder, rng):
    """Ctrl-C in the first pass, a batch system's SIGTERM in the second, then the whole."""
    x = rng.normal(3, 2, (400_000, 8)).astype(np.float32)  # seconds a pass, for a signal to come in time
    np.save("big.npy", x)
    said, status = stop_when(start("--statistics", "s.npz"), "statistics [", signal.SIGINT)
    assert status == 130
    assert said.endswith("normalize: interrupted; the same command goes on from s.npz")
    assert names(folder) == ["big.npy", "s.npz"]
    about = json.loads(str(np.load("s.npz")["about"]))
    assert 0 < about["done"] < x.size
    _, status = stop_when(start("--statistics", "s.npz"), "normalizing [", signal.SIGTERM)
    assert (status, names(folder)) == (143, ["big.npy", "s.npz"])
    again = start("--statistics", "s.npz")
    shown = again.communicate(timeout=60)[1]
    assert again.returncode == 0, shown
    assert "statistics" not in shown
    used = stream.moments("big.npy", 0, chunk_bytes=1024)
    assert stream.load_moments("s.npz") == used
    assert cases.same_bits(np.load("out.npy"), anynorm.normalize(x, 0, moments=used))
