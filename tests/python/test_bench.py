# SPDX-License-Identifier: Apache-2.0
"""Both benchmarks run, on tiny shapes, measure the same cases, and compare things that are equal.

ANYNORM_BUILD_DIR names a build whose benchmark is run if it has one; without it the tests build one.
"""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import anynorm
from anynorm.__main__ import main
from anynorm.bench import chart, heap_reuse
from anynorm.bench.contestants import HEAP_REUSE, PEERS
from anynorm.bench.report import Report
from anynorm.bench.result import Result
from anynorm.bench.shapes import ITEMSIZE, Case, read_cases

ROOT = Path(__file__).parents[2]
BENCH = (sys.executable, "-m", "anynorm", "bench")
TINY = ("--threads", "1", "--repeat", "1")
RMS = ("--cases", "transformers/rms", "--max-length", "8")
NORMS = {"layer_norm", "rms_norm", "batch_norm", "group_norm", "instance_norm"}
GRADIENTS = {f"{norm}_backward" for norm in NORMS}
KINDS = NORMS | GRADIENTS | {"moments", "normalize"}
FUSED = re.compile(r"/(residual|activation|result)=")
GROUPERS = ("pandas", "polars", "flox", "numbagg")
HALF = re.compile(r"/b?f16(/|$)")

WRONG_LINES = [
    "nonsense f32 3x4",
    "layer_norm i8 3x4",
    "layer_norm f32 3x4 axis=0",
    "layer_norm f32 3x4 channel=1",
    "rms_norm f32 3x4 training=0",
    "moments f32 3xa",
    "moments f32",
    "moments f32 3x4 axis=",
    "moments f32 3x4 step",
    "moments f32 3x4 order=C",
    "moments f32 3x4 order=1",
    "moments f32 3x4 step=F",
    "moments f32 3x4 step=1",
    "moments f32 3x4 step=-2",
    "moments f32 3x4 step=2x",
    "moments f32 3x4 step=17",  # leaves lines of the cache alone
    "layer_norm f64 3x4 step=9",
    "layer_norm f32 3x4 order=F step=2",
    "moments_backward f32 3x4",
    "batch_norm_backward f32 3x4 training=0",
    "layer_norm_backward f32 3x4 residual=1",
    "moments f32 3x4 result=i8",
    "moments f32 3x4 axis=0 labels=0",
    "moments f32 3x4 axis=0 labels=2 sorted=0",
    "moments f32 3x4 axis=0 segments=0",
    "moments f32 3x4 axis=0 labels=2 segments=2",
    "moments f32 3x4 axis=0 where=1",
    "moments f32 3x4 axis=1 where=rows",
    "moments f32 3x4 axis=0 where=padding",
    "moments f32 3x4 axis=0 where=rows labels=2",
    "layer_norm f32 3x4 where=rows",
    "normalize f32 3x4 residual=1",
    "normalize_backward f32 3x4 axis=0",
    "layer_norm f32 3x4 labels=2",
    "layer_norm f32 3x4 residual=2",
    "layer_norm f32 3x4 activation=tanh",
    "layer_norm f32 3x4 result=f32",
]


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD" or command[0] == sys.executable}
    env |= environment
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=env)


def needs(module: str) -> None:
    """Skips without a peer; does not import it, since it would start its threads in here."""
    if not importlib.util.find_spec(module):
        pytest.skip(f"needs {module}")


def measured(folder: Path, *arguments: str, **environment: str) -> list[dict[str, Any]]:
    """The results of a run of the Python benchmark that wrote them to `folder`."""
    done = run(*BENCH, *TINY, *arguments, "--output", folder, **environment)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    results: list[dict[str, Any]] = report["results"]
    return results


