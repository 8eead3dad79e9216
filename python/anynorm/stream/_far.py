# SPDX-License-Identifier: Apache-2.0
"""Sets whose mean is large against their deviation: what the rounding of their mean to float64 has lost."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np

from anynorm._merge import Cells, FloatArray
from anynorm._moments import Moments
from anynorm.functional import moments as moments_of
from anynorm.functional import normalize as normalize_one
from anynorm.stream._sources import Array

FAR = 32.0  # deviations; below, the lost part is less than 1e-14 of one


def far(sets: Cells) -> bool:
    """Whether some mean is far from 0. Equal elements are not: their mean is exact."""
    with np.errstate(all="ignore"):
        return bool(np.any((sets.mean * sets.mean * sets.count > FAR * FAR * sets.m2) & (sets.m2 > 0)))


def deviations(data: Array, axes: tuple[int, ...], mean: FloatArray, num_threads: SupportsIndex | None) -> Array:
    """Subtract means in float64, which is exact near them."""
    one = np.ones_like(mean)
    given = Moments._wrap(one, mean, one)
    y: Array = normalize_one(data, axes, moments=given, eps=0.0, dtype=np.float64, num_threads=num_threads)
    return y


def lost_part(
    data: Array, axes: tuple[int, ...], part: Moments, num_threads: SupportsIndex | None
) -> FloatArray | None:
    """Find what is missing from the means of `part`, by another look at its data; None where it does not count."""
    if not far(part._cells):
        return None
    rest = deviations(data, axes, part._mean, num_threads)
    low = moments_of(rest, axes, keepdims=True, num_threads=num_threads)._mean
    return np.where(np.isfinite(low), low, 0)
