# SPDX-License-Identifier: Apache-2.0
"""The .npy format as far as files are read and written in parts; numpy.lib.format has the rest."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy


class Header(NamedTuple):
    """What a .npy file says of its array, and where the elements begin."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    offset: int


def named(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Take 2 bytes of void, which is all that NumPy can write of it, for bfloat16 if ml_dtypes is installed."""
    if dtype == np.dtype("V2"):
        with suppress(ImportError):
            import ml_dtypes

            dtype = np.dtype(ml_dtypes.bfloat16)
    return dtype


def read_header(file: IO[bytes]) -> Header:
    """Read a header from the beginning of a file; ValueError if there is none."""
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"expected version 1.0 or 2.0 of the format, got {version[0]}.{version[1]}")
    shape, fortran_order, dtype = read(file)
    return Header(shape, fortran_order, named(dtype), file.tell())


def header_bytes(shape: tuple[int, ...], fortran_order: bool, dtype: np.dtype[Any]) -> bytes:
    """Write a header; as long for any length of the outermost axis, so that it can be corrected in place."""
    buffer = io.BytesIO()
    npy.write_array_header_1_0(
        buffer, {"shape": shape, "fortran_order": fortran_order, "descr": npy.dtype_to_descr(dtype)}
    )
    return buffer.getvalue()
