# SPDX-License-Identifier: Apache-2.0
"""The array expression that a user of NumPy or jax.numpy writes for the gradients of each norm."""

from __future__ import annotations

from typing import Any

from anynorm.bench.expression import EPS
from anynorm.bench.shapes import Case


def statistics(xp: Any, case: Case, x: Any) -> tuple[Any, Any]:
    """Write out what the forward call saves: mean and 1 / sqrt(var + eps), with the axes of a set at length 1."""
    shape, axes, _ = _layout(case, x)
    v = _wide(xp, x).reshape(shape)
    if case.norm == "rms_norm":
        square = xp.mean(xp.square(v), axes, keepdims=True)
        return xp.zeros_like(square), 1 / xp.sqrt(square + EPS)
    return xp.mean(v, axes, keepdims=True), 1 / xp.sqrt(xp.var(v, axes, keepdims=True) + EPS)


def gradient(xp: Any, case: Case, grad_output: Any, x: Any, weight: Any, mean: Any, rstd: Any) -> tuple[Any, ...]:
    """Write out a case: the gradients of x, weight and, but for rms_norm, bias (Ioffe, Szegedy, arXiv:1502.03167).

    Half types compute in float32. In a wider type than that of the case it is the truth that errors are measured
    against.
    """
    shape, axes, channel = _layout(case, x)
    g, v = (_wide(xp, array).reshape(shape) for array in (grad_output, x))
    normalized = (v - mean) * rstd
    h = g * weight.reshape([length if axis in channel else 1 for axis, length in enumerate(shape)])
    inner = h - normalized * xp.mean(h * normalized, axes, keepdims=True)
    if case.norm != "rms_norm":
        inner = inner - xp.mean(h, axes, keepdims=True)
    others = tuple(axis for axis in range(len(shape)) if axis not in channel)
    grad_input = (rstd * inner).reshape(x.shape).astype(x.dtype)
    grad_weight = xp.sum(g * normalized, others).reshape(-1)
    if case.norm == "rms_norm":
        return grad_input, grad_weight
    return grad_input, grad_weight, xp.sum(g, others).reshape(-1)


def _wide(xp: Any, array: Any) -> Any:
    return array.astype(xp.float32) if array.dtype.itemsize == 2 else array


def _layout(case: Case, x: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Choose the shape to compute in, the axes of a set, and those of the parameters: two where groups split them."""
    channel = (case.channel if case.over_channels else -1) % x.ndim
    if case.norm != "group_norm":
        return x.shape, case.set_axes, (channel,)
    pair = (case.groups, case.channels // case.groups)
    shape = (*x.shape[:channel], *pair, *x.shape[channel + 1 :])
    return shape, tuple(axis for axis in range(1, len(shape)) if axis != channel), (channel, channel + 1)
