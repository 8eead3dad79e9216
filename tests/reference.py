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
