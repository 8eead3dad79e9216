# SPDX-License-Identifier: Apache-2.0
"""Where results go, a block at a time: a .npy file that is there when all is, or an array."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np

from anynorm.stream._npy import header_bytes, named
from anynorm.stream._replace import replacing, write_all
from anynorm.stream._sources import Array, Block, Source


class Output(ABC):
    """Takes the blocks of a source in their order."""

    @abstractmethod
    def target(self, block: Block) -> Array:
        """Where to write the result of a block."""

    def written(self, result: Array) -> None:  # noqa: B027 - there is nothing to do for an array
        """Say that it is there."""


class ArrayOutput(Output):
    """The caller's array, in place or not."""

    def __init__(self, array: Array, order: tuple[int, ...]) -> None:
        self._ordered = array.transpose(order)

    def target(self, block: Block) -> Array:
        return self._ordered[block.index]


class FileOutput(Output):
    """A file that is open; blocks lie in it one after the other."""

    def __init__(self, file: BinaryIO, source: Source, dtype: np.dtype[Any]) -> None:
        self._file, self._dtype = file, dtype
        self._fortran = source.order != tuple(range(len(source.order)))
        self._shape = tuple(max(0, source.shape[axis]) for axis in source.order)
        self._buffer = np.empty(0, dtype)
        self.rows = 0
        header = header_bytes(self._shape, self._fortran, dtype)
        if source.size:
            _reserve(file, len(header) + source.size * dtype.itemsize)
        write_all(file, memoryview(header))

    def target(self, block: Block) -> Array:
        if self._buffer.size < block.data.size:
            self._buffer = np.empty(block.data.size, self._dtype)
        self.rows += len(block.data)
        return self._buffer[: block.data.size].reshape(block.data.shape)

    def written(self, result: Array) -> None:
        write_all(self._file, result.reshape(-1).view(np.uint8).data)
        if hasattr(os, "posix_fadvise"):
            # The disk begins to write while the next block is computed (Linux does so when it is told that pages are
            # not needed); the fsync at the end then waits for 20 ms instead of 250 after 512 MB.
            with suppress(OSError):
                end = self._file.tell()
                os.posix_fadvise(self._file.fileno(), end - result.nbytes, result.nbytes, os.POSIX_FADV_DONTNEED)

    def correct_header(self) -> None:
        """Say how many rows came, of a source that did not know."""
        self._file.seek(0)
        write_all(self._file, memoryview(header_bytes((self.rows, *self._shape[1:]), False, self._dtype)))


@contextmanager
def open_output(out: Any, source: Source, dtype: np.dtype[Any]) -> Iterator[Output]:
    """Open where the results of a source go; a file appears when the context ends without an error."""
    if isinstance(out, np.ndarray):
        yield ArrayOutput(out, source.order)
        return
    with replacing(out) as file:
        output = FileOutput(file, source, dtype)
        yield output
        if source.shape[0] < 0:
            output.correct_header()


def open_result(path: str | os.PathLike[str]) -> Array:
    """Map a file that was written."""
    try:
        found: Array = np.load(path, mmap_mode="r")
    except ValueError:  # nothing to map: no elements
        found = np.load(path)
    return found.view(named(found.dtype))


def _reserve(file: BinaryIO, size: int) -> None:
    """Take the room before the work, not when the disk is full in the middle of it."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # of file systems that cannot
                raise OSError(error.errno, f"no room for {size} bytes: {error.strerror}", file.name) from None
