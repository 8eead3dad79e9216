# SPDX-License-Identifier: Apache-2.0
"""Instruction sets and threads: what is asked for is what runs; the GIL is free meanwhile; fork does not hang."""

import os
import sys
import threading
import time
from pathlib import Path

import cases
import numpy as np
import pytest

import anynorm

KNOWN = ("baseline", "avx2", "avx512", "neon")


@pytest.fixture
def restore():
    before = anynorm.active_isa()
    yield
    anynorm.use_isa(before)


# --- instruction sets ------------------------------------------------------------------------------------------------


def test_available_isas():
    isas = anynorm.available_isas()
    assert isinstance(isas, tuple)
    assert isas[0] == "baseline"
    assert len(set(isas)) == len(isas)
    assert set(isas) <= set(KNOWN)
    assert [KNOWN.index(name) for name in isas] == sorted(KNOWN.index(name) for name in isas)


def test_every_instruction_set_of_the_cpu_is_there():
    """As the kernel of the operating system sees it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    if "avx2" not in flags:
        pytest.skip("not a CPU with AVX2, or not Linux")
    assert "avx2" in anynorm.available_isas()
    assert ("avx512" in anynorm.available_isas()) == {"avx512f", "avx512bw", "avx512dq", "avx512vl"}.issubset(flags)


def test_use_isa(isa):
    assert anynorm.active_isa() == isa


@pytest.mark.parametrize("name", ["", "AVX2", "sse9", "neon" if "avx2" in anynorm.available_isas() else "avx2"])
def test_use_isa_refuses_others(name):
    before = anynorm.active_isa()
    with pytest.raises(ValueError, match="expected"):
        anynorm.use_isa(name)
    assert anynorm.active_isa() == before


def test_use_isa_refuses_other_types():
    with pytest.raises(TypeError):
        anynorm.use_isa(2)


def test_the_fastest_is_the_default(run_python):
    code = "import anynorm; print(anynorm.active_isa(), anynorm.available_isas()[-1])"
    active, last = run_python(code, ANYNORM_ISA="").split()
    assert active == last


DIGEST = """
import hashlib, numpy as np, anynorm
x = (np.arange(100_000) * 0.37 % 11).astype(np.float32).reshape(100, 1000)
y, used = anynorm.layer_norm(x, return_moments=True)
print(anynorm.active_isa(), hashlib.sha256(y.tobytes() + used.m2.tobytes()).hexdigest())
"""


def digest_here():
    scope = {}
    exec(DIGEST.replace("print(", "result = ("), scope)
    return scope["result"]


@pytest.mark.parametrize("name", anynorm.available_isas())
def test_the_environment_forces_one(name, run_python, restore):
    """The forced one is named, and its bits are those of use_isa()."""
    active, digest = run_python(DIGEST, ANYNORM_ISA=name).split()
    assert active == name
    anynorm.use_isa(name)
    assert digest_here() == (name, digest)


def test_forcing_has_an_effect(restore):
    """Baseline has no fused multiply-add: were it not the one that runs, its bits would be those of the others."""
    if len(anynorm.available_isas()) == 1:
        pytest.skip("this machine has one instruction set")
    x = np.random.default_rng(3).normal(0.3, 1, (50, 4_097)).astype(np.float32)
    weight, bias = np.random.default_rng(4).normal(size=(2, 4_097)).astype(np.float32)
    results = []
    for name in (anynorm.available_isas()[0], anynorm.available_isas()[-1]):
        anynorm.use_isa(name)
        results.append(anynorm.layer_norm(x, 4_097, weight, bias))
    assert not cases.same_bits(*results)
    np.testing.assert_allclose(*results, rtol=5e-7, atol=2e-6)


@pytest.mark.parametrize("name", ["sse9", "AVX2", " "])
def test_a_wrong_environment_is_an_error_and_no_crash(name, run_python):
    code = """
import numpy as np, anynorm
for call in (anynorm.active_isa, lambda: anynorm.layer_norm(np.ones((2, 3), np.float32))):
    try:
        call()
    except ValueError as error:
        print(error)
"""
    lines = run_python(code, ANYNORM_ISA=name).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "ANYNORM_ISA" in line
        assert name in line
        assert "baseline" in line


# --- threads ---------------------------------------------------------------------------------------------------------


def test_max_threads_follows_openmp(run_python):
    code = "import anynorm; print(anynorm.max_threads())"
    assert run_python(code, OMP_NUM_THREADS="3") == "3"
    assert run_python(code, OMP_NUM_THREADS="1") == "1"


def test_threadpoolctl(run_python):
    pytest.importorskip("threadpoolctl")
    code = """
import os, numpy as np, anynorm, threadpoolctl
def threads():
    return len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0
before = threads()
with threadpoolctl.threadpool_limits(1):
    anynorm.layer_norm(np.ones((2000, 500), np.float32))
    print(anynorm.max_threads(), threads() - before)
