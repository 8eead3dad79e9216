# SPDX-License-Identifier: Apache-2.0
"""The layers of `anynorm.nn`: results and gradients against the oracle, accumulation, modes, running statistics."""

import copy
import pickle
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cases
import numpy as np
import pytest
import reference

import anynorm
from anynorm import nn

F32, F64 = np.float32, np.float64
SHAPE = (4, 12, 5, 3)
EPS = 1e-3


@dataclass(frozen=True)
class Case:
    """A layer, and the oracle's name and arguments for it, but for the parameters."""

    name: str
    make: Callable[..., nn.Layer]
    oracle: str
    arguments: dict[str, Any]


CASES = [
    Case("batch", lambda **o: nn.BatchNorm(12, EPS, **o), "batch_norm", {"training": True}),
    Case(
        "batch-last",
        lambda **o: nn.BatchNorm(3, EPS, channel_axis=-1, **o),
        "batch_norm",
        {"training": True, "channel_axis": -1},
    ),
    Case("batch-no-bias", lambda **o: nn.BatchNorm(12, EPS, bias=False, **o), "batch_norm", {"training": True}),
    Case(
        "batch-untracked",
        lambda **o: nn.BatchNorm(12, EPS, None, track_running_stats=False, **o).eval(),
        "batch_norm",
        {"training": True},
    ),
    Case("layer", lambda **o: nn.LayerNorm((5, 3), EPS, **o), "layer_norm", {"axis": (2, 3)}),
    Case("layer-channels", lambda **o: nn.LayerNorm(12, EPS, axis=1, **o), "layer_norm", {"axis": 1}),
    Case("layer-plain", lambda **o: nn.LayerNorm(3, EPS, False, **o), "layer_norm", {"axis": 3}),
    Case("rms", lambda **o: nn.RMSNorm(3, EPS, **o), "rms_norm", {"axis": 3}),
    Case("rms-axes", lambda **o: nn.RMSNorm((12, 3), axis=(1, -1), **o), "rms_norm", {"axis": (1, 3)}),
    Case("instance", lambda **o: nn.InstanceNorm(12, EPS, affine=True, **o), "instance_norm", {}),
    Case("group", lambda **o: nn.GroupNorm(4, 12, EPS, **o), "group_norm", {"num_groups": 4}),
    Case(
        "group-last",
        lambda **o: nn.GroupNorm(3, 3, EPS, channel_axis=-1, **o),
        "group_norm",
        {"num_groups": 3, "channel_axis": -1},
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


def fill(layer, rng):
    for value in layer.parameters().values():
        value[...] = rng.normal(1, 0.5, value.shape)
    return layer


def oracle(case, layer, x, grad_output=None):
    """The result, or with `grad_output` the gradients."""
    arguments = {**case.arguments, "eps": layer.eps, **layer.parameters()}
    if grad_output is None:
        return getattr(reference, case.oracle)(x, **arguments)
    return getattr(reference, f"{case.oracle}_backward")(grad_output, x, **arguments)


def close(ours, expected, dtype):
    atol = {F32: 2e-5, F64: 1e-12}[dtype]
    np.testing.assert_allclose(ours, expected, rtol=1e-6 if dtype is F32 else 1e-12, atol=atol)


@pytest.mark.parametrize("name", ["c", "channels_last", "negative_step2"])
def test_forward_and_backward(case, name, dtype, rng):
    layer = fill(case.make(dtype=dtype), rng)
    x, grad_output = (cases.LAYOUT[name].place(rng.normal(size=SHAPE).astype(dtype)) for _ in range(2))
    y = layer(x)
    assert y.dtype == x.dtype
    close(y, oracle(case, layer, x), dtype)
    grad_input = layer.backward(grad_output)
    expected = oracle(case, layer, x, grad_output)
    close(grad_input, expected.grad_input, dtype)
    assert layer.gradients().keys() == layer.parameters().keys()
    for key, gradient in layer.gradients().items():
        assert gradient.dtype == layer.parameters()[key].dtype
        close(gradient, getattr(expected, f"grad_{key}"), dtype)


FUNCTIONS = {"num_groups", "channel_axis", "axis"}  # the arguments of an oracle that the functions have too


@pytest.mark.parametrize("kind", ["where", "sample_weight", "nan"])
def test_selections_are_those_of_the_functions(case, kind, dtype, rng):
    """The same bits forward and backward, what the layer keeps between them included."""
    layer = fill(case.make(dtype=dtype), rng)
    x, grad_output = rng.normal(size=(2, *SHAPE)).astype(dtype)
    some = rng.random(SHAPE) < 0.7
    x[~some] = 1e9 if kind == "where" else x[~some]
    selection = {
        "where": {"where": some, "excluded": "input"},
        "sample_weight": {"sample_weight": rng.uniform(0.5, 2, SHAPE)},
        "nan": {"nan_policy": "omit"},
    }[kind]
    if kind == "nan":
        x[~some] = np.nan
    options = {key: value for key, value in case.arguments.items() if key in FUNCTIONS} | selection
    options |= {"training": True} if case.oracle == "batch_norm" else {}
    y = layer(x, **selection)
    parameters = {"eps": layer.eps, **layer.parameters()}
    expected, used = getattr(anynorm, case.oracle)(x, **options, **parameters, return_moments=True)
    assert cases.same_bits(y, expected)
    gradients = getattr(anynorm, f"{case.oracle}_backward")(grad_output, x, **options, **parameters, moments=used)
    assert cases.same_bits(layer.backward(grad_output), gradients.grad_input)
    for key, gradient in layer.gradients().items():
        assert cases.same_bits(gradient, getattr(gradients, f"grad_{key}"))


@pytest.mark.parametrize("name", ["labels", "segments"])
def test_sets_that_labels_and_segments_divide(name, rng):
    x, grad_output = rng.normal(size=(2, 6, 4)).astype(F32)
    selection = {"labels": [0, 0, 0, 1, 1, 1]} if name == "labels" else {"segments": [0, 3, 6]}
    layer = fill(nn.BatchNorm(4, track_running_stats=False), rng)
    whole = layer(x, **selection), layer.backward(grad_output)
    parts = [(layer(x[part]), layer.backward(grad_output[part])) for part in (slice(0, 3), slice(3, 6))]
    for ours, theirs in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_allclose(ours, np.concatenate(theirs), rtol=1e-6, atol=1e-6)
    tracked = nn.BatchNorm(4)
    with pytest.raises(ValueError, match="batch_norm: expected no running statistics where labels or segments split"):
        tracked(x, **selection)
    with pytest.raises(TypeError, match="sample_weights"):
        tracked(x, sample_weights=np.ones(6))
    assert tracked.num_batches_tracked == 0


def test_running_statistics_learn_what_a_mask_leaves(rng):
    x = rng.normal(3, 2, size=(4, 12, 9)).astype(F32)
    is_word = np.arange(9) < np.array([9, 4, 6, 2])[:, None, None]
    ours, theirs = nn.BatchNorm(12), nn.BatchNorm(12)
    y = ours(np.ma.array(x, mask=np.broadcast_to(~is_word, x.shape)))
    expected = theirs(x.transpose(0, 2, 1)[is_word[:, 0]])
    assert cases.same_bits(y.data.transpose(0, 2, 1)[is_word[:, 0]], expected)
    assert cases.same_bits(ours.running_mean, theirs.running_mean)
    assert cases.same_bits(ours.running_var, theirs.running_var)
    in_evaluation = ours.eval()(x, where=is_word)
    assert np.all((in_evaluation != 0) == is_word)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_halves(case, kind, rng):
    """Parameters, input and gradients of a half type; running statistics are kept in float32."""
    kind = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if kind == "bfloat16" else kind)
    layer = fill(case.make(dtype=kind), rng)
    x = rng.normal(size=SHAPE).astype(kind)
    assert layer(x).dtype == kind
    assert layer.backward(x).dtype == kind
    expected = oracle(case, layer, x.astype(F64), x.astype(F64))
    for key, gradient in layer.gradients().items():
        assert gradient.dtype == kind
        np.testing.assert_allclose(
            gradient.astype(F64), getattr(expected, f"grad_{key}"), rtol=2 * float(2**-8), atol=1e-2
        )
    if getattr(layer, "running_mean", None) is not None:
        assert layer.running_mean.dtype == layer.running_var.dtype == F32


def test_gradients_accumulate_until_they_are_zeroed(case, rng):
    """Two micro-batches: the gradients are the sum of theirs, in the arrays that were there before."""
    layer = fill(case.make(dtype=F64), rng)
    arrays, alone = layer.gradients(), []
    batches = [(rng.normal(size=SHAPE), rng.normal(size=SHAPE)) for _ in range(2)]
    for x, grad_output in batches:
        layer(x)
        layer.backward(grad_output)
        alone.append({key: value.copy() for key, value in layer.gradients().items()})
        layer.zero_grad()
        assert not any(value.any() for value in layer.gradients().values())
    for x, grad_output in batches:
        layer(x)
        layer.backward(grad_output)
    for key, value in layer.gradients().items():
        assert value is arrays[key]
        np.testing.assert_array_equal(value, alone[0][key] + alone[1][key])


# --- modes and running statistics ------------------------------------------------------------------------------------

TRACKED = {
    "batch": (lambda **o: nn.BatchNorm(12, EPS, 0.3, **o), "training"),
    "instance": (lambda **o: nn.InstanceNorm(12, EPS, 0.3, True, True, **o), "use_input_stats"),
}


@pytest.mark.parametrize("name", TRACKED)
def test_running_statistics(name, dtype, rng):
    make, use_batch = TRACKED[name]
    layer = fill(make(dtype=dtype), rng)
    mean, var = np.zeros(12), np.ones(12)
    for _ in range(3):
        x = rng.normal(2, 3, SHAPE).astype(dtype)
        expected = getattr(reference, f"{name}_norm")(
            x, mean, var, layer.weight, layer.bias, momentum=0.3, eps=EPS, **{use_batch: True}
        )
        close(layer(x), expected, dtype)
    close(layer.running_mean, mean, dtype)
    close(layer.running_var, var, dtype)
    assert layer.num_batches_tracked == (3 if name == "batch" else 0)

    before = layer.state_dict()
    layer.eval()
    frozen = {"momentum": 0.3, "eps": EPS, use_batch: False}
    statistics = layer.running_mean, layer.running_var, layer.weight, layer.bias
    close(layer(x), getattr(reference, f"{name}_norm")(x, *statistics, **frozen), dtype)
    grad_output = rng.normal(size=SHAPE).astype(dtype)
    expected = getattr(reference, f"{name}_norm_backward")(grad_output, x, *statistics, **frozen)
    close(layer.backward(grad_output), expected.grad_input, dtype)
    close(layer.grad_weight, expected.grad_weight, dtype)
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_momentum_none_is_the_average_of_all_batches(rng):
    layer = nn.BatchNorm(12, momentum=None, dtype=F64)
    batches = rng.normal(2, 3, (5, *SHAPE))
    for x in batches:
        layer(x)
    np.testing.assert_allclose(layer.running_mean, batches.mean(axis=(0, 1, 3, 4)), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, batches.var(axis=(1, 3, 4), ddof=1).mean(axis=0), rtol=1e-12)


def test_population_variance_with_correction_0(rng):
    layer = nn.BatchNorm(12, momentum=1.0, correction=0, dtype=F64)
    x = rng.normal(2, 3, SHAPE)
    layer(x)
    np.testing.assert_allclose(layer.running_mean, x.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, x.var(axis=(0, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize("correction", [0, 1])
def test_an_empty_batch_is_no_batch(correction):
    layer = nn.BatchNorm(12, correction=correction)
    before = layer.state_dict()
    assert layer(np.empty((0, 12))).shape == (0, 12)
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_the_mode_of_backward_is_that_of_the_forward_call(rng):
    x, grad_output = rng.normal(size=(2, *SHAPE))
    layer = nn.BatchNorm(12, dtype=F64)
    layer(x)
    grad_input = layer.eval().backward(grad_output)
    close(grad_input, reference.batch_norm_backward(grad_output, x, training=True).grad_input, F64)


def test_train_and_eval():
    layer = nn.GroupNorm(1, 2)
    assert layer.training
    assert layer.eval() is layer
    assert not layer.training
    assert layer.train().training
    assert not layer.train(False).training


def test_backward_lets_go_of_the_input(case, rng):
    layer = case.make()
    x = rng.normal(size=SHAPE).astype(F32)
    kept = weakref.ref(x)
    y = layer(x)
    del x
    assert kept() is not None  # by reference, no copy
    layer.backward(y)
    assert kept() is None


@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_whole_and_take_no_activations_along(case, again, rng):
    layer = fill(case.make(), rng).eval()
    layer(rng.normal(size=SHAPE).astype(F32))
    other = again(layer)
    assert repr(other) == repr(layer)
    assert other.training is layer.training
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[key], value)
    with pytest.raises(RuntimeError, match="expected a forward call"):
        other.backward(np.ones(SHAPE, F32))


def test_a_batch_of_one_element_gives_the_bias_and_teaches_nothing(rng):
    layer = fill(nn.BatchNorm(12, one_element="bias"), rng)
    before = layer.state_dict()
    x = rng.normal(size=(1, 12)).astype(F32)
    np.testing.assert_array_equal(layer(x)[0], layer.bias)
    np.testing.assert_allclose(layer.backward(x), np.zeros((1, 12)), atol=1e-3)  # rstd is 316
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("nonfinite", ["skip", "raise", "propagate"])
def test_a_batch_that_is_not_finite(nonfinite, rng):
    layer = nn.BatchNorm(12, nonfinite=nonfinite)
    x = rng.normal(size=SHAPE)
    x[0, 3, 1, 2] = np.nan
    if nonfinite == "raise":
        with pytest.raises(FloatingPointError):
            layer(x)
    else:
        layer(x)
    assert layer.num_batches_tracked == (0 if nonfinite == "raise" else 1)
    changed = layer.running_var != 1
    assert changed.sum() == {"skip": 11, "raise": 0, "propagate": 12}[nonfinite]
    assert np.isnan(layer.running_var[3]) == (nonfinite == "propagate")


# --- weight norm -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1, 3, None])
def test_weight_norm(dim, dtype, rng):
    """Forward, and the gradients of equation 3 of the paper, in float64."""
    given = rng.normal(size=(6, 4, 3, 2)).astype(dtype)
    layer = nn.WeightNorm(given, dim)
    np.testing.assert_allclose(layer(), given, rtol=5e-7 if dtype is F32 else 1e-14)
    layer.g[...] = rng.normal(1, 0.5, layer.g.shape)
    layer.v *= 3
    axes = tuple(axis for axis in range(4) if axis != dim)
    g, v = layer.g.astype(F64), layer.v.astype(F64)
    length = np.sqrt((v * v).sum(axis=axes, keepdims=dim is not None))
    weight = layer()
    assert weight.dtype == dtype
    close(weight, g * v / length, dtype)

    grad = rng.normal(size=given.shape).astype(dtype)
    layer.backward(grad)
    grad_g = (grad * v).sum(axis=axes, keepdims=dim is not None) / length
    close(layer.grad_g, grad_g, dtype)
    close(layer.grad_v, g / length * (grad - grad_g * v / length), dtype)
    assert layer.grad_g.shape == layer.g.shape == length.shape
    once = layer.gradients()["v"].copy()
    layer()
    layer.backward(grad)
    np.testing.assert_array_equal(layer.grad_v, once + once)


def test_weight_norm_of_extreme_weights():
    """Squares that float32 does not hold."""
    layer = nn.WeightNorm(np.array([[3e30, 4e30], [3e-30, 4e-30]], F32))
    np.testing.assert_allclose(layer.g.ravel(), [5e30, 5e-30], rtol=1e-6)
    np.testing.assert_allclose(layer(), layer.v, rtol=5e-7)


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: nn.BatchNorm(0), (2, 0, 3)),
        (lambda: nn.InstanceNorm(0, affine=True), (2, 0, 3)),
        (lambda: nn.GroupNorm(2, 0), (2, 0, 3)),
        (lambda: nn.LayerNorm((3, 0)), (2, 3, 0)),
        (lambda: nn.RMSNorm(0), (2, 0)),
    ],
    ids=["batch", "instance", "group", "layer", "rms"],
)
def test_layers_without_channels(make, shape):
    """As in PyTorch, which takes no channels for an answer."""
    layer, x = make(), np.ones(shape, F32)
    assert layer(x).shape == layer.backward(x).shape == shape


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.BatchNorm(-1),
        lambda: nn.BatchRenorm(-1),
        lambda: nn.InstanceNorm(-1),
        lambda: nn.GroupNorm(1, -1),
        lambda: nn.LayerNorm((3, -1)),
        lambda: nn.RMSNorm(-1),
    ],
    ids=["batch", "renorm", "instance", "group", "layer", "rms"],
)
def test_layers_refuse_negative_lengths(make):
    with pytest.raises(ValueError, match=r"^\w+: expected lengths of at least 0, got -1$"):
        make()


def test_weight_norm_refuses_nothing():
    with pytest.raises(ValueError, match="WeightNorm: expected a weight with elements, got one of shape"):
        nn.WeightNorm(np.ones((0, 3), F32))
