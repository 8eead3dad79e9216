# SPDX-License-Identifier: Apache-2.0
"""What the signatures and docstrings of all norms have in common."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, SupportsIndex, TypeAlias, TypedDict, TypeVar, cast

import numpy as np
import numpy.typing as npt

from anynorm import _core
from anynorm._moments import Moments

P = ParamSpec("P")
R = TypeVar("R")

Array: TypeAlias = npt.NDArray[Any]
"""float16, bfloat16, float32 or float64: the dtype of x, unless `dtype` or `out` says otherwise."""

Result: TypeAlias = Array | tuple[Array, Array] | tuple[Array, Moments] | tuple[Array, Array, Moments]
"""y; with the sum behind it if there is a residual; with the moments at the end if they are asked for."""

Activation: TypeAlias = Literal["relu", "silu", "gelu", "gelu_tanh"]

Wanted: TypeAlias = bool | Array
"""Whether to compute a gradient into a new array, or the array to write it to."""

Axis: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...]
Sets: TypeAlias = Axis | str
"""Axes, or a pattern that names them."""

Lengths: TypeAlias = SupportsIndex | Sequence[SupportsIndex]


NonFinite: TypeAlias = Literal["warn", "skip", "raise", "propagate"]
"""What becomes of the running statistics of a channel whose batch has moments that are not finite."""

OneElement: TypeAlias = Literal["raise", "bias"]
"""What becomes of a training batch whose sets have one element each."""


Excluded: TypeAlias = Literal["zero", "input", "keep"]
"""What becomes of the result at elements that are in no set."""

NanPolicy: TypeAlias = Literal["propagate", "omit", "raise"]
"""What NaN does, as in SciPy."""


class PlainTail(TypedDict, total=False):
    """The keyword arguments that all norms end with, but for `return_moments`, which decides about the result."""

    moments: Moments | None
    out: Array | None
    dtype: npt.DTypeLike | None
    num_threads: SupportsIndex | None


class MaskTail(TypedDict, total=False):
    """What leaves elements out of sets or weighs them."""

    where: npt.ArrayLike | None
    sample_weight: npt.ArrayLike | None
    excluded: Excluded
    nan_policy: NanPolicy


class SelectionTail(MaskTail, total=False):
    """What says more about sets than axes do, but for `num_groups`, which group norm has already."""

    labels: npt.ArrayLike | None
    segments: npt.ArrayLike | None


class Tail(PlainTail, SelectionTail, total=False):
    """With those of fused calls and of selections, but for `residual`, which decides about the result as well."""

    activation: Activation | None
    sum_out: Array | None
    out_scale: npt.ArrayLike | None
    out_zero_point: npt.ArrayLike


class EngineTail(Tail, total=False):
    """Of the engine."""

    num_groups: SupportsIndex | None


class AxisTail(EngineTail, total=False):
    """Of the norms whose sets are named by axes."""

    axis: Axis | None


class ChannelTail(Tail, total=False):
    """Of the norms of data with channels."""

    channel_axis: SupportsIndex


class RunningOptions(TypedDict, total=False):
    """How running statistics are updated."""

    num_batches: npt.NDArray[np.int64] | None
    correction: float
    pooled: Moments | None
    nonfinite: NonFinite
    one_element: OneElement


class RunningTail(ChannelTail, RunningOptions, total=False):
    """Of the norms that keep running statistics."""

    num_groups: SupportsIndex | None


_PARAMETERS = {
    "x": """\
x : array_like of float16, bfloat16, float32 or float64
    {shape}
    An ndarray is never copied, whatever its strides. The mask of a masked array is that of `where`; lists of awkward or
    pyarrow are `segments` of their elements, and the result is of their kind. Anything else goes through
    ``numpy.asarray``.""",
    "weight": """\
weight : array_like of float16, bfloat16, float32 or float64, optional
    {weight_shape}
    The normalized values are multiplied by it.""",
    "bias": """\
bias : array_like of float16, bfloat16, float32 or float64, optional
    Shape as for `weight`. Added last.""",
    "eps": """\
eps : float, default 1e-5
    Added to the variance; at least 0.""",
    "normalized_shape": """\
normalized_shape : int or tuple of ints, optional
    The lengths of the trailing axes to normalize over, which must be those of `x`. Left out: the last axis, or
    `axis`.""",
    "axis": """\
