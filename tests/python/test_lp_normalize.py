# SPDX-License-Identifier: Apache-2.0
"""lp_normalize and its gradient: against the oracle for every layout and loop nest, torch, bits, errors."""

import math

import cases
import folding_reference as reference
import ml_dtypes
import numpy as np
import pytest

import anynorm

BF16 = np.dtype(ml_dtypes.bfloat16)
SHAPE = (3, 8, 5, 6)
ROUNDING = {
    np.dtype(np.float64): 2.0**-53,
    np.dtype(np.float32): 2.0**-24,
    np.dtype(np.float16): 2.0**-11,
    BF16: 2.0**-8,
}


@pytest.fixture(params=[1, 2, math.inf], ids=["p1", "p2", "max"])
def p(request):
    return request.param


def sample(shape, dtype, seed=3):
    """Multiples of 1/8: the largest magnitude comes several times, as its gradient is to be shared."""
    return (np.random.default_rng(seed).integers(-24, 25, shape) / 8).astype(dtype)


def assert_close(got, exact, scale=1.0):
    """The rounding of the arithmetic, which for p=2 is that of float32, and that of the result."""
    assert got.shape == exact.shape
    allowed = (1e-14 if got.dtype == np.float64 else 4e-7) + 1.01 * ROUNDING[got.dtype]
    assert np.all(np.abs(got.astype(np.float64) - exact) <= allowed * np.maximum(scale, np.abs(exact)))


def check_gradient(got, grad_output, x, p, axis, eps=1e-12):
    """In units of what is added up, which may cancel: the largest grad_output and sum(abs(grad_output * y)), over n."""
    size = np.abs(grad_output.astype(np.float64))
    terms = reference.total(size * np.abs(reference.lp_normalize(x, p, axis, eps)), axis)
    scale = (size.max(axis=axis, keepdims=True) + terms) / np.maximum(reference.lp_norm(x, p, axis), eps)
    assert_close(got, reference.lp_normalize_backward(grad_output, x, p, axis, eps), scale)


@pytest.mark.parametrize("axis", [1, -1, (0, 2), None, ()], ids=str)
def test_values(layout, p, axis, dtype):
    """x, grad_output and the results in three layouts; with the large eps some sets are below it and others not."""
    x = layout.place(sample(SHAPE, dtype))
    grad_output = cases.LAYOUT["fortran"].place(sample(SHAPE, dtype, seed=4))
    before = x.copy()
    axes = tuple(range(4)) if axis is None else axis
    for eps in (1e-12, 2.5):
        out = cases.LAYOUT["negative_step2"].empty(SHAPE, dtype)
        assert anynorm.lp_normalize(x, p, axis, eps, out=out) is out
        assert_close(out, reference.lp_normalize(x, p, axes, eps))
        gradient = anynorm.lp_normalize_backward(grad_output, x, p, axis, eps)
        check_gradient(gradient, grad_output, x, p, axes, eps)
        assert gradient.strides == np.empty_like(x).strides
    assert cases.same_bits(x, before)


def test_every_loop_nest(kernel, p, dtype):
    """Above the size from which threads are used; the bits do not depend on their number."""
    x = np.random.default_rng(5).normal(size=kernel.shape).astype(dtype)
    grad_output = np.random.default_rng(6).normal(size=kernel.shape).astype(dtype)
    y = anynorm.lp_normalize(x, p, kernel.axes, num_threads=1)
    assert_close(y, reference.lp_normalize(x, p, kernel.axes))
    assert cases.same_bits(anynorm.lp_normalize(x, p, kernel.axes, num_threads=3), y)
    gradient = anynorm.lp_normalize_backward(grad_output, x, p, kernel.axes, num_threads=1)
    check_gradient(gradient, grad_output, x, p, kernel.axes)
    again = anynorm.lp_normalize_backward(grad_output, x, p, kernel.axes, num_threads=3)
    assert cases.same_bits(again, gradient)


def test_bits_of_instruction_sets(p, wide_isas, rng):
    x = rng.normal(size=(37, 4097)).astype(np.float32)
    results = []
    for isa in wide_isas:
        anynorm.use_isa(isa)
        results.append((anynorm.lp_normalize(x, p), anynorm.lp_normalize(x, p, 0)))
    for other in results[1:]:
        assert all(map(cases.same_bits, other, results[0]))


