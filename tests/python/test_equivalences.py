# SPDX-License-Identifier: Apache-2.0
"""Norms that are the same norm: one group, a group for each channel, one sample. In every layout.

Where both calls have the same sets and the parameters lie alike, they are one nest of loops, and the bits are equal.
"""

import cases
import numpy as np
import pytest

import anynorm

SHAPE = (3, 8, 5, 6)


@pytest.fixture
def x(layout, dtype, rng):
    return layout.place(rng.normal(3, 2, SHAPE).astype(dtype))


@pytest.fixture
def affine(dtype, rng):
    return rng.normal(size=(2, SHAPE[1])).astype(dtype)


def agree(a, b):
    atol = 1e-6 if a.dtype == np.float32 else 1e-13
    np.testing.assert_allclose(a, b, rtol=atol, atol=atol)


def test_one_group_is_layer_norm_of_a_sample(x):
    (y, used), (expected, expected_used) = (
        anynorm.group_norm(x, 1, return_moments=True),
        anynorm.layer_norm(x, x.shape[1:], return_moments=True),
    )
    assert cases.same_bits(y, expected)
    assert cases.same_bits(used.mean.ravel(), expected_used.mean)
    assert cases.same_bits(used.m2.ravel(), expected_used.m2)


def test_one_group_with_parameters(x, affine):
    weight, bias = (np.broadcast_to(p[:, None, None], x.shape[1:]) for p in affine)
    agree(anynorm.group_norm(x, 1, *affine), anynorm.layer_norm(x, x.shape[1:], weight, bias))


def test_a_group_for_each_channel_is_instance_norm(x, affine):
    y, used = anynorm.group_norm(x, x.shape[1], *affine, return_moments=True)
    expected, expected_used = anynorm.instance_norm(x, None, None, *affine, return_moments=True)
    assert cases.same_bits(y, expected)
    assert cases.same_moments(used, expected_used)


def test_batch_norm_of_one_sample_is_instance_norm(x, affine):
    for sample in range(len(x)):
        one = x[sample : sample + 1]
        y, used = anynorm.batch_norm(one, None, None, *affine, True, return_moments=True)
        expected, expected_used = anynorm.instance_norm(one, None, None, *affine, return_moments=True)
        assert cases.same_bits(y, expected)
        assert cases.same_bits(used.m2, expected_used.m2[0])


def test_layer_norm_of_flat_samples_is_group_norm(x):
    flat = x.reshape(len(x), -1)
    assert cases.same_bits(anynorm.layer_norm(flat), anynorm.group_norm(flat, 1))


def test_gradients_of_the_same_norm(x, affine, rng):
    grad_output = rng.normal(size=SHAPE).astype(x.dtype)
    for a, b in [
        (anynorm.group_norm_backward(grad_output, x, x.shape[1], *affine),
         anynorm.instance_norm_backward(grad_output, x, None, None, *affine)),
        (anynorm.group_norm_backward(grad_output, x, 1), anynorm.layer_norm_backward(grad_output, x, x.shape[1:])),
        (anynorm.batch_norm_backward(grad_output[:1], x[:1], None, None, *affine, True),
         anynorm.instance_norm_backward(grad_output[:1], x[:1], None, None, *affine)),
    ]:  # fmt: skip
        for mine, theirs in zip(a, b, strict=True):
            if mine is not None:
                np.testing.assert_allclose(mine, theirs, rtol=2e-5 if x.dtype == np.float32 else 1e-12,
                                           atol=2e-5 if x.dtype == np.float32 else 1e-12)  # fmt: skip
