# SPDX-License-Identifier: Apache-2.0
"""BatchRenorm as a layer: the function beside it, what its update changes, schedules, checkpoints."""

import copy
import pickle

import cases
import numpy as np
import pytest

import anynorm
from anynorm import nn

F32, F64 = np.float32, np.float64


def fill(layer, rng):
    layer.weight[...], layer.bias[...] = rng.normal(size=layer.weight.shape), rng.normal(size=layer.bias.shape)
    layer.running_mean[...] = rng.normal(1, 1, layer.running_mean.shape)
    layer.running_var[...] = rng.uniform(0.5, 3, layer.running_var.shape)
    return layer


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("channel_axis", [1, -1])
def test_it_is_the_function(rng, dtype, channel_axis):
    layer = fill(nn.BatchRenorm(5, momentum=0.2, r_max=1.5, d_max=0.5, channel_axis=channel_axis, dtype=dtype), rng)
    shape = (6, 5, 4) if channel_axis == 1 else (6, 4, 5)
    where = rng.random((6, 1, 1)) < 0.7
    for options in ({}, {"where": where, "excluded": "input"}, {"sample_weight": rng.random(6)}):
        x, grad_output = rng.normal(2, 3, (2, *shape)).astype(dtype)
        mean, var = layer.running_mean.copy(), layer.running_var.copy()
        before, count = (mean.copy(), var.copy()), layer.num_batches_tracked.copy()
        clipped = {"r_max": 1.5, "d_max": 0.5, "channel_axis": channel_axis, **options}
        expected = anynorm.batch_renorm(x, mean, var, layer.weight, layer.bias, True, 0.2, **clipped)
        gradients = anynorm.batch_renorm_backward(grad_output, x, *before, layer.weight, layer.bias, True, **clipped)
        layer.zero_grad()
        assert cases.same_bits(layer(x, **options), expected)
        assert cases.same_bits(layer.running_mean, mean)
        assert cases.same_bits(layer.running_var, var)
        assert layer.num_batches_tracked == count + 1
        layer.r_max, layer.d_max = 1.0, 0.0  # of the next step: the gradient is that of the last
        assert cases.same_bits(layer.backward(grad_output), gradients.grad_input)
        assert cases.same_bits(layer.grad_weight, gradients.grad_weight)
        assert cases.same_bits(layer.grad_bias, gradients.grad_bias)
        layer.r_max, layer.d_max = 1.5, 0.5


def test_evaluation_is_that_of_batch_norm(rng):
    layer = fill(nn.BatchRenorm(5, dtype=F64), rng)
    other = nn.BatchNorm(5, dtype=F64)
    assert other.load_state_dict(layer.state_dict()) == ([], [])
    x, grad_output = rng.normal(2, 3, (2, 6, 5, 4))
    before = layer.state_dict()
    assert cases.same_bits(layer.eval()(x), other.eval()(x))
    assert cases.same_bits(layer.backward(grad_output), other.backward(grad_output))
    assert cases.same_bits(layer.grad_weight, other.grad_weight)
    assert all(cases.same_bits(before[key], value) for key, value in layer.state_dict().items())


def test_without_room_for_corrections_it_is_batch_norm(rng):
    layer = fill(nn.BatchRenorm(5, momentum=0.1, r_max=1, d_max=0), rng)
    other = nn.BatchNorm(5)
    other.load_state_dict(layer.state_dict())
    for _ in range(3):
        x, grad_output = rng.normal(2, 3, (2, 6, 5, 4)).astype(F32)
        assert cases.same_bits(layer(x), other(x))
        np.testing.assert_allclose(layer.backward(grad_output), other.backward(grad_output), rtol=1e-5, atol=1e-6)
    assert all(cases.same_bits(value, other.state_dict()[key]) for key, value in layer.state_dict().items())


def test_small_batches_train_with_what_evaluation_uses(rng):
    """Where nothing is clipped, training gives what evaluation gave before the update."""
    layer = fill(nn.BatchRenorm(5, r_max=1e6, d_max=1e6, dtype=F64), rng)
    x = rng.normal(2, 3, (2, 5, 3))
    expected = copy.deepcopy(layer).eval()(x)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12)


def test_copies_and_text(rng):
    layer = fill(nn.BatchRenorm(3, r_max=2.0, nonfinite="skip", channel_axis=-1), rng)
    layer(np.ones((4, 3), F32) * np.arange(4, dtype=F32)[:, None])
    again = pickle.loads(pickle.dumps(layer))
    assert repr(again) == (
        "BatchRenorm(3, eps=1e-05, momentum=0.01, affine=True, bias=True, r_max=2.0, d_max=5.0, channel_axis=-1, "
        "nonfinite='skip')"
    )
    assert cases.same_bits(again.running_var, layer.running_var)
    with pytest.raises(RuntimeError, match=r"BatchRenorm\.backward: expected a forward call"):
        again.backward(np.ones((4, 3)))


def test_what_is_refused_changes_nothing(rng):
    layer = fill(nn.BatchRenorm(3), rng)
    before = layer.state_dict()
    x = rng.normal(size=(4, 3))
    for call, error, message in (
        (lambda: layer(np.ones((4, 2))), ValueError, "BatchRenorm: expected x with 3 channels on axis 1"),
        (lambda: layer(x, labels=[0, 1, 0, 1]), TypeError, "unexpected keyword argument 'labels'"),
        (lambda: layer(x[:1]), ValueError, "more than one"),
        (lambda: nn.BatchRenorm(3, r_max=0.5)(x), ValueError, "batch_renorm: expected r_max of at least 1, got 0.5"),
        (lambda: nn.BatchRenorm(3, dtype=int), TypeError, "BatchRenorm: expected dtype float16"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert all(cases.same_bits(before[key], value) for key, value in layer.state_dict().items())
