# SPDX-License-Identifier: Apache-2.0
"""Running statistics, updated without normalizing anything."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anynorm import _core
from anynorm._moments import Moments
from anynorm._shared import Array, NonFinite, OneElement, compiled, documented


@compiled
@documented()
def update_running(
    running_mean: Array | None,
    running_var: Array | None,
    moments: Moments,
    momentum: float | None = 0.1,
    *,
    num_batches: npt.NDArray[np.int64] | None = None,
    correction: float = 1.0,
    pooled: Moments | None = None,
    nonfinite: NonFinite = "warn",
    one_element: OneElement = "raise",
) -> None:
    """Update running statistics once, in place, as a training call of `batch_norm` does.

    For moments that are not those of one call: of all micro-batches of a step, or of all processes.

    Parameters
    ----------
    running_mean, running_var : ndarray of float32 or float64 or None
        Shape (C,); both or neither, which leaves `pooled` to update.
    moments : Moments
        Shape (C,), or (N, C): the mean and the variance are averaged over N samples then, as `instance_norm` does.
    {momentum}
    {updating}
    nonfinite : {"warn", "skip", "raise", "propagate"}, default "warn"
        What becomes of the running statistics of a channel whose moments are not finite. "warn": they stay as they are,
        and a RuntimeWarning names the channel. "skip": without the warning. "raise": FloatingPointError, and those of
        all channels stay as they are. "propagate": they become NaN or infinite for good, as in PyTorch.
    one_element : {"raise", "bias"}, default "raise"
        What becomes of a channel whose count is not above `correction`, which has no variance to learn. "raise":
        ValueError. "bias", as `batch_norm` has it for the same batch: its running mean and variance stay as they are.

    Raises
    ------
    TypeError
        If an argument is not of the type said above.
    ValueError
        If a shape, an option or the memory of an array does not fit. Nothing has been written then.
    {not_finite}

    Notes
    -----
    Statistics that are merged over micro-batches before any of them is normalized are those of the whole batch, however
    small its parts; see the page on training.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> whole = np.array([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0], [7.0, 70.0]])
    >>> parts = whole[:2], whole[2:]
    >>> merged = anynorm.Moments.empty(2)
    >>> for part in parts:
    ...     merged.update(anynorm.moments(part, axis=0))
    >>> y = np.concatenate([anynorm.batch_norm(part, training=True, moments=merged) for part in parts])
    >>> bool(np.all(y == anynorm.batch_norm(whole, training=True)))
    True
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> anynorm.update_running(mean, var, merged, momentum=0.5)
    >>> mean, var.round(2)
    (array([ 2., 20.]), array([  3.83, 333.83]))
    """
    return _core.update_running(
        running_mean, running_var, moments, momentum, num_batches, correction, pooled, nonfinite, one_element
    )
