# SPDX-License-Identifier: Apache-2.0
"""Instance norm and group norm as layers."""

from __future__ import annotations

from operator import index
from typing import Self, SupportsIndex

import numpy as np
import numpy.typing as npt

from anynorm._channel_backward import group_norm_backward, instance_norm_backward
from anynorm._channel_norms import group_norm, instance_norm
from anynorm._gradients import Gradients
from anynorm._shared import Array, SelectionTail
from anynorm.nn._loaders import adopt, common_shape, dtype_of
from anynorm.nn._norm import ChannelNorm, Saved
from anynorm.nn._running import RunningNorm


class InstanceNorm(RunningNorm):
    """Normalize each channel of each sample.

    Parameters
    ----------
    num_features : int
        The number of channels, C.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    momentum : float, default 0.1
        The share of the new value in the running statistics, as in PyTorch.
    affine : bool, default False
        Whether there are a weight and a bias. Not by default, as in PyTorch.
    track_running_stats : bool, default False
        Whether there are running statistics, which are then used in evaluation. Not by default, as in PyTorch.
    channel_axis : int, default 1
        The axis of the channels; -1 for data with the channels last.
    dtype : float16, bfloat16, float32 or float64, default float32
        Of weight and bias. The running statistics are of float64 where this is, else of float32.
    bias : bool, default True
        False: no bias, where `affine` brings one.

    Attributes
    ----------
    weight, bias : ndarray or None
        Shape (C,); 1 and 0 in a new layer.
    grad_weight, grad_bias : ndarray or None
        Their gradients, to which every backward call adds.
    running_mean, running_var : ndarray of float32 or float64, or None
        Shape (C,); 0 and 1 in a new layer. Every forward call in training mode updates them in place with the average
        over the samples.
    num_batches_tracked : ndarray of int64, or None
        Shape (). In the checkpoint, and never counted up, as in PyTorch.

    Raises
    ------
    TypeError
        If `dtype` is another one.
    ValueError
        If `num_features` is negative.

    Notes
    -----
    Input of shape (N, C, ...), or with C where `channel_axis` says.

    Ulyanov, Vedaldi, Lempitsky: Instance Normalization, arXiv:1607.08022.

    Examples
    --------
    >>> import numpy as np
    >>> from anynorm import nn
    >>> layer = nn.InstanceNorm(2)
    >>> layer
    InstanceNorm(2, eps=1e-05, momentum=0.1, affine=False, bias=False, track_running_stats=False)
    >>> layer(np.array([[[1.0, 3.0], [10.0, 30.0]]])).round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """

    momentum: float

    def __init__(
        self,
        num_features: SupportsIndex,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        channel_axis: SupportsIndex = 1,
        dtype: npt.DTypeLike = np.float32,
        bias: bool = True,
    ) -> None:
        self.channel_axis = index(channel_axis)
        self.eps, self.momentum = eps, momentum
        self._make_arrays(num_features, affine, bias, track_running_stats, dtype)

    @classmethod
    def from_onnx(cls, scale: npt.ArrayLike, B: npt.ArrayLike, *, epsilon: float = 1e-5) -> Self:
        """Make the layer of the inputs and attributes of ONNX's ``InstanceNormalization``.

        Parameters
        ----------
        scale, B : array_like
            Shape (C,).
        epsilon : float, default 1e-5
            Added to the variance.

        Returns
        -------
        InstanceNorm

        Raises
        ------
        TypeError, ValueError
            As `load_state_dict`.

        Examples
        --------
        >>> from anynorm import nn
        >>> nn.InstanceNorm.from_onnx([1.0, 2.0], [0.0, 0.0])
        InstanceNorm(2, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=False)
        """
        layer = cls(np.size(scale), epsilon, affine=True, dtype=dtype_of(scale, B))
        return adopt(layer, "onnx", weight=scale, bias=B)

    def _forward(self, x: Array, selection: SelectionTail) -> tuple[Array, Saved]:
        frozen = not self.training and self.running_mean is not None
        y, moments = instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, not frozen, self.momentum, self.eps,
            channel_axis=self.channel_axis, return_moments=True, **selection,
        )  # fmt: skip
        return y, Saved(x, moments, selection, frozen)

    def _backward(self, grad_output: npt.ArrayLike, saved: Saved) -> Gradients:
        return instance_norm_backward(
            grad_output, saved.x, None, None, self.weight, self.bias, not saved.frozen,
            eps=self.eps, channel_axis=self.channel_axis, moments=saved.moments, **saved.selection,
        )  # fmt: skip


