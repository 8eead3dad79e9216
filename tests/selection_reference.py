# SPDX-License-Identifier: Apache-2.0
"""The oracle of sets that data name: a loop over every set, in float64. Arguments as those of the library's engine."""

import itertools
from typing import NamedTuple

import numpy as np
import reference


class Moments(NamedTuple):
    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray
    weight2: np.ndarray

    @property
    def var(self):
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.m2 / self.count


def groups(x, labels=None, num_groups=None, segments=None, where=None):
    """How many sets there are of each, and the group of every element: -1 for those in no set."""
    group, count = np.zeros(x.shape, int), 1
    if labels is not None:
        group, count = np.broadcast_to(labels, x.shape).copy(), num_groups
    if segments is not None:
        group[...] = -1
        pairs = list(itertools.pairwise(segments)) if np.ndim(segments) == 1 else segments
        for number, (start, stop) in enumerate(pairs):
            group[start:stop] = number
        count = len(pairs)
    if where is not None:
        group = np.where(np.broadcast_to(where, x.shape), group, -1)
    return count, np.maximum(group, -1)


def _rows(array, shape, axes):
    """Kept axes first, the reduced ones as one behind them."""
    kept = [a for a in range(len(shape)) if a not in axes]
    array = np.broadcast_to(array, shape).transpose([*kept, *axes])
    return array.reshape([shape[a] for a in kept] + [-1])


def moments(x, axis=None, *, sample_weight=None, center=True, **selection):
    x = np.asarray(x, np.float64)
    axes = reference.reduced_axes(x, axis)
    count, group = groups(x, **selection)
    weight = np.ones(()) if sample_weight is None else np.asarray(sample_weight, np.float64)
    rows, weight, group = (_rows(array, x.shape, axes) for array in (x, weight, group))
    result = Moments(*(np.zeros((count, *rows.shape[:-1])) for _ in range(4)))
    for kept in np.ndindex(rows.shape[:-1]):
        for number in range(count):
            chosen = group[kept] == number
            w, v = weight[kept][chosen], rows[kept][chosen]
            counted = w > 0  # what a weight of 0 has is not looked at
            w, v = w[counted], v[counted]
            mean = (np.average(v, weights=w) if len(w) else np.nan) if center else 0.0
            fields = (w.sum(), mean, (w * (v - mean) ** 2).sum(), (w**2).sum())
            for array, value in zip(result, fields, strict=True):
                array[(number, *kept)] = value
    splits = selection.get("labels") is not None or selection.get("segments") is not None
    return result if splits else Moments(*(array[0] for array in result))


def _spread(values, x, axes, group, splits):
    """The value of the set of every element; that of the first group for those in no set."""
    kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    if not splits:
        return np.broadcast_to(values.reshape(kept), x.shape)
    values = np.broadcast_to(values.reshape(len(values), *kept), (len(values), *x.shape))
    return np.take_along_axis(values, np.maximum(group, 0)[np.newaxis], axis=0)[0]


def _standardized(x, axis, eps, center, used, sample_weight, selection):
    axes = reference.reduced_axes(x, axis)
    used = moments(x, axis, sample_weight=sample_weight, center=center, **selection) if used is None else used
    _, group = groups(x, **selection)
    splits = selection.get("labels") is not None or selection.get("segments") is not None
    mean, var, count = (_spread(v, x, axes, group, splits) for v in (used.mean, used.var, used.count))
    with np.errstate(all="ignore"):
        rstd = 1 / np.sqrt(var + eps)
        return (x - mean) * rstd, rstd, count, group, axes, splits


def normalize(
    x, axis, *, weight=None, bias=None, eps=1e-5, center=True, moments=None, sample_weight=None, excluded="zero",
    **selection,
):  # fmt: skip
    """With excluded="keep", NaN stands for what the memory held."""
    x = np.asarray(x, np.float64)
    y, _, _, group, _, _ = _standardized(x, axis, eps, center, moments, sample_weight, selection)
    y = y * (1 if weight is None else weight) + (0 if bias is None else bias)
    return np.where(group >= 0, y, {"zero": 0.0, "input": x, "keep": np.nan}[excluded])


def normalize_backward(
    grad_output, x, axis, *, weight=None, bias=None, eps=1e-5, center=True, moments=None, frozen=False,
    sample_weight=None, excluded="zero", **selection,
):  # fmt: skip
    x, grad_output = np.asarray(x, np.float64), np.asarray(grad_output, np.float64)
    xhat, rstd, count, group, axes, splits = _standardized(x, axis, eps, center, moments, sample_weight, selection)
    inside = group >= 0
    xhat, grad = np.where(inside, xhat, 0), np.where(inside, grad_output, 0)
    g = grad * (1 if weight is None else weight)
    w = np.broadcast_to(1.0 if sample_weight is None else sample_weight, x.shape)

    def total(terms):
        """The sum over the set of every element."""
        rows, numbers = _rows(terms, x.shape, axes), _rows(group, x.shape, axes)
        sums = np.stack([np.where(numbers == number, rows, 0).sum(axis=-1) for number in range(max(1, group.max(initial=0) + 1))])  # fmt: skip
        return _spread(sums if splits else sums[0], x, axes, group, splits)

    with np.errstate(all="ignore"):
        through = (total(g) if center else 0) + xhat * total(g * xhat)
        grad_input = rstd * (g - (0 if frozen else w / count * through))
    grad_input = np.where(inside, grad_input, {"zero": 0.0, "input": grad_output, "keep": np.nan}[excluded])
    return reference.Gradients(grad_input, reference._summed_to(grad * xhat, weight), reference._summed_to(grad, bias))
