# SPDX-License-Identifier: Apache-2.0
"""The array expression that a user of NumPy writes for the moments of the rows that share a label."""

from __future__ import annotations

from typing import Any

from anynorm.bench.shapes import Case


def by_label(xp: Any, case: Case, x: Any, labels: Any) -> tuple[Any, Any]:
    """Write out a case: mean and variance of each label and column, in float64, which is how bincount sums."""
    count = xp.bincount(labels, minlength=case.labels)[:, None]

    def mean(values: Any) -> Any:
        sums = [xp.bincount(labels, weights=column, minlength=case.labels) for column in values.T]
        return xp.stack(sums, 1) / count

    center = mean(x)
    return center, mean((x - center[labels]) ** 2)
