# SPDX-License-Identifier: Apache-2.0
"""What the loaders of Keras' and ONNX's conventions share."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from anynorm.nn._norm import Norm

N = TypeVar("N", bound=Norm)


def share_of_new(momentum: float) -> float:
    """The share of the new value, where `momentum` is that of the old one."""
    # 1 - 0.99 is 0.010000000000000009; what was written down as 0.99 means 0.01.
    return round(1 - momentum, 12)


def common_shape(caller: str, instead: str, **parameters: npt.ArrayLike | None) -> tuple[int, ...]:
    """The shape of the parameters; `instead` makes the layer that has none."""
    for value in parameters.values():
        if value is not None:
            return np.shape(value)
    raise ValueError(f"{caller}: expected {' or '.join(parameters)}, got None for all; {instead} has neither")


def dtype_of(*arrays: npt.ArrayLike | None) -> npt.DTypeLike:
    """The dtype of the first array, if it is one that the norms read; float32 for lists and the like."""
    dtypes = [array.dtype for array in arrays if isinstance(array, np.ndarray)]
    return dtypes[0] if dtypes else np.float32


def adopt(layer: N, framework: str, **arrays: npt.ArrayLike | None) -> N:
    """Fill a new layer with arrays from elsewhere; it does without the parameters that are None."""
    for name in layer.parameter_names:
        if arrays[name] is None:
            setattr(layer, name, None)
            setattr(layer, f"grad_{name}", None)
    given = {name: value for name, value in arrays.items() if value is not None}
    layer._load(f"{type(layer).__name__}.from_{framework}", given, strict=True)
    return layer
