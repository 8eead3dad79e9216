#!/usr/bin/env -S uv run --script

# /// script
# dependencies = ["nox>=2026.4"]
# ///

# SPDX-License-Identifier: Apache-2.0
"""The task menu: `nox -l` lists it, `nox` runs what a change must pass, `nox -s tests -- -k layer` passes arguments on."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import nox

nox.needs_version = ">=2026.4"
# Not uv: it caches the wheel of a local directory by pyproject.toml's age, and would test yesterday's C++.
nox.options.default_venv_backend = "virtualenv"

os.environ.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
os.environ.setdefault("CTEST_PARALLEL_LEVEL", os.environ["CMAKE_BUILD_PARALLEL_LEVEL"])
# Half a dozen sessions compile the same files with the same flags, the kernels alone two minutes of work each time. With
# debug information ccache would tell build folders apart.
if shutil.which("ccache"):
    os.environ.setdefault("CMAKE_CXX_COMPILER_LAUNCHER", "ccache")
    os.environ.setdefault("CCACHE_DIR", str(Path("build/ccache").resolve()))
    os.environ.setdefault("CCACHE_NOHASHDIR", "1")

# ccache tells compilers by their names: by itself the wheel's is g++, that of the presets c++.
if shutil.which("g++"):
    os.environ.setdefault("CXX", "g++")

# Workers of OpenMP spin while they wait, by default: beside other sessions for CPUs that these have work for. The Python
# tests by themselves take 370 s of processor time and not 450.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

PROJECT = nox.project.load_toml("pyproject.toml")
SANITIZERS = "address,undefined"
WHEELS: dict[str, Path] = {}


def group(name: str) -> list[str]:
    """The requirements of a dependency group in pyproject.toml."""
    return nox.project.dependency_groups(PROJECT, name)


def workflow(session: nox.Session, preset: str) -> None:
    """Configures, builds and tests a preset of CMakePresets.json."""
    session.run("cmake", "--workflow", "--preset", preset, external=True)


def wheel(session: nox.Session, build: str, options: Sequence[str]) -> Path:
    """Builds the package, with warnings as errors as in the presets, whose objects are ccache's then. Once a run: a new
    environment has the headers of pybind11 elsewhere, and every session would compile all bindings again.
    """
    if build not in WHEELS:
        folder = Path("build/wheels").resolve() / build
        shutil.rmtree(folder, ignore_errors=True)
        defines = ("-Ccmake.define.ANYNORM_WERROR=ON", f"-Cbuild-dir=build/{build}-{{wheel_tag}}")
        session.run("python", "-m", "pip", "wheel", "--no-deps", f"--wheel-dir={folder}", *defines, *options, ".")
        (WHEELS[build],) = folder.glob("*.whl")
    return WHEELS[build]


def install(
    session: nox.Session, extras: str, *requirements: str, build: str = "wheel", options: Sequence[str] = ()
) -> None:
    """Installs the package's wheel, with the extras."""
    session.install(f"{wheel(session, build, options)}{extras}", *requirements)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and spelling of everything, and the packaging conventions (sp-repo-review)."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("codespell")
    sources = [
        path for folder in ("cpp", "python", "tests", "bench", "examples") for path in Path(folder).rglob("*.[ch]pp")
    ]
    session.run("clang-format", "--dry-run", "--Werror", *map(str, sorted(sources)), silent=True)
    session.run("validate-pyproject", "pyproject.toml")
    session.run("sp-repo-review", "--show", "err", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """mypy --strict on the package, and stubtest: the stubs say what the compiled module has."""
    install(session, "", *group("lint"), *group("test"))
    session.run("mypy")
    session.run("python", "-m", "mypy.stubtest", "anynorm._core")


@nox.session
def tests(session: nox.Session) -> None:
    """The Python tests, the doctests, README, docs and examples, on the installed package."""
    install(session, "[examples]", *group("test"))
    # The kernels that have just been compiled are looked at, instead of others.
    built = next(Path("build").glob("wheel-*")).resolve()
    arguments = session.posargs or ["-m", "not native"]
    session.run("pytest", "-n", "auto", *arguments, env={"ANYNORM_BUILD_DIR": str(built)})


@nox.session
def peers(session: nox.Session) -> None:
    """The tests that need another library, which `tests` skips; but for torch, which is tested where it is installed."""
    # pip would compile all modules to bytecode, 3.5 s of work for numba's alone; Python does so with those it imports.
    session.env["PIP_COMPILE"] = "0"
    install(session, "[bench]", *group("test"), *group("containers"))
    session.run("pytest", "-n", "auto", *(session.posargs or ["-m", "peer", "tests/python"]))


@nox.session
def cpp(session: nox.Session) -> None:
    """The C++ tests on every instruction set: optimized, then the smallest build, then norms in a shared library."""
    for preset in session.posargs or ["release", "scalar", "shared"]:
        workflow(session, preset)


@nox.session
def consume(session: nox.Session) -> None:
    """Programs that use the library as an embedder would: find_package, add_subdirectory, pkg-config, the wheel."""
    install(session, "", *group("test"))
    # A file to a worker: what the fixtures build, the tests of a file share.
    session.run("pytest", "-n", "auto", "--dist", "loadfile", "-m", "native", "tests/python", *session.posargs)


@nox.session
def asan(session: nox.Session) -> None:
    """C++ and Python tests under the address and undefined behaviour sanitizers."""
    workflow(session, "asan")
    sanitized = (f"-Ccmake.define.ANYNORM_SANITIZE={SANITIZERS}", "-Ccmake.build-type=Debug")
    install(session, "", *group("test"), build="asan", options=sanitized)
    # The interpreter itself is not instrumented, so the runtime comes first, and the C++ library with it: the
    # sanitizer looks up the exception functions when it starts.
    compiler = os.environ.get("CXX", "g++")
    runtime = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    environment = {
        "LD_PRELOAD": " ".join(runtime),
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter leaks by design
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }
    # The bindings and their errors. The products over layouts and types are the C++ tests', which ran above; the peaks of
    # memory would be those of the sanitizer.
    products = ("accuracy", "backward", "bench", "bits", "halves", "house", "layouts", "memory", "properties")
    session.run(
        "pytest",
        "-n",
        "auto",
        *(session.posargs or ["-m", "not native and not slow", "tests/python"]),
        *([] if session.posargs else [f"--ignore=tests/python/test_{name}.py" for name in products]),
        env=environment,
    )


@nox.session
def tsan(session: nox.Session) -> None:
    """The C++ tests that bring threads of their own, under the thread sanitizer."""
    workflow(session, "tsan")


@nox.session
def tidy(session: nox.Session) -> None:
    """clang-tidy over the library."""
    workflow(session, "tidy")


@nox.session
def aarch64(session: nox.Session) -> None:
    """The NEON kernels: cross build, tests under qemu."""
    if not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")):
        session.skip("needs Debian's g++-aarch64-linux-gnu and qemu-user")
    workflow(session, "aarch64")


@nox.session
def avx512(session: nox.Session) -> None:
    """The AVX-512 kernels on a CPU that has none: the C++ tests in Bochs, some 150 times slower than on a CPU."""
    if "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        session.skip("this CPU has AVX-512: every other session has tested it")
    if not shutil.which("apt-get"):
        session.skip("needs Debian's packages of Bochs and of a kernel")
    session.run("cmake", "--preset", "avx512", external=True)
    session.run("cmake", "--build", "build/avx512", external=True)
    session.run(
        "scripts/run_avx512.sh",
        "build/avx512/tests/cpp/anynorm_tests",
        "--gtest_brief=1",
        # Bochs 2.7 rounds all ties between two float16 up, with AVX2's instruction too, which is right on a real CPU.
        # Left out as well: threads, of which Bochs has one; long rows; products whose code above the kernels is the same
        # on every CPU, and refusals. What is left takes 2.7 s on a CPU with AVX2, without the filter 26 s.
        "--gtest_filter=-*Slow*:Parallel*:*Thread*:Hook*:Fork.*:DispatchProcess.*:*/long_*:*.Float16*:*EveryFloat16*:"
        "Selected.*:SelectionBackward.*:BackwardKinds.*:Fold.*:*Errors.*:*Table.*:Running*:GivenBack.*:MeanLow.*:"
        "LabelledRows.*:TornRows.*:Rising*:FewChannels*Mixed*:FewChannels*_100:GradSum.*Behind*:GradSum.*Another*:"
        "FusionSteps.*Large*:FusionSteps.*Selections",
        env={"RIG_DIR": "build/avx512-rig", "RIG_ENV": "ANYNORM_ISA=avx512", "RIG_TIMEOUT": "900"},
        external=True,
    )


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The C++ benchmarks; arguments go to the program, e.g. --benchmark_filter=layer."""
    workflow(session, "bench")
    session.run("build/bench/bench/anynorm_bench", *session.posargs, external=True)


@nox.session(default=False)
def dist(session: nox.Session) -> None:
    """The sdist and the wheel, built from the sdist, into dist/."""
    session.install("build", "check-sdist")
    session.run("check-sdist", "--inject-junk")
    session.run("pyproject-build")


if __name__ == "__main__":
    nox.main()
