# SPDX-License-Identifier: Apache-2.0
"""Every norm on every memory layout, dtype and instruction set gives what the oracle gives."""

import itertools

import cases
import numpy as np
import pytest
import reference

import anynorm

# Odd lengths, an inner axis longer than any vector, and one shape above the size from which threads are used.
SHAPES = [(3, 8, 5, 7), (2, 4, 3, 70), (4, 32, 17, 19)]
SAME = 1e-14  # what statistics may differ by between layouts, relative to the scale of the data
TOLERANCE = {np.float32: {"rtol": 5e-7, "atol": 2e-6}, np.float64: {"rtol": 2e-15, "atol": 2e-13}}


def root(array):
    while array.base is not None:
        array = array.base
    return array


def assert_gaps_unwritten(out):
    assert np.count_nonzero(~np.isnan(root(out))) == out.size


def test_norm(layout, norm, dtype, isa, rng):
    for shape in SHAPES:
        x = layout.place(rng.normal(3, 1, shape).astype(dtype))
        before = x.copy()
        weight, bias = norm.parameters(x)
        y, used = norm.call(anynorm, x, weight, bias, return_moments=True)
        expected, statistics = norm.call(reference, x, weight, bias, return_moments=True)
        assert y.dtype == dtype
        assert y.shape == shape
        np.testing.assert_allclose(y, expected, **TOLERANCE[dtype])
        np.testing.assert_allclose(used.var(), statistics.var, rtol=1e-12, atol=1e-28)
        np.testing.assert_allclose(used.mean, statistics.mean, rtol=1e-14, atol=1e-14)
        assert cases.same_bits(x, before)


def test_out_in_another_layout(layout, out_layout, dtype, rng):
    for shape in SHAPES[:2]:
        x = layout.place(rng.normal(3, 1, shape).astype(dtype))
        for norm in (cases.NORM[name] for name in ("layer_last", "group", "batch_train", "free_axes")):
            out = out_layout.empty(shape, dtype)
            weight, bias = norm.parameters(x)
            assert norm.call(anynorm, x, weight, bias, out=out) is out
            np.testing.assert_allclose(out, norm.call(reference, x, weight, bias), **TOLERANCE[dtype])
            assert_gaps_unwritten(out)


def test_large_out_in_another_layout(out_layout, norm, dtype, rng):
    x = rng.normal(3, 1, SHAPES[2]).astype(dtype)
    out = out_layout.empty(x.shape, dtype)
    weight, bias = norm.parameters(x)
    norm.call(anynorm, x, weight, bias, out=out)
    np.testing.assert_allclose(out, norm.call(reference, x, weight, bias), **TOLERANCE[dtype])
    assert_gaps_unwritten(out)


def test_in_place(out_layout, norm, dtype, rng):
    for shape in SHAPES[:2]:
        values = rng.normal(3, 1, shape).astype(dtype)
        x = out_layout.place(values)
        weight, bias = norm.parameters(x)
        expected = norm.call(reference, values, weight, bias)
        assert norm.call(anynorm, x, weight, bias, out=x) is x
        np.testing.assert_allclose(x, expected, **TOLERANCE[dtype])
        if root(x).size > x.size:
            assert np.count_nonzero(~np.isnan(root(x))) == x.size


def test_parameters_in_other_layouts(norm, dtype, rng):
    """Weight and bias are views too: strided, reversed, repeated with stride 0."""
    x = rng.normal(3, 1, SHAPES[0]).astype(dtype)
    weight, bias = norm.parameters(x)
    wide = np.repeat(weight, 3, axis=-1)[..., ::3]
    backwards = np.ascontiguousarray(bias[..., ::-1])[..., ::-1]
    constant = np.broadcast_to(dtype(0.75), weight.shape)
    for w, b in [(wide, backwards), (backwards, wide), (np.asfortranarray(weight), constant), (constant, bias)]:
        np.testing.assert_allclose(norm.call(anynorm, x, w, b), norm.call(reference, x, w, b), **TOLERANCE[dtype])


# Two channel axes, (N, C/16, 16, H, W) as seen by the caller, where the memory holds (N, C/16, H, W, 16).
BLOCKED = {
    "batch": ((0, 3, 4), lambda lib, x, **o: lib.batch_norm(x, None, None, None, None, True, **o)),
    "instance": ((3, 4), lambda lib, x, **o: lib.instance_norm(x, **o)),
    "group": ((2, 3, 4), lambda lib, x, **o: lib.group_norm(x, 3, **o)),
    "layer": ((1, 2, 3, 4), lambda lib, x, **o: lib.layer_norm(x, x.shape[1:], **o)),
}


