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
HEAD_INCHES, FOOT_INCHES = 0.5, 0.25
FURTHEST = (1 / 40, 40.0)


def draw(results: Sequence[Result], about: str, path: Path) -> None:
    """Write a picture; raises ImportError without matplotlib. One panel a number of threads, one row a case."""
    figures: Any = importlib.import_module("matplotlib.figure")
    results = [result for result in results if result.rival]
    counts = sorted({result.threads for result in results})
    rows = _rows(results)
    height = len(rows) * ROW_INCHES + 0.9 + HEAD_INCHES + FOOT_INCHES
    figure = figures.Figure(figsize=(3.6 + 4.6 * len(counts), height), layout="constrained")
    used = (HEAD_INCHES + FOOT_INCHES) / height
    figure.get_layout_engine().set(rect=(0, FOOT_INCHES / height, 1, 1 - used))
    panels = figure.subplots(1, max(len(counts), 1), sharex=True, sharey=True, squeeze=False)[0]
    for panel, count in zip(panels, counts, strict=False):
        _axes(panel, _limits(results), f"{count} thread{'s' if count > 1 else ''}")
        _marks(panel, rows, {result.case: result for result in results if result.threads == count})
    _names(panels[0], rows)
    figure.text(0.01, 1, "anynorm beside the fastest peer of each case", fontsize=13, fontweight="bold", va="top")
    figure.text(0.01, 0, about, fontsize=7, color="#555555", va="bottom")
    _legend(figure)
    figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.2)


def _rows(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Sections and cases from top to bottom: (section, "") is a heading."""
    rows: list[tuple[str, str]] = []
    for result in results:
        for row in ((result.section, ""), (result.section, result.case)):
            if row not in rows:
                rows.append(row)
    return rows


def _limits(results: Sequence[Result]) -> tuple[float, float]:
    """Room for all marks; those that are further out stand at the edge, and their numbers beside it."""
    values = [ratio for result in results for ratio in (result.of_pass, result.rival and result.rival[1]) if ratio]
    low, high = min(values, default=1.0), max(values, default=1.0)
    return max(min(0.45, 0.85 * low), FURTHEST[0]), min(max(4.4, 1.15 * high), FURTHEST[1])


def _marks(panel: Any, rows: Sequence[tuple[str, str]], results: dict[str, Result]) -> None:
    """A line from 1 to the fastest peer, a diamond for the memory pass, the number at the right."""
    low, high = panel.get_xlim()
    for place, (_, case) in enumerate(rows):
        result = results.get(case)
        if result is None or result.rival is None:
            continue
        name, ratio = result.rival
        panel.axhline(place, color="#eeeeee", linewidth=0.7, zorder=0)  # leads from the name to the number
        colour, marker = (WIN, "o") if ratio >= 1 else (LOSS, "s")
        shown = min(max(ratio, low), high)
        panel.plot([1, shown], [place, place], color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
        panel.plot(shown, place, marker, color=colour, markersize=6, zorder=4, clip_on=False)
        if result.of_pass:
            shown = min(max(result.of_pass, low), high)
            panel.plot(shown, place, "D", color=PASS, markerfacecolor="white", markersize=4.5, zorder=3, clip_on=False)
        panel.annotate(
            f"{ratio:.2f}x {TITLES[name]}",
            (1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=7,
            color=colour if ratio < 1 else "#333333",
            fontweight="bold" if ratio < 1 else "normal",
            annotation_clip=False,
        )


def _axes(panel: Any, limits: tuple[float, float], title: str) -> None:
    """A logarithmic scale, a vertical line where both are equal."""
    low, high = limits
    panel.set_xscale("log", base=2)
    panel.set_xlim(low, high)
    panel.axvline(1, color="#333333", linewidth=1, zorder=1)
    ticks = [2.0**power for power in range(-6, 9) if low <= 2.0**power <= high]
    panel.set_xticks(ticks, [f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}" for tick in ticks], fontsize=8)
    panel.minorticks_off()
    panel.grid(axis="x", color="#e4e4e4", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(axis="both", length=0)
    panel.tick_params(axis="y", pad=9)  # room for a mark at the edge
    for side in ("left", "right", "top"):
        panel.spines[side].set_visible(False)
    panel.set_title(title, fontsize=10, loc="left")
    panel.set_xlabel("speed of anynorm, as a multiple of the other's", fontsize=8)


def _names(panel: Any, rows: Sequence[tuple[str, str]]) -> None:
    """Cases at the left, sections in bold."""
    panel.set_ylim(len(rows) - 0.3, -0.9)
    panel.set_yticks(range(len(rows)), [case or section.replace("-", " ") for section, case in rows], fontsize=7.5)
    for label, (_, case) in zip(panel.get_yticklabels(), rows, strict=True):
        if not case:
            label.set_fontweight("bold")


def _legend(figure: Any) -> None:
    """What the marks mean, below the title."""
    lines: Any = importlib.import_module("matplotlib.lines")
    marks = [
        lines.Line2D([], [], color=WIN, marker="o", linewidth=2, label="faster than the fastest peer"),
        lines.Line2D([], [], color=LOSS, marker="s", linewidth=2, label="slower"),
        lines.Line2D(
            [], [], color=PASS, marker="D", linestyle="", markerfacecolor="white", label="share of the memory pass"
        ),
    ]
    place = (0, 1 - HEAD_INCHES / figure.get_figheight())
    figure.legend(handles=marks, loc="lower left", bbox_to_anchor=place, ncols=3, fontsize=8, frameon=False)