@pytest.mark.parametrize("shape", [(7, 300), (5, 70_000), (6, 3)], ids=str)
def test_bits_of_a_sample_alone(shape, p, rng):
    x = rng.normal(size=shape).astype(np.float32)
    y = anynorm.lp_normalize(x, p)
    assert all(cases.same_bits(anynorm.lp_normalize(x[i : i + 1], p)[0], y[i]) for i in range(len(x)))


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16], ids=["f16", "bf16"])
def test_halves(half, p):
    x, grad_output = sample((9, 40), half), sample((9, 40), half, seed=4)
    assert_close(anynorm.lp_normalize(x, p), reference.lp_normalize(x, p))
    assert_close(anynorm.lp_normalize(x, p, dtype=np.float64), reference.lp_normalize(x, p))
    gradient = anynorm.lp_normalize_backward(grad_output, x, p)
    assert gradient.dtype == half
    check_gradient(gradient, grad_output, x, p, 1)


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize(
    "shape, axis", [((3, 1300), 1), ((1100, 5), 0), ((700, 4, 9), (0, 2))], ids=["rows", "columns", "both"]
)
def test_halves_are_promoted_exactly(half, p, shape, axis):
    """The bits of float32 results, rounded, whether the halves are read in place or packed."""
    x, grad_output = sample(shape, half), sample(shape, half, seed=4)
    wide = [array.astype(np.float32) for array in (grad_output, x)]
    y, gradient = anynorm.lp_normalize(wide[1], p, axis), anynorm.lp_normalize_backward(*wide, p, axis)
    assert_close(y, reference.lp_normalize(x, p, axis))
    for place in (np.copy, cases.LAYOUT["step2_inner"].place):
        assert cases.same_bits(anynorm.lp_normalize(place(x), p, axis), y.astype(half))
        got = anynorm.lp_normalize_backward(place(grad_output), place(x), p, axis)
        assert cases.same_bits(got, gradient.astype(half))


def test_in_place(out_layout, p, dtype):
    x, grad_output = out_layout.place(sample(SHAPE, dtype)), out_layout.place(sample(SHAPE, dtype, seed=4))
    y = anynorm.lp_normalize(x, p, (1, 3))
    gradient = anynorm.lp_normalize_backward(grad_output, x, p, (1, 3))
    assert anynorm.lp_normalize_backward(grad_output, x, p, (1, 3), out=grad_output) is grad_output
    assert cases.same_bits(grad_output, gradient)
    assert cases.same_bits(anynorm.lp_normalize(x, p, (1, 3), out=x), y)


def test_squares_of_float32_do_not_overflow(p):
    x = np.array([[3e38, -3e38, 0], [3e-38, 0, 1e-45]], np.float32)
    np.testing.assert_allclose(anynorm.lp_normalize(x, p, eps=0), reference.lp_normalize(x, p, eps=0), rtol=1e-6)


def test_where_float64_ends():
    """Said in the docstring: the square of 1e200 is infinite, its magnitude is not."""
    x = np.array([[1e200, -1e200]])
    assert np.all(anynorm.lp_normalize(x) == 0)
    np.testing.assert_allclose(anynorm.lp_normalize(x, 1), [[0.5, -0.5]])
    np.testing.assert_allclose(anynorm.lp_normalize(x, math.inf), [[1, -1]])
    np.testing.assert_allclose(anynorm.lp_normalize(x * 2.0**-600), [[0.5**0.5, -(0.5**0.5)]])


def test_values_that_are_not_finite_spoil_their_set_only(p):
    x = np.ones((3, 40))
    x[0, 17], x[1, 5] = np.nan, -np.inf
    y = anynorm.lp_normalize(x, p)
    assert np.all(np.isnan(y[0]))
    assert np.isnan(y[1, 5])
    assert np.all(np.delete(y[1], 5) == 0)
    assert cases.same_bits(y[2:], anynorm.lp_normalize(x[2:], p))
    gradient = anynorm.lp_normalize_backward(np.ones_like(x), x, p)
    assert np.all(np.isnan(gradient[0]))
    assert np.all(np.isfinite(gradient[2]))