axis : int or tuple of ints, optional
    The axes to normalize over, instead of `normalized_shape`. They need not be the last ones, nor adjacent.""",
    "selection": """\
{labels}
num_groups : int, optional
    With `labels`: how many sets there are, all labels being below. Left out: the largest label and 1.
{segments}
{where}
{sample_weight}
{excluded}
{nan_policy}""",
    "labels": """\
labels : array_like of integers or keys, optional
    Elements that share a label share a set, so that labels divide the sets of the axes. Of as many axes as `x`, it
    broadcasts against it, with length 1 along the axes that are kept; of fewer, it has the lengths of the first reduced
    axes, such as (N,) for one label a sample. A negative label is in no set. Strings, categories, dates: see `codes`,
    whose result may be given.""",
    "segments": """\
segments : array_like of integers, optional
    Divides axis 0, which is reduced, into a set for each segment. Shape (G + 1,): offsets, as in Arrow's lists, of which
    segment g begins at number g and ends before number g + 1. Shape (G, 2): where each begins and ends. They rise; a
    segment may be empty, and what is between two is in no set. Not with `labels`.""",
    "where": """\
where : array_like of bool, optional
    Broadcasts against `x`, as in NumPy: elements where it is False are in no set, and are not read.""",
    "sample_weight": """\
sample_weight : array_like of real numbers, optional
    Shape as for `labels`, or any that broadcasts against `x`; finite, at least 0. An element of weight 3 counts as three
    equal ones would.""",
    "excluded": """\
excluded : {"zero", "input", "keep"}, default "zero"
    What the result has at elements that are in no set: 0, the input there, or what `out` holds already.""",
    "nan_policy": """\
nan_policy : {"propagate", "omit", "raise"}, default "propagate"
    What NaN in `x` does, as in SciPy. "propagate": it spoils its set. "omit": it is in no set, and stays NaN in the
    result. "raise": ValueError, before anything is written.""",
    "moments_selection": """\
{labels}
num_groups : int, optional
    With `labels`: how many sets there are, all labels being below. Left out: the largest label and 1.
{segments}
{where}
{sample_weight}
nan_policy : {"propagate", "omit", "raise"}, default "propagate"
    What NaN in `x` does, as in SciPy. "propagate": it spoils its set. "omit": it is in no set. "raise": ValueError.""",
    "group_selection": """\
{labels}
{segments}
{where}
{sample_weight}
{excluded}
{nan_policy}""",
    "mask": """\
{where}
sample_weight : array_like of real numbers, optional
    Broadcasts against `x`, or has the lengths of its first axes but that of the channels, such as (N,); finite, at least
    0. An element of weight 3 counts as three equal ones would.
{excluded}
{nan_policy}""",
    "backward_mask": """\
where, sample_weight, nan_policy : optional
    As in the forward call.
excluded : {"zero", "input", "keep"}, default "zero"
    What `grad_input` has at elements that are in no set, which give nothing to `grad_weight` and `grad_bias`: 0,
    `grad_output`, or what its memory holds.""",
    "backward_selection": """\
labels, num_groups, segments, where, sample_weight, nan_policy : optional
    As in the forward call.
excluded : {"zero", "input", "keep"}, default "zero"
    What `grad_input` has at elements that are in no set, which give nothing to `grad_weight` and `grad_bias`: 0,
    `grad_output`, or what its memory holds.""",
    "group_backward_selection": """\
labels, segments, where, sample_weight, nan_policy : optional
    As in the forward call.
excluded : {"zero", "input", "keep"}, default "zero"
    What `grad_input` has at elements that are in no set, which give nothing to `grad_weight` and `grad_bias`: 0,
    `grad_output`, or what its memory holds.""",
    "pattern": """\
    Or a pattern as of ``einops.reduce``, such as "n (g c) h w -> n g": all axes of `x` by name, and those that are kept;
    see `sizes`.""",
    "parameters": """\
parameters : str, optional
    With a pattern: the axes of `weight` and `bias`, as in "c" or "(g c)". Left out, they broadcast against `x`.""",
    "sizes": """\
