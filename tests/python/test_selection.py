# SPDX-License-Identifier: Apache-2.0
"""Sets that data name, labels, segments, masks and weights: against a loop over the sets, and against compacted data."""

import itertools

import cases
import numpy as np
import pytest
import selection_reference

import anynorm

F32, F64 = np.float32, np.float64
SHAPE = (23, 4, 3, 5)
LAYOUTS = ["c", "fortran", "channels_last", "step2_inner", "negative_all", "broadcast_channels"]


def _kinds():
    rng = np.random.default_rng(3)
    per_sample = rng.integers(-1, 4, SHAPE[0])
    per_pixel = rng.integers(-2, 3, (SHAPE[0], 1, *SHAPE[2:])).astype(np.int32)
    mask = rng.random(SHAPE) < 0.7
    weight = rng.integers(0, 3, (SHAPE[0], 1, 1, 1)) * 0.75
    offsets = np.array([0, 5, 5, 6, 20])  # an empty segment, one of a single row, and rows behind the last
    column = per_sample.reshape(-1, 1, 1, 1)
    return {
        "labels": {"labels": column, "num_groups": 5},
        "labels_of_pixels": {"labels": per_pixel, "num_groups": 3},
        "offsets": {"segments": offsets},
        "pairs": {"segments": np.array([[2, 3], [3, 9], [14, 14], [15, 23]], np.int32)},
        "where": {"where": mask},
        "where_of_pixels": {"where": mask[:, :1]},
        "weights": {"sample_weight": weight},
        "labels_where_weights": {"labels": column, "num_groups": 4, "where": mask, "sample_weight": weight.astype(F32)},
        "segments_where": {"segments": offsets, "where": mask[:1]},
    }


KINDS = _kinds()


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def close(y, expected):
    tolerance = {"rtol": 5e-7, "atol": 3e-6} if y.dtype == F32 else {"rtol": 1e-13, "atol": 1e-12}
    np.testing.assert_allclose(y, expected, **tolerance)


