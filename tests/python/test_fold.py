# SPDX-License-Identifier: Apache-2.0
"""A layer with a folded batch norm is the layer followed by the batch norm; torch; errors."""

from dataclasses import dataclass

import cases
import folding_reference
import ml_dtypes
import numpy as np
import pytest
import reference

import anynorm


@dataclass(frozen=True)
class Layer:
    """A convolution: its window, and the arguments that fold_batch_norm has to know about."""

    window: tuple[int, ...]
    inputs: int
    channels: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    transpose: bool = False

    def weight_shape(self):
        if self.transpose:
            return (self.inputs, self.channels // self.groups, *self.window)
        return (self.channels, self.inputs // self.groups, *self.window)

    def arrays(self, dtype, seed=2):
        """x, weight, bias, and the four of the batch norm."""
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(2, self.inputs, *[6] * len(self.window)))
        weight, bias = rng.normal(size=self.weight_shape()), rng.normal(size=self.channels)
        norm = rng.normal(size=self.channels), rng.uniform(0.1, 3, self.channels)
        pair = rng.normal(size=self.channels), rng.normal(size=self.channels)
        return tuple(array.astype(dtype) for array in (x, weight, bias, *norm, *pair))

    def apply(self, x, weight, bias):
        call = folding_reference.convolve_transposed if self.transpose else folding_reference.convolve
        return call(x, weight, bias, self.stride, self.padding, self.groups)


LAYERS = {
    "conv1d": Layer((3,), 4, 6, stride=2, padding=1),
    "conv2d": Layer((3, 2), 3, 8, padding=2),
    "conv2d_groups": Layer((3, 3), 6, 9, stride=2, padding=1, groups=3),
    "conv2d_depthwise": Layer((3, 3), 6, 6, groups=6),
    "conv2d_pointwise": Layer((1, 1), 5, 7),
    "conv3d": Layer((2, 3, 1), 2, 4, stride=2, padding=1),
    "transpose1d": Layer((4,), 4, 6, stride=2, padding=1, transpose=True),
    "transpose2d": Layer((3, 2), 3, 8, transpose=True),
    "transpose2d_groups": Layer((3, 3), 6, 9, stride=2, padding=1, groups=3, transpose=True),
    "transpose2d_depthwise": Layer((3, 3), 6, 6, stride=2, groups=6, transpose=True),
    "transpose3d": Layer((2, 2, 2), 2, 4, stride=2, transpose=True),
}


def fold(layer, weight, bias, *norm, **options):
    return anynorm.fold_batch_norm(weight, bias, *norm, transpose=layer.transpose, groups=layer.groups, **options)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("plain", [False, True], ids=["with_bias_and_pair", "without"])
def test_a_folded_layer_is_the_layer_and_the_batch_norm(layer, plain, dtype):
    x, weight, bias, mean, var, bn_weight, bn_bias = layer.arrays(dtype)
    if plain:
        bias = bn_weight = bn_bias = None
    before = weight.copy()
    y = reference.batch_norm(layer.apply(x, weight, bias), mean, var, bn_weight, bn_bias, eps=1e-3)
    folded = fold(layer, weight, bias, mean, var, bn_weight, bn_bias, 1e-3)
    assert [array.dtype for array in folded] == [dtype, dtype]
    assert [array.shape for array in folded] == [weight.shape, (layer.channels,)]
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(layer.apply(x, *folded), y, rtol=0, atol=tolerance * np.abs(y).max())
    assert cases.same_bits(weight, before)


def test_linear_layers_of_any_layout(layout, dtype):
    """Rows of weight are channels, or its columns where a library keeps it the other way."""
    weight, x = layout.place(np.random.default_rng(3).normal(size=(6, 5)).astype(dtype)), np.ones((4, 5))
    mean, var = np.linspace(-1, 1, 6), np.linspace(0.5, 2, 6)
    folded, bias = anynorm.fold_batch_norm(weight, None, mean, var)
    assert folded.strides == np.empty_like(weight).strides
    y = reference.batch_norm(x @ weight.T.astype(np.float64), mean, var)
    np.testing.assert_allclose(x @ folded.T.astype(np.float64) + bias, y, atol=1e-6 if dtype == np.float32 else 1e-14)
    other, other_bias = anynorm.fold_batch_norm(weight.T, None, mean, var, channel_axis=-1)
    assert cases.same_bits(other.T, folded)
    assert cases.same_bits(other_bias, bias)


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16], ids=["f16", "bf16"])
def test_halves_are_rounded_once(half):
    layer = LAYERS["conv2d"]
    _, weight, bias, mean, var, bn_weight, bn_bias = layer.arrays(np.float64)
    halves = weight.astype(half), bias.astype(half)
    got = anynorm.fold_batch_norm(*halves, mean, var, bn_weight.astype(half), bn_bias.astype(half))
    wide = anynorm.fold_batch_norm(
        *(array.astype(np.float64) for array in halves), mean, var,
        *(array.astype(half).astype(np.float64) for array in (bn_weight, bn_bias)),
    )  # fmt: skip
    for narrow, exact in zip(got, wide, strict=True):
        assert narrow.dtype == half
        step = float(ml_dtypes.finfo(half).eps)
        assert np.all(np.abs(narrow.astype(np.float64) - exact) <= 0.501 * step * np.abs(exact))


