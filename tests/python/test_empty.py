# SPDX-License-Identifier: Apache-2.0
"""Arrays without elements, sets without elements, and arrays without axes."""

import itertools

import cases
import numpy as np
import pytest

import anynorm

F32 = np.float32


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 3), (0, 0), (0, 4, 0, 2)], ids=str)
def test_moments_of_nothing(shape, dtype, isa):
    x = np.zeros(shape, dtype)
    for count in range(len(shape) + 1):
        for axes in itertools.combinations(range(len(shape)), count):
            for keepdims in (False, True):
                used = anynorm.moments(x, axes, keepdims=keepdims)
                assert np.shape(used.mean) == np.sum(x, axis=axes, keepdims=keepdims).shape
                assert np.all(used.count == 0)
                assert np.all(np.isnan(used.mean))
                assert np.all(used.m2 == 0)
                assert np.all(np.isnan(used.var()))
                assert np.all(np.isnan(used.rstd(1e-5)))


def test_moments_of_nothing_by_default():
    used = anynorm.moments(np.zeros((3, 0), F32))
    assert used.count == 0
    assert np.isnan(used.mean)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 3)], ids=str)
def test_normalize_nothing(shape, dtype, isa):
    x = np.zeros(shape, dtype)
    for axis in [None, (), *range(len(shape))]:
        y, used = anynorm.normalize(x, axis, return_moments=True)
        assert y.shape == shape
        assert y.dtype == dtype
        assert cases.same_moments(used, anynorm.moments(x, axis))
        out = np.zeros(shape, dtype)
        assert anynorm.normalize(x, axis, out=out) is out
        assert anynorm.normalize(x, axis, weight=np.ones(shape, dtype), moments=used).shape == shape


@pytest.mark.parametrize("shape", [(0, 4, 3, 5), (2, 0, 3, 5), (2, 4, 0, 5), (2, 4, 3, 0)], ids=str)
def test_norms_of_nothing(shape, norm, dtype, isa):
    x = np.zeros(shape, dtype)
    weight, bias = norm.parameters(x)
    y, used = norm.call(anynorm, x, weight, bias, return_moments=True)
    assert y.shape == shape
    assert y.dtype == dtype
    if norm.name != "batch_eval":
        assert np.all(used.count == 0)


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3), (2, 4, 0)], ids=str)
def test_batch_without_elements_leaves_the_running_statistics(shape):
    x = np.zeros(shape, F32)
    for norm in (anynorm.batch_norm, anynorm.instance_norm):
        if norm is anynorm.instance_norm and x.ndim < 3:
            continue
        mean, var = np.linspace(0, 1, 4, dtype=F32), np.linspace(1, 2, 4, dtype=F32)
        before = mean.copy(), var.copy()
        assert norm(x, mean, var, None, None, True).shape == shape
        assert cases.same_bits(mean, before[0])
        assert cases.same_bits(var, before[1])


def test_no_groups_of_no_channels():
    assert anynorm.group_norm(np.zeros((3, 0, 5), F32), 2).shape == (3, 0, 5)


# --- rank 0 ----------------------------------------------------------------------------------------------------------


def test_moments_of_a_scalar_array(dtype, isa):
    x = np.asarray(dtype(2.5))
    for axis in (None, ()):
        used = anynorm.moments(x, axis)
        assert np.shape(used.mean) == ()
        assert (float(used.count), float(used.mean), float(used.m2)) == (1, 2.5, 0)


def test_normalize_a_scalar_array(dtype, isa):
    x = np.asarray(dtype(2.5))
    for axis in (None, ()):
        y = anynorm.normalize(x, axis, weight=np.asarray(dtype(3)), bias=np.asarray(dtype(0.75)))
        assert np.shape(y) == ()
        assert y.dtype == dtype
        assert y == dtype(0.75)
    uncentred = anynorm.normalize(x, None, center=False, eps=0.0)
    assert uncentred == 1
    out = np.asarray(dtype(0))
    assert anynorm.normalize(x, None, bias=np.asarray(dtype(7)), out=out) is out
    assert out == 7


def test_a_scalar_array_has_no_axis():
    x = np.asarray(F32(2.5))
    for call in (lambda: anynorm.moments(x, 0), lambda: anynorm.normalize(x, -1), lambda: anynorm.layer_norm(x)):
        with pytest.raises(ValueError, match="ax"):
            call()


# --- one element -----------------------------------------------------------------------------------------------------


def test_one_element_sets_give_the_bias(dtype, isa):
    x = np.linspace(-3, 1e6, 35).astype(dtype).reshape(5, 7, 1)
    bias = dtype(0.3)
    for view, axis in [(x, 2), (x.reshape(1, 35), 0), (x.reshape(35, 1), 1), (x, ())]:
        y, used = anynorm.normalize(view, axis, bias=np.asarray(bias), return_moments=True)
        assert np.all(y == bias)
        assert np.all(used.count == 1)
        assert np.all(used.m2 == 0)
        assert np.array_equal(used.mean, np.reshape(view, used.mean.shape).astype(np.float64))


def test_one_element_with_eps_zero_is_not_a_number():
    """0 / 0 stays visible."""
    assert np.all(np.isnan(anynorm.normalize(np.float32([[1], [2]]), 1, eps=0.0)))


def test_one_element_per_channel_is_fine_for_evaluation():
    y = anynorm.batch_norm(np.float32([[1, 2]]), np.zeros(2), np.ones(2), eps=0.0)
    assert np.array_equal(y, [[1, 2]])
