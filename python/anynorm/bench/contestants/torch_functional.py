# SPDX-License-Identifier: Apache-2.0
"""torch.nn.functional on the same memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from anynorm.bench.arena import Arena, Array
from anynorm.bench.contestants.base import Call, Contestant
from anynorm.bench.expression import EPS
from anynorm.bench.shapes import Case


class TorchFunctional(Contestant):
    """In inference mode; data with the channels last are in torch's own memory format for that."""

    name = "torch"
    title = "torch"

    def __init__(self) -> None:
        """Import."""
        self._torch: Any = importlib.import_module("torch")
        self.version = self._torch.__version__

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """Set the threads, and record nothing for gradients."""
        self._torch.set_num_threads(threads)
        with self._torch.inference_mode():
            yield

    def _tensor(self, array: Array) -> Any:
        if array.dtype.name == "bfloat16":  # which from_numpy does not know
            return self._torch.from_numpy(array.view(np.int16)).view(self._torch.bfloat16)
        return self._torch.from_numpy(array)

    def call(self, case: Case, arena: Arena, threads: int) -> Call:
        """Bind tensors; the parameters have the dtype of x, as those of a model have."""
        del threads
        functional = self._torch.nn.functional
        x = self._tensor(arena.x)
        weight, bias, mean, var = (self._tensor(operand).to(x.dtype) for operand in arena.operands[1:])
        if case.kind == "moments":
            return partial(self._torch.var_mean, x, dim=case.axis, correction=0)
        if case.kind == "layer_norm":
            return partial(functional.layer_norm, x, x.shape[-1:], weight, bias, EPS)
        if case.kind == "rms_norm":
            return partial(functional.rms_norm, x, x.shape[-1:], weight, EPS)
        x = x.movedim(case.channel, 1)
        if case.kind == "batch_norm":
            running = (None, None) if case.training else (mean, var)
            return partial(functional.batch_norm, x, *running, weight, bias, training=case.training, eps=EPS)
        if case.kind == "instance_norm":
            return partial(functional.instance_norm, x, weight=weight, bias=bias, eps=EPS)
        return partial(functional.group_norm, x, case.groups, weight, bias, EPS)

    def arrays(self, case: Case, result: Any) -> tuple[Array, ...]:
        """Put mean before variance, and the channels where they were; NumPy has no bfloat16."""
        if case.kind == "moments":
            var, mean = result
            return mean.double().numpy(), var.double().numpy()
        y = result.movedim(1, case.channel) if case.over_channels else result
        return (y.double().numpy() if y.dtype == self._torch.bfloat16 else y.numpy(),)
