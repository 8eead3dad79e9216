# SPDX-License-Identifier: Apache-2.0
"""The arguments that say more about sets than axes do, checked and shaped for the compiled module."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anynorm._keys import Codes, codes

AnyArray = npt.NDArray[Any]


class Selection(NamedTuple):
    """As a caller gives it."""

    labels: Any = None
    num_groups: Any = None
    segments: Any = None
    where: Any = None
    sample_weight: Any = None
    excluded: Any = "zero"
    nan_policy: Any = "propagate"

    @property
    def is_nothing(self) -> bool:
        """Whether a call by axes says the same; what is wrong about the rest is refused all the same."""
        return (
            self.labels is None
            and self.num_groups is None
            and self.segments is None
            and self.where is None
            and self.sample_weight is None
            and self.excluded == "zero"
            and self.nan_policy == "propagate"
        )


class Selected(NamedTuple):
    """As the compiled module takes it; all arrays broadcast against x."""

    labels: AnyArray | None
    num_groups: int
    segments: AnyArray | None
    where: AnyArray | None
    sample_weight: AnyArray | None
    excluded: Any

    @property
    def splits(self) -> bool:
        return self.labels is not None or self.segments is not None


def select(
    function: str, selection: Selection, shape: tuple[int, ...], reduced: Sequence[int], own: AnyArray | None
) -> Selected:
    """Read everything but `nan_policy`; `own` are the segments that x brings along."""
    if own is not None and selection.segments is not None:
        raise ValueError(f"{function}: expected no segments for x of lists, which are its segments, got both")
    keys, num_groups = selection.labels, selection.num_groups
    if isinstance(keys, Codes) and num_groups is None:
        num_groups = len(keys.names)
    labels = None if keys is None else _labels(function, keys.labels if isinstance(keys, Codes) else keys)
    if labels is None:
        if num_groups is not None:
            raise ValueError(f"{function}: expected num_groups with labels, got it without")
        num_groups = 0
    elif num_groups is None:
        num_groups = int(labels.max(initial=-1)) + 1
    else:
        num_groups = _index(function, "num_groups", num_groups)
    weight = selection.sample_weight
    if weight is not None:
        weight = np.asarray(weight)
        weight = weight.astype(np.float64) if weight.dtype.kind in "iu" else weight
    return Selected(
        None if labels is None else _along(function, "labels", labels, shape, reduced),
        num_groups,
        _indices(function, "segments", own if selection.segments is None else selection.segments),
        _mask(function, selection.where),
        None if weight is None else _along(function, "sample_weight", weight, shape, reduced),
        selection.excluded,
    )


def _index(function: str, name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{function}: expected {name} to be an int or None, got {type(value).__name__}") from None


def _labels(function: str, labels: Any) -> AnyArray:
    """Integers as they are; other keys by their place among the different ones."""
    origin = type(labels).__module__.partition(".")[0]
    array: Any = labels if origin in {"pandas", "polars"} else np.asarray(labels)
    dtype = array.dtype
    if not (isinstance(dtype, np.dtype) and dtype.kind in "biufc"):
        is_integer = origin == "polars" and dtype.is_integer() and array.null_count() == 0
        if not is_integer:
            return _codes(function, array)
    array = np.asarray(array)
    return _indices(function, "labels", array) if array.dtype.kind in "biufc" else _codes(function, array)


def _codes(function: str, keys: Any) -> AnyArray:
    try:
        return codes(keys).labels.astype(np.int64, copy=False)
    except TypeError as error:
        raise TypeError(f"{function}: expected labels of integers or keys; {error}") from None


def _indices(function: str, name: str, given: Any) -> Any:
    """Of any integer dtype; the compiled module has two."""
    if given is None:
        return None
    array = np.asarray(given)
    if array.dtype.kind not in "iu":
        if array.size == 0 and not isinstance(given, np.ndarray):  # an empty list
            return array.astype(np.int64)
        raise TypeError(f"{function}: expected {name} of integers, got {array.dtype}")
    if array.dtype in (np.int32, np.int64) and array.dtype.isnative:
        return array
    if array.dtype == np.uint64 and array.max(initial=0) > np.iinfo(np.int64).max:
        raise ValueError(f"{function}: expected {name} within int64, got {array.max()}")
    return array.astype(np.int64)


def _mask(function: str, where: Any) -> AnyArray | None:
    if where is None or where is True:
        return None
    if isinstance(where, np.ma.MaskedArray):
        raise TypeError(f"{function}: expected where without a mask of its own, got numpy.ma.MaskedArray")
    array = np.asarray(where)
    if array.dtype != np.bool_:
        raise TypeError(f"{function}: expected where of dtype bool, got {array.dtype}")
    return array


def _along(function: str, name: str, array: AnyArray, shape: tuple[int, ...], reduced: Sequence[int]) -> AnyArray:
    """An array of as many axes as x broadcasts; one of fewer has the lengths of the first reduced axes."""
    if array.ndim == len(shape):
        return array
    first = sorted(reduced)[: array.ndim]
    lengths = tuple(shape[axis] for axis in first)
    if array.ndim > len(first) or array.shape != lengths:
        raise ValueError(
            f"{function}: expected {name} of shape {lengths}, as the first reduced axes of x of shape {shape}, "
            f"or of {len(shape)} axes, got {array.shape}"
        )
    return array.reshape([n if axis in first else 1 for axis, n in enumerate(shape)])


def usable(
    function: str, policy: Any, where: AnyArray | None, x: AnyArray, residual: Any = None
) -> tuple[AnyArray | None, AnyArray | None]:
    """The mask that `nan_policy` makes of another, and where there is NaN if the result is to have it there."""
    if policy not in ("propagate", "omit", "raise"):
        if not isinstance(policy, str):
            raise TypeError(f"{function}: expected nan_policy to be a str, got {type(policy).__name__}")
        raise ValueError(f"{function}: expected nan_policy to be 'propagate', 'omit' or 'raise', got '{policy}'")
    if policy == "propagate" or x.dtype.kind not in "fV":  # V: that of ml_dtypes.bfloat16
        return where, None
    nan = np.isnan(x)
    if residual is not None and np.shape(residual) == x.shape:
        nan |= np.isnan(residual)
    if policy == "raise":
        count = int(np.count_nonzero(nan if where is None else nan & where))
        if count:
            raise ValueError(f"{function}: expected x without NaN where nan_policy is 'raise', got {count}")
        return where, None
    if not nan.any():
        return where, None
    return ~nan if where is None else where & ~nan, nan


def groups_first(selected: Selected) -> tuple[int, ...]:
    """The axis of groups that moments begin with, if there is one."""
    if selected.labels is not None:
        return (selected.num_groups,)
    if selected.segments is not None:
        return (len(selected.segments) - (selected.segments.ndim == 1),)
    return ()
