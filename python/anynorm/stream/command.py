# SPDX-License-Identifier: Apache-2.0
"""``python -m anynorm normalize`` and ``moments``: files larger than memory, from a shell."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np

from anynorm import stream
from anynorm.stream._functions import CHUNK_BYTES

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def axis(text: str) -> tuple[int, ...] | None:
    """Read ``0``, ``0,2`` or ``all``; argparse turns the error into its own."""
    try:
        return None if text == "all" else tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers as in 0,2 or all, got {text!r}") from None


def size(text: str) -> int:
    """Read a number of bytes, as ``64M``."""
    digits = text.rstrip("KMG")
    if not digits.isdecimal() or text[len(digits) :] not in UNITS or int(digits) < 1:
        raise argparse.ArgumentTypeError(f"expected bytes as in 65536, 64K, 64M or 1G, got {text!r}")
    return int(digits) * UNITS[text[len(digits) :]]


def _add_common(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("input", type=Path, help="a .npy file of float16, bfloat16, float32 or float64")
    option("--axis", type=axis, required=True, metavar="AXES", help="the axes to reduce: 0, or 0,2, or all; --axis=-1")
    option("--chunk-bytes", type=size, default=CHUNK_BYTES, metavar="N", help="read at a time (default: 16M)")
    option("--num-threads", type=int, metavar="N", help="default: as OpenMP would")
    option("--labels", type=Path, metavar="IDS.npy", help="sets by label, along the reduced axes; below 0: in no set")
    option("--where", type=Path, metavar="MASK.npy", help="what counts; broadcasts against the data")
    option("--sample-weight", type=Path, metavar="W.npy", help="how much each counts, along the reduced axes")
    option("--nan-policy", choices=("propagate", "omit", "raise"), default="propagate", help="what NaN does")
    option("--progress", action=argparse.BooleanOptionalAction, help="a bar on stderr; on a terminal by default")


def add_moments_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    _add_common(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="STATS.npz",
                        help="the statistics; if they are there unfinished, go on with them")  # fmt: skip


def add_normalize_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    _add_common(parser)
    option = parser.add_argument
    option(
        "-o", "--output", type=Path, required=True, metavar="OUT.npy", help="where to write; appears when all is done"
    )
    option("--weight", type=Path, metavar="W.npy", help="multiply by it; broadcasts against the data")
    option("--bias", type=Path, metavar="B.npy", help="add it")
    option("--eps", type=float, default=1e-5, help="added to the variance (default: 1e-5)")
    option("--no-center", action="store_true", help="hold the mean at 0, as RMS norm does")
    option(
        "--dtype", choices=("float16", "bfloat16", "float32", "float64"), help="of the result (default: of the input)"
    )
    option("--excluded", choices=("zero", "input"), default="zero", help="what elements in no set become")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--statistics", type=Path, metavar="STATS.npz",
                       help="save the statistics while they are summed; if they are there, go on with them")  # fmt: skip
    given.add_argument("--moments", type=Path, metavar="STATS.npz",
                       help="use these finished statistics, of other data say")  # fmt: skip


def run_moments(options: argparse.Namespace) -> int:
    """Sum the statistics of a file."""
    return _reported(options, options.output, lambda: _sum(options))


def run_normalize(options: argparse.Namespace) -> int:
    """Normalize a file into another."""
    return _reported(options, options.statistics, lambda: _normalize(options))


def _selection(options: argparse.Namespace) -> dict[str, Any]:
    """Map the files that say which elements are in which set."""
    files = {"labels": options.labels, "where": options.where, "sample_weight": options.sample_weight}
    arrays = {name: np.load(path, mmap_mode="r") for name, path in files.items() if path is not None}
    return {**arrays, "nan_policy": options.nan_policy}


def _sum(options: argparse.Namespace) -> None:
    stream.moments(
        options.input,
        options.axis,
        statistics=options.output,
        chunk_bytes=options.chunk_bytes,
        progress=options.progress,
        num_threads=options.num_threads,
        **_selection(options),
    )


def _normalize(options: argparse.Namespace) -> None:
    stream.normalize(
        options.input,
        options.axis,
        options.output,
        weight=None if options.weight is None else np.load(options.weight),
        bias=None if options.bias is None else np.load(options.bias),
        eps=options.eps,
        center=not options.no_center,
        moments=None if options.moments is None else stream.load_moments(options.moments),
        dtype=options.dtype,
        statistics=options.statistics,
        chunk_bytes=options.chunk_bytes,
        progress=options.progress,
        num_threads=options.num_threads,
        excluded=options.excluded,
        **_selection(options),
    )


def _reported(options: argparse.Namespace, statistics: Path | None, work: Callable[[], None]) -> int:
    """Do it; one line for what goes wrong, and the exit status."""
    alone = threading.current_thread() is threading.main_thread()  # others may not handle signals
    # What a batch system sends: clean up as for an interruption.
    before = signal.signal(signal.SIGTERM, _terminate) if alone else None
    try:
        work()
    except KeyboardInterrupt:
        kept = statistics is not None and statistics.exists()
        _say(options, f"interrupted; the same command goes on from {statistics}" if kept else "interrupted")
        return 130  # as a shell says of SIGINT
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
        _say(options, what)
        return 1
    except (TypeError, ValueError, MemoryError) as error:
        _say(options, str(error).removeprefix(f"stream.{options.command}: "))
        return 1
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return 0


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _say(options: argparse.Namespace, text: str) -> None:
    sys.stderr.write(f"python -m anynorm {options.command}: {' '.join(text.split())}\n")