def test_statistics_of_a_batch(rng):
    """Those of `moments` fold as well as running ones: the result is the batch norm of training."""
    x, weight = rng.normal(size=(50, 4)), rng.normal(size=(3, 4))
    batch = anynorm.moments(x @ weight.T, axis=0)
    folded, bias = anynorm.fold_batch_norm(weight, None, batch.mean, batch.var())
    np.testing.assert_allclose(x @ folded.T + bias, anynorm.batch_norm(x @ weight.T, training=True), atol=1e-13)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_torch(layer):
    torch = pytest.importorskip("torch")
    fusion = pytest.importorskip("torch.nn.utils.fusion")
    rank = len(layer.window)
    kind = getattr(torch.nn, f"Conv{'Transpose' if layer.transpose else ''}{rank}d")
    conv = kind(layer.inputs, layer.channels, layer.window, layer.stride, layer.padding, groups=layer.groups).eval()
    norm = getattr(torch.nn, f"BatchNorm{rank}d")(layer.channels).eval()
    arrays = [torch.from_numpy(array) for array in layer.arrays(np.float32)]
    parameters = conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias
    with torch.no_grad():
        for parameter, array in zip(parameters, arrays[1:], strict=True):
            parameter.copy_(array)
        folded = fold(layer, *(parameter.detach().numpy() for parameter in parameters))
        expected = norm(conv(arrays[0])).numpy()
        if not (layer.transpose and layer.groups > 1):  # which torch's own function does not take
            fused = fusion.fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
                transpose=layer.transpose,
            )  # fmt: skip
            for ours, theirs in zip(folded, fused, strict=True):
                np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6, atol=1e-6)
        conv.weight.copy_(torch.from_numpy(folded[0]))
        conv.bias.copy_(torch.from_numpy(folded[1]))
        np.testing.assert_allclose(conv(arrays[0]).numpy(), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def numbers(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


W, C = numbers(6, 4, 3), numbers(6)
ERRORS = {
    "running_mean": (lambda f: f(W, None, numbers(4), C), ValueError, "expected running_mean of shape (6,), got (4,)"),
    "running_var_half": (lambda f: f(W, None, C, C.astype(np.float16)), TypeError, "expected running_var of dtype float32 or float64, got float16"),
    "running_mean_none": (lambda f: f(W, None, None, C), TypeError, "expected running_mean to be an array, got NoneType"),
    "weight_int": (lambda f: f(W.astype(int), None, C, C), TypeError, "expected weight of dtype"),
    "weight_scalar": (lambda f: f(1.0, None, C, C), ValueError, "expected weight of rank 1 to 16, got 0"),
    "bias": (lambda f: f(W, numbers(4), C, C), ValueError, "expected bias of shape (6,), got (4,)"),
    "bias_masked": (lambda f: f(W, np.ma.masked_array(C), C, C), TypeError, "mask"),
    "bn_weight": (lambda f: f(W, None, C, C, numbers(1)), ValueError, "expected bn_weight of shape (6,), got (1,)"),
    "bn_bias": (lambda f: f(W, None, C, C, None, W), ValueError, "expected bn_bias of shape (6,), got (6, 4, 3)"),
    "eps": (lambda f: f(W, None, C, C, eps=float("nan")), ValueError, "expected eps of at least 0, got nan"),
    "channel_axis": (lambda f: f(W, None, C, C, channel_axis=3), ValueError, "expected channel_axis from -3 to 2, got 3"),
    "channel_axis_of_transpose": (lambda f: f(W, None, C, C, channel_axis=1, transpose=True), ValueError, "got both"),
    "transpose_int": (lambda f: f(W, None, C, C, transpose=1), TypeError, "expected transpose to be True or False, got int"),
    "groups": (lambda f: f(W, None, C, C, groups=4), ValueError, "divides the number of output channels, got 6 output channels and groups=4"),
    "groups_of_transpose": (lambda f: f(W, None, C, C, transpose=True, groups=3), ValueError, "expected running_mean of shape (12,), got (6,)"),
    "groups_float": (lambda f: f(W, None, C, C, groups=2.0), TypeError, "expected groups to be an int, got float"),
}  # fmt: skip


@pytest.mark.parametrize("call, error, message", ERRORS.values(), ids=ERRORS.keys())
def test_errors(call, error, message):
    with pytest.raises(error) as raised:
        call(anynorm.fold_batch_norm)
    assert str(raised.value).startswith("fold_batch_norm: expected ")
    assert message in str(raised.value)
