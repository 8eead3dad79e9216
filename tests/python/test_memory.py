# SPDX-License-Identifier: Apache-2.0
"""No copies: a call needs less than 1 % of x beside x and y, in every layout; and nothing is kept or leaked."""

import gc
import json
import sys
from pathlib import Path

import cases
import numpy as np
import pytest

import anynorm

SHAPE = (8, 32, 128, 160)  # 20 MiB of float32

# The kernel keeps the highest resident size of a process; writing 5 to clear_refs sets it to the present one. All the
# memory of x and y is touched before, so what is added is the call's own, and code that runs for the first time: Linux
# maps up to 2 MiB of a file for the first byte of it that is read.
PEAK = """
import json, sys
import cases, numpy as np, anynorm

def peak():
    with open("/proc/self/status") as status:
        sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in status)
                 if name in ("VmHWM", "RssFile")}
    return sizes["VmHWM"] - sizes["RssFile"]

def extra(call):
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")
    before = peak()
    result = call()
    returned = 4 * result.count.nbytes if isinstance(result, anynorm.Moments) else 0
    return peak() - before - returned
"""

PRODUCT = """
result = {}
for layout in cases.LAYOUTS:
    small = layout.place(np.ones((2, 32, 40, 40), np.float32))
    x = layout.place(np.ones(shape, np.float32))
    outputs = {"moments": None, "c": np.ones(shape, np.float32)}
    if layout.output:
        outputs["in_place"] = x
    for norm in cases.NORMS:
        weight, bias = norm.parameters(x)
        norm.call(anynorm, small, *norm.parameters(small))  # threads and their stacks
        for name, out in outputs.items():
            if out is None:
                call = lambda: anynorm.moments(x, norm.parameter_axes)
            else:
                call = lambda: norm.call(anynorm, x, weight, bias, out=out)
            result[f"{layout.name} {norm.name} {name}"] = extra(call)
    del x, outputs
print(json.dumps(result))
"""

needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured through Linux's /proc")
LIMIT = 0.01 * 4 * np.prod(SHAPE)


@pytest.fixture(scope="module")
def extra_bytes(run_python):
    return json.loads(run_python(f"{PEAK}\nshape = {SHAPE}\n{PRODUCT}", timeout=300))


@needs_proc
def test_extra_memory(layout, extra_bytes):
    measured = {name: value for name, value in extra_bytes.items() if name.split()[0] == layout.name}
    assert len(measured) >= 2 * len(cases.NORMS)
    assert {name: value for name, value in measured.items() if value > LIMIT} == {}


GRADIENTS = """
result = {}
for name in ("c", "channels_last", "step2_inner", "negative_all"):
    place = cases.LAYOUT[name].place
    small, x, grad_output = (place(np.ones(s, np.float32)) for s in ((2, 32, 40, 40), shape, shape))
    for norm in cases.NORMS:
        norm.call(cases.Backward(anynorm, small), small, *norm.parameters(small), grad_input=small)
        call = lambda: norm.call(cases.Backward(anynorm, grad_output), x, *norm.parameters(x), grad_input=grad_output)
        result[f"{name} {norm.name}"] = extra(call)
print(json.dumps(result))
"""


@needs_proc
def test_extra_memory_of_gradients(run_python):
    """Partial sums may take 512 KB, and each element of a parameter two float64."""
    measured = json.loads(run_python(f"{PEAK}\nshape = {SHAPE}\n{GRADIENTS}", timeout=300))
    limit = LIMIT + 512 * 1024
    results = {"layer_sample": (4 * 4 + 2 * 8) * np.prod(SHAPE[1:])}  # weight, bias, their gradients and sums
    assert len(measured) == 4 * len(cases.NORMS)
    too_much = {name: v for name, v in measured.items() if v > limit + results.get(name.split()[1], 0)}
    assert too_much == {}