**sizes : int
    With a pattern: the lengths of axes in parentheses, as in ``g=32``; one of each pair may be left out. An ellipsis
    stands for any number of axes, 1 for an axis of length 1. Statistics have the axes behind the arrow, in that order.
    What is wrong with a pattern is an error that points into it.""",
    "channel_axis": """\
channel_axis : int, default 1
    The axis of the channels; -1 for data with the channels last.""",
    "running": """\
running_mean, running_var : ndarray of float32 or float64, optional
    Shape (C,); both or neither. Updated in place if {updates}, and then nothing but a writeable ndarray will do.""",
    "momentum": """\
momentum : float or None, default 0.1
    The share of the new value: ``running = (1 - momentum) * running + momentum * new``, as in PyTorch. What Keras,
    Flax and ONNX call momentum is 1 minus this. None: the average over all batches, which needs `num_batches`.""",
    "running_options": """\
{updating}
nonfinite : {"warn", "skip", "raise", "propagate"}, default "warn"
    What becomes of the running statistics of a channel whose batch has moments that are not finite. "warn": they stay
    as they are, and a RuntimeWarning names the channel. "skip": without the warning. "raise": FloatingPointError, and
    those of all channels stay as they are; the result has been written then. "propagate": they become NaN or infinite
    for good, as in PyTorch. The result has NaN for that channel, and for no other, in any case.
one_element : {"raise", "bias"}, default "raise"
    What becomes of sets of one element, which have no unbiased variance to learn. "raise": {one_element}.
    "bias": the result is {alone_result}, and `running_mean`, `running_var` and `num_batches` stay as they are.""",
    "not_finite": """\
FloatingPointError
    For moments that are not finite, if `nonfinite` is "raise".

Warns
-----
RuntimeWarning
    For moments that are not finite, if `nonfinite` is "warn".""",
    "updating": """\
num_batches : ndarray of int64, optional
    One element, which every update counts up by one: PyTorch's ``num_batches_tracked``.
correction : float, default 1
    From 0 to 1. The running variance is ``m2 / (count - correction)``: 1 for the unbiased one, as in PyTorch, 0 for
    that of the population, as in Keras, Flax and ONNX.
pooled : Moments, optional
    Shape (C,), of float64. The moments of the batch are merged into it, so that it holds the exact statistics of all
    data so far, which no average over batches does. ``Moments.empty(C)`` begins one, without `weight2`: weights count
    as repetitions do.""",
    "tail": """\
moments : Moments, optional
    Statistics to use instead of those of `x`,
    {sets}
residual : array_like of float16, bfloat16, float32 or float64, optional
    Shape of `x`. The sum of both, rounded to its dtype, is normalized instead of `x`, and returned behind y.
activation : {"relu", "silu", "gelu", "gelu_tanh"}, optional
    Applied after `weight` and `bias`, before the result is rounded to its dtype. The names are PyTorch's; gelu_tanh
    is its gelu with ``approximate="tanh"``.
out : ndarray of float16, bfloat16, float32, float64, int8 or uint8, optional
    Where to write the result: shape of `x`, any strides, `x` itself for in-place work.
sum_out : ndarray of float16, bfloat16, float32 or float64, optional
    Where to write the sum with `residual`: shape of `x`, any strides, `x` or `residual` itself for in-place work. By
    default a new array of the dtype of `x`.
dtype : float16, bfloat16, float32, float64, int8 or uint8, optional
    Of the result; that of `x` by default. ``"bfloat16"`` needs the package ml_dtypes, which defines it.
out_scale : float or array_like of float16, bfloat16, float32 or float64, optional
    Above 0, for results of int8 or uint8, and only for them: as of `quantize`. An array broadcasts against `x`, so that
    the channels of (N, C, H, W) have one of shape (C, 1, 1).
out_zero_point : int or array_like, default 0
    The integer that stands for 0 in such a result. An ndarray has the dtype of the result, and broadcasts as well.
return_moments : bool, default False
    Return the statistics that were used as well.
{num_threads}""",
    "plain_tail": """\
moments : Moments, optional
    Statistics to use instead of those of `x`,
    {sets}
out : ndarray of float16, bfloat16, float32 or float64, optional
    Where to write the result: shape of `x`, any strides, `x` itself for in-place work.
dtype : float16, bfloat16, float32 or float64, optional
    Of the result; that of `x` by default. ``"bfloat16"`` needs the package ml_dtypes, which defines it.
