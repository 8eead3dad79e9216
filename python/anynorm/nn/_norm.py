# SPDX-License-Identifier: Apache-2.0
"""What the five norms have in common as layers: a weight, a bias, and a forward call that keeps what backward needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Unpack, cast

import numpy as np
import numpy.typing as npt

from anynorm._gradients import Gradients
from anynorm._moments import Moments
from anynorm._shared import Array, SelectionTail
from anynorm.nn._layer import Layer, parameter_dtype


class Saved(NamedTuple):
    """What a forward call keeps for its backward call."""

    x: Array
    """The input itself, not a copy."""
    moments: Moments
    """The statistics that were used."""
    selection: SelectionTail
    """Which elements were in which set."""
    frozen: bool = False
    """Whether they were running statistics, through which no gradient flows."""
    corrections: object = None
    """What else the layer needs."""


class Norm(Layer, ABC):
    """A layer of one norm; the subclasses say which."""

    parameter_names: ClassVar[tuple[str, ...]] = ("weight", "bias")

    weight: Array | None
    bias: Array | None
    grad_weight: Array | None
    grad_bias: Array | None
    eps: float | None

    _saved: Saved | None = None

    def _make_parameters(self, shape: tuple[int, ...], weight: bool, bias: bool, dtype: npt.DTypeLike) -> None:
        kind = parameter_dtype(type(self).__name__, dtype)
        if min(shape) < 0:
            raise ValueError(f"{type(self).__name__}: expected lengths of at least 0, got {min(shape)}")
        self.weight = np.ones(shape, kind) if weight else None
        self.bias = np.zeros(shape, kind) if bias else None
        self.grad_weight = np.zeros(shape, kind) if weight else None
        self.grad_bias = np.zeros(shape, kind) if bias else None

    def forward(self, x: npt.ArrayLike, **selection: Unpack[SelectionTail]) -> Array:
        """Normalize `x`, and keep what the backward call needs: `x` itself, without a copy, and its statistics.

        Parameters
        ----------
        x : array_like of float16, bfloat16, float32 or float64
            Any strides; never copied if it is an ndarray. The mask of a masked array is that of `where`. Neither `x` nor
            the parameters may change before the backward call. The layer holds on to `x` until then, or until the next
            forward call.
        **selection
            ``where``, ``sample_weight``, ``labels``, ``segments``, ``excluded`` and ``nan_policy`` as of the function of
            the layer's name, such as `batch_norm`, for this call and its backward call: a mask keeps the padding of
            sentences out of the statistics. In training, running statistics learn from what is selected.

        Returns
        -------
        ndarray
            Shape, dtype and memory order of `x`.

        Raises
        ------
        TypeError
            If `x` has another dtype, or there is no such keyword.
        ValueError
            If its shape does not fit the layer, or a selection does not fit `x`; if labels or segments divide the sets of
            a layer with running statistics. Nothing has changed then, neither the running statistics nor what is kept of
            an earlier call.

        Examples
        --------
        >>> import numpy as np
        >>> from anynorm import nn
        >>> layer = nn.BatchNorm(1)
        >>> sentence = np.array([[[1.0, 3.0, 0.0, 0.0]]])  # two words and padding
        >>> layer(sentence, where=np.array([True, True, False, False])).round(3)
        array([[[-1.,  1.,  0.,  0.]]])
        >>> layer.running_mean
        array([0.2], dtype=float32)
        """
        array: Array = x if isinstance(x, np.ndarray) else np.asarray(x)
        self._check_shape(array.shape)
        y, self._saved = self._forward(array, selection)
        return y

    def __call__(self, x: npt.ArrayLike, **selection: Unpack[SelectionTail]) -> Array:
        """Call `forward`."""
        return self.forward(x, **selection)

    def backward(self, grad_output: npt.ArrayLike) -> Array:
        """Add to the gradients of the parameters, and compute that of the last forward call's `x`.

        The mode is that of the forward call: after one that used running statistics they are constants.

        Parameters
        ----------
        grad_output : array_like of float16, bfloat16, float32 or float64
            Shape of `x`. The gradient of a loss with respect to the result of the forward call.

        Returns
        -------
        ndarray
            Shape, dtype and memory order of `x`.

        Raises
        ------
        RuntimeError
            If there was no forward call since the last backward call, which has let go of what was kept.
        TypeError
            If `grad_output` has another dtype.
        ValueError
            If its shape is not that of `x`. The gradients have not changed then.
        """
        if self._saved is None:
            raise RuntimeError(f"{type(self).__name__}.backward: expected a forward call before each backward call")
        gradients = self._backward(grad_output, self._saved)
        self._saved = None
        if self.grad_weight is not None and gradients.grad_weight is not None:
            self.grad_weight += gradients.grad_weight
        if self.grad_bias is not None and gradients.grad_bias is not None:
            self.grad_bias += gradients.grad_bias
        return cast(Array, gradients.grad_input)

    @abstractmethod
    def _forward(self, x: Array, selection: SelectionTail) -> tuple[Array, Saved]:
        """Normalize `x`, whose shape fits."""

    @abstractmethod
    def _backward(self, grad_output: npt.ArrayLike, saved: Saved) -> Gradients:
        """Compute all gradients that the layer has."""

    @abstractmethod
    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse the shape of an input that does not fit the layer."""

    def _refuse(self, expected: str, shape: tuple[int, ...]) -> ValueError:
        return ValueError(f"{type(self).__name__}: expected x with {expected}, got shape {shape}")

    def _with_others(self, usual: str, **others: tuple[object, object]) -> str:
        """The usual arguments as text, then those of the others, as (value, default), that differ from the default."""
        parameters = self.parameters().values()
        others["dtype"] = (next((array.dtype.name for array in parameters), "float32"), "float32")
        unusual = [f"{name}={value!r}" for name, (value, default) in others.items() if value != default]
        return ", ".join([usual, *unusual])

    def __getstate__(self) -> dict[str, object]:
        # A copied or pickled layer takes no activations along.
        return {name: value for name, value in self.__dict__.items() if name != "_saved"}


class ChannelNorm(Norm):
    """A norm of data with channels, to which weight and bias belong."""

    channel_axis: int

    def _check_channels(self, shape: tuple[int, ...], channels: int) -> None:
        axis = self.channel_axis
        if not -len(shape) <= axis < len(shape) or shape[axis] != channels:
            raise self._refuse(f"{channels} channels on axis {axis}", shape)

    def _with_others(self, usual: str, **others: tuple[object, object]) -> str:
        return super()._with_others(usual, channel_axis=(self.channel_axis, 1), **others)
