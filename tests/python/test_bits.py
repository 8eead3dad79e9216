# SPDX-License-Identifier: Apache-2.0
"""The same bits, whatever the number of threads, the instruction set, the batch around a sample or its address."""

import cases
import numpy as np
import pytest

import anynorm

THREADS = [1, 2, 3, 4, 8]
# The contiguous kernels, and those that gather a tile first.
PLACES = ["c", "fortran", "step2_inner", "negative_inner", "padded_rows"]


def parameters(x, rng):
    """One that varies along the innermost axis, one that does not."""
    weight = rng.normal(size=x.shape[-1:]).astype(x.dtype)
    bias = rng.normal(size=(x.shape[0], *[1] * (x.ndim - 1))).astype(x.dtype)
    return {"weight": weight, "bias": bias}


def place(name, values):
    if values.ndim < 2:
        return {"step2_inner": np.repeat(values, 2)[::2], "negative_inner": values[::-1].copy()[::-1]}.get(name, values)
    return cases.LAYOUT[name].place(values)


@pytest.mark.parametrize("name", PLACES)
def test_threads(kernel, name, dtype, isa, rng):
    x = place(name, rng.normal(100, 1, kernel.shape).astype(dtype))
    affine = parameters(x, rng)
    y, used = anynorm.normalize(x, kernel.axes, **affine, return_moments=True, num_threads=1)
    alone = anynorm.moments(x, kernel.axes, num_threads=1)
    for threads in THREADS[1:] if dtype is np.float32 else [3]:
        again = anynorm.normalize(x, kernel.axes, **affine, return_moments=True, num_threads=threads)
        assert cases.same_bits(again[0], y), f"{threads} threads"
        assert cases.same_moments(again[1], used), f"{threads} threads"
        assert cases.same_moments(anynorm.moments(x, kernel.axes, num_threads=threads), alone), f"{threads} threads"


def test_threads_of_every_norm(norm, dtype, isa, rng):
    for shape in [(4, 32, 17, 19), (2, 8, 71, 69)]:
        x = rng.normal(100, 1, shape).astype(dtype)
        weight, bias = norm.parameters(x)
        y = norm.call(anynorm, x, weight, bias, num_threads=1)
        for threads in [None, *THREADS[1:]]:
            assert cases.same_bits(norm.call(anynorm, x, weight, bias, num_threads=threads), y)


@pytest.mark.parametrize("name", PLACES)
def test_instruction_sets(kernel, name, dtype, wide_isas, rng):
    x = place(name, rng.normal(100, 1, kernel.shape).astype(dtype))
    affine = parameters(x, rng)
    results = []
    for isa in wide_isas:
        anynorm.use_isa(isa)
        results.append(anynorm.normalize(x, kernel.axes, **affine, return_moments=True))
    for y, used in results[1:]:
        assert cases.same_moments(used, results[0][1])
        assert cases.same_bits(y, results[0][0])


def test_instruction_sets_of_every_norm(norm, layout, dtype, wide_isas, rng):
    for shape in [(3, 8, 5, 7), (4, 32, 17, 19)]:
        x = layout.place(rng.normal(100, 1, shape).astype(dtype))
        weight, bias = norm.parameters(x)
        results = []
        for isa in wide_isas:
            anynorm.use_isa(isa)
            results.append(norm.call(anynorm, x, weight, bias))
        for y in results[1:]:
            assert cases.same_bits(y, results[0])


def test_instruction_sets_of_every_short_length(dtype, wide_isas, rng):
    """Rows and columns of 1 to 70 elements: all the remainders of all the vector lengths."""
    x = rng.normal(100, 1, (70, 70)).astype(dtype)
    for n in range(1, 71):
        for view, axis in [(x[:5, :n], 1), (x[:n, :5], 0), (x[:5, :n], 0), (x[:n, :5], 1), (x[:3, :n], None)]:
            results = []
            for isa in wide_isas:
                anynorm.use_isa(isa)
                results.append(anynorm.normalize(view, axis, return_moments=True))
            for y, used in results[1:]:
                assert cases.same_moments(used, results[0][1]), (n, axis)
                assert cases.same_bits(y, results[0][0]), (n, axis)


ROWS = [1, 3, 7, 16, 33, 100, 768, 1023, 4096, 4097, 10_007, 70_001]


