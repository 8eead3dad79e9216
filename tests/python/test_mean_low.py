# SPDX-License-Identifier: Apache-2.0
"""What the rounding of a mean has lost: returned, given back, pooled, and kept in files of statistics."""

from fractions import Fraction

import cases
import numpy as np
import pytest
import reference

import anynorm
from anynorm import Moments, stream

SHAPE = (12, 6, 5, 7)
ROWS = (12, 1, 1, 1)
LABELS = np.reshape(np.arange(12) % 4 - 1, ROWS)
MASK = np.reshape(np.arange(12) % 5 > 0, ROWS)
WEIGHTS = np.reshape(np.linspace(0, 2, 12), ROWS)

CALLS = {
    "columns": ("normalize", {"axis": 0}),
    "channels": ("normalize", {"axis": (0, 2, 3)}),
    "all": ("normalize", {"axis": None}),
    "pattern": ("normalize", {"axis": "n (g c) h w -> g n", "g": 2}),
    "labels": ("normalize", {"axis": (0, 2), "labels": LABELS}),
    "labels_of_a_pattern": ("normalize", {"axis": "n (g c) h w -> g", "g": 2, "labels": LABELS.ravel()}),
    "mask": ("normalize", {"axis": 0, "where": MASK}),
    "weights": ("normalize", {"axis": (0, 3), "sample_weight": WEIGHTS}),
    "layer": ("layer_norm", {"axis": (1, 3)}),
    "rms": ("rms_norm", {}),
    "group": ("group_norm", {"num_groups": 3}),
    "instance": ("instance_norm", {}),
    "batch": ("batch_norm", {"training": True}),
    "batch_of_labels": ("batch_norm", {"training": True, "labels": LABELS}),
}


@pytest.fixture(params=["float16", "bfloat16", "float32", "float64"])
def x(request, rng):
    """Data whose mean is as large for its dtype as deviations of a few digits allow."""
    mean, deviation = {"float64": (1e8, 1), "float32": (1e5, 1), "float16": (300, 1)}.get(request.param, (300, 40))
    values = mean + deviation * rng.normal(size=SHAPE)
    if request.param == "bfloat16":
        return values.astype(pytest.importorskip("ml_dtypes").bfloat16)
    return values.astype(request.param)


@pytest.mark.parametrize("call", CALLS)
def test_moments_given_back_give_the_bits_of_the_call(x, rng, call):
    name, options = CALLS[call]
    forward, backward = getattr(anynorm, name), getattr(anynorm, f"{name}_backward")
    y, used = forward(x, **options, return_moments=True)
    assert np.any(used.mean_low) == (call != "rms")
    assert cases.same_bits(forward(x, **options), y)
    assert cases.same_bits(forward(x, **options, moments=used), y)
    if name == "normalize":
        assert cases.same_moments(anynorm.moments(x, **options), used)
    grad_output = rng.normal(size=SHAPE).astype(x.dtype)
    own, saved = (backward(grad_output, x, **options, moments=moments) for moments in (None, used))
    assert cases.same_bits(saved.grad_input, own.grad_input)


def test_without_it_given_moments_lose_digits(rng):
    x = rng.normal(1e8, 1, (3, 4001))
    y, used = anynorm.layer_norm(x, return_moments=True)
    rounded = anynorm.layer_norm(x, moments=Moments(used.count, used.mean, used.m2))
    assert 1e-10 < np.abs(rounded - y).max() < 1e-8
    again = anynorm.layer_norm(x, moments=Moments(used.count, used.mean, used.m2, mean_low=used.mean_low))
    assert cases.same_bits(again, y)


def test_given_moments_of_float32_and_their_low_part_are_returned(rng):
    x = rng.normal(3, 1, (4, 50))
    known = Moments([2, 3, 4, 5], 3, 1, mean_low=[0, 1e-17, -1e-17, 2e-17])
    _, used = anynorm.normalize(x, 1, moments=known, return_moments=True)
    assert used == known


def test_batch_renorm_of_moments_given_back(x, rng):
    running = {"running_mean": np.full(6, float(x.astype(float).mean()) + 1), "running_var": np.full(6, 2.0)}
    options = {"training": True, "momentum": 0.0, "r_max": 9.0, "d_max": 9.0}
    y, used = anynorm.batch_renorm(x, **running, **options, return_moments=True)
    assert cases.same_bits(anynorm.batch_renorm(x, **running, **options, moments=used), y)


def test_pooled_moments_are_exact_at_any_mean(rng):
    x = rng.normal(-1e8, 1, (40, 25, 2))
    pooled, by_hand = Moments.empty(2), Moments.empty(2)
    low = pooled.mean_low
    for batch in x:
        _, used = anynorm.batch_norm(batch, training=True, pooled=pooled, return_moments=True)
        anynorm.update_running(None, None, used, pooled=by_hand)
    assert cases.same_moments(pooled, by_hand)
    assert low is pooled.mean_low, "updated in place"
    assert np.any(low)
    for channel in range(2):
        exact = reference.exact_moments(x[..., channel])
        assert abs(Fraction(float(pooled.mean[channel])) + Fraction(float(low[channel])) - exact.mean) < 1e-15
        assert abs(Fraction(float(pooled.m2[channel])) / exact.m2 - 1) < 1e-14


def test_files_of_statistics_keep_it(rng, tmp_path):
    x, file = rng.normal(1e8, 1, (500, 3)), tmp_path / "statistics.npz"
    used = stream.moments(x, 0, statistics=file, chunk_bytes=1000)
    assert np.any(used.mean_low)
    assert stream.load_moments(file) == used
    with np.load(file) as arrays:
        before = {name: arrays[name] for name in ("count", "mean", "m2")}
    np.savez(file, **before)
    assert stream.load_moments(file) == Moments(used.count, used.mean, used.m2)
    parts = stream.moments(iter(np.array_split(x, 7)), 1)  # whole sets within chunks
    assert cases.same_moments(parts, anynorm.moments(x, 1))


def test_streamed_results_have_the_digits_of_those_in_memory(rng, tmp_path):
    x = rng.normal(-1e12, 1, (300, 4))
    y = stream.normalize(x, 0, tmp_path / "y.npy", chunk_bytes=640)
    np.testing.assert_allclose(y, anynorm.normalize(x, 0), rtol=1e-14, atol=1e-14)
    used = stream.moments(x, 0, chunk_bytes=640)
    assert cases.same_bits(y, anynorm.normalize(x, 0, moments=used))
    assert not np.allclose(
        y, anynorm.normalize(x, 0, moments=Moments(used.count, used.mean, used.m2)), rtol=0, atol=1e-7
    )
