# SPDX-License-Identifier: Apache-2.0
"""Every norm on two real photographs: what the sets are, what they do, how exact and how fast.

Needs `pip install "anynorm[examples]"`; run `python examples/quickstart.py [-o quickstart.png] [--no-picture]`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import anynorm

Array = NDArray[Any]

EPS = 1e-5
GROUPS = 2
REPETITIONS = 9
BATCH_AXES = ("N", "H", "W", "G", "D")  # the channel axis seen as (group, channel in the group)


@dataclass(frozen=True)
class Norm:
    """One of the library's calls and its set: the axes of BATCH_AXES that share a mean and a variance."""

    title: str
    call: Callable[..., Any]
    axis: tuple[int, ...]
    words: tuple[str, str]
    effect: str = ""
    colour: str = ""
    center: bool = True


Results = dict[Norm, tuple[Array, anynorm.Moments]]

# The colours are Okabe and Ito's, which colour-blind readers can tell apart; the last one darker, for text on white.
NORMS = (
    Norm(
        title="BatchNorm",
        call=lambda x, **options: anynorm.batch_norm(x, training=True, eps=EPS, channel_axis=-1, **options),
        axis=(0, 1, 2),
        words=("over N, H, W", "per channel"),
        effect="bright and dark remain",
        colour="#0072b2",
    ),
    Norm(
        title="LayerNorm",
        call=lambda x, **options: anynorm.layer_norm(x, axis=(1, 2, 3), eps=EPS, **options),
        axis=(1, 2, 3, 4),
        words=("over H, W, C", "per photo"),
        effect="paled by the slopes",
        colour="#d55e00",
    ),
    Norm(
        title="InstanceNorm",
        call=lambda x, **options: anynorm.instance_norm(x, eps=EPS, channel_axis=-1, **options),
        axis=(1, 2),
        words=("over H, W", "per photo and channel"),
        effect="colour casts vanish",
        colour="#009e73",
    ),
    Norm(
        title="GroupNorm",
        call=lambda x, **options: anynorm.group_norm(x, GROUPS, eps=EPS, channel_axis=-1, **options),
        axis=(1, 2, 4),
        words=("over H, W, 3 channels", "per photo and group"),
        effect="light evened, hues kept",
        colour="#b0508e",
    ),
    Norm(
        title="RMSNorm",
        call=lambda x, **options: anynorm.rms_norm(x, axis=(1, 2, 3), eps=EPS, **options),
        axis=(1, 2, 3, 4),
        words=("over H, W, C", "per photo"),
        center=False,
    ),
)


def load_photographs() -> Array:
    """Two photographs as an NHWC batch with six channels: red, green, blue, and how steep each of them is."""
    try:
        from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]
    except ImportError as error:
        raise SystemExit(f'{error}. The photographs are scikit-learn\'s: pip install "anynorm[examples]"') from None
    colours = np.stack(load_sample_images().images).astype(np.float32)
    # Three channels could only make one group (which is LayerNorm) or three (InstanceNorm). With the slopes there are
    # two groups that mean something: colours, which are bright and dense, and edges, which are faint and sparse.
    slopes = np.hypot(*np.gradient(colours, axis=(1, 2)))
    return np.concatenate([colours, slopes], axis=-1)


def split_channels(x: Array) -> Array:
    """A view of the batch with the axes of BATCH_AXES."""
    return x.reshape(*x.shape[:-1], GROUPS, -1)


def numpy_norm(x: Array, norm: Norm) -> Array:
    """The plain NumPy expression; only `axis` differs from norm to norm."""
    v = split_channels(x)
    if norm.center:
        y: Array = (v - v.mean(norm.axis, keepdims=True)) / np.sqrt(v.var(norm.axis, keepdims=True) + EPS)
    else:
        y = v / np.sqrt(np.square(v).mean(norm.axis, keepdims=True) + EPS)
    return y.reshape(x.shape)


def first_set(x: Array, norm: Norm) -> Array:
    """The elements that share statistics with the first element."""
    return split_channels(x)[tuple(slice(None) if axis in norm.axis else 0 for axis in range(len(BATCH_AXES)))]