return_moments : bool, default False
    Return the statistics that were used as well.
{num_threads}""",
    "num_threads": """\
num_threads : int, optional
    As many as OpenMP would use by default, less those that other calls are using. The result does not depend on it.""",
    "returns": """\
y : ndarray
    `out`, or a new array of the shape and memory order of `x`.
sum : ndarray
    Only with `residual`: `sum_out`, or a new array of the shape and memory order of `x`.
moments : Moments
    Only if `return_moments`: the statistics that were used.""",
    "plain_returns": """\
y : ndarray
    `out`, or a new array of the shape and memory order of `x`.
moments : Moments
    Only if `return_moments`: the statistics that were used.""",
    "grad_output": """\
grad_output : array_like of float16, bfloat16, float32 or float64
    Shape of `x`. The gradient of a loss with respect to the result of the forward call.""",
    "bias_shape": """\
bias : array_like of float16, bfloat16, float32 or float64, optional
    Shape as for `weight`. Only its shape and dtype are used, which are those of a new `grad_bias`.""",
    "read_running": """\
running_mean, running_var : array_like of float32 or float64, optional
    Shape (C,); both or neither. Used if {reads} is False, and never changed.""",
    "unused_momentum": """\
momentum : float or None, default 0.1
    As in the forward call; not used.""",
    "saved_moments": """\
moments : Moments, optional
    What the forward call returned with ``return_moments=True``,
    {sets}
    Left out: computed again from `x`.""",
    "undone_activation": """\
activation : {"relu", "silu", "gelu", "gelu_tanh"}, optional
    That of the forward call, of whose result `grad_output` is the gradient. `x` is what was normalized: the sum, if
    there was a residual, whose gradient is `grad_input` as well.""",
    "grad_sum": """\
grad_sum : array_like of float16, bfloat16, float32 or float64, optional
    Shape of `x`. The gradient that comes to the sum from elsewhere, where what follows the norm reads it as well; added
    to `grad_input` before that is rounded, whose array it may be. It makes the arithmetic float64 if it is.""",
    "grad_input": """\
grad_input : bool or ndarray of float16, bfloat16, float32 or float64, default True
    Whether to compute the gradient of `x`, into a new array of its shape, dtype and memory order; or the array to write
    it to: shape of `x`, any strides, `grad_output` or `x` itself for in-place work.""",
    "gradients": """\
{grad_input}
grad_weight, grad_bias : bool or ndarray of float16, bfloat16, float32 or float64, optional
    Likewise for `weight` and `bias`, in the shape and dtype of each. Left out: True for a parameter that is given.
    {alone}""",
    "returns_gradients": """\
Gradients
    ``(grad_input, grad_weight, grad_bias)``: the arrays written to, and None for what was not computed.""",
    "raises": """\
TypeError
    If an argument is not of the type said above; no array is cast.
ValueError
    If a shape, an axis, an option or the memory of an array does not fit. Nothing has been written then.""",
}


def documented(**texts: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Write the common parts out in full where the docstring names them, as in ``{tail}``; and `texts` within them."""

    def write_out(function: Callable[P, R]) -> Callable[P, R]:
        # cleandoc first: whether the compiler has removed the indentation depends on the Python version.
        lines = inspect.cleandoc(function.__doc__ or "").splitlines()
        parts = {f"{{{name}}}": text for name, text in _PARAMETERS.items()}
        while not parts.keys().isdisjoint(lines):  # a part may name others
            lines = "\n".join(parts.get(line, line) for line in lines).splitlines()
        doc = "\n".join(lines)
        for name, text in texts.items():
            doc = doc.replace(f"{{{name}}}", text)
        function.__doc__ = doc
        return function

    return write_out


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Replace a function whose first parameters are those of its namesake in the compiled module.

    The arguments then go there without a Python frame in between, which is a third of the time of a call on a short
    row. Signature, documentation and types stay those of the function. Its body says what a call does, and is run for
    the parameters that the compiled function does not have, which follow the others, and for a pattern as `axis`.
    """
    called = getattr(_core, function.__name__)
    required = [each for each in inspect.signature(called).parameters.values() if each.default is each.empty]
    namesake = _core.Function(function, called, len(required))
    return cast(Callable[P, R], functools.update_wrapper(namesake, function))
