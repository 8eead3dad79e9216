# SPDX-License-Identifier: Apache-2.0
"""Both benchmarks run, on tiny shapes, measure the same cases, and compare things that are equal.

ANYNORM_BUILD_DIR names a build whose benchmark is run if it has one; without it the tests build one.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SIDE_BY_SIDE = ROOT / "bench" / "side_by_side.py"
TINY = ("--max-length", "16", "--threads", "1")
KINDS = {"layer_norm", "rms_norm", "batch_norm", "group_norm", "instance_norm", "moments"}


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD" or command[0] == sys.executable}
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Python benchmark has written its numbers and its tables."""
    folder = tmp_path_factory.mktemp("side_by_side")
    files = ("--json", folder / "numbers.json", "--markdown", folder / "table.md")
    done = run(sys.executable, SIDE_BY_SIDE, *TINY, "--repeat", "1", *files)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "layer_norm" in done.stderr  # progress
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    report: dict[str, Any] = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))
    results: list[dict[str, Any]] = report["results"]
    return results


def test_every_kind_of_case(results: list[dict[str, Any]]) -> None:
    assert {result["case"].partition("/")[0] for result in results} == KINDS
    for result in results:
        assert result["seconds"].keys() >= {"memory", "new", "numpy"}
        assert ("out" in result["seconds"]) == (not result["case"].startswith("moments"))
        assert min(result["seconds"].values()) > 0


def test_contestants_compute_the_same(results: list[dict[str, Any]]) -> None:
    for result in results:
        errors = result["error"]
        assert errors.pop("new") < 4e-6  # float32 outputs of up to 20
        assert errors.pop("out", 0) < 4e-6
        assert max(errors.values()) < 1e-4, result["case"]


def test_tables_have_a_row_for_every_case(folder: Path, results: list[dict[str, Any]]) -> None:
    text = (folder / "table.md").read_text(encoding="utf-8")
    for result in results:
        rows = [line for line in text.splitlines() if line.startswith(f"| {result['case']} |")]
        assert len(rows) == 2  # times, and errors


def test_without_torch() -> None:
    code = f"import runpy, sys; sys.path.insert(0, {str(SIDE_BY_SIDE.parent)!r}); sys.modules['torch'] = None\n"
    code += f"sys.argv[1:] = {[*TINY, '--repeat', '1', '--cases', 'rms', '--torch-tuned']}\n"
    code += f"runpy.run_path({str(SIDE_BY_SIDE)!r}, run_name='__main__')"
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "torch not installed" in done.stdout


def test_unknown_case_is_refused() -> None:
    done = run(sys.executable, SIDE_BY_SIDE, "--cases", "no such")
    assert done.returncode == 1
    assert done.stderr == "--cases: expected parts of names in shapes.txt, got ['no such']\n"


@pytest.mark.parametrize("line", ["layer_norm f16 3x4", "layer_norm f32 3x4 axis=0", "moments f32 3xa", "moments f32"])
def test_line_that_is_not_understood_is_named(line: str, tmp_path: Path) -> None:
    shapes = tmp_path / "shapes.txt"
    shapes.write_text(f"# comment\n\n{line}\n", encoding="utf-8")
    done = run(sys.executable, SIDE_BY_SIDE, "--shapes", shapes)
    assert done.returncode == 1
    assert f"{shapes}:3: expected `kind dtype shape`" in done.stderr
    assert done.stderr.endswith(f"got `{line}`\n")


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
    names = [result["case"] for result in results]
    _, _, summary = done.stdout.partition("\ncase ")
    rows = [line.split() for line in summary.splitlines()[1:]]
    assert [row[0] for row in rows] == names
    for name, threads, *numbers, best in rows:
        assert threads == "1"
        assert min(map(float, numbers)) >= 0
        assert best == "read" if name.startswith("moments") else best in {"copy", "copy_streaming"}
    for name in names:
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
def test_native_repeats_the_first_axis_to_leave_the_cache(program: Path) -> None:
    done = run(program, "--min-mib=3", "--max-length=64", "--threads=1", "--benchmark_list_tests=true")
    assert "layer_norm/12288x64/f32/threads:1/real_time\n" in done.stdout
    assert done.returncode == 0
