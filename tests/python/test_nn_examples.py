# SPDX-License-Identifier: Apache-2.0
"""The networks of examples/ run as a reader would run them, and what they are made of is right."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str, folder: Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import _network

    return _network


@pytest.mark.parametrize("channels, outputs, size, stride, groups", [(3, 4, 3, 1, 1), (4, 6, 3, 2, 2), (6, 6, 1, 1, 6)])
def test_the_gradients_of_a_convolution_are_its_adjoint(network, channels, outputs, size, stride, groups, rng):
    """It is linear in x and in the weight, so ``sum(grad * y)`` is ``sum(grad_x * x)`` and ``sum(grad_w * w)``."""
    layer = network.Conv2d(rng, channels, outputs, size, stride, groups)
    layer.weight, layer.grad_weight = layer.weight.astype(float), layer.grad_weight.astype(float)
    x = rng.normal(size=(2, channels, 8, 8))
    y = layer.forward(x)
    assert y.shape == (2, outputs, 8 // stride, 8 // stride)
    here = (slice(None), slice(0, channels // groups), slice(0, size), slice(0, size))
    first = (x[here] * layer.weight[0]).sum(axis=(1, 2, 3))  # the patch at one place, without padding
    if stride == 1:
        np.testing.assert_allclose(y[:, 0, size // 2, size // 2], first)
    grad = rng.normal(size=y.shape)
    grad_x = layer.backward(grad)
    np.testing.assert_allclose(np.vdot(grad, y), np.vdot(grad_x, x))
    np.testing.assert_allclose(np.vdot(grad, y), np.vdot(layer.grad_weight, layer.weight))


def test_cross_entropy(network, rng):
    logits, labels = rng.normal(size=(3, 5)), np.array([0, 4, 2])
    loss, gradient = network.cross_entropy(logits, labels)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert loss == pytest.approx(-np.log(probabilities[np.arange(3), labels]).mean())
    step = 1e-6 * np.eye(5)[2]
    numeric = (network.cross_entropy(logits + step * [[1], [0], [0]], labels)[0] - loss) / 1e-6
    assert gradient[0, 2] == pytest.approx(numeric, rel=1e-4)


@pytest.mark.slow
def test_train_digits(tmp_path: Path) -> None:
    for needed in ("sklearn", "matplotlib"):
        pytest.importorskip(needed)
    printed = run("train_digits.py", "--quick", "--workers=2", "-o", "picture.png", folder=tmp_path)
    for norm in ("BatchNorm", "GroupNorm", "LayerNorm", "InstanceNorm", "no norm"):
        assert re.search(
            rf"^ +\d+ of 10  {norm} +batches of +4  seed 0 +\d+\.\d %   0:\d\d gone", printed, re.MULTILINE
        )
        row = re.search(rf"^{norm} +([\d.]+) \+- [\d.]+ +([\d.]+) \+- [\d.]+$", printed, re.MULTILINE)
        assert row
        assert all(0 < float(mean) <= 100 for mean in row.groups())
    picture = tmp_path / "picture.png"
    assert picture.stat().st_size > 10_000
    again = run("train_digits.py", "--quick", "--workers=1", "--no-picture", folder=tmp_path)
    assert again.split("\n\n")[1] in printed  # the table, whatever the order of the runs
    assert list(tmp_path.iterdir()) == [picture]


@pytest.mark.slow
def test_ghostnet_block(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    printed = run("ghostnet_block.py", "--quick", folder=tmp_path)
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", printed)]
    assert losses[-1] < losses[0]
    assert re.search(r"^with batch norm +10 convolutions, 10 batch norms", printed, re.MULTILINE)
    assert re.search(r"^folded +10 convolutions,  0 batch norms", printed, re.MULTILINE)
    difference = re.search(r"largest difference of the logits: (\S+) of the largest$", printed)
    assert difference
    assert float(difference[1]) < 1e-6
