# SPDX-License-Identifier: Apache-2.0
"""The tables that the tests are products of: memory layouts, norms and kernel shapes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

# --- layouts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """`place` puts the values of a C-order array (rank >= 2) into memory in another way and returns a view of its
    shape. The views are writable unless `output` is false."""

    name: str
    place: Callable[[np.ndarray], np.ndarray]
    output: bool = True

    def empty(self, shape, dtype):
        """Room for an output. NaN, so that an element that is not written shows."""
        return self.place(np.full(shape, np.nan, dtype))


def _permuted(order):
    """Memory in another order of the axes."""

    def place(values):
        axes = order(values.ndim)
        return np.ascontiguousarray(values.transpose(axes)).transpose(np.argsort(axes))

    return place


def _sliced(index, step):
    """Every other element of a larger array, along the axis `index`; the gaps hold NaN, so that reading them shows."""

    def place(values):
        shape = list(values.shape)
        shape[index] *= abs(step)
        base = np.full(shape, np.nan, values.dtype)
        selection = [slice(None)] * values.ndim
        selection[index] = slice(None, None, step)
        base[tuple(selection)] = values
        return base[tuple(selection)]

    return place


def _reversed(values):
    everything = (slice(None, None, -1),) * values.ndim
    return values[everything].copy()[everything]


def _padded(values):
    """Rows with a gap between them, as an image with a pitch."""
    base = np.full((*values.shape[:-1], values.shape[-1] + 3), np.nan, values.dtype)
    base[..., :-3] = values
    return base[..., :-3]


def _offset(values):
    """A start that is aligned to an element but not to a vector."""
    base = np.full(values.size + 17, np.nan, values.dtype)
    skip = 1 + (-base.ctypes.data // values.itemsize) % 16
    view = base[skip : skip + values.size].reshape(values.shape)
    view[...] = values
    assert view.ctypes.data % 16
    return view


def _broadcast(axis):
    """One slice repeated with stride 0."""

    def place(values):
        return np.broadcast_to(values.take([0], axis=axis), values.shape)

    return place


LAYOUTS = [
    Layout("c", np.copy),
    Layout("fortran", np.asfortranarray),
    Layout("channels_last", _permuted(lambda rank: [0, *range(2, rank), 1])),
    Layout("transposed", _permuted(lambda rank: [*range(rank - 2), rank - 1, rank - 2])),
    Layout("rotated", _permuted(lambda rank: [rank - 1, *range(rank - 1)])),
    Layout("step2_inner", _sliced(-1, 2)),
    Layout("step2_middle", _sliced(1, 2)),
    Layout("step2_outer", _sliced(0, 2)),
    Layout("negative_inner", _sliced(-1, -1)),
    Layout("negative_outer", _sliced(0, -1)),
    Layout("negative_step2", _sliced(-1, -2)),
    Layout("negative_all", _reversed),
    Layout("padded_rows", _padded),
    Layout("offset", _offset),
    Layout("broadcast_inner", _broadcast(-1), output=False),
    Layout("broadcast_channels", _broadcast(1), output=False),
    Layout("broadcast_outer", _broadcast(0), output=False),
]
LAYOUT = {layout.name: layout for layout in LAYOUTS}
OUTPUT_LAYOUTS = [layout for layout in LAYOUTS if layout.output]

# --- norms -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Norm:
    """A call on x of shape (N, C, H, W), C a multiple of 4. `lib` is the library or the oracle."""

    name: str
    call: Callable[..., Any]  # call(lib, x, weight, bias, **options)
    parameter_axes: tuple[int, ...] | None  # the axes of x that make the shape of weight and bias

    def parameters(self, x, dtype=None, seed=1):
        rng = np.random.default_rng(seed)
        shape = tuple(x.shape[axis] for axis in self.parameter_axes)
        weight = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
        return weight.astype(dtype or x.dtype), rng.normal(size=shape).astype(dtype or x.dtype)


def _batch_eval(lib, x, weight, bias, **options):
    channels = x.shape[1]
    dtype = x.dtype if x.dtype.itemsize > 2 else np.float32  # statistics are never kept in a half type
    mean = np.linspace(-1, 4, channels).astype(dtype)
    var = np.linspace(0.5, 2, channels).astype(dtype)
    return lib.batch_norm(x, mean, var, weight, bias, **options)


def _free_axes(lib, x, weight, bias, **options):
    weight, bias = (None if p is None else p[:, None] for p in (weight, bias))
    return lib.normalize(x, (0, 3), weight=weight, bias=bias, **options)


NORMS = [
    Norm("layer_last", lambda lib, x, w, b, **o: lib.layer_norm(x, None, w, b, **o), (3,)),
    Norm("layer_channels", lambda lib, x, w, b, **o: lib.layer_norm(x, None, w, b, axis=1, **o), (1,)),
    Norm("layer_sample", lambda lib, x, w, b, **o: lib.layer_norm(x, x.shape[1:], w, b, **o), (1, 2, 3)),
    Norm("layer_mixed", lambda lib, x, w, b, **o: lib.layer_norm(x, None, w, b, axis=(-2, 0), **o), (0, 2)),
    Norm("rms_last", lambda lib, x, w, b, **o: lib.rms_norm(x, None, w, **o), (3,)),
    Norm("rms_channels", lambda lib, x, w, b, **o: lib.rms_norm(x, None, w, axis=1, **o), (1,)),
    Norm("group", lambda lib, x, w, b, **o: lib.group_norm(x, 4, w, b, **o), (1,)),
    Norm("instance", lambda lib, x, w, b, **o: lib.instance_norm(x, None, None, w, b, **o), (1,)),
    Norm("instance_last",
         lambda lib, x, w, b, **o: lib.instance_norm(x, None, None, w, b, channel_axis=-1, **o), (3,)),
    Norm("batch_train", lambda lib, x, w, b, **o: lib.batch_norm(x, None, None, w, b, True, **o), (1,)),
    Norm("batch_last", lambda lib, x, w, b, **o: lib.batch_norm(x, None, None, w, b, True, channel_axis=-1, **o), (3,)),
    Norm("batch_eval", _batch_eval, (1,)),
    Norm("free_axes", _free_axes, (2,)),
]  # fmt: skip
NORM = {norm.name: norm for norm in NORMS}


class Backward:
    """A library whose norms are their gradients: `norm.call(Backward(lib, grad_output), x, weight, bias)`.

    The arguments after `grad_output` are those of the forward call, which is what makes this possible.
    """

    def __init__(self, lib, grad_output):
        self.lib, self.grad_output = lib, grad_output

    def __getattr__(self, name):
        return partial(getattr(self.lib, f"{name}_backward"), self.grad_output)


# --- kernel shapes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernel:
    """A C-order shape and the axes of its sets: one for every loop nest (K kept, R reduced, innermost last), with
    odd lengths, above the size from which threads are used, and sets longer than a block where the nest allows."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]


