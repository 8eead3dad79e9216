# SPDX-License-Identifier: Apache-2.0
"""What an installed anynorm consists of, and that its parts agree on the version."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import anynorm
from anynorm import _core

PACKAGE = Path(str(_core.__file__)).parent
HEADER = Path(__file__).parents[2] / "cpp" / "include" / "anynorm" / "version.hpp"


def ask(*arguments: str) -> str:
    """The output of `python -m anynorm`: one line, with nothing else on stdout."""
    command = [sys.executable, "-m", "anynorm", *arguments]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_one_version() -> None:
    parts = re.findall(r"define ANYNORM_VERSION_\w+ (\d+)", HEADER.read_text(encoding="utf-8"))
    assert ".".join(parts) == anynorm.__version__ == importlib.metadata.version("anynorm")


def test_cmakedir_holds_the_cmake_package() -> None:
    cmakedir = Path(ask("--cmakedir"))
    assert {path.name for path in cmakedir.iterdir()} >= {"anynorm-config.cmake", "anynorm-config-version.cmake"}
    assert f'"{anynorm.__version__}"' in (cmakedir / "anynorm-config-version.cmake").read_text(encoding="utf-8")


def test_includes_name_the_headers() -> None:
    include = Path(ask("--includes").removeprefix("-I"))
    installed = {path.name for path in (include / "anynorm").iterdir()}
    assert installed == {path.name for path in HEADER.parent.glob("*.hpp")}


def test_library_and_pkg_config_file_lie_in_the_package() -> None:
    assert (PACKAGE / "lib" / "libanynorm.a").is_file()
    assert anynorm.__version__ in (PACKAGE / "lib" / "pkgconfig" / "anynorm.pc").read_text(encoding="utf-8")


@pytest.mark.parametrize("group, value", [("cmake.root", "anynorm"), ("pkg_config", "anynorm.lib.pkgconfig")])
def test_entry_points_lead_builds_here(group: str, value: str) -> None:
    (entry,) = importlib.metadata.entry_points(group=group, name="anynorm")
    assert entry.value == value


def test_package_is_typed() -> None:
    package = Path(str(anynorm.__file__)).parent
    assert (package / "py.typed").is_file()
    assert (package / "_core.pyi").is_file()


def test_import_brings_numpy_and_nothing_heavier() -> None:
    code = "import sys, anynorm; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "sklearn", "scipy", "matplotlib", "PIL"} & set(done.stdout.split())


@pytest.mark.skipif(not shutil.which("nm"), reason="needs binutils")
def test_module_hides_the_core() -> None:
    symbols = subprocess.run(
        ["nm", "--dynamic", "--defined-only", "--demangle", str(_core.__file__)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "PyInit__core" in symbols
    assert "anynorm::" not in symbols
