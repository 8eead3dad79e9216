# SPDX-License-Identifier: Apache-2.0
"""Large results: aligned, recycled within a bound, owned by their arrays as any memory is."""

import os
import sys
import threading

import cases
import numpy as np
import pytest

import anynorm

HUGE = 2**21


@pytest.fixture(autouse=True)
def empty_pool():
    before = anynorm.result_pool().max_bytes
    anynorm.set_result_pool(16 * HUGE)
    anynorm.empty_result_pool()
    yield
    anynorm.empty_result_pool()
    anynorm.set_result_pool(before)


def result(mebibytes=4, value=1.0):
    return anynorm.normalize(np.full((mebibytes, 2**18), value, np.float32), 1)


def address(array):
    return array.ctypes.data


def test_large_results_are_aligned_and_owned():
    y = result()
    assert address(y) % HUGE == 0
    assert y.flags.owndata
    assert y.flags.c_contiguous
    assert y.base is None


def test_small_results_are_numpys():
    x = np.ones((1000, 500), np.float32)
    y = anynorm.layer_norm(x)
    del y
    assert anynorm.result_pool().held == 0


def test_memory_is_used_again():
    y = result(4)
    first = address(y)
    assert anynorm.result_pool().held == 0
    del y
    assert anynorm.result_pool().held == 2 * HUGE
    y = result(4)
    assert address(y) == first
    assert anynorm.result_pool().held == 0


def test_a_loop_needs_two_blocks():
    seen = set()
    for i in range(10):
        y = result(4, i)
        seen.add(address(y))
    assert len(seen) == 2


def test_results_that_are_alive_are_apart():
    results = [result(4, i) for i in range(4)]
    assert len({address(y) for y in results}) == 4
    copies = [y.copy() for y in results]
    results.append(result(4, 9))
    assert all(cases.same_bits(y, copy) for y, copy in zip(results, copies, strict=False))


def test_a_block_is_not_wasted_on_a_small_result():
    large = result(20)
    where = address(large)
    del large
    assert address(result(4)) != where


def test_the_bound_holds():
    results = [result(4) for _ in range(12)]  # 48 MiB
    del results
    assert 0 < anynorm.result_pool().held <= 16 * HUGE
    anynorm.set_result_pool(HUGE * 3)
    assert anynorm.result_pool() == (2 * HUGE, 3 * HUGE)
    y = result(8)  # larger than the bound
    del y
    assert anynorm.result_pool().held == 2 * HUGE
    anynorm.empty_result_pool()
    assert anynorm.result_pool().held == 0


def test_without_a_pool_results_are_numpys():
    anynorm.set_result_pool(0)
    y = result(8)
    del y
    assert anynorm.result_pool() == anynorm.ResultPool(held=0, max_bytes=0)


def test_they_can_be_resized():
    y = result(4, 3.0)
    y[...] = 7
    y.resize((8, 2**18), refcheck=False)
    assert np.all(y[:4] == 7)
    assert not np.any(y[4:])
    y.resize((2, 10), refcheck=False)
    assert np.all(y == 7)


@pytest.mark.parametrize("bad, error", [(-1, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_bad_bounds(bad, error):
    with pytest.raises(error, match="set_result_pool: expected max_bytes "):
        anynorm.set_result_pool(bad)
    assert anynorm.result_pool().max_bytes == 16 * HUGE


def test_the_environment(run_python):
    code = "import anynorm; print(anynorm.result_pool().max_bytes)"
    assert run_python(code, ANYNORM_POOL_BYTES="") == str(128 * 2**20)
    assert run_python(code, ANYNORM_POOL_BYTES="1000") == "1000"
    wrong = run_python(code, check=False, ANYNORM_POOL_BYTES="1 GB")
    assert wrong.returncode == 1
    assert "ValueError: ANYNORM_POOL_BYTES: expected a number of bytes, got 1 GB" in wrong.stderr


def test_threads_share_it():
    right = []

    def work(seed):
        x = np.random.default_rng(seed).normal(size=(8, 2**17)).astype(np.float32)
        expected = anynorm.layer_norm(x, num_threads=1).copy()
        right.append(all(cases.same_bits(anynorm.layer_norm(x, num_threads=1), expected) for _ in range(20)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_other_threads_use_it(run_python):
    code = """
import os, sys, threading, numpy as np, anynorm
x = np.ones((8, 2**17), np.float32)
stop = False
def work():
    while not stop:
        anynorm.layer_norm(x, num_threads=1)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
status = 0
for _ in range(20):
    child = os.fork()
    if child == 0:
        y = anynorm.layer_norm(x)
        del y
        os._exit(0 if anynorm.result_pool().held > 0 else 3)
    status |= os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
stop = True
for thread in threads:
    thread.join()
sys.exit(status)
"""
    run_python(code, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_given_back_is_gone(run_python):
    code = """
import numpy as np, anynorm
def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
x = np.ones((64, 2**18), np.float32)
out = np.empty_like(x)
out[...] = 0
anynorm.layer_norm(x, out=out)  # code, stacks and threads are in memory from now on
before = resident()
anynorm.layer_norm(x)
held = resident() - before
anynorm.empty_result_pool()
print(held, resident() - before)
"""
    held, left = (int(number) for number in run_python(code).split())
    assert held > 60 * 2**20
    assert left < 4 * 2**20