@pytest.mark.parametrize("axes, named", BLOCKED.values(), ids=BLOCKED.keys())
@pytest.mark.parametrize("shape", [(2, 48, 5, 7), (3, 48, 33, 31)], ids=str)
def test_blocked_layout_is_a_five_dimensional_view(axes, named, shape, dtype, isa, rng):
    nchw = rng.normal(3, 1, shape).astype(dtype)
    n, c, h, w = shape
    split = nchw.reshape(n, c // 16, 16, h, w)
    blocked = np.ascontiguousarray(np.moveaxis(split, 2, -1))
    out = np.full_like(blocked, np.nan)
    _, used = anynorm.normalize(np.moveaxis(blocked, -1, 2), axes, out=np.moveaxis(out, -1, 2), return_moments=True)
    y, statistics = named(anynorm, nchw, return_moments=True)
    np.testing.assert_allclose(np.moveaxis(out, -1, 2).reshape(shape), y, **TOLERANCE[dtype])
    np.testing.assert_allclose(np.reshape(used.m2, statistics.m2.shape), statistics.m2, rtol=SAME)


def test_statistics_agree_between_layouts(layout, dtype, isa, rng):
    """To 1e-14 of the scale of the data, with sets shorter and longer than a block."""
    for shape, axes in [((13, 9, 21, 50), (0, 2, 3)), ((3, 4, 75, 77), (2, 3)), ((4, 6, 60, 70), (1, 3))]:
        x = layout.place(rng.normal(3, 1, shape).astype(dtype))
        here, plain = anynorm.moments(x, axes), anynorm.moments(np.array(x, order="C"), axes)
        assert np.array_equal(here.count, plain.count)
        np.testing.assert_allclose(here.var(), plain.var(), rtol=SAME)
        np.testing.assert_allclose(here.mean, plain.mean, rtol=4e-16, atol=SAME)


def test_statistics_agree_with_any_parameters_and_output(layout, rng):
    """What is written, and what it is multiplied by, has no part in the mean and the variance."""
    outputs = [cases.LAYOUT[name].empty(SHAPES[2], np.float32) for name in ("c", "fortran", "channels_last")]
    x = layout.place(rng.normal(3, 1, SHAPES[2]).astype(np.float32))
    for axes in [(1, 2, 3), (0, 2, 3), (2, 3), (0, 3)]:
        plain = anynorm.moments(x, axes)
        for along, out in itertools.product([(1,), (3,), (0, 2), (1, 3)], outputs):
            weight = np.ones([n if a in along else 1 for a, n in enumerate(x.shape)], np.float32)
            _, used = anynorm.normalize(x, axes, weight=weight, out=out, return_moments=True)
            assert np.array_equal(used.count, plain.count)
            np.testing.assert_allclose(used.m2, plain.m2, rtol=SAME)
            np.testing.assert_allclose(used.mean, plain.mean, rtol=4e-16, atol=SAME)


def test_sixteen_axes(dtype, isa, rng):
    """Kept and reduced axes in turn, none of which can be merged."""
    x = rng.normal(3, 1, (2,) * 16).astype(dtype)
    for axes in [tuple(range(0, 16, 2)), tuple(range(1, 16, 2)), (15,), (0,), None]:
        y, used = anynorm.normalize(x, axes, return_moments=True)
        expected, statistics = reference.normalize(x, axes, return_moments=True)
        # Sets of two elements can be close together: the deviation is small and divided by itself.
        np.testing.assert_allclose(used.mean, statistics.mean, rtol=1e-14)
        np.testing.assert_allclose(used.var(), statistics.var, rtol=1e-12)
        np.testing.assert_allclose(y, expected, **TOLERANCE[dtype])


@pytest.mark.parametrize("shape", [(1,), (7,), (1, 1), (1, 5), (5, 1), (1, 4, 1, 9, 1), (1, 1, 1, 6)], ids=str)
def test_axes_of_length_one(shape, dtype, rng):
    x = rng.normal(3, 1, shape).astype(dtype)
    for axis in [None, *range(len(shape))]:
        y = anynorm.normalize(x, axis)
        np.testing.assert_allclose(y, reference.normalize(x, axis), **TOLERANCE[dtype])
