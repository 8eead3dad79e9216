# SPDX-License-Identifier: Apache-2.0
"""The layers of `anynorm.nn`: checkpoints, the conventions of Keras and ONNX, representations, refusals."""

import numpy as np
import pytest

from anynorm import nn

F32 = np.float32

MAKERS = {
    "batch": lambda: nn.BatchNorm(3),
    "batch-untracked": lambda: nn.BatchNorm(3, affine=False, track_running_stats=False),
    "layer": lambda: nn.LayerNorm((2, 3)),
    "rms": lambda: nn.RMSNorm(3),
    "instance": lambda: nn.InstanceNorm(3, affine=True, track_running_stats=True),
    "group": lambda: nn.GroupNorm(3, 3, bias=False),
    "weight": lambda: nn.WeightNorm(np.arange(1, 7, dtype=F32).reshape(2, 3)),
}
KEYS = {
    "batch": "weight bias running_mean running_var num_batches_tracked",
    "batch-untracked": "",
    "layer": "weight bias",
    "rms": "weight",
    "instance": "weight bias running_mean running_var num_batches_tracked",
    "group": "weight",
    "weight": "original0 original1",
}


def random_state(layer, rng):
    state = layer.state_dict()
    return {key: rng.integers(1, 9, value.shape).astype(value.dtype) for key, value in state.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_a_state_is_loaded_into_the_arrays_that_were_there(name, rng):
    layer, other = MAKERS[name](), MAKERS[name]()
    assert list(layer.state_dict()) == KEYS[name].split()
    state = random_state(layer, rng)
    arrays = layer.parameters()
    assert layer.load_state_dict(state) == ([], [])
    assert all(layer.parameters()[key] is value for key, value in arrays.items())
    copied = layer.state_dict(prefix="block.0.")
    other.load_state_dict({**copied, "head.weight": np.ones(7)}, prefix="block.0.")
    for key, value in other.state_dict().items():
        np.testing.assert_array_equal(value, state[key])
        assert value.dtype == state[key].dtype
    for value in copied.values():  # copies: what is done to them is not done to the layer
        value[...] = 0
    assert all(value.all() for value in layer.state_dict().values())


@pytest.mark.parametrize("name", [name for name in MAKERS if KEYS[name]])
@pytest.mark.parametrize("strict", [True, False])
def test_missing_and_unexpected_keys(name, strict, rng):
    layer = MAKERS[name]()
    before, state = layer.state_dict(), random_state(layer, rng)
    first = next(iter(state))
    state["gamma"] = state.pop(first)
    if strict:
        with pytest.raises(ValueError, match=rf"expected the keys {first}.*, got missing {first}; unexpected gamma"):
            layer.load_state_dict(state)
    else:
        assert layer.load_state_dict(state, strict=False) == ([first], ["gamma"])
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key] if strict or key == first else state[key])


def test_the_number_of_batches_may_be_missing():
    layer = nn.BatchNorm(2)
    layer(np.arange(8, dtype=F32).reshape(4, 2))
    state = nn.BatchNorm(2).state_dict()
    del state["num_batches_tracked"]
    layer.load_state_dict(state)
    assert layer.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("name", "key", "value", "error", "message"),
    [
        ("batch", "running_var", np.ones(4), ValueError, r"expected running_var of shape \(3,\), got \(4,\)"),
        ("layer", "bias", np.ones(6), ValueError, r"expected bias of shape \(2, 3\), got \(6,\)"),
        ("batch", "num_batches_tracked", 1.5, TypeError, "expected num_batches_tracked of numbers that fit int64"),
        ("rms", "weight", np.ones(3, complex), TypeError, "of numbers that fit float32, got complex128"),
        ("group", "weight", ["a", "b", "c"], TypeError, "of numbers that fit float32"),
        ("weight", "original1", np.eye(2, 3) * [[0], [1]], ValueError, "other than 0, got 0 for slice 0 along axis 0"),
    ],
)
def test_a_refused_state_leaves_the_layer_as_it_was(name, key, value, error, message, rng):
    layer = MAKERS[name]()
    before = layer.state_dict()
    with pytest.raises(error, match=rf"{type(layer).__name__}\.load_state_dict: .*{message}"):
        layer.load_state_dict({**random_state(layer, rng), key: value})
    for own, kept in before.items():
        np.testing.assert_array_equal(layer.state_dict()[own], kept)


