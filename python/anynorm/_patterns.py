# SPDX-License-Identifier: Apache-2.0
"""Patterns as of einops.reduce, "n (g c) h w -> n g": the axes of an array by name, and those that a set keeps.

Nothing here looks at an array's elements. A pattern is parsed once, and once for every shape it becomes a `Plan`: the
shape that has every named axis apart, the axes of that shape which are reduced, and where the axes of statistics and
parameters lie along it. Splitting an axis and changing the order of axes are views, so that a plan moves no memory.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy.typing as npt

Lengths = tuple[int, ...]

# An axis is known by its name; those without one, which are numbers or behind an ellipsis, by their place.
Name = str | tuple[str, int]


class Atom(NamedTuple):
    """One word of a pattern: a name, a number or an ellipsis."""

    text: str
    start: int

    @property
    def stop(self) -> int:
        return self.start + len(self.text)


class Group(NamedTuple):
    """What stands for one axis of the array: a word, or several in parentheses, the outermost first."""

    atoms: tuple[Atom, ...]
    start: int
    stop: int

    @property
    def is_ellipsis(self) -> bool:
        return len(self.atoms) == 1 and self.atoms[0].text == "..." and self.stop - self.start == 3


class Text(NamedTuple):
    """A pattern as its messages show it."""

    function: str
    argument: str
    pattern: str

    def error(self, message: str, start: int, stop: int | None = None) -> ValueError:
        """A caret line points at the part of the pattern that is wrong."""
        line = re.sub(r"\s", " ", self.pattern)
        pointer = " " * start + "^" * max(1, (start if stop is None else stop) - start)
        return ValueError(f"{self.function}: {self.argument} '{line}': {message}\n  {line}\n  {pointer}")


def _read_side(text: Text, start: int, stop: int) -> tuple[Group, ...]:
    groups: list[Group] = []
    inner: list[Atom] | None = None
    opened = start
    seen: set[str] = set()
    for found in re.compile(r"\.\.\.|\w+|\S").finditer(text.pattern, start, stop):
        word, place = found[0], found.start()
        if word == "(":
            if inner is not None:
                raise text.error("expected no parentheses within parentheses", place)
            inner, opened = [], place
        elif word == ")":
            if inner is None:
                raise text.error("expected ( before )", place)
            groups.append(Group(tuple(inner), opened, place + 1))
            inner = None
        else:
            atom = Atom(word, place)
            if not (word == "..." or word.isidentifier() or word.isdecimal()):
                raise text.error(f"expected names, 1, ..., ( or ), got {word}", place, atom.stop)
            if not word.isdecimal():
                if word in seen:
                    raise text.error(f"expected each axis once, got {word} twice", place, atom.stop)
                seen.add(word)
            if inner is None:
                groups.append(Group((atom,), place, atom.stop))
            else:
                inner.append(atom)
    if inner is not None:
        raise text.error("expected ) for this one", opened)
    return tuple(groups)


class Pattern(NamedTuple):
    """Both sides of a pattern as they are written."""

    text: Text
    left: tuple[Group, ...]
    right: tuple[Group, ...]


@functools.lru_cache(maxsize=512)
def parse(function: str, pattern: str) -> Pattern:
    """Read a pattern, and refuse what no array could fit."""
    text = Text(function, "pattern", pattern)
    arrow = pattern.find("->")
    if arrow < 0:
        raise text.error("expected -> before the axes that are kept", len(pattern.rstrip()))
    again = pattern.find("->", arrow + 2)
    if again >= 0:
        raise text.error("expected one ->", again, again + 2)
    left, right = _read_side(text, 0, arrow), _read_side(text, arrow + 2, len(pattern))
    for group in left:
        for atom in group.atoms:
            if atom.text == "..." and not group.is_ellipsis:
                raise text.error("expected ... outside of parentheses before the arrow", atom.start, atom.stop)
    _check_right(text, right, {atom.text for group in left for atom in group.atoms}, "the axes before the arrow")
    return Pattern(text, left, right)


def _check_right(text: Text, right: Iterable[Group], known: set[str], which: str) -> None:
    """A side that does not describe x has axes of x, and ones."""
    for group in right:
        for atom in group.atoms:
            if atom.text.isdecimal():
                if int(atom.text) != 1:
                    raise text.error(f"expected names and 1 here, got {atom.text}", atom.start, atom.stop)
            elif atom.text not in known:
                raise text.error(f"expected {which}, got {atom.text}", atom.start, atom.stop)


class Arrangement(NamedTuple):
    """How an array whose axes one side of a pattern names lies along axes of x, which stand in the order of x there."""

    shape: Lengths
    """As the side has it: merged axes are one, and a 1 is an axis of length 1."""
    along: Lengths
    """In the order of x; a parameter has length 1 along the axes that it does not have."""
    apart: Lengths
    """The lengths of the named axes, in the order of the side."""
    order: Lengths | None
    """Which of them stand along the axes of x, in the order of x; None if that is their own order."""

    def to_x(self, array: npt.NDArray[Any], lead: Lengths = ()) -> npt.NDArray[Any]:
        """A view with the axes in the order of x, behind leading axes that stay."""
        if self.order is not None:
            order = (*range(len(lead)), *(axis + len(lead) for axis in self.order))
            array = array.reshape(lead + self.apart).transpose(order)
        return array.reshape(lead + self.along)

    def from_x(self, array: npt.NDArray[Any], lead: Lengths = ()) -> npt.NDArray[Any]:
        """The inverse; a view unless axes are merged that do not follow each other in memory."""
        if self.order is not None:
            back = [self.order.index(place) + len(lead) for place in range(len(self.order))]
            lengths = tuple([self.apart[axis] for axis in self.order])
            array = array.reshape(lead + lengths).transpose(*range(len(lead)), *back)
        return array.reshape(lead + self.shape)


class Recipe(NamedTuple):
    """What a pattern does to arrays of any lengths; see `known_patterns` of the compiled module."""

    axis: Lengths
    """The axes to reduce, those apart that the pattern names."""
    factors: tuple[Lengths, ...] | None
    """For every axis of x the lengths of what it becomes, -1 for the rest of it; None where nothing is split."""
    parameters: tuple[Lengths, ...] | None
    """For every axis of a parameter the axes of x that are merged in it; None where it broadcasts against x."""


class Plan(NamedTuple):
    """A pattern for arrays of one shape."""

    split: Lengths | None
    """The shape of x with every named axis apart, where it is not that of x."""
    parts: tuple[int, ...]
    """How many axes of `split` every axis of x becomes."""
    axis: Lengths
    """The axes of `split` to reduce."""
    statistics: Arrangement | None
    """None where the statistics have the kept axes in the order of x."""
    parameters: Arrangement | None
    """None where no pattern was given for them."""
    is_plain: bool
    """Nothing but the axes to reduce differs from a call by axes."""
    recipe: Recipe | None
    """None where more than the lengths of axes has to be changed."""


@functools.lru_cache(maxsize=4096)
def plan(
    function: str, pattern: str, parameters: str | None, shape: Lengths, sizes: tuple[tuple[str, int], ...]
) -> Plan:
    """Fit a pattern to the shape of an array.

    Raises
    ------
    ValueError
        If the pattern is wrong, or the shape or a size does not fit it; the message points into the pattern.
    """
    text, left, right = parse(function, pattern)
    known = {atom.text for group in left for atom in group.atoms if atom.text.isidentifier()}
    unknown = [name for name, _ in sizes if name not in known]
    if unknown:
        stop = max([group.stop for group in left], default=1)
        raise text.error(f"expected sizes of its axes, got {unknown[0]}", 0, stop)
    axes = dict(_lengths(text, left, shape, dict(sizes)))
    names = list(axes)
    kept = {name for group in right for name in _names(group, names)}
    lengths = tuple(axes.values())
    statistics = _arrange(right, axes, sorted(kept, key=names.index))
    plain = statistics.shape == statistics.along and statistics.order is None
    axis = tuple(place for place, name in enumerate(names) if name not in kept)
    along = merged = None
    if parameters is not None:
        own = Text(function, "parameters", parameters)
        groups = _read_side(own, 0, len(parameters))
        _check_right(own, groups, {atom.text for group in left for atom in group.atoms}, f"axes of '{pattern}'")
        along = _arrange(groups, axes, names)
        merged = tuple(_merged(groups, names))
    in_order = statistics.order is None and (along is None or along.order is None)
    one_each = all(group.is_ellipsis or [atom.text.isidentifier() for atom in group.atoms] == [True] for group in right)
    factors = tuple(_factors(left, len(shape), dict(sizes)))
    splits = any(factor != (-1,) for factor in factors)
    return Plan(
        split=None if lengths == shape else lengths,
        parts=tuple(map(len, factors)),
        axis=axis,
        statistics=None if plain else statistics,
        parameters=along,
        is_plain=plain and lengths == shape and along is None,
        recipe=Recipe(axis, factors if splits else None, merged) if plain and in_order and one_each else None,
    )


def _factors(left: tuple[Group, ...], rank: int, sizes: dict[str, int]) -> Iterator[Lengths]:
    """For every axis of x the lengths that its group says, -1 for one that is left out, (1,) for no words at all."""
    for group in left:
        if group.is_ellipsis:
            yield from [(-1,)] * (rank - len(left) + 1)
        else:
            words = [atom.text for atom in group.atoms]
            yield tuple(int(word) if word.isdecimal() else sizes.get(word, -1) for word in words) or (1,)


def _lengths(text: Text, left: tuple[Group, ...], shape: Lengths, sizes: dict[str, int]) -> Iterator[tuple[Name, int]]:
    """Every axis that the left-hand side names, with its length."""
    hidden = len(shape) - len(left) + 1  # behind an ellipsis, if there is one
    has_ellipsis = any(group.is_ellipsis for group in left)
    if hidden < 0 or (not has_ellipsis and hidden != 1):
        count = f"at least {len(left) - 1}" if has_ellipsis else str(len(left))
        stop = max([group.stop for group in left], default=1)
        raise text.error(f"expected x of {count} axes, got shape {shape}", 0, stop)
    place = 0
    for group in left:
        if group.is_ellipsis:
            for index in range(hidden):
                yield ("...", index), shape[place]
                place += 1
        else:
            yield from _split(text, group, shape[place], place, shape, sizes)
            place += 1


def _split(
    text: Text, group: Group, length: int, place: int, shape: Lengths, sizes: dict[str, int]
) -> Iterator[tuple[Name, int]]:
    """The axes of a group, whose lengths multiply to that of the axis; one of them may be left out."""
    found = [int(atom.text) if atom.text.isdecimal() else sizes.get(atom.text) for atom in group.atoms]
    missing = [atom for atom, size in zip(group.atoms, found, strict=True) if size is None]
    for atom, size in zip(group.atoms, found, strict=True):
        if size is not None and size < 0:
            raise text.error(f"expected a size of at least 0 for {atom.text}, got {size}", atom.start, atom.stop)
    if len(missing) > 1:
        names = " or ".join(atom.text for atom in missing)
        raise text.error(f"expected the size of {names}, as in {missing[0].text}=2", missing[0].start, missing[-1].stop)
    product = math.prod(size for size in found if size is not None)
    axis = f"axis {place} of x of shape {shape}"
    if missing and (product == 0 or length % product):
        raise text.error(f"expected a length that {product} divides for {axis}, got {length}", group.start, group.stop)
    if not missing and product != length:
        raise text.error(f"expected length {product} for {axis}, got {length}", group.start, group.stop)
    if not group.atoms:
        yield ("", group.start), 1
    for atom, size in zip(group.atoms, found, strict=True):
        name: Name = ("", atom.start) if atom.text.isdecimal() else atom.text
        yield name, length // product if size is None else size


def _names(group: Group, names: list[Name]) -> Iterator[Name]:
    """The axes that a group of another side stands for."""
    for atom in group.atoms:
        if atom.text == "...":
            yield from (name for name in names if name[0] == "...")
        elif not atom.text.isdecimal():
            yield atom.text


def _merged(side: tuple[Group, ...], names: list[Name]) -> Iterator[Lengths]:
    """For every axis of a side the places of what it merges."""
    for group in side:
        places = [names.index(name) for name in _names(group, names)]
        yield from [(place,) for place in places] if group.is_ellipsis else [tuple(places)]


def _arrange(side: tuple[Group, ...], axes: dict[Name, int], along: list[Name]) -> Arrangement:
    named = [name for group in side for name in _names(group, list(axes))]
    shape: list[int] = []
    for group in side:
        lengths = [axes[name] for name in _names(group, list(axes))]
        shape += lengths if group.is_ellipsis else [math.prod(lengths)]
    order = tuple(named.index(name) for name in along if name in named)
    return Arrangement(
        shape=tuple(shape),
        along=tuple(axes[name] if name in named else 1 for name in along),
        apart=tuple(axes[name] for name in named),
        order=None if order == tuple(range(len(order))) else order,
    )
