# SPDX-License-Identifier: Apache-2.0
"""lp_normalize and its gradient under a mask: those of what is left, whatever the rest holds."""

import math

import cases
import folding_reference as reference
import numpy as np
import pytest

import anynorm

SHAPE = (3, 8, 5, 6)
MASKS = {"elements": SHAPE, "samples": (3, 1, 1, 1), "positions": (5, 6), "rows": (8, 1, 6)}


@pytest.fixture(params=[1, 2, math.inf], ids=["p1", "p2", "max"])
def p(request):
    return request.param


def sample(dtype, mask):
    """Multiples of 1/8, NaN and infinity where the mask excludes."""
    rng = np.random.default_rng(3)
    x, grad_output = (rng.integers(-24, 25, (2, *SHAPE)) / 8).astype(dtype)
    where = np.random.default_rng(4).random(MASKS[mask]) < 0.6
    used = np.broadcast_to(where, SHAPE)
    x[~used] = np.where(grad_output[~used] > 0, np.nan, np.inf)
    return x, grad_output, where, used


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("axis", [1, -1, (0, 2), None, ()], ids=str)
def test_values(layout, p, axis, mask, dtype):
    x, grad_output, where, used = sample(dtype, mask)
    if layout.name.startswith("broadcast"):  # elements in sets are those outside
        x = np.nan_to_num(x, posinf=0)
    x, grad_output = layout.place(x), layout.place(grad_output)
    seen, seen_gradient = np.where(used, x, 0).astype(dtype), np.where(used, grad_output, 0).astype(dtype)
    axes = tuple(range(4)) if axis is None else axis
    tolerance = 1e-13 if dtype == np.float64 else 1e-6
    y = anynorm.lp_normalize(x, p, axis, 1.5, where=where)
    np.testing.assert_allclose(y, np.where(used, reference.lp_normalize(seen, p, axes, 1.5), 0), atol=tolerance)
    got = anynorm.lp_normalize_backward(grad_output, x, p, axis, 1.5, where=where)
    expected = reference.lp_normalize_backward(seen_gradient, seen, p, axes, 1.5)
    np.testing.assert_allclose(got, np.where(used, expected, 0), atol=4 * tolerance)


def test_excluded(p):
    x, grad_output, where, used = sample(np.float32, "elements")
    y = anynorm.lp_normalize(x, p, where=where)
    assert np.array_equal(
        anynorm.lp_normalize(x, p, where=where, excluded="input"), np.where(used, y, x), equal_nan=True
    )
    out = np.full(SHAPE, 7, np.float32)
    assert anynorm.lp_normalize(x, p, where=where, excluded="keep", out=out) is out
    assert np.array_equal(out, np.where(used, y, 7))
    gradient = anynorm.lp_normalize_backward(grad_output, x, p, where=where)
    got = anynorm.lp_normalize_backward(grad_output, x, p, where=where, excluded="input", out=grad_output.copy())
    assert np.array_equal(got, np.where(used, gradient, grad_output))


def test_masked_arrays_patterns_and_nan(p):
    x, grad_output, where, used = sample(np.float64, "elements")
    y = anynorm.lp_normalize(x, p, where=where)
    masked = anynorm.lp_normalize(np.ma.MaskedArray(x, mask=~where), p)
    assert isinstance(masked, np.ma.MaskedArray)
    assert np.array_equal(masked.mask, ~where)
    assert np.array_equal(masked.data, y)
    for _ in range(2):
        assert np.array_equal(anynorm.lp_normalize(x, p, "n c h w -> n h w", where=where), y)
    groups = anynorm.lp_normalize(x, p, "n (g c) h w -> n g h w", g=2, where=where)
    halves = [anynorm.lp_normalize(x[:, half], p, where=where[:, half]) for half in (slice(0, 4), slice(4, 8))]
    assert np.array_equal(groups, np.concatenate(halves, axis=1))
    holes = np.where(used, x, np.nan)
    omitted = anynorm.lp_normalize(holes, p, nan_policy="omit")
    assert np.array_equal(omitted, np.where(used, y, np.nan), equal_nan=True)
    gradient = anynorm.lp_normalize_backward(grad_output, holes, p, nan_policy="omit")
    assert np.array_equal(gradient, anynorm.lp_normalize_backward(grad_output, x, p, where=where))
    with pytest.raises(ValueError, match="lp_normalize: expected x without NaN"):
        anynorm.lp_normalize(holes, p, nan_policy="raise")


def test_bits_do_not_depend_on_threads(p, rng):
    x, where = rng.normal(size=(700, 900)).astype(np.float32), rng.random((700, 900)) < 0.5
    for axis in (0, 1, None):
        one = anynorm.lp_normalize(x, p, axis, where=where, num_threads=1)
        assert cases.same_bits(anynorm.lp_normalize(x, p, axis, where=where, num_threads=3), one)


X = np.ones((4, 6), np.float32)
ERRORS = {
    "labels": (lambda: anynorm.lp_normalize(X, labels=[0] * 6), TypeError, "lp_normalize: expected sets that axes name, and a mask thins, got labels"),
    "weights": (lambda: anynorm.lp_normalize_backward(X, X, sample_weight=X), TypeError, "lp_normalize_backward: expected sets that axes name, and a mask thins, got sample_weight"),
    "where_shape": (lambda: anynorm.lp_normalize(X, where=np.ones(5, bool)), ValueError, "expected where of a shape that broadcasts to (4, 6), got (5,)"),
    "where_dtype": (lambda: anynorm.lp_normalize(X, where=X), TypeError, "lp_normalize: expected where of dtype bool, got float32"),
    "excluded": (lambda: anynorm.lp_normalize(X, excluded="zeros"), ValueError, "expected excluded to be 'zero', 'input' or 'keep'"),
    "unknown": (lambda: anynorm.lp_normalize(X, mask=None), TypeError, "unexpected keyword argument 'mask'"),
}  # fmt: skip


@pytest.mark.parametrize("call, error, message", ERRORS.values(), ids=ERRORS.keys())
def test_errors(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)


def test_lists_are_refused():
    awkward = pytest.importorskip("awkward")
    with pytest.raises(ValueError, match="a mask thins, got segments"):
        anynorm.lp_normalize(awkward.Array([[1.0, 2.0], [3.0]]), 2, 0)