@pytest.mark.parametrize("prefix", ["parametrizations.weight.original", "weight_", "layer1.weight_"])
def test_weight_norm_loads_both_of_torchs_names(prefix):
    g, v = np.array([[2.0], [3.0]], F32), np.array([[1, 1, 1], [0, 1, 2]], F32)
    names = ("0", "1") if prefix.endswith("original") else ("g", "v")
    state = {prefix + name: value for name, value in zip(names, (g, v), strict=True)}
    layer = MAKERS["weight"]()
    layer.load_state_dict(state, prefix=prefix.removesuffix("original").removesuffix("weight_"))
    np.testing.assert_allclose(layer(), g * v / np.linalg.norm(v, axis=1, keepdims=True), rtol=1e-6)


# --- Keras and ONNX --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "eps", "retained"),
    [
        (lambda *a: nn.BatchNorm.from_keras(*a), 1e-3, 0.99),
        (lambda *a: nn.BatchNorm.from_keras(*a, momentum=0.9, epsilon=1e-4, axis=1), 1e-4, 0.9),
        (lambda *a: nn.BatchNorm.from_onnx(*a), 1e-5, 0.9),
        (lambda *a: nn.BatchNorm.from_onnx(*a, epsilon=1e-4, momentum=0.8), 1e-4, 0.8),
    ],
    ids=["keras", "keras-options", "onnx", "onnx-options"],
)
def test_batch_norm_goes_on_by_the_conventions_of_keras_and_onnx(load, eps, retained, rng):
    """As their documents say: ``moving = moving * momentum + batch * (1 - momentum)``, with the population variance."""
    gamma, beta, mean, var = rng.uniform(1, 2, (4, 5))
    x = rng.normal(3, 2, (6, 5))
    layer = load(gamma, beta, mean, var)
    normalized = (x - mean) / np.sqrt(var + eps) * gamma + beta
    np.testing.assert_allclose(layer.eval()(x), normalized, rtol=1e-12)
    layer.train()(x)
    np.testing.assert_allclose(layer.running_mean, mean * retained + x.mean(axis=0) * (1 - retained), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, var * retained + x.var(axis=0) * (1 - retained), rtol=1e-12)


def test_layers_without_gamma_or_beta():
    ones = np.ones(4, F32)
    without_scale = nn.BatchNorm.from_keras(None, 2 * ones, 0 * ones, ones, epsilon=0.0)
    assert list(without_scale.parameters()) == ["bias"]
    assert list(without_scale.state_dict()) == ["bias", "running_mean", "running_var", "num_batches_tracked"]
    np.testing.assert_array_equal(without_scale.eval()(np.ones((1, 4))), np.full((1, 4), 3.0))
    without_scale.backward(np.ones((1, 4)))
    np.testing.assert_array_equal(without_scale.grad_bias, ones)
    assert list(nn.LayerNorm.from_keras(ones, None).parameters()) == ["weight"]
    assert list(nn.LayerNorm.from_onnx(ones).parameters()) == ["weight"]


