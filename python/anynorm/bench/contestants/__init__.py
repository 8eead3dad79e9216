# SPDX-License-Identifier: Apache-2.0
"""Who runs a case: the memory pass, anynorm, and the peers that are installed; one file each."""

from __future__ import annotations

from collections.abc import Sequence

from anynorm.bench.contestants.base import Call, Contestant, Skipped
from anynorm.bench.contestants.groupers import FloxReduce, NumbaggGroup, PandasGroupby, PolarsGroupBy
from anynorm.bench.contestants.jax_jit import JaxJit
from anynorm.bench.contestants.memory import MemoryPass
from anynorm.bench.contestants.numba_kernels import NumbaKernels
from anynorm.bench.contestants.numpy_expression import NumpyExpression
from anynorm.bench.contestants.onnx_model import OnnxModel
from anynorm.bench.contestants.ours import Allocating, WithOut
from anynorm.bench.contestants.torch_functional import TorchFunctional

__all__ = ["HEAP_REUSE", "PEERS", "TITLES", "Call", "Contestant", "Skipped", "invite"]

OURS: tuple[type[Contestant], ...] = (MemoryPass, WithOut, Allocating)
GROUPERS: tuple[type[Contestant], ...] = (PandasGroupby, PolarsGroupBy, FloxReduce, NumbaggGroup)
OTHERS: tuple[type[Contestant], ...] = (
    *(NumpyExpression, TorchFunctional, OnnxModel, JaxJit, NumbaKernels),
    *GROUPERS,
)

HEAP_REUSE = "torch-heap-reuse"
"""torch once more, in a process of its own; see `anynorm.bench.heap_reuse`."""

PEERS = tuple(name for kind in OTHERS for name in ([kind.name] if kind.name != "torch" else ["torch", HEAP_REUSE]))
TITLES = {kind.name: kind.title for kind in (*OURS, *OTHERS)} | {HEAP_REUSE: "torch, heap reuse"}


def invite(peers: Sequence[str]) -> tuple[list[Contestant], dict[str, str]]:
    """Set up the memory pass, anynorm and those of `peers` that are installed; and say why the others are not."""
    invited: list[Contestant] = []
    absent: dict[str, str] = {}
    for kind in (*OURS, *(kind for kind in OTHERS if kind.name in peers)):
        try:
            invited.append(kind())
        except ImportError as error:
            absent[kind.name] = f"not installed ({error.name or error})"
    return invited, absent
