# SPDX-License-Identifier: Apache-2.0
"""Every refused call: its exception, what its message says, and that nothing at all has been written."""

from dataclasses import dataclass, field

import cases
import numpy as np
import pytest

import anynorm

F32, F64 = np.float32, np.float64


def numbers(*shape, dtype=F32):
    return np.random.default_rng(5).uniform(1, 2, shape).astype(dtype)


@dataclass
class Arrays:
    """The arrays of one call, C = 6 channels. What a call may not write is everything."""

    x: np.ndarray = field(default_factory=lambda: numbers(4, 6, 5))
    out: np.ndarray = field(default_factory=lambda: numbers(4, 6, 5))
    dy: np.ndarray = field(default_factory=lambda: numbers(4, 6, 5))
    w: np.ndarray = field(default_factory=lambda: numbers(6))
    b: np.ndarray = field(default_factory=lambda: numbers(6))
    w5: np.ndarray = field(default_factory=lambda: numbers(5))
    mean: np.ndarray = field(default_factory=lambda: numbers(6))
    var: np.ndarray = field(default_factory=lambda: numbers(6))
    base: np.ndarray = field(default_factory=lambda: numbers(400))
    given: anynorm.Moments = field(default_factory=lambda: anynorm.moments(numbers(6, 5), ()))


def masked(array):
    return np.ma.masked_array(array, np.zeros(array.shape, bool))


def read_only(array):
    view = array[...]
    view.flags.writeable = False
    return view


def misaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def odd_strides(array):
    """A field of packed records: five bytes from one element to the next."""
    records = np.zeros(array.shape, np.dtype([("value", array.dtype), ("tag", "u1")]))
    records["value"] = array
    return records["value"]


def swapped(array):
    return array.astype(array.dtype.newbyteorder())


def windows(array, shape, strides):
    """Writable views of which elements share memory."""
    return np.lib.stride_tricks.as_strided(array, shape, [s * array.itemsize for s in strides])


LN, RN, GN = anynorm.layer_norm, anynorm.rms_norm, anynorm.group_norm
IN, BN, NO, MO = anynorm.instance_norm, anynorm.batch_norm, anynorm.normalize, anynorm.moments
NORMS_OF_X = {
    "layer_norm": lambda x, **o: LN(x, **o),
    "rms_norm": lambda x, **o: RN(x, **o),
    "group_norm": lambda x, **o: GN(x, 2, **o),
    "instance_norm": lambda x, **o: IN(x, **o),
    "batch_norm": lambda x, **o: BN(x, training=True, **o),
    "normalize": lambda x, **o: NO(x, 1, **o),
}
LB, RB, GB = anynorm.layer_norm_backward, anynorm.rms_norm_backward, anynorm.group_norm_backward
IB, BB, NB = anynorm.instance_norm_backward, anynorm.batch_norm_backward, anynorm.normalize_backward
GRADIENTS_OF_X = {
    "layer_norm_backward": lambda dy, x, **o: LB(dy, x, **o),
    "rms_norm_backward": lambda dy, x, **o: RB(dy, x, **o),
    "group_norm_backward": lambda dy, x, **o: GB(dy, x, 2, **o),
    "instance_norm_backward": lambda dy, x, **o: IB(dy, x, **o),
    "batch_norm_backward": lambda dy, x, **o: BB(dy, x, training=True, **o),
    "normalize_backward": lambda dy, x, **o: NB(dy, x, 1, **o),
}
V, T = ValueError, TypeError

