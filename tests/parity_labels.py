# SPDX-License-Identifier: Apache-2.0
"""Errors of variances by label, anynorm beside pandas, polars, flox and numbagg, as Markdown:
`python tests/parity_labels.py`. Needs these four.

Against exact rational arithmetic on the stored values. A variance below 0 is printed as what it is.
"""

from fractions import Fraction

import numpy as np
import polars as pl

import anynorm
from anynorm.bench.contestants.groupers import FloxReduce, NumbaggGroup, PandasGroupby, PolarsGroupBy

ROWS, COLUMNS, LABELS = 6000, 3, 7
MEANS = {np.float64: [0, 1e4, 1e8], np.float32: [0, 1e4, 1e6]}  # at a deviation of 1, which float32 has not at 1e8


class Case:
    """What `PolarsGroupBy.arrays` looks at."""

    shape = (ROWS, COLUMNS)


def exact_variances(x, labels):
    """Of every label and column, as fractions."""
    result = np.empty((LABELS, COLUMNS), object)
    for label in range(LABELS):
        for column in range(COLUMNS):
            values = [Fraction(float(value)) for value in x[labels == label, column]]
            mean = sum(values) / len(values)
            result[label, column] = sum((value - mean) ** 2 for value in values) / len(values)
    return result


def contestants(x, labels):
    """Name, and the variances that it finds."""
    yield "anynorm", anynorm.moments(x, 0, labels=labels).var()
    for peer in (PandasGroupby(), PolarsGroupBy(), FloxReduce(), NumbaggGroup()):
        found = peer.by_label(x, labels, LABELS, pl.thread_pool_size())()
        yield peer.title, np.asarray(peer.arrays(Case, found)[1], np.float64)


def said(found, expected):
    """The largest error relative to the variance, or a variance that is none."""
    if found.min() < 0:
        return f"**{found.min():.2g}**"
    return f"{max(float(abs(Fraction(a) / b - 1)) for a, b in zip(found.flat, expected.flat, strict=True)):.0e}"


def main():
    """Print a row for each contestant, a column for each offset and dtype."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, LABELS, ROWS)
    rows, heads = {}, []
    for dtype, means in MEANS.items():
        for mean in means:
            x = rng.normal(mean, 1, (ROWS, COLUMNS)).astype(dtype)
            heads.append(f"{np.dtype(dtype).name}, mean {mean:g}")
            expected = exact_variances(x, labels)
            for name, found in contestants(x, labels):
                rows.setdefault(name, []).append(said(found, expected))
    print(f"| error of the variance | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
