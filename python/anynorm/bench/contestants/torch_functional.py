# SPDX-License-Identifier: Apache-2.0
"""torch.nn.functional on the same memory."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from anynorm.bench.arena import Arena, Array
from anynorm.bench.contestants.base import Call, Contestant, want_axes
from anynorm.bench.expression import EPS, SCALE
from anynorm.bench.shapes import Case


class TorchFunctional(Contestant):
    """In inference mode, but for gradients; data with the channels last are in torch's own memory format for that."""

    name = "torch"
    title = "torch"

    def __init__(self) -> None:
        """Import."""
        self._torch: Any = importlib.import_module("torch")
        self.version = self._torch.__version__

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """Set the threads, and record nothing for gradients but where they are the case."""
        self._torch.set_num_threads(threads)
        with self._torch.inference_mode():
            yield

    def _tensor(self, array: Array) -> Any:
        if array.dtype.name == "bfloat16":  # which from_numpy does not know
            return self._torch.from_numpy(array.view(np.int16)).view(self._torch.bfloat16)
        return self._torch.from_numpy(array)

    def call(self, case: Case, arena: Arena, threads: int) -> Call:
        """Bind tensors; the parameters have the dtype of x, as those of a model have."""
        want_axes(case)
        del threads
        if case.backward:
            return self._gradients(case, arena)
        x = self._tensor(arena.x)
        if case.labels:
            return partial(self._by_label, case, x, self._tensor(arena.labels))
        if case.where:
            return partial(self._masked, case, x, self._torch.from_numpy(arena.where))
        if case.kind == "moments":
            return partial(self._torch.var_mean, x, dim=case.axis, correction=0)
        parameters = [self._tensor(each).to(x.dtype) for each in (arena.weight, arena.bias, arena.mean, arena.var)]
        if not case.fused:
            return self._norm(case, x, *parameters)
        return self._fused(case, arena, x, *parameters)

    def _norm(self, case: Case, x: Any, weight: Any, bias: Any, mean: Any, var: Any) -> Call:
        """Bind the arguments of the norm."""
        functional = self._torch.nn.functional
        if case.norm == "layer_norm":
            return partial(functional.layer_norm, x, x.shape[-1:], weight, bias, EPS)
        if case.norm == "rms_norm":
            return partial(functional.rms_norm, x, x.shape[-1:], weight, EPS)
        x = x.movedim(case.channel, 1)
        if case.norm == "batch_norm":
            running = (None, None) if case.training else (mean, var)
            return partial(functional.batch_norm, x, *running, weight, bias, training=case.training, eps=EPS)
        if case.norm == "instance_norm":
            return partial(functional.instance_norm, x, weight=weight, bias=bias, eps=EPS)
        return partial(functional.group_norm, x, case.groups, weight, bias, EPS)

    def _by_label(self, case: Case, x: Any, labels: Any) -> tuple[Any, Any]:
        """Add the rows of each label, twice: torch has no other call for it."""
        count = self._torch.bincount(labels, minlength=case.labels)[:, None]
        zeros = x.new_zeros(case.labels, *x.shape[1:])
        mean = zeros.index_add(0, labels, x) / count
        return zeros.index_add(0, labels, (x - mean[labels]) ** 2) / count, mean

    def _masked(self, case: Case, x: Any, where: Any) -> tuple[Any, Any]:
        """Add what is used, twice, with zeros for the rest: torch's own means know of no mask."""
        count = where.expand(x.shape).sum(case.axis, keepdim=True)
        mean = self._torch.where(where, x, 0).sum(case.axis, keepdim=True) / count
        squares = self._torch.where(where, (x - mean) ** 2, 0).sum(case.axis, keepdim=True)
        return (squares / count).squeeze(case.axis), mean.squeeze(case.axis)

    def _fused(self, case: Case, arena: Arena, x: Any, *parameters: Any) -> Call:
        """Call one function after the other: torch has none for all of it."""
        functional = self._torch.nn.functional
        residual = self._tensor(arena.residual) if case.residual else None

        def run() -> Any:
            total = x if residual is None else x + residual
            y = self._norm(case, total, *parameters)()
            if case.activation == "gelu_tanh":
                y = functional.gelu(y, approximate="tanh")
            elif case.activation:
                y = getattr(functional, case.activation)(y)
            if case.result:
                y = self._torch.quantize_per_tensor(y.float(), SCALE, 0, self._torch.qint8)
            return y if residual is None else (y, total)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it will remove the quantization, and says so once
            run()
        return run

    def _gradients(self, case: Case, arena: Arena) -> Call:
        """Record the norm once, with the statistics that it saves, and bind the way back."""
        torch = self._torch
        with torch.inference_mode(False), torch.enable_grad():
            x = self._tensor(arena.x).requires_grad_()
            weight, bias = (
                self._tensor(operand).to(x.dtype).detach().requires_grad_() for operand in (arena.weight, arena.bias)
            )
            y = self._norm(case, x, weight, bias, None, None)()
            grad_output = self._tensor(arena.grad_output)
            if case.over_channels:
                grad_output = grad_output.movedim(case.channel, 1)
        wanted = (x, weight) if case.norm == "rms_norm" else (x, weight, bias)

        def run() -> Any:
            with torch.inference_mode(False):
                return torch.autograd.grad(y, wanted, grad_output, retain_graph=True)

        return run

    def arrays(self, case: Case, result: Any) -> tuple[Array, ...]:
        """Put mean before variance, and the channels where they were; NumPy has no bfloat16."""
        parts = result[::-1] if case.kind == "moments" else result if isinstance(result, tuple) else (result,)
        if case.over_channels and not case.backward:  # gradients are as x was
            parts = (parts[0].movedim(1, case.channel), *parts[1:])
        if case.result:
            parts = (parts[0].int_repr(), *parts[1:])
        half = self._torch.bfloat16
        return tuple(part.double().numpy() if part.dtype == half else part.numpy() for part in parts)
