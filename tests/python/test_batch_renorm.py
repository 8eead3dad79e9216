# SPDX-License-Identifier: Apache-2.0
"""Batch renormalization and its gradients: the oracle, finite differences, torch's autograd, equalities, refusals."""

import cases
import numpy as np
import pytest
import reference
import reference_training

import anynorm

F32, F64 = np.float32, np.float64
C = 6
R_MAX, D_MAX, EPS = 1.5, 0.75, 1e-3


class Data:
    """Channels whose running statistics are near those of x, and far from them at either end."""

    def __init__(self, dtype=F64, shape=(4, C, 5, 3)):
        rng = np.random.default_rng(3)
        self.x = rng.normal(3, 2, shape).astype(dtype)
        self.grad_output = rng.normal(size=shape).astype(dtype)
        self.mean, self.var = 0.4 + 1.4 * np.arange(C), 0.5 * (1 + np.arange(C) ** 2)
        self.weight, self.bias = rng.normal(size=(2, C)).astype(dtype)
        self.r, self.d = reference_training.renorm_constants(self.x, self.mean, self.var, EPS, R_MAX, D_MAX)

    @property
    def arguments(self):
        return self.mean.copy(), self.var.copy(), self.weight, self.bias, True

    options = {"eps": EPS, "r_max": R_MAX, "d_max": D_MAX}  # noqa: RUF012


def test_the_data_is_clipped_at_either_end_and_not_elsewhere():
    data = Data()
    for constants, low, high in [(data.r, 1 / R_MAX, R_MAX), (data.d, -D_MAX, D_MAX)]:
        assert low in constants
        assert high in constants
        assert np.any((constants > low) & (constants < high))


@pytest.mark.parametrize("layout", cases.OUTPUT_LAYOUTS, ids=lambda layout: layout.name)
def test_against_the_oracle(layout, dtype):
    data = Data(dtype)
    out = layout.empty(data.x.shape, dtype)
    y, used = anynorm.batch_renorm(layout.place(data.x), *data.arguments, **data.options, out=out, return_moments=True)
    assert y is out
    expected = reference_training.batch_renorm(data.x, data.r, data.d, data.weight, data.bias, EPS)
    np.testing.assert_allclose(y, expected, rtol=1e-6 if dtype is F32 else 1e-13, atol=1e-6 if dtype is F32 else 1e-13)
    np.testing.assert_allclose(used.mean, data.x.mean((0, 2, 3), dtype=F64), rtol=1e-13)
    gradients = anynorm.batch_renorm_backward(layout.place(data.grad_output), layout.place(data.x), *data.arguments,
                                              **data.options, moments=used)  # fmt: skip
    exact = reference_training.batch_renorm_backward(data.grad_output, data.x, data.r, data.d, data.weight, EPS)
    for ours, theirs in zip(gradients, exact, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6 if dtype is F32 else 1e-12,
                                   atol=2e-6 if dtype is F32 else 1e-12)  # fmt: skip


def test_channels_last_and_half_types():
    data = Data(F32)
    last = np.moveaxis(data.x, 1, -1).copy()
    y = anynorm.batch_renorm(data.x, *data.arguments, **data.options)
    np.testing.assert_allclose(
        np.moveaxis(anynorm.batch_renorm(last, *data.arguments, **data.options, channel_axis=-1), -1, 1), y, atol=1e-6
    )
    half = data.x.astype(np.float16)
    wide = anynorm.batch_renorm(half.astype(F32), *data.arguments, **data.options)
    assert cases.same_bits(anynorm.batch_renorm(half, *data.arguments, **data.options), wide.astype(np.float16))