# id: (call, exception, what the message says)
TABLE = {
    # parameters
    "layer_weight": (lambda a: LN(a.x, None, a.w), V, "layer_norm: expected weight of shape (5,), got (6,)"),
    "layer_bias": (lambda a: LN(a.x, None, None, a.w), V, "layer_norm: expected bias of shape (5,), got (6,)"),
    "layer_weight_one_element": (lambda a: LN(a.x, None, a.w5[:1]), V, "got (1,)"),
    "layer_weight_rank": (lambda a: LN(a.x, (6, 5), a.w5), V, "expected weight of shape (6, 5), got (5,)"),
    "layer_weight_descending": (lambda a: LN(a.x, None, numbers(5, 6), axis=(2, 1)), V, "(6, 5), got (5, 6)"),
    "rms_weight": (lambda a: RN(a.x, None, a.w), V, "rms_norm: expected weight of shape (5,), got (6,)"),
    "group_weight": (lambda a: GN(a.x, 2, a.w5), V, "group_norm: expected weight of shape (6,), got (5,)"),
    "group_bias": (lambda a: GN(a.x, 2, None, a.w[:2]), V, "group_norm: expected bias of shape (6,), got (2,)"),
    "instance_weight": (lambda a: IN(a.x, None, None, a.w5), V, "instance_norm: expected weight of shape (6,)"),
    "batch_weight": (lambda a: BN(a.x, a.mean, a.var, a.w5), V, "batch_norm: expected weight of shape (6,), got (5,)"),
    "batch_bias": (lambda a: BN(a.x, a.mean, a.var, None, a.w5, True), V, "batch_norm: expected bias of shape (6,)"),
    "batch_weight_broadcast": (lambda a: BN(a.x, a.mean, a.var, a.w[:, None], training=True), V, "got (6, 1)"),
    "normalize_weight": (lambda a: NO(a.x, 1, weight=a.w), V, "(6,)"),
    "normalize_weight_rank": (lambda a: NO(a.x, 1, weight=numbers(1, 4, 6, 5)), V, "(1, 4, 6, 5)"),
    "normalize_bias": (lambda a: NO(a.x, 1, bias=numbers(3, 1, 1)), V, "(3, 1, 1)"),
    "weight_int": (lambda a: LN(a.x, None, np.ones(5, int)), T, "weight of dtype float16, bfloat16, float32 or float64, got int64"),
    "weight_masked": (lambda a: LN(a.x, None, masked(a.w5)), T, "mask"),
    "weight_swapped": (lambda a: LN(a.x, None, swapped(a.w5)), T, ">f4"),
    "weight_list_of_int": (lambda a: LN(a.x, None, [1] * 5), T, "weight"),
    # which sets
    "axis_range": (lambda a: NO(a.x, 3), V, "3"),
    "axis_range_negative": (lambda a: NO(a.x, -4), V, "-4"),
    "axis_range_moments": (lambda a: MO(a.x, 3), V, "3"),
    "axis_range_huge": (lambda a: NO(a.x, 2**70), V, "axis"),
    "axis_twice": (lambda a: NO(a.x, (1, 1)), V, "axis"),
    "axis_twice_negative": (lambda a: MO(a.x, (1, -2)), V, "axis"),
    "axis_float": (lambda a: NO(a.x, 1.0), T, "expected axis to be an int or a tuple of ints, got float"),
    "axis_text": (lambda a: MO(a.x, "1"), V, "pattern '1': expected -> before"),
    "axis_tuple_of_float": (lambda a: MO(a.x, (0, 1.0)), T, "axis"),
    "axis_too_many": (lambda a: MO(a.x, tuple(range(17))), V, "16"),
    "normalized_shape": (lambda a: LN(a.x, 6), V, "(4, 6, 5)"),
    "normalized_shape_leading": (lambda a: LN(a.x, (4, 6)), V, "(4, 6)"),
    "normalized_shape_long": (lambda a: LN(a.x, (1, 4, 6, 5)), V, "normalized_shape"),
    "normalized_shape_empty": (lambda a: LN(a.x, ()), V, "normalized_shape"),
    "normalized_shape_float": (lambda a: LN(a.x, 5.0), T, "normalized_shape"),
    "normalized_shape_and_axis": (lambda a: RN(a.x, 5, axis=-1), V, "axis"),
    "layer_rank_0": (lambda a: LN(np.array(F32(1))), V, "layer_norm"),
    "num_groups_divides": (lambda a: GN(a.x, 4), V, "4"),
    "num_groups_zero": (lambda a: GN(a.x, 0), V, "num_groups"),
    "num_groups_negative": (lambda a: GN(a.x, -2), V, "num_groups"),
    "num_groups_many": (lambda a: GN(a.x, 12), V, "12"),
    "num_groups_huge": (lambda a: GN(a.x, 2**62, return_moments=True), V, "num_groups"),
    "num_groups_float": (lambda a: GN(a.x, 2.0), T, "num_groups"),
    "channel_axis_range": (lambda a: GN(a.x, 2, channel_axis=3), V, "channel_axis"),
    "channel_axis_negative": (lambda a: BN(a.x, a.mean, a.var, training=True, channel_axis=-4), V, "channel_axis"),
    "channel_axis_float": (lambda a: IN(a.x, channel_axis=1.0), T, "channel_axis"),
    "channel_axis_none": (lambda a: IN(a.x, channel_axis=None), T, "channel_axis"),
    "group_channel_axis_of_samples": (lambda a: GN(a.x, 2, channel_axis=0), V, "channel_axis"),
    "instance_channel_axis_of_samples": (lambda a: IN(a.x, channel_axis=-3), V, "channel_axis"),
    "group_rank": (lambda a: GN(a.w, 2), V, "group_norm"),
    "group_rank_16": (lambda a: GN(numbers(*[1] * 15, 2), 1), V, "group_norm"),
    "instance_rank": (lambda a: IN(a.w), V, "instance_norm"),
    "batch_rank": (lambda a: BN(a.w, training=True), V, "batch_norm"),
    # options
    "eps_negative": (lambda a: LN(a.x, eps=-1e-9), V, "eps"),
    "eps_nan": (lambda a: RN(a.x, eps=np.nan), V, "eps"),
    "eps_text": (lambda a: LN(a.x, eps="1e-5"), T, "expected eps to be a number, got str"),
    "eps_array": (lambda a: LN(a.x, eps=a.w5), T, "eps"),
    "eps_none": (lambda a: LN(a.x, eps=None), T, "eps"),
    "training_array": (lambda a: BN(a.x, a.mean, a.var, a.w, a.b, a.w), T, "training"),
    "training_number": (lambda a: BN(a.x, a.mean, a.var, a.w, a.b, 0.1), T, "training"),
    "center_number": (lambda a: NO(a.x, 1, center=1.0), T, "center"),
    "threads_zero": (lambda a: MO(a.x, num_threads=0), V, "num_threads"),
    "threads_negative": (lambda a: LN(a.x, num_threads=-1), V, "num_threads"),
    "threads_float": (lambda a: LN(a.x, num_threads=2.0), T, "num_threads"),
    "dtype_complex": (lambda a: LN(a.x, dtype=np.complex64), T, "got complex64"),
    "dtype_int": (lambda a: LN(a.x, dtype=int), T, "int64"),
    "dtype_swapped": (lambda a: LN(a.x, dtype=">f4"), T, "dtype"),
    "dtype_nonsense": (lambda a: LN(a.x, dtype="number"), T, "dtype"),
    # out
    "out_dtype": (lambda a: LN(a.x, out=a.out.astype(int)), T, "expected out of dtype float16, bfloat16, float32 or float64, got int64"),
    "out_and_dtype": (lambda a: LN(a.x, out=a.out, dtype=F64), V, "float64"),
    "out_list": (lambda a: LN(a.x, out=a.x.tolist()), T, "out"),
    "out_overlaps_weight": (lambda a: NO(a.base[:60].reshape(4, 3, 5), 1, weight=a.base[55:60],
                                         out=a.base[50:110].reshape(4, 3, 5)), V, "out"),
    "out_is_weight": (lambda a: NO(a.x, 1, weight=a.out, out=a.out), V, "out"),
    "out_shifted": (lambda a: NO(a.base[:120].reshape(4, 6, 5), 1, out=a.base[1:121].reshape(4, 6, 5)), V, "out"),
    "out_shifted_by_a_row": (lambda a: NO(a.base[:120].reshape(4, 6, 5), 2,
                                          out=a.base[5:125].reshape(4, 6, 5)), V, "out"),
    "out_reversed": (lambda a: NO(a.x, 1, out=a.x[::-1]), V, "out"),
    "out_transposed": (lambda a: NO(a.base[:36].reshape(6, 6), 1, out=a.base[:36].reshape(6, 6).T), V, "out"),
    "out_other_dtype_same_memory": (lambda a: NO(a.base[:120].reshape(4, 6, 5), 1,
                                                 out=a.base[:240].view(F64).reshape(4, 6, 5)), V, "out"),
    "out_self_overlap": (lambda a: NO(a.x, 1, out=windows(a.out, (4, 6, 5), (0, 5, 1))), V, "out"),
    "out_windows": (lambda a: NO(a.x, 1, out=windows(a.base, (4, 6, 5), (24, 4, 1))), V, "out"),
    "out_overlaps_running": (lambda a: BN(a.base[:120].reshape(4, 6, 5), a.base[200:206], a.var, training=True,
                                          out=a.base[180:300].reshape(4, 6, 5)), V, "out"),
    "out_is_given_mean": (lambda a: NO(a.x[0], (), moments=a.given, out=a.given.mean), V, "out"),
    "out_is_given_m2": (lambda a: NO(a.x[0], (), moments=a.given, out=a.given.m2), V, "out"),
    # running statistics
    "eval_without": (lambda a: BN(a.x), V, "running"),
    "instance_eval_without": (lambda a: IN(a.x, use_input_stats=False), V, "running"),
    "running_mean_only": (lambda a: BN(a.x, a.mean, training=True), V, "together"),
    "running_var_only": (lambda a: IN(a.x, None, a.var), V, "together"),
    "momentum_range": (lambda a: BN(a.x, a.mean, a.var, training=True, momentum=1.5), V, "momentum"),
    "momentum_nan": (lambda a: IN(a.x, a.mean, a.var, momentum=np.nan), V, "momentum"),
    "momentum_none": (lambda a: BN(a.x, a.mean, a.var, training=True, momentum=None), V, "num_batches"),
    "running_mean_shape": (lambda a: BN(a.x, a.w5, a.var, training=True), V, "running_mean of shape (6,), got (5,)"),
    "running_var_shape": (lambda a: BN(a.x, a.mean, a.w5, training=True), V, "running_var of shape (6,), got (5,)"),
    "running_shape_eval": (lambda a: BN(a.x, a.w5, a.w5), V, "expected running_mean of shape (6,), got (5,)"),
    "running_int": (lambda a: BN(a.x, np.zeros(6, int), a.var, training=True), T, "int64"),
    "running_f16": (lambda a: BN(a.x, a.mean.astype(np.float16), a.var, training=True), T,
                    "batch_norm: expected running_mean of dtype float32 or float64, got float16"),
    "running_f16_eval": (lambda a: IN(a.x, a.mean, a.var.astype(np.float16), use_input_stats=False), T,
                         "instance_norm: expected running_var of dtype float32 or float64, got float16"),
    "running_list": (lambda a: BN(a.x, [0.0] * 6, a.var, training=True), T, "running_mean"),
    "running_read_only": (lambda a: BN(a.x, a.mean, read_only(a.var), training=True), V, "running_var"),
    "running_read_only_instance": (lambda a: IN(a.x, read_only(a.mean), a.var), V, "running_mean"),
    "running_masked": (lambda a: BN(a.x, masked(a.mean), a.var), T, "mask"),
    "running_overlaps_x": (lambda a: BN(a.base[:120].reshape(4, 6, 5), a.base[3:9], a.var, training=True), V,
                           "running_mean"),
    "running_is_one_array": (lambda a: BN(a.x, a.mean, a.mean, training=True), V, "running"),
    "running_stride_0": (lambda a: BN(a.x, windows(a.mean, (6,), (0,)), a.var, training=True), V, "running_mean"),
    "one_element_per_channel": (lambda a: BN(a.x[:1, :, 0], a.mean, a.var, training=True), V, "(1, 6)"),
    "one_element_per_channel_without_running": (lambda a: BN(a.x[:1, :, :1], training=True), V, "batch_norm"),
    "one_element_per_channel_and_sample": (lambda a: IN(a.x[..., 0], a.mean, a.var), V, "(4, 6)"),
    # given statistics
    "moments_shape": (lambda a: LN(a.x, moments=MO(a.x, 0)), V, "(4, 6)"),
    "moments_shape_batch": (lambda a: BN(a.x, moments=MO(a.x, 2)), V, "(6,)"),
    "moments_shape_group": (lambda a: GN(a.x, 2, moments=MO(a.x, 2)), V, "(4, 2)"),
    "moments_tuple": (lambda a: LN(a.x, moments=(1, 2, 3)), T, "Moments"),
    "moments_array": (lambda a: NO(a.x, 1, moments=a.x), T, "Moments"),
    # x of moments()
    "moments_of_int": (lambda a: MO(np.arange(5)), T, "moments: expected x of dtype float16, bfloat16, float32 or float64, got int64"),
    "moments_of_rank_17": (lambda a: MO(np.zeros((1,) * 17, F32)), V, "17"),
}  # fmt: skip

