# SPDX-License-Identifier: Apache-2.0
"""Calls whose sets are not named by axes alone: patterns in the place of `axis`.

Every operand of such a call becomes a view that the compiled module takes, and every result one that the caller
expects; nothing is copied.
"""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex, cast

import numpy as np
import numpy.typing as npt

from anynorm import _core, _patterns
from anynorm._gradients import Gradients
from anynorm._moments import Moments
from anynorm._patterns import Plan
from anynorm._shared import Result

AnyArray = npt.NDArray[Any]
Sizes = dict[str, SupportsIndex]


def lengths(function: str, sizes: Sizes) -> tuple[tuple[str, int], ...]:
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


def refuse_pattern(function: str, parameters: str | None, sizes: Sizes) -> None:
    """Of a call whose `axis` is no pattern."""
    if sizes:  # in Python's own words, since it is Python's own error without patterns
        raise TypeError(f"{function}() got an unexpected keyword argument '{next(iter(sizes))}'")
    if parameters is not None:
        raise ValueError(f"{function}: expected parameters with a pattern in the place of axis, got axes")


def fit(function: str, x: AnyArray, pattern: str, parameters: str | None, sizes: Sizes) -> Plan:
    if parameters is not None and not isinstance(parameters, str):
        raise TypeError(f"{function}: expected parameters to be a str or None, got {type(parameters).__name__}")
    return _patterns.plan(function, pattern, parameters, x.shape, lengths(function, sizes) if sizes else ())