def test_running_statistics_are_updated_as_by_batch_norm():
    data, options = Data(), {"num_batches": np.zeros(1, np.int64), "correction": 0, "pooled": anynorm.Moments.empty(C)}
    ours, theirs = data.arguments[:2], data.arguments[:2]
    anynorm.batch_renorm(data.x, *ours, training=True, **options)
    anynorm.batch_norm(data.x, *theirs, training=True, momentum=0.01, correction=0)
    assert all(cases.same_bits(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not cases.same_bits(ours[0], data.mean)
    assert options["num_batches"] == 1
    assert cases.same_bits(options["pooled"].mean, anynorm.moments(data.x, (0, 2, 3)).mean)


def test_closed_limits_and_inference_are_batch_norm_to_the_bit(dtype):
    data = Data(dtype)
    for training in (True, False):
        ours, theirs = [(*data.arguments[:4], training) for _ in range(2)]
        closed = {"r_max": 1, "d_max": 0} if training else {}
        y = anynorm.batch_renorm(data.x, *ours, 0.3, **closed)
        assert cases.same_bits(y, anynorm.batch_norm(data.x, *theirs, 0.3))
        assert all(cases.same_bits(a, b) for a, b in zip(ours[:2], theirs[:2], strict=True))
    for training in (True, False):
        arguments = (data.grad_output, data.x, *data.arguments[:4], training)
        used = anynorm.moments(data.x, (0, 2, 3)) if training else None
        ours = anynorm.batch_renorm_backward(*arguments, r_max=1, d_max=0, moments=used)
        theirs = anynorm.batch_norm_backward(*arguments, moments=used)
        assert all(cases.same_bits(a, b) for a, b in zip(ours, theirs, strict=True))


def test_unclipped_is_what_inference_gives():
    data = Data()
    y = anynorm.batch_renorm(data.x, *data.arguments, r_max=np.inf, d_max=np.inf)
    np.testing.assert_allclose(y, anynorm.batch_norm(data.x, *data.arguments[:4]), atol=1e-13)


@pytest.mark.parametrize("what", ["x", "weight", "bias"])
def test_finite_differences(what):
    """Of the formula with r and d held still."""
    data = Data(shape=(3, C, 2))
    arguments = {name: getattr(data, name).copy() for name in ("x", "weight", "bias")}
    name = {"x": "grad_input"}.get(what, f"grad_{what}")
    gradient = getattr(anynorm.batch_renorm_backward(data.grad_output, data.x, *data.arguments, **data.options), name)

    def loss():
        y = reference_training.batch_renorm(arguments["x"], data.r, data.d, arguments["weight"], arguments["bias"], EPS)
        return (y * data.grad_output).sum()

    step, varied = 1e-5, arguments[what]
    for place in np.ndindex(varied.shape):
        value = varied[place]
        varied[place] = value + step
        above = loss()
        varied[place] = value - step
        below = loss()
        varied[place] = value
        np.testing.assert_allclose(gradient[place], (above - below) / (2 * step), rtol=1e-6, atol=1e-8)


def test_against_torch_autograd():
    torch = pytest.importorskip("torch")
    data = Data()
    x, w, b = (torch.from_numpy(a).requires_grad_() for a in (data.x, data.weight, data.bias))
    mean, var = (torch.from_numpy(a)[:, None, None] for a in (data.mean, data.var))
    batch_mean, batch_var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    sigma, running_sigma = (batch_var + EPS).sqrt(), (var + EPS).sqrt()
    r = (sigma / running_sigma).clamp(1 / R_MAX, R_MAX).detach()
    d = ((batch_mean - mean) / running_sigma).clamp(-D_MAX, D_MAX).detach()
    y = ((x - batch_mean) / sigma * r + d) * w[:, None, None] + b[:, None, None]
    y.backward(torch.from_numpy(data.grad_output))
    np.testing.assert_allclose(anynorm.batch_renorm(data.x, *data.arguments, **data.options), y.detach().numpy(),
                               rtol=1e-12, atol=1e-12)  # fmt: skip
    ours = anynorm.batch_renorm_backward(data.grad_output, data.x, *data.arguments, **data.options)
    for mine, theirs in zip(ours, (x, w, b), strict=True):
        np.testing.assert_allclose(mine, theirs.grad.numpy(), rtol=1e-11, atol=1e-12)


def test_forward_without_momentum_then_backward_then_update():
    """The way to keep r and d from forward to backward: the update comes last, and is that of one call."""
    data = Data()
    mean, var = data.arguments[:2]
    forward = (mean, var, data.weight, data.bias, True)
    y, used = anynorm.batch_renorm(data.x, *forward, 0, **data.options, return_moments=True)
    assert cases.same_bits(mean, data.mean)
    after = anynorm.batch_renorm_backward(data.grad_output, data.x, *forward, **data.options, moments=used)
    before = anynorm.batch_renorm_backward(data.grad_output, data.x, *data.arguments, **data.options)
    np.testing.assert_allclose(after.grad_input, before.grad_input, rtol=1e-12, atol=1e-14)
    anynorm.update_running(mean, var, used, 0.01)
    at_once = data.arguments
    assert cases.same_bits(y, anynorm.batch_renorm(data.x, *at_once, **data.options))
    assert cases.same_bits(mean, at_once[0])
    assert cases.same_bits(var, at_once[1])


MASKS = {"samples": (4, 1, 1, 1), "places": (4, 1, 5, 3)}


@pytest.mark.parametrize("excluded", ["zero", "input", "keep"])
@pytest.mark.parametrize("shape", MASKS.values(), ids=MASKS)
def test_a_mask_leaves_the_batch_norm_of_what_is_left(shape, excluded, dtype):
    data = Data(dtype)
    where = np.random.default_rng(5).random(shape) < 0.6
    kept = np.broadcast_to(where, (4, 1, 5, 3))[:, 0]

    def left(array):
        return array.swapaxes(0, 1)[:, kept]

    ours, theirs = data.arguments, data.arguments
    out, grad_input = np.full_like(data.x, 7), np.full_like(data.x, 7)
    options = {"where": where, "excluded": excluded}
    y, used = anynorm.batch_renorm(data.x, *ours, **data.options, **options, out=out, return_moments=True)
    expected, expected_used = anynorm.batch_renorm(left(data.x), *theirs, **data.options, channel_axis=0,
                                                   return_moments=True)  # fmt: skip
    tolerance = 2e-6 if dtype is F32 else 1e-13
    np.testing.assert_allclose(left(y), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(ours[:2], theirs[:2], rtol=1e-14)
    gradients = anynorm.batch_renorm_backward(data.grad_output, data.x, *data.arguments, **data.options, **options,
                                              moments=used, grad_input=grad_input)  # fmt: skip
    exact = anynorm.batch_renorm_backward(left(data.grad_output), left(data.x), *data.arguments, **data.options,
                                          channel_axis=0, moments=expected_used)  # fmt: skip
    np.testing.assert_allclose(left(gradients.grad_input), exact.grad_input, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(gradients.grad_weight, exact.grad_weight, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(gradients.grad_bias, exact.grad_bias, rtol=tolerance, atol=tolerance)
    for result, given in ((y, data.x), (grad_input, data.grad_output)):
        rest = {"zero": 0, "input": given, "keep": 7}[excluded]
        assert np.all((result == rest) | np.broadcast_to(where, result.shape))


def test_integer_weights_are_repetitions():
    data, repeats = Data(), np.array([1, 3, 0, 2])
    ours, theirs = data.arguments, data.arguments
    y, used = anynorm.batch_renorm(data.x, *ours, **data.options, sample_weight=repeats, return_moments=True)
    expected = anynorm.batch_renorm(np.repeat(data.x, repeats, 0), *theirs, **data.options)
    np.testing.assert_allclose(np.repeat(y, repeats, 0), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours[:2], theirs[:2], rtol=1e-13)
    np.testing.assert_array_equal(used.weight2, 15 * (1 + 9 + 4))


def test_masked_arrays_and_nan(rng):
    data = Data()
    mask = rng.random(data.x.shape) < 0.2
    expected = anynorm.batch_renorm(data.x, *data.arguments, **data.options, where=~mask)
    y = anynorm.batch_renorm(np.ma.array(data.x, mask=mask), *data.arguments, **data.options)
    assert cases.same_bits(y.filled(0), expected)
    x = np.where(mask, np.nan, data.x)
    omitted = anynorm.batch_renorm(x, *data.arguments, **data.options, nan_policy="omit")
    assert cases.same_bits(omitted[~mask], expected[~mask])
    assert np.isnan(omitted[mask]).all()
    with pytest.raises(ValueError, match="batch_renorm: expected x without NaN"):
        anynorm.batch_renorm(x, *data.arguments, nan_policy="raise")


def test_one_element_is_corrected_to_what_inference_gives():
    data = Data(shape=(1, C))
    mean = data.x[0] + 0.1
    with pytest.raises(ValueError, match="batch_renorm: expected more than one value per channel"):
        anynorm.batch_renorm(data.x, mean, data.var, training=True)
    y = anynorm.batch_renorm(data.x, mean, data.var, data.weight, data.bias, True, one_element="bias")
    np.testing.assert_allclose(y, anynorm.batch_norm(data.x, mean, data.var, data.weight, data.bias), atol=1e-14)
    assert cases.same_bits(mean, data.x[0] + 0.1)


@pytest.mark.parametrize("policy", ["warn", "raise"])
def test_values_that_are_not_finite(policy):
    data = Data()
    mean, var = data.arguments[:2]
    expected = anynorm.batch_renorm(data.x, *data.arguments, **data.options)
    data.x[0, 2, 0, 0] = np.nan
    error, match = {"warn": (RuntimeWarning, "channel 2 stay"), "raise": (FloatingPointError, "channel 2$")}[policy]
    out = np.empty_like(data.x)
    with (pytest.warns if policy == "warn" else pytest.raises)(error, match=f"^batch_renorm: .*{match}"):
        anynorm.batch_renorm(data.x, mean, var, data.weight, data.bias, True, **data.options, nonfinite=policy, out=out)
    others = [c for c in range(C) if c != 2]
    assert cases.same_bits(out[:, others], expected[:, others])
    assert np.isnan(out[:, 2]).all()
    assert cases.same_bits(mean[2], data.mean[2])
    assert cases.same_bits(mean, data.mean) == (policy == "raise")


def test_the_result_does_not_depend_on_the_number_of_threads():
    data = Data(F32, shape=(32, C, 64, 40))
    one, many = (anynorm.batch_renorm(data.x, *data.arguments, **data.options, num_threads=n) for n in (1, 3))
    assert cases.same_bits(one, many)


REFUSED = {
    "r_max": ({"r_max": 0.9}, ValueError, "expected r_max of at least 1, got 0.9"),
    "r_max_text": ({"r_max": "3"}, TypeError, "expected r_max to be a number, got str"),
    "d_max": ({"d_max": -1}, ValueError, "expected d_max of at least 0, got -1"),
    "d_max_nan": ({"d_max": np.nan}, ValueError, "expected d_max of at least 0, got nan"),
    "running_none": ({"running_mean": None, "running_var": None}, ValueError, "running_mean and running_var, got none"),
    "running_half": ({"running_var": np.ones(C, np.float16)}, TypeError, "running_var of dtype float32 or float64"),
    "running_shape": ({"running_mean": np.ones(5)}, ValueError, "expected running_mean of shape (6,), got (5,)"),
    "eps": ({"eps": -1}, ValueError, "expected eps of at least 0, got -1"),
    "weight": ({"weight": np.ones(5)}, ValueError, "expected weight of shape (6,), got (5,)"),
    "moments": ({"moments": anynorm.Moments.empty(5)}, ValueError, "of shape (6,), got (5,)"),
    "threads": ({"num_threads": 0}, ValueError, "expected num_threads of at least 1, got 0"),
}


@pytest.mark.parametrize("options, error, message", REFUSED.values(), ids=REFUSED)
def test_refused(options, error, message):
    data = Data()
    mean, var = data.arguments[:2]
    out = np.full(data.x.shape, 7.0)
    for name, arguments, target in [
        ("batch_renorm", (data.x,), "out"),
        ("batch_renorm_backward", (data.grad_output, data.x), "grad_input"),
    ]:
        with pytest.raises(error) as caught:
            getattr(anynorm, name)(*arguments, **{"running_mean": mean, "running_var": var, "training": True,
                                                  target: out, **options})  # fmt: skip
        assert str(caught.value).startswith(f"{name}: ")
        assert message in str(caught.value)
    assert np.all(out == 7)
    assert cases.same_bits(mean, data.mean)
    assert cases.same_bits(var, data.var)


def test_reference_gradients_of_batch_norm_are_a_special_case():
    data = Data()
    ones = np.ones(C)
    ours = reference_training.batch_renorm_backward(data.grad_output, data.x, ones, 0 * ones, data.weight, EPS)
    theirs = reference.batch_norm_backward(data.grad_output, data.x, weight=data.weight, training=True, eps=EPS)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
