# SPDX-License-Identifier: Apache-2.0
"""Batch norm folded into the layer before it."""

from __future__ import annotations

from typing import SupportsIndex

import numpy.typing as npt

from anynorm import _core
from anynorm._shared import Array, compiled, documented

# The bodies of these functions say what a call does and are not run: see `compiled`.


@compiled
@documented()
def fold_batch_norm(
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    bn_weight: npt.ArrayLike | None = None,
    bn_bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    channel_axis: SupportsIndex = 0,
    transpose: bool = False,
    groups: SupportsIndex = 1,
) -> tuple[Array, Array]:
    """Fold a batch norm with known statistics into the weight and bias of the layer before it.

    A linear layer or convolution with the two arrays returned computes what the layer and the batch norm after it
    compute in inference, without the pass over the activations that the batch norm takes.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64
        Of a linear layer, shape (C, inputs), or of a convolution of any rank, shape (C, inputs / groups, ...), with the
        C output channels on `channel_axis`. Of a transposed convolution: see `transpose`.
    bias : array_like of float16, bfloat16, float32 or float64 or None
        Shape (C,); None for a layer without one, which counts as zeros.
    running_mean, running_var : array_like of float32 or float64
        Shape (C,). The running statistics of the batch norm, or any others, such as the mean and ``var()`` of `Moments`.
    bn_weight, bn_bias : array_like of float16, bfloat16, float32 or float64, optional
        Shape (C,). The learned pair of the batch norm; 1 and 0 by default.
    {eps}
    channel_axis : int, default 0
        The axis of `weight` with the output channels: 0 as in PyTorch, -1 as in Keras and Flax.
    transpose : bool, default False
        The layer is a transposed convolution as in PyTorch, its weight of shape (inputs, C / groups, ...). `channel_axis`
        stays at its default then.
    groups : int, default 1
        Of the convolution. Needed for a transposed one, whose channels are C / groups for each block of inputs / groups
        of axis 0; elsewhere they are all on `channel_axis`, and the number changes nothing.

    Returns
    -------
    weight : ndarray
        A new array of the shape, dtype and memory order of `weight`.
    bias : ndarray
        Shape (C,), of the dtype of `weight`.

    Raises
    ------
    {raises}

    Notes
    -----
    With ``scale = bn_weight / sqrt(running_var + eps)`` for every output channel::

        weight * scale
        (bias - running_mean) * scale + bn_bias

    in float64, rounded once to the dtype of `weight`. Nothing is written to the arguments. A batch norm *before* a layer
    is another matter: it folds into a convolution only where nothing is padded.

    Source: Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
    arXiv:1712.05877, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> weight, bias = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, -1.0])
    >>> mean, var = np.array([0.5, 3.0]), np.array([4.0, 0.25])
    >>> x = np.array([[1.0, 1.0], [2.0, 0.0]])
    >>> anynorm.batch_norm(x @ weight.T + bias, mean, var, eps=0)
    array([[1.75, 6.  ],
           [1.25, 4.  ]])
    >>> weight, bias = anynorm.fold_batch_norm(weight, bias, mean, var, eps=0)
    >>> x @ weight.T + bias
    array([[1.75, 6.  ],
           [1.25, 4.  ]])
    """
    return _core.fold_batch_norm(
        weight, bias, running_mean, running_var, bn_weight, bn_bias, eps, channel_axis, transpose, groups
    )
