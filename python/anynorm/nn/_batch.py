# SPDX-License-Identifier: Apache-2.0
"""Batch norm as a layer."""

from __future__ import annotations

from operator import index
from typing import Self, SupportsIndex

import numpy as np
import numpy.typing as npt

from anynorm._channel_backward import batch_norm_backward
from anynorm._channel_norms import batch_norm
from anynorm._gradients import Gradients
from anynorm._shared import Array, NonFinite, OneElement, SelectionTail
from anynorm.nn._loaders import adopt, dtype_of, share_of_new
from anynorm.nn._norm import Saved
from anynorm.nn._running import RunningNorm


class BatchNorm(RunningNorm):
    """Normalize each channel over everything else; in evaluation with the running statistics.

    Parameters
    ----------
    num_features : int
        The number of channels, C.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    momentum : float or None, default 0.1
        The share of the new value in the running statistics: ``running = (1 - momentum) * running + momentum * new``,
        as in PyTorch. What Keras, Flax and ONNX call momentum is 1 minus this. None: the average of all batches alike.
    affine : bool, default True
        Whether there are a weight and a bias.
    track_running_stats : bool, default True
        Whether there are running statistics. False: every batch is normalized with its own, in evaluation too.
    channel_axis : int, default 1
        The axis of the channels; -1 for data with the channels last.
    dtype : float16, bfloat16, float32 or float64, default float32
        Of weight and bias. The running statistics are of float64 where this is, else of float32.
    bias : bool, default True
        False: no bias, where `affine` brings one.
    correction : float, default 1
        1: the running variance is the unbiased one, as in PyTorch. 0: that of the population, as in Keras, Flax, ONNX.
    nonfinite : {"warn", "skip", "raise", "propagate"}, default "warn"
        What becomes of the running statistics of a channel whose batch has a NaN or an infinity; see `batch_norm`.
    one_element : {"raise", "bias"}, default "raise"
        What becomes of a training batch with one element per channel; see `batch_norm`.

    Attributes
    ----------
    weight, bias : ndarray or None
        Shape (C,); 1 and 0 in a new layer.
    grad_weight, grad_bias : ndarray or None
        Their gradients, to which every backward call adds.
    running_mean, running_var : ndarray of float32 or float64, or None
        Shape (C,); 0 and 1 in a new layer. Updated in place by every forward call in training mode.
    num_batches_tracked : ndarray of int64, or None
        Shape (); how many calls have done so.

    Raises
    ------
    TypeError
        If `dtype` is another one.
    ValueError
        If `num_features` is negative.

    Notes
    -----
    Input of shape (N, C, ...), or with C where `channel_axis` says; in training with more than one element per channel.

    Ioffe, Szegedy: Batch Normalization, arXiv:1502.03167.

    Examples
    --------
    >>> import numpy as np
    >>> from anynorm import nn
    >>> layer = nn.BatchNorm(2)
    >>> layer
    BatchNorm(2, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    >>> layer(np.array([[1.0, 10.0], [3.0, 30.0]])).round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> layer.running_mean, layer.running_var
    (array([0.2, 2. ], dtype=float32), array([ 1.1, 20.9], dtype=float32))
    >>> layer.eval()(np.array([[1.2, 6.0]])).round(3)
    array([[0.953, 0.875]])
    """

    def __init__(
        self,
        num_features: SupportsIndex,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        channel_axis: SupportsIndex = 1,
        dtype: npt.DTypeLike = np.float32,
        bias: bool = True,
        correction: float = 1,
        nonfinite: NonFinite = "warn",
        one_element: OneElement = "raise",
    ) -> None:
        self.channel_axis = index(channel_axis)
        self.eps, self.momentum = eps, momentum
        self.correction, self.nonfinite, self.one_element = correction, nonfinite, one_element
        self._make_arrays(num_features, affine, bias, track_running_stats, dtype)

    @classmethod
    def from_keras(
        cls,
        gamma: npt.ArrayLike | None,
        beta: npt.ArrayLike | None,
        moving_mean: npt.ArrayLike,
        moving_variance: npt.ArrayLike,
        *,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        axis: SupportsIndex = -1,
    ) -> Self:
        """Make the layer of the weights and settings of Keras' ``BatchNormalization``.

        Parameters
        ----------
        gamma, beta : array_like or None
            Shape (C,); None where the layer has ``scale=False`` or ``center=False``. With both,
            ``BatchNorm.from_keras(*layer.get_weights())`` passes all four.
        moving_mean, moving_variance : array_like
            Shape (C,).
        momentum : float, default 0.99
            Keras' momentum, the share of the old value.
        epsilon : float, default 1e-3
            Added to the variance.
        axis : int, default -1
            Keras' name for the axis of the channels.

        Returns
        -------
        BatchNorm
            In training mode, as every new layer; its running variance goes on as that of the population.

        Raises
        ------
        TypeError, ValueError
            As `load_state_dict`.

        Examples
        --------
        >>> from anynorm import nn
        >>> nn.BatchNorm.from_keras([1.0, 1.0], [0.0, 0.0], [5.0, 6.0], [1.0, 4.0])
        BatchNorm(2, eps=0.001, momentum=0.01, affine=True, bias=True, track_running_stats=True, channel_axis=-1, correction=0)
        """
        dtype = dtype_of(gamma, beta, moving_mean)
        share = share_of_new(momentum)
        layer = cls(np.size(moving_mean), epsilon, share, channel_axis=axis, dtype=dtype, correction=0)
        return adopt(layer, "keras", weight=gamma, bias=beta, running_mean=moving_mean, running_var=moving_variance)

    @classmethod
    def from_onnx(
        cls,
        scale: npt.ArrayLike,
        B: npt.ArrayLike,
        input_mean: npt.ArrayLike,
        input_var: npt.ArrayLike,
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.9,
    ) -> Self:
        """Make the layer of the inputs and attributes of ONNX's ``BatchNormalization``.

        Parameters
        ----------
        scale, B, input_mean, input_var : array_like
            Shape (C,).
        epsilon : float, default 1e-5
            Added to the variance.
        momentum : float, default 0.9
            ONNX's momentum, the share of the old value.

        Returns
        -------
        BatchNorm
            In training mode, as every new layer; its running variance goes on as that of the population.

        Raises
        ------
        TypeError, ValueError
            As `load_state_dict`.

        Examples
        --------
        >>> import numpy as np
        >>> from anynorm import nn
        >>> layer = nn.BatchNorm.from_onnx([2.0], [1.0], [5.0], [4.0], epsilon=0.0).eval()
        >>> layer(np.array([[5.0], [7.0]]))
        array([[1.],
               [3.]])
        """
        dtype = dtype_of(scale, B, input_mean)
        layer = cls(np.size(input_mean), epsilon, share_of_new(momentum), dtype=dtype, correction=0)
        return adopt(layer, "onnx", weight=scale, bias=B, running_mean=input_mean, running_var=input_var)

    def _forward(self, x: Array, selection: SelectionTail) -> tuple[Array, Saved]:
        frozen = not self.training and self.running_mean is not None
        # In evaluation without running statistics there is nothing to count either.
        tracked = self.num_batches_tracked if self.training else None
        y, moments = batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, not frozen, self.momentum, self.eps,
            channel_axis=self.channel_axis, num_batches=tracked, correction=self.correction, nonfinite=self.nonfinite,
            one_element=self.one_element, return_moments=True, **selection,
        )  # fmt: skip
        return y, Saved(x, moments, selection, frozen)

    def _backward(self, grad_output: npt.ArrayLike, saved: Saved) -> Gradients:
        return batch_norm_backward(
            grad_output, saved.x, None, None, self.weight, self.bias, not saved.frozen,
            eps=self.eps, channel_axis=self.channel_axis, moments=saved.moments, **saved.selection,
        )  # fmt: skip

    def _with_others(self, usual: str, **others: tuple[object, object]) -> str:
        policies = {"nonfinite": (self.nonfinite, "warn"), "one_element": (self.one_element, "raise")}
        return super()._with_others(usual, **others, correction=(self.correction, 1), **policies)
