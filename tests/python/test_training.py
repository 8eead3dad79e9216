# SPDX-License-Identifier: Apache-2.0
"""Running statistics: averages, corrections, exact pooled moments, the policies, and updates without a norm."""

import sys
import warnings

import cases
import numpy as np
import pytest
import reference
import reference_training

import anynorm

F32, F64 = np.float32, np.float64
C = 5
NAMES = ["batch_norm", "instance_norm"]
CHANNEL_AXES = [1, -1]


def batches(rng, count=4, dtype=F64):
    """Of different sizes, with means far apart."""
    return [(rng.normal(size=(i + 2, C, 7)) + 3 * i * i).astype(dtype) for i in range(count)]


def counter(value=0, shape=()):
    return np.full(shape, value, np.int64)


def train(name, x, mean, var, *, channel_axis=1, **options):
    x = np.moveaxis(x, 1, channel_axis)
    flag = {"batch_norm": "training", "instance_norm": "use_input_stats"}[name]
    return getattr(anynorm, name)(x, mean, var, channel_axis=channel_axis, **{flag: True}, **options)


class State:
    """All that a training call may update."""

    def __init__(self, dtype=F64):
        self.mean, self.var = np.linspace(-1, 1, C, dtype=dtype), np.linspace(1, 2, C, dtype=dtype)
        self.num_batches = counter(3)
        self.pooled = anynorm.moments(np.linspace(0, 1, 4 * C).reshape(4, C), 0)

    @property
    def arrays(self):
        return [self.mean, self.var, self.pooled.count, self.pooled.mean, self.pooled.m2]

    def train(self, name, x, **options):
        return train(name, x, self.mean, self.var, num_batches=self.num_batches, pooled=self.pooled, **options)

    def channel(self, index):
        return [array[index] for array in self.arrays]

    def same_as(self, other, channels=slice(None)):
        pairs = zip(self.arrays, other.arrays, strict=True)
        return all(cases.same_bits(mine[channels], theirs[channels]) for mine, theirs in pairs)


# --- averages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("running_type", [F32, F64], ids=["running_f32", "running_f64"])
@pytest.mark.parametrize("correction", [1, 0, 0.5])
@pytest.mark.parametrize("momentum", [None, 0.1])
@pytest.mark.parametrize("channel_axis", CHANNEL_AXES)
@pytest.mark.parametrize("name", NAMES)
def test_against_the_oracle(name, channel_axis, momentum, correction, running_type, rng):
    mean, var = rng.normal(size=C).astype(running_type), rng.uniform(1, 2, C).astype(running_type)
    oracle = reference_training.Running(mean, var)
    num_batches, pooled = counter(shape=(1,)), anynorm.Moments.empty(C)
    options = {"momentum": momentum, "correction": correction, "num_batches": num_batches, "pooled": pooled}
    for x in batches(rng):
        train(name, x, mean, var, channel_axis=channel_axis, **options)
        oracle.update(x, momentum, correction, per_sample=name == "instance_norm")
    rtol = 1e-6 if running_type is F32 else 1e-13
    np.testing.assert_allclose(mean, oracle.mean, rtol=rtol)
    np.testing.assert_allclose(var, oracle.var, rtol=rtol)
    assert num_batches[0] == oracle.num_batches
    exact = oracle.pooled()
    assert np.array_equal(pooled.count, exact.count)
    np.testing.assert_allclose(pooled.mean, exact.mean, rtol=1e-13)
    np.testing.assert_allclose(pooled.m2, exact.m2, rtol=1e-12)


SHIFTED = [np.array([[0.0], [2.0]]), np.array([[10.0], [12.0]]), np.array([[20.0], [22.0]])]


