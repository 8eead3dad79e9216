# SPDX-License-Identifier: Apache-2.0
"""Fixtures that make the products: every test that asks for `layout`, `norm`, `dtype` or `isa` runs for each."""

import os
import subprocess
import sys
from pathlib import Path

import cases
import hypothesis
import numpy as np
import pytest

import anynorm

TESTS = Path(__file__).parents[1]

# Shared machines stall for longer than any deadline; the same examples every time make a failure repeatable.
hypothesis.settings.register_profile("anynorm", deadline=None, derandomize=True, database=None, max_examples=80)
hypothesis.settings.load_profile("anynorm")


def by_name(entry):
    return entry.name


@pytest.fixture(params=cases.LAYOUTS, ids=by_name)
def layout(request):
    return request.param


@pytest.fixture(params=cases.OUTPUT_LAYOUTS, ids=by_name)
def out_layout(request):
    return request.param


@pytest.fixture(params=cases.NORMS, ids=by_name)
def norm(request):
    return request.param


@pytest.fixture(params=cases.KERNELS, ids=by_name)
def kernel(request):
    return request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["f32", "f64"])
def dtype(request):
    return request.param


@pytest.fixture(params=anynorm.available_isas())
def isa(request):
    """Runs the test with this instruction set."""
    before = anynorm.active_isa()
    anynorm.use_isa(request.param)
    yield request.param
    anynorm.use_isa(before)


@pytest.fixture
def wide_isas():
    """The instruction sets that have the same bits, where there are several to compare."""
    names = [name for name in ("avx2", "avx512", "neon") if name in anynorm.available_isas()]
    if len(names) < 2:
        pytest.skip("this machine has one instruction set with the promise")
    before = anynorm.active_isa()
    yield names
    anynorm.use_isa(before)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def run_python():
    """Runs code in a fresh interpreter and returns what it printed; fails with its error output."""

    def run(code, timeout=120, check=True, **environment):
        path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr}"
            return done.stdout.strip()
        return done

    return run
