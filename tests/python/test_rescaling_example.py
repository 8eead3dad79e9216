# SPDX-License-Identifier: Apache-2.0
"""The example of the invariances: its table is that of the paper, and its picture is drawn."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "rescaling_invariance.py"
# Ba, Kiros, Hinton, table 1, for batch and layer norm; the other two by the same reasoning.
EXPECTED = {
    "all data x": "yes yes yes yes",
    "one sample of x": "no yes yes yes",
    "weight matrix W": "yes yes yes yes",
    "weight vector, a row of W": "yes no yes no",
}


def python(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("rescaling")
    done = python(EXAMPLE, "--no-picture", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not list(folder.iterdir())
    return done.stdout


@pytest.mark.parametrize("row", EXPECTED)
def test_the_table(printed: str, row: str) -> None:
    found = re.search(rf"^{row} +((?:(?:yes|no) +\S+ *)+)$", printed, re.MULTILINE)
    assert found
    answers = found[1].split()
    assert answers[::2] == EXPECTED[row].split()
    for answer, change in zip(answers[::2], map(float, answers[1::2]), strict=True):
        assert change <= 1e-6 if answer == "yes" else change > 0.1


def test_a_norm_that_remembers_is_found_out(tmp_path: Path) -> None:
    """The check of the example can fail: with eps the bits change."""
    code = f"import sys; sys.path.insert(0, {str(EXAMPLE.parent)!r})\n"
    code += "import rescaling_invariance as example, dataclasses, anynorm\n"
    code += "norm = dataclasses.replace(example.NORMS[2], call=lambda z: anynorm.instance_norm(z, eps=1e-3))\n"
    code += "example.NORMS = (norm,); sys.argv[1:] = ['--no-picture']; example.main()\n"
    done = python("-c", code, folder=tmp_path)
    assert "AssertionError: ('all data x', 'InstanceNorm'" in done.stderr


def test_picture(tmp_path: Path) -> None:
    for needed in ("matplotlib", "PIL"):
        pytest.importorskip(needed)
    from PIL import Image

    done = python(EXAMPLE, "-o", "picture.png", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (1296, 846)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(100_000)}
        assert {(255, 255, 255), (0, 114, 178), (213, 94, 0), (0, 158, 115), (176, 80, 142)} <= colours
    assert (tmp_path / "picture.png").stat().st_size < 200_000
