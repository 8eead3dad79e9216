# SPDX-License-Identifier: Apache-2.0
"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write a file beside `path` that takes its place when all went well, and is gone otherwise.

    Data is on the disk before the name is, so that a loss of power leaves the old file or the new one.
    """
    final = Path(os.path.realpath(path))  # what a link points to is replaced, not the link
    if final.exists() and not final.is_file():
        raise ValueError(f"expected a file to write to, got {path}")
    part = final.with_name(f".{final.name}.{os.urandom(4).hex()}.part")
    try:
        # "x" instead of a temporary file, whose permissions would be those of a secret.
        with part.open("xb", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        part.replace(final)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and str(error.filename) == str(part):
            error.filename = str(path)
        raise


def write_all(file: BinaryIO, data: memoryview) -> None:
    """Write every byte: a raw file may take fewer at a time."""
    try:
        while data:
            data = data[file.write(data) :]
    except OSError as error:
        error.filename = file.name
        raise
