# SPDX-License-Identifier: Apache-2.0
"""The picture of quickstart.py: each norm's set in the batch, above the photographs it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

SIZE, DPI = (9.0, 5.85), 180  # inches, so 1620 x 1053 pixels: sharp at the 900 of a README
MARGIN, GUTTER, SMALL = 0.2, 0.14, 8.3
INK, GREY, LINE = "#1f2328", "#59636e", "#c3c3c3"

# Where one step along each axis of the block goes on the paper. N and C run away from the corner nearest to the
# reader, so that the first set, which holds that corner, is never hidden. There are fewer photographs than channels;
# the longer step along N keeps the block from looking like a slab. H and W share one edge.
STEP_N = 1.75 * np.array([np.cos(np.pi / 6), 0.5])
STEP_C = np.array([-np.cos(np.pi / 6), 0.5])
STEP_P = np.array([0.0, 1.1])
PIXELS = 4  # how many steps stand for all of a photograph's pixels


@dataclass(frozen=True)
class Column:
    """What one column of the picture shows."""

    title: str
    words: tuple[str, str, str]
    effect: str
    photos: NDArray[Any]  # N x H x W x RGB between 0 and 1
    in_set: NDArray[np.bool_]  # N x C: the planes of pixels to colour
    colour: str = INK


def save_picture(path: Path, columns: Sequence[Column], headline: str, formula: str, footline: str) -> None:
    """Draw the columns side by side. The first is the batch itself, and its block names the axes."""
    fonts = ["Source Sans 3", "Source Sans Pro", *mpl.rcParams["font.sans-serif"]]
    with mpl.rc_context({"font.sans-serif": fonts, "mathtext.fontset": "stix"}):
        figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")

        # Both place things by inches from the left and from the top.
        def axes(left: float, top: float, width: float, height: float) -> Axes:
            (w, h), bottom = SIZE, SIZE[1] - top - height
            ax = figure.add_axes((left / w, bottom / h, width / w, height / h), anchor="W")
            ax.set_axis_off()
            return ax

        def text(left: float, baseline: float, string: str, size: float, colour: str = GREY, **style: Any) -> None:
            figure.text(left / SIZE[0], 1 - baseline / SIZE[1], string, fontsize=size, color=colour, **style)

        text(MARGIN, 0.36, headline, 10.5, INK)
        text(SIZE[0] - MARGIN, 0.36, formula, 12, INK, ha="right")
        width = (SIZE[0] - 2 * MARGIN - (len(columns) - 1) * GUTTER) / len(columns)
        height = width * columns[0].photos.shape[1] / columns[0].photos.shape[2]
        for k, column in enumerate(columns):
            left = MARGIN + k * (width + GUTTER)
            text(left, 0.80, column.title, 12, column.colour, weight="bold")
            draw_block(axes(left, 0.93, width, 1.4), column.in_set, column.colour, named=k == 0)
            for line, words in enumerate(column.words):
                text(left, 2.56 + 0.15 * line, words, SMALL)
            for row, photo in enumerate(column.photos):
                axes(left, 2.99 + row * (height + 0.05), width, height).imshow(photo)
            text(left, 5.37, column.effect, SMALL, INK)
        text(MARGIN, 5.70, footline, SMALL)
        drawn = BytesIO()
        figure.savefig(drawn, dpi=DPI)
    # Steps of 5 are too fine to be seen, keep white and black as they are, and make the file half as large.
    picture = Image.open(drawn).convert("RGB").point(lambda value: 5 * round(value / 5))
    picture.save(path, optimize=True, dpi=(DPI, DPI))


def draw_block(ax: Axes, in_set: NDArray[np.bool_], colour: str, *, named: bool) -> None:
    """Draw the batch as a block of cells, those of the set in `colour`, the others as blank paper."""
    cells = np.repeat(in_set[:, :, np.newaxis], PIXELS, axis=2)
    # Lit from above: top, left, right. Mixed with white and black; a lighter hue would turn the tops neon.
    faces = (
        (cells[:, :, -1], STEP_N, STEP_C, PIXELS * STEP_P, "#fafafa", _mix(colour, "white", 0.3)),
        (cells[0], STEP_C, STEP_P, np.zeros(2), "#f5f5f5", to_rgb(colour)),
        (cells[:, 0], STEP_N, STEP_P, np.zeros(2), "#ebebeb", _mix(colour, "black", 0.22)),
    )
    # The set goes last, so that the grey lines of its neighbours never cut into its edge.
    for chosen in (False, True):
        for selected, u, v, origin, blank, shade in faces:
            corners = [origin + i * u + j * v for i, j in np.argwhere(selected == chosen)]
            quads = [np.array([at, at + u, at + u + v, at + v]) for at in corners]
            fill, line = (shade, "white") if chosen else (blank, LINE)
            polygons = PolyCollection(quads, facecolors=fill, edgecolors=line, linewidths=0.6, clip_on=False)
            polygons.set_joinstyle("round")
            ax.add_collection(polygons)
    ax.margins(0)
    ax.autoscale_view()
    ax.set_aspect("equal")
    if named:
        n, c, _ = cells.shape
        for name, (x, y), aligned in (
            ("N", n / 2 * STEP_N + [0.3, -0.3], ("left", "top")),
            ("C", c / 2 * STEP_C + [-0.3, -0.3], ("right", "top")),
            ("H, W", n * STEP_N + PIXELS / 2 * STEP_P + [0.3, 0], ("left", "center")),
        ):
            ax.text(x, y, name, color=GREY, fontsize=SMALL, ha=aligned[0], va=aligned[1])


def _mix(colour: str, other: str, share: float) -> tuple[float, ...]:
    return tuple((1 - share) * np.array(to_rgb(colour)) + share * np.array(to_rgb(other)))