LONG_ROWS = """
x, weight = np.ones((512, 8192), np.float32), np.ones(8192, np.float32)
dy, dx = np.ones_like(x), np.ones_like(x)
parameters = {"grad_weight": np.empty_like(weight), "grad_bias": np.empty_like(weight)}
small = np.ones((2, 8192), np.float32)
anynorm.layer_norm_backward(small, small, weight=weight)
print(extra(lambda: anynorm.layer_norm_backward(dy, x, weight=weight, grad_input=dx, **parameters)))
"""


@needs_proc
def test_extra_memory_of_gradients_of_long_rows(run_python):
    """Eight partial sums, so that x is read once, but no more than an eighth of x."""
    x_bytes = 512 * 8192 * 4
    assert int(run_python(f"{PEAK}\n{LONG_ROWS}", timeout=300)) < x_bytes / 8 + 0.01 * x_bytes


FUSED = """
result = {}
x, residual, total, y, q = (np.ones(shape, dtype) for dtype in (*4 * [np.float32], np.int8))
small = np.ones((2, 32, 40, 40), np.float32)
for norm in cases.NORMS:
    weight, bias = norm.parameters(x)
    norm.call(anynorm, small, *norm.parameters(small), residual=small, activation="gelu")
    for name, options in {
        "sum": {"residual": residual, "sum_out": total, "activation": "gelu", "out": y},
        "8 bits": {"activation": "silu", "out": q, "out_scale": 0.1},
    }.items():
        result[f"{norm.name} {name}"] = extra(lambda: norm.call(anynorm, x, weight, bias, **options))
print(json.dumps(result))
"""


@needs_proc
def test_extra_memory_of_fused_calls(run_python):
    measured = json.loads(run_python(f"{PEAK}\nshape = {SHAPE}\n{FUSED}", timeout=300))
    assert len(measured) == 2 * len(cases.NORMS)
    assert {name: value for name, value in measured.items() if value > LIMIT} == {}


@needs_proc
def test_the_measurement_sees_a_copy(run_python):
    code = f"""{PEAK}
x = np.ones({SHAPE}, np.float32)
print(extra(lambda: x * 2), extra(lambda: x.sum()))
"""
    copied, summed = (int(number) for number in run_python(code).split())
    assert copied > 0.9 * 4 * np.prod(SHAPE)
    assert summed < LIMIT


@needs_proc
def test_the_result_is_all_that_is_allocated(run_python):
    """Whole huge pages may be used for it, 2 MiB each."""
    code = f"""{PEAK}
x = np.ones({SHAPE}, np.float32)
anynorm.layer_norm(x[:1])
print(extra(lambda: anynorm.layer_norm(x)))
"""
    size = 4 * np.prod(SHAPE)
    assert int(run_python(code)) < 1.01 * size + 2 * 2**21


# Arrays between two pages that must not be touched: one step too far ends the process.
GUARDED = """
import ctypes, mmap
import cases, numpy as np, anynorm

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
page, keep = mmap.PAGESIZE, []

def guarded(shape, dtype, at_end):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    keep.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (start, start + (pages + 1) * page):
        assert libc.mprotect(guard, page, 0) == 0
    offset = page + (pages * page - size if at_end else 0)
    array = np.frombuffer(memory, dtype, int(np.prod(shape)), offset).reshape(shape)
    array[...] = np.random.default_rng(0).normal(size=shape)
    return array

for isa in anynorm.available_isas():
    anynorm.use_isa(isa)
    for dtype in (np.float32, np.float64):
        for at_end in (False, True):
            keep.clear()
            for n in [*range(1, 36), 63, 65, 129, 1000]:
                for rows in (1, 2, 7, 18):
                    x, out = (guarded((rows, n), dtype, at_end) for _ in range(2))
                    w, b = (guarded((n,), dtype, at_end) for _ in range(2))
                    c = guarded((rows, 1), dtype, at_end)
                    for view, y in [(x, out), (x[:, ::2], out[:, ::2]), (x[:, ::-1], out), (x[::-1], out), (x, x)]:
                        anynorm.moments(view, 0)
                        anynorm.moments(view, 1)
                        weight, bias = w[: view.shape[1]], b[-view.shape[1] :]
                        for target in (y, y[:, : view.shape[1]]):
                            if target.shape == view.shape:
                                anynorm.normalize(view, 0, weight=weight, bias=bias, out=target)
                                anynorm.normalize(view, 1, weight=weight, bias=c, out=target)
                    if n * rows < 1000:
                        anynorm.normalize(x.T, 0, weight=c.T[0, :rows], out=out.T)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="protects pages through libc")
def test_nothing_outside_of_the_arrays_is_touched(run_python):
    run_python(GUARDED)


@needs_proc
def test_nothing_is_kept(run_python):
    """The resident size after 400 calls is that after 100."""
    code = """