# For each norm: x that is refused, and out that is refused.
FOR_EVERY_NORM = {
    "x_int": (lambda run, a: run(np.ones((4, 6, 5), int)), T, "expected x of dtype float16, bfloat16, float32 or float64, got int64"),
    "x_swapped_f16": (lambda run, a: run(swapped(a.x.astype(np.float16))), T, "got >f2"),
    "x_longdouble": (lambda run, a: run(a.x.astype(np.longdouble)), T, "expected x of dtype"),
    "x_complex": (lambda run, a: run(a.x.astype(complex)), T, "got complex128"),
    "x_bool": (lambda run, a: run(a.x > 1), T, "got bool"),
    "x_object": (lambda run, a: run(a.x.astype(object)), T, "got object"),
    "x_text": (lambda run, a: run("text"), T, "x"),
    "x_none": (lambda run, a: run(None), T, "x"),
    "x_swapped": (lambda run, a: run(swapped(a.x)), T, ">f4"),
    "x_misaligned": (lambda run, a: run(misaligned(a.x)), V, "x"),
    "x_odd_strides": (lambda run, a: run(odd_strides(a.x)), V, "x"),
    "x_rank_17": (lambda run, a: run(np.ones((2,) + (1,) * 16, F32)), V, "17"),
    "out_shape": (lambda run, a: run(a.x, out=a.out[:3]), V, "of shape (4, 6, 5), got (3, 6, 5)"),
    "out_rank": (lambda run, a: run(a.x, out=a.out[0]), V, "(6, 5)"),
    "out_broadcastable": (lambda run, a: run(a.x[:1], out=a.out), V, "(1, 6, 5)"),
    "out_read_only": (lambda run, a: run(a.x, out=read_only(a.out)), V, "out"),
    "out_masked": (lambda run, a: run(a.x, out=masked(a.out)), T, "mask"),
    "out_swapped": (lambda run, a: run(a.x, out=swapped(a.out)), T, "out"),
    "out_misaligned": (lambda run, a: run(a.x, out=misaligned(a.out)), V, "out"),
    "out_overlaps": (lambda run, a: run(windows(a.base, (4, 6, 5), (60, 10, 2)),
                                        out=windows(a.base[2:], (4, 6, 5), (60, 10, 2))), V, "out"),
    "out_stride_0": (lambda run, a: run(a.x, out=windows(a.out, (4, 6, 5), (30, 5, 0))), V, "out"),
    "moments_type": (lambda run, a: run(a.x, moments=1.0), T, "Moments"),
    "moments_shape": (lambda run, a: run(a.x, moments=MO(numbers(3, 2, 9), 2)), V, "(3, 2)"),
    "unknown_option": (lambda run, a: run(a.x, epsilon=1e-5), T, "epsilon"),
}  # fmt: skip

