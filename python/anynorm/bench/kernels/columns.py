# SPDX-License-Identifier: Apache-2.0
"""Sets that are columns: x of shape (rows, C), channels last; or (N, P, C) with sets of one sample."""

from __future__ import annotations

import numpy as np

from anynorm.bench.arena import Array
from anynorm.bench.kernels import inlined, parallel, prange


@inlined
def _bounds(rows: int, chunks: int, chunk: int) -> tuple[int, int]:
    """Where a chunk of rows begins and ends."""
    return rows * chunk // chunks, rows * (chunk + 1) // chunks


@parallel
def _sums(x: Array, chunks: int, totals: Array, squares: Array) -> None:
    """Add up columns: a thread takes chunks of rows, and the sums of a chunk stay in the cache."""
    rows, channels = x.shape
    for chunk in prange(chunks):
        begin, end = _bounds(rows, chunks, chunk)
        total = totals[chunk]
        square = squares[chunk]
        for r in range(begin, end):
            for c in range(channels):
                d = np.float64(x[r, c] - x[0, c])
                total[c] += d
                square[c] += d * d


@parallel
def _affine(x: Array, chunks: int, mean: Array, scale: Array, bias: Array, y: Array) -> None:
    """Write the result of every chunk of rows."""
    rows, channels = x.shape
    for chunk in prange(chunks):
        begin, end = _bounds(rows, chunks, chunk)
        for r in range(begin, end):
            for c in range(channels):
                y[r, c] = (x[r, c] - mean[c]) * scale[c] + bias[c]


def moments(x: Array, chunks: int) -> tuple[Array, Array]:
    """Mean and variance of every column, in float64."""
    rows, channels = x.shape
    totals, squares = np.zeros((2, chunks, channels))
    _sums(x, chunks, totals, squares)
    distance = totals.sum(0) / rows
    return x[0] + distance, np.maximum(squares.sum(0) / rows - distance**2, 0)


def batch_norm(x: Array, weight: Array, bias: Array, eps: float, y: Array, chunks: int) -> None:
    """Two passes over x: the sets are as long as the array."""
    batch_norm_inference(x, *moments(x, chunks), weight, bias, eps, y, chunks)


def batch_norm_inference(
    x: Array, mean: Array, var: Array, weight: Array, bias: Array, eps: float, y: Array, chunks: int
) -> None:
    """One pass."""
    scale = (weight / np.sqrt(var + eps)).astype(x.dtype)
    _affine(x, chunks, mean.astype(x.dtype), scale, bias, y)


@parallel
def group_norm(x: Array, groups: int, weight: Array, bias: Array, eps: float, y: Array) -> None:
    """A thread takes whole samples: sums of every channel, added up to groups, then the result."""
    samples, length, channels = x.shape
    width = channels // groups
    n = width * length
    for s in prange(samples):
        total = np.zeros(channels)
        square = np.zeros(channels)
        for i in range(length):
            for c in range(channels):
                d = np.float64(x[s, i, c] - x[s, 0, c // width * width])
                total[c] += d
                square[c] += d * d
        mean = np.empty(channels, x.dtype)
        scale = np.empty(channels, x.dtype)
        for g in range(groups):
            first = g * width
            distance = total[first : first + width].sum() / n
            var = max(square[first : first + width].sum() / n - distance**2, 0.0)
            for c in range(first, first + width):
                mean[c] = x[s, 0, first] + distance
                scale[c] = weight[c] / np.sqrt(var + eps)
        for i in range(length):
            for c in range(channels):
                y[s, i, c] = (x[s, i, c] - mean[c]) * scale[c] + bias[c]
