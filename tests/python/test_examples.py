# SPDX-License-Identifier: Apache-2.0
"""The example runs as a reader would run it, and what it prints and draws is true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart.py"
SHAPES = {"BatchNorm": "(6,)", "LayerNorm": "(2,)", "InstanceNorm": "(2, 6)", "GroupNorm": "(2, 2)", "RMSNorm": "(2,)"}


def python(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example has run once, with a picture; its output is in printed.txt."""
    for needed in ("sklearn", "matplotlib", "PIL"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("quickstart")
    done = python(EXAMPLE, "-o", "picture.png", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder / "printed.txt").write_text(done.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def printed(folder: Path) -> str:
    return (folder / "printed.txt").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("norm", SHAPES)
def test_statistics(printed: str, norm: str) -> None:
    found = re.search(rf"^{norm} +(\(.*\)) +before .*\n .* after +(.*)$", printed, re.MULTILINE)
    assert found
    mean, std, low, high = map(float, found[2].split())
    assert found[1] == SHAPES[norm]
    assert low < mean < high
    if norm == "RMSNorm":
        assert mean**2 + std**2 == pytest.approx(1, abs=2e-3)
    else:
        assert (mean, std) == pytest.approx((0, 1), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", SHAPES)
def test_comparison(printed: str, norm: str) -> None:
    found = re.search(rf"^{norm} +(\S+e\S+) +(\S+e\S+) +(\S+) +(\S+) +(\S+)x$", printed, re.MULTILINE)
    assert found
    error, *others = map(float, found.groups())
    assert error <= 2e-6  # the promise for float32 outputs
    assert min(others) > 0


@pytest.mark.slow
def test_picture(folder: Path) -> None:
    from PIL import Image

    with Image.open(folder / "picture.png") as picture:
        assert picture.size == (1620, 1053)
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert picture.getcolors(1000) is None  # more colours than a thousand: the photographs are there
    assert (folder / "picture.png").stat().st_size < 700_000


@pytest.mark.parametrize(
    ("missing", "call"), [("sklearn", "load_photographs()"), ("matplotlib", "save(None, None, {})")]
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(missing: str, call: str, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(EXAMPLE.parent)!r}); sys.modules[{missing!r}] = None\n"
    done = python("-c", f"{code}import quickstart; quickstart.{call}", folder=tmp_path)
    assert done.returncode == 1
    assert missing in done.stderr
    assert 'pip install "anynorm[examples]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_no_picture_draws_nothing(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    code = f"import sys; sys.path.insert(0, {str(EXAMPLE.parent)!r}); import quickstart\n"
    code += "quickstart.REPETITIONS = 1; sys.argv[1:] = ['--no-picture']; quickstart.main()\n"
    code += "assert 'matplotlib' not in sys.modules"
    done = python("-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