def moments_close(used, expected):
    np.testing.assert_allclose(used.count, expected.count, rtol=1e-14)
    np.testing.assert_allclose(used.mean, expected.mean, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(used.m2, expected.m2, rtol=1e-12, atol=1e-20)


# --- against the oracle ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axes", [(0, 2, 3), (0, 3, 2, 1)], ids=["per_channel", "all"])
def test_every_kind(kind, layout, axes, dtype, rng):
    x = cases.LAYOUT[layout].place(rng.normal(3, 2, SHAPE).astype(dtype))
    weight, bias = rng.normal(size=(2, 4, 1, 1)).astype(dtype)
    used = anynorm.moments(x, axes, **kind)
    expected = selection_reference.moments(x, axes, **kind)
    moments_close(used, expected)
    if "sample_weight" in kind:
        np.testing.assert_allclose(used.weight2, expected.weight2, rtol=1e-14)
    y, returned = anynorm.normalize(x, axes, weight=weight, bias=bias, return_moments=True, **kind)
    close(y, selection_reference.normalize(x, axes, weight=weight, bias=bias, **kind))
    assert cases.same_moments(returned, used)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_every_kind(kind, layout, dtype, rng):
    axes = (0, 2, 3)
    x = cases.LAYOUT[layout].place(rng.normal(3, 2, SHAPE).astype(dtype))
    weight, bias = rng.normal(size=(2, 4, 1, 1)).astype(dtype)
    grad_output = rng.normal(size=SHAPE).astype(dtype)
    found = anynorm.normalize_backward(grad_output, x, axes, weight=weight, bias=bias, **kind)
    wanted = selection_reference.normalize_backward(grad_output, x, axes, weight=weight, bias=bias, **kind)
    largest = dtype(np.abs(wanted.grad_input).max())
    close(found.grad_input / largest, wanted.grad_input / largest)
    for ours, theirs in zip(found[1:], wanted[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5 if dtype == F32 else 1e-12, atol=1e-4 if dtype == F32 else 1e-12)  # fmt: skip


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_types(kind, half, rng):
    dtype = np.dtype(half) if half == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    x = rng.normal(3, 2, SHAPE).astype(dtype)
    moments_close(anynorm.moments(x, (0, 2, 3), **kind), selection_reference.moments(x, (0, 2, 3), **kind))
    y = anynorm.normalize(x, (0, 2, 3), dtype=F32, **kind)
    close(y, selection_reference.normalize(x, (0, 2, 3), **kind))


@pytest.mark.parametrize("excluded", ["zero", "input", "keep"])
def test_excluded_elements(kind, excluded, rng):
    x, grad_output = rng.normal(3, 2, (2, *SHAPE)).astype(F32)
    axes = (0, 2, 3)
    out, grad_input = np.full(SHAPE, np.nan, F32), np.full(SHAPE, np.nan, F32)
    anynorm.normalize(x, axes, out=out, excluded=excluded, **kind)
    close(out, selection_reference.normalize(x, axes, excluded=excluded, **kind))
    anynorm.normalize_backward(grad_output, x, axes, grad_input=grad_input, excluded=excluded, **kind)
    close(
        grad_input, selection_reference.normalize_backward(grad_output, x, axes, excluded=excluded, **kind).grad_input
    )


# --- against calls on less data --------------------------------------------------------------------------------------


def test_a_mask_is_the_same_call_on_compacted_data(rng, dtype):
    """Statistics to the bit, and results as close as those of other lengths are."""
    x = rng.normal(1e4, 1, (6, 5000)).astype(dtype)
    mask = rng.random(x.shape) < 0.6
    y, used = anynorm.normalize(x, 1, where=mask, return_moments=True)
    for row in range(len(x)):
        alone, statistics = anynorm.normalize(x[row, mask[row]], 0, return_moments=True)
        assert (used.count[row], used.mean[row], used.m2[row]) == (statistics.count, statistics.mean, statistics.m2)
        np.testing.assert_allclose(y[row, mask[row]], alone, rtol=1e-6 if dtype == F32 else 1e-13, atol=1e-12)


def test_segments_are_a_loop_over_them(rng, dtype):
    x, grad_output = rng.normal(3, 2, (2, 300, 7)).astype(dtype)
    offsets = np.sort(rng.integers(0, 301, 12))
    y, used = anynorm.normalize(x, 0, segments=offsets, return_moments=True)
    found = anynorm.normalize_backward(grad_output, x, 0, segments=offsets).grad_input
    for number, (start, stop) in enumerate(itertools.pairwise(offsets)):
        alone, statistics = anynorm.normalize(x[start:stop], 0, return_moments=True)
        assert cases.same_moments(used[number], statistics)
        np.testing.assert_allclose(y[start:stop], alone, rtol=1e-6 if dtype == F32 else 1e-12, atol=1e-12)
        gradient = anynorm.normalize_backward(grad_output[start:stop], x[start:stop], 0).grad_input
        np.testing.assert_allclose(found[start:stop], gradient, rtol=1e-4 if dtype == F32 else 1e-9, atol=1e-6)
    assert not y[: offsets[0]].any()
    assert not y[offsets[-1] :].any()


def test_sorted_labels_are_segments(rng):
    x = rng.normal(3, 2, (1000, 6)).astype(F32)
    counts = rng.integers(0, 40, 30)
    labels = np.repeat(np.arange(30), counts)
    x = x[: len(labels)] if len(labels) <= 1000 else np.resize(x, (len(labels), 6))
    by_label = anynorm.normalize(x, 0, labels=labels, num_groups=30, return_moments=True)
    by_segment = anynorm.normalize(x, 0, segments=np.append(0, np.cumsum(counts)), return_moments=True)
    np.testing.assert_allclose(by_label[0], by_segment[0], rtol=1e-6, atol=1e-6)
    moments_close(by_label[1], by_segment[1])


def test_integer_weights_are_repetition(rng, dtype):
    x = rng.normal(3, 2, (50, 7)).astype(dtype)
    times = rng.integers(0, 4, 50)
    used = anynorm.moments(x, 0, sample_weight=times)
    moments_close(used, anynorm.moments(np.repeat(x, times, axis=0), 0))
    np.testing.assert_allclose(used.weight2, np.sum(times**2))


NAMED = {
    "batch": (lambda x, **o: anynorm.batch_norm(x, training=True, **o), (0, 2, 3)),
    "instance": (lambda x, **o: anynorm.instance_norm(x, **o), (2, 3)),
    "layer": (lambda x, **o: anynorm.layer_norm(x, **o), (3,)),
    "layer_sample": (lambda x, **o: anynorm.layer_norm(x, SHAPE[1:], **o), (1, 2, 3)),
    "rms": (lambda x, **o: anynorm.rms_norm(x, eps=1e-5, axis=1, **o), (1,)),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_norms(name, rng):
    call, axes = NAMED[name]
    x, grad_output = rng.normal(3, 2, (2, *SHAPE)).astype(F32)
    mask, center = rng.random(SHAPE) < 0.7, name != "rms"
    for options in ({"where": mask}, {"where": mask, "excluded": "input"}, {"sample_weight": mask * 0.5}):
        expected = anynorm.normalize(x, axes, center=center, return_moments=True, **options)
        y, used = call(x, return_moments=True, **options)
        assert cases.same_bits(y, expected[0])
        assert cases.same_moments(used, expected[1])
    backward = getattr(anynorm, f"{name.split('_')[0]}_norm_backward")
    own = {
        "batch": {"training": True},
        "layer_sample": {"normalized_shape": SHAPE[1:]},
        "rms": {"axis": 1, "eps": 1e-5},
    }
    found = backward(grad_output, x, where=mask, grad_weight=True, **own.get(name, {}))
    expected = anynorm.normalize_backward(grad_output, x, axes, center=center, where=mask).grad_input
    np.testing.assert_allclose(found.grad_input, expected, rtol=1e-5, atol=1e-6)


def test_group_norm(rng):
    x = rng.normal(3, 2, SHAPE).astype(F32)
    mask = rng.random(SHAPE) < 0.7
    y, used = anynorm.group_norm(x, 2, where=mask, return_moments=True)
    expected, statistics = anynorm.normalize(x, "n (g c) h w -> n g", g=2, where=mask, return_moments=True)
    assert cases.same_bits(y, expected)
    assert cases.same_moments(used, statistics)


def test_labels_by_pattern(rng):
    """Moments have the groups in front of the right-hand side, whatever its order."""
    x = rng.normal(3, 2, SHAPE).astype(F32)
    labels = rng.integers(-1, 3, SHAPE[0])
    y, used = anynorm.normalize(x, "n (g c) h w -> c g", g=2, labels=labels, num_groups=3, return_moments=True)
    split = x.reshape(23, 2, 2, 3, 5)
    expected, statistics = anynorm.normalize(split, (0, 3, 4), labels=labels, num_groups=3, return_moments=True)
    assert used.shape == (3, 2, 2)
    assert cases.same_bits(y, expected.reshape(SHAPE))
    assert cases.same_bits(used.mean, statistics.mean.transpose(0, 2, 1))
    again = anynorm.normalize(x, "n (g c) h w -> c g", g=2, labels=labels, num_groups=3, moments=used)
    np.testing.assert_allclose(again, y, rtol=1e-6, atol=1e-6)


# --- data that is hard -----------------------------------------------------------------------------------------------


def test_a_mean_that_is_large_against_the_deviation(rng):
    """Sums of squares would leave no digit of the variance, or a negative one."""
    x = rng.normal(1e8, 1, (20_000, 3))
    labels = rng.integers(0, 7, len(x))
    used = anynorm.moments(x, 0, labels=labels)
    expected = np.stack([x[labels == number].var(axis=0) for number in range(7)])
    np.testing.assert_allclose(used.var(), expected, rtol=1e-9)
    y = anynorm.normalize(x, 0, labels=labels)
    assert all(abs(y[labels == number].mean()) < 1e-6 for number in range(7))


def test_what_is_excluded_spoils_nothing(rng):
    x = rng.normal(size=(40, 6)).astype(F32)
    mask = rng.random(x.shape) < 0.5
    spoiled = np.where(mask, x, np.nan).astype(F32)
    y = anynorm.normalize(spoiled, 0, where=mask)
    assert cases.same_bits(y, anynorm.normalize(x, 0, where=mask))
    assert not np.isnan(y).any()


def test_empty_sets():
    x = np.arange(6.0).reshape(3, 2)
    used = anynorm.moments(x, 0, labels=[2, 2, -1], num_groups=4)
    assert used.count[:, 0].tolist() == [0, 0, 2, 0]
    assert np.isnan(used.mean[[0, 1, 3]]).all()
    assert not used.m2[[0, 1, 3]].any()
    assert anynorm.moments(x, 0, where=False).count.tolist() == [0, 0]
    assert not anynorm.normalize(x, 0, where=np.zeros(2, bool)).any()
    assert anynorm.moments(x, 0, labels=[-1, -1, -1]).shape == (0, 2)
    assert anynorm.moments(x, 0, segments=[0]).shape == (0, 2)


def test_threads_do_not_change_the_bits(rng):
    x = rng.normal(3, 2, (40_000, 16)).astype(F32)
    options = {"labels": rng.integers(-1, 1000, len(x)), "where": rng.random(x.shape) < 0.9}
    one = anynorm.normalize(x, 0, num_threads=1, return_moments=True, **options)
    two = anynorm.normalize(x, 0, num_threads=2, return_moments=True, **options)
    assert cases.same_bits(one[0], two[0])
    assert cases.same_moments(one[1], two[1])
