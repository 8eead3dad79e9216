# SPDX-License-Identifier: Apache-2.0
"""Batch renormalization as a layer."""

from __future__ import annotations

from operator import index
from typing import Any, NamedTuple, SupportsIndex, cast

import numpy as np
import numpy.typing as npt

from anynorm._batch_renorm import batch_renorm, batch_renorm_backward
from anynorm._gradients import Gradients
from anynorm._shared import Array, NonFinite, OneElement, SelectionTail
from anynorm.nn._norm import Saved
from anynorm.nn._running import RunningNorm


class Corrections(NamedTuple):
    """What r and d of a forward call are made of, which its update of the running statistics changes."""

    running_mean: Array
    running_var: Array
    r_max: float
    d_max: float


class BatchRenorm(RunningNorm):
    """Batch norm whose training is corrected towards the running statistics, for small batches.

    Parameters
    ----------
    num_features : int
        The number of channels, C.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    momentum : float or None, default 0.01
        The share of the new value in the running statistics, as in PyTorch. Small, because r and d lean on them. None:
        the average of all batches alike.
    affine : bool, default True
        Whether there are a weight and a bias.
    r_max : float, default 3
        The correction of the deviation is between ``1 / r_max`` and `r_max`; at least 1.
    d_max : float, default 5
        The correction of the mean is between ``-d_max`` and `d_max`; at least 0.
    channel_axis : int, default 1
        The axis of the channels; -1 for data with the channels last.
    dtype : float16, bfloat16, float32 or float64, default float32
        Of weight and bias. The running statistics are of float64 where this is, else of float32.
    bias : bool, default True
        False: no bias, where `affine` brings one.
    correction : float, default 1
        As of `BatchNorm`.
    nonfinite : {"warn", "skip", "raise", "propagate"}, default "warn"
        As of `BatchNorm`.
    one_element : {"raise", "bias"}, default "raise"
        What becomes of a training batch with one element per channel; see `batch_renorm`.

    Attributes
    ----------
    weight, bias, grad_weight, grad_bias, running_mean, running_var, num_batches_tracked
        As of `BatchNorm`, and so are the keys of a checkpoint: each loads those of the other.
    momentum, r_max, d_max : float
        Plain attributes, which a schedule sets between steps: every forward call uses what they are, and its backward
        call what they were.

    Raises
    ------
    TypeError
        If `dtype` is another one.
    ValueError
        If `num_features` is negative.

    Notes
    -----
    Ioffe: Batch Renormalization, arXiv:1702.03275, which begins with ``r_max=1`` and ``d_max=0``, hence batch norm, for
    5000 steps and relaxes them to 3 and 5 until steps 40,000 and 25,000. Without labels and segments, whose running
    statistics there are not.

    Examples
    --------
    >>> import numpy as np
    >>> from anynorm import nn
    >>> layer = nn.BatchRenorm(1, momentum=0.5)
    >>> layer
    BatchRenorm(1, eps=1e-05, momentum=0.5, affine=True, bias=True, r_max=3.0, d_max=5.0)
    >>> x = np.array([[1.0], [3.0]])
    >>> layer(x).round(3)
    array([[1.],
           [3.]])
    >>> layer.running_mean, layer.running_var
    (array([1.], dtype=float32), array([1.5], dtype=float32))

    A schedule:

    >>> for step in range(5):
    ...     layer.r_max, layer.d_max = 1 + 2 * min(step / 4, 1), 5 * min(step / 4, 1)
    """

    r_max: float
    d_max: float

    def __init__(
        self,
        num_features: SupportsIndex,
        eps: float = 1e-5,
        momentum: float | None = 0.01,
        affine: bool = True,
        *,
        r_max: float = 3.0,
        d_max: float = 5.0,
        channel_axis: SupportsIndex = 1,
        dtype: npt.DTypeLike = np.float32,
        bias: bool = True,
        correction: float = 1,
        nonfinite: NonFinite = "warn",
        one_element: OneElement = "raise",
    ) -> None:
        self.channel_axis = index(channel_axis)
        self.eps, self.momentum, self.r_max, self.d_max = eps, momentum, r_max, d_max
        self.correction, self.nonfinite, self.one_element = correction, nonfinite, one_element
        self._make_arrays(num_features, affine, bias, True, dtype)

    def _forward(self, x: Array, selection: SelectionTail) -> tuple[Array, Saved]:
        mean, var = cast(Array, self.running_mean), cast(Array, self.running_var)
        # Before the update; of C numbers, where x has many times as many.
        before = Corrections(mean.copy(), var.copy(), self.r_max, self.d_max)
        chosen = cast(Any, selection)  # labels and segments are refused by the function
        y, moments = batch_renorm(
            x, mean, var, self.weight, self.bias, self.training, self.momentum, self.eps,
            r_max=self.r_max, d_max=self.d_max, channel_axis=self.channel_axis,
            num_batches=self.num_batches_tracked if self.training else None, correction=self.correction,
            nonfinite=self.nonfinite, one_element=self.one_element, return_moments=True, **chosen,
        )  # fmt: skip
        return y, Saved(x, moments, selection, not self.training, before)

    def _backward(self, grad_output: npt.ArrayLike, saved: Saved) -> Gradients:
        before = cast(Corrections, saved.corrections)
        chosen = cast(Any, saved.selection)
        return batch_renorm_backward(
            grad_output, saved.x, before.running_mean, before.running_var, self.weight, self.bias, not saved.frozen,
            eps=self.eps, r_max=before.r_max, d_max=before.d_max, channel_axis=self.channel_axis,
            moments=saved.moments, **chosen,
        )  # fmt: skip

    def _describe(self) -> str:
        usual = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.weight is not None}"
        usual += f", bias={self.bias is not None}, r_max={self.r_max}, d_max={self.d_max}"
        policies = {"nonfinite": (self.nonfinite, "warn"), "one_element": (self.one_element, "raise")}
        return self._with_others(usual, correction=(self.correction, 1), **policies)
