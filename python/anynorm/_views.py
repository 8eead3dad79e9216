# SPDX-License-Identifier: Apache-2.0
"""The operands of a call by a pattern as the compiled module takes them, and its results as the caller does.

All are views: splitting an axis and changing the order of axes moves no memory.
"""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex, cast

import numpy as np
import numpy.typing as npt

from anynorm import _patterns
from anynorm._moments import Moments
from anynorm._patterns import Plan
from anynorm._selection import Selected

AnyArray = npt.NDArray[Any]
Shape = tuple[int, ...]
Sizes = dict[str, SupportsIndex]


def fit(function: str, x: AnyArray, pattern: str, parameters: str | None, sizes: Sizes) -> Plan:
    """The plan of a pattern for x, from a cache."""
    if parameters is not None and not isinstance(parameters, str):
        raise TypeError(f"{function}: expected parameters to be a str or None, got {type(parameters).__name__}")
    return _patterns.plan(function, pattern, parameters, x.shape, _lengths(function, sizes) if sizes else ())


def _lengths(function: str, sizes: Sizes) -> tuple[tuple[str, int], ...]:
    for size in sizes.values():
        if type(size) is not int:
            break
    else:  # in a third of the time
        return cast(tuple[tuple[str, int], ...], tuple(sizes.items()))
    try:
        return tuple([(name, operator.index(size)) for name, size in sizes.items()])
    except TypeError:
        name, size = next(item for item in sizes.items() if not hasattr(item[1], "__index__"))
        raise TypeError(f"{function}: expected the size {name} to be an int, got {type(size).__name__}") from None


class Views:
    """What a plan makes of the operands of one call."""

    __slots__ = ("function", "lead", "plan", "shape")

    def __init__(self, function: str, shape: Shape, plan: Plan) -> None:
        self.function, self.plan, self.shape = function, plan, shape
        self.lead: Shape = ()
        """The axis of groups that moments begin with."""

    def x(self, x: AnyArray) -> AnyArray:
        return x if self.plan.split is None else x.reshape(self.plan.split)

    def like_x(self, name: str, array: Any) -> Any:
        """An operand of the shape of x; what is not an array is left for the compiled module to refuse."""
        if self.plan.split is None or isinstance(array, (bool, np.bool_)):
            return array
        array = as_array(array) if name in {"residual", "grad_output", "grad_sum"} else array
        if not isinstance(array, np.ndarray):
            return array
        if array.shape != self.shape:
            raise ValueError(f"{self.function}: expected {name} of shape {self.shape}, got {array.shape}")
        return array.reshape(self.plan.split)

    def parameter(self, name: str, array: Any) -> Any:
        """A weight or bias, or its gradient: with axes of its own pattern, or broadcast against x."""
        own = self.plan.parameters
        if own is None or isinstance(array, (bool, np.bool_)):
            return self.broadcast(name, array)
        array = as_array(array)
        if array.shape != own.shape:
            raise ValueError(f"{self.function}: expected {name} of shape {own.shape}, got {array.shape}")
        return own.to_x(array)

    def broadcast(self, name: str, array: Any) -> Any:
        """An operand that broadcasts against x, with the axes apart that are apart in x."""
        split = self.plan.split
        if split is None or isinstance(array, (bool, np.bool_)):
            return array
        array = as_array(array)
        own = (1,) * (len(self.shape) - array.ndim) + array.shape
        if len(own) != len(self.shape) or any(n not in (1, full) for n, full in zip(own, self.shape, strict=True)):
            raise ValueError(
                f"{self.function}: expected {name} of a shape that broadcasts to {self.shape}, got {array.shape}"
            )
        result: list[int] = []
        for n, parts in zip(own, self.plan.parts, strict=True):
            apart = split[len(result) : len(result) + parts]
            result += apart if n != 1 else (1,) * parts
        return array.reshape(result)

    def steps(self, name: str, steps: Any) -> Any:
        """A scale or a zero point for all, or arrays of them, which broadcast against x. Lists stay lists, whose numbers
        the compiled module makes those of the result."""
        if not isinstance(steps, (list, tuple)):
            return self.broadcast(name, steps) if np.ndim(steps) > 0 else steps
        array = self.broadcast(name, steps)
        return array.tolist() if isinstance(array, np.ndarray) else array

    def given(self, _: str, moments: Any) -> Any:
        """Statistics of the shape that the right-hand side says, as the compiled module wants them."""
        own = self.plan.statistics
        if own is None or not isinstance(moments, Moments):
            return moments
        if moments.shape != self.lead + own.shape:
            raise ValueError(f"{self.function}: expected moments of shape {self.lead + own.shape}, got {moments.shape}")
        return Moments._wrap(*(own.to_x(array, self.lead) for array in _fields(moments)))

    def taken(self, moments: Moments) -> Moments:
        """Statistics in the shape that the right-hand side says."""
        own = self.plan.statistics
        if own is None:
            return moments
        return Moments._wrap(*(own.from_x(array, self.lead) for array in _fields(moments)))

    def selected(self, selected: Selected) -> Selected:
        """Its arrays beside the view of x; labels and weights are made for that view already, where they have fewer
        axes than x."""
        if selected.segments is not None and self.plan.parts[:1] != (1,):
            raise ValueError(f"{self.function}: expected a first axis in one piece where there are segments")
        rank = len(self.shape if self.plan.split is None else self.plan.split)
        arrays = {
            name: array if array.ndim == rank != len(self.shape) else self.broadcast(name, array)
            for name in ("labels", "where", "sample_weight")
            if (array := getattr(selected, name)) is not None
        }
        return selected._replace(**arrays)


def _fields(moments: Moments) -> list[AnyArray]:
    arrays = [moments._count, moments._mean, moments._m2, moments._mean_low]
    return arrays if moments._weight2 is None else [*arrays, moments._weight2]


def as_array(array: Any) -> AnyArray:
    """As the compiled module reads it: an ndarray, but for masked arrays, which it refuses."""
    return array if isinstance(array, np.ma.MaskedArray) else np.asarray(array)