KERNELS = [
    Kernel("R", (300_007,), (0,)),
    Kernel("KR_n3", (20_011, 3), (1,)),
    Kernel("KR_n37", (2_503, 37), (1,)),
    Kernel("KR_n768", (101, 768), (1,)),
    Kernel("KR_n4097", (37, 4_097), (1,)),
    Kernel("KR_n70001", (3, 70_001), (1,)),
    Kernel("RK_c1", (140_001, 1), (0,)),
    Kernel("RK_c3", (70_001, 3), (0,)),
    Kernel("RK_c16", (9_001, 16), (0,)),
    Kernel("RK_c37", (4_099, 37), (0,)),
    Kernel("RK_c64", (4_097, 64), (0,)),
    Kernel("RK_c1000", (211, 1_000), (0,)),
    Kernel("RK_c4100", (31, 4_100), (0,)),
    Kernel("RKR_small_plane", (41, 37, 5, 7), (0, 2, 3)),
    Kernel("RKR_plane", (7, 19, 33, 31), (0, 2, 3)),
    Kernel("RKR_large_plane", (2, 3, 300, 241), (0, 2, 3)),
    Kernel("KRK", (5, 461, 37), (1,)),
    Kernel("KRK_long", (2, 4_500, 16), (1,)),
    Kernel("KRKR", (3, 700, 4, 9), (1, 3)),
    Kernel("RKRK", (301, 4, 9, 13), (0, 2)),
    Kernel("KRKRK", (3, 41, 5, 23, 7), (1, 3)),
    Kernel("RKRKR", (31, 4, 23, 5, 9), (0, 2, 4)),
]

# --- comparisons -----------------------------------------------------------------------------------------------------


def bits(array):
    """The array as integers: NaN equals NaN, and 0 differs from -0."""
    array = np.ascontiguousarray(array)
    return array.view({1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[array.itemsize])


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(bits(a), bits(b))


def same_moments(a, b):
    return all(same_bits(getattr(a, name), getattr(b, name)) for name in ("count", "mean", "m2", "mean_low"))
