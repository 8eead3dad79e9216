# SPDX-License-Identifier: Apache-2.0
"""Libraries that reduce by label and know no norms: pandas, polars, flox and numbagg. Labels are int64, x is dense."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from typing import Any

import numpy as np

from anynorm.bench.arena import Arena, Array
from anynorm.bench.contestants.base import Call, Contestant, Skipped


class Grouper(Contestant):
    """The moments of each label; every other case is skipped."""

    def __init__(self) -> None:
        """Import."""
        self._library: Any = importlib.import_module(self.name)
        self.version = self._library.__version__

    def call(self, case: Any, arena: Arena, threads: int) -> Call:
        """Bind x and its labels."""
        if not case.labels or case.kind != "moments":
            raise Skipped("reduces by label, and has no norms")
        if arena.x.dtype.itemsize == 2:
            raise Skipped("does not compute with half types")
        return self.by_label(arena.x, arena.labels, case.labels, threads)

    @abstractmethod
    def by_label(self, x: Array, labels: Array, count: int, threads: int) -> Call:
        """Prepare a call that returns mean and variance, labels in order along axis 0."""


class PandasGroupby(Grouper):
    """``frame.groupby(labels)``, its mean and its var; one thread."""

    name = "pandas"
    title = "pandas"

    def by_label(self, x: Array, labels: Array, count: int, threads: int) -> Call:
        """Make the frame beforehand; to find the groups is a part of the call."""
        del count, threads
        frame = self._library.DataFrame(x)

        def run() -> tuple[Any, Any]:
            groups = frame.groupby(labels)
            return groups.mean(), groups.var(ddof=0)

        return run


class PolarsGroupBy(Grouper):
    """``frame.group_by("label").agg(...)``, in the order that it finds the labels in."""

    name = "polars"
    title = "polars"

    def by_label(self, x: Array, labels: Array, count: int, threads: int) -> Call:
        """Make the frame beforehand, a column of memory for each of x's."""
        del count
        if threads != self._library.thread_pool_size():
            raise Skipped("has as many threads as POLARS_MAX_THREADS said when it was imported")
        names = [f"c{number}" for number in range(x.shape[1])]
        columns = dict(zip(names, np.ascontiguousarray(x.T), strict=True))
        frame = self._library.DataFrame({"label": labels, **columns})
        column = self._library.col
        wanted = [column(name).mean().alias(f"{name}.mean") for name in names]
        wanted += [column(name).var(ddof=0).alias(f"{name}.var") for name in names]
        return lambda: frame.group_by("label").agg(wanted)

    def arrays(self, case: Any, result: Any) -> tuple[Array, ...]:
        """Sort by label."""
        width = case.shape[1]
        values = result.sort("label").drop("label").to_numpy()
        return values[:, :width], values[:, width:]


class FloxReduce(Grouper):
    """``flox.groupby_reduce`` for mean and for var, with the engine that it chooses."""

    name = "flox"
    title = "flox"

    def by_label(self, x: Array, labels: Array, count: int, threads: int) -> Call:
        """Tell it the labels, which it would look for otherwise."""
        del threads
        reduce, expected = self._library.groupby_reduce, np.arange(count)

        def run() -> tuple[Any, Any]:
            mean = reduce(x.T, labels, func="mean", expected_groups=expected)[0]
            return mean.T, reduce(x.T, labels, func="var", expected_groups=expected)[0].T

        return run


class NumbaggGroup(Grouper):
    """``numbagg.group_nanmean`` and ``group_nanvar``."""

    name = "numbagg"
    title = "numbagg"

    def by_label(self, x: Array, labels: Array, count: int, threads: int) -> Call:
        """Tell it the number of labels; it takes as many threads as it likes."""
        del threads
        library, options = self._library, {"num_labels": count, "axis": 0}

        def run() -> tuple[Any, Any]:
            mean = library.group_nanmean(x, labels, **options)
            return mean.T, library.group_nanvar(x, labels, ddof=0, **options).T

        return run
