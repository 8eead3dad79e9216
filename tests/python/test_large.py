# SPDX-License-Identifier: Apache-2.0
"""What only arrays of several MB meet: sets in many places, whole rows of columns, partial sums of long rows."""

import functools

import cases
import numpy as np
import pytest
import reference

import anynorm

CASES = {
    # 4 MB and more in 512 places or more are walked in the order of memory.
    "many_places": ((1040, 21, 7, 7), (0, 2, 3), 1),
    "many_places_of_whole_packs": ((600, 9, 16, 16), (0, 2, 3), 1),
    "many_places_fortran": ((40, 28, 33, 32), (1, 2, 3), 0),
    # In fewer, a piece is as many channels as are 4 KB in each.
    "short_stretches": ((300, 24, 13, 13), (0, 2, 3), 1),
    # More than 4 MB of columns: whole rows, whose results are not written beside the sums of others if they are long.
    "columns": ((12, 20, 20, 272), (1, 2), 3),
    "long_rows_of_columns": ((6, 14, 14, 1040), (1, 2), 3),
    "folded_columns": ((9, 20, 20, 40, 8), (1, 2, 4), 3),
    # Two planes a set: a call of a kernel for each, which leaves a line open for the next.
    "small_groups": ((900, 16, 2, 7, 7), (2, 3, 4), 2),
    # Eight partial sums of 8200 elements are more than 1 % of x.
    "long_rows": ((264, 8200), 1, 1),
}


def array(shape, dtype, mean, seed):
    return np.random.default_rng(seed).normal(mean, 1, shape).astype(dtype)


@functools.cache
def operands(name, dtype):
    shape, axes, along = CASES[name]
    order = "F" if name.endswith("fortran") else "C"
    x, grad_output = (np.asarray(array(shape, dtype, m, s), order=order) for m, s in ((3, 1), (0.5, 2)))
    weight = array((shape[along], *[1] * (len(shape) - along - 1)), dtype, 1, 3)
    return x, grad_output, axes, weight


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def same(of_threads):
    first, *others = of_threads
    assert all(cases.same_bits(a, b) for other in others for a, b in zip(first, other, strict=True))
    return first


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_normalize(case, dtype):
    x, _, axes, weight = operands(case, dtype)
    arguments = {"weight": weight, "bias": weight, "return_moments": True}
    results = [anynorm.normalize(x, axes, num_threads=n, **arguments) for n in (1, 2, 5)]
    y, mean, m2 = same([(y, m.mean, m.m2) for y, m in results])
    exact, moments = reference.normalize(x, axes, **arguments)
    wide = dtype is np.float64
    assert np.all(np.abs(y - exact) <= 2.0 ** (-53 if wide else -24) * np.abs(exact) + (1e-13 if wide else 2e-6))
    assert np.abs(mean - moments.mean).max() < 1e-14 * 3
    assert np.abs(m2 / moments.m2 - 1).max() < (1e-13 if wide else 1e-12)
    alone = anynorm.moments(x, axes, num_threads=2)
    same([(mean, m2), (alone.mean, alone.m2)])


@pytest.mark.parametrize("given", [True, False], ids=["given", "computed"])
def test_gradients(case, given):
    x, grad_output, axes, weight = operands(case, np.float32)
    moments = anynorm.moments(x, axes) if given else None
    arguments = {"weight": weight, "bias": weight}
    got = same(
        tuple(anynorm.normalize_backward(grad_output, x, axes, moments=moments, num_threads=n, **arguments))
        for n in (1, 2, 5)
    )
    exact = reference.normalize_backward(grad_output, x, axes, **arguments)
    terms = x.size / weight.size
    assert np.abs(got[0] - exact.grad_input).max() < 3e-6 * (1 + np.abs(exact.grad_input).max())
    assert np.abs(got[1] - exact.grad_weight).max() < 2e-6 * terms**0.5
    assert np.abs(got[2] - exact.grad_bias).max() < 1e-6 * np.abs(exact.grad_bias).max()
