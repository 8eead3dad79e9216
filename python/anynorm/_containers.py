# SPDX-License-Identifier: Apache-2.0
"""What users hold that is no plain ndarray: masked arrays, and arrays of lists of awkward and pyarrow.

Each is opened into an ndarray with a mask or with segments, and what comes back is put into the same kind again.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]


class Opened(NamedTuple):
    """An array, what its container said about sets, and how to make such a container of a result."""

    array: AnyArray
    where: npt.NDArray[np.bool_] | None = None
    segments: npt.NDArray[np.int64] | None = None
    close: Callable[[AnyArray], Any] | None = None


def opened(function: str, name: str, container: Any) -> Opened:
    """Anything that NumPy takes, and the containers above."""
    if isinstance(container, np.ma.MaskedArray):
        return _masked(container)
    origin = type(container).__module__.partition(".")[0]
    if origin == "awkward":
        return _awkward(function, name, container)
    if origin == "pyarrow" and hasattr(container, "offsets"):
        return _arrow(container)
    if container is None:
        raise TypeError(f"{function}: expected {name} to be an array, got NoneType")
    return Opened(np.asarray(container))


def _masked(x: np.ma.MaskedArray[Any, Any]) -> Opened:
    """numpy.ma marks what does not count; `where` marks what does."""
    mask: Any = np.ma.getmask(x)
    where = None if mask is np.ma.nomask else np.logical_not(mask)
    return Opened(np.asarray(x.data), where, close=lambda y: np.ma.MaskedArray(y, mask=np.array(mask)))


def _awkward(function: str, name: str, x: Any) -> Opened:
    ak = importlib.import_module("awkward")

    layout = ak.to_packed(x).layout
    if not layout.is_list:
        return Opened(np.asarray(ak.to_numpy(x)))
    layout = layout.to_ListOffsetArray64(True)
    try:
        content = np.asarray(ak.to_numpy(layout.content))
    except ValueError:
        raise ValueError(f"{function}: expected {name} with one axis of lists, got {x.type}") from None
    offsets = np.asarray(layout.offsets.data)

    def close(y: AnyArray) -> Any:
        lists = ak.contents.ListOffsetArray(ak.index.Index64(offsets), ak.from_numpy(y, regulararray=True).layout)
        return ak.Array(lists, behavior=x.behavior, attrs=x.attrs)

    return Opened(content, segments=offsets, close=close)


def _arrow(x: Any) -> Opened:
    """A ListArray or LargeListArray; one that is null is an empty segment."""
    pa = importlib.import_module("pyarrow")

    offsets, missing = x.offsets, x.is_null() if x.null_count else None

    def close(y: AnyArray) -> Any:
        return type(x).from_arrays(offsets, pa.array(y), mask=missing)

    content = x.values.to_numpy(zero_copy_only=False)
    return Opened(content, segments=offsets.to_numpy().astype(np.int64), close=close)
