# SPDX-License-Identifier: Apache-2.0
"""Statistics on disk: finished ones for other data, unfinished ones to go on with after an interruption."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from anynorm._moments import Moments
from anynorm.stream._accumulator import Accumulator
from anynorm.stream._replace import replacing, write_all

SAVE_SECONDS = 5.0
SAVE_SHARE = 0.05  # of the time, where the file is large
FORMAT = 1


def _read(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (ValueError, EOFError, BadZipFile, AttributeError, TypeError):
        raise ValueError(f"expected a statistics file, got {path}") from None
    if not {"count", "mean", "m2"} <= arrays.keys():
        raise ValueError(f"expected a statistics file with count, mean and m2, got {path}")
    return arrays


def _about(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    try:
        return dict(json.loads(str(arrays["about"]))) if "about" in arrays else {}
    except (TypeError, ValueError):
        raise ValueError("expected a statistics file, got one about something else") from None


def load_moments(path: str | os.PathLike[str]) -> Moments:
    """Read the moments from a finished statistics file, to normalize other data with them.

    Parameters
    ----------
    path : path
        What `moments` or `normalize` wrote to `statistics`; or any .npz file with arrays ``count``, ``mean`` and
        ``m2``, and ``mean_low`` and ``weight2`` or not.

    Returns
    -------
    Moments
        Of the shape of the data without the reduced axes.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such file, or its statistics are not finished.
    """
    arrays = _read(path)
    about = _about(arrays)
    if not about.get("complete", True):
        share = about["done"] / max(about["elements"], 1)
        raise ValueError(f"expected finished statistics, got {path} with {share:.0%} of the data")
    return Moments(arrays["count"], arrays["mean"], arrays["m2"], arrays.get("weight2"), arrays.get("mean_low"))


class StatisticsFile:
    """The state of a pass over some data, saved now and then."""

    def __init__(self, path: str | os.PathLike[str], data: dict[str, Any], chunk_bytes: int) -> None:
        """`data` is what the statistics belong to."""
        self._path = Path(path)
        self._data = {"format": FORMAT, **data}
        self._chunk_bytes = chunk_bytes
        self._saved = time.monotonic()
        self._wait = SAVE_SECONDS

    def resume(self, accumulator: Accumulator) -> int:
        """Load what there is; the result is the number of elements that it has seen."""
        if not self._path.exists():
            return 0
        arrays = _read(self._path)
        about = _about(arrays)
        belongs = about.get("data", {})
        other = [name for name in {**self._data, **belongs} if belongs.get(name) != self._data.get(name)]
        if other:
            raise ValueError(
                f"expected statistics of this data, got {self._path} of other data (its {', '.join(other)} differ):"
                " use its moments, or another file"
            )
        # Bits are those of an uninterrupted run, or none are promised.
        if not about["complete"] and about["chunk_bytes"] != self._chunk_bytes:
            return 0
        for name, array in accumulator.arrays.items():
            array[...] = arrays[f"state_{name}"]
        return int(about["done"])

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved >= self._wait

    def save(self, accumulator: Accumulator, moments: Moments, done: int, elements: int) -> None:
        """Write everything, atomically."""
        begin = time.monotonic()
        about = {"data": self._data, "done": done, "elements": elements, "complete": done == elements}
        about["chunk_bytes"] = self._chunk_bytes
        state: dict[str, npt.NDArray[Any]] = {f"state_{name}": a for name, a in accumulator.arrays.items()}
        arrays: dict[str, Any] = {**moments._cells.arrays(), **state, "about": np.array(json.dumps(about))}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        with replacing(self._path) as file:
            write_all(file, buffer.getbuffer())
        self._saved = time.monotonic()
        self._wait = max(SAVE_SECONDS, (self._saved - begin) / SAVE_SHARE)