def interleaved_medians(*calls: Callable[[], object]) -> list[float]:
    """Milliseconds of each call. They take turns, so that a busy moment of the machine hits all of them alike."""
    laps: list[list[float]] = [[] for _ in calls]
    for _ in range(REPETITIONS):
        for call, lap in zip(calls, laps, strict=True):
            start = time.perf_counter()
            call()
            lap.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(lap) for lap in laps]


def print_statistics(x: Array, results: Results) -> None:
    """Each norm's set, the shape of its statistics, and the first set before and after."""
    print(f"{'':44}{'statistics':12}{'first set':10}{'mean':>10}{'std':>8}{'min':>8}{'max':>8}")
    for norm, (y, moments) in results.items():
        before = (norm.title, str(moments.mean.shape), "before")
        after = ("  " + " ".join(norm.words), "", "after")
        for (name, shape, when), values in ((before, x), (after, y)):
            s = first_set(values, norm).astype(np.float64)
            print(f"{name:44}{shape:12}{when:10}{s.mean():z10.5f}{s.std():8.3f}{s.min():8.3f}{s.max():8.3f}")
    print("RMSNorm holds the mean at 0, so that its mean^2 + std^2 becomes 1.")


def print_comparison(x: Array, results: Results) -> None:
    """How far anynorm and plain NumPy, both in float32, are from float64, and how long they take."""
    print(f"{'':14}{'max error to float64':^24}{'one thread, ms':^24}")
    print(f"{'':14}{'anynorm':>12}{'NumPy':>12}{'anynorm':>12}{'NumPy':>12}{'ratio':>9}")
    for norm, (y, _) in results.items():
        exact = numpy_norm(x.astype(np.float64), norm)
        errors = [float(np.abs(z - exact).max()) for z in (y, numpy_norm(x, norm))]
        # NumPy's reductions run on one thread, so anynorm gets one as well.
        ours, numpys = interleaved_medians(partial(norm.call, x, num_threads=1), partial(numpy_norm, x, norm))
        print(f"{norm.title:14}{errors[0]:12.1e}{errors[1]:12.1e}{ours:12.2f}{numpys:12.2f}{numpys / ours:8.1f}x")
    print(f"Times are medians of {REPETITIONS} interleaved repetitions.")


def save(path: Path, x: Array, results: Results) -> None:
    """Draw the batch, then every norm that has a colour: its first set, its words and its photographs."""
    try:
        from _picture import Column, save_picture
    except ImportError as error:
        raise SystemExit(f'{error}. The picture needs matplotlib: pip install "anynorm[examples]"') from None

    nobody = np.zeros((len(x), x.shape[-1]), bool)
    words = ("2 photos, 6 channels:", "R, G, B and their slopes", str(x.shape))
    columns = [Column("The batch", words, "one bright, one dark", x[..., :3] / 255, nobody)]
    for norm, (y, moments) in results.items():
        if norm.colour:
            in_set = np.zeros_like(x[:, :1, :1], bool)
            first_set(in_set, norm)[...] = True
            words = (*norm.words, f"statistics {moments.mean.shape}")
            # One mapping for all: -2 is black, 0 is mid-grey, 2 is white.
            photos = np.clip(y[..., :3] / 4 + 0.5, 0, 1)
            columns.append(Column(norm.title, words, norm.effect, photos, in_set[:, 0, 0], norm.colour))
    save_picture(
        path,
        columns,
        headline="One formula. The norms differ in the set $S$ that shares a mean and a variance.",
        formula=r"$y = (x - \mathrm{mean}_S)\;/\;\sqrt{\mathrm{var}_S + \varepsilon}$",
        footline="Photographs: the normalized R, G, B, black at \N{MINUS SIGN}2, white at 2.   "
        "RMSNorm takes LayerNorm's set and holds the mean at 0.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("quickstart.png"), help="where the picture goes")
    parser.add_argument("--no-picture", action="store_true", help="print only")
    options = parser.parse_args()
    batch = load_photographs()
    results = {norm: norm.call(batch, return_moments=True) for norm in NORMS}
    print(f"anynorm {anynorm.__version__}: batch {batch.shape} {batch.dtype}, {batch.nbytes / 1e6:.0f} MB\n")
    print_statistics(batch, results)
    print()
    print_comparison(batch, results)
    if not options.no_picture:
        save(options.output, batch, results)
        print(f"Picture: {options.output}")


if __name__ == "__main__":
    main()
