# SPDX-License-Identifier: Apache-2.0
"""Calls whose sets are not named by axes alone: patterns, labels, segments, masks, weights, and arrays that have them.

A call by axes never comes here, see `compiled`. Every other one is put into the terms of the compiled module, and what
comes back into those of the caller.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from anynorm import _core
from anynorm._containers import Opened, opened
from anynorm._gradients import Gradients
from anynorm._moments import Moments
from anynorm._patterns import Plan
from anynorm._selection import Selection, groups_first, select, usable
from anynorm._views import Sizes, Views, as_array, fit

AnyArray = npt.NDArray[Any]
Arguments = list[Any]
NOTHING = Selection()
MOST_PATTERNS = 1024
FORWARD = {"moments", "normalize"}  # whose operands the compiled module can split as well

ROLES: dict[str, Callable[[Views, str, Any], Any]] = {
    **dict.fromkeys(("residual", "out", "sum_out", "grad_output", "grad_sum", "grad_input"), Views.like_x),
    **dict.fromkeys(("weight", "bias", "grad_weight", "grad_bias"), Views.parameter),
    **dict.fromkeys(("out_scale", "out_zero_point"), Views.steps),
    "moments": Views.given,
}


class Entry(NamedTuple):
    """A function of the compiled module, and where its arguments are."""

    call: Callable[..., Any]
    place: dict[str, int]
    operands: list[tuple[int, str, Callable[[Views, str, Any], Any]]]
    selects: bool


class Channels(NamedTuple):
    """The axes of a norm over everything but the channels, with the samples or without."""

    axis: Any
    samples: bool


def trailing(normalized_shape: Any, axis: Any) -> Any:
    """The axes of layer and RMS norm."""
    if normalized_shape is None:
        return -1 if axis is None else axis
    return tuple(range(-np.size(normalized_shape), 0))


@functools.cache
def entry(function: str) -> Entry:
    call = getattr(_core, function)
    parameters = inspect.signature(call).parameters
    names = [each.name for each in parameters.values() if each.default is inspect.Parameter.empty]
    operands = [(place, name, ROLES[name]) for place, name in enumerate(names) if name in ROLES]
    places = {name: place for place, name in enumerate(names)}
    return Entry(call, places, operands, len(names) < len(parameters))


def by_pattern(
    function: str, arguments: Sequence[Any], parameters: str | None, sizes: Sizes, selection: Selection = NOTHING
) -> Any:
    """A call of the engine, whose `axis` may be a pattern."""
    core = entry(function)
    place = core.place["axis"]
    pattern = arguments[place]
    if not isinstance(pattern, str):
        if sizes:  # in Python's own words, since it is Python's own error without patterns
            raise TypeError(f"{function}() got an unexpected keyword argument '{next(iter(sizes))}'")
        if parameters is not None:
            raise ValueError(f"{function}: expected parameters with a pattern in the place of axis, got axes")
        return by_axes(function, arguments, selection, pattern)
    values = list(arguments)
    if "keepdims" in core.place and values[core.place["keepdims"]] is True:
        raise ValueError(
            f"{function}: expected keepdims to be False with a pattern, got True; write 1 behind the arrow"
        )
    x = values[core.place["x"]]
    if not core.selects:
        x = values[core.place["x"]] = as_array(x)
    elif type(x) is not np.ndarray or not selection.is_nothing:
        return _select(function, values, selection, lambda x: fit(function, x, pattern, parameters, sizes))
    plan = fit(function, x, pattern, parameters, sizes)
    values[place] = plan.axis
    _remember(function, pattern, parameters, sizes, x.ndim, plan)
    if plan.is_plain:
        return core.call(*values)
    return _through_views(core, values, Views(function, x.shape, plan), ())


def _remember(function: str, pattern: str, parameters: str | None, sizes: Sizes, rank: int, plan: Plan) -> None:
    """Spare the next call with this pattern the body of the function."""
    recipe, known = plan.recipe, _core.known_patterns
    if recipe is None or len(known) >= MOST_PATTERNS:
        return
    if function in FORWARD or (recipe.factors is None and recipe.parameters is None):
        key = (function, pattern, rank, parameters, *itertools.chain.from_iterable(sizes.items()))
        known.setdefault(key, recipe)  # not replaced: another thread may be using it


def by_axes(function: str, arguments: Sequence[Any], selection: Selection, axis: Any) -> Any:
    """A call whose sets are named by axes, in the terms of NumPy; `axis` None are all of them."""
    core = entry(function)
    if not core.selects or (selection.is_nothing and type(arguments[core.place["x"]]) is np.ndarray):
        return core.call(*arguments)
    return _select(function, list(arguments), selection, axis)


def _select(function: str, values: Arguments, selection: Selection, how: Any) -> Any:
    """`how` the sets are named: by axes, or as the plan that it makes of x."""
    core = entry(function)
    x = opened(function, "x", values[core.place["x"]])
    _open_gradient(function, core, values, x)
    views = None
    shape, reduced = x.array.shape, _axes(how, x.array.ndim)
    if callable(how):
        plan = how(x.array)
        views = Views(function, x.array.shape, plan)
        values[core.place["axis"]] = plan.axis
        shape, reduced = plan.split or x.array.shape, plan.axis
    values[core.place["x"]] = x.array
    if x.where is not None:
        given = selection.where
        selection = selection._replace(where=x.where if given is None or given is True else x.where & given)
    selected = select(function, selection, shape, reduced, x.segments)
    residual = values[core.place["residual"]] if "residual" in core.place else None
    where, nan = usable(function, selection.nan_policy, selected.where, x.array, residual)
    selected = selected._replace(where=where)
    if views is not None:
        views.lead = groups_first(selected)
        selected = views.selected(selected)
    extra = tuple(selected) if function != "moments" else tuple(selected)[:-1]
    plain = selected.segments is None and where is None and selected.labels is None and selected.sample_weight is None
    result = _through_views(core, values, views, () if plain and selected.excluded == "zero" else extra)
    return _as_given(core, values, result, x, nan)


def _axes(how: Any, rank: int) -> list[int]:
    """Axes counted from 0; what is none is left for the compiled module to refuse."""
    if how is None:
        return list(range(rank))
    if isinstance(how, Channels):
        channels = _axes(how.axis, rank)
        return [axis for axis in range(0 if how.samples else 1, rank) if axis not in channels]
    axes = how if isinstance(how, tuple) else (how,)
    return [int(axis) % rank for axis in axes if isinstance(axis, (int, np.integer)) and -rank <= axis < rank]


def _open_gradient(function: str, core: Entry, values: Arguments, x: Opened) -> None:
    if "grad_output" not in core.place or x.close is None:
        return
    for name in ("grad_output", "grad_sum"):
        place = core.place.get(name)
        if place is None or values[place] is None:
            continue
        grad = opened(function, name, values[place])
        if x.segments is not None and not (grad.segments is not None and np.array_equal(grad.segments, x.segments)):
            raise ValueError(f"{function}: expected {name} of lists as long as those of x")
        values[place] = grad.array


def _through_views(core: Entry, values: Arguments, views: Views | None, extra: tuple[Any, ...]) -> Any:
    if views is None:
        return core.call(*values, *extra)
    values = list(values)
    if "grad_weight" in core.place:  # made here, in the shape that the caller's parameter has
        for name in ("weight", "bias"):
            place = core.place[f"grad_{name}"]
            values[place] = _gradient_like(values[core.place[name]], values[place])
    passed = list(values)
    passed[core.place["x"]] = views.x(values[core.place["x"]])
    for place, name, arrange in core.operands:
        if passed[place] is not None:
            passed[place] = arrange(views, name, passed[place])
    result = core.call(*passed, *extra)

    def whole(array: Any, name: str) -> Any:
        given = values[core.place[name]] if name in core.place else None
        return given if isinstance(given, np.ndarray) or array is None else array.reshape(views.shape)

    if isinstance(result, Gradients):
        weight, bias = (values[core.place[name]] for name in ("grad_weight", "grad_bias"))
        return Gradients(
            whole(result.grad_input, "grad_input") if result.grad_input is not None else None,
            None if result.grad_weight is None else weight,
            None if result.grad_bias is None else bias,
        )
    if isinstance(result, Moments):
        return views.taken(result)
    if not isinstance(result, tuple):
        return whole(result, "out")
    y, *rest = result
    behind = [views.taken(each) if isinstance(each, Moments) else whole(each, "sum_out") for each in rest]
    return (whole(y, "out"), *behind)


def _gradient_like(parameter: Any, gradient: Any) -> Any:
    """Where to write the gradient of a parameter: the array that is given, or a new one of the parameter's shape."""
    if parameter is None or not (gradient is None or gradient is True):
        return gradient
    parameter = as_array(parameter)
    return np.empty(parameter.shape, parameter.dtype)


def _as_given(core: Entry, values: Arguments, result: Any, x: Opened, nan: AnyArray | None) -> Any:
    """NaN where `nan_policy` has left it, and new arrays in the container that x came in."""

    def wrapped(array: Any, name: str) -> Any:
        given = values[core.place[name]] if name in core.place else None
        return array if x.close is None or array is None or isinstance(given, np.ndarray) else x.close(array)

    if isinstance(result, Gradients):
        return result._replace(grad_input=wrapped(result.grad_input, "grad_input"))
    if isinstance(result, Moments):
        return result
    y, *rest = result if isinstance(result, tuple) else (result,)
    if nan is not None and y.dtype.kind in "fV" and "grad_output" not in core.place:
        np.copyto(y, np.nan, where=nan, casting="unsafe")
    arrays = [wrapped(y, "out"), *(each if isinstance(each, Moments) else wrapped(each, "sum_out") for each in rest)]
    return cast(Any, tuple(arrays) if isinstance(result, tuple) else arrays[0])