import numpy as np, anynorm

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

x = np.ones((64, 1024), np.float32)
strided = np.ones((64, 2048), np.float32)[:, ::2]
def calls(n):
    for _ in range(n):
        y, used = anynorm.layer_norm(x, return_moments=True)
        anynorm.normalize(strided, 0, moments=anynorm.moments(strided, 0), out=y)
        try:
            anynorm.layer_norm(x, out=y[1:])
        except ValueError:
            pass
    return resident()
first = calls(100)
print(calls(300) - first)
"""
    assert int(run_python(code)) < 2**20


def test_references_are_given_back():
    """A call that succeeds and one that is refused leave the reference counts of all arguments as they were."""
    x, out = np.ones((4, 6), np.float32), np.ones((4, 6), np.float32)
    weight, running, bad = np.ones(6, np.float32), np.ones(6, np.float32), np.ones(5, np.float32)
    given = anynorm.moments(x, 1)
    axis, shape, dtype = (1,), (6,), np.dtype(np.float32)
    arguments = [x, out, weight, running, bad, given, axis, shape, dtype]

    def calls():
        anynorm.normalize(x, axis, weight=weight, bias=weight, moments=given, out=out, dtype=dtype)
        anynorm.layer_norm(x, shape, weight, out=out, return_moments=True)
        anynorm.batch_norm(x, running, running.copy(), weight, training=True, dtype=dtype)
        anynorm.moments(x, axis)
        anynorm.layer_norm_backward(out, x, shape, weight, running, moments=given, grad_input=out, grad_bias=running)
        anynorm.batch_norm_backward(out, x, running, weight, weight, training=True)
        for refused in (
            lambda: anynorm.layer_norm_backward(out, x, shape, weight, grad_input=out, grad_weight=bad),
            lambda: anynorm.normalize_backward(out, x, axis, bias=bad, moments=given, grad_weight=weight),
            lambda: anynorm.layer_norm(x, shape, bad, out=out, moments=given),
            lambda: anynorm.layer_norm(x, shape, weight, out=bad, return_moments=True),
            lambda: anynorm.normalize(x, (1, 1), weight=weight, out=out),
            lambda: anynorm.batch_norm(x, running, bad, weight, training=True),
        ):
            with pytest.raises(ValueError, match="expected"):
                refused()

    calls()
    gc.collect()
    before = [sys.getrefcount(argument) for argument in arguments]
    for _ in range(20):
        calls()
    gc.collect()
    assert [sys.getrefcount(argument) for argument in arguments] == before


def test_the_result_owns_its_memory():
    x = np.random.default_rng(0).normal(size=(64, 1024)).astype(np.float32)
    results = [anynorm.layer_norm(x * (i + 1)) for i in range(8)]
    copies = [y.copy() for y in results]
    del x
    for _ in range(8):
        anynorm.layer_norm(np.ones((64, 1024), np.float32))
    for y, copy in zip(results, copies, strict=True):
        assert cases.same_bits(y, copy)