# Gradients: what their arguments have beyond those of the forward call.
BACKWARD = {
    "layer_weight": (lambda a: LB(a.dy, a.x, None, a.w), V, "layer_norm_backward: expected weight of shape (5,), got (6,)"),
    "layer_bias": (lambda a: LB(a.dy, a.x, None, a.w5, a.w), V, "layer_norm_backward: expected bias of shape (5,), got (6,)"),
    "group_bias": (lambda a: GB(a.dy, a.x, 2, None, a.w5), V, "group_norm_backward: expected bias of shape (6,), got (5,)"),
    "batch_bias": (lambda a: BB(a.dy, a.x, a.mean, a.var, a.w, a.w5), V, "batch_norm_backward: expected bias of shape (6,)"),
    "instance_weight": (lambda a: IB(a.dy, a.x, None, None, a.w5), V, "instance_norm_backward: expected weight of shape"),
    "normalize_weight": (lambda a: NB(a.dy, a.x, 1, weight=a.w), V, "broadcasts to (4, 6, 5), got (6,)"),
    "normalize_bias": (lambda a: NB(a.dy, a.x, 1, bias=a.w), V, "expected bias of a shape that broadcasts to (4, 6, 5), got (6,)"),
    "bias_int": (lambda a: LB(a.dy, a.x, None, None, np.ones(5, int)), T, "expected bias of dtype"),
    "no_weight": (lambda a: NB(a.dy, a.x, 1, grad_weight=True), V,
                  "normalize_backward: expected grad_weight to be an array, or the parameter that has its shape, got True without it"),
    "no_bias": (lambda a: NB(a.dy, a.x, 1, weight=a.w5, grad_bias=True), V, "expected grad_bias to be an array, or"),
    "grad_weight_shape": (lambda a: LB(a.dy, a.x, grad_weight=a.w), V, "expected grad_weight of shape (5,), got (6,)"),
    "grad_bias_shape": (lambda a: BB(a.dy, a.x, training=True, grad_bias=a.w5), V, "expected grad_bias of shape (6,), got (5,)"),
    "grad_weight_broadcasts": (lambda a: NB(a.dy, a.x, 1, grad_weight=a.w), V, "(4, 6, 5), got (6,)"),
    "grad_weight_of_weight": (lambda a: NB(a.dy, a.x, 1, weight=a.w5[:1], grad_weight=a.w5), V, "of shape (1,), got (5,)"),
    "grad_bias_of_bias": (lambda a: NB(a.dy, a.x, 1, bias=a.w5[:1], grad_bias=a.w5), V, "of shape (1,), got (5,)"),
    "grad_weight_is_weight": (lambda a: LB(a.dy, a.x, None, a.w5, grad_weight=a.w5), V, "grad_weight apart from weight"),
    "grad_bias_is_grad_weight": (lambda a: BB(a.dy, a.x, training=True, grad_weight=a.w, grad_bias=a.w), V, "grad_bias apart from grad_weight"),
    "grad_weight_list": (lambda a: LB(a.dy, a.x, grad_weight=[0.0] * 5), T,
                         "layer_norm_backward: expected grad_weight to be True, False or a numpy.ndarray, got list"),
    "grad_bias_number": (lambda a: LB(a.dy, a.x, grad_bias=1), T, "got int"),
    "grad_bias_of_rms": (lambda a: RB(a.dy, a.x, grad_bias=True), T, "grad_bias"),
    "grad_weight_read_only": (lambda a: LB(a.dy, a.x, grad_weight=read_only(a.w5)), V, "grad_weight to be writeable"),
    "grad_weight_int": (lambda a: LB(a.dy, a.x, grad_weight=np.ones(5, int)), T, "expected grad_weight of dtype"),
    "grad_weight_masked": (lambda a: LB(a.dy, a.x, grad_weight=masked(a.w5)), T, "mask"),
    "frozen_without_moments": (lambda a: NB(a.dy, a.x, 1, frozen=True), V, "expected the moments that are frozen, got none"),
    "frozen_number": (lambda a: NB(a.dy, a.x, 1, frozen=1.0), T, "frozen"),
    "eval_without": (lambda a: BB(a.dy, a.x), V, "expected running_mean and running_var, whose statistics are used, got none"),
    "instance_eval_without": (lambda a: IB(a.dy, a.x, use_input_stats=False), V, "running"),
    "running_mean_only": (lambda a: BB(a.dy, a.x, a.mean), V, "together"),
    "running_f16": (lambda a: BB(a.dy, a.x, a.mean.astype(np.float16), a.var), T, "float16"),
    "momentum": (lambda a: BB(a.dy, a.x, a.mean, a.var, momentum=2.0), V, "momentum"),
    "num_groups": (lambda a: GB(a.dy, a.x, 4), V, "num_groups=4"),
    "channel_axis": (lambda a: GB(a.dy, a.x, 2, channel_axis=3, grad_weight=True), V, "channel_axis"),
    "normalized_shape": (lambda a: LB(a.dy, a.x, 6), V, "(4, 6, 5)"),
    "axis": (lambda a: NB(a.dy, a.x, 3), V, "3"),
    "axis_of_layer_norm": (lambda a: LB(a.dy, a.x, axis=7, grad_weight=True), V, "7"),
    "grad_input_is_given_mean": (lambda a: NB(a.dy[0], a.x[0], (), moments=a.given, grad_input=a.given.mean), V, "grad_input"),
}  # fmt: skip

