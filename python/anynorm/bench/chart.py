# SPDX-License-Identifier: Apache-2.0
"""One picture of all cases: anynorm against the fastest peer, and against the memory pass."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anynorm.bench.contestants import TITLES
from anynorm.bench.result import Result

# Two colours that are told apart with any kind of colour vision (Okabe and Ito), and shapes that differ besides.
WIN, LOSS, PASS = "#0072B2", "#D55E00", "#888888"
ROW_INCHES = 0.21


def draw(results: Sequence[Result], about: str, path: Path) -> None:
    """Write a picture; raises ImportError without matplotlib. One panel a number of threads, one row a case."""
    figures: Any = importlib.import_module("matplotlib.figure")
    results = [result for result in results if result.rival]
    counts = sorted({result.threads for result in results})
    rows = _rows(results)
    heights = len(rows) * ROW_INCHES
    figure = figures.Figure(figsize=(3.6 + 4.6 * len(counts), heights + 1.5), layout="constrained")
    panels = figure.subplots(1, max(len(counts), 1), sharey=True, squeeze=False)[0]
    for panel, count in zip(panels, counts, strict=False):
        mine = {result.case: result for result in results if result.threads == count}
        _panel(panel, rows, mine, count)
    _names(panels[0], rows)
    figure.suptitle("anynorm beside the fastest peer of each case", fontsize=13, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(about, fontsize=7, color="#555555", x=0.01, ha="left")
    figure.savefig(path, dpi=150)


def _rows(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Sections and cases from top to bottom: (section, "") is a heading."""
    rows: list[tuple[str, str]] = []
    for result in results:
        for row in ((result.section, ""), (result.section, result.case)):
            if row not in rows:
                rows.append(row)
    return rows


def _panel(panel: Any, rows: Sequence[tuple[str, str]], results: dict[str, Result], threads: int) -> None:
    """Dots on a logarithmic scale, a vertical line where both are equal."""
    panel.set_xscale("log", base=2)
    panel.axvline(1, color="#333333", linewidth=1, zorder=1)
    rivals = [result.rival[1] for result in results.values() if result.rival]
    passes = [result.of_pass for result in results.values() if result.of_pass]
    low = min(0.5, 0.8 * min([*rivals, *passes], default=0.5))
    high = max(4.0, 1.25 * max([*rivals, *passes], default=4.0))
    panel.set_xlim(low, high)
    for place, (_, case) in enumerate(rows):
        result = results.get(case)
        if result is None or result.rival is None:
            continue
        name, ratio = result.rival
        colour, marker = (WIN, "o") if ratio >= 1 else (LOSS, "s")
        panel.plot([1, ratio], [place, place], color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
        panel.plot(ratio, place, marker, color=colour, markersize=6, zorder=4)
        if result.of_pass:
            panel.plot(result.of_pass, place, "D", color=PASS, markerfacecolor="white", markersize=4.5, zorder=3)
        panel.annotate(
            f"{ratio:.2f}x {TITLES[name]}",
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
            color=colour if ratio < 1 else "#333333",
            fontweight="bold" if ratio < 1 else "normal",
            annotation_clip=False,
        )
    _axes(panel, low, high, f"{threads} thread{'s' if threads > 1 else ''}")


def _axes(panel: Any, low: float, high: float, title: str) -> None:
    ticks = [2.0**power for power in range(-6, 9) if low <= 2.0**power <= high]
    panel.set_xticks(ticks, [f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}" for tick in ticks], fontsize=8)
    panel.minorticks_off()
    panel.grid(axis="x", color="#e4e4e4", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(axis="both", length=0)
    for side in ("left", "right", "top"):
        panel.spines[side].set_visible(False)
    panel.set_title(title, fontsize=10, loc="left")
    panel.set_xlabel("speed of anynorm, as a multiple (left of 1: anynorm is slower)", fontsize=8)


def _names(panel: Any, rows: Sequence[tuple[str, str]]) -> None:
    """Cases at the left, and what the marks mean."""
    panel.set_ylim(len(rows) - 0.3, -0.9)
    panel.set_yticks(range(len(rows)), [case or section.replace("-", " ") for section, case in rows], fontsize=7.5)
    for label, (_, case) in zip(panel.get_yticklabels(), rows, strict=True):
        if not case:
            label.set_fontweight("bold")
    lines: Any = importlib.import_module("matplotlib.lines")
    marks = [
        lines.Line2D([], [], color=WIN, marker="o", linewidth=2, label="faster than the fastest peer"),
        lines.Line2D([], [], color=LOSS, marker="s", linewidth=2, label="slower"),
        lines.Line2D(
            [], [], color=PASS, marker="D", linestyle="", markerfacecolor="white", label="share of the memory pass"
        ),
    ]
    panel.figure.legend(handles=marks, loc="outside upper right", ncols=3, fontsize=8, frameon=False)
