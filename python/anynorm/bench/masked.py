# SPDX-License-Identifier: Apache-2.0
"""The array expression that a user of NumPy or jax.numpy writes for the elements that a mask leaves."""

from __future__ import annotations

from typing import Any

from anynorm.bench.expression import EPS
from anynorm.bench.shapes import Case


def masked(xp: Any, case: Case, x: Any, where: Any) -> Any:
    """Write out a case: mean and variance of what is used, or y, which is 0 where x is not."""
    if case.kind == "moments":
        return xp.mean(x, case.axis, where=where), xp.var(x, case.axis, where=where)
    mean = xp.mean(x, case.axis, where=where, keepdims=True)
    variance = xp.var(x, case.axis, where=where, keepdims=True)
    return xp.where(where, (x - mean) / xp.sqrt(variance + EPS), 0).astype(x.dtype)
