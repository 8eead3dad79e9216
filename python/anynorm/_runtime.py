# SPDX-License-Identifier: Apache-2.0
"""What runs: instruction set and threads."""

from __future__ import annotations

from anynorm import _core


def available_isas() -> tuple[str, ...]:
    """Name the instruction sets that kernels exist for and this CPU can run.

    Returns
    -------
    tuple of str
        Slowest first: some of ``"baseline"``, ``"avx2"``, ``"avx512"``, ``"neon"``.

    Examples
    --------
    >>> import anynorm
    >>> "baseline" in anynorm.available_isas()
    True
    """
    return _core.available_isas()


def active_isa() -> str:
    """Name the instruction set in use.

    Returns
    -------
    str
        The fastest available one, unless the environment variable ``ANYNORM_ISA`` or `use_isa` chose another.

    Raises
    ------
    ValueError
        If ``ANYNORM_ISA``, which is read at the first call, names one that is unknown or not available.

    Examples
    --------
    >>> import anynorm
    >>> anynorm.active_isa() in anynorm.available_isas()
    True
    """
    return _core.active_isa()


def use_isa(name: str) -> None:
    """Choose the instruction set of all later calls in this process.

    Parameters
    ----------
    name : str
        One of `available_isas`.

    Raises
    ------
    ValueError
        If it is not available.

    Notes
    -----
    ``avx2``, ``avx512`` and ``neon`` give the same bits; ``baseline`` has no fused multiply-add and is outside that
    promise.

    Examples
    --------
    >>> import anynorm
    >>> before = anynorm.active_isa()
    >>> anynorm.use_isa("baseline")
    >>> anynorm.active_isa()
    'baseline'
    >>> anynorm.use_isa(before)
    """
    _core.use_isa(name)


def max_threads() -> int:
    """Count the threads that a call uses when `num_threads` is left out.

    Returns
    -------
    int
        What OpenMP says at this moment, so that ``OMP_NUM_THREADS`` and threadpoolctl are obeyed; 1 without OpenMP,
        and in a child made by ``os.fork``, where OpenMP runtimes hang. Calls at the same time, from several Python
        threads, share that number: one uses what the others leave, at least its own thread.

    Examples
    --------
    >>> import anynorm
    >>> anynorm.max_threads() >= 1
    True
    """
    return _core.max_threads()
