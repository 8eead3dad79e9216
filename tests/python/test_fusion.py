# SPDX-License-Identifier: Apache-2.0
"""A residual, an activation, a result of 8 bits: each call equals, to the bit, the calls that it stands for."""

import re

import cases
import ml_dtypes
import numpy as np
import pytest
import reference

import anynorm

BF16, F16, F32, F64 = (np.dtype(name) for name in (ml_dtypes.bfloat16, np.float16, np.float32, np.float64))
I8, U8 = np.dtype(np.int8), np.dtype(np.uint8)
SHAPE = (3, 8, 5, 6)
ACTIVATIONS = ("relu", "silu", "gelu", "gelu_tanh")
IDENTITY = {"moments": anynorm.Moments.from_arrays(1, 0, 1), "eps": 0}


@pytest.fixture(params=ACTIVATIONS)
def activation(request):
    return request.param


def sample(shape, dtype=F32, seed=3, mean=0.5):
    return np.random.default_rng(seed).normal(mean, 2, shape).astype(dtype)


def activated(h, name):
    """The activation alone, in the dtype of h."""
    return anynorm.normalize(h, None, activation=name, **IDENTITY)


def rotating(table, *names):
    """An entry of a table for each case of a product, so that all meet without the product of both."""
    return table[sum(map(ord, "".join(names))) % len(table)]


# --- activations -----------------------------------------------------------------------------------------------------

# The largest error in float32, relative, where results are above the floor; relative to the floor below it. The
# baseline has no fused multiply-add to carry the rounding of a square.
FLOOR = {"relu": 1e-29, "silu": 1e-29, "gelu": 1e-29, "gelu_tanh": 0.25}
ALLOWED = {F32: 4e-7, F64: 4e-15}


def test_activation_values(activation, isa, dtype):
    rng = np.random.default_rng(5)
    h = np.concatenate(
        [np.linspace(-12, 12, 4001), np.linspace(-88, 88, 501), rng.normal(size=1000) * 1e-3, [1e30, -1e30]]
    )
    h = h.astype(dtype)
    y = activated(h, activation)
    exact = reference.activate(activation, h)
    floor = FLOOR[activation] if dtype == F32 and isa != "baseline" else 0.25 if dtype == F32 else 1.0
    error = np.abs(y.astype(F64) - exact) / np.maximum(np.abs(exact), floor)
    assert error.max() <= ALLOWED[np.dtype(dtype)]


