# SPDX-License-Identifier: Apache-2.0
"""The ways in which a C++ program gets at the library, and the headers on their own.

ANYNORM_BUILD_DIR names a build of the library to install from; without it the tests build one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSUME = ROOT / "tests" / "consume"
HEADERS = sorted((ROOT / "cpp" / "include" / "anynorm").glob("*.hpp"))
STRICT = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror"]

pytestmark = [pytest.mark.native, pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake")]


def run(*command: str | Path, **environment: str) -> str:
    """Runs a command; if it fails, its output is the message."""
    # A sanitizer's runtime that the interpreter was started with is not for compilers.
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"} | environment
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# The flags of all other builds, so that ccache has their kernels.
LIBRARY = "-DANYNORM_WERROR=ON"


def build(source: Path, where: Path, *options: str) -> Path:
    run("cmake", "-S", source, "-B", where, "-DCMAKE_BUILD_TYPE=Release", *options)
    run("cmake", "--build", where, "--parallel", "2")
    return where


def says_hello(program: Path, **environment: str) -> None:
    assert run(program, **environment).startswith("anynorm ")


def install(tmp: Path, *options: str) -> Path:
    where = build(ROOT, tmp / "build", LIBRARY, "-DANYNORM_TESTS=OFF", *options)
    run("cmake", "--install", where, "--prefix", tmp / "prefix")
    return tmp / "prefix"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed static library with OpenMP."""
    tmp = tmp_path_factory.mktemp("installed")
    if given := os.environ.get("ANYNORM_BUILD_DIR"):
        run("cmake", "--install", given, "--prefix", tmp / "prefix")
        return tmp / "prefix"
    return install(tmp)


def test_find_package(prefix: Path, tmp_path: Path) -> None:
    says_hello(build(CONSUME / "find_package", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}") / "consume")


def test_find_package_refuses_another_minor_version(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(other LANGUAGES CXX)\n"
        "find_package(anynorm 0.999 CONFIG)\nif(anynorm_FOUND)\n  message(FATAL_ERROR found)\nendif()\n",
        encoding="utf-8",
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")


def test_add_subdirectory(tmp_path: Path) -> None:
    says_hello(build(CONSUME / "add_subdirectory", tmp_path, LIBRARY) / "consume")


def test_without_openmp(tmp_path: Path) -> None:
    program = build(CONSUME / "add_subdirectory", tmp_path, LIBRARY, "-DANYNORM_OPENMP=OFF") / "consume"
    says_hello(program)
    assert "gomp" not in run("ldd", program)


def test_shared_library(tmp_path: Path) -> None:
    prefix = install(tmp_path / "library", "-DBUILD_SHARED_LIBS=ON")
    program = build(CONSUME / "find_package", tmp_path / "consumer", f"-DCMAKE_PREFIX_PATH={prefix}") / "consume"
    says_hello(program)
    assert "libanynorm.so.0.1" in run("ldd", program)


@pytest.mark.skipif(not shutil.which("pkg-config"), reason="needs pkg-config")
def test_pkg_config_in_a_moved_tree(prefix: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(prefix, moved)
    (file,) = moved.rglob("anynorm.pc")
    flags = run("pkg-config", "--static", "--cflags", "--libs", "anynorm", PKG_CONFIG_PATH=str(file.parent)).split()
    assert str(prefix) not in " ".join(flags)
    run("g++", "-std=c++20", CONSUME / "main.cpp", *flags, "-o", tmp_path / "consume")
    says_hello(tmp_path / "consume")


def test_installed_wheel(tmp_path: Path) -> None:
    cmakedir = run(sys.executable, "-m", "anynorm", "--cmakedir").strip()
    says_hello(build(CONSUME / "find_package", tmp_path, f"-Danynorm_DIR={cmakedir}") / "consume")


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.name)
def test_header_alone_without_warnings(header: Path, compiler: str, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    # Twice, to see that it may be included twice.
    (tmp_path / "alone.cpp").write_text(f'#include "anynorm/{header.name}"\n' * 2, encoding="utf-8")
    run(compiler, *STRICT, "-fsyntax-only", f"-I{header.parents[1]}", tmp_path / "alone.cpp")


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_example_program_without_warnings(compiler: str) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    run(compiler, *STRICT, "-fsyntax-only", f"-I{ROOT / 'cpp' / 'include'}", CONSUME / "main.cpp")
