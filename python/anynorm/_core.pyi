# SPDX-License-Identifier: Apache-2.0
# The compiled module: private, positional, every argument present. functional.py is the interface to use.
from collections.abc import Callable
from typing import Any, Self, SupportsIndex, final

import numpy as np
import numpy.typing as npt

from anynorm._gradients import Gradients
from anynorm._moments import Moments
from anynorm._shared import Activation, Array, Axis, Lengths, NonFinite, OneElement, Result, Wanted

__version__: str
build: dict[str, str]

@final
class Function:
    def __new__(cls, function: Callable[..., Any], compiled: Callable[..., Any]) -> Self: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def __get__(self, instance: Any, owner: Any = None, /) -> Any: ...
    def __reduce__(self) -> str: ...

def moments(x: npt.ArrayLike, axis: Axis | None, keepdims: bool, num_threads: SupportsIndex | None, /) -> Moments: ...
def normalize(
    x: npt.ArrayLike,
    axis: Axis | None,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    eps: float,
    center: bool,
    moments: Moments | None,
    residual: npt.ArrayLike | None,
    activation: Activation | None,
    out: Array | None,
    sum_out: Array | None,
    dtype: npt.DTypeLike | None,
    out_scale: float | None,
    out_zero_point: SupportsIndex,
    return_moments: bool,
    num_threads: SupportsIndex | None,
    /,
) -> Result: ...
def quantize(
    y: npt.ArrayLike, scale: float, zero_point: SupportsIndex, dtype: npt.DTypeLike, out: Array | None, /
) -> Array: ...
def layer_norm(
    x: npt.ArrayLike,
    normalized_shape: Lengths | None,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    eps: float,
    axis: Axis | None,
    moments: Moments | None,
    residual: npt.ArrayLike | None,
    activation: Activation | None,
    out: Array | None,
    sum_out: Array | None,
    dtype: npt.DTypeLike | None,
    out_scale: float | None,
    out_zero_point: SupportsIndex,
    return_moments: bool,
    num_threads: SupportsIndex | None,
    /,
) -> Result: ...
def rms_norm(
    x: npt.ArrayLike,
    normalized_shape: Lengths | None,
    weight: npt.ArrayLike | None,
    eps: float | None,
    axis: Axis | None,
    moments: Moments | None,
    residual: npt.ArrayLike | None,
    activation: Activation | None,
    out: Array | None,
    sum_out: Array | None,
    dtype: npt.DTypeLike | None,
    out_scale: float | None,
    out_zero_point: SupportsIndex,
    return_moments: bool,
    num_threads: SupportsIndex | None,
    /,
) -> Result: ...
def group_norm(
    x: npt.ArrayLike,
    num_groups: SupportsIndex,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    eps: float,
    channel_axis: SupportsIndex,
    moments: Moments | None,
    residual: npt.ArrayLike | None,
    activation: Activation | None,
    out: Array | None,
    sum_out: Array | None,
    dtype: npt.DTypeLike | None,
    out_scale: float | None,
    out_zero_point: SupportsIndex,
    return_moments: bool,
    num_threads: SupportsIndex | None,
    /,
) -> Result: ...
def instance_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None,
    running_var: npt.ArrayLike | None,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    use_input_stats: bool,
    momentum: float | None,
    eps: float,
    channel_axis: SupportsIndex,
    num_batches: npt.NDArray[np.int64] | None,
    correction: float,
    pooled: Moments | None,
    nonfinite: NonFinite,
    one_element: OneElement,
    moments: Moments | None,
    residual: npt.ArrayLike | None,
    activation: Activation | None,
    out: Array | None,
    sum_out: Array | None,
    dtype: npt.DTypeLike | None,
    out_scale: float | None,
    out_zero_point: SupportsIndex,
    return_moments: bool,
    num_threads: SupportsIndex | None,
    /,
) -> Result: ...
def batch_norm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None,
    running_var: npt.ArrayLike | None,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    training: bool,
    momentum: float | None,
    eps: float,
    channel_axis: SupportsIndex,
    num_batches: npt.NDArray[np.int64] | None,
    correction: float,
    pooled: Moments | None,
    nonfinite: NonFinite,
    one_element: OneElement,
    moments: Moments | None,
    residual: npt.ArrayLike | None,
    activation: Activation | None,
    out: Array | None,
    sum_out: Array | None,
    dtype: npt.DTypeLike | None,
    out_scale: float | None,
    out_zero_point: SupportsIndex,
    return_moments: bool,
    num_threads: SupportsIndex | None,
    /,
) -> Result: ...
def batch_renorm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    training: bool,
    momentum: float | None,
    eps: float,
    r_max: float,
    d_max: float,
    channel_axis: SupportsIndex,
    num_batches: npt.NDArray[np.int64] | None,
    correction: float,
    pooled: Moments | None,
    nonfinite: NonFinite,
    one_element: OneElement,
    moments: Moments | None,
    out: Array | None,
    dtype: npt.DTypeLike | None,
    return_moments: bool,
    num_threads: SupportsIndex | None,
    /,
) -> Array | tuple[Array, Moments]: ...
def update_running(
    running_mean: Array | None,
    running_var: Array | None,
    moments: Moments,
    momentum: float | None,
    num_batches: npt.NDArray[np.int64] | None,
    correction: float,
    pooled: Moments | None,
    nonfinite: NonFinite,
    one_element: OneElement,
    /,
) -> None: ...
def normalize_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    axis: Axis | None,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    eps: float,
    center: bool,
    frozen: bool,
    moments: Moments | None,
    grad_input: Wanted,
    grad_weight: Wanted | None,
    grad_bias: Wanted | None,
    num_threads: SupportsIndex | None,
    /,
) -> Gradients: ...
def layer_norm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    normalized_shape: Lengths | None,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    eps: float,
    axis: Axis | None,
    moments: Moments | None,
    grad_input: Wanted,
    grad_weight: Wanted | None,
    grad_bias: Wanted | None,
    num_threads: SupportsIndex | None,
    /,
) -> Gradients: ...
def rms_norm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    normalized_shape: Lengths | None,
    weight: npt.ArrayLike | None,
    eps: float | None,
    axis: Axis | None,
    moments: Moments | None,
    grad_input: Wanted,
    grad_weight: Wanted | None,
    num_threads: SupportsIndex | None,
    /,
) -> Gradients: ...
def group_norm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    num_groups: SupportsIndex,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    eps: float,
    channel_axis: SupportsIndex,
    moments: Moments | None,
    grad_input: Wanted,
    grad_weight: Wanted | None,
    grad_bias: Wanted | None,
    num_threads: SupportsIndex | None,
    /,
) -> Gradients: ...
def instance_norm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None,
    running_var: npt.ArrayLike | None,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    use_input_stats: bool,
    momentum: float | None,
    eps: float,
    channel_axis: SupportsIndex,
    moments: Moments | None,
    grad_input: Wanted,
    grad_weight: Wanted | None,
    grad_bias: Wanted | None,
    num_threads: SupportsIndex | None,
    /,
) -> Gradients: ...
def batch_norm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike | None,
    running_var: npt.ArrayLike | None,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    training: bool,
    momentum: float | None,
    eps: float,
    channel_axis: SupportsIndex,
    moments: Moments | None,
    grad_input: Wanted,
    grad_weight: Wanted | None,
    grad_bias: Wanted | None,
    num_threads: SupportsIndex | None,
    /,
) -> Gradients: ...
def batch_renorm_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    training: bool,
    momentum: float | None,
    eps: float,
    r_max: float,
    d_max: float,
    channel_axis: SupportsIndex,
    moments: Moments | None,
    grad_input: Wanted,
    grad_weight: Wanted | None,
    grad_bias: Wanted | None,
    num_threads: SupportsIndex | None,
    /,
) -> Gradients: ...
def fold_batch_norm(
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    bn_weight: npt.ArrayLike | None,
    bn_bias: npt.ArrayLike | None,
    eps: float,
    channel_axis: SupportsIndex,
    transpose: bool,
    groups: SupportsIndex,
    /,
) -> tuple[Array, Array]: ...
def lp_normalize(
    x: npt.ArrayLike,
    p: float,
    axis: Axis | None,
    eps: float,
    out: Array | None,
    dtype: npt.DTypeLike | None,
    num_threads: SupportsIndex | None,
    /,
) -> Array: ...
def lp_normalize_backward(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    p: float,
    axis: Axis | None,
    eps: float,
    out: Array | None,
    dtype: npt.DTypeLike | None,
    num_threads: SupportsIndex | None,
    /,
) -> Array: ...
def available_isas() -> tuple[str, ...]: ...
def active_isa() -> str: ...
def use_isa(name: str, /) -> None: ...
def max_threads() -> int: ...
def result_pool() -> tuple[int, int]: ...
def empty_result_pool() -> None: ...
def set_result_pool(max_bytes: SupportsIndex, /) -> None: ...