def test_other_layers_from_keras_and_onnx(rng):
    x = rng.normal(size=(3, 4, 6))
    gamma, beta = rng.normal(size=(2, 6))
    one, two = rng.normal(size=(2, 4, 6))
    channels = {"axis": (-2, -1), "keepdims": True}
    pairs = [
        (nn.LayerNorm.from_keras(gamma, beta), {"axis": -1}, 1e-3, (gamma, beta)),
        (nn.LayerNorm.from_keras(one, two, axis=(1, 2)), {"axis": (1, 2)}, 1e-3, (one, two)),
        (nn.GroupNorm.from_keras(gamma, beta, 1), channels, 1e-3, (gamma, beta)),
        (nn.GroupNorm.from_keras(gamma, beta, -1), {"axis": 1}, 1e-3, (gamma, beta)),
        (nn.LayerNorm.from_onnx(one, two), {"axis": (1, 2)}, 1e-5, (one, two)),
        (nn.InstanceNorm.from_onnx(one[:, 0], two[:, 0]), {"axis": 2}, 1e-5, (one[:, :1], two[:, :1])),
        (nn.GroupNorm.from_onnx(one[:, 0], two[:, 0], num_groups=1), channels, 1e-5, (one[:, :1], two[:, :1])),
    ]
    for layer, axes, eps, (weight, bias) in pairs:
        options = {**axes, "keepdims": True}
        expected = (x - x.mean(**options)) / np.sqrt(x.var(**options) + eps) * weight + bias
        np.testing.assert_allclose(layer(x), expected, rtol=1e-12, atol=1e-12, err_msg=repr(layer))
        assert all(value.dtype == x.dtype for value in layer.parameters().values())
    for rms, eps in ((nn.RMSNorm.from_keras(gamma), 1e-6), (nn.RMSNorm.from_onnx(gamma), 1e-5)):
        expected = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * gamma
        np.testing.assert_allclose(rms(x), expected, rtol=1e-12)


# --- representations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "BatchNorm(64, eps=1e-05, momentum=None, affine=False, bias=False, track_running_stats=True)",
        "BatchNorm(2, eps=1.0, momentum=0.1, affine=True, bias=True, track_running_stats=False, one_element='bias')",
        "BatchNorm(2, eps=1.0, momentum=0.1, affine=True, bias=True, track_running_stats=True, channel_axis=-1)",
        "BatchNorm(2, eps=1.0, momentum=0.1, affine=True, bias=True, track_running_stats=True, correction=0)",
        "BatchNorm(2, eps=1.0, momentum=0.1, affine=True, bias=True, track_running_stats=True, nonfinite='skip')",
        "InstanceNorm(2, eps=1e-05, momentum=0.3, affine=True, bias=False, track_running_stats=True)",
        "LayerNorm((3, 7), eps=1e-05, elementwise_affine=True, bias=False, dtype='float64')",
        "LayerNorm((3,), eps=1e-05, elementwise_affine=False, bias=False, axis=(1,))",
        "RMSNorm((3, 7), eps=None, elementwise_affine=True, axis=(-3, 2))",
        "GroupNorm(2, 4, eps=1e-05, affine=True, bias=True, channel_axis=-1, dtype='float16')",
    ],
)
def test_a_repr_is_the_call_that_makes_the_layer(text):
    assert repr(eval(text, vars(nn))) == text


def test_weight_norm_tells_its_shape():
    assert repr(nn.WeightNorm(np.ones((2, 3)), None)) == "WeightNorm((2, 3), dim=None)"


# --- refusals --------------------------------------------------------------------------------------------------------