class Views:
    """The operands of one call as its plan wants them, and its results as the caller does."""

    __slots__ = ("function", "plan", "shape")

    def __init__(self, function: str, x: AnyArray, plan: Plan) -> None:
        self.function, self.plan, self.shape = function, plan, x.shape

    def x(self, x: AnyArray) -> AnyArray:
        return x if self.plan.split is None else x.reshape(self.plan.split)

    def like_x(self, name: str, array: Any) -> Any:
        """An operand of the shape of x; what is not an array is left for the compiled module to refuse."""
        if self.plan.split is None or array is None or isinstance(array, (bool, np.bool_)):
            return array
        array = _array(array) if name in {"residual", "grad_output"} else array
        if not isinstance(array, np.ndarray):
            return array
        if array.shape != self.shape:
            raise ValueError(f"{self.function}: expected {name} of shape {self.shape}, got {array.shape}")
        return array.reshape(self.plan.split)

    def parameter(self, name: str, array: Any) -> Any:
        """A weight or bias, or its gradient: with axes of its own pattern, or broadcast against x."""
        own, split = self.plan.parameters, self.plan.split
        if array is None or isinstance(array, (bool, np.bool_)) or (own is None and split is None):
            return array
        array = _array(array)
        if own is not None:
            if array.shape != own.shape:
                raise ValueError(f"{self.function}: expected {name} of shape {own.shape}, got {array.shape}")
            return own.to_x(array)
        return array.reshape(self.broadcast(name, array.shape))

    def broadcast(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of an operand that broadcasts against x, with the axes apart that are apart in x."""
        result: list[int] = []
        own = (1,) * (len(self.shape) - len(shape)) + shape
        if len(own) != len(self.shape) or any(n not in (1, full) for n, full in zip(own, self.shape, strict=True)):
            raise ValueError(
                f"{self.function}: expected {name} of a shape that broadcasts to {self.shape}, got {shape}"
            )
        split = cast(tuple[int, ...], self.plan.split)
        for n, parts in zip(own, self.plan.parts, strict=True):
            apart = split[len(result) : len(result) + parts]
            result += apart if n != 1 else (1,) * parts
        return tuple(result)

    def given(self, moments: Any) -> Any:
        """Statistics of the shape that the right-hand side says, as the compiled module wants them."""
        own = self.plan.statistics
        if own is None or not isinstance(moments, Moments):
            return moments
        if moments.shape != own.shape:
            raise ValueError(f"{self.function}: expected moments of shape {own.shape}, got {moments.shape}")
        return Moments._wrap(own.to_x(moments._count), own.to_x(moments._mean), own.to_x(moments._m2))

    def taken(self, moments: Moments) -> Moments:
        own = self.plan.statistics
        if own is None:
            return moments
        return Moments._wrap(own.from_x(moments._count), own.from_x(moments._mean), own.from_x(moments._m2))

    def whole(self, result: AnyArray, given: AnyArray | None) -> AnyArray:
        """A result of the shape of x: the array that the caller gave, or the new one."""
        return result.reshape(self.shape) if given is None else given


def _array(array: Any) -> AnyArray:
    """As the compiled module reads it: an ndarray, but for masked arrays, which it refuses."""
    return array if isinstance(array, np.ma.MaskedArray) else np.asarray(array)


def moments(x: Any, axis: Any, keepdims: Any, num_threads: Any, sizes: Sizes) -> Moments:
    if not isinstance(axis, str):
        refuse_pattern("moments", None, sizes)
        return _core.moments(x, axis, keepdims, num_threads)
    if keepdims is True:
        raise ValueError("moments: expected keepdims to be False with a pattern, got True; write 1 behind the arrow")
    x = x if type(x) is np.ndarray else _array(x)
    plan = fit("moments", x, axis, None, sizes)
    if plan.is_plain:
        return _core.moments(x, plan.axis, keepdims, num_threads)
    views = Views("moments", x, plan)
    return views.taken(_core.moments(views.x(x), plan.axis, keepdims, num_threads))


def normalize(
    x: Any, axis: Any, weight: Any, bias: Any, eps: Any, center: Any, moments: Any, residual: Any, activation: Any,
    out: Any, sum_out: Any, dtype: Any, out_scale: Any, out_zero_point: Any, return_moments: Any, num_threads: Any,
    parameters: str | None, sizes: Sizes,
) -> Result:  # fmt: skip
    views = None
    if isinstance(axis, str):
        x = x if type(x) is np.ndarray else _array(x)
        plan = fit("normalize", x, axis, parameters, sizes)
        axis = plan.axis
        if not plan.is_plain:
            views = Views("normalize", x, plan)
    else:
        refuse_pattern("normalize", parameters, sizes)
    if views is None:
        return _core.normalize(
            x, axis, weight, bias, eps, center, moments, residual, activation,
            out, sum_out, dtype, out_scale, out_zero_point, return_moments, num_threads,
        )  # fmt: skip
    result = _core.normalize(
        views.x(x), axis, views.parameter("weight", weight), views.parameter("bias", bias), eps, center,
        views.given(moments), views.like_x("residual", residual), activation,
        views.like_x("out", out), views.like_x("sum_out", sum_out), dtype, out_scale, out_zero_point, return_moments,
        num_threads,
    )  # fmt: skip
    if not isinstance(result, tuple):
        return views.whole(result, out)
    y, *rest = cast(tuple[Any, ...], result)
    behind = [views.taken(each) if isinstance(each, Moments) else views.whole(each, sum_out) for each in rest]
    return cast(Result, (views.whole(y, out), *behind))


def normalize_backward(
    grad_output: Any, x: Any, axis: Any, weight: Any, bias: Any, eps: Any, center: Any, frozen: Any, moments: Any,
    activation: Any, grad_input: Any, grad_weight: Any, grad_bias: Any, num_threads: Any, parameters: str | None,
    sizes: Sizes,
) -> Gradients:  # fmt: skip
    if not isinstance(axis, str):
        refuse_pattern("normalize_backward", parameters, sizes)
        return _core.normalize_backward(
            grad_output, x, axis, weight, bias, eps, center, frozen, moments, activation, grad_input, grad_weight,
            grad_bias, num_threads,
        )  # fmt: skip
    x = x if type(x) is np.ndarray else _array(x)
    views = Views("normalize_backward", x, fit("normalize_backward", x, axis, parameters, sizes))
    new_weight, new_bias = _gradient_like(weight, grad_weight), _gradient_like(bias, grad_bias)
    found = _core.normalize_backward(
        views.like_x("grad_output", grad_output), views.x(x), views.plan.axis, views.parameter("weight", weight),
        views.parameter("bias", bias), eps, center, frozen, views.given(moments), activation,
        views.like_x("grad_input", grad_input), views.parameter("grad_weight", new_weight),
        views.parameter("grad_bias", new_bias), num_threads,
    )  # fmt: skip
    given = grad_input if isinstance(grad_input, np.ndarray) else None
    return Gradients(
        None if found.grad_input is None else views.whole(found.grad_input, given),
        None if found.grad_weight is None else cast(AnyArray, new_weight),
        None if found.grad_bias is None else cast(AnyArray, new_bias),
    )


def _gradient_like(parameter: Any, gradient: Any) -> Any:
    """Where to write the gradient of a parameter: the array that is given, or a new one of the parameter's shape."""
    if parameter is None or not (gradient is None or gradient is True):
        return gradient
    parameter = np.asarray(parameter)
    return np.empty(parameter.shape, parameter.dtype)


def lp_normalize(x: Any, p: Any, axis: Any, eps: Any, out: Any, dtype: Any, num_threads: Any, sizes: Sizes) -> AnyArray:
    if not isinstance(axis, str):
        refuse_pattern("lp_normalize", None, sizes)
        return _core.lp_normalize(x, p, axis, eps, out, dtype, num_threads)
    x = x if type(x) is np.ndarray else _array(x)
    views = Views("lp_normalize", x, fit("lp_normalize", x, axis, None, sizes))
    y = _core.lp_normalize(views.x(x), p, views.plan.axis, eps, views.like_x("out", out), dtype, num_threads)
    return views.whole(y, out)


def lp_normalize_backward(
    grad_output: Any, x: Any, p: Any, axis: Any, eps: Any, out: Any, dtype: Any, num_threads: Any, sizes: Sizes
) -> AnyArray:
    if not isinstance(axis, str):
        refuse_pattern("lp_normalize_backward", None, sizes)
        return _core.lp_normalize_backward(grad_output, x, p, axis, eps, out, dtype, num_threads)
    x = x if type(x) is np.ndarray else _array(x)
    views = Views("lp_normalize_backward", x, fit("lp_normalize_backward", x, axis, None, sizes))
    found = _core.lp_normalize_backward(
        views.like_x("grad_output", grad_output),
        views.x(x),
        p,
        views.plan.axis,
        eps,
        views.like_x("out", out),
        dtype,
        num_threads,
    )
    return views.whole(found, out)
