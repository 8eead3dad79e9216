# SPDX-License-Identifier: Apache-2.0
"""Weight norm: the length and the direction of a weight as parameters of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import index
from typing import ClassVar, SupportsIndex, cast

import numpy as np
import numpy.typing as npt

from anynorm._axis_backward import normalize_backward
from anynorm._engine import normalize
from anynorm._moments import Moments
from anynorm._shared import Array
from anynorm.nn._layer import Layer, parameter_dtype


class WeightNorm(Layer):
    """Make the weight of another layer of a length and a direction: ``weight = g * v / ||v||``.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64
        Any shape of at least one axis. What the layer returns at first: `v` is a copy of it, and `g` its norm.
    dim : int or None, default 0
        The axis along which every slice has a length of its own, as in torch: 0 for the outputs of a layer. None: one
        length for the whole weight.

    Attributes
    ----------
    g : ndarray
        The lengths: the shape of `weight` along `dim`, 1 along the other axes; shape () for `dim` None.
    v : ndarray
        The directions, in the shape of `weight`; their lengths do not matter.
    grad_g, grad_v : ndarray
        Their gradients, to which every backward call adds.

    Raises
    ------
    TypeError
        If `weight` has another dtype.
    ValueError
        If `dim` is no axis of `weight`, or a slice is 0 or without elements and has no direction.

    Notes
    -----
    In a checkpoint `g` and `v` are ``original0`` and ``original1``, as ``torch.nn.utils.parametrizations`` names them;
    ``prefix="parametrizations.weight."`` picks them out of a model's. ``weight_g`` and ``weight_v`` of the older
    ``torch.nn.utils.weight_norm`` are loaded as well.

    A norm of this package with mean 0 and ``eps=0``: ``||v||`` is the root mean square times the root of the number of
    elements. The squares are summed in float64.

    Salimans, Kingma: Weight Normalization, arXiv:1602.07868.

    Examples
    --------
    A linear layer, ``y = x @ weight.T``:

    >>> import numpy as np
    >>> from anynorm import nn
    >>> layer = nn.WeightNorm(np.array([[3.0, 4.0], [0.0, 2.0]]))
    >>> layer.g.ravel()
    array([5., 2.])
    >>> x = np.array([[1.0, 1.0]])
    >>> weight = layer()
    >>> x @ weight.T
    array([[7., 2.]])
    >>> layer.backward(np.array([[1.0, 0.0]]).T @ x)
    >>> layer.grad_g.ravel(), layer.grad_v.round(2)
    (array([1.4, 0. ]), array([[ 0.16, -0.12],
                               [ 0.  ,  0.  ]]))
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("g", "v")
    _keys: ClassVar[Mapping[str, str]] = {"g": "original0", "v": "original1"}
    _former_keys: ClassVar[Mapping[str, str]] = {"weight_g": "original0", "weight_v": "original1"}

    g: Array
    v: Array
    grad_g: Array
    grad_v: Array

    _saved: Moments | None = None

    def __init__(self, weight: npt.ArrayLike, dim: SupportsIndex | None = 0) -> None:
        self.v = np.array(weight)
        parameter_dtype("WeightNorm", self.v.dtype)
        self.dim = None if dim is None else index(dim)
        # torch takes -1 for None. Neither that nor the last axis would be what everybody expects.
        if not (self.v.ndim if self.dim is None else 0 <= self.dim < self.v.ndim):
            raise ValueError(f"WeightNorm: expected dim None or from 0 to {self.v.ndim - 1}, got {dim}")
        if self.v.size == 0:
            raise ValueError(f"WeightNorm: expected a weight with elements, got one of shape {self.v.shape}")
        self._check_directions("WeightNorm", self.v)
        squares = np.square(self.v.astype(np.float64)).sum(axis=self._axes, keepdims=self.dim is not None)
        self.g = np.asarray(np.sqrt(squares)).astype(self.v.dtype)
        self.grad_g, self.grad_v = np.zeros_like(self.g), np.zeros_like(self.v)

    def forward(self) -> Array:
        """Make the weight of the length and the direction.

        Returns
        -------
        ndarray
            A new array of the shape and dtype of `v`.
        """
        weight, self._saved = normalize(
            self.v, self._axes, weight=self._scale(), eps=0, center=False, return_moments=True
        )
        return weight

    def __call__(self) -> Array:
        """Call `forward`."""
        return self.forward()

    def backward(self, grad_output: npt.ArrayLike) -> None:
        """Add to `grad_g` and `grad_v`. Neither `g` nor `v` may have changed since the forward call.

        Parameters
        ----------
        grad_output : array_like of float16, bfloat16, float32 or float64
            Shape of the weight. The gradient of a loss with respect to it.

        Raises
        ------
        RuntimeError
            If there was no forward call since the last backward call.
        TypeError
            If `grad_output` has another dtype.
        ValueError
            If its shape is not that of the weight. The gradients have not changed then.

        Notes
        -----
        ``grad_g = sum(grad_output * v) / ||v||`` and ``grad_v = g / ||v|| * (grad_output - grad_g * v / ||v||)``,
        equation 3 of the paper.
        """
        if self._saved is None:
            raise RuntimeError("WeightNorm.backward: expected a forward call before each backward call")
        gradients = normalize_backward(
            grad_output, self.v, self._axes, weight=self._scale(), eps=0, center=False, moments=self._saved
        )
        self._saved = None
        self.grad_g += cast(Array, gradients.grad_weight) / math.sqrt(self.v.size / self.g.size)
        self.grad_v += gradients.grad_input

    @property
    def _axes(self) -> tuple[int, ...]:
        """The axes that share a length."""
        return tuple(axis for axis in range(self.v.ndim) if axis != self.dim)

    def _scale(self) -> Array:
        """What a vector is multiplied by whose root mean square is 1."""
        return np.asarray(self.g / math.sqrt(self.v.size / self.g.size))

    def _check_directions(self, caller: str, v: Array) -> None:
        zero = ~np.any(v != 0, axis=self._axes)
        if np.any(zero):
            where = "the weight" if self.dim is None else f"slice {int(np.argmax(zero))} along axis {self.dim}"
            raise ValueError(f"{caller}: expected directions other than 0, got 0 for {where}")

    def _check_state(self, caller: str, loaded: Mapping[str, Array]) -> None:
        if "original1" in loaded:
            self._check_directions(caller, loaded["original1"])

    def _describe(self) -> str:
        return f"{self.v.shape}, dim={self.dim}"