def test_activation_limits(activation, isa, dtype):
    h = np.array([-np.inf, np.inf, np.nan, 0, -0.0, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
    with np.errstate(all="raise"):
        y = activated(h, activation)
    np.testing.assert_array_equal(y, np.array([0, np.inf, np.nan, 0, 0, np.finfo(dtype).max, 0], dtype))


def test_activation_bits(activation, wide_isas):
    h = sample(10_007, mean=-1) * 3
    results = []
    for name in wide_isas:
        anynorm.use_isa(name)
        results.append(activated(h, activation))
    assert all(cases.same_bits(results[0], each) for each in results[1:])


def test_activation_of_layouts_and_norms(layout, norm):
    """It acts on the float32 result, which is rounded to the dtype of y afterwards; the arguments may be of any type."""
    name = rotating(ACTIVATIONS, layout.name, norm.name)
    for x_dtype, y_dtype in ((F32, F32), (F32, BF16), (BF16, BF16), (F16, F32), (F64, F64), (F32, F64)):
        x = layout.place(sample(SHAPE, x_dtype))
        weight, bias = norm.parameters(x, F32)
        wide = F64 if F64 in (x_dtype, y_dtype) else F32
        h = norm.call(anynorm, x, weight, bias, dtype=wide)
        y = norm.call(anynorm, x, weight, bias, dtype=y_dtype, activation=name)
        assert y.dtype == y_dtype
        assert cases.same_bits(y, activated(h, name).astype(y_dtype)), (x_dtype, y_dtype)


def test_activation_goes_anywhere(out_layout, activation):
    x = sample(SHAPE)
    expected = anynorm.group_norm(x, 4, activation=activation)
    out = out_layout.empty(SHAPE, F32)
    assert anynorm.group_norm(x, 4, activation=activation, out=out) is out
    assert cases.same_bits(out, expected)
    place = out_layout.place(x)
    own = anynorm.group_norm(place, 4, activation=activation)
    assert cases.same_bits(anynorm.group_norm(place, 4, activation=activation, out=place), own)


@pytest.mark.parametrize("name", ["relu", "silu", "gelu", "gelu_tanh"])
def test_activations_are_those_of_torch(name):
    torch = pytest.importorskip("torch")
    function = {
        "relu": torch.nn.functional.relu,
        "silu": torch.nn.functional.silu,
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda h: torch.nn.functional.gelu(h, approximate="tanh"),
    }[name]
    h = np.linspace(-6, 6, 4001)
    np.testing.assert_allclose(activated(h, name), function(torch.from_numpy(h)).numpy(), rtol=0, atol=1e-13)


# --- residuals -------------------------------------------------------------------------------------------------------


def sum_of(x, residual, dtype=None):
    wide = F64 if F64 in (x.dtype, residual.dtype, np.dtype(dtype or x.dtype)) else F32
    return (x.astype(wide) + residual.astype(wide)).astype(dtype or x.dtype)


def test_residual_of_layouts_and_norms(layout, norm):
    """The sum is rounded, and y is that of the rounded sum: to the bit, whatever lies where."""
    place = rotating(cases.LAYOUTS, norm.name, layout.name).place
    for x_dtype, residual_dtype, y_dtype in ((F32, F32, F32), (BF16, BF16, BF16), (F16, F32, F32), (F32, F64, F16)):
        x, residual = layout.place(sample(SHAPE, x_dtype)), place(sample(SHAPE, residual_dtype, seed=8))
        weight, bias = norm.parameters(x, F32)
        y, total, used = norm.call(anynorm, x, weight, bias, residual=residual, dtype=y_dtype, return_moments=True)
        assert cases.same_bits(total, sum_of(x, residual))
        expected, moments = norm.call(anynorm, total, weight, bias, dtype=y_dtype, return_moments=True)
        assert cases.same_bits(y, expected)
        assert cases.same_moments(used, moments)


def test_residual_of_every_kernel(kernel):
    """Above the size of a piece and of a thread's share: the same bits, however many threads there are."""
    x, residual = sample(kernel.shape), sample(kernel.shape, seed=8)
    total = x + residual
    expected = activated(anynorm.normalize(total, kernel.axes), "gelu")
    for threads in (1, 3):
        y, own = anynorm.normalize(x, kernel.axes, residual=residual, activation="gelu", num_threads=threads)
        assert cases.same_bits(own, total)
        assert cases.same_bits(y, expected)
        y, own = anynorm.normalize(x, kernel.axes, residual=residual, num_threads=threads)
        assert cases.same_bits(y, anynorm.normalize(total, kernel.axes))


@pytest.mark.parametrize(
    "shape, axes", [((2500, 800), 1), ((4, 64, 90, 90), (2, 3)), ((8, 2048, 128), 1), ((9000, 256), 0)]
)
def test_residual_past_the_caches(shape, axes):
    """Results of 4 MB and more are streamed, some of them while the next sums are formed."""
    x, residual = sample(shape), sample(shape, seed=8)
    expected = anynorm.normalize(x + residual, axes)
    y, total = anynorm.normalize(x, axes, residual=residual)
    assert cases.same_bits(total, x + residual)
    assert cases.same_bits(y, expected)


@pytest.mark.parametrize(
    "where, y_where",
    [("x", "new"), ("residual", "new"), ("new", "x"), ("new", "residual"), ("x", "residual"), ("residual", "x")],
)
def test_sums_in_place(out_layout, where, y_where):
    arrays = {"x": out_layout.place(sample(SHAPE)), "residual": out_layout.place(sample(SHAPE, seed=8))}
    arrays["new"] = out_layout.empty(SHAPE, F32)
    expected_sum = arrays["x"] + arrays["residual"]
    expected = anynorm.layer_norm(out_layout.place(expected_sum), axis=(1, 3), activation="silu")
    out = None if y_where == "new" else arrays[y_where]
    y, total = anynorm.layer_norm(
        arrays["x"], axis=(1, 3), residual=arrays["residual"], sum_out=arrays[where], out=out, activation="silu"
    )
    assert total is arrays[where]
    assert cases.same_bits(total, expected_sum)
    assert cases.same_bits(y, expected)


@pytest.mark.parametrize("dtype", [F32, F64, F16], ids=str)
def test_sum_of_another_type(dtype):
    x, residual = sample(SHAPE, BF16), sample(SHAPE, BF16, seed=8)
    y, total = anynorm.rms_norm(x, residual=residual, sum_out=np.empty(SHAPE, dtype))
    assert cases.same_bits(total, sum_of(x, residual, dtype))
    assert cases.same_bits(y, anynorm.rms_norm(total, dtype=BF16))


def test_running_statistics_are_those_of_the_sum():
    x, residual = sample(SHAPE), sample(SHAPE, seed=8)
    running, expected = ([np.zeros(8), np.ones(8)] for _ in range(2))
    y, total = anynorm.batch_norm(x, *running, training=True, residual=residual, activation="relu")
    plain = anynorm.batch_norm(total, *expected, training=True, activation="relu")
    assert cases.same_bits(y, plain)
    assert all(cases.same_bits(a, b) for a, b in zip(running, expected, strict=True))
    y, total = anynorm.batch_norm(x, *running, residual=residual)
    assert cases.same_bits(y, anynorm.batch_norm(total, *running))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,)])
