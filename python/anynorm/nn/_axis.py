# SPDX-License-Identifier: Apache-2.0
"""Layer norm and RMS norm as layers."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import ClassVar, Self, SupportsIndex

import numpy as np
import numpy.typing as npt

from anynorm._axis_backward import layer_norm_backward, rms_norm_backward
from anynorm._axis_norms import layer_norm, rms_norm
from anynorm._gradients import Gradients
from anynorm._shared import Array, Axis, Lengths, SelectionTail
from anynorm.nn._loaders import adopt, common_shape, dtype_of
from anynorm.nn._norm import Norm, Saved


class _AxisNorm(Norm):
    """A norm whose sets are named by axes, along which the parameters vary as well."""

    normalized_shape: tuple[int, ...]
    axis: tuple[int, ...]

    def _set_axes(self, normalized_shape: Lengths, axis: Axis | None) -> None:
        self.normalized_shape = _indices(normalized_shape)
        trailing = tuple(range(-len(self.normalized_shape), 0))
        self.axis = trailing if axis is None else _indices(axis)
        if len(self.axis) != len(self.normalized_shape) or not self.axis:
            expected = f"an axis for each length of {self.normalized_shape}"
            raise ValueError(f"{type(self).__name__}: expected {expected}, got axis {self.axis}")

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        rank = len(shape)
        inside = all(-rank <= axis < rank for axis in self.axis)
        if not inside or tuple(shape[axis] for axis in self.axis) != self.normalized_shape:
            one = len(self.axis) == 1
            expected = (
                f"length {self.normalized_shape[0]} on axis {self.axis[0]}"
                if one
                else (f"lengths {self.normalized_shape} on axes {self.axis}")
            )
            raise self._refuse(expected, shape)

    def _with_others(self, usual: str, **others: tuple[object, object]) -> str:
        return super()._with_others(usual, axis=(self.axis, tuple(range(-len(self.axis), 0))), **others)


class LayerNorm(_AxisNorm):
    """Normalize over the last axes, or others; statistics and parameters share the same axes.

    Parameters
    ----------
    normalized_shape : int or tuple of ints
        The lengths of the trailing axes to normalize over, or of those of `axis`.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    elementwise_affine : bool, default True
        Whether there are a weight and a bias.
    bias : bool, default True
        False: no bias, where `elementwise_affine` brings one.
    axis : int or tuple of ints, optional
        The axes to normalize over, in ascending order, one for each length. Left out: the last ones.
    dtype : float16, bfloat16, float32 or float64, default float32
        Of weight and bias.

    Attributes
    ----------
    weight, bias : ndarray or None
        Shape `normalized_shape`; 1 and 0 in a new layer.
    grad_weight, grad_bias : ndarray or None
        Their gradients, to which every backward call adds.

    Raises
    ------
    TypeError
        If `dtype` is another one.
    ValueError
        If there is not one axis for each length, or a length is negative.

    Notes
    -----
    Ba, Kiros, Hinton: Layer Normalization, arXiv:1607.06450.

    Examples
    --------
    >>> import numpy as np
    >>> from anynorm import nn
    >>> layer = nn.LayerNorm(2, eps=0)
    >>> layer(np.array([[1.0, 3.0], [10.0, 30.0]]))
    array([[-1.,  1.],
           [-1.,  1.]])

    The channels of images, without a copy into another layout:

    >>> layer = nn.LayerNorm(64, eps=1e-6, axis=1)
    >>> layer
    LayerNorm((64,), eps=1e-06, elementwise_affine=True, bias=True, axis=(1,))
    >>> layer(np.ones((2, 64, 7, 7))).shape
    (2, 64, 7, 7)
    """

    eps: float

    def __init__(
        self,
        normalized_shape: Lengths,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        axis: Axis | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self._set_axes(normalized_shape, axis)
        self.eps = eps
        self._make_parameters(self.normalized_shape, elementwise_affine, elementwise_affine and bias, dtype)

    @classmethod
    def from_keras(
        cls, gamma: npt.ArrayLike | None, beta: npt.ArrayLike | None, *, axis: Axis = -1, epsilon: float = 1e-3
    ) -> Self:
        """Make the layer of the weights and settings of Keras' ``LayerNormalization``.

        Parameters
        ----------
        gamma, beta : array_like or None
            Their shape is that of the input along `axis`. One of them may be None, as with ``scale=False``.
        axis : int or tuple of ints, default -1
            The axes to normalize over, in ascending order.
        epsilon : float, default 1e-3
            Added to the variance.

        Returns
        -------
        LayerNorm

        Raises
        ------
        TypeError
            As `load_state_dict`.
        ValueError
            If the shapes do not fit each other or `axis`, or both arrays are None.

        Examples
        --------
        >>> from anynorm import nn
        >>> nn.LayerNorm.from_keras([1.0, 2.0], [0.0, 0.0])
        LayerNorm((2,), eps=0.001, elementwise_affine=True, bias=True)
        """
        instead = "LayerNorm(normalized_shape, eps=epsilon, elementwise_affine=False, axis=axis)"
        shape = common_shape("LayerNorm.from_keras", instead, gamma=gamma, beta=beta)
        layer = cls(shape, epsilon, axis=axis, dtype=dtype_of(gamma, beta))
        return adopt(layer, "keras", weight=gamma, bias=beta)

    @classmethod
    def from_onnx(cls, Scale: npt.ArrayLike, B: npt.ArrayLike | None = None, *, epsilon: float = 1e-5) -> Self:
        """Make the layer of the inputs and attributes of ONNX's ``LayerNormalization``.

        Parameters
        ----------
        Scale : array_like
            Its shape is that of the normalized axes, which are the last ones; the attribute ``axis`` says no more.
        B : array_like, optional
            Shape as for `Scale`.
        epsilon : float, default 1e-5
            Added to the variance.

        Returns
        -------
        LayerNorm

        Raises
        ------
        TypeError, ValueError
            As `load_state_dict`.

        Examples
        --------
        >>> from anynorm import nn
        >>> nn.LayerNorm.from_onnx([[1.0, 2.0]])
        LayerNorm((1, 2), eps=1e-05, elementwise_affine=True, bias=False)
        """
        return adopt(cls(np.shape(Scale), epsilon, dtype=dtype_of(Scale)), "onnx", weight=Scale, bias=B)

    def _forward(self, x: Array, selection: SelectionTail) -> tuple[Array, Saved]:
        y, moments = layer_norm(
            x, None, self.weight, self.bias, self.eps, axis=self.axis, return_moments=True, **selection
        )
        return y, Saved(x, moments, selection)

    def _backward(self, grad_output: npt.ArrayLike, saved: Saved) -> Gradients:
        return layer_norm_backward(
            grad_output, saved.x, None, self.weight, self.bias, self.eps,
            axis=self.axis, moments=saved.moments, **saved.selection,
        )  # fmt: skip

    def _describe(self) -> str:
        usual = f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"
        return self._with_others(f"{usual}, bias={self.bias is not None}")


class RMSNorm(_AxisNorm):
    """Divide by the root mean square over the last axes, or others.

    Parameters
    ----------
    normalized_shape : int or tuple of ints
        The lengths of the trailing axes to normalize over, or of those of `axis`.
    eps : float, optional
        Added to the mean square; at least 0. Left out: the machine epsilon of float64 for input of float64, else that
        of float32, as in PyTorch.
    elementwise_affine : bool, default True
        Whether there is a weight.
    axis : int or tuple of ints, optional
        The axes to normalize over, in ascending order, one for each length. Left out: the last ones.
    dtype : float16, bfloat16, float32 or float64, default float32
        Of the weight.

    Attributes
    ----------
    weight : ndarray or None
        Shape `normalized_shape`; 1 in a new layer.
    grad_weight : ndarray or None
        Its gradient, to which every backward call adds.

    Raises
    ------
    TypeError
        If `dtype` is another one.
    ValueError
        If there is not one axis for each length, or a length is negative.

    Notes
    -----
    Zhang, Sennrich: Root Mean Square Layer Normalization, arXiv:1910.07467.

    Examples
    --------
    >>> import numpy as np
    >>> from anynorm import nn
    >>> layer = nn.RMSNorm(2, eps=0)
    >>> layer(np.array([[1.0, -1.0], [10.0, -10.0]]))
    array([[ 1., -1.],
           [ 1., -1.]])
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(
        self,
        normalized_shape: Lengths,
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        axis: Axis | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self._set_axes(normalized_shape, axis)
        self.eps = eps
        self._make_parameters(self.normalized_shape, elementwise_affine, False, dtype)

    @classmethod
    def from_keras(cls, scale: npt.ArrayLike, *, axis: Axis = -1, epsilon: float = 1e-6) -> Self:
        """Make the layer of the weight and settings of Keras' ``RMSNormalization``.

        Parameters
        ----------
        scale : array_like
            Its shape is that of the input along `axis`.
        axis : int or tuple of ints, default -1
            The axes to normalize over, in ascending order.
        epsilon : float, default 1e-6
            Added to the mean square.

        Returns
        -------
        RMSNorm

        Raises
        ------
        TypeError, ValueError
            As `load_state_dict`; also if there is not one axis for each axis of `scale`.

        Examples
        --------
        >>> from anynorm import nn
        >>> nn.RMSNorm.from_keras([1.0, 2.0])
        RMSNorm((2,), eps=1e-06, elementwise_affine=True)
        """
        return adopt(cls(np.shape(scale), epsilon, axis=axis, dtype=dtype_of(scale)), "keras", weight=scale)

    @classmethod
    def from_onnx(cls, scale: npt.ArrayLike, *, epsilon: float = 1e-5) -> Self:
        """Make the layer of the input and attributes of ONNX's ``RMSNormalization``.

        Parameters
        ----------
        scale : array_like
            Its shape is that of the normalized axes, which are the last ones; the attribute ``axis`` says no more.
        epsilon : float, default 1e-5
            Added to the mean square.

        Returns
        -------
        RMSNorm

        Raises
        ------
        TypeError, ValueError
            As `load_state_dict`.

        Examples
        --------
        >>> from anynorm import nn
        >>> nn.RMSNorm.from_onnx([1.0, 2.0])
        RMSNorm((2,), eps=1e-05, elementwise_affine=True)
        """
        return adopt(cls(np.shape(scale), epsilon, dtype=dtype_of(scale)), "onnx", weight=scale)

    def _forward(self, x: Array, selection: SelectionTail) -> tuple[Array, Saved]:
        y, moments = rms_norm(x, None, self.weight, self.eps, axis=self.axis, return_moments=True, **selection)
        return y, Saved(x, moments, selection)

    def _backward(self, grad_output: npt.ArrayLike, saved: Saved) -> Gradients:
        return rms_norm_backward(
            grad_output, saved.x, None, self.weight, self.eps,
            axis=self.axis, moments=saved.moments, **saved.selection,
        )  # fmt: skip

    def _describe(self) -> str:
        usual = f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"
        return self._with_others(usual)


def _indices(values: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, ...]:
    many = (values,) if isinstance(values, SupportsIndex) else values
    return tuple(index(value) for value in many)
