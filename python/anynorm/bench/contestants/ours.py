# SPDX-License-Identifier: Apache-2.0
"""anynorm, into an array that is there already, and into a new one."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import anynorm
from anynorm.bench.arena import Arena, Array
from anynorm.bench.contestants.base import Call, Contestant, Skipped
from anynorm.bench.expression import EPS, SCALE
from anynorm.bench.shapes import Case


class Allocating(Contestant):
    """The result is a new array; moments have no other form."""

    name = "new"
    title = "anynorm"
    version = anynorm.__version__

    def out(self, case: Case, arena: Arena) -> dict[str, Any]:
        """Choose where the result goes."""
        del arena
        return {"dtype": np.int8} if case.result else {}

    def call(self, case: Case, arena: Arena, threads: int) -> Call:
        """Bind the arguments."""
        options: dict[str, Any]
        if case.kind in {"moments", "normalize"}:
            options = {"num_threads": threads, **self.out(case, arena)}
            if case.labels:
                options |= {"labels": arena.labels, "num_groups": case.labels}
            if case.segments:
                options["segments"] = arena.offsets
            if case.where:
                options["where"] = arena.where
            return partial(getattr(anynorm, case.kind), arena.x, case.axis, **options)
        arguments: tuple[Any, ...] = (case.groups,) if case.norm == "group_norm" else ()
        options = {"num_threads": threads, "weight": arena.weight, "eps": EPS}
        if case.norm != "rms_norm":
            options["bias"] = arena.bias
        if case.over_channels:
            options["channel_axis"] = case.channel
        if case.norm == "batch_norm":
            arguments = () if case.training else (arena.mean, arena.var)
            options["training"] = case.training
        norm = getattr(anynorm, case.norm)
        if case.backward:
            options["moments"] = norm(arena.x, *arguments, return_moments=True, **options)[1]
            backward = getattr(anynorm, case.kind)
            return partial(backward, arena.grad_output, arena.x, *arguments, **options, **self.out(case, arena))
        if case.residual:
            options["residual"] = arena.residual
        if case.activation:
            options["activation"] = case.activation
        if case.result:
            options["out_scale"] = SCALE
        return partial(norm, arena.x, *arguments, **options, **self.out(case, arena))

    def arrays(self, case: Case, result: Any) -> tuple[Array, ...]:
        """Take mean and variance out of `Moments`, and the gradients that there are out of `Gradients`."""
        if case.kind == "moments":
            return result.mean, result.var()
        parts = result if isinstance(result, tuple) else (result,)
        return tuple(np.asarray(part) for part in parts if part is not None)


class WithOut(Allocating):
    """The result goes to `out=`."""

    name = "out"
    title = "anynorm, out="

    def out(self, case: Case, arena: Arena) -> dict[str, Any]:
        """Choose the y of the arena."""
        if case.kind == "moments":
            raise Skipped("moments have no out=")
        if case.backward:
            return {"grad_input": arena.y}
        return {"out": arena.y, "sum_out": arena.sum} if case.residual else {"out": arena.y}
