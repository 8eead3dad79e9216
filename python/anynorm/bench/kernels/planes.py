# SPDX-License-Identifier: Apache-2.0
"""Sets that are made of planes: x of shape (N, C, P), channels first."""

from __future__ import annotations

import numpy as np

from anynorm.bench.arena import Array
from anynorm.bench.kernels import parallel, prange


@parallel
def batch_norm(x: Array, weight: Array, bias: Array, eps: float, y: Array) -> None:
    """A thread takes whole channels: statistics over N and P, then the result."""
    samples, channels, length = x.shape
    n = samples * length
    for c in prange(channels):
        shift = x[0, c, 0]
        total = 0.0
        squares = 0.0
        for s in range(samples):
            for i in range(length):
                d = np.float64(x[s, c, i] - shift)
                total += d
                squares += d * d
        mean = x.dtype.type(shift + total / n)
        scale = x.dtype.type(weight[c] / np.sqrt(max(squares / n - (total / n) ** 2, 0.0) + eps))
        for s in range(samples):
            for i in range(length):
                y[s, c, i] = (x[s, c, i] - mean) * scale + bias[c]


@parallel
def group_norm(x: Array, groups: int, weight: Array, bias: Array, eps: float, y: Array) -> None:
    """A thread takes whole groups of a sample; as many groups as channels make it instance norm."""
    samples, channels, length = x.shape
    width = channels // groups
    n = width * length
    for part in prange(samples * groups):
        s = part // groups
        first = part % groups * width
        shift = x[s, first, 0]
        total = 0.0
        squares = 0.0
        for c in range(first, first + width):
            for i in range(length):
                d = np.float64(x[s, c, i] - shift)
                total += d
                squares += d * d
        mean = x.dtype.type(shift + total / n)
        rstd = 1 / np.sqrt(max(squares / n - (total / n) ** 2, 0.0) + eps)
        for c in range(first, first + width):
            scale = x.dtype.type(weight[c] * rstd)
            for i in range(length):
                y[s, c, i] = (x[s, c, i] - mean) * scale + bias[c]


@parallel
def batch_norm_inference(x: Array, mean: Array, var: Array, weight: Array, bias: Array, eps: float, y: Array) -> None:
    """A thread takes whole planes."""
    samples, channels, length = x.shape
    for plane in prange(samples * channels):
        s = plane // channels
        c = plane % channels
        scale = x.dtype.type(weight[c] / np.sqrt(var[c] + eps))
        for i in range(length):
            y[s, c, i] = (x[s, c, i] - mean[c]) * scale + bias[c]


@parallel
def moments(x: Array, mean: Array, var: Array) -> None:
    """Mean and variance of every channel."""
    samples, channels, length = x.shape
    n = samples * length
    for c in prange(channels):
        shift = x[0, c, 0]
        total = 0.0
        squares = 0.0
        for s in range(samples):
            for i in range(length):
                d = np.float64(x[s, c, i] - shift)
                total += d
                squares += d * d
        mean[c] = shift + total / n
        var[c] = max(squares / n - (total / n) ** 2, 0.0)
