# SPDX-License-Identifier: Apache-2.0
"""anynorm, into an array that is there already, and into a new one."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import anynorm
from anynorm.bench.arena import Arena, Array
from anynorm.bench.contestants.base import Call, Contestant, Skipped
from anynorm.bench.expression import EPS
from anynorm.bench.shapes import Case


class Allocating(Contestant):
    """The result is a new array; moments have no other form."""

    name = "new"
    title = "anynorm"
    version = anynorm.__version__

    def out(self, case: Case, arena: Arena) -> dict[str, Any]:
        """Choose where the result goes."""
        del case, arena
        return {}

    def call(self, case: Case, arena: Arena, threads: int) -> Call:
        """Bind the arguments."""
        options = {"num_threads": threads, **self.out(case, arena)}
        if case.kind == "moments":
            return partial(anynorm.moments, arena.x, case.axis, **options)
        options |= {"weight": arena.weight, "eps": EPS}
        if case.kind == "rms_norm":
            return partial(anynorm.rms_norm, arena.x, **options)
        options["bias"] = arena.bias
        if case.kind == "layer_norm":
            return partial(anynorm.layer_norm, arena.x, **options)
        options["channel_axis"] = case.channel
        if case.kind == "group_norm":
            return partial(anynorm.group_norm, arena.x, case.groups, **options)
        if case.kind == "instance_norm":
            return partial(anynorm.instance_norm, arena.x, **options)
        running = () if case.training else (arena.mean, arena.var)
        return partial(anynorm.batch_norm, arena.x, *running, training=case.training, **options)

    def arrays(self, case: Case, result: Any) -> tuple[Array, ...]:
        """Take mean and variance out of `Moments`."""
        return (result.mean, result.var()) if case.kind == "moments" else (np.asarray(result),)


class WithOut(Allocating):
    """The result goes to `out=`."""

    name = "out"
    title = "anynorm, out="

    def out(self, case: Case, arena: Arena) -> dict[str, Any]:
        """Choose the y of the arena."""
        if case.kind == "moments":
            raise Skipped("moments have no out=")
        return {"out": arena.y}
