# SPDX-License-Identifier: Apache-2.0
"""The array expression that a user of NumPy writes for rows that share a label, or a segment, numbered."""

from __future__ import annotations

from typing import Any

from anynorm.bench.expression import EPS
from anynorm.bench.shapes import Case


def by_label(xp: Any, case: Case, x: Any, labels: Any) -> Any:
    """Write out a case: mean and variance of each label and column, in float64, which is how bincount sums, or y."""
    count = xp.bincount(labels, minlength=case.row_sets)[:, None]

    def mean(values: Any) -> Any:
        sums = [xp.bincount(labels, weights=column, minlength=case.row_sets) for column in values.T]
        return xp.stack(sums, 1) / count

    center = mean(x)
    deviation = x - center[labels]
    variance = mean(deviation**2)
    if case.kind == "moments":
        return center, variance
    return (deviation / xp.sqrt(variance + EPS)[labels]).astype(x.dtype)
