# SPDX-License-Identifier: Apache-2.0
"""The oracle itself, against values worked out by hand and against exact arithmetic."""

from fractions import Fraction

import cases
import numpy as np
import pytest
import reference


def test_exact_moments_by_hand():
    count, mean, m2 = reference.exact_moments([1.0, 3.0, 5.0])
    assert (count, mean, m2) == (3, 3, 8)


def test_exact_moments_do_not_round():
    """2^-1074 next to 2^1000: no float type holds the sum."""
    _, mean, m2 = reference.exact_moments([2.0**1000, 2.0**-1074])
    assert mean == (Fraction(2) ** 1000 + Fraction(1, 2**1074)) / 2
    assert m2 == (Fraction(2) ** 1000 - Fraction(1, 2**1074)) ** 2 / 2


@pytest.mark.parametrize("mean", [0.0, 1.0, 1e4, 1e6])
def test_float64_moments_are_exact_to_the_last_digits(rng, mean):
    x = rng.normal(mean, 1, (3, 1000)).astype(np.float32)
    result = reference.moments(x, axis=1)
    for row in range(3):
        exact = reference.exact_moments(x[row])
        assert float(result.mean[row]) == pytest.approx(float(exact.mean), rel=1e-15, abs=1e-15)
        assert float(result.m2[row]) == pytest.approx(float(exact.m2), rel=1e-14)


def test_axes_are_the_numpy_ones(rng):
    x = rng.normal(size=(2, 3, 4, 5))
    for axis in [None, 0, -1, (0, 2), (-1, 1), (0, 1, 2, 3)]:
        result = reference.moments(x, axis)
        np.testing.assert_allclose(result.mean, x.mean(axis), rtol=1e-13)
        np.testing.assert_allclose(result.var, x.var(axis), rtol=1e-13)


@pytest.mark.parametrize("with_parameters", [True, False], ids=["affine", "plain"])
def test_gradients_are_finite_differences(norm, with_parameters, rng):
    """Of the oracle's forward calls: (f(p + h) - f(p - h)) / 2h for every element of x, weight and bias."""
    h = 1e-5
    arguments = [rng.normal(1, 1, (2, 4, 3, 2))]
    arguments += norm.parameters(arguments[0]) if with_parameters else (None, None)
    grad_output = rng.normal(size=arguments[0].shape)

    def loss():
        return (norm.call(reference, *arguments, eps=0.1) * grad_output).sum()

    gradients = norm.call(cases.Backward(reference, grad_output), *arguments, eps=0.1)
    for argument, gradient in zip(arguments, gradients, strict=True):
        if argument is None or gradient is None:
            continue
        for place in np.ndindex(argument.shape):
            at = argument[place]
            argument[place] = at + h
            above = loss()
            argument[place] = at - h
            slope = (above - loss()) / (2 * h)
            argument[place] = at
            assert slope == pytest.approx(gradient.reshape(argument.shape)[place], rel=1e-7, abs=1e-8)


def test_places_keep_the_values(layout, rng):
    """A layout changes where the elements are, never what they are (broadcasts repeat the first slice)."""
    values = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    placed = layout.place(values)
    assert placed.shape == values.shape
    assert placed.dtype == values.dtype
    assert not np.shares_memory(placed, values) or not layout.output
    if layout.output:
        assert np.array_equal(placed, values)
        assert placed.flags.writeable
    else:
        assert 0 in placed.strides


def test_layouts_differ(rng):
    values = rng.normal(size=(3, 4, 5, 6))
    strides = {layout.name: layout.place(values).strides for layout in cases.LAYOUTS}
    assert strides.pop("offset") == strides["c"]
    assert len(set(strides.values())) == len(strides)
