# SPDX-License-Identifier: Apache-2.0
"""The norms as layers: parameters, their gradients, running statistics and checkpoints in plain NumPy arrays.

A layer is called with the input and answers with the result; ``backward`` takes the gradient of the result, adds the
gradients of the parameters to ``grad_weight`` and ``grad_bias``, and returns that of the input. There is no graph and
no tensor type: the order of the backward calls is written down by whoever wrote that of the forward calls.

>>> import numpy as np
>>> from anynorm import nn
>>> layer = nn.BatchNorm(3)
>>> x = np.random.default_rng(0).normal(5, 2, (8, 3, 4, 4)).astype(np.float32)
>>> y = layer(x)
>>> grad_x = layer.backward(np.ones_like(y))
>>> layer.grad_bias
array([128., 128., 128.], dtype=float32)

Names, defaults and the keys of checkpoints are those of ``torch.nn``; `BatchNorm.from_keras` and its neighbours
translate the conventions of Keras and ONNX.
"""

from anynorm.nn._axis import LayerNorm, RMSNorm
from anynorm.nn._batch import BatchNorm
from anynorm.nn._batch_renorm import BatchRenorm
from anynorm.nn._channel import GroupNorm, InstanceNorm
from anynorm.nn._layer import IncompatibleKeys, Layer
from anynorm.nn._weight import WeightNorm

__all__ = [
    "BatchNorm",
    "BatchRenorm",
    "GroupNorm",
    "IncompatibleKeys",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "RMSNorm",
    "WeightNorm",
]
