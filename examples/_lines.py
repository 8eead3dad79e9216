# SPDX-License-Identifier: Apache-2.0
"""The picture of train_digits.py: accuracy over batch size, a line for each norm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

SIZE, DPI = (7.2, 4.2), 180
INK, GREY, LINE = "#1f2328", "#59636e", "#dddddd"
TICKS = (90, 80, 60, 40, 20, 10, 5, 2, 1, 0.5, 0.2)  # errors in percent
LABEL_HEIGHT = 0.055  # of the axes: how far apart two names must be to be read

# Okabe and Ito's colours, as in the picture of quickstart.py, and marks that differ besides.
STYLES = {
    "BatchNorm": ("#0072b2", "o"),
    "LayerNorm": ("#d55e00", "^"),
    "InstanceNorm": ("#009e73", "D"),
    "GroupNorm": ("#b0508e", "s"),
    "no norm": ("#777777", "v"),
}


def save_picture(path: Path, sizes: Sequence[int], results: dict[str, NDArray[Any]], title: str, footline: str) -> None:
    """Draw the mean over the seeds with its standard error; `results` are in percent, of shape (sizes, seeds).

    The scale is logarithmic in the errors: 98 and 99 % are as far apart as 80 and 90 %.
    """
    fonts = ["Source Sans 3", "Source Sans Pro", *mpl.rcParams["font.sans-serif"]]
    with mpl.rc_context({"font.sans-serif": fonts, "text.color": INK, "axes.labelcolor": GREY}):
        figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
        ax = figure.add_axes((0.085, 0.185, 0.745, 0.685))
        figure.text(0.085, 0.925, title, fontsize=11, weight="bold")
        figure.text(0.085, 0.03, footline, fontsize=7.5, color=GREY)
        places = np.arange(len(sizes))
        for norm, values in results.items():
            colour, marker = STYLES[norm]
            seeds = values.shape[1]
            error = values.std(axis=1, ddof=1) / np.sqrt(seeds) if seeds > 1 else None
            ax.errorbar(
                places, wrong(values), error, color=colour, marker=marker, markersize=5.5, linewidth=1.8, elinewidth=1,
                markeredgecolor="white", markeredgewidth=0.7, clip_on=False, zorder=3,
            )  # fmt: skip
        ax.set_yscale("log")
        ax.invert_yaxis()
        worst, best = ax.get_ylim()
        ticks = [share for share in TICKS if best <= share <= worst]
        ax.set_yticks(ticks, [f"{100 - share:g}" for share in ticks])
        ax.set_yticks([], minor=True)
        ax.set_xticks(places, [str(size) for size in sizes])
        ax.set_xlabel("batch size", fontsize=9)
        ax.set_ylabel("accuracy on test images, %", fontsize=9)
        ax.tick_params(colors=GREY, labelsize=9, length=0)
        ax.grid(axis="y", color=LINE, linewidth=0.7)
        ax.spines[:].set_visible(False)
        heights = {
            norm: float(np.log(worst / wrong(values)[-1]) / np.log(worst / best)) for norm, values in results.items()
        }
        for norm, height in spread(heights).items():
            ax.text(1.035, height, norm, transform=ax.transAxes, color=STYLES[norm][0], va="center", fontsize=9.5)
        figure.savefig(path, dpi=DPI)


def wrong(values: NDArray[Any]) -> NDArray[Any]:
    """The mean share of errors for each batch size, in percent; at least 0.05, which a logarithm can take."""
    return np.maximum(100 - np.mean(values, axis=1), 0.05)


def spread(heights: dict[str, float]) -> dict[str, float]:
    """Names beside the ends of their lines, from the top down, none over another."""
    placed: dict[str, float] = {}
    ceiling = 1.0 + LABEL_HEIGHT
    for norm, height in sorted(heights.items(), key=lambda item: -item[1]):
        placed[norm] = ceiling = min(height, ceiling - LABEL_HEIGHT)
    return placed
