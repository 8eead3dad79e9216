# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that no compiler checks: who includes whom, what a kernel object may hold, sizes, words.

ANYNORM_BUILD_DIR names a build whose optimized kernel objects are looked at; without it the tests compile them.
"""

import os
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "cpp" / "src"
KERNELS = SOURCE / "kernels"
INCLUDE = ROOT / "cpp" / "include"
BINDINGS = ROOT / "python" / "bindings"


def cxx(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in {".hpp", ".cpp", ".h", ".inl"})


@cache
def included(path: Path) -> tuple[str, ...]:
    """What a file includes: `<vector>` for a system header, a path relative to the repository for one of ours."""
    names = []
    for quote, name in re.findall(
        r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(encoding="utf-8"), re.MULTILINE
    ):
        places = [folder / name for folder in (path.parent, SOURCE, INCLUDE) if (folder / name).is_file()]
        if places and (quote == '"' or name.startswith("anynorm/")):
            names.append(places[0].resolve().relative_to(ROOT).as_posix())
        else:
            names.append(f"<{name}>")
    return tuple(names)


STANDARD = r"<[a-z_]+>"  # no slash and no dot: a header of the C++ standard library
PUBLIC = r"cpp/include/anynorm/\w+\.hpp"
KERNEL = r"cpp/src/kernels/[\w.]+\.hpp"

# Which files may include what. The first pattern that matches a file decides.
RULES = {
    PUBLIC: (STANDARD, PUBLIC),
    r"cpp/src/kernels/.*": (r"<cstddef>", r"<cstdint>", r"<immintrin\.h>", r"<arm_neon\.h>", KERNEL),
    r"cpp/src/(layout|plan|overlap)\.[ch]pp": (
        STANDARD,
        r"cpp/include/anynorm/tensor_view\.hpp",
        r"cpp/src/(layout|plan|overlap)\.hpp",
    ),
    r"cpp/src/norms(_backward)?\.cpp": (STANDARD, PUBLIC, r"cpp/src/(validate|norm_axes|running|batch_renorm)\.hpp"),
    r"cpp/src/parallel\.cpp": (STANDARD, PUBLIC, r"<omp\.h>", r"<pthread\.h>", r"cpp/src/.*"),
    r"cpp/src/dispatch\.cpp": (STANDARD, PUBLIC, r"<cpuid\.h>", r"cpp/src/.*\.hpp"),
    r"cpp/src/.*": (STANDARD, PUBLIC, r"cpp/src/.*\.hpp"),
    r"python/bindings/memory\.cpp": (STANDARD, r"<(pthread|sys/mman)\.h>", r"<pybind11/.*>", r"python/bindings/.*"),
    r"python/bindings/.*": (STANDARD, PUBLIC, r"<(Python|structmember)\.h>", r"<pybind11/.*>", r"python/bindings/.*"),
    r"bench/kernels\.cpp": (
        STANDARD,
        PUBLIC,
        r"<benchmark/.*>",
        r"bench/.*",
        r"cpp/src/dispatch\.hpp",
        r"cpp/src/kernels/kernel_table\.hpp",
    ),
    r"(bench|examples|tests/consume)/.*": (STANDARD, PUBLIC, r"<benchmark/.*>", r"(bench|examples)/.*"),
}


def rule_for(name: str) -> tuple[str, ...]:
    return next(allowed for pattern, allowed in RULES.items() if re.fullmatch(pattern, name))


FILES = [path for folder in ("cpp", "python", "bench", "examples", "tests/consume") for path in cxx(ROOT / folder)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_includes(path: Path) -> None:
    allowed = rule_for(path.relative_to(ROOT).as_posix())
    refused = [name for name in included(path) if not any(re.fullmatch(pattern, name) for pattern in allowed)]
    assert not refused, f"expected includes among {allowed}, got {refused}"


def test_only_one_file_says_openmp() -> None:
    files = {
        path.name for path in cxx(ROOT / "cpp") if re.search(r"omp\.h|#\s*pragma\s+omp|\bomp_\w+\(", path.read_text())
    }
    assert files <= {"parallel.cpp"} | {path.name for path in INCLUDE.rglob("*.hpp")}
    assert not any("omp.h" in name for path in cxx(INCLUDE) for name in included(path))


def test_every_kernel_algorithm_has_one_source() -> None:
    """The per-ISA files name the instruction set and include; what they compile is written once."""
    for path in sorted(KERNELS.glob("*.cpp")):
        code = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("//")]
        assert len(code) <= 12, f"{path.name}: expected a handful of lines, got {len(code)}"
    definitions: dict[str, str] = {}
    for path in sorted(KERNELS.glob("*.inl.hpp")):
        text = path.read_text(encoding="utf-8")
        # Not the initializers of a constructor, which begin with a colon.
        for name in re.findall(r"^(?! *:)(?:[\w:<>*&, ]+ )?(\w+)\([^;]*$", text, re.MULTILINE):
            assert definitions.setdefault(name, path.name) == path.name, f"{name} is in two files"
    assert definitions


# --- what the objects hold -------------------------------------------------------------------------------------------

ISA_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2"],
    "neon": [],
}
NATIVE = {"x86_64": ["baseline", "avx2", "avx512"], "aarch64": ["baseline", "neon"]}
ISAS = NATIVE.get(platform.machine(), ["baseline"])


def compile_kernels(isa: str, level: str, tmp: Path) -> Path:
    target = tmp / f"{isa}{level}.o"
    flags = ["-std=c++20", "-ffp-contract=off", "-fno-math-errno", "-fno-exceptions", "-fno-ipa-ra"]
    flags += ["-Wno-psabi", f"-I{SOURCE}", *ISA_FLAGS[isa]]
    command = ["g++", level, *flags, "-c", str(KERNELS / f"{isa}.cpp"), "-o", str(target)]
    subprocess.run(command, check=True, env={**os.environ, "LD_PRELOAD": ""})
    return target


def optimized_kernels(isa: str, tmp: Path) -> list[Path]:
    if given := os.environ.get("ANYNORM_BUILD_DIR"):
        return list(Path(given).rglob(f"kernels/{isa}.cpp.o"))
    return [compile_kernels(isa, "-O2", tmp)]


@pytest.mark.skipif(not (shutil.which("g++") and shutil.which("nm")), reason="needs g++ and nm")
@pytest.mark.parametrize("isa", ISAS)
def test_kernel_objects_hold_nothing_the_linker_may_share(isa: str, tmp_path: Path) -> None:
    """A weak symbol compiled for AVX-512 that the linker keeps for everyone, or a constructor that runs before any
    dispatch, is an illegal instruction on an older CPU."""
    objects = optimized_kernels(isa, tmp_path)
    assert objects
    for path in [*objects, compile_kernels(isa, "-O0", tmp_path)]:
        output = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout
        symbols = [line.split()[-2:] for line in output.splitlines()]
        assert not [name for kind, name in symbols if kind in "WwVvu"], path
        assert not [name for _, name in symbols if "_GLOBAL__sub_I" in name], path
        exported = [name for kind, name in symbols if kind in "TDRBG"]
        assert len(exported) == 1, f"{path}: expected the kernel table alone, got {exported}"
        undefined = {name for kind, name in symbols if kind == "U"}
        # The first three are the compiler's own; the GOT is how position-independent code finds its table.
        assert undefined <= {"memset", "memcpy", "memmove", "_GLOBAL_OFFSET_TABLE_"}, undefined


@pytest.mark.skipif(not (shutil.which("g++") and shutil.which("objdump")), reason="needs g++ and objdump")
@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa.startswith("avx")])
def test_kernels_clear_the_upper_halves(isa: str, tmp_path: Path) -> None:
    """A kernel that returns without vzeroupper makes the SSE code of its caller wait, for longer than a short row."""
    for path in optimized_kernels(isa, tmp_path):
        output = subprocess.run(["objdump", "-d", str(path)], capture_output=True, text=True, check=True).stdout
        functions = re.split(r"^[0-9a-f]+ <(.*)>:$", output, flags=re.MULTILINE)[1:]
        kernels = dict(zip(functions[::2], functions[1::2], strict=True))
        assert kernels
        assert not [name for name, code in kernels.items() if re.search("%[yz]mm", code) and "vzeroupper" not in code]


# --- sizes and words -------------------------------------------------------------------------------------------------

TEXT = {".hpp", ".cpp", ".py", ".pyi", ".md", ".txt", ".cmake", ".in", ".toml", ".json", ".yml", ".yaml", ""}


def tracked() -> list[Path]:
    """The files of the project: git's list, or every file outside of build folders where there is no git."""
    try:
        names = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        skipped = {"build", "dist", ".git", ".nox", ".venv", "__pycache__"}
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if not skipped & set(path.parts)]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def texts() -> list[tuple[str, str]]:
    files = [path for path in tracked() if path.suffix in TEXT and path.name != "LICENSE"]
    return [(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in files]


def test_no_source_file_is_long() -> None:
    sizes = {name: text.count("\n") for name, text in texts() if name.endswith((".hpp", ".cpp", ".py", ".pyi", ".txt"))}
    assert not {name: size for name, size in sizes.items() if size > 500}


def test_sources_carry_one_licence_line() -> None:
    sources = [(name, text) for name, text in texts() if name.endswith((".hpp", ".cpp", ".py", "CMakeLists.txt"))]
    assert not [name for name, text in sources if text and text.count("SPDX-License" + "-Identifier") != 1]


SPELLINGS = {
    r"\bNumpy\b": "NumPy",
    r"\bPyBind11?\b|\bPybind11?\b": "pybind11",
    r"\bCmake\b": "CMake",
    r"\b[Pp]ytorch\b(?!\.)": "PyTorch",
    r"\bOpenMp\b|\bOpenmp\b": "OpenMP",
    r"\bAnyNorm\b|\bAnynorm\b": "anynorm",
    r"\bAVX512\b": "AVX-512",
    r"\bGithub\b": "GitHub",
}
QUOTED = re.compile(r"(`[^`\n]*`|https?://\S+)")


def prose(name: str, text: str) -> str:
    """The part of a file that is written for readers: of C++ the comments and the messages."""
    if name.endswith((".hpp", ".cpp")):
        text = "\n".join(re.findall(r'//.*$|"[^"\n]*"', text, re.MULTILINE))
    return QUOTED.sub("", text)


@pytest.mark.parametrize("wrong, right", SPELLINGS.items(), ids=SPELLINGS.values())
def test_names_are_spelled_as_their_owners_do(wrong: str, right: str) -> None:
    found = [
        f"{name}: {match[0]}, should be {right}"
        for name, text in texts()
        if name != Path(__file__).relative_to(ROOT).as_posix()
        for match in re.finditer(wrong, prose(name, text))
    ]
    assert not found


def test_no_path_of_somebodys_machine() -> None:
    pattern = re.compile(r"(?<![\w.$}])/(home|root|work|Users|mnt)/\w")
    assert not [(name, match[0]) for name, text in texts() for match in pattern.finditer(text)]
