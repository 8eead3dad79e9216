# SPDX-License-Identifier: Apache-2.0
"""The array expression that a user of NumPy or jax.numpy writes for each case."""

from __future__ import annotations

from typing import Any

from anynorm.bench.shapes import Case

EPS = 1e-5


def expression(xp: Any, case: Case, x: Any, weight: Any, bias: Any, mean: Any, var: Any) -> Any:
    """Write out a case: y, or (mean, variance) for moments. `xp` is the array library; half types compute in float32.

    In a wider type than that of the case it is the truth that errors are measured against.
    """
    v = x.astype(xp.float32) if x.dtype.itemsize == 2 else x
    axes = case.set_axes
    if case.kind == "moments":
        return xp.mean(v, axes), xp.var(v, axes)
    if case.kind == "rms_norm":
        return (v / xp.sqrt(xp.mean(xp.square(v), axes, keepdims=True) + EPS) * weight).astype(x.dtype)
    if case.kind == "group_norm":
        return _group_norm(xp, case, v, weight, bias).astype(x.dtype)
    if case.over_channels:
        lengths = [1] * x.ndim
        lengths[case.channel] = case.channels
        weight, bias, mean, var = (parameter.reshape(lengths) for parameter in (weight, bias, mean, var))
    if case.training:
        mean, var = xp.mean(v, axes, keepdims=True), xp.var(v, axes, keepdims=True)
    return ((v - mean) / xp.sqrt(var + EPS) * weight + bias).astype(x.dtype)


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
