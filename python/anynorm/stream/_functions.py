# SPDX-License-Identifier: Apache-2.0
"""Moments and normalization of data that is read in parts."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from anynorm._merge import cells, positive_axes
from anynorm._moments import Axis, Moments
from anynorm._shared import Excluded, NanPolicy
from anynorm.functional import moments as moments_of
from anynorm.stream._output import open_output, open_result
from anynorm.stream._passes import Job, Normalizer, Path, Progress, sum_up
from anynorm.stream._selected import Selection
from anynorm.stream._sources import Array, Chunks, named, open_source

CHUNK_BYTES = 16 << 20


def moments(
    source: Path | Array | Chunks,
    axis: Axis | None = None,
    *,
    keepdims: bool = False,
    statistics: Path | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress = None,
    num_threads: SupportsIndex | None = None,
    labels: npt.ArrayLike | None = None,
    num_groups: SupportsIndex | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    nan_policy: NanPolicy = "propagate",
) -> Moments:
    """Compute the moments of data larger than memory, in one read.

    Parameters
    ----------
    source : path, ndarray or iterable of ndarrays
        A .npy file of float16, bfloat16, float32 or float64, in C or Fortran order; a memory map or any other array; or
        chunks that lie one after the other along axis 0, or a function that returns an iterable of them.
    axis : int or tuple of ints, optional
        The axes to reduce; all of them by default, as in `anynorm.moments`.
    keepdims : bool, default False
        Keep the reduced axes with length 1.
    statistics : path, optional
        A file to save the moments to while they are being summed, for a file or an array. If it is there, with
        statistics of the same data (shape, dtype, size, time of the last change, a sample of the bytes), the sum goes
        on from there; `load_moments` reads it when it is finished. It also remembers the axes, a hash of labels, mask
        and weights, and `nan_policy`.
    chunk_bytes : int, default 16 MiB
        How much is read at a time.
    progress : bool or callable, optional
        Whether to draw a bar on stderr; on a terminal only by default. Or a function of the bytes that are done and of
        all bytes (0 where the number is not known), which is called after every chunk.
    num_threads : int, optional
        As in `anynorm.moments`. The result does not depend on it.
    labels, num_groups, where, sample_weight : optional
        As in `anynorm.moments`: arrays or memory maps along all of the data, of which each block reads its part. Chunks
        have as many rows together as `labels` has. Without `num_groups` the largest label is looked for first.
    nan_policy : {"propagate", "omit", "raise"}, default "propagate"
        As in `anynorm.moments`. "raise" does so at the first block that has NaN.

    Returns
    -------
    Moments
        As of `anynorm.moments` in memory, to 1e-14 at any mean. Its bits depend on `chunk_bytes`, or on the chunks.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    TypeError
        If the data or an argument is not of the type said above.
    ValueError
        If a file is no .npy file or is truncated, chunks or axes do not fit, or `statistics` are those of other data.

    Notes
    -----
    Needs `chunk_bytes`, and about 100 bytes for every set. Where the axes are such that sets lie within a chunk, as in
    layer norm, the result has as many sets as the data.

    Sources: Chan, Golub, LeVeque, The American Statistician 37 (1983); the low parts of sums are kept as in Knuth, The
    Art of Computer Programming 2, 4.2.2.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> def chunks():
    ...     for start in range(0, 1_000, 100):
    ...         yield np.arange(start, start + 100, dtype=np.float64)
    >>> anynorm.stream.moments(chunks())
    Moments(shape=(), count=1000., mean=499.5, m2=83333250.)

    Of each label:

    >>> anynorm.stream.moments(chunks(), labels=np.arange(1_000) % 2).mean
    array([499., 500.])
    """
    caller = "stream.moments"
    selection = {"labels": labels, "num_groups": num_groups, "where": where, "sample_weight": sample_weight}
    selection["nan_policy"] = nan_policy
    with _job(source, axis, chunk_bytes, progress, num_threads, caller, selection) as job, named(caller):
        if job.source.shape[0] < 0 and 0 not in job.axes:
            if statistics is not None:
                raise ValueError("expected a file or an array with statistics, got an iterable of chunks")
            return _of_chunks(job, keepdims)
        return sum_up(job, statistics).moments(job.source.order, job.axes, keepdims, center=True)


def _of_chunks(job: Job, keepdims: bool) -> Moments:
    """Moments of sets that each lie within a chunk, and of which only the end of the chunks says how many there are."""
    with job.blocks("statistics") as blocks:
        parts = [
            moments_of(
                block.data, job.axes, keepdims=keepdims, num_threads=job.num_threads, **job.selection.of(block.index)
            )._cells.arrays()
            for block in blocks
        ]
    rows = 0 if job.selection.groups is None else 1
    return Moments._of(cells({name: np.concatenate([part[name] for part in parts], rows) for name in parts[0]}))


def normalize(
    source: Path | Array | Chunks,
    axis: Axis | None,
    out: Path | Array,
    *,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    center: bool = True,
    moments: Moments | None = None,
    dtype: npt.DTypeLike | None = None,
    statistics: Path | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress = None,
    num_threads: SupportsIndex | None = None,
    labels: npt.ArrayLike | None = None,
    num_groups: SupportsIndex | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
) -> Array:
    """Normalize data larger than memory along `axis` into a .npy file.

    Parameters
    ----------
    source : path, ndarray or iterable of ndarrays
        As for `moments`. Chunks are iterated twice if sets have elements in several of them and `moments` is left out,
        which a generator cannot be; a function that returns one can.
    axis : int or tuple of ints or None
        The axes along which elements share a mean and a variance; None for all of them.
    out : path or ndarray
        A .npy file to write, in the order of the data. It appears when all is done; what was there before is replaced
        then. Or an array of the shape of `source`, which may be `source` itself; it is half-written if the call fails.
    weight, bias : array_like, optional
        As in `anynorm.normalize`.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    center : bool, default True
        False holds the mean at 0, as RMS norm does.
    moments : Moments, optional
        Statistics to use instead of those of `source`, which is read once then.
    dtype : float16, bfloat16, float32 or float64, optional
        Of the result; that of the data by default.
    statistics : path, optional
        As for `moments`: an interrupted call goes on from there.
    chunk_bytes : int, default 16 MiB
        How much is read at a time.
    progress : bool or callable, optional
        As for `moments`; called for each of the passes.
    num_threads : int, optional
        As in `anynorm.normalize`. The result does not depend on it.
    labels, num_groups, where, sample_weight, nan_policy : optional
        As for `moments`.
    excluded : {"zero", "input", "keep"}, default "zero"
        What the result has at elements that are in no set: 0, the input there, or what an array `out` holds already.

    Returns
    -------
    ndarray
        `out`, or a read-only memory map of the file.

    Raises
    ------
    OSError
        If a file cannot be read or written, or there is no room for `out`. A file `out` is as it was before then.
    TypeError
        If the data or an argument is not of the type said above.
    ValueError
        As from `moments`; if a shape does not fit, or `out` is the file that is read.

    Notes
    -----
    Two passes, or one where every set lies within a chunk; the bits are those of `anynorm.normalize` then, but with
    labels, whose sums depend on what else there is. Otherwise
    they are those of `anynorm.normalize` with the moments of the first pass. Memory as for `moments`, and `chunk_bytes`
    for results.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import anynorm
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     big, out = pathlib.Path(folder, "big.npy"), pathlib.Path(folder, "out.npy")
    ...     np.save(big, np.array([[1.0, 10.0], [3.0, 30.0]], dtype=np.float32))
    ...     y = anynorm.stream.normalize(big, 0, out, eps=0)
    ...     print(y)
    [[-1. -1.]
     [ 1.  1.]]
    """
    caller = "stream.normalize"
    selection = {"labels": labels, "num_groups": num_groups, "where": where, "sample_weight": sample_weight}
    selection["nan_policy"] = nan_policy
    with _job(source, axis, chunk_bytes, progress, num_threads, caller, selection) as job, named(caller):
        _check_output(source, out, statistics, job)
        if excluded == "keep" and not isinstance(out, np.ndarray):
            raise ValueError("expected excluded to be 'zero' or 'input' for a new file, got 'keep'")
        parameters = {"weight": weight, "bias": bias, "eps": eps, "center": center, "excluded": excluded}
        normalizer = _prepared(job, parameters, moments, dtype, statistics)
        if isinstance(out, np.ndarray) and dtype is not None and out.dtype != normalizer.dtype:
            raise TypeError(f"expected out of dtype {normalizer.dtype}, got {out.dtype}")
        with open_output(out, job.source, normalizer.dtype) as output:
            _first_pass(job, normalizer, moments, statistics, center)
            with job.blocks("normalizing") as blocks:
                for block in blocks:
                    target = output.target(block)
                    normalizer.write(block, target)
                    output.written(target)
    return out if isinstance(out, np.ndarray) else open_result(out)


def normalize_chunks(
    chunks: Chunks,
    axis: Axis | None,
    *,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    center: bool = True,
    moments: Moments | None = None,
    dtype: npt.DTypeLike | None = None,
    num_threads: SupportsIndex | None = None,
    labels: npt.ArrayLike | None = None,
    num_groups: SupportsIndex | None = None,
    where: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    excluded: Excluded = "zero",
    nan_policy: NanPolicy = "propagate",
) -> Iterator[Array]:
    """Normalize chunks as if they were one array, and yield the results.

    Parameters
    ----------
    chunks : iterable of ndarrays, or a function that returns one
        As for `normalize`.
    axis : int or tuple of ints or None
        As for `normalize`.
    weight, bias : array_like, optional
        As in `anynorm.normalize`.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    center : bool, default True
        False holds the mean at 0, as RMS norm does.
    moments : Moments, optional
        Statistics to use instead of those of `chunks`, which are iterated once then.
    dtype : float16, bfloat16, float32 or float64, optional
        Of the results; that of the chunks by default.
    num_threads : int, optional
        As in `anynorm.normalize`.
    labels, num_groups, where, sample_weight, nan_policy : optional
        As for `moments`.
    excluded : {"zero", "input"}, default "zero"
        What the result has at elements that are in no set: 0, or the input there.

    Returns
    -------
    iterator of ndarrays
        For every chunk a new array of its shape. The first pass, if there is one, is done before it is returned.

    Raises
    ------
    TypeError, ValueError
        As from `normalize`, before the first chunk is returned.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> parts = [np.array([[1.0, 10.0]]), np.array([[3.0, 30.0]])]
    >>> list(anynorm.stream.normalize_chunks(parts, 0, eps=0))
    [array([[-1., -1.]]), array([[1., 1.]])]
    """
    caller = "stream.normalize_chunks"
    with named(caller):
        if isinstance(chunks, str | os.PathLike | np.ndarray):  # their blocks are those of memory
            raise TypeError(f"expected an iterable of chunks, got {type(chunks).__name__}")
        if excluded == "keep":
            raise ValueError("expected excluded to be 'zero' or 'input' for new arrays, got 'keep'")
        selection = {"labels": labels, "num_groups": num_groups, "where": where, "sample_weight": sample_weight}
        selection["nan_policy"] = nan_policy
        job = _job(chunks, axis, CHUNK_BYTES, False, num_threads, caller, selection)
        parameters = {"weight": weight, "bias": bias, "eps": eps, "center": center, "excluded": excluded}
        normalizer = _prepared(job, parameters, moments, dtype, None)
        _first_pass(job, normalizer, moments, None, center)
    return _results(job, normalizer, caller)


def _results(job: Job, normalizer: Normalizer, caller: str) -> Iterator[Array]:
    with named(caller), job.blocks("normalizing") as blocks:
        for block in blocks:
            yield normalizer.result(block)


def _job(
    source: Any,
    axis: Axis | None,
    chunk_bytes: int,
    progress: Progress,
    num_threads: SupportsIndex | None,
    caller: str,
    selection: dict[str, Any],
) -> Job:
    data = open_source(source, chunk_bytes, caller)
    try:
        axes, rank = positive_axes(caller, axis, len(data.order)), len(data.order)
        shape = tuple(data.shape[data.order.index(axis)] for axis in range(rank))
        with named(caller):
            selected = Selection(caller, shape, data.order, axes, **selection)
        return Job(data, axes, chunk_bytes, progress, num_threads, selected)
    except BaseException:
        data.close()
        raise


def _prepared(
    job: Job, parameters: Any, moments: Moments | None, dtype: npt.DTypeLike | None, statistics: Path | None
) -> Normalizer:
    """Check everything that can be before the data is read."""
    if moments is not None and statistics is not None:
        raise ValueError("expected moments or statistics, got both")
    if moments is None and job.source.splits(job.ordered_axes) and not job.source.rereadable:
        raise ValueError("expected moments, or chunks that can be iterated twice, got an iterator")
    return Normalizer(job, parameters, moments, dtype)


def _first_pass(
    job: Job, normalizer: Normalizer, moments: Moments | None, statistics: Path | None, center: bool
) -> None:
    if moments is None and (statistics is not None or job.source.splits(job.ordered_axes)):
        total = sum_up(job, statistics)
        if job.source.splits(job.ordered_axes):  # else the sets of a block are whole, and their own moments more exact
            normalizer.use(total, center)


def _check_output(source: Any, out: Any, statistics: Path | None, job: Job) -> None:
    if isinstance(out, np.ndarray):
        if out.shape != job.shape:
            raise ValueError(f"expected out of shape {job.shape}, got {out.shape}".replace("-1", "any"))
        same = isinstance(source, np.ndarray) and (
            out.__array_interface__["data"] == source.__array_interface__["data"]
            and out.strides == source.strides
            and out.dtype == source.dtype
        )
        if not same and isinstance(source, np.ndarray) and np.may_share_memory(out, source):
            raise ValueError("expected out of its own memory, or source itself, got an overlap")
        return
    read = source if isinstance(source, str | os.PathLike) else getattr(source, "filename", None)
    for name, other in (("source", read), ("statistics", statistics)):
        if other is not None and (os.path.realpath(out) == os.path.realpath(other) or _same_file(out, other)):
            raise ValueError(f"expected another file as out than {name}, got {out} for both")


def _same_file(a: Path, b: Path) -> bool:
    try:
        return pathlib.Path(a).samefile(b)
    except OSError:  # one does not exist
        return False