FOR_EVERY_GRADIENT = {
    "grad_output_shape": (lambda run, a: run(a.dy[:3], a.x), V, "grad_output of shape (4, 6, 5), got (3, 6, 5)"),
    "grad_output_broadcastable": (lambda run, a: run(a.dy[:1], a.x), V, "got (1, 6, 5)"),
    "grad_output_int": (lambda run, a: run(a.dy.astype(int), a.x), T, "expected grad_output of dtype"),
    "grad_output_none": (lambda run, a: run(None, a.x), T, "expected grad_output to be an array, got NoneType"),
    "grad_output_masked": (lambda run, a: run(masked(a.dy), a.x), T, "of grad_output"),
    "grad_output_misaligned": (lambda run, a: run(misaligned(a.dy), a.x), V, "grad_output"),
    "x_int": (lambda run, a: run(a.dy, a.x.astype(int)), T, "expected x of dtype"),
    "x_swapped": (lambda run, a: run(a.dy, swapped(a.x)), T, ">f4"),
    "grad_input_shape": (lambda run, a: run(a.dy, a.x, grad_input=a.out[:3]), V, "grad_input of shape (4, 6, 5), got (3, 6, 5)"),
    "grad_input_none": (lambda run, a: run(a.dy, a.x, grad_input=None), T, "to be True, False or a numpy.ndarray, got NoneType"),
    "grad_input_list": (lambda run, a: run(a.dy, a.x, grad_input=a.x.tolist()), T, "got list"),
    "grad_input_read_only": (lambda run, a: run(a.dy, a.x, grad_input=read_only(a.out)), V, "grad_input"),
    "grad_input_masked": (lambda run, a: run(a.dy, a.x, grad_input=masked(a.out)), T, "mask"),
    "grad_input_overlaps": (lambda run, a: run(a.dy, windows(a.base, (4, 6, 5), (60, 10, 2)),
                                               grad_input=windows(a.base[2:], (4, 6, 5), (60, 10, 2))), V, "grad_input"),
    "grad_input_stride_0": (lambda run, a: run(a.dy, a.x, grad_input=windows(a.out, (4, 6, 5), (30, 5, 0))), V, "grad_input"),
    "moments_type": (lambda run, a: run(a.dy, a.x, moments=1.0), T, "Moments"),
    "moments_shape": (lambda run, a: run(a.dy, a.x, moments=MO(numbers(3, 2, 9), 2)), V, "(3, 2)"),
    "eps_negative": (lambda run, a: run(a.dy, a.x, eps=-1e-9), V, "eps"),
    "threads_zero": (lambda run, a: run(a.dy, a.x, num_threads=0), V, "num_threads"),
    "out": (lambda run, a: run(a.dy, a.x, out=a.out), T, "out"),
}  # fmt: skip


