# SPDX-License-Identifier: Apache-2.0
"""Where data comes from, a block at a time: a .npy file, an array, or chunks that somebody else makes."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import stat
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from anynorm.stream._npy import read_header
from anynorm.stream._slabs import Cut, Slab, cut

Array: TypeAlias = npt.NDArray[Any]
Chunks: TypeAlias = Iterable[Array] | Callable[[], Iterable[Array]]

SAMPLES = 64
SAMPLE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the data, with its axes from the outermost in memory to the innermost; valid until the next one."""

    index: tuple[slice, ...]
    data: Array
    done: int  # elements up to its end


class Source(ExitStack):
    """Data with axes. A context, which closes what it opened."""

    shape: tuple[int, ...]  # outermost axis first; a length of -1 is not known yet
    order: tuple[int, ...]  # the axes in that order
    dtype: np.dtype[Any]
    name: str
    rereadable = True

    @property
    def size(self) -> int:
        """Number of elements; 0 where it is not known."""
        return max(0, math.prod(self.shape))

    @abstractmethod
    def blocks(self, start: int = 0) -> Iterator[Block]:
        """Read from the block on that has `start` elements before it."""

    @abstractmethod
    def splits(self, axes: tuple[int, ...]) -> bool:
        """Whether some set, of those that reduce `axes` of the ordered ones, has elements in several blocks."""

    def identity(self) -> dict[str, Any] | None:
        """What tells this data from other data; None where nothing does."""
        return None

    def check(self) -> None:
        """Refuse what anynorm does not read."""
        if not self.order:
            raise ValueError(f"expected {self.name} of at least one axis, got a scalar")
        known = self.dtype in (np.float16, np.float32, np.float64) or self.dtype.name == "bfloat16"
        if not known or not self.dtype.isnative:
            what = self.dtype.name if self.dtype.isnative else f"{self.dtype.str} (of another byte order)"
            raise TypeError(f"expected {self.name} of dtype float16, bfloat16, float32 or float64, got {what}")


class ArraySource(Source):
    """An ndarray, a memory map among them: slabs are views of it."""

    def __init__(self, array: Array, chunk_bytes: int) -> None:
        super().__init__()
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError("expected an array without a mask, got a masked array")
        self.name, self.dtype = "x", array.dtype
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        self.order = tuple(range(array.ndim))[:: -1 if fortran else 1]
        self._array = array
        self._ordered = array.transpose(self.order)
        self.shape = self._ordered.shape
        self._cut = _cut(self.shape, self.dtype, chunk_bytes)

    def blocks(self, start: int = 0) -> Iterator[Block]:
        for slab in self._cut.slabs():
            if slab.start >= start:
                yield Block(slab.index, self._ordered[slab.index], slab.start + slab.size)
                forget(self._array)

    def splits(self, axes: tuple[int, ...]) -> bool:
        return self._cut.splits(axes)

    def identity(self) -> dict[str, Any]:
        places = np.linspace(0, max(0, self.size - 1), SAMPLES * 16).astype(np.int64)
        found: dict[str, Any] = {"fingerprint": ""}
        if self.size:
            sample = np.ascontiguousarray(self._ordered[np.unravel_index(places, self.shape)])
            found["fingerprint"] = hashlib.blake2b(sample.tobytes(), digest_size=16).hexdigest()
        file = getattr(self._array, "filename", None)
        if file is not None:
            found |= _stamp(Path(file).stat())
        return found


class FileSource(Source):
    """A .npy file, read into one buffer: a page fault costs more than a copy, and an error is one, not a signal."""

    def __init__(self, path: str | os.PathLike[str], chunk_bytes: int) -> None:
        super().__init__()
        self.name = str(path)
        file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - this is a context itself
        self._file = self.enter_context(file)
        try:
            self._look(chunk_bytes)
        except BaseException:
            self.close()
            raise

    def _look(self, chunk_bytes: int) -> None:
        found = os.fstat(self._file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"expected a file, got {self.name}")
        try:
            header = read_header(self._file)
        except (ValueError, EOFError) as error:
            raise ValueError(f"expected a .npy file, got {self.name}: {error}") from None
        self.dtype, self._stamp = header.dtype, _stamp(found)
        self.order = tuple(range(len(header.shape)))[:: -1 if header.fortran_order else 1]
        self.shape = tuple(header.shape[axis] for axis in self.order)
        self._offset = header.offset
        self._cut = _cut(self.shape, self.dtype, chunk_bytes)
        expected = header.offset + self.size * self.dtype.itemsize
        if found.st_size < expected:
            raise ValueError(f"{self.name} is truncated: expected {expected} bytes, got {found.st_size}")

    def blocks(self, start: int = 0) -> Iterator[Block]:
        slabs = itertools.dropwhile(lambda slab: slab.start < start, self._cut.slabs())
        buffer: Array | None = None
        for slab in slabs:
            if buffer is None:  # the first is the largest, or the one that is left
                buffer = np.empty(slab.size, self.dtype)
            data = buffer[: slab.size]
            self._read(slab, data)
            yield Block(slab.index, data.reshape([i.stop - i.start for i in slab.index]), slab.start + slab.size)
        if _stamp(os.fstat(self._file.fileno())) != self._stamp:
            raise ValueError(f"{self.name} was changed while it was read")

    def _read(self, slab: Slab, data: Array) -> None:
        size = self.dtype.itemsize
        begin = self._offset + slab.start * size
        if hasattr(os, "posix_fadvise"):  # the disk fetches the next block while this one is computed
            with suppress(OSError):
                os.posix_fadvise(self._file.fileno(), begin + data.nbytes, data.nbytes, os.POSIX_FADV_WILLNEED)
        self._file.seek(begin)
        target = data.view(np.uint8).data
        while target:
            got = self._file.readinto(target)
            if not got:
                raise ValueError(f"{self.name} was truncated while it was read")
            target = target[got:]

    def splits(self, axes: tuple[int, ...]) -> bool:
        return self._cut.splits(axes)

    def identity(self) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        for place in np.linspace(0, max(0, self._stamp["size"] - SAMPLE_BYTES), SAMPLES).astype(np.int64).tolist():
            digest.update(os.pread(self._file.fileno(), SAMPLE_BYTES, place))
        return {"fingerprint": digest.hexdigest(), **self._stamp}


