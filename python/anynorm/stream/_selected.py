# SPDX-License-Identifier: Apache-2.0
"""What data says about sets, beside the data: labels, a mask and weights, a block at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from anynorm._keys import Codes
from anynorm._selection import _index, _labels, usable
from anynorm.stream._slabs import broadcast_index
from anynorm.stream._sources import Array, forget

HASH_BYTES = 1 << 24


class Beside:
    """An array that lies along the data, which may be a memory map: what is not read stays on the disk."""

    def __init__(self, name: str, array: Array, shape: Sequence[int], order: Sequence[int]) -> None:
        """`array` has the axes of the data, in its own order, with length 1 where it is the same for all."""
        self._name, self._shape = name, shape
        self._array = array
        self._ordered = array.transpose(order)

    def of(self, index: tuple[slice, ...]) -> Array:
        """Return the part along a block."""
        own = broadcast_index(self._ordered.shape, index)
        for n, one in zip(self._ordered.shape, own, strict=True):
            if n != 1 and one.stop > n:
                raise self._wrong_length(f"got at least {one.stop}")
        return self._ordered[own]

    def forget(self) -> None:
        """Give the pages of a map back."""
        forget(self._array)

    def check_rows(self, rows: int) -> None:
        """Refuse an array that is longer than the data was, whose length is known at its end."""
        if self._ordered.shape[0] not in (1, rows):
            raise self._wrong_length(f"got {rows}")

    def fingerprint(self) -> str:
        """A hash of all elements, read in parts."""
        digest = hashlib.blake2b(f"{self._array.dtype.str} {self._array.shape}".encode(), digest_size=16)
        flat = self._ordered
        rows = max(1, HASH_BYTES // max(1, flat[:1].nbytes))
        for start in range(0, len(flat), rows):
            digest.update(np.ascontiguousarray(flat[start : start + rows]).tobytes())
            self.forget()
        return digest.hexdigest()

    def _wrong_length(self, got: str) -> ValueError:
        return ValueError(f"expected data of {self._ordered.shape[0]} rows as {self._name} has, {got}")


class Selection:
    """The options of a block, in the words of the calls in memory."""

    def __init__(
        self,
        caller: str,
        shape: tuple[int, ...],
        order: tuple[int, ...],
        axes: tuple[int, ...],
        *,
        labels: Any = None,
        num_groups: Any = None,
        where: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
        nan_policy: Any = "propagate",
    ) -> None:
        """`shape` is that of the data in its own order; -1 where it is not known."""
        usable(caller, nan_policy, None, np.zeros(0))
        self._shape, self._order, self._axes = shape, order, axes
        self._beside: dict[str, Beside] = {}
        self._nan_policy = nan_policy
        self.groups: int | None = None
        """The number of groups that labels make of a set; None without labels."""
        if isinstance(labels, Codes):
            num_groups = len(labels.names) if num_groups is None else num_groups
            labels = labels.labels
        if labels is None and num_groups is not None:
            raise ValueError("expected num_groups with labels, got it without")
        if labels is not None:
            integers = isinstance(labels, np.ndarray) and labels.dtype.kind in "iu"
            array = labels if integers else _labels(caller, labels)
            self.groups = (
                int(array.max(initial=-1)) + 1 if num_groups is None else _index(caller, "num_groups", num_groups)
            )
            forget(array)
            self._add("labels", array, reduced=True)
        if where is not None and where is not True:
            mask: Array = np.asanyarray(where)
            if isinstance(mask, np.ma.MaskedArray) or mask.dtype != np.bool_:
                raise TypeError(f"expected where of dtype bool, without a mask, got {type(mask).__name__} {mask.dtype}")
            self._add("where", mask, reduced=False)
        if sample_weight is not None:
            self._add("sample_weight", np.asanyarray(sample_weight), reduced=True)

    @property
    def weighted(self) -> bool:
        """Whether elements have weights."""
        return "sample_weight" in self._beside

    @property
    def uneven(self) -> bool:
        """Whether the sets that a block has a part of may have different counts there."""
        return bool(self._beside) or self._nan_policy == "omit"

    def of(self, index: tuple[slice, ...], weights: bool = True) -> dict[str, Any]:
        """Return the options of a block; its axes are in the order of memory."""
        options: dict[str, Any] = {name: beside.of(index) for name, beside in self._beside.items()}
        if not weights:
            options.pop("sample_weight", None)
        if self.groups is not None:
            options["num_groups"] = self.groups
        if self._nan_policy != "propagate":
            options["nan_policy"] = self._nan_policy
        return options

    def forget(self) -> None:
        """Give the pages of maps back."""
        for beside in self._beside.values():
            beside.forget()

    def check_rows(self, rows: int) -> None:
        """Refuse what is longer than the data was."""
        for beside in self._beside.values():
            beside.check_rows(rows)

    def identity(self) -> dict[str, Any]:
        """What tells statistics of this selection from others."""
        found: dict[str, Any] = {name: beside.fingerprint() for name, beside in self._beside.items()}
        if self.groups is not None:
            found["num_groups"] = self.groups
        if self._nan_policy != "propagate":
            found["nan_policy"] = self._nan_policy
        return found

    def _add(self, name: str, array: Array, reduced: bool) -> None:
        """`reduced`: an array of fewer axes than the data has the lengths of the first reduced ones."""
        rank, shape = len(self._shape), self._shape
        along = sorted(self._axes)[: array.ndim] if reduced and array.ndim < rank else None
        if along is None:
            full = (1,) * (rank - array.ndim) + array.shape
        else:
            lengths = iter(array.shape)
            full = tuple(next(lengths, 0) if axis in along else 1 for axis in range(rank))
        fits = len(full) == rank and (along is None or len(along) == array.ndim)
        if not fits or any(n not in (1, own) for n, own in zip(full, shape, strict=True) if own >= 0):
            expected = f"that broadcasts to {shape}"
            if along is not None:
                expected = f"of shape {tuple(shape[axis] for axis in along)}, as the first reduced axes of {shape}"
            raise ValueError(f"expected {name} {expected}, got {array.shape}".replace("-1", "any"))
        self._beside[name] = Beside(name, array.reshape(full), shape, self._order)
