# SPDX-License-Identifier: Apache-2.0
"""`python -m anynorm`: help, info, and a self test that can fail. Its other words are in test_packaging and test_bench."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import anynorm
from anynorm import _core, _info, _selftest
from anynorm.__main__ import main


def ask(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "anynorm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_no_argument_is_a_question_for_help() -> None:
    done = ask()
    assert done.returncode == 0
    for word in ("info", "selftest", "bench", "--cmakedir", "--includes", "--pkgconfigdir"):
        assert word in done.stdout


def test_unknown_words_are_refused() -> None:
    done = ask("nonsense")
    assert done.returncode == 2
    assert "invalid choice: 'nonsense'" in done.stderr


# --- info ------------------------------------------------------------------------------------------------------------


def test_info() -> None:
    lines = dict(line.split(maxsplit=1) for line in ask("info").stdout.splitlines())
    assert lines["anynorm"] == anynorm.__version__
    assert lines["instructions"].startswith(anynorm.available_isas()[-1])
    assert str(_core.build["compiler"]) in lines["build"]
    assert np.__version__ in lines["Python"]


def test_info_as_json() -> None:
    found = json.loads(ask("info", "--json", OMP_NUM_THREADS="3").stdout)
    assert found["available"] == list(anynorm.available_isas())
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["threads"] == (3 if found["build"]["openmp"] == "on" else 1)
    assert found["build"] == _core.build
    assert found["CPUs"] >= 1


def test_info_helps_with_a_wrong_environment() -> None:
    done = ask("info", ANYNORM_ISA="sse9")
    assert done.returncode == 0, done.stderr
    assert "ANYNORM_ISA" in done.stdout


@pytest.mark.parametrize("command", ["selftest", "bench"])
def test_a_wrong_environment_stops_the_others(command: str) -> None:
    done = ask(command, ANYNORM_ISA="sse9")
    assert done.returncode == 1
    assert "ANYNORM_ISA" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_build_names_no_folder() -> None:
    assert _core.build.keys() == {"compiler", "type", "flags", "kernels", "openmp"}
    assert not any("/" in text for text in _core.build.values())
    assert {"baseline", anynorm.available_isas()[-1]} <= set(_core.build["kernels"].split())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /sys")
def test_libraries_and_caches_are_found() -> None:
    if _core.build["openmp"] == "on":
        assert any(re.search(r"lib(gomp|omp|iomp5)", name) for name in _info.openmp_runtimes())
    assert not any(name.startswith("/") for name in _info.openmp_runtimes())
    assert all(re.match(r"\d+[KM]", size) for size in _info.caches().values())


def test_where_the_system_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("CPUINFO", "CACHES", "MAPS"):
        monkeypatch.setattr(_info, name, tmp_path / "nothing")
    monkeypatch.delattr(_info.os, "sysconf")
    found = _info.facts()
    assert found["caches"] == {}
    assert found["OpenMP"] == []
    assert main(["info"]) == 0


# --- selftest --------------------------------------------------------------------------------------------------------


def test_selftest_passes() -> None:
    done = ask("selftest")
    assert done.returncode == 0, done.stdout
    for word in ("layer_norm", "moments", "float32", "float64", *anynorm.available_isas()):
        assert word in done.stdout
    assert "FAILED" not in done.stdout


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less to check."""
    monkeypatch.setattr(_selftest, "LAYOUTS", {"C": np.ascontiguousarray})
    monkeypatch.setattr(_selftest, "SHAPE", (2, 16, 3, 31))


real_layer_norm, real_batch_norm, real_moments = anynorm.layer_norm, anynorm.batch_norm, anynorm.moments


def wrong_element(x: Any, *arguments: Any, **options: Any) -> Any:
    y = real_layer_norm(x, *arguments, **options)
    y.flat[-1] += 1e-4
    return y


def nan_element(x: Any, *arguments: Any, **options: Any) -> Any:
    y = real_layer_norm(x, *arguments, **options)
    y.flat[0] = np.nan
    return y


def bits_that_depend_on_threads(x: Any, *arguments: Any, **options: Any) -> Any:
    y = real_layer_norm(x, *arguments, **options)
    return (y.view(f"u{y.itemsize}") ^ 1).view(y.dtype) if options.get("num_threads") == 2 else y


def accepts_anything(x: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return real_layer_norm(x, *arguments, **options)
    except (TypeError, ValueError):
        return x


def writes_before_it_refuses(x: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return real_layer_norm(x, *arguments, **options)
    except ValueError:
        x[0] = 0
        raise


def forgets_running_statistics(x: Any, *arguments: Any, **options: Any) -> Any:
    return real_batch_norm(x, *map(np.copy, arguments[:2]), *arguments[2:], **options)


def biased_moments(x: Any, axis: Any, **options: Any) -> Any:
    result = real_moments(x, axis, **options)
    return anynorm.Moments.from_arrays(result.count, result.mean, result.m2 * 1.01)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "name, wrong, message",
    [
        ("layer_norm", wrong_element, "expected an error of at most"),
        ("layer_norm", nan_element, "got nan"),
        ("layer_norm", bits_that_depend_on_threads, "other bits"),
        ("layer_norm", accepts_anything, "integers: expected TypeError, got a result"),
        ("layer_norm", writes_before_it_refuses, "refused after the output had been written"),
        ("batch_norm", forgets_running_statistics, "wrong running statistics"),
        ("moments", biased_moments, "moments along (3,)"),
    ],
)
def test_selftest_can_fail(
    name: str,
    wrong: Callable[..., Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(anynorm, name, wrong)
    assert main(["selftest"]) == 1
    out = capsys.readouterr().out
    assert message in out
    assert "FAILED in" in out


@pytest.mark.usefixtures("short")
def test_selftest_leaves_the_instruction_set_alone() -> None:
    before = anynorm.active_isa()
    anynorm.use_isa("baseline")
    try:
        assert main(["selftest"]) == 0
        assert anynorm.active_isa() == "baseline"
    finally:
        anynorm.use_isa(before)


def test_the_commands_are_not_imported_with_the_package() -> None:
    code = "import sys, anynorm; print([name for name in sys.modules if name.startswith('anynorm.')])"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"bench|_info|_selftest|_reference", names)
