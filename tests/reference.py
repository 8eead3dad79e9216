# SPDX-License-Identifier: Apache-2.0
"""The oracle: what every call must return, in plain float64 NumPy, and exact rational statistics for hard data.

Slow, obviously right, and independent of the library: every set is gathered into one row and summed there. The
functions have the names and arguments of the library's, so that one test line can call either.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray

    @property
    def var(self):
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.m2 / np.where(self.count > 0, self.count, np.nan)


class Gradients(NamedTuple):
    grad_input: np.ndarray
    grad_weight: np.ndarray
    grad_bias: np.ndarray


class ExactMoments(NamedTuple):
    count: int
    mean: Fraction
    m2: Fraction

    @property
    def var(self):
        return self.m2 / self.count


def exact_moments(values):
    """Statistics without any rounding: finite floats are integers times a power of two."""
    mantissa, exponent = np.frexp(np.asarray(values, np.float64).ravel())
    digits = (mantissa * 2.0**53).astype(np.int64).tolist()
    shift = int(exponent.min())
    integers = [digit << (e - shift) for digit, e in zip(digits, exponent.tolist(), strict=True)]
    n, total, squares = len(integers), sum(integers), sum(i * i for i in integers)
    unit = Fraction(2) ** (shift - 53)
    return ExactMoments(n, Fraction(total, n) * unit, Fraction(n * squares - total * total, n) * unit * unit)


def reduced_axes(x, axis):
    if axis is None:
        return tuple(range(x.ndim))
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    return tuple(sorted(a % x.ndim for a in axes))


def moments(x, axis=None, *, keepdims=False, center=True):
    x = np.asarray(x, np.float64)
    axes = reduced_axes(x, axis)
    kept = tuple(a for a in range(x.ndim) if a not in axes)
    n = math.prod(x.shape[a] for a in axes)
    kept_shape = tuple(x.shape[a] for a in kept)
    # Rows are summed pairwise by NumPy, columns are not.
    rows = np.ascontiguousarray(x.transpose(kept + axes)).reshape(math.prod(kept_shape), n)
    mean = np.zeros(len(rows))
    deviation = rows
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        if center:
            mean = rows.sum(axis=1) / n if n else np.full(len(rows), np.nan)
            finite = np.isfinite(mean)
            # The second round removes the rounding error of the first.
            mean = np.where(finite, mean + (rows - mean[:, None]).sum(axis=1) / max(n, 1), mean)
            deviation = rows - mean[:, None]
        m2 = (deviation * deviation).sum(axis=1)
    shape = tuple(1 if a in axes else x.shape[a] for a in range(x.ndim)) if keepdims else kept_shape
    return Moments(np.full(shape, float(n)), mean.reshape(shape), m2.reshape(shape))


def normalize(x, axis, *, weight=None, bias=None, eps=1e-5, center=True, moments=None, return_moments=False):
    x = np.asarray(x, np.float64)
    used = moments if moments is not None else _moments(x, axis, center=center)
    shape = tuple(1 if a in reduced_axes(x, axis) else n for a, n in enumerate(x.shape))
    mean, var = np.reshape(used.mean, shape), np.reshape(used.var, shape)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        y = (x - mean) / np.sqrt(var + eps)
        y = y if weight is None else y * np.asarray(weight, np.float64)
        y = y if bias is None else y + np.asarray(bias, np.float64)
    return (y, used) if return_moments else y


_moments = moments  # `moments` is an argument's name above


def _along(x, axes, parameter):
    """A parameter whose axes are `axes` of x, in ascending order, made broadcastable against x."""
    if parameter is None:
        return None
    return np.reshape(parameter, tuple(x.shape[a] if a in axes else 1 for a in range(x.ndim)))


def layer_norm(x, normalized_shape=None, weight=None, bias=None, eps=1e-5, *, axis=None, **options):
    if axis is None:
        count = 1 if normalized_shape is None else len(np.atleast_1d(normalized_shape))
        axis = tuple(range(-count, 0))
    axes = reduced_axes(x, axis)
    return normalize(x, axes, weight=_along(x, axes, weight), bias=_along(x, axes, bias), eps=eps, **options)


def rms_norm(x, normalized_shape=None, weight=None, eps=None, *, axis=None, **options):
    if eps is None:  # half types count as float32, as in PyTorch
        eps = np.finfo(np.float64 if x.dtype == np.float64 else np.float32).eps
    return layer_norm(x, normalized_shape, weight, None, eps, axis=axis, center=False, **options)


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5, *, channel_axis=1, return_moments=False):
    c = channel_axis % x.ndim
    split = (*x.shape[:c], num_groups, x.shape[c] // num_groups, *x.shape[c + 1 :])
    axes = tuple(a for a in range(1, x.ndim + 1) if a != c)
    y, used = normalize(np.reshape(x, split), axes, eps=eps, return_moments=True)
    y = y.reshape(x.shape)
    y = y if weight is None else y * _along(x, (c,), np.asarray(weight, np.float64))
    y = y if bias is None else y + _along(x, (c,), np.asarray(bias, np.float64))
    return (y, used) if return_moments else y


def instance_norm(
    x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5,
    *, channel_axis=1, return_moments=False,
):  # fmt: skip
    c = channel_axis % x.ndim
    axes = tuple(a for a in range(1, x.ndim) if a != c)
    parameters = {"weight": _along(x, (c,), weight), "bias": _along(x, (c,), bias), "eps": eps}
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, eps=eps, channel_axis=c)
    y, used = normalize(x, axes, **parameters, return_moments=True)
    if running_mean is not None:
        running_mean += momentum * (used.mean.mean(axis=0) - running_mean)
        running_var += momentum * ((used.m2 / (used.count - 1)).mean(axis=0) - running_var)
    return (y, used) if return_moments else y


def batch_norm(
    x, running_mean=None, running_var=None, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5,
    *, channel_axis=1, return_moments=False,
):  # fmt: skip
    c = channel_axis % x.ndim
    axes = tuple(a for a in range(x.ndim) if a != c)
    parameters = {"weight": _along(x, (c,), weight), "bias": _along(x, (c,), bias), "eps": eps}
    if not training:
        given = Moments(np.ones(x.shape[c]), np.asarray(running_mean, np.float64), np.asarray(running_var, np.float64))
        return normalize(x, axes, **parameters, moments=given, return_moments=return_moments)
    y, used = normalize(x, axes, **parameters, return_moments=True)
    if running_mean is not None and x.size:
        running_mean += momentum * (used.mean - running_mean)
        running_var += momentum * (used.m2 / (used.count - 1) - running_var)
    return (y, used) if return_moments else y


# --- fusion ----------------------------------------------------------------------------------------------------------


def _logistic(v):
    e = np.exp(-np.abs(v))
    return np.where(v < 0, e, 1) / (1 + e)


def _upper_tail(t):
    return np.array([0.5 * math.erfc(v / math.sqrt(2)) for v in np.ravel(t)]).reshape(np.shape(t))


def activate(name, h):
    """In forms that keep their digits where the result is small. For finite h."""
    h = np.asarray(h, np.float64)
    if name == "relu":
        return np.maximum(h, 0)
    if name == "silu":
        return h * _logistic(h)
    if name == "gelu":
        return np.where(h < 0, h * _upper_tail(-h), h - h * _upper_tail(h))
    return h * _logistic(2 * math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))


def activation_slope(name, h):
    """The derivative of `activate`; 0 at 0 for relu."""
    h = np.asarray(h, np.float64)
    if name == "relu":
        return np.where(h > 0, 1.0, 0.0)
    if name == "silu":
        return _logistic(h) * (1 + h * _logistic(-h))
    if name == "gelu":
        below = np.where(h < 0, _upper_tail(-h), 1 - _upper_tail(h))
        return below + h * np.exp(-(h**2) / 2) / math.sqrt(2 * math.pi)
    v, slope = 2 * math.sqrt(2 / math.pi) * np.array([h + 0.044715 * h**3, 1 + 3 * 0.044715 * h**2])
    return _logistic(v) * (1 + h * _logistic(-v) * slope)


def quantize(y, scale, zero_point=0, dtype=np.int8):
    """In the arithmetic of the dtype of y, float32 at least."""
    y = y if y.dtype == np.float64 else y.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        steps = np.rint(y / y.dtype.type(scale))
    limits = np.iinfo(dtype)
    return np.where(np.isnan(y), zero_point, np.clip(steps + zero_point, limits.min, limits.max)).astype(dtype)


# --- gradients -------------------------------------------------------------------------------------------------------


def _summed_to(terms, parameter):
    """The gradient of a parameter that broadcasts: the sum over all elements which share one of its own."""
    if parameter is None:
        return None
    shape = (1,) * (terms.ndim - np.ndim(parameter)) + np.shape(parameter)
    axes = tuple(a for a, n in enumerate(shape) if n == 1)
    return terms.sum(axis=axes).reshape(np.shape(parameter))


def normalize_backward(
    grad_output, x, axis, *, weight=None, bias=None, eps=1e-5, center=True, frozen=False, moments=None
):
    x, grad_output = np.asarray(x, np.float64), np.asarray(grad_output, np.float64)
    used = moments if moments is not None else _moments(x, axis, center=center)
    axes = reduced_axes(x, axis)
    shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    rstd = 1 / np.sqrt(np.reshape(used.var, shape) + eps)
    xhat = (x - np.reshape(used.mean, shape)) * rstd
    g = grad_output if weight is None else grad_output * np.asarray(weight, np.float64)
    grad_input = rstd * g
    if not frozen:
        mean_g = g.mean(axis=axes, keepdims=True) if center else 0.0
        grad_input = rstd * (g - mean_g - xhat * (g * xhat).mean(axis=axes, keepdims=True))
    return Gradients(grad_input, _summed_to(grad_output * xhat, weight), _summed_to(grad_output, bias))


def _named(gradients, shape):
    """With the gradients of parameters in the shape that a named norm gives them."""
    return Gradients(gradients.grad_input, gradients.grad_weight.reshape(shape), gradients.grad_bias.reshape(shape))


def _ones_along(x, axes):
    return _along(x, axes, np.ones([x.shape[a] for a in axes]))


def layer_norm_backward(
    grad_output, x, normalized_shape=None, weight=None, bias=None, eps=1e-5, *, axis=None, center=True, **options
):
    if axis is None:
        count = 1 if normalized_shape is None else len(np.atleast_1d(normalized_shape))
        axis = tuple(range(-count, 0))
    axes = reduced_axes(x, axis)
    ones = _ones_along(x, axes)
    scale = ones if weight is None else _along(x, axes, weight)
    gradients = normalize_backward(grad_output, x, axes, weight=scale, bias=ones, eps=eps, center=center, **options)
    return _named(gradients, [x.shape[a] for a in axes])


def rms_norm_backward(grad_output, x, normalized_shape=None, weight=None, eps=None, *, axis=None, **options):
    if eps is None:
        eps = np.finfo(np.float64 if x.dtype == np.float64 else np.float32).eps
    gradients = layer_norm_backward(
        grad_output, x, normalized_shape, weight, None, eps, axis=axis, center=False, **options
    )
    return gradients._replace(grad_bias=None)


def group_norm_backward(grad_output, x, num_groups, weight=None, bias=None, eps=1e-5, *, channel_axis=1, **options):
    c = channel_axis % x.ndim
    split = (*x.shape[:c], num_groups, x.shape[c] // num_groups, *x.shape[c + 1 :])
    parts, grad_parts = np.reshape(x, split), np.reshape(grad_output, split)
    axes = tuple(a for a in range(1, x.ndim + 1) if a != c)
    ones = _ones_along(parts, (c, c + 1))
    scale = ones if weight is None else np.reshape(weight, ones.shape)
    gradients = normalize_backward(grad_parts, parts, axes, weight=scale, bias=ones, eps=eps, **options)
    return _named(gradients._replace(grad_input=gradients.grad_input.reshape(x.shape)), (x.shape[c],))


def instance_norm_backward(
    grad_output, x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1,
    eps=1e-5, *, channel_axis=1, **options,
):  # fmt: skip
    c = channel_axis % x.ndim
    if not use_input_stats:
        return batch_norm_backward(grad_output, x, running_mean, running_var, weight, eps=eps, channel_axis=c)
    axes = tuple(a for a in range(1, x.ndim) if a != c)
    ones = _ones_along(x, (c,))
    scale = ones if weight is None else _along(x, (c,), weight)
    return _named(normalize_backward(grad_output, x, axes, weight=scale, bias=ones, eps=eps, **options), (x.shape[c],))


def batch_norm_backward(
    grad_output, x, running_mean=None, running_var=None, weight=None, bias=None, training=False, momentum=0.1,
    eps=1e-5, *, channel_axis=1, **options,
):  # fmt: skip
    c = channel_axis % x.ndim
    axes = tuple(a for a in range(x.ndim) if a != c)
    if not training:
        given = Moments(np.ones(x.shape[c]), np.asarray(running_mean, np.float64), np.asarray(running_var, np.float64))
        options = {"moments": given, "frozen": True}
    ones = _ones_along(x, (c,))
    scale = ones if weight is None else _along(x, (c,), weight)
    return _named(normalize_backward(grad_output, x, axes, weight=scale, bias=ones, eps=eps, **options), (x.shape[c],))
