# SPDX-License-Identifier: Apache-2.0
"""Sets that are rows: x of shape (rows, n), a thread takes whole rows."""

from __future__ import annotations

import numpy as np

from anynorm.bench.arena import Array
from anynorm.bench.kernels import parallel, prange


@parallel
def layer_norm(x: Array, weight: Array, bias: Array, eps: float, y: Array) -> None:
    """Statistics and result of a row, which the cache keeps in between."""
    rows, n = x.shape
    for row in prange(rows):
        shift = x[row, 0]
        total = 0.0
        squares = 0.0
        for i in range(n):
            d = np.float64(x[row, i] - shift)
            total += d
            squares += d * d
        mean = x.dtype.type(shift + total / n)
        rstd = x.dtype.type(1 / np.sqrt(max(squares / n - (total / n) ** 2, 0.0) + eps))
        for i in range(n):
            y[row, i] = (x[row, i] - mean) * rstd * weight[i] + bias[i]


@parallel
def rms_norm(x: Array, weight: Array, eps: float, y: Array) -> None:
    """Root mean square and result of a row."""
    rows, n = x.shape
    for row in prange(rows):
        squares = 0.0
        for i in range(n):
            squares += np.float64(x[row, i]) * np.float64(x[row, i])
        scale = x.dtype.type(1 / np.sqrt(squares / n + eps))
        for i in range(n):
            y[row, i] = x[row, i] * scale * weight[i]


@parallel
def moments(x: Array, mean: Array, var: Array) -> None:
    """Mean and variance of every row."""
    rows, n = x.shape
    for row in prange(rows):
        shift = x[row, 0]
        total = 0.0
        squares = 0.0
        for i in range(n):
            d = np.float64(x[row, i] - shift)
            total += d
            squares += d * d
        mean[row] = shift + total / n
        var[row] = max(squares / n - (total / n) ** 2, 0.0)