class GroupNorm(ChannelNorm):
    """Normalize each sample over groups of consecutive channels.

    Parameters
    ----------
    num_groups : int
        A divisor of the number of channels; 1 makes one group of all channels.
    num_channels : int
        The number of channels, C.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    affine : bool, default True
        Whether there are a weight and a bias.
    channel_axis : int, default 1
        The axis of the channels; -1 for data with the channels last.
    dtype : float16, bfloat16, float32 or float64, default float32
        Of weight and bias.
    bias : bool, default True
        False: no bias, where `affine` brings one.

    Attributes
    ----------
    weight, bias : ndarray or None
        Shape (C,); 1 and 0 in a new layer.
    grad_weight, grad_bias : ndarray or None
        Their gradients, to which every backward call adds.

    Raises
    ------
    TypeError
        If `dtype` is another one.
    ValueError
        If `num_groups` does not divide `num_channels`, or that is negative.

    Notes
    -----
    Input of shape (N, C, ...), or with C where `channel_axis` says.

    Wu, He: Group Normalization, arXiv:1803.08494.

    Examples
    --------
    >>> import numpy as np
    >>> from anynorm import nn
    >>> layer = nn.GroupNorm(2, 4, eps=0)
    >>> layer
    GroupNorm(2, 4, eps=0, affine=True, bias=True)
    >>> layer(np.array([[1.0, 3.0, 10.0, 30.0]]))
    array([[-1.,  1., -1.,  1.]])
    """

    eps: float

    def __init__(
        self,
        num_groups: SupportsIndex,
        num_channels: SupportsIndex,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        channel_axis: SupportsIndex = 1,
        dtype: npt.DTypeLike = np.float32,
        bias: bool = True,
    ) -> None:
        self.num_groups, self.num_channels = index(num_groups), index(num_channels)
        if self.num_groups < 1 or self.num_channels % self.num_groups:
            expected = f"num_groups that divides {self.num_channels} channels"
            raise ValueError(f"GroupNorm: expected {expected}, got {self.num_groups}")
        self.eps, self.channel_axis = eps, index(channel_axis)
        self._make_parameters((self.num_channels,), affine, affine and bias, dtype)

    @classmethod
    def from_keras(
        cls,
        gamma: npt.ArrayLike | None,
        beta: npt.ArrayLike | None,
        groups: SupportsIndex = 32,
        *,
        axis: SupportsIndex = -1,
        epsilon: float = 1e-3,
    ) -> Self:
        """Make the layer of the weights and settings of Keras' ``GroupNormalization``.

        Parameters
        ----------
        gamma, beta : array_like or None
            Shape (C,). One of them may be None, as with ``scale=False``.
        groups : int, default 32
            The number of groups; -1 for as many as there are channels.
        axis : int, default -1
            Keras' name for the axis of the channels.
        epsilon : float, default 1e-3
            Added to the variance.

        Returns
        -------
        GroupNorm

        Raises
        ------
        TypeError
            As `load_state_dict`.
        ValueError
            If the shapes differ, both arrays are None, or `groups` does not divide the channels.

        Examples
        --------
        >>> from anynorm import nn
        >>> nn.GroupNorm.from_keras([1.0] * 64, [0.0] * 64)
        GroupNorm(32, 64, eps=0.001, affine=True, bias=True, channel_axis=-1)
        """
        instead = "GroupNorm(groups, num_channels, eps=epsilon, affine=False, channel_axis=axis)"
        shape = common_shape("GroupNorm.from_keras", instead, gamma=gamma, beta=beta)
        channels = int(np.prod(shape))
        num_groups = channels if index(groups) == -1 else groups
        layer = cls(num_groups, channels, epsilon, channel_axis=axis, dtype=dtype_of(gamma, beta))
        return adopt(layer, "keras", weight=gamma, bias=beta)

    @classmethod
    def from_onnx(
        cls, scale: npt.ArrayLike, bias: npt.ArrayLike, *, num_groups: SupportsIndex, epsilon: float = 1e-5
    ) -> Self:
        """Make the layer of the inputs and attributes of ONNX's ``GroupNormalization``.

        Parameters
        ----------
        scale, bias : array_like
            Shape (C,), as from opset 21 on. Opset 18 had one value for each group; ``numpy.repeat`` makes the others.
        num_groups : int
            A divisor of the number of channels.
        epsilon : float, default 1e-5
            Added to the variance.

        Returns
        -------
        GroupNorm

        Raises
        ------
        TypeError
            As `load_state_dict`.
        ValueError
            If the shapes differ, or `num_groups` does not divide the channels.

        Examples
        --------
        >>> from anynorm import nn
        >>> nn.GroupNorm.from_onnx([1.0, 2.0], [0.0, 0.0], num_groups=1)
        GroupNorm(1, 2, eps=1e-05, affine=True, bias=True)
        """
        layer = cls(num_groups, np.size(scale), epsilon, dtype=dtype_of(scale, bias))
        return adopt(layer, "onnx", weight=scale, bias=bias)

    def _forward(self, x: Array, selection: SelectionTail) -> tuple[Array, Saved]:
        y, moments = group_norm(
            x, self.num_groups, self.weight, self.bias, self.eps,
            channel_axis=self.channel_axis, return_moments=True, **selection,
        )  # fmt: skip
        return y, Saved(x, moments, selection)

    def _backward(self, grad_output: npt.ArrayLike, saved: Saved) -> Gradients:
        return group_norm_backward(
            grad_output, saved.x, self.num_groups, self.weight, self.bias, self.eps,
            channel_axis=self.channel_axis, moments=saved.moments, **saved.selection,
        )  # fmt: skip

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self._check_channels(shape, self.num_channels)

    def _describe(self) -> str:
        usual = f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.weight is not None}"
        usual += f", bias={self.bias is not None}"
        return self._with_others(usual)
