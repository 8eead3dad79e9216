# SPDX-License-Identifier: Apache-2.0
"""The layers of `anynorm.nn` beside those of torch and the operators of ONNX, where these are installed."""

import numpy as np
import pytest

from anynorm import nn

SHAPE = (4, 6, 5, 3)

# Our layer, and torch's, in float64.
PAIRS = {
    "batch": (lambda: nn.BatchNorm(6, dtype=float), lambda t: t.nn.BatchNorm2d(6)),
    "batch-cumulative": (lambda: nn.BatchNorm(6, 1e-3, None, dtype=float), lambda t: t.nn.BatchNorm2d(6, 1e-3, None)),
    "batch-untracked": (
        lambda: nn.BatchNorm(6, affine=False, track_running_stats=False, dtype=float),
        lambda t: t.nn.BatchNorm2d(6, affine=False, track_running_stats=False),
    ),
    "layer": (lambda: nn.LayerNorm((5, 3), dtype=float), lambda t: t.nn.LayerNorm((5, 3))),
    "layer-no-bias": (lambda: nn.LayerNorm(3, bias=False, dtype=float), lambda t: t.nn.LayerNorm(3, bias=False)),
    "instance": (lambda: nn.InstanceNorm(6, dtype=float), lambda t: t.nn.InstanceNorm2d(6)),
    "instance-tracked": (
        lambda: nn.InstanceNorm(6, 1e-3, 0.3, True, True, dtype=float),
        lambda t: t.nn.InstanceNorm2d(6, 1e-3, 0.3, True, True),
    ),
    "group": (lambda: nn.GroupNorm(2, 6, dtype=float), lambda t: t.nn.GroupNorm(2, 6)),
    "rms": (lambda: nn.RMSNorm(3, dtype=float), lambda t: t.nn.RMSNorm(3)),
}


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("name", PAIRS)
def test_torch(torch, name, rng):
    """Train, accumulate, evaluate; the states go there and back."""
    make, make_theirs = PAIRS[name]
    ours, theirs = make(), make_theirs(torch).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for value in ours.parameters().values():
        value[...] = rng.normal(1, 0.5, value.shape)
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    for mode in (True, True, False):
        ours.train(mode)
        theirs.train(mode)
        x, grad_output = rng.normal(1, 2, (2, *SHAPE))
        tensor = torch.from_numpy(x).requires_grad_()
        result = theirs(tensor)
        result.backward(torch.from_numpy(grad_output))
        np.testing.assert_allclose(ours(x), result.detach().numpy(), rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(ours.backward(grad_output), tensor.grad.numpy(), rtol=1e-9, atol=1e-12)
    for key, gradient in ours.gradients().items():
        np.testing.assert_allclose(gradient, getattr(theirs, key).grad.numpy(), rtol=1e-10, atol=1e-12)
    again = make()
    assert again.load_state_dict(theirs.state_dict()) == ([], [])
    for key, value in ours.state_dict().items():
        np.testing.assert_allclose(value, again.state_dict()[key], rtol=1e-12)


@pytest.mark.parametrize("dim", [0, 1, None])
def test_torch_weight_norm(torch, dim, rng):
    theirs = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 3).double(), dim=dim)
    ours = nn.WeightNorm(rng.normal(size=(3, 4)), dim)
    ours.load_state_dict(theirs.state_dict(), prefix="parametrizations.weight.")
    x, grad_output = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    result = theirs(torch.from_numpy(x))
    result.backward(torch.from_numpy(grad_output))
    np.testing.assert_allclose(x @ ours().T + theirs.bias.detach().numpy(), result.detach().numpy(), rtol=1e-11)
    ours.backward(grad_output.T @ x)
    originals = theirs.parametrizations.weight
    np.testing.assert_allclose(ours.grad_g, originals.original0.grad.numpy(), rtol=1e-11)
    np.testing.assert_allclose(ours.grad_v, originals.original1.grad.numpy(), rtol=1e-10, atol=1e-13)


@pytest.mark.peer
def test_onnx_batch_norm(rng):
    """The operator in training and in inference, by the standard's own reference; its attributes are float32."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    names = ["X", "scale", "B", "input_mean", "input_var"]
    x, state = rng.normal(2, 3, (4, 6, 5)), rng.uniform(1, 2, (4, 6))

    def run(training, outputs):
        node = helper.make_node("BatchNormalization", names, outputs, momentum=0.75, training_mode=training)
        infos = [
            [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in given]
            for given in (names, outputs)
        ]
        model = helper.make_model(helper.make_graph([node], "g", *infos), opset_imports=[helper.make_opsetid("", 15)])
        return ReferenceEvaluator(model).run(None, dict(zip(names, (x, *state), strict=True)))

    layer = nn.BatchNorm.from_onnx(*state, momentum=0.75)
    np.testing.assert_allclose(layer.eval()(x), run(0, ["Y"])[0], rtol=1e-11, atol=1e-12)
    y, mean, var = run(1, ["Y", "mean", "var"])
    np.testing.assert_allclose(layer.train()(x), y, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, var, rtol=1e-12)