def test_gradient_is_the_derivative(p, rng):
    """That of the oracle too: both are held against differences."""
    x, grad_output, step = rng.normal(size=(3, 6)), rng.normal(size=(3, 6)), 1e-6
    differences = np.empty_like(x)
    for at in np.ndindex(*x.shape):
        low, high = x.copy(), x.copy()
        low[at] -= step
        high[at] += step
        change = reference.lp_normalize(high, p) - reference.lp_normalize(low, p)
        differences[at] = (grad_output * change).sum() / (2 * step)
    for lib in (anynorm, reference):
        np.testing.assert_allclose(lib.lp_normalize_backward(grad_output, x, p), differences, atol=1e-8)


@pytest.mark.parametrize("axis", [1, -1, 0])
def test_torch(p, axis):
    torch = pytest.importorskip("torch")
    for eps in (1e-12, 4.0):
        x = sample((6, 4, 9), np.float32)
        x[0] = 0  # norms of 0 below eps
        tensor = torch.tensor(x, requires_grad=True)
        y = torch.nn.functional.normalize(tensor, p, axis, eps)
        np.testing.assert_allclose(anynorm.lp_normalize(x, p, axis, eps), y.detach().numpy(), rtol=1e-6, atol=1e-7)
        grad_output = sample(x.shape, np.float32, seed=4)
        if eps < 1:
            grad_output[0] = 0  # else 1e12, and 0 times infinity in torch's gradient of the root
        y.backward(torch.tensor(grad_output))
        gradient = anynorm.lp_normalize_backward(grad_output, x, p, axis, eps)
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)], ids=str)
def test_without_elements(shape, p):
    x = np.ones(shape, np.float32)
    assert anynorm.lp_normalize(x, p, 0).shape == shape
    assert anynorm.lp_normalize_backward(x, x, p, None).shape == shape


X = np.ones((4, 6), np.float32)
ERRORS = {
    "p": (lambda: anynorm.lp_normalize(X, 3), ValueError, "lp_normalize: expected p of 1, 2 or infinity, got 3"),
    "p_text": (lambda: anynorm.lp_normalize(X, "2"), TypeError, "lp_normalize: expected p to be a number, got str"),
    "axis": (lambda: anynorm.lp_normalize(X[0]), ValueError, "lp_normalize: expected axis from -1 to 0, got 1"),
    "axis_text": (lambda: anynorm.lp_normalize(X, axis="1"), ValueError, "expected -> before the axes that are kept"),
    "eps": (lambda: anynorm.lp_normalize(X, eps=-1), ValueError, "lp_normalize: expected eps of at least 0, got -1"),
    "x_int": (lambda: anynorm.lp_normalize(X.astype(int)), TypeError, "expected x of dtype"),
    "out_shape": (lambda: anynorm.lp_normalize(X, out=X[:2].copy()), ValueError, "expected output of shape (4, 6), got (2, 6)"),
    "out_list": (lambda: anynorm.lp_normalize(X, out=[1.0]), TypeError, "expected out of type numpy.ndarray, got list"),
    "out_dtype": (lambda: anynorm.lp_normalize(X, out=X.copy(), dtype=np.float64), ValueError, "out of dtype float64 as dtype says"),
    "out_overlaps": (lambda: anynorm.lp_normalize(X[:3], out=X[1:]), ValueError, "apart from x"),
    "num_threads": (lambda: anynorm.lp_normalize(X, num_threads=0), ValueError, "num_threads of at least 1, got 0"),
    "grad_output": (lambda: anynorm.lp_normalize_backward(X[:2], X), ValueError, "lp_normalize_backward: expected grad_output of shape (4, 6), got (2, 6)"),
    "grad_input": (lambda: anynorm.lp_normalize_backward(X, X, out=X.T.copy()), ValueError, "expected grad_input of shape (4, 6), got (6, 4)"),
}  # fmt: skip


@pytest.mark.parametrize("call, error, message", ERRORS.values(), ids=ERRORS.keys())
def test_errors(call, error, message):
    before = X.copy()
    with pytest.raises(error) as raised:
        call()
    assert message in str(raised.value)
    assert cases.same_bits(X, before)