def test_nothing_to_sum(shape):
    x = np.empty(shape, F32)
    y, total = anynorm.normalize(x, 0, residual=x, activation="gelu")
    assert y.shape == total.shape == shape


# --- results of 8 bits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
@pytest.mark.parametrize("y_dtype", [F32, F64, F16, BF16], ids=str)
def test_quantize(isa, y_dtype, dtype):
    """Ties, both ends, beyond them, and what is not finite."""
    limits = np.iinfo(dtype)
    steps = np.arange(-600, 601) / 2
    y = np.concatenate([steps, np.nextafter(steps, 1e9), [np.nan, np.inf, -np.inf, -0.0, 6e4, -6e4]]).astype(y_dtype)
    for scale, zero_point in ((1.0, 0), (1.0, limits.max), (0.37, limits.min), (0.003, 7), (300.0, 100)):
        expected = reference.quantize(y, scale, zero_point, dtype)
        np.testing.assert_array_equal(anynorm.quantize(y, scale, zero_point, dtype), expected)


def bytes_in(layout, shape):
    """An array of int8 with the strides, counted in elements, of another layout."""
    steps = [stride // 4 for stride in layout.place(np.zeros(shape, F32)).strides]
    reach = [step * (n - 1) for step, n in zip(steps, shape, strict=True)]
    below = -sum(min(0, each) for each in reach)
    memory = np.zeros(below + sum(max(0, each) for each in reach) + 1, I8)
    return np.lib.stride_tricks.as_strided(memory[below:], shape, steps)


def test_quantize_layouts(layout, out_layout):
    y, out = layout.place(sample(SHAPE)), bytes_in(out_layout, SHAPE)
    assert anynorm.quantize(y, 0.05, 3, out=out) is out
    np.testing.assert_array_equal(out, reference.quantize(y, 0.05, 3))
    assert anynorm.instance_norm(y, out=out, out_scale=0.05) is out
    np.testing.assert_array_equal(out, reference.quantize(anynorm.instance_norm(y), 0.05))


@pytest.mark.parametrize("y_dtype", [F32, F64, F16], ids=str)
@pytest.mark.parametrize("dtype", [I8, U8], ids=str)
def test_quantize_along_axes(layout, y_dtype, dtype):
    y = layout.place(sample(SHAPE).astype(y_dtype))
    limits, rng = np.iinfo(dtype), np.random.default_rng(3)
    for own in [(SHAPE[1], *(1,) * (len(SHAPE) - 2)), SHAPE[-1:], SHAPE]:
        scale = (rng.random(own) + 0.01).astype(F32)
        zero_point = rng.integers(limits.min, limits.max + 1, own).astype(dtype)
        for scales, zeros in ((scale, 0), (scale, zero_point), (0.05, zero_point), (scale.astype(F64), zero_point)):
            wide = y if y_dtype == F64 else y.astype(F32)
            steps = np.rint(wide / np.asarray(scales, wide.dtype))
            expected = np.clip(steps + zeros, limits.min, limits.max).astype(dtype)
            np.testing.assert_array_equal(anynorm.quantize(y, scales, zeros, dtype), expected)


def test_quantize_threads_and_lists():
    y = sample((3, 500, 300))
    one = anynorm.quantize(y, 0.05, 3, num_threads=1)
    assert np.array_equal(anynorm.quantize(y, 0.05, 3, num_threads=3), one)
    got = anynorm.quantize([[1.0, 2.0]], [0.5, 0.25], [1, -2])
    assert got.tolist() == [[3, 6]]
    for zero_point, error, message in (
        ([1, 300], ValueError, "quantize: expected zero_point of values of int8"),
        (np.array([1, 2]), TypeError, "quantize: expected zero_point of dtype"),
        (np.array([1, 2], U8), ValueError, "quantize: expected zero_point of dtype int8 as output, got uint8"),
        (["a", "b"], TypeError, "quantize: expected zero_point to be an int or an array of them"),
        ([1, 2, 3], ValueError, "quantize: expected zero_point of a shape that broadcasts to (1, 2), got (3,)"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            anynorm.quantize([[1.0, 2.0]], [0.5, 0.25], zero_point)
    with pytest.raises(ValueError, match="a scale above 0"):
        anynorm.quantize(y, [0.5, 0.0, 1.0] * 100)


def test_8_bits_of_layouts_and_norms(layout, norm):
    dtype, zero_point = rotating([(I8, -3), (U8, 120)], layout.name, norm.name)
    name = rotating([None, *ACTIVATIONS], norm.name, layout.name)
    for x_dtype in (F32, F64, BF16):
        x = layout.place(sample(SHAPE, x_dtype))
        weight, bias = norm.parameters(x, F32)
        wide = F64 if x_dtype == F64 else F32
        y = norm.call(anynorm, x, weight, bias, dtype=wide, activation=name)
        q = norm.call(anynorm, x, weight, bias, dtype=dtype, activation=name, out_scale=0.03, out_zero_point=zero_point)
        assert q.dtype == dtype
        np.testing.assert_array_equal(q, reference.quantize(y, 0.03, zero_point, dtype))
        np.testing.assert_array_equal(q, anynorm.quantize(y, 0.03, zero_point, dtype))


STEPS = [(8, 1, 1), (6,), (3, 1, 1, 1), (5, 1), (1, 8, 1, 6), SHAPE]


def test_8_bits_by_channel(layout, norm):
    rng = np.random.default_rng(3)
    own = rotating(STEPS, layout.name, norm.name)
    dtype, limits = rotating([(I8, (-128, 128)), (U8, (0, 256))], norm.name, layout.name)
    scale = (rng.random(own) + 0.01).astype(rotating([F32, BF16, F64], layout.name))
    zero_point = rng.integers(*limits, own).astype(dtype)
    x = layout.place(sample(SHAPE))
    weight, bias = norm.parameters(x)
    y = norm.call(anynorm, x, weight, bias, activation="gelu")
    for of_scale, of_zero in ((scale, zero_point), (scale, 5), (0.03, zero_point), (scale, zero_point.tolist())):
        options = {"activation": "gelu", "out_scale": of_scale, "out_zero_point": of_zero}
        q = norm.call(anynorm, x, weight, bias, dtype=dtype, **options)
        assert q.dtype == dtype
        np.testing.assert_array_equal(q, anynorm.quantize(y, of_scale, of_zero, dtype))


@pytest.mark.parametrize("pattern, sizes", [("n c h w -> c", {}), ("n (g c) h w -> n g", {"g": 4})])
def test_8_bits_by_channel_of_patterns_and_masks(pattern, sizes):
    x, where = sample(SHAPE), np.arange(6) < 4
    scale = np.linspace(0.01, 0.1, 8).reshape(8, 1, 1)
    zero_point = np.arange(8).reshape(8, 1, 1)
    for zeros in (zero_point.astype(I8), zero_point.tolist(), 3):
        for selection in ({}, {"where": where}):
            for _ in range(2):  # the second time by the way of patterns that are known
                y = anynorm.normalize(x, pattern, **selection, **sizes)
                q = anynorm.normalize(x, pattern, dtype=I8, out_scale=scale, out_zero_point=zeros, **selection, **sizes)
                np.testing.assert_array_equal(q, anynorm.quantize(y, scale, zeros))


def test_8_bits_of_every_kernel(kernel):
    x = sample(kernel.shape)
    expected = anynorm.quantize(anynorm.normalize(x, kernel.axes), 0.02)
    for threads in (1, 3):
        q = anynorm.normalize(x, kernel.axes, dtype="int8", out_scale=0.02, num_threads=threads)
        np.testing.assert_array_equal(q, expected)
    scale = np.linspace(0.01, 0.1, kernel.shape[-1])
    expected = anynorm.quantize(anynorm.normalize(x, kernel.axes), scale)
    for threads in (1, 3):
        q = anynorm.normalize(x, kernel.axes, dtype="int8", out_scale=scale, num_threads=threads)
        np.testing.assert_array_equal(q, expected)


# --- errors ----------------------------------------------------------------------------------------------------------

X, R = np.ones((4, 6), F32), np.ones((4, 6), F32)
READ_ONLY = np.ones((4, 6), F32)
READ_ONLY.flags.writeable = False
ERRORS = {
    "activation_name": ({"activation": "swish"}, ValueError, "expected activation None, 'relu', 'silu', 'gelu' or 'gelu_tanh', got 'swish'"),
    "activation_type": ({"activation": 1}, TypeError, "expected activation to be a str or None, got int"),
    "residual_shape": ({"residual": R[:3]}, ValueError, "expected residual of shape (4, 6), got (3, 6)"),
    "residual_broadcasts": ({"residual": R[:1]}, ValueError, "expected residual of shape (4, 6), got (1, 6)"),
    "residual_dtype": ({"residual": R.astype(I8)}, TypeError, "expected residual of dtype float16, bfloat16, float32 or float64, got int8"),
    "sum_alone": ({"sum_out": R.copy()}, ValueError, "expected residual and the sum to write, both or neither, got sum alone"),
    "sum_shape": ({"residual": R, "sum_out": np.ones((4, 5), F32)}, ValueError, "expected sum of shape (4, 6), got (4, 5)"),
    "sum_dtype": ({"residual": R, "sum_out": np.ones((4, 6), I8)}, TypeError, "expected sum_out of dtype float16, bfloat16, float32 or float64, got int8"),
    "sum_list": ({"residual": R, "sum_out": [1]}, TypeError, "expected sum_out of type numpy.ndarray, got list"),
    "sum_read_only": ({"residual": R, "sum_out": READ_ONLY}, ValueError, "expected sum_out to be writeable, got a read-only array"),
    "sum_twice": ({"residual": R, "sum_out": np.broadcast_to(np.ones(6, F32), (4, 6))}, ValueError, "expected sum_out to be writeable"),
    "sum_over_x": ({"residual": R, "sum_out": X[::-1]}, ValueError, "expected sum apart from x (or the same array), got arrays that share memory"),
    "sum_over_residual": ({"residual": R, "sum_out": R[:, ::-1]}, ValueError, "expected sum apart from residual (or the same array)"),
    "sum_over_output": ({"residual": R, "sum_out": X, "out": X}, ValueError, "expected sum apart from output, got arrays that share memory"),
    "output_over_residual": ({"residual": R, "out": R[::-1]}, ValueError, "expected output apart from residual (or the same array)"),
    "scale_missing": ({"dtype": I8}, ValueError, "expected a scale above 0, in the range of float32, for an output of dtype int8, got 0"),
    "scale_zero": ({"dtype": I8, "out_scale": 0}, ValueError, "expected out_scale above 0, got 0"),
    "scale_nan": ({"dtype": I8, "out_scale": float("nan")}, ValueError, "expected out_scale above 0, got nan"),
    "scale_infinite": ({"dtype": U8, "out_scale": np.inf}, ValueError, "expected a scale above 0, in the range of float32, for an output of dtype uint8, got inf"),
    "scale_tiny": ({"dtype": U8, "out_scale": 1e-60}, ValueError, "got 1e-60"),
    "scale_type": ({"dtype": I8, "out_scale": "1"}, TypeError, "expected out_scale to be a number, got str"),
    "scale_of_floats": ({"out_scale": 0.5}, ValueError, "expected an output of dtype int8 or uint8 for a scale and a zero point, got float32"),
    "zero_point_of_floats": ({"out_zero_point": 1}, ValueError, "expected an output of dtype int8 or uint8 for a scale and a zero point, got float32"),
    "zero_point_above": ({"dtype": I8, "out_scale": 1, "out_zero_point": 128}, ValueError, "expected a zero point from -128 to 127 for an output of dtype int8, got 128"),
    "zero_point_below": ({"dtype": U8, "out_scale": 1, "out_zero_point": -1}, ValueError, "expected a zero point from 0 to 255 for an output of dtype uint8, got -1"),
    "zero_point_type": ({"dtype": U8, "out_scale": 1, "out_zero_point": 0.5}, TypeError, "expected out_zero_point to be an int, got float"),
    "scales_of_floats": ({"out_scale": [0.5]}, ValueError, "expected an output of dtype int8 or uint8 for a scale and a zero point, got float32"),
    "scales_that_do_not_broadcast": ({"dtype": I8, "out_scale": np.ones(4)}, ValueError, "expected scale of a shape that broadcasts to (4, 6), got (4,)"),
    "scales_of_integers": ({"dtype": I8, "out_scale": np.ones(6, int)}, TypeError, "expected out_scale of dtype float16, bfloat16, float32 or float64, got int64"),
    "scales_of_zero": ({"dtype": I8, "out_scale": np.float32([1, 1, 0, 1, 1, 1])}, ValueError, "expected a scale above 0, in the range of float32, for an output of dtype int8, got 0"),
    "zero_points_of_floats": ({"out_zero_point": [1]}, ValueError, "expected out_zero_point with a result of dtype int8 or uint8, got float32"),
    "zero_points_above": ({"dtype": I8, "out_scale": 1, "out_zero_point": [128] * 6}, ValueError, "expected out_zero_point of values of int8, got [128"),
    "zero_points_of_another_type": ({"dtype": I8, "out_scale": 1, "out_zero_point": np.zeros(6, U8)}, ValueError, "expected zero_point of dtype int8 as output, got uint8"),
    "zero_points_type": ({"dtype": I8, "out_scale": 1, "out_zero_point": ["a"] * 6}, TypeError, "expected out_zero_point to be an int or an array of them, got list"),
    "out_and_dtype": ({"dtype": U8, "out": np.zeros((4, 6), I8), "out_scale": 1}, ValueError, "expected out of dtype uint8 as dtype says, got int8"),
}  # fmt: skip


@pytest.mark.parametrize("options, error, message", ERRORS.values(), ids=ERRORS.keys())
def test_errors(options, error, message):
    for name, call in {
        "layer_norm": lambda **o: anynorm.layer_norm(X, **o),
        "group_norm": lambda **o: anynorm.group_norm(X, 2, **o),
    }.items():
        written = [array for key in ("out", "sum_out") if isinstance(array := options.get(key), np.ndarray)]
        before = [array.copy() for array in written]
        with pytest.raises(error) as raised:
            call(**options)
        assert str(raised.value).startswith(f"{name}: ")
        assert message in str(raised.value)
        assert all(cases.same_bits(a, b) for a, b in zip(written, before, strict=True))


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((0,), {}, "quantize: expected a scale above 0"),
        ((1, 200), {}, "quantize: expected a zero point from -128 to 127"),
        ((1,), {"dtype": F32}, "quantize: expected output of dtype int8 or uint8, got float32"),
        ((1,), {"out": np.zeros((4, 5), I8)}, "quantize: expected output of shape (4, 6), got (4, 5)"),
    ],
    ids=["scale", "zero_point", "dtype", "shape"],
)
def test_errors_of_quantize(arguments, options, message):
    with pytest.raises(ValueError, match="quantize") as raised:
        anynorm.quantize(X, *arguments, **options)
    assert message in str(raised.value)


def test_8_bits_are_no_input():
    q = np.ones((4, 6), I8)
    for call in (
        lambda: anynorm.layer_norm(q),
        lambda: anynorm.moments(q),
        lambda: anynorm.layer_norm(X, weight=q[0]),
        lambda: anynorm.quantize(q, 1),
        lambda: anynorm.layer_norm_backward(X, X, grad_input=q),
    ):
        with pytest.raises(TypeError, match="of dtype float16, bfloat16, float32 or float64, got int8"):
            call()