print(anynorm.max_threads())
"""
    assert run_python(code, OMP_NUM_THREADS="3").split() == ["1", "0", "3"]


JOBLIB = """
import os, numpy as np, anynorm
from joblib import Parallel, delayed, parallel_config
x = np.random.default_rng(0).normal(size=(2000, 500)).astype(np.float32)
y = anynorm.layer_norm(x, num_threads=1)
def work(_):
    import anynorm, os
    same = bool(np.array_equal(anynorm.layer_norm(x), y))
    return same, anynorm.max_threads(), len(os.listdir("/proc/self/task"))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_joblib_processes_are_not_oversubscribed(run_python):
    """The workers of loky are told how many threads they may use."""
    pytest.importorskip("joblib")
    code = f"""{JOBLIB}
with parallel_config("loky", inner_max_num_threads=2):
    for same, most, threads in Parallel(n_jobs=2)(delayed(work)(i) for i in range(4)):
        assert same
        print(most, threads)
"""
    for line in run_python(code, OMP_NUM_THREADS="8").splitlines():
        most, threads = (int(number) for number in line.split())
        assert most == 2
        assert threads <= 2 + 2  # loky's own


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_joblib_threads_do_not_multiply(run_python):
    """Calls at the same time share the threads: with all in use, each caller runs alone."""
    pytest.importorskip("joblib")
    code = f"""{JOBLIB}
with parallel_config("threading"):
    results = Parallel(n_jobs=3)(delayed(work)(i) for i in range(30))
assert all(same for same, _, _ in results)
"""
    run_python(code, timeout=60, OMP_NUM_THREADS="4")


def count_threads(run_python, num_threads, **environment):
    code = f"""
import os, numpy as np, anynorm
before = len(os.listdir("/proc/self/task"))
anynorm.layer_norm(np.ones((2000, 500), np.float32), num_threads={num_threads})
print(len(os.listdir("/proc/self/task")) - before)
"""
    return int(run_python(code, **environment))


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_num_threads_is_the_number_of_threads(run_python):
    """The calling one takes part."""
    assert count_threads(run_python, 1, OMP_NUM_THREADS="4") == 0
    assert count_threads(run_python, 3, OMP_NUM_THREADS="4") == 2
    assert count_threads(run_python, None, OMP_NUM_THREADS="4") == 3


def test_calls_from_many_threads():
    rng = np.random.default_rng(5)
    arrays = [rng.normal(size=(200, 300 + 10 * i)).astype(np.float32) for i in range(6)]
    expected = [anynorm.layer_norm(x) for x in arrays]
    right = []

    def work(x, y):
        right.append(all(cases.same_bits(anynorm.layer_norm(x, num_threads=2), y) for _ in range(20)))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(arrays, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * len(arrays)


def test_the_gil_is_released():
    """Another Python thread gets on in the middle of a long call."""
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    x = np.ones((64, 2**16, 4), np.float32)[..., 0]
    thread = threading.Thread(target=tick)
    thread.start()
    try:
        # The first attempt suffices unless the machine is busy; with the GIL held, none ever would.
        for _ in range(20):
            start = time.perf_counter()
            anynorm.moments(x, 0, num_threads=1)
            length = time.perf_counter() - start
            # The margins leave out the moments when the interpreter may switch threads before and after the call.
            inside = [t for t in list(ticks) if start + 0.2 * length < t < start + 0.8 * length]
            if length > 0.02 and inside:
                return
            if length < 0.05:
                x = np.concatenate([x, x])
        pytest.fail("no other thread ran during a call")
    finally:
        stop.set()
        thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_a_parallel_call(run_python):
    """OpenMP runtimes hang in such a child; calls there are serial, with the same bits."""
    code = """
import os, sys, numpy as np, anynorm
x = np.random.default_rng(0).normal(size=(500, 1001)).astype(np.float32)
y = anynorm.layer_norm(x, num_threads=4)
child = os.fork()
if child == 0:
    same = all(np.array_equal(anynorm.layer_norm(x, num_threads=n), y) for n in (None, 1, 4))
    os._exit(0 if same and anynorm.max_threads() == 1 else 3)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert np.array_equal(anynorm.layer_norm(x, num_threads=4), y)
sys.exit(status)
"""
    run_python(code, timeout=60, OMP_NUM_THREADS="4")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_multiprocessing_pool_of_forked_workers(run_python):
    code = """
import multiprocessing, warnings, numpy as np, anynorm
warnings.simplefilter("ignore")
x = np.random.default_rng(0).normal(size=(6, 300, 400)).astype(np.float32)
expected = [anynorm.batch_norm(part, training=True) for part in x]
def work(i):
    return anynorm.batch_norm(x[i], training=True)
with multiprocessing.get_context("fork").Pool(3) as pool:
    for y, result in zip(expected, pool.map(work, range(6))):
        assert np.array_equal(y, result)
"""
    run_python(code, timeout=60, OMP_NUM_THREADS="2")


WITH_TORCH = """
import torch
torch.nn.functional.layer_norm(torch.ones(2000, 500), (500,))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("other", ["", WITH_TORCH], ids=["alone", "with_torch"])
def test_forked_processes_finish_and_the_parent_goes_on(run_python, other):
    """After parallel calls, beside another OpenMP runtime, more than once."""
    if other:
        pytest.importorskip("torch")
    code = f"""
import multiprocessing, os, warnings, numpy as np, anynorm
warnings.simplefilter("ignore")
{other}
x = np.random.default_rng(0).normal(size=(700, 1001)).astype(np.float32)
y = anynorm.layer_norm(x, num_threads=3)
before = anynorm.max_threads()  # torch changes what OpenMP says
def work(threads):
    return anynorm.max_threads(), anynorm.layer_norm(x, num_threads=threads)
def threads():
    return len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 3
for _ in range(2):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for most, result in pool.map(work, [None, 1, 3, 8]):
            assert most == 1 and np.array_equal(result, y)
    assert anynorm.max_threads() == before
    assert np.array_equal(anynorm.layer_norm(x, num_threads=3), y)
    assert threads() >= 3
"""
    run_python(code, timeout=90, OMP_NUM_THREADS="3")
