# SPDX-License-Identifier: Apache-2.0
"""The oracle of what is beside the norms: layers that a batch norm folds into, and division by p-norms, in float64."""

import math

import numpy as np


def convolve(x, weight, bias=None, stride=1, padding=0, groups=1):
    """x of shape (N, inputs, ...), weight (C, inputs / groups, ...) of any rank: the sum over every window."""
    space = range(2, x.ndim)
    padded = np.pad(np.asarray(x, np.float64), [(0, 0), (0, 0)] + [(padding, padding)] * len(space))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=tuple(space))
    windows = windows[(..., *[slice(None, None, stride)] * len(space), *[slice(None)] * len(space))]
    summed = (1, *range(x.ndim, windows.ndim))
    parts = [
        np.tensordot(part, kernel, axes=(summed, range(1, weight.ndim)))
        for part, kernel in zip(
            np.split(windows, groups, axis=1), np.split(np.asarray(weight, np.float64), groups), strict=True
        )
    ]
    return _with_bias(np.moveaxis(np.concatenate(parts, axis=-1), -1, 1), bias)


def convolve_transposed(x, weight, bias=None, stride=1, padding=0, groups=1):
    """x of shape (N, inputs, ...), weight (inputs, C / groups, ...): every element of x spreads its window."""
    lengths, window = x.shape[2:], weight.shape[2:]
    outputs = weight.shape[1]
    full = [(n - 1) * stride + k for n, k in zip(lengths, window, strict=True)]
    y = np.zeros((len(x), groups * outputs, *full))
    for group in range(groups):
        inputs = slice(group * len(weight) // groups, (group + 1) * len(weight) // groups)
        for at in np.ndindex(*window):
            places = [slice(i, i + (n - 1) * stride + 1, stride) for i, n in zip(at, lengths, strict=True)]
            spread = np.tensordot(np.asarray(x, np.float64)[:, inputs], weight[(inputs, slice(None), *at)], axes=(1, 0))
            y[(slice(None), slice(group * outputs, (group + 1) * outputs), *places)] += np.moveaxis(spread, -1, 1)
    return _with_bias(y[(..., *[slice(padding, n - padding) for n in full])], bias)


def _with_bias(y, bias):
    return y if bias is None else y + np.reshape(np.asarray(bias, np.float64), (-1, *[1] * (y.ndim - 2)))


def total(terms, axis):
    """The sum along the axes, which stay at length 1. NumPy adds rows pairwise, but columns one by one."""
    axes = tuple(range(terms.ndim)) if axis is None else np.atleast_1d(np.array(axis, int)) % max(terms.ndim, 1)
    rows = np.moveaxis(terms, axes, range(-len(axes), 0))
    kept = rows.shape[: terms.ndim - len(axes)]
    return np.expand_dims(np.ascontiguousarray(rows).reshape(*kept, -1).sum(axis=-1), tuple(sorted(axes)))


def lp_norm(x, p, axis):
    magnitudes = np.abs(np.asarray(x, np.float64))
    if p == math.inf:
        return magnitudes.max(axis=axis, keepdims=True)
    return total(magnitudes**p, axis) ** (1 / p)


def lp_normalize(x, p=2, axis=1, eps=1e-12):
    return np.asarray(x, np.float64) / np.maximum(lp_norm(x, p, axis), eps)


def lp_normalize_backward(grad_output, x, p=2, axis=1, eps=1e-12):
    x, grad_output = np.asarray(x, np.float64), np.asarray(grad_output, np.float64)
    norm = lp_norm(x, p, axis)
    y = x / np.where(norm == 0, 1, norm)
    if p == math.inf:
        largest = np.abs(x) == norm
        derivative = np.sign(x) * largest / total(largest, axis)
    else:
        derivative = np.sign(x) * np.abs(y) ** (p - 1)
    through = grad_output - derivative * total(grad_output * y, axis)
    return np.where(norm < eps, grad_output / eps if eps else np.nan, through / np.where(norm == 0, np.nan, norm))
