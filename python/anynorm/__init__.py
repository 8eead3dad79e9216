# SPDX-License-Identifier: Apache-2.0
"""One engine for every normalization: stable statistics over any sets of elements, in any memory layout, no copies.

>>> import numpy as np
>>> import anynorm
>>> x = np.array([[1.0, 3.0], [10.0, 30.0]], dtype=np.float32)
>>> anynorm.layer_norm(x, eps=0)
array([[-1.,  1.],
       [-1.,  1.]], dtype=float32)

`moments` and `normalize` are the engine; `batch_norm`, `layer_norm`, `instance_norm`, `group_norm` and `rms_norm` are
choices of axes on top of it. The gradients of each are its namesake with ``_backward``. Two conventions differ between
libraries; here both are PyTorch's: *momentum* is the share of the new value, and the running *variance* is the unbiased
one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from anynorm import nn
from anynorm._core import __version__
from anynorm._gradients import Gradients
from anynorm._keys import Codes, codes
from anynorm._memory import ResultPool, empty_result_pool, result_pool, set_result_pool
from anynorm._moments import Moments
from anynorm._running import update_running
from anynorm._runtime import active_isa, available_isas, max_threads, use_isa
from anynorm.functional import (
    batch_norm,
    batch_norm_backward,
    batch_renorm,
    batch_renorm_backward,
    fold_batch_norm,
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
    lp_normalize,
    lp_normalize_backward,
    moments,
    normalize,
    normalize_backward,
    quantize,
    rms_norm,
    rms_norm_backward,
)

if TYPE_CHECKING:
    from anynorm import stream

__all__ = [
    "Codes",
    "Gradients",
    "Moments",
    "ResultPool",
    "__version__",
    "active_isa",
    "available_isas",
    "batch_norm",
    "batch_norm_backward",
    "batch_renorm",
    "batch_renorm_backward",
    "codes",
    "empty_result_pool",
    "fold_batch_norm",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "lp_normalize",
    "lp_normalize_backward",
    "max_threads",
    "moments",
    "nn",
    "normalize",
    "normalize_backward",
    "quantize",
    "result_pool",
    "rms_norm",
    "rms_norm_backward",
    "set_result_pool",
    "stream",
    "update_running",
    "use_isa",
]


def __getattr__(name: str) -> Any:
    # When it is first used: with the standard library that it needs, it takes twice as long as all the rest.
    if name == "stream":
        return import_module("anynorm.stream")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
