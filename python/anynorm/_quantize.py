# SPDX-License-Identifier: Apache-2.0
"""The rounding to 8 bits that a norm can end with, as a call of its own."""

from __future__ import annotations

from typing import SupportsIndex

import numpy.typing as npt

from anynorm import _core
from anynorm._shared import Array, compiled


@compiled
def quantize(
    y: npt.ArrayLike,
    scale: npt.ArrayLike,
    zero_point: npt.ArrayLike = 0,
    dtype: npt.DTypeLike = "int8",
    *,
    out: Array | None = None,
    num_threads: SupportsIndex | None = None,
) -> Array:
    """Round to 8 bits: ``saturate(round(y / scale) + zero_point)``, ties to even.

    A norm with ``out_scale`` and ``out_zero_point`` returns the same of its float32 result, without the array in
    between.

    Parameters
    ----------
    y : array_like of float16, bfloat16, float32 or float64
        Any shape of at most 16 axes, any strides.
    scale : float or array_like of float16, bfloat16, float32 or float64
        Above 0, in the range of float32: the step from one integer to the next. An array broadcasts against `y`, so that
        channels on axis 1 of images have one of shape (C, 1, 1).
    zero_point : int or array_like, default 0
        The integer that stands for 0. An ndarray has the dtype of the result, and broadcasts as well.
    dtype : int8 or uint8, default int8
        Of the result.
    out : ndarray of `dtype`, optional
        Where to write the result: shape of `y`, any strides.
    num_threads : int, optional
        As many as OpenMP would use by default, less those that other calls are using. The result does not depend on it.

    Returns
    -------
    ndarray
        `out`, or a new array of the shape and memory order of `y`. NaN has become `zero_point`, and what is beyond the
        range of `dtype` its nearest end.

    Raises
    ------
    TypeError
        If an argument is not of the type said above.
    ValueError
        If a shape, a number or the memory of an array does not fit. Nothing has been written then.

    Notes
    -----
    The formula of ONNX's QuantizeLinear, whose `axis` names where `scale` lies. The quotient is one of float64 if `y` is
    float64, else of float32, with `scale` rounded to it.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> y = np.float32([-1.0, 0.0, 0.25, 0.75, 100.0])
    >>> anynorm.quantize(y, 0.5)
    array([ -2,   0,   0,   2, 127], dtype=int8)
    >>> anynorm.quantize([[1.0, 2.0], [1.0, 2.0]], [[0.5], [0.25]], [[0], [10]])
    array([[ 2,  4],
           [14, 18]], dtype=int8)
    >>> x = np.float32([[1.0, 3.0]])
    >>> anynorm.layer_norm(x, eps=0, dtype="uint8", out_scale=0.01, out_zero_point=128)
    array([[ 28, 228]], dtype=uint8)
    """
    return _core.quantize(y, scale, zero_point, dtype, out, num_threads)
