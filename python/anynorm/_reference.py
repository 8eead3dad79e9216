# SPDX-License-Identifier: Apache-2.0
"""The norms in float64 NumPy, for `anynorm._selftest`: as short as the formulas, with nothing of the library in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from anynorm._shared import Array

EPS = 1e-5


def mean_and_var(x: Array, axes: Sequence[int]) -> tuple[Array, Array]:
    """Statistics with the axes kept; the second mean removes what rounding has left of the first."""
    x = x.astype(np.float64)
    mean = x.mean(tuple(axes), keepdims=True)
    mean = mean + (x - mean).mean(tuple(axes), keepdims=True)
    return mean, np.square(x - mean).mean(tuple(axes), keepdims=True)


def _affine(x: Array, mean: Any, var: Any, weight: Any = 1.0, bias: Any = 0.0) -> Array:
    result: Array = (x.astype(np.float64) - mean) / np.sqrt(var + EPS) * weight + bias
    return result


def _columns(*parameters: Array) -> tuple[Array, ...]:
    """Parameters of (C,), made to fit x of (N, C, H, W)."""
    return tuple(parameter.astype(np.float64).reshape(-1, 1, 1) for parameter in parameters)


def normalize(x: Array, axes: Sequence[int]) -> Array:
    """Any axes."""
    return _affine(x, *mean_and_var(x, axes))


def gradients(grad_output: Array, x: Array, axes: Sequence[int], weight: Array) -> tuple[Array, Array, Array]:
    """Of `normalize` with a weight and a bias along the last axis: that of x, and the means of what is summed for them."""
    mean, var = mean_and_var(x, axes)
    rstd = 1 / np.sqrt(var + EPS)
    xhat, grad_output = (x.astype(np.float64) - mean) * rstd, grad_output.astype(np.float64)
    g = grad_output * weight
    along = xhat * (g * xhat).mean(tuple(axes), keepdims=True)
    grad_input = rstd * (g - g.mean(tuple(axes), keepdims=True) - along)
    return grad_input, (grad_output * xhat).mean((0, 1, 2)), grad_output.mean((0, 1, 2))


def layer_norm(x: Array, length: int, weight: Array, bias: Array) -> Array:
    """The last axis."""
    del length
    return _affine(x, *mean_and_var(x, (3,)), weight, bias)


def rms_norm(x: Array, length: int, weight: Array, eps: float) -> Array:
    """The last axis, with the mean held at 0."""
    del length, eps
    return _affine(x, 0.0, np.square(x.astype(np.float64)).mean(3, keepdims=True), weight)


def group_norm(x: Array, groups: int, weight: Array, bias: Array) -> Array:
    """Consecutive channels of each sample."""
    split = x.reshape(x.shape[0], groups, -1)
    scale, shift = _columns(weight, bias)
    return normalize(split, (2,)).reshape(x.shape) * scale + shift


def instance_norm(x: Array, mean: None, var: None, weight: Array, bias: Array) -> Array:
    """Each channel of each sample."""
    del mean, var
    return _affine(x, *mean_and_var(x, (2, 3)), *_columns(weight, bias))


def batch_norm(
    x: Array, running_mean: Array, running_var: Array, weight: Array, bias: Array, training: bool = False
) -> Array:
    """Each channel; training moves the running statistics by a tenth towards those of x, the variance unbiased."""
    if not training:
        return _affine(x, *_columns(running_mean, running_var, weight, bias))
    mean, var = mean_and_var(x, (0, 2, 3))
    count = x.size // x.shape[1]
    running_mean += 0.1 * (mean.ravel() - running_mean)
    running_var += 0.1 * (var.ravel() * count / (count - 1) - running_var)
    return _affine(x, mean, var, *_columns(weight, bias))
