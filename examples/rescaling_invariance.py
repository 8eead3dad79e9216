# SPDX-License-Identifier: Apache-2.0
"""Which norm forgets which rescaling: y = norm(W x) when the data, a sample, W or a row of W is multiplied by a constant.

The rows are those of table 1 of Ba, Kiros, Hinton: Layer Normalization, arXiv:1607.06450, that rescale; the columns are
more. A norm forgets a factor which is the same all over each of its sets. A power of two leaves every bit of y as it was.

Needs `pip install "anynorm[examples]"` for the picture; run `python examples/rescaling_invariance.py
[-o rescaling_invariance.png] [--no-picture]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import anynorm

Array = NDArray[np.float32]

SAMPLES, INPUTS, CHANNELS, POSITIONS, GROUPS = 3, 16, 6, 25, 2
POWER_OF_TWO, OTHER = 4.0, 3.0
TOLERANCE = 1e-6  # of what stays the same under any factor; what changes, changes by more than a tenth


@dataclass(frozen=True)
class Norm:
    """A call on z = W x of shape (N, C, positions), without eps, and its first set: how many samples and channels."""

    title: str
    call: Callable[[Array], Any]
    first_set: tuple[int, int]
    words: str
    colour: str


@dataclass(frozen=True)
class Rescaling:
    """What is multiplied: the first samples of x, or the first rows of W, each of which makes a channel of z = W x."""

    title: str
    samples: int = 0
    rows: int = 0

    def __call__(self, x: Array, weight: Array, factor: float) -> tuple[Array, Array]:
        """Copies of x and W with the factor in them."""
        x, weight = x.copy(), weight.copy()
        x[: self.samples] *= factor
        weight[: self.rows] *= factor
        return x, weight

    @property
    def planes(self) -> tuple[int, int]:
        """The samples and channels of z that this multiplies."""
        return self.samples or SAMPLES, self.rows or CHANNELS


@dataclass(frozen=True)
class Finding:
    """How y answers: with the same bits under a power of two, and by how much it moves under another factor."""

    same_bits: bool
    change: float

    @property
    def invariant(self) -> bool:
        return self.same_bits and self.change <= TOLERANCE


# The colours are those of quickstart.py.
NORMS = (
    Norm(
        title="BatchNorm",
        call=lambda z: anynorm.batch_norm(z, training=True, eps=0),
        first_set=(SAMPLES, 1),
        words="a channel",
        colour="#0072b2",
    ),
    Norm(
        title="LayerNorm",
        call=lambda z: anynorm.layer_norm(z, z.shape[1:], eps=0),
        first_set=(1, CHANNELS),
        words="a sample",
        colour="#d55e00",
    ),
    Norm(
        title="InstanceNorm",
        call=lambda z: anynorm.instance_norm(z, eps=0),
        first_set=(1, 1),
        words="a channel of a sample",
        colour="#009e73",
    ),
    Norm(
        title="GroupNorm",
        call=lambda z: anynorm.group_norm(z, GROUPS, eps=0),
        first_set=(1, CHANNELS // GROUPS),
        words="a group of channels",
        colour="#b0508e",
    ),
)

RESCALINGS = (
    Rescaling("all data x", samples=SAMPLES),
    Rescaling("one sample of x", samples=1),
    Rescaling("weight matrix W", rows=CHANNELS),
    Rescaling("weight vector, a row of W", rows=1),
)

Table = dict[tuple[Rescaling, Norm], Finding]


def linear(x: Array, weight: Array) -> Array:
    """W x at every position: (N, inputs, positions) to (N, C, positions)."""
    return np.matmul(weight, x)


def measure(x: Array, weight: Array) -> Table:
    """Every rescaling under every norm."""
    table = {}
    for rescaling in RESCALINGS:
        for norm in NORMS:
            y = norm.call(linear(x, weight))
            power, other = (norm.call(linear(*rescaling(x, weight, factor))) for factor in (POWER_OF_TWO, OTHER))
            table[rescaling, norm] = Finding(np.array_equal(power, y), float(np.abs(other - y).max()))
    return table


def in_theory(rescaling: Rescaling, norm: Norm) -> bool:
    """Whether every set of the norm is multiplied as a whole, or not at all."""
    return all(n % of_set == 0 for n, of_set in zip(rescaling.planes, norm.first_set, strict=True))


def check(table: Table) -> None:
    """What is computed is what the theory says; a yes is a yes to the last bit."""
    for (rescaling, norm), finding in table.items():
        assert finding.invariant == in_theory(rescaling, norm), (rescaling.title, norm.title, finding)
        assert finding.invariant or (not finding.same_bits and finding.change > 0.1)


def print_table(table: Table) -> None:
    """Yes or no, and the largest change of y under the factor that is not a power of two."""
    print(f"{'multiplied by a constant':28}" + "".join(f"{norm.title:>18}" for norm in NORMS))
    for rescaling in RESCALINGS:
        cells = [table[rescaling, norm] for norm in NORMS]
        words = [f"{'yes' if cell.invariant else 'no'} {cell.change:8.1e}" for cell in cells]
        print(f"{rescaling.title:28}" + "".join(f"{word:>18}" for word in words))
    print(
        f"yes: y has the same bits for the factor {POWER_OF_TWO:g}. The numbers are its largest change for {OTHER:g}."
    )


def planes_of(samples: int, channels: int) -> NDArray[np.bool_]:
    """The first samples and channels of all N x C."""
    planes = np.zeros((SAMPLES, CHANNELS), bool)
    planes[:samples, :channels] = True
    return planes


def save(path: Path, table: Table) -> None:
    """Draw the table: a column for each norm and its first set, a row for each rescaling and the planes it multiplies."""
    try:
        from _picture import DPI, GREY, INK, LINE, SMALL, draw_block
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemExit(f'{error}. The picture needs matplotlib: pip install "anynorm[examples]"') from None
    width, height, left, column, top, row = 7.2, 4.7, 2.05, 1.25, 1.55, 0.66
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")

    def text(x: float, baseline: float, string: str, size: float = SMALL, colour: str = GREY, **style: Any) -> None:
        figure.text(x / width, 1 - baseline / height, string, fontsize=size, color=colour, **style)

    def block(x: float, y: float, size: tuple[float, float], region: tuple[int, int], colour: str) -> None:
        ax = figure.add_axes((x / width, 1 - (y + size[1]) / height, size[0] / width, size[1] / height))
        ax.set_axis_off()
        draw_block(ax, planes_of(*region), colour, named=False)

    text(0.2, 0.36, "Does norm(W x) forget the factor?", 10.5, INK)
    text(0.2, 1.08, "one set of the norm in W x:")
    text(0.2, 1.46, "multiplied by a constant:")
    for k, norm in enumerate(NORMS):
        x = left + k * column
        text(x, 0.66, norm.title, 9, norm.colour, weight="bold")
        block(x, 0.74, (1.0, 0.62), norm.first_set, norm.colour)
        text(x, 1.46, norm.words, 7)
    for i, rescaling in enumerate(RESCALINGS):
        y = top + i * row
        figure.add_artist(_line(0.2 / width, 1 - y / height, 1 - 0.2 / width, LINE))
        block(0.2, y + 0.09, (0.75, 0.48), rescaling.planes, GREY)
        words = rescaling.title.replace(", ", ",\n").replace(" of x", "\nof x").replace("matrix ", "matrix\n")
        text(1.05, y + 0.34, words, SMALL, INK, va="center")
        for k, norm in enumerate(NORMS):
            finding = table[rescaling, norm]
            answer = "yes" if finding.invariant else "no"
            text(left + k * column, y + 0.32, answer, 11, norm.colour if finding.invariant else GREY, weight="bold")
            text(left + k * column, y + 0.50, f"changes by {finding.change:.1g}", 7)
    figure.add_artist(_line(0.2 / width, 1 - (top + len(RESCALINGS) * row) / height, 1 - 0.2 / width, LINE))
    note = (
        f"yes: the same bits for the factor {POWER_OF_TWO:g}; the numbers are for {OTHER:g}, in float32 with eps = 0."
    )
    text(0.2, height - 0.2, f"{note} After table 1 of arXiv:1607.06450.", 7)
    figure.savefig(path)


def _line(left: float, y: float, right: float, colour: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([left, right], [y, y], color=colour, linewidth=0.6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("rescaling_invariance.png"), help="the picture's file"
    )
    parser.add_argument("--no-picture", action="store_true", help="print only")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(1, 1, (SAMPLES, INPUTS, POSITIONS)).astype(np.float32)
    weight = rng.normal(0, 1, (CHANNELS, INPUTS)).astype(np.float32)
    table = measure(x, weight)
    check(table)
    print(f"anynorm {anynorm.__version__}: y = norm(W x), x {x.shape}, W {weight.shape}, {x.dtype}, eps = 0\n")
    print_table(table)
    if not options.no_picture:
        save(options.output, table)
        print(f"Picture: {options.output}")


if __name__ == "__main__":
    main()