SHAPES = {
    "batch": (lambda: nn.BatchNorm(64), (8, 32, 14, 14), "BatchNorm: expected x with 64 channels on axis 1"),
    "batch-last": (lambda: nn.BatchNorm(64, channel_axis=-1), (8, 32), "BatchNorm: .* 64 channels on axis -1"),
    "batch-vector": (lambda: nn.BatchNorm(64), (64,), "BatchNorm: expected x with 64 channels on axis 1"),
    "instance": (lambda: nn.InstanceNorm(3), (8, 32, 14), "InstanceNorm: expected x with 3 channels on axis 1"),
    "group": (lambda: nn.GroupNorm(2, 64), (8, 32), "GroupNorm: expected x with 64 channels on axis 1"),
    "layer": (lambda: nn.LayerNorm(768), (8, 512), "LayerNorm: expected x with length 768 on axis -1"),
    "layer-many": (lambda: nn.LayerNorm((3, 4)), (3, 5), r"with lengths \(3, 4\) on axes \(-2, -1\)"),
    "layer-scalar": (lambda: nn.LayerNorm(768), (), "LayerNorm: expected x with length 768 on axis -1"),
    "rms": (lambda: nn.RMSNorm(12, axis=1), (8, 11, 2), "RMSNorm: expected x with length 12 on axis 1"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_input_of_another_shape(name):
    make, shape, message = SHAPES[name]
    layer = make()
    before = layer.state_dict()
    escaped = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=f"{message}, got shape {escaped}$"):
        layer(np.ones(shape, F32))
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(
    ("x", "selection", "error"),
    [
        (np.ones((4, 2), np.int64), {}, TypeError),
        (np.ones((1, 2)), {}, ValueError),
        (np.ones((4, 2)), {"where": np.ones(3, bool)}, ValueError),
        (np.ones((4, 2)), {"labels": [0, 0, 1, 1]}, ValueError),
        (np.ones((4, 2)), {"mask": np.ones((4, 2), bool)}, TypeError),
    ],
    ids=["integers", "one-element", "mask-of-other-shape", "labels", "unknown-keyword"],
)
def test_a_refused_call_changes_nothing(x, selection, error, momentum, rng):
    layer = nn.BatchNorm(2, momentum=momentum)
    kept = rng.normal(size=(4, 2))
    y = layer(kept)
    before = layer.state_dict()
    with pytest.raises(error):
        layer(x, **selection)
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    with pytest.raises(ValueError, match=r"expected grad_output of shape \(4, 2\), got \(4,\)"):
        layer.backward(y[:, 0])
    assert not layer.grad_bias.any()
    layer.backward(y)  # that of the call that was not refused


@pytest.mark.parametrize("name", MAKERS)
def test_backward_needs_a_forward_call(name):
    layer = MAKERS[name]()
    grad_output = np.ones((2, 3), F32)
    call = layer if name == "weight" else lambda: layer(grad_output * [[1], [2]])
    for _ in range(2):
        with pytest.raises(RuntimeError, match=rf"^{type(layer).__name__}\.backward: expected a forward call before"):
            layer.backward(grad_output)
        call() if name != "instance" else layer(np.ones((2, 3, 2), F32))
        layer.backward(grad_output if name != "instance" else np.ones((2, 3, 2), F32))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.GroupNorm(7, 64), ValueError, "GroupNorm: expected num_groups that divides 64 channels, got 7"),
        (lambda: nn.GroupNorm(0, 64), ValueError, "GroupNorm: expected num_groups that divides 64 channels, got 0"),
        (lambda: nn.BatchNorm(3, dtype=np.int32), TypeError, "BatchNorm: expected dtype float16, .* got int32"),
        (lambda: nn.LayerNorm((3, 4), axis=1), ValueError, r"LayerNorm: expected an axis for each length of \(3, 4\)"),
        (lambda: nn.LayerNorm(()), ValueError, "LayerNorm: expected an axis for each length"),
        (lambda: nn.BatchNorm(3.0), TypeError, "'float' object cannot be interpreted as an integer"),
        (lambda: nn.WeightNorm(np.ones((2, 3)), -1), ValueError, "WeightNorm: expected dim None or from 0 to 1, got -1"),
        (lambda: nn.WeightNorm(np.ones(())), ValueError, "WeightNorm: expected"),
        (lambda: nn.WeightNorm(np.ones((2, 3), int)), TypeError, "WeightNorm: expected dtype"),
        (lambda: nn.WeightNorm(np.zeros((2, 3)), None), ValueError, "other than 0, got 0 for the weight"),
        (lambda: nn.LayerNorm.from_keras(None, None), ValueError, "LayerNorm.from_keras: expected gamma or beta, got"),
        (lambda: nn.GroupNorm.from_keras(None, None), ValueError, "affine=False, channel_axis=axis. has neither"),
        (lambda: nn.BatchNorm.from_keras([1], [0], [0, 0], [1, 1]), ValueError,
         r"BatchNorm.from_keras: expected weight of shape \(2,\), got \(1,\)"),
    ],
)  # fmt: skip
def test_refused_layers(make, error, message):
    with pytest.raises(error, match=message):
        make()
