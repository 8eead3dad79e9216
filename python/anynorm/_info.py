# SPDX-License-Identifier: Apache-2.0
"""``python -m anynorm info``: what runs here, for a report of an error or beside a benchmark."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np

import anynorm
from anynorm import _core

CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
MAPS = Path("/proc/self/maps")


def facts() -> dict[str, Any]:
    """Collect everything; what this system does not tell is left empty."""
    try:
        active = anynorm.active_isa()
    except ValueError as error:  # a wrong ANYNORM_ISA, which is what somebody may be looking for
        active = f"none: {error}"
    return {
        "anynorm": anynorm.__version__,
        "instruction set": active,
        "available": list(anynorm.available_isas()),
        "threads": anynorm.max_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "OpenMP": openmp_runtimes(),
        "CPU": cpu_model(),
        "CPUs": usable_cpus(),
        "caches": caches(),
        "build": dict(_core.build),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "system": " ".join((platform.system(), platform.machine(), *platform.libc_ver())).strip(),
    }


def cpu_model() -> str:
    """Name the processor."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def usable_cpus() -> int:
    """Count the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def caches() -> dict[str, str]:
    """Sizes of the data caches of the first CPU, and which CPUs share them."""
    found: dict[str, str] = {}
    for index in sorted(CACHES.glob("index*")):
        level, kind, size, shared = (_line(index / name) for name in ("level", "type", "size", "shared_cpu_list"))
        if kind != "Instruction":
            found[f"L{level}"] = size + (f", shared by CPUs {shared}" if re.search("[,-]", shared) else "")
    if not found and hasattr(os, "sysconf"):
        for level, name in (("L1", "LEVEL1_DCACHE"), ("L2", "LEVEL2_CACHE"), ("L3", "LEVEL3_CACHE")):
            if (name := f"SC_{name}_SIZE") in os.sysconf_names and (size_in_bytes := os.sysconf(name)) > 0:
                found[level] = f"{size_in_bytes >> 10}K"
    return found


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def openmp_runtimes() -> list[str]:
    """List the OpenMP libraries in this process; after ``import torch``, say, there may be two."""
    if not MAPS.exists():
        return []
    # The end of a path tells where a library came from, but not whose home it is in.
    paths = {line.split()[-1] for line in MAPS.read_text(encoding="utf-8").splitlines() if "/lib" in line}
    return sorted("/".join(Path(path).parts[-3:]) for path in paths if re.search(r"/lib(gomp|i?omp\d?)\b[^/]*$", path))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print."""
    found = facts()
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    build = found["build"]
    rows = {
        "anynorm": found["anynorm"],
        "instructions": f"{found['instruction set']} (available: {', '.join(found['available'])})",
        "threads": f"{found['threads']} (OMP_NUM_THREADS: {found['OMP_NUM_THREADS'] or 'not set'})",
        "OpenMP": ", ".join(found["OpenMP"]) or ("unknown" if build["openmp"] == "on" else "compiled without"),
        "CPU": f"{found['CPU']}, {found['CPUs']} usable",
        "caches": "; ".join(f"{level} {size}" for level, size in found["caches"].items()) or "unknown",
        "build": f"{build['compiler']}, {build['type']}, OpenMP {build['openmp']}, kernels: {build['kernels']}",
        "flags": build["flags"],
        "Python": f"{found['Python']}, NumPy {found['NumPy']}",
        "system": found["system"],
    }
    print("\n".join(f"{name:12} {text}" for name, text in rows.items()))
    return 0