def contents(arrays):
    fields = {name: value for name, value in vars(arrays).items() if name != "given"}
    return {**fields, "given.count": arrays.given.count, "given.mean": arrays.given.mean, "given.m2": arrays.given.m2}


def check(call, arrays, exception, message):
    before = {name: array.copy() for name, array in contents(arrays).items()}
    with pytest.raises(exception) as caught:
        call()
    assert type(caught.value) is exception
    assert message in str(caught.value)
    for name, array in contents(arrays).items():
        assert cases.same_bits(array, before[name]), f"{name} was written"


@pytest.mark.parametrize("call, exception, message", TABLE.values(), ids=TABLE.keys())
def test_refused(call, exception, message):
    arrays = Arrays()
    check(lambda: call(arrays), arrays, exception, message)


@pytest.mark.parametrize("name", NORMS_OF_X)
@pytest.mark.parametrize("call, exception, message", FOR_EVERY_NORM.values(), ids=FOR_EVERY_NORM.keys())
def test_refused_by_every_norm(name, call, exception, message):
    arrays = Arrays()
    check(lambda: call(NORMS_OF_X[name], arrays), arrays, exception, message)


@pytest.mark.parametrize("call, exception, message", BACKWARD.values(), ids=BACKWARD.keys())
def test_gradients_refused(call, exception, message):
    arrays = Arrays()
    check(lambda: call(arrays), arrays, exception, message)


