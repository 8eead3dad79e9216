# SPDX-License-Identifier: Apache-2.0
"""The norms as functions of arrays, and their gradients.

Two conventions differ between libraries; here both are PyTorch's by default. *momentum* is the share of the new value (Keras,
Flax and ONNX mean the share of the old one). The running *variance* is the unbiased one (the others keep that of the
population).
"""

from anynorm._axis_backward import layer_norm_backward, normalize_backward, rms_norm_backward
from anynorm._axis_norms import layer_norm, rms_norm
from anynorm._batch_renorm import batch_renorm, batch_renorm_backward
from anynorm._channel_backward import batch_norm_backward, group_norm_backward, instance_norm_backward
from anynorm._channel_norms import batch_norm, group_norm, instance_norm
from anynorm._engine import moments, normalize
from anynorm._fold import fold_batch_norm
from anynorm._lp_normalize import lp_normalize, lp_normalize_backward
from anynorm._quantize import quantize

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_renorm",
    "batch_renorm_backward",
    "fold_batch_norm",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "lp_normalize",
    "lp_normalize_backward",
    "moments",
    "normalize",
    "normalize_backward",
    "quantize",
    "rms_norm",
    "rms_norm_backward",
]
