# SPDX-License-Identifier: Apache-2.0
"""The list of shapes that the C++ and the Python benchmark share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SHAPES = Path(__file__).with_name("shapes.txt")

ITEMSIZE = {"f32": 4, "f64": 8, "f16": 2, "bf16": 2}
NORMS = {
    "layer_norm": set[str](),
    "rms_norm": set[str](),
    "batch_norm": {"channel"},
    "group_norm": {"channel", "groups"},
    "instance_norm": {"channel"},
}
FUSED = {"residual", "activation", "result"}
BACKWARD = "_backward"
OPTIONS = {
    **{norm: options | FUSED for norm, options in NORMS.items()},
    **{norm + BACKWARD: options for norm, options in NORMS.items()},
    "batch_norm": NORMS["batch_norm"] | FUSED | {"training"},
    "moments": {"axis", "labels", "sorted", "segments", "where"},
    "normalize": {"axis", "labels", "sorted", "segments", "where"},
}
VIEWS = {"order", "step"}
ACTIVATIONS = {"relu", "silu", "gelu_tanh"}  # those that NumPy can write out: it has no error function
MASKS = {"padding", "rows", "elements"}
LABEL_BYTES = 8  # int64, as everybody takes them
LINE = 64  # bytes; a longer step would leave some of them alone


@dataclass(frozen=True)
class Case:
    """One line of the list: which function, on what."""

    name: str
    listed: str
    """Section and name as in the list, whatever the resizing has made of the shape."""
    section: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    axis: tuple[int, ...] = (-1,)
    channel: int = 1
    groups: int = 1
    training: bool = True
    order: str = "C"
    step: int = 1
    residual: bool = False
    activation: str = ""
    result: str = ""
    labels: int = 0
    sorted: bool = False
    segments: int = 0
    where: str = ""

    @property
    def norm(self) -> str:
        """The norm whose gradients a case computes; of other cases the function itself."""
        return self.kind.removesuffix(BACKWARD)

    @property
    def backward(self) -> bool:
        """Whether gradients are computed, for statistics that the forward call has saved."""
        return self.kind.endswith(BACKWARD)

    @property
    def fused(self) -> bool:
        """Whether the norm does something besides."""
        return bool(self.residual or self.activation or self.result)

    @property
    def dense(self) -> bool:
        """Whether x is in C order, without gaps."""
        return self.order == "C" and self.step == 1

    @property
    def memory_shape(self) -> tuple[int, ...]:
        """The array that x is a view of, slowest axis first."""
        whole = (*self.shape[:-1], self.shape[-1] * self.step)
        return whole[::-1] if self.order == "F" else whole

    @property
    def bytes(self) -> int:
        """Bytes that must move: the memory of x, and of what else is read and written once.

        Those are y or grad_input, beside x grad_output, and a residual with its sum.
        """
        itemsize = ITEMSIZE[self.dtype]
        labels = self.shape[0] * LABEL_BYTES if self.labels else 0
        mask = math.prod(self.mask_shape) if self.where else 0
        read = itemsize * (1 + self.residual + self.backward)
        written = 0 if self.kind == "moments" else (1 if self.result else itemsize) + itemsize * self.residual
        return math.prod(self.memory_shape) * (read + written) + labels + mask

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """The shape of the mask, which lies along x: positions of samples, rows, or every element."""
        along = {"padding": 2, "rows": len(self.shape) - 1}.get(self.where, len(self.shape))
        return self.shape[:along] + (1,) * (len(self.shape) - along)

    @property
    def row_sets(self) -> int:
        """How many sets of rows the data name, by labels or segments; 0 where axes say it all."""
        return self.labels or self.segments

    @property
    def over_channels(self) -> bool:
        """Whether the parameters lie along the channel axis, not the last."""
        return self.norm in {"batch_norm", "group_norm", "instance_norm"}

    @property
    def channels(self) -> int:
        """Length of weight and bias."""
        return self.shape[self.channel if self.over_channels else -1]

    @property
    def set_axes(self) -> tuple[int, ...]:
        """The axes that a set runs over, as numbers from 0; a set of group_norm has only some of the channels."""
        rank = len(self.shape)
        if not self.over_channels:
            return tuple(sorted(axis % rank for axis in self.axis))
        first = 0 if self.norm == "batch_norm" else 1
        return tuple(axis for axis in range(first, rank) if axis != self.channel % rank)


@dataclass(frozen=True)
class Resize:
    """Changes to every shape of the list; cases that become equal are measured once."""

    max_length: int | None = None  # longer axes are cut
    min_bytes: int = 0  # the first axis is repeated until x has as many, to leave the cache behind
    max_bytes: int | None = None  # the first axis is cut until x has no more, for a quick look

    def __call__(self, shape: list[int], itemsize: int) -> tuple[int, ...]:
        """Resize one shape; `itemsize` is the memory of an element, with the gap behind it."""
        shape = [min(length, self.max_length or length) for length in shape]
        item = math.prod(shape[1:]) * itemsize
        if self.max_bytes is not None:
            shape[0] = min(shape[0], max(1, self.max_bytes // max(item, 1)))
        shape[0] *= max(1, -(-self.min_bytes // max(shape[0] * item, 1)))
        return tuple(shape)


def read_case(line: str, section: str, resize: Resize) -> Case:
    """Understand one line; raises KeyError or ValueError."""
    kind, dtype, lengths, *words = line.split()
    options = dict(word.split("=") for word in words)
    if unknown := options.keys() - OPTIONS[kind] - VIEWS:
        raise ValueError(unknown)
    step = read_step(options, ITEMSIZE[dtype])
    check_words(options)
    if options.get("where") == "padding" and lengths.count("x") < 2:  # samples, their positions, and what lies there
        raise ValueError(lengths)
    shape = resize([int(length) for length in lengths.split("x")], ITEMSIZE[dtype] * step)
    if "groups" in options and resize.max_length:
        options["groups"] = str(min(int(options["groups"]), resize.max_length))
    for word in options.keys() & {"labels", "segments"}:  # no more than there are rows, so that none is empty
        options[word] = str(min(int(options[word]), shape[0]))
    return Case(
        name="/".join([kind, "x".join(map(str, shape)), dtype, *map("=".join, options.items())]),
        listed="/".join([section, kind, lengths, dtype, *words]),
        section=section,
        kind=kind,
        dtype=dtype,
        shape=shape,
        axis=tuple(map(int, options.get("axis", "-1").split(","))),
        channel=int(options.get("channel", "1")),
        groups=int(options.get("groups", "1")),
        training=bool(int(options.get("training", "1"))),
        order=options.get("order", "C"),
        step=step,
        residual="residual" in options,
        activation=options.get("activation", ""),
        result=options.get("result", ""),
        labels=int(options.get("labels", "0")),
        sorted="sorted" in options,
        segments=int(options.get("segments", "0")),
        where=options.get("where", ""),
    )


def read_step(options: dict[str, str], itemsize: int) -> int:
    """Check how x lies in memory; returns the step, 1 without one."""
    if options.get("order", "F") != "F" or options.keys() >= VIEWS:
        raise ValueError(options)
    if "step" not in options:
        return 1
    step = int(options["step"])
    if not 2 <= step <= LINE // itemsize:
        raise ValueError(options)
    return step


def check_words(options: dict[str, str]) -> None:
    """Check what a norm does besides, and which rows share a set."""
    known = {"residual": {"1"}, "activation": ACTIVATIONS, "result": {"i8"}, "sorted": {"1"}, "where": MASKS}
    if any(options.get(word, next(iter(values))) not in values for word, values in known.items()):
        raise ValueError(options)
    if min(int(options.get(word, "1")) for word in ("labels", "segments")) < 1:
        raise ValueError(options)
    if len(options.keys() & {"labels", "segments", "where"}) > 1:
        raise ValueError(options)
    # Under a mask sets run over all of x, and none of them is empty.
    if "where" in options and "0" not in options.get("axis", "-1").split(","):
        raise ValueError(options)


def read_cases(path: Path = SHAPES, resize: Resize | None = None, parts: Sequence[str] = ("",)) -> list[Case]:
    """Read the list, of which `parts` chooses those cases whose section and name contain one of them."""
    cases: dict[str, Case] = {}
    section = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            try:
                case = read_case(line, section, resize or Resize())
            except (KeyError, ValueError):
                expected = "expected `kind dtype shape`, then axis=, labels=, sorted=1, segments= and where=rows of"
                expected += " moments and normalize or channel=, groups= and training= of the norms that have them,"
                expected += " residual=1, activation=gelu_tanh and result=i8 of a norm that does more, then order=F or"
                expected += " step=2"
                raise ValueError(f"{path}:{number}: {expected}; got `{line}`") from None
            if any(part in case.listed for part in parts):
                cases.setdefault(case.name, case)
    return list(cases.values())


def one_of_each(cases: list[Case]) -> list[Case]:
    """Choose the first case of every kind, dtype, choice of axes and view in each section."""
    first: dict[tuple[object, ...], Case] = {}
    for case in cases:
        view = (case.order, case.step)
        besides = (case.residual, case.activation, case.result)
        sets = (case.labels > 0, case.sorted, case.segments > 0, case.where)
        key = (case.section, case.kind, case.dtype, case.axis, case.channel, case.training, view, besides, sets)
        first.setdefault(key, case)
    return list(first.values())