@pytest.mark.parametrize("name", GRADIENTS_OF_X)
@pytest.mark.parametrize("call, exception, message", FOR_EVERY_GRADIENT.values(), ids=FOR_EVERY_GRADIENT.keys())
def test_refused_by_every_gradient(name, call, exception, message):
    arrays = Arrays()
    check(lambda: call(GRADIENTS_OF_X[name], arrays), arrays, exception, message)


@pytest.mark.parametrize("name", NORMS_OF_X)
def test_messages_name_the_function(name):
    with pytest.raises(ValueError, match=rf"^{name}: expected "):
        NORMS_OF_X[name](numbers(4, 6, 5), out=numbers(4, 6, 4))


@pytest.mark.parametrize("name", GRADIENTS_OF_X)
def test_messages_name_the_backward_function(name):
    with pytest.raises(ValueError, match=rf"^{name}: expected "):
        GRADIENTS_OF_X[name](numbers(4, 6, 4), numbers(4, 6, 5))


def test_the_calls_work_otherwise():
    """The same arrays are accepted where nothing is wrong with them."""
    a = Arrays()
    for run in NORMS_OF_X.values():
        run(a.x, out=a.out)
        run(windows(a.base, (4, 6, 5), (60, 10, 2)), out=windows(a.base[1:], (4, 6, 5), (60, 10, 2)))
        run(a.x, out=a.x)
    for run in GRADIENTS_OF_X.values():
        run(a.dy, a.x, grad_input=a.out)
        run(a.dy, a.x, grad_input=a.dy)
    LB(a.dy, a.x, None, a.w5, a.b[:5], grad_bias=a.b[:5])  # a bias is not read
    BN(a.x, a.mean, a.var, a.w, a.b, True)
    assert np.all(np.isfinite(a.out))


def test_array_likes_are_converted():
    """Lists of floats and subclasses are fine; integers never turn into floats by themselves."""
    expected = LN(np.float64([[1, 2, 6]]))
    assert cases.same_bits(LN([[1.0, 2.0, 6.0]]), expected)

    class Subclass(np.ndarray):
        pass

    y = LN(np.float64([[1, 2, 6]]).view(Subclass))
    assert type(y) is np.ndarray
    assert cases.same_bits(y, expected)
    with pytest.raises(TypeError, match="int64"):
        LN([[1, 2, 6]])


def test_bfloat16_without_its_package(run_python):
    code = """
import sys, numpy as np, anynorm
sys.modules["ml_dtypes"] = None
try:
    anynorm.layer_norm(np.ones((2, 3)), dtype="bfloat16")
except ImportError as error:
    print(error)
"""
    message = "layer_norm: expected dtype bfloat16 with the package ml_dtypes installed, which defines it"
    assert run_python(code) == message
