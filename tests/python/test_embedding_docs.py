# SPDX-License-Identifier: Apache-2.0
"""The C++ on the pages is the C++ in the files, and prints what the pages say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EMBED = ROOT / "examples" / "embed"
SOURCE = ROOT / "cpp" / "src"
WARNINGS = "-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Werror"
LICENCE = re.compile(r"^(//|#) SPDX-.*\n")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


# What stands on the page, in a block of its own, after the name of a file.
FILES = re.compile(r"`examples/embed/([\w.]+)`[^`]*\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = dict(FILES.findall(page("embedding.md")))
PROGRAMS = sorted(name.removesuffix(".cpp") for name in SHOWN if name.endswith(".cpp"))


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_file_is_shown() -> None:
    assert set(SHOWN) == {path.name for path in EMBED.iterdir()}


@pytest.mark.parametrize("name", SHOWN)
def test_the_page_shows_the_file(name: str) -> None:
    assert SHOWN[name] == LICENCE.sub("", (EMBED / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example programs, against the installed package."""
    if not shutil.which("cmake"):
        pytest.skip("needs cmake")
    where = tmp_path_factory.mktemp("embed")
    cmakedir = run(sys.executable, "-m", "anynorm", "--cmakedir").strip()
    flags = ["-DCMAKE_BUILD_TYPE=Release", f"-Danynorm_DIR={cmakedir}", f"-DCMAKE_CXX_FLAGS={WARNINGS}"]
    run("cmake", "-S", EMBED, "-B", where, *flags)
    run("cmake", "--build", where, "--parallel", "2")
    return where


@pytest.mark.native
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_prints_what_the_page_says(name: str, built: Path) -> None:
    after = page("embedding.md").split(SHOWN[f"{name}.cpp"])[1]
    said = re.match(r"```\n\nIt prints\n\n```text\n(.*?)```\n", after, re.DOTALL)
    assert said
    assert run(built / name) == said[1]


@pytest.mark.native
@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_plans_print_as_the_page_says(tmp_path: Path) -> None:
    found = re.search(r"```cpp\n(#include.*?)```\n.*?```text\n(.*?)```\n", page("developing.md"), re.DOTALL)
    assert found
    (tmp_path / "plans.cpp").write_text(found[1], encoding="utf-8")
    includes = [f"-I{ROOT / 'cpp' / 'include'}", f"-I{SOURCE}"]
    sources = [tmp_path / "plans.cpp", SOURCE / "plan.cpp", SOURCE / "layout.cpp"]
    run("g++", "-std=c++20", *includes, *sources, "-o", tmp_path / "plans")
    assert run(tmp_path / "plans") == found[2]
