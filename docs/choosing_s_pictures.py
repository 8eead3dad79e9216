# SPDX-License-Identifier: Apache-2.0
"""The pictures of choosing-s.md: an array, each set in a colour of its own, and the moments beside it.

Needs `pip install "anynorm[examples]"`; run `python docs/choosing_s_pictures.py [folder]`, from the repository's root.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

import anynorm

DPI, CELL, MARGIN, TOP, BOTTOM = 180, 0.2, 0.2, 0.52, 0.34  # inches
INK, GREY, LINE = "#1f2328", "#59636e", "#c3c3c3"
# Okabe and Ito's colours, as in the picture of quickstart.py.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0508e", "#e69f00", "#56b4e9")

Sets = NDArray[np.int64]


@dataclass(frozen=True)
class Picture:
    """What one picture shows; -1 is an element in no set."""

    name: str
    call: str
    sets: Sequence[Sets]  # of the blocks that x is drawn as, of the same height
    moments: Sets  # the set of each
    axes: tuple[str, str]  # what the rows and the columns of a block are
    names: tuple[str, ...] = ()  # of the rows
    shade: NDArray[np.float64] | None = None  # of the elements, from 0 to 1
    words: str = ""


def by_rows(group: Sequence[int], columns: int) -> Sets:
    """The groups of rows, split by columns that are kept: sets are numbered by group and then by column."""
    rows = np.array(group)[:, np.newaxis]
    return np.where(rows < 0, -1, rows * columns + np.arange(columns))


def pictures() -> list[Picture]:
    x = np.zeros((6, 8))
    labels, weights = [0, 2, 0, 1, -1, 2], [1.0, 3, 2, 0, 1, 2]
    offsets, lengths = [0, 3, 3, 5], [8, 5, 7, 2]
    in_segment = [next((s for s in range(3) if offsets[s] <= row < offsets[s + 1]), -1) for row in range(6)]
    groups = np.repeat(np.arange(2), 3)[:, np.newaxis] * np.ones(4, int)
    is_word = np.arange(8) < np.array(lengths)[:, np.newaxis]
    counts = {
        "axes": anynorm.moments(x, 1).shape,
        "pattern": anynorm.moments(np.zeros((2, 6, 4)), "n (g c) w -> n g", g=2).shape,
        "labels": anynorm.moments(x, 0, labels=labels).shape,
        "segments": anynorm.moments(x, 0, segments=offsets).shape,
        "where": anynorm.moments(np.zeros((4, 8)), 1, where=is_word).shape,
        "weights": anynorm.moments(x, 0, sample_weight=weights).shape,
    }

    def numbered(name: str) -> Sets:
        shape = counts[name] if len(counts[name]) == 2 else (1, *counts[name])
        return np.arange(np.prod(shape)).reshape(shape)

    return [
        Picture("axes", "moments(x, axis=1)", [np.arange(6)[:, np.newaxis] * np.ones(8, int)], numbered("axes").T,
                ("rows", "columns"), words="One set a row."),
        Picture("pattern", 'moments(x, "n (g c) w -> n g", g=2)', [groups, groups + 2], numbered("pattern"),
                ("g c", "w"), words="Two samples n, each with two groups of three channels."),
        Picture("labels", "moments(x, axis=0, labels=[0, 2, 0, 1, -1, 2])", [by_rows(labels, 8)], numbered("labels"),
                ("rows", "columns"), tuple(map(str, labels)), words="Rows with one label, column by column."),
        Picture("segments", "moments(x, axis=0, segments=[0, 3, 3, 5])", [by_rows(in_segment, 8)],
                numbered("segments"), ("rows", "columns"), words="The second segment is empty, the last row in none."),
        Picture("where", "moments(x, axis=1, where=is_word)",
                [np.where(is_word, np.arange(4)[:, np.newaxis], -1)], numbered("where").T, ("sentences", "words"),
                words="Padding is in no set."),
        Picture("weights", "moments(x, axis=0, sample_weight=[1, 3, 2, 0, 1, 2])", [by_rows([0] * 6, 8)],
                numbered("weights"), ("rows", "columns"), tuple(f"{w:g}" for w in weights),
                np.array(weights)[:, np.newaxis] / 3 * np.ones(8), words="Rows count as often as their weight says."),
    ]  # fmt: skip


def colour(number: int, picture: Picture, share: float) -> tuple[float, ...]:
    """Of a set: a hue for its group, lighter from column to column; white where it is not counted."""
    columns = picture.moments.shape[1] if picture.name in {"labels", "segments", "weights"} else 1
    hue = np.array(to_rgb(COLOURS[number // columns % len(COLOURS)]))
    light = 0.65 * (number % columns) / max(1, columns - 1)
    return tuple(1 - (1 - (hue + (1 - hue) * light)) * share)


def draw(ax: Axes, sets: Sets, picture: Picture, shade: NDArray[np.float64] | None = None) -> None:
    rows, columns = sets.shape
    for row, column in np.ndindex(rows, columns):
        number, share = int(sets[row, column]), 1.0 if shade is None else float(shade[row, column])
        filled = number >= 0 and share > 0
        fill = colour(number, picture, 0.15 + 0.85 * share) if filled else "white"
        edge, layer = ("white", 1) if filled else (LINE, 2)
        ax.add_patch(Rectangle((column, row), 1, 1, facecolor=fill, edgecolor=edge, linewidth=0.8, zorder=layer))
    ax.set_xlim(-0.05, columns + 0.05)
    ax.set_ylim(rows + 0.05, -0.05)
    ax.set_axis_off()


def save(picture: Picture, path: Path) -> None:
    rows, columns = picture.sets[0].shape
    names = 0.3 if picture.names else 0.0
    left = MARGIN + 0.72 + names
    blocks = len(picture.sets) * (columns + 0.6) * CELL
    height = TOP + rows * CELL + BOTTOM
    width = 5.4
    fonts = ["Source Sans 3", "Source Sans Pro", *mpl.rcParams["font.sans-serif"]]
    with mpl.rc_context({"font.sans-serif": fonts}):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")

        def text(at: float, below: float, words: str, size: float = 8.3, ink: str = GREY, **style: str) -> None:
            figure.text(at / width, 1 - below / height, words, fontsize=size, color=ink, **style)

        def grid(at: float, below: float, sets: Sets, shade: NDArray[np.float64] | None = None) -> None:
            w, h = sets.shape[1] * CELL, sets.shape[0] * CELL
            ax = figure.add_axes((at / width, 1 - (below + h) / height, w / width, h / height))
            draw(ax, sets, picture, shade)

        text(MARGIN, 0.24, picture.call, 9, INK, family="monospace")
        for number, sets in enumerate(picture.sets):
            grid(left + number * (columns + 0.6) * CELL, TOP, sets, picture.shade)
        text(MARGIN, TOP + rows * CELL / 2 + 0.04, picture.axes[0])
        text(left, TOP - 0.07, f"x: {picture.axes[1]}")
        for row, name in enumerate(picture.names):
            text(left - 0.1, TOP + (row + 0.5) * CELL + 0.04, name, ha="right")
        at = left + blocks + 0.55
        text(at - 0.42, TOP + rows * CELL / 2 + 0.05, "→", 12)
        grid(at, TOP + (rows - picture.moments.shape[0]) * CELL / 2, picture.moments)
        text(at, TOP - 0.07, "moments")
        text(MARGIN, height - 0.12, picture.words)
        figure.savefig(path, dpi=DPI)


def main() -> None:
    """Write one file for each kind."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    for picture in pictures():
        save(picture, folder / f"choosing_s_{picture.name}.png")


if __name__ == "__main__":
    main()