@pytest.mark.parametrize("n", ROWS)
@pytest.mark.parametrize("center", [True, False], ids=["layer", "rms"])
def test_row_alone_is_the_row_in_a_batch(n, center, dtype, isa, rng):
    rows = max(9, 50_000 // n)
    x = rng.normal(100, 1, (rows, n)).astype(dtype)
    weight, bias = rng.normal(size=(2, n)).astype(dtype)

    def run(x):
        if center:
            return anynorm.layer_norm(x, n, weight, bias, return_moments=True)
        return anynorm.rms_norm(x, n, weight, return_moments=True)

    y, used = run(x)
    for i in {0, 1, rows // 2, rows - 1}:
        for alone in (x[i : i + 1].copy(), x[i].copy(), cases.LAYOUT["offset"].place(x[i : i + 1])):
            one, one_used = run(alone)
            assert cases.same_bits(one.reshape(n), y[i])
            assert cases.same_bits(one_used.mean.reshape(()), used.mean[i])
            assert cases.same_bits(one_used.m2.reshape(()), used.m2[i])


SAMPLES = [(5, 16, 7, 9), (3, 64, 17, 19), (4, 8, 71, 69), (9, 4, 1, 1), (3, 37, 65, 66)]
PER_SAMPLE = {
    "instance": lambda x, c: anynorm.instance_norm(x, channel_axis=c, return_moments=True),
    "group": lambda x, c: anynorm.group_norm(x, x.shape[c] if x.shape[c] % 4 else 4, channel_axis=c,
                                             return_moments=True),
    "layer": lambda x, c: anynorm.layer_norm(x, x.shape[1:], return_moments=True),
    "rms": lambda x, c: anynorm.rms_norm(x, x.shape[1:], return_moments=True),
    "layer_channels": lambda x, c: anynorm.layer_norm(x, axis=c, return_moments=True),
}  # fmt: skip


@pytest.mark.parametrize("run", PER_SAMPLE.values(), ids=PER_SAMPLE.keys())
@pytest.mark.parametrize("name", ["nchw", "nhwc", "channels_last_view"])
def test_sample_alone_is_the_sample_in_a_batch(run, name, dtype, isa, rng):
    for shape in SAMPLES:
        x = rng.normal(100, 1, shape).astype(dtype)
        if name == "nhwc":
            x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        elif name == "channels_last_view":
            x = cases.LAYOUT["channels_last"].place(x)
        axis = -1 if name == "nhwc" else 1
        y, used = run(x, axis)
        for i in (0, shape[0] - 1):
            alone = x[i : i + 1].copy(order="K")
            one, one_used = run(alone, axis)
            assert cases.same_bits(one, y[i : i + 1])
            assert cases.same_bits(one_used.mean, used.mean[i : i + 1])
            assert cases.same_bits(one_used.m2, used.m2[i : i + 1])


def test_large_outputs(dtype, isa, rng):
    """Outputs too large for the cache may be stored in another way; the bits are those of a row alone."""
    x = rng.normal(100, 1, (2_003, 2_500)).astype(dtype)
    y = anynorm.layer_norm(x)
    for i in (0, 1_000, 2_002):
        assert cases.same_bits(anynorm.layer_norm(x[i]), y[i])
    assert cases.same_bits(anynorm.layer_norm(x, out=np.empty(x.size + 1, dtype)[1:].reshape(x.shape)), y)
    in_place = x.copy()
    assert cases.same_bits(anynorm.layer_norm(in_place, out=in_place), y)


def test_address(norm, dtype, isa, rng):
    for shape in [(3, 8, 5, 7), (4, 32, 17, 19)]:
        x = rng.normal(100, 1, shape).astype(dtype)
        weight, bias = norm.parameters(x)
        y = norm.call(anynorm, x, weight, bias)
        moved = cases.LAYOUT["offset"].place(x)
        out = cases.LAYOUT["offset"].empty(shape, dtype)
        assert cases.same_bits(norm.call(anynorm, moved, weight, bias), y)
        assert cases.same_bits(norm.call(anynorm, moved, weight, bias, out=out), y)
        assert cases.same_bits(norm.call(anynorm, moved, weight, bias, out=moved), y)


def test_repeated_calls(kernel, dtype, rng):
    x = rng.normal(100, 1, kernel.shape).astype(dtype)
    y, used = anynorm.normalize(x, kernel.axes, return_moments=True)
    for _ in range(5):
        again, again_used = anynorm.normalize(x, kernel.axes, return_moments=True)
        assert cases.same_bits(again, y)
        assert cases.same_moments(again_used, used)
