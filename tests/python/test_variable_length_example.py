# SPDX-License-Identifier: Apache-2.0
"""The example of padded sentences: its table says what a mask undoes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "variable_length.py"


@pytest.fixture(scope="module")
def printed() -> str:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("norm", ["BatchNorm", "LayerNorm", "InstanceNorm"])
def test_the_leak_grows_with_the_padding_and_is_gone_with_a_mask(printed: str, norm: str) -> None:
    rows = re.findall(rf"^{norm} +(\d+) words +(\d+)% +(\S+) +(\S+) +(\S+) +(\S+)$", printed, re.MULTILINE)
    assert len(rows) == 4
    length, share, std, change, masked_std, masked_change = (
        list(map(float, column)) for column in zip(*rows, strict=True)
    )
    assert length == sorted(length)
    assert share == sorted(share)
    assert change == sorted(change)
    assert change[0] > 0.1
    assert all(abs(value - 1) > 0.05 for value in std)
    assert all(value == pytest.approx(1, abs=2e-3) for value in masked_std)
    assert max(masked_change) < 1e-5