def test_the_average_over_batches_is_not_the_variance_of_the_data():
    """Three batches of variance 2 each, whose data has 81.2: the average leaves out how far the means are apart."""
    mean, var, num_batches, pooled = np.zeros(1), np.ones(1), counter(), anynorm.Moments.empty(1)
    for x in SHIFTED:
        anynorm.batch_norm(x, mean, var, training=True, momentum=None, num_batches=num_batches, pooled=pooled)
    whole = np.concatenate(SHIFTED)
    np.testing.assert_allclose(var, 2, rtol=1e-14)
    np.testing.assert_allclose(pooled.var(1), np.var(whole, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(pooled.var(1), 81.2, rtol=1e-12)
    y = anynorm.batch_norm(whole, moments=pooled, eps=0)
    np.testing.assert_allclose([y.mean(), y.var()], [0, 1], atol=1e-12)


def test_the_average_over_batches_is_that_of_torch():
    torch = pytest.importorskip("torch")
    layer = torch.nn.BatchNorm1d(1, momentum=None, dtype=torch.float64)
    for x in SHIFTED:
        layer(torch.from_numpy(x))
    np.testing.assert_allclose(layer.running_var.numpy(), 2, rtol=1e-14)


def test_pooled_statistics_alone(rng):
    pooled, other = anynorm.Moments.empty(C), anynorm.Moments.empty(C)
    for x in batches(rng, dtype=F32):
        y = anynorm.batch_norm(x, training=True, pooled=pooled)
        assert cases.same_bits(y, anynorm.batch_norm(x, training=True))
        anynorm.instance_norm(x[..., :1], pooled=other)  # one element, of which nothing but the moments is asked
    assert np.all(pooled.count == 7 * other.count)
    before = pooled.merge(anynorm.Moments.empty(C))
    anynorm.batch_norm(x, np.zeros(C), np.ones(C), pooled=pooled)  # inference
    assert cases.same_moments(pooled, before)


@pytest.mark.parametrize("name", NAMES)
def test_no_elements_change_nothing(name):
    state = State()
    state.train(name, np.zeros((0, C, 4)))
    assert state.same_as(State())
    assert state.num_batches == 3


# --- values that are not finite --------------------------------------------------------------------------------------


def spoiled(rng, value):
    x = rng.normal(size=(3, C, 4)).astype(F32)
    bad = x.copy()
    bad[1, [0, 3], 2] = value
    return x, bad


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("policy", ["default", "warn", "skip", "propagate"])
@pytest.mark.parametrize("name", NAMES)
def test_values_that_are_not_finite(name, policy, value, rng):
    clean, bad = spoiled(rng, value)
    state, expected = State(), State()
    y_clean = expected.train(name, clean)
    options = {} if policy == "default" else {"nonfinite": policy}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = state.train(name, bad, **options)
    if policy in {"default", "warn"}:
        (warning,) = caught
        assert str(warning.message) == (
            f"{name}: the running statistics of channels 0, 3 stay as they are, because the moments of their batch are "
            "not finite"
        )
        assert warning.category is RuntimeWarning
        assert warning.filename == __file__
    else:
        assert not caught
    assert state.same_as(expected, [1, 2, 4])
    assert cases.same_bits(y[:, [1, 2, 4]], y_clean[:, [1, 2, 4]])
    assert np.isnan(y[1, [0, 3]]).all()
    if policy == "propagate":
        assert not np.isfinite([state.var[[0, 3]], state.pooled.m2[[0, 3]]]).any()
    else:
        assert state.same_as(State(), [0, 3])
    assert state.num_batches == 4


@pytest.mark.parametrize("name", NAMES)
def test_not_finite_raises(name, rng):
    state, (_, bad) = State(), spoiled(rng, np.nan)
    with pytest.raises(FloatingPointError, match=rf"^{name}: expected finite moments .* for channel 0$"):
        state.train(name, bad, nonfinite="raise")
    assert state.same_as(State())
    assert state.num_batches == 3


def test_a_warning_that_is_an_error_has_updated_the_other_channels(rng):
    clean, bad = spoiled(rng, np.nan)
    state, expected = State(), State()
    expected.train("batch_norm", clean)
    with pytest.raises(RuntimeWarning, match="channels 0, 3"):
        state.train("batch_norm", bad)  # filterwarnings = error
    assert state.same_as(expected, [1, 2, 4])


def test_the_warning_names_eight_channels():
    mean, var = np.zeros(30), np.ones(30)
    x = np.full((2, 30), np.nan)
    with pytest.warns(RuntimeWarning, match="channels 0, 1, 2, 3, 4, 5, 6, 7 and 22 more stay"):
        anynorm.batch_norm(x, mean, var, training=True)
    x[:, 1:] = np.arange(2)[:, None]
    with pytest.warns(RuntimeWarning, match="channel 0 stay"):
        anynorm.batch_norm(x, mean, var, training=True)


def test_a_batch_that_is_nowhere_finite_does_not_count():
    state = State()
    state.train("batch_norm", np.full((3, C, 4), np.nan), nonfinite="skip", momentum=None)
    assert state.same_as(State())
    assert state.num_batches == 3


# --- sets of one element ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_one_element(name, rng):
    x = rng.normal(size=(1 if name == "batch_norm" else 3, C, 1))
    bias = rng.normal(size=C)
    state = State()
    with pytest.raises(ValueError, match="more than one value per channel"):
        state.train(name, x, bias=bias)
    assert state.same_as(State())
    y = state.train(name, x, bias=bias, one_element="bias")
    assert cases.same_bits(y, np.broadcast_to(bias[:, None], x.shape))
    assert cases.same_bits(state.mean, State().mean)
    assert cases.same_bits(state.var, State().var)
    assert state.num_batches == 3
    assert np.all(state.pooled.count == State().pooled.count + len(x))
    grad = getattr(anynorm, f"{name}_backward")(x, x, None, None, None, bias, True)
    np.testing.assert_allclose(grad.grad_input, np.zeros_like(x), atol=1e-13)  # rstd is 316
    assert np.array_equal(grad.grad_bias, x.sum((0, 2)))


def test_one_element_without_running_statistics(rng):
    x, bias = rng.normal(size=(1, C)), rng.normal(size=C)
    y = anynorm.batch_norm(x, bias=bias, training=True, one_element="bias")
    assert cases.same_bits(y, bias[None])


def test_a_known_variance_needs_no_correction(rng):
    """A count of 1 stands for a known variance, which has no unbiased estimate and is one for the population."""
    x, known = rng.normal(size=(4, C)), anynorm.Moments.from_arrays(1, np.arange(C), np.arange(C) + 2.0)
    state = State()
    with pytest.raises(ValueError, match="more than one value"):
        state.train("batch_norm", x, moments=known)
    assert state.same_as(State())
    state.train("batch_norm", x, moments=known, correction=0, momentum=1)
    assert np.array_equal(state.var, known.m2)


# --- update_running --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [None, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_update_running_is_the_update_of_a_training_call(name, momentum, rng):
    x = rng.normal(size=(4, C, 6))
    trained, updated = State(), State()
    trained.train(name, x, momentum=momentum, correction=0)
    moments = anynorm.moments(x, (0, 2) if name == "batch_norm" else 2)
    options = {"num_batches": updated.num_batches, "pooled": updated.pooled}
    assert anynorm.update_running(updated.mean, updated.var, moments, momentum, correction=0, **options) is None
    assert updated.same_as(trained)
    assert updated.num_batches == trained.num_batches == 4


def test_micro_batches_are_the_whole_batch(rng):
    """Statistics merged over the parts of a batch, then one update: the same as for the batch."""
    whole = rng.normal(3, 2, (12, C, 4)).astype(F32)
    parts = np.split(whole, [1, 2, 7])
    merged = anynorm.Moments.empty(C)
    for part in parts:
        merged.update(anynorm.moments(part, (0, 2)))
    accumulated, expected = State(), State()
    y = np.concatenate([anynorm.batch_norm(part, training=True, moments=merged) for part in parts])
    anynorm.update_running(accumulated.mean, accumulated.var, merged)
    np.testing.assert_allclose(y, expected.train("batch_norm", whole), atol=1e-6)
    np.testing.assert_allclose(accumulated.mean, expected.mean, rtol=1e-14)
    np.testing.assert_allclose(accumulated.var, expected.var, rtol=1e-14)


@pytest.mark.parametrize("policy", ["warn", "skip", "raise", "propagate"])
def test_update_running_has_the_same_policies(policy):
    moments = anynorm.Moments(4, [1, np.nan, 1, 1, 1], [2, 2, 2, 2, np.inf])
    state, expected = State(), State()
    anynorm.update_running(expected.mean, expected.var, anynorm.Moments(4, np.ones(C), 2))

    def update():
        anynorm.update_running(state.mean, state.var, moments, nonfinite=policy)

    if policy == "raise":
        with pytest.raises(FloatingPointError, match=r"^update_running: expected finite moments .* channel 1$"):
            update()
        assert state.same_as(State())
        return
    if policy == "warn":
        with pytest.warns(RuntimeWarning, match="^update_running: .* channels 1, 4 stay"):
            update()
    else:
        update()
    assert cases.same_bits(state.mean[[0, 2, 3]], expected.mean[[0, 2, 3]])
    if policy == "propagate":
        assert np.isnan(state.mean[1])
        assert np.isinf(state.var[4])
    else:
        assert state.same_as(State(), [1, 4])


# --- Moments ---------------------------------------------------------------------------------------------------------


def test_moments_update_in_place(rng):
    x = rng.normal(size=(6, 3))
    total = anynorm.Moments.empty(3)
    mean = total.mean
    for part in np.split(x, 3):
        total.update(anynorm.moments(part, 0))
    assert mean is total.mean
    np.testing.assert_allclose(mean, x.mean(0))
    assert cases.same_moments(total, anynorm.Moments.empty(3) + total)
    one = anynorm.Moments.empty()
    one.update(anynorm.moments(x))
    assert one.shape == ()
    assert one.count == 18
    for wrong, error in [(anynorm.Moments.empty(2), ValueError), (None, TypeError)]:
        before = total + anynorm.Moments.empty(3)
        with pytest.raises(error):
            total.update(wrong)
        assert cases.same_moments(total, before)


# --- errors ----------------------------------------------------------------------------------------------------------


def read_only(array):
    array.flags.writeable = False
    return array


def half_empty():
    pooled = anynorm.Moments.empty(C)
    pooled.m2.flags.writeable = False
    return pooled


REFUSED = {
    "no_momentum": ({"momentum": None}, ValueError, "expected num_batches, without which"),
    "momentum_range": ({"momentum": 1.5}, ValueError, "expected momentum from 0 to 1, got 1.5"),
    "momentum_text": ({"momentum": "0.1"}, TypeError, "expected momentum to be a number, got str"),
    "correction_range": ({"correction": 2}, ValueError, "expected correction from 0 to 1, got 2"),
    "correction_none": ({"correction": None}, TypeError, "expected correction to be a number"),
    "num_batches_int": ({"num_batches": 3}, TypeError, "expected num_batches of type numpy.ndarray, got int"),
    "num_batches_int32": ({"num_batches": np.zeros(1, np.int32)}, TypeError, "num_batches of dtype int64, got int32"),
    "num_batches_uint64": ({"num_batches": np.zeros(1, np.uint64)}, TypeError, "of dtype int64, got uint64"),
    "num_batches_swapped": ({"num_batches": np.zeros(1, ">i8")}, TypeError, "of dtype int64, got >i8"),
    "num_batches_two": ({"num_batches": counter(0, (2,))}, ValueError, "num_batches of one element, got 2"),
    "num_batches_none": ({"num_batches": counter(0, (0,))}, ValueError, "num_batches of one element, got 0"),
    "num_batches_read_only": ({"num_batches": read_only(counter())}, ValueError, "num_batches to be writeable"),
    "num_batches_negative": ({"num_batches": counter(-1)}, ValueError, "expected num_batches of at least 0, got -1"),
    "pooled_array": ({"pooled": np.zeros(C)}, TypeError, "expected pooled of type anynorm.Moments, got numpy.ndarray"),
    "pooled_shape": ({"pooled": anynorm.Moments.empty(4)}, ValueError, "expected pooled.count of shape (5,), got (4,)"),
    "pooled_rank": ({"pooled": anynorm.Moments.empty((3, C))}, ValueError, "(3, 5)"),
    "pooled_weights": ({"pooled": anynorm.Moments(*np.array([[4.0], [0], [1], [6]]).repeat(C, 1))}, ValueError, "expected pooled without weight2"),
    "pooled_read_only": ({"pooled": half_empty()}, ValueError, "expected pooled to be writeable"),
    "nonfinite": ({"nonfinite": "ignore"}, ValueError,
                  "expected nonfinite to be 'warn', 'skip', 'raise' or 'propagate', got 'ignore'"),
    "nonfinite_none": ({"nonfinite": None}, TypeError, "expected nonfinite to be a str, got NoneType"),
    "one_element": ({"one_element": "zero"}, ValueError, "expected one_element to be 'raise' or 'bias', got 'zero'"),
    "one_element_bool": ({"one_element": True}, TypeError, "expected one_element to be a str, got bool"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*NAMES, "update_running", "batch_renorm"])
@pytest.mark.parametrize("options, error, message", REFUSED.values(), ids=REFUSED)
def test_refused(name, options, error, message, rng):
    x, state, out = rng.normal(size=(3, C, 4)), State(), np.full((3, C, 4), 7.0)
    call = {
        "update_running": lambda **o: anynorm.update_running(state.mean, state.var, anynorm.moments(x, (0, 2)), **o),
        "batch_renorm": lambda **o: anynorm.batch_renorm(x, state.mean, state.var, training=True, out=out, **o),
    }.get(name, lambda **o: train(name, x, state.mean, state.var, out=out, **o))
    with pytest.raises(error) as caught:
        call(**options)
    assert str(caught.value).startswith(f"{name}: ")
    assert message in str(caught.value)
    assert state.same_as(State())
    assert np.all(out == 7)


def test_overlaps_are_refused(rng):
    x, state = rng.normal(size=(3, C, 4)), State()
    memory = anynorm.moments(x, (0, 2))
    for options in ({"pooled": memory, "moments": memory}, {"running_mean": memory.mean, "pooled": memory},
                    {"pooled": memory, "weight": memory.m2}, {"pooled": memory, "num_batches": memory.m2.view(np.int64)[2:3]},
                    ):  # fmt: skip
        before = memory + anynorm.Moments.empty(C)
        with pytest.raises(ValueError, match="apart from"):
            anynorm.batch_norm(x, **{"running_mean": state.mean, "running_var": state.var, **options}, training=True)
        assert cases.same_moments(memory, before)
        assert state.same_as(State())


def test_update_running_refuses(rng):
    state, moments = State(), anynorm.moments(rng.normal(size=(4, C)), 0)
    for arguments, error, message in [
        ((None, None, moments), ValueError, "expected running_mean and running_var, or pooled, to update, got none"),
        ((state.mean, None, moments), ValueError, "expected running mean and variance together, got the mean only"),
        ((state.mean, state.var, None), TypeError, "expected moments of type anynorm.Moments, got NoneType"),
        ((state.mean, state.var, anynorm.Moments.empty(4)), ValueError, "of shape (5,) or (N, 5), got (4,)"),
        ((state.mean, state.var, anynorm.Moments.empty(C)), ValueError, "more than one value per channel"),
        ((list(state.mean), state.var, moments), TypeError, "expected running_mean of type numpy.ndarray"),
        ((read_only(State().mean), state.var, moments), ValueError, "expected running_mean to be writeable"),
    ]:
        with pytest.raises(error) as caught:
            anynorm.update_running(*arguments)
        assert message in str(caught.value)
    assert state.same_as(State())
    anynorm.update_running(state.mean, state.var, anynorm.Moments.empty(C), one_element="bias")
    assert state.same_as(State())


def test_references_are_given_back(rng):
    x, state, moments = rng.normal(size=(3, C, 4)), State(), anynorm.Moments(4, np.ones(C), 2)
    kept = [state.mean, state.var, state.num_batches, state.pooled, state.pooled.count, moments, moments.mean]

    def calls():
        options = {"num_batches": state.num_batches, "pooled": state.pooled}
        anynorm.batch_norm(x, state.mean, state.var, training=True, moments=moments, **options)
        anynorm.batch_renorm(x, state.mean, state.var, training=True, moments=moments, **options)
        anynorm.batch_renorm_backward(x, x, state.mean, state.var, training=True, moments=moments)
        anynorm.update_running(state.mean, state.var, moments, **options)
        for refused in ({"correction": 2}, {"nonfinite": "x"}, {"momentum": "x"}, {"channel_axis": 7}):
            with pytest.raises((TypeError, ValueError)):
                anynorm.batch_norm(x, state.mean, state.var, training=True, **{**options, **refused})
        with pytest.raises(FloatingPointError):
            anynorm.batch_norm(x * np.nan, state.mean, state.var, training=True, nonfinite="raise", **options)
        with pytest.raises(RuntimeWarning):
            anynorm.batch_norm(x * np.nan, state.mean, state.var, training=True, **options)

    calls()
    before = [sys.getrefcount(each) for each in kept]
    for _ in range(20):
        calls()
    assert [sys.getrefcount(each) for each in kept] == before


# --- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [None, 0.3])
def test_against_torch(momentum, rng):
    torch = pytest.importorskip("torch")
    layer = torch.nn.BatchNorm1d(C, momentum=momentum, dtype=torch.float64)
    mean, var, num_batches = np.zeros(C), np.ones(C), counter()
    for x in batches(rng):
        y = anynorm.batch_norm(x, mean, var, training=True, momentum=momentum, num_batches=num_batches)
        np.testing.assert_allclose(y, layer(torch.from_numpy(x)).detach().numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mean, layer.running_mean.numpy(), rtol=1e-13)
    np.testing.assert_allclose(var, layer.running_var.numpy(), rtol=1e-13)
    assert num_batches == layer.num_batches_tracked.item()


def test_reference_oracle_of_pooled_moments(rng):
    """The oracle's pooled moments are those of exact arithmetic."""
    oracle = reference_training.Running(np.zeros(C), np.ones(C))
    data = batches(rng)
    for x in data:
        oracle.update(x, 0.1, 1, per_sample=False)
    exact = reference.exact_moments(np.concatenate([x[:, 0].ravel() for x in data]))
    np.testing.assert_allclose(oracle.pooled().m2[0], float(exact.m2), rtol=1e-14)
