# SPDX-License-Identifier: Apache-2.0
"""The norms as functions of arrays.

Two conventions differ between libraries; here both are PyTorch's. *momentum* is the share of the new value (Keras,
Flax and ONNX mean the share of the old one). The running *variance* is the unbiased one (the others keep that of the
population).
"""

from anynorm._axis_norms import layer_norm, moments, normalize, rms_norm
from anynorm._channel_norms import batch_norm, group_norm, instance_norm

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "moments", "normalize", "rms_norm"]
