# SPDX-License-Identifier: Apache-2.0
"""The memory of large results, kept for the next one."""

from __future__ import annotations

from typing import NamedTuple, SupportsIndex

from anynorm import _core


class ResultPool(NamedTuple):
    """What the pool of results holds, in bytes."""

    held: int
    """Memory that is free and not given back to the system."""

    max_bytes: int
    """The most that is held."""


def result_pool() -> ResultPool:
    """Tell how much memory is held for results to come.

    Returns
    -------
    ResultPool
        ``held`` and ``max_bytes``. Arrays that are alive are not counted.

    Raises
    ------
    ValueError
        If the environment variable ``ANYNORM_POOL_BYTES``, which is read when the pool is first used, is no number of
        bytes.

    Notes
    -----
    The memory of a result of 2 MiB or more is whole huge pages, aligned to them. When the array is gone, it is kept for
    the next result of that size, which then need not wait for the system to find and clear pages.

    Examples
    --------
    >>> import anynorm
    >>> pool = anynorm.result_pool()
    >>> 0 <= pool.held <= pool.max_bytes
    True
    """
    return ResultPool(*_core.result_pool())


def set_result_pool(max_bytes: SupportsIndex) -> None:
    """Choose how much memory is held for results to come; what is held beyond is given back at once.

    Parameters
    ----------
    max_bytes : int
        128 MiB by default, or what ``ANYNORM_POOL_BYTES`` says. With 0 all results come from NumPy's own allocator.

    Raises
    ------
    TypeError
        If it is no int.
    ValueError
        If it is negative.

    Examples
    --------
    >>> import anynorm
    >>> before = anynorm.result_pool().max_bytes
    >>> anynorm.set_result_pool(0)
    >>> anynorm.result_pool()
    ResultPool(held=0, max_bytes=0)
    >>> anynorm.set_result_pool(before)
    """
    _core.set_result_pool(max_bytes)


def empty_result_pool() -> None:
    """Give all memory that is held for results to come back to the system.

    Examples
    --------
    >>> import anynorm
    >>> anynorm.empty_result_pool()
    >>> anynorm.result_pool().held
    0
    """
    _core.empty_result_pool()
