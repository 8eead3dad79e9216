# SPDX-License-Identifier: Apache-2.0
"""The array expression that a user of NumPy or jax.numpy writes for each case."""

from __future__ import annotations

import math
from typing import Any

from anynorm.bench.shapes import Case

EPS = 1e-5


SCALE = 1 / 16
"""The step from one integer to the next in results of 8 bits: 127 of them are as far as y goes."""


def expression(xp: Any, case: Case, x: Any, weight: Any, bias: Any, mean: Any, var: Any, residual: Any = None) -> Any:
    """Write out a case. `xp` is the array library; half types compute in float32.

    Returns y, (y, sum) with a residual, or (mean, variance) for moments. In a wider type than that of the case it is
    the truth that errors are measured against.
    """
    v = x.astype(xp.float32) if x.dtype.itemsize == 2 else x
    if case.kind == "moments":
        return xp.mean(v, case.set_axes), xp.var(v, case.set_axes)
    if residual is not None:
        x = (v + residual.astype(v.dtype)).astype(x.dtype)
        v = x.astype(v.dtype)
    y = _activated(xp, case, _normalized(xp, case, v, weight, bias, mean, var))
    if case.result:
        y = xp.clip(xp.rint(y / SCALE), -128, 127).astype(xp.int8)
    y = y if case.result else y.astype(x.dtype)
    return y if residual is None else (y, x)


def _activated(xp: Any, case: Case, h: Any) -> Any:
    """Apply the activation of a case."""
    if case.activation == "relu":
        return xp.maximum(h, 0)
    if case.activation == "silu":
        return h / (1 + xp.exp(-h))
    if case.activation == "gelu_tanh":
        return h * (1 + xp.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))) / 2
    return h


def _normalized(xp: Any, case: Case, x: Any, weight: Any, bias: Any, mean: Any, var: Any) -> Any:
    """Write out the norm."""
    axes = case.set_axes
    if case.kind == "rms_norm":
        return x / xp.sqrt(xp.mean(xp.square(x), axes, keepdims=True) + EPS) * weight
    if case.kind == "group_norm":
        return _group_norm(xp, case, x, weight, bias)
    if case.over_channels:
        lengths = [1] * x.ndim
        lengths[case.channel] = case.channels
        weight, bias, mean, var = (parameter.reshape(lengths) for parameter in (weight, bias, mean, var))
    if case.training:
        mean, var = xp.mean(x, axes, keepdims=True), xp.var(x, axes, keepdims=True)
    return (x - mean) / xp.sqrt(var + EPS) * weight + bias


def _group_norm(xp: Any, case: Case, x: Any, weight: Any, bias: Any) -> Any:
    """Split the channel axis into (group, channel of the group) first."""
    channel = case.channel % x.ndim
    pair = (case.groups, case.channels // case.groups)
    split = x.reshape(*x.shape[:channel], *pair, *x.shape[channel + 1 :])
    axes = tuple(axis for axis in range(1, split.ndim) if axis != channel)
    lengths = (*pair, *[1] * (x.ndim - channel - 1))
    mean, var = xp.mean(split, axes, keepdims=True), xp.var(split, axes, keepdims=True)
    y = (split - mean) / xp.sqrt(var + EPS) * weight.reshape(lengths) + bias.reshape(lengths)
    return y.reshape(x.shape)