class ChunkSource(Source):
    """Chunks that lie one after the other along axis 0, of any lengths; how many is known at the end."""

    def __init__(self, chunks: Chunks) -> None:
        super().__init__()
        self.name = "chunks"
        self._chunks = chunks
        # A generator is its own iterator: what it has given is gone.
        self.rereadable = callable(chunks) or iter(chunks) is not chunks
        iterator = self._iterate()
        first = next(iterator, None)
        if first is None:
            raise ValueError("expected at least one chunk, got none")
        self._first = np.asarray(first)
        self._rest: Iterator[Array] | None = None if self.rereadable else iterator
        if not self._first.ndim:
            raise ValueError("expected chunks of at least one axis, got a scalar")
        self.dtype = self._first.dtype
        self.order = tuple(range(self._first.ndim))
        self.shape = (-1, *self._first.shape[1:])

    def _iterate(self) -> Iterator[Array]:
        return iter(self._chunks() if callable(self._chunks) else self._chunks)

    def blocks(self, start: int = 0) -> Iterator[Block]:
        rest, self._rest = self._rest, None
        chunks = self._iterate() if rest is None else itertools.chain((self._first,), rest)
        rows = done = 0
        for number, chunk in enumerate(chunks):
            data = np.asarray(chunk)
            if data.shape[1:] != self.shape[1:] or data.ndim != len(self.shape) or data.dtype != self.dtype:
                expected = f"(any, {', '.join(map(str, self.shape[1:]))})".replace(", )", ",)")
                raise ValueError(
                    f"expected chunk {number} of shape {expected} and dtype {self.dtype}, got {data.shape} {data.dtype}"
                )
            index = (slice(rows, rows + len(data)), *(slice(0, n) for n in self.shape[1:]))
            rows, done = rows + len(data), done + data.size
            if done > start:
                yield Block(index, data, done)

    def splits(self, axes: tuple[int, ...]) -> bool:
        return 0 in axes


def open_source(source: Any, chunk_bytes: int, caller: str) -> Source:
    """Find out what `source` is; all errors begin with `caller`."""
    if chunk_bytes < 1:
        raise ValueError(f"{caller}: expected chunk_bytes of at least 1, got {chunk_bytes}")
    with ExitStack() as stack, named(caller):
        data: Source
        if isinstance(source, str | os.PathLike):
            data = FileSource(source, chunk_bytes)
        elif isinstance(source, np.ndarray):
            data = ArraySource(source, chunk_bytes)
        elif callable(source) or isinstance(source, Iterable):
            data = ChunkSource(source)
        else:
            raise TypeError(f"expected a path, an array or an iterable of chunks, got {type(source).__name__}")
        stack.push(data)
        data.check()
        stack.pop_all()
    return data


@contextmanager
def named(caller: str) -> Iterator[None]:
    """Put who was called before the message of what is refused."""
    try:
        yield
    except (TypeError, ValueError) as error:
        text = str(error).removeprefix("moments: ").removeprefix("normalize: ")  # of the call in memory
        raise type(error)(text if text.startswith(caller) else f"{caller}: {text}") from None


def forget(array: Array) -> None:
    """Unmap the pages of a map that were read, or the whole file would count as memory of this process in the end."""
    owner = getattr(array, "_mmap", None)
    # Not with mode "c", which keeps its changes in these pages.
    if owner is not None and getattr(array, "mode", "") in ("r", "r+") and hasattr(owner, "madvise"):
        import mmap

        owner.madvise(mmap.MADV_DONTNEED)


def _cut(shape: tuple[int, ...], dtype: np.dtype[Any], chunk_bytes: int) -> Cut:
    return cut(shape or (1,), max(1, chunk_bytes // max(1, dtype.itemsize)))


def _stamp(found: os.stat_result) -> dict[str, int]:
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}