def check_errors(results: list[dict[str, Any]]) -> None:
    """Everybody computes the same. Outputs are below 32; some peers sum float32 in the order of memory; of 8 bits the
    last may differ where another rounding of y lies on the other side of a tie.
    """
    for result in results:
        for name, error in result["error"].items():
            allowed = 0.3 if HALF.search(result["case"]) else 4e-6 if name in {"out", "new"} else 1e-4
            allowed = 1.1 if "/result=i8" in result["case"] else allowed
            assert error < allowed, (result["case"], name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    """Every case, anynorm and NumPy alone."""
    return measured(folder, "--max-length", "16", "--peers", "numpy")


def test_every_kind_of_case(results: list[dict[str, Any]]) -> None:
    assert {result["case"].partition("/")[0] for result in results} == KINDS
    for result in results:
        if HALF.search(result["case"]) and not result["seconds"]:
            continue  # needs ml_dtypes, or a later core
        assert result["seconds"].keys() >= {"memory", "new", "numpy"}
        assert ("out" in result["seconds"]) == (not result["case"].startswith("moments"))
        assert min(result["seconds"].values()) > 0


def test_contestants_compute_the_same(results: list[dict[str, Any]]) -> None:
    assert all({"new", "numpy"} <= result["error"].keys() for result in results if result["seconds"])
    check_errors(results)


def test_tables_have_a_row_for_every_case(folder: Path, results: list[dict[str, Any]]) -> None:
    text = (folder / "table.md").read_text(encoding="utf-8")
    for result in results:
        if result["seconds"]:
            rows = [line for line in text.splitlines() if line.startswith(f"| {result['case']} |")]
            assert len(rows) == 2  # times, and errors


def test_progress_and_tables_are_kept_apart() -> None:
    done = run(*BENCH, *TINY, *RMS, "--peers", "numpy")
    assert done.returncode == 0, done.stderr
    assert "1/1 rms_norm/8x8/f32" in done.stderr
    assert "### transformers" in done.stdout
    assert "1/1" not in done.stdout


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("peer, module", [("torch", "torch"), ("onnxruntime", "onnxruntime"), ("jax", "jax")])
def test_peers_compute_the_same(peer: str, module: str, tmp_path: Path) -> None:
    needs(module)
    results = measured(tmp_path, "--quick", "--max-length", "8", "--peers", peer)
    check_errors(results)
    kinds = {result["case"].partition("/")[0] for result in results if peer in result["seconds"]}
    assert kinds == (NORMS if peer == "onnxruntime" else KINDS - {"normalize"})


@pytest.mark.peer
def test_kernels_compute_the_same(tmp_path: Path) -> None:
    """The loops that numba compiles, as plain Python: compiling them all takes half a minute."""
    needs("numba")
    results = measured(tmp_path, "--max-length", "6", "--peers", "numba", NUMBA_DISABLE_JIT="1")
    check_errors(results)
    for result in results:
        case = result["case"]
        unwritten = re.match("layer_norm.*order=F|.*_backward|.*/(labels|segments|where)=", case) or FUSED.search(case)
        assert "numba" in result["seconds"] or unwritten or HALF.search(case)


@pytest.mark.peer
@pytest.mark.parametrize("peer", GROUPERS)
def test_who_reduces_by_label_computes_the_same(peer: str, tmp_path: Path) -> None:
    needs(peer)
    results = measured(
        tmp_path, "--cases", "labels/moments", "--max-length", "64", "--peers", peer, POLARS_MAX_THREADS="1"
    )
    check_errors(results)
    assert all(peer in result["seconds"] for result in results if "/labels=" in result["case"])


@pytest.mark.peer
def test_a_kernel_compiles(tmp_path: Path) -> None:
    needs("numba")
    (result,) = measured(tmp_path, "--cases", "rms_norm/8192x768/f32", "--max-length", "64", "--peers", "numba")
    assert "numba" in result["seconds"]
    check_errors([result])


@pytest.mark.slow
def test_torch_in_a_process_that_keeps_its_heap(tmp_path: Path) -> None:
    needs("torch")
    results = measured(tmp_path, *RMS, "--peers", "torch", HEAP_REUSE)
    assert results[0]["heap_reuse"].keys() == {"out", "new", "torch"}
    assert "torch, heap reuse" in (tmp_path / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "module, peer", [("torch", "torch"), ("onnx", "onnxruntime"), ("jax", "jax"), ("numba", "numba")]
)
def test_without_a_peer(module: str, peer: str) -> None:
    code = f"import runpy, sys; sys.modules[{module!r}] = None\n"
    code += f"sys.argv[1:] = {['bench', *TINY, *RMS, '--peers', peer]}\n"
    code += "runpy.run_module('anynorm', run_name='__main__')"
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert f"* {peer}: not installed ({module})" in done.stdout


def test_an_interruption_keeps_what_was_measured(tmp_path: Path) -> None:
    command = [*BENCH, "--threads", "1", "--repeat", "2000", "--max-length", "64", "--peers", "numpy"]
    # In the background, as under CI, the shell has told its children to ignore the signal. Not by preexec_fn, which forks
    # this process: jax warns of that wherever it has been imported.
    listens = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", listens, *command, "--output", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        first = next(line for line in process.stderr if line.lstrip().startswith("1/"))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
    assert process.returncode == 130
    assert f"| {first.split()[1]} |" in out
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["results"]


@pytest.mark.slow
def test_a_child_that_dies_spoils_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("torch")
    real_run_case = heap_reuse.HeapReuse.run_case

    def run_case(self: heap_reuse.HeapReuse, case: Case) -> dict[int, dict[str, float]]:
        self._child.kill()
        self._child.wait()
        return real_run_case(self, case)

    monkeypatch.setattr(heap_reuse.HeapReuse, "run_case", run_case)
    arguments = [*RMS, "--peers", "numpy", "torch", HEAP_REUSE]
    assert main(["bench", *TINY, *arguments, "--output", str(tmp_path)]) == 0
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "torch, heap reuse: the process that keeps its heap ended with status -9." in text


def test_unknown_case_is_refused() -> None:
    done = run(*BENCH, "--cases", "no such")
    assert done.returncode == 1
    assert done.stderr == "--cases: expected parts of names in shapes.txt, got ['no such']\n"


@pytest.mark.parametrize("line", WRONG_LINES)
def test_line_that_is_not_understood_is_named(line: str, tmp_path: Path) -> None:
    shapes = tmp_path / "shapes.txt"
    shapes.write_text(f"# comment\n[section]\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"{re.escape(str(shapes))}:3: expected `kind dtype shape`") as caught:
        read_cases(shapes)
    assert str(caught.value).endswith(f"then order=F or step=2; got `{line}`")
    with pytest.raises(SystemExit, match=re.escape(str(caught.value))):
        main(["bench", "--shapes", str(shapes)])


@pytest.mark.peer
@pytest.mark.parametrize(
    "peer, module", [("onnxruntime", "onnxruntime"), pytest.param("jax", "jax", marks=pytest.mark.slow)]
)
def test_who_would_copy_a_view_stays_away(peer: str, module: str, tmp_path: Path) -> None:
    needs(module)
    results = measured(tmp_path, "--cases", "views/layer_norm", "--max-length", "8", "--peers", peer)
    assert len(results) == 2
    for result in results:
        assert result["skipped"][peer] == "takes arrays that are dense and in C order"
        assert result["seconds"].keys() == {"memory", "out", "new"}


def invented(threads: int, **seconds: float) -> Result:
    return Result("rms_norm/8x8/f32", "transformers", threads, 512, {"memory": 2.0, "out": 4.0, "new": 5.0} | seconds)


def test_the_rival_is_the_fastest_peer_by_its_factor() -> None:
    result = invented(1, numpy=40.0, torch=6.0, numba=5.0)
    assert result.rival == ("numba", 1.25)
    result.heap_reuse = {"out": 8.0, "new": 9.0, "torch": 4.0}  # that process ran at another speed
    assert result.rival == (HEAP_REUSE, 0.5)
    assert result.of_pass == 0.5
    assert Result("rms_norm/8x8/f32", "transformers", 1, 512).rival is None


def test_bold_where_anynorm_loses() -> None:
    result = invented(1, numpy=40.0, torch=2.0)
    result.skipped = {"jax": "RuntimeError: no."}
    text = Report("command", {"CPU": "some"}, {"numba": "not installed (numba)"}, [result]).markdown()
    assert "40000 (10.00x)" in text
    assert "2000 (**0.50x**)" in text
    assert "| torch **0.50x** |" in text
    assert "faster than every peer in 0 of 1 rows" in text
    assert "* numba: not installed (numba)." in text
    assert "* jax: RuntimeError: no. (rms_norm/8x8/f32)" in text


def test_chart(tmp_path: Path) -> None:
    needs("matplotlib")
    results = [invented(count, numpy=factor) for count, factor in ((1, 400.0), (2, 1.0))]
    for number in range(3):  # none at all, one panel, two
        chart.draw(results[:number], "some machine", tmp_path / "chart.png")
        assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib(tmp_path: Path) -> None:
    code = "import runpy, sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.figure'] = None\n"
    arguments = ["bench", *TINY, *RMS, "--peers", "numpy", "--output", str(tmp_path)]
    code += f"sys.argv[1:] = {arguments}\n"
    code += "runpy.run_module('anynorm', run_name='__main__')"
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "no chart" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"table.md", "results.json"}


@pytest.mark.parametrize("flag", ["--threads", "--repeat", "--max-length"])
def test_numbers_below_one_are_refused(flag: str) -> None:
    done = run(*BENCH, flag, "0")
    assert done.returncode == 2
    assert f"argument {flag}: expected a number of at least 1, got 0" in done.stderr


def test_every_peer_is_known_to_the_command_line() -> None:
    text = run(*BENCH, "--help").stdout
    assert all(peer in text for peer in PEERS)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ benchmark."""
    given = os.environ.get("ANYNORM_BUILD_DIR")
    if given and (program := Path(given) / "bench" / "anynorm_bench").is_file():
        return program
    for needed in ("cmake", "g++"):
        if not shutil.which(needed):
            pytest.skip(f"needs {needed}")
    if run("g++", "-E", "-include", "benchmark/benchmark.h", "-x", "c++", os.devnull).returncode:
        pytest.skip("needs google-benchmark (Debian: libbenchmark-dev)")
    build = tmp_path_factory.mktemp("bench")
    options = ("-DCMAKE_BUILD_TYPE=Release", "-DANYNORM_TESTS=OFF", "-DANYNORM_BENCH=ON", "-DANYNORM_WERROR=ON")
    for command in (("-S", ROOT, "-B", build, *options), ("--build", build, "--parallel", "2")):
        done = run("cmake", *command)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return build / "bench" / "anynorm_bench"


@pytest.mark.native
def test_native_measures_the_same_cases(program: Path, results: list[dict[str, Any]]) -> None:
    done = run(program, "--max-length=16", "--threads=1", "--benchmark_min_time=0.001")
    assert done.returncode == 0, done.stderr
    _, _, summary = done.stdout.partition("\ncase ")
    rows = [line.split() for line in summary.splitlines()[1:]]
    skipped = re.findall(r"^skipped (\S+): ", done.stderr, re.MULTILINE)
    assert all(map(HALF.search, skipped))
    assert [*(row[0] for row in rows), *skipped] == [result["case"] for result in results]
    for name, threads, *numbers, best in rows:
        assert threads == "1"
        assert min(map(float, numbers)) >= 0
        passes = {"copy", "copy_streaming"} | ({"triad", "triad_streaming"} if "_backward/" in name else set())
        assert best in ({"read"} if name.startswith("moments") else passes)
        assert best != "copy_streaming" or "/step=" not in name  # which cannot leave the gaps of y as they are
        assert re.search(rf"^{re.escape(name)}/threads:1/real_time .* GB/s=", done.stdout, re.MULTILINE)


@pytest.mark.native
@pytest.mark.parametrize(
    "flag, message",
    [
        ("--threads=0", "--threads: expected numbers of at least 1, got 0"),
        ("--shapes=nowhere", "shapes: expected a readable file, got nowhere"),
        ("--nonsense", "unrecognized command-line flag: --nonsense"),
    ],
)
def test_native_says_what_is_wrong(program: Path, flag: str, message: str) -> None:
    done = run(program, flag)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.native
@pytest.mark.parametrize("line", WRONG_LINES)
def test_native_names_a_line_that_is_not_understood(program: Path, line: str, tmp_path: Path) -> None:
    shapes = tmp_path / "shapes.txt"
    shapes.write_text(f"# comment\n[section]\n{line}\n", encoding="utf-8")
    done = run(program, f"--shapes={shapes}")
    assert done.returncode == 1
    assert f"{shapes}:3: expected `kind dtype shape`" in done.stderr
    assert done.stderr.endswith(f"then order=F or step=2; got `{line}`\n")


@pytest.mark.native
def test_native_measures_every_kernel(program: Path) -> None:
    done = run(program, "--kernels", "--benchmark_min_time=0.00001", "--benchmark_format=json")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["benchmarks"]
    kernels: dict[str, set[str]] = {}
    for each in measured:
        _, kernel, dtype, isa, size = each["name"].split("/")
        kernels.setdefault(f"{dtype}/{isa}", set()).add(kernel)
        assert re.fullmatch(r"\d+(x\d+)?", size)
        assert min(each["GB"], each["elements"]) > 0
    assert kernels.keys() == {f"{dtype}/{isa}" for dtype in ITEMSIZE for isa in anynorm.available_isas()}
    table = (ROOT / "cpp" / "src" / "kernels" / "kernel_table.hpp").read_text(encoding="utf-8")
    of_every_type, _, of_float32 = table.partition("struct Kernels {")[2].partition("struct ActivationKernels")
    members, activations = (
        set(re.findall(r"\w+ \(\*(\w+)(?:\[\d\])?\)", part)) for part in (of_every_type, of_float32)
    )
    assert (len(members), len(activations)) == (21, 2)
    for target, names in kernels.items():
        expected = members | activations if target.startswith("f32/") else members
        assert {name for name in expected if any(each.startswith(name) for each in names)} == expected


@pytest.mark.native
def test_native_repeats_the_first_axis_to_leave_the_cache(program: Path) -> None:
    done = run(program, "--min-mib=3", "--max-length=64", "--threads=1", "--benchmark_list_tests=true")
    assert "layer_norm/12288x64/f32/threads:1/real_time\n" in done.stdout
    assert done.returncode == 0
