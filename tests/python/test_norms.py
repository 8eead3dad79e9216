# SPDX-License-Identifier: Apache-2.0
"""The five named norms: known values, equalities between them, running statistics, and torch where it is installed."""

import cases
import numpy as np
import pytest
import reference

import anynorm

F32, F64 = np.float32, np.float64


def close(y, expected, atol=2e-6):
    np.testing.assert_allclose(y, expected, rtol=5e-7, atol=atol)


@pytest.fixture
def x(rng):
    return rng.normal(3, 2, (4, 12, 5, 6)).astype(F32)


@pytest.fixture
def affine(rng):
    return rng.normal(size=(2, 12)).astype(F32)


# --- known values ----------------------------------------------------------------------------------------------------


def test_golden_values():
    """[1, 3, 5] has mean 3 and variance 8/3."""
    x = np.float32([[1, 3, 5]])
    expected = np.float64([[-1.224744871391589, 0, 1.224744871391589]])
    assert np.abs(anynorm.layer_norm(x, eps=0.0) - expected).max() <= 1.2e-7
    assert np.abs(anynorm.normalize(x, 1, eps=0.0) - expected).max() <= 1.2e-7
    assert np.abs(anynorm.batch_norm(x.T, training=True, eps=0.0) - expected.T).max() <= 1.2e-7
    assert np.abs(anynorm.group_norm(x, 1, eps=0.0) - expected).max() <= 1.2e-7
    assert np.abs(anynorm.instance_norm(x[None], eps=0.0) - expected[None]).max() <= 1.2e-7
    assert np.array_equal(np.round(anynorm.layer_norm(x), 2), np.float32([[-1.22, 0, 1.22]]))


def test_golden_rms():
    """The mean square of [1, 7] is 25."""
    y = anynorm.rms_norm(np.float64([[1, 7]]), eps=0.0, weight=np.float64([10, 100]))
    np.testing.assert_allclose(y, [[2, 140]], rtol=1e-15)


def test_golden_affine():
    y = anynorm.layer_norm(np.float64([0, 2]), 2, np.float64([10, 20]), np.float64([1, 2]), 0.0)
    np.testing.assert_allclose(y, [-9, 22], rtol=1e-15)


# --- arguments -------------------------------------------------------------------------------------------------------


def test_layer_norm_axes(x, rng):
    assert cases.same_bits(anynorm.layer_norm(x), anynorm.layer_norm(x, axis=-1))
    assert cases.same_bits(anynorm.layer_norm(x, 6), anynorm.layer_norm(x, axis=3))
    for shape in [(5, 6), [5, 6]]:
        assert cases.same_bits(anynorm.layer_norm(x, shape), anynorm.layer_norm(x, axis=(2, 3)))
    assert cases.same_bits(anynorm.layer_norm(x, x.shape), anynorm.normalize(x, None))
    weight = rng.normal(size=(4, 5)).astype(F32)
    y = anynorm.layer_norm(x, None, weight, axis=(2, 0))  # the shape is that of the axes in ascending order
    close(y, reference.normalize(x, (0, 2), weight=weight.reshape(4, 1, 5, 1)))


def test_rms_norm_eps(dtype, rng):
    """Left out, it is the epsilon of x's dtype, not that of the result."""
    x = (rng.normal(size=(3, 50)) * np.sqrt(np.finfo(dtype).eps)).astype(dtype)
    eps = float(np.finfo(dtype).eps)
    assert cases.same_bits(anynorm.rms_norm(x), anynorm.rms_norm(x, eps=eps))
    assert cases.same_bits(anynorm.rms_norm(x, dtype=F64), anynorm.rms_norm(x, eps=eps, dtype=F64))
    close(anynorm.rms_norm(x), reference.rms_norm(x))
    assert not np.allclose(anynorm.rms_norm(x), anynorm.rms_norm(x, eps=0.0))


@pytest.mark.parametrize("channel_axis", [1, 2, 3, -1, -2, -3])
def test_channel_axis(channel_axis, x, affine, isa):
    """Moving the channels moves the result."""
    moved = np.moveaxis(x, 1, channel_axis)
    for run in (
        lambda v, c: anynorm.group_norm(v, 3, *affine, channel_axis=c, return_moments=True),
        lambda v, c: anynorm.instance_norm(v, None, None, *affine, channel_axis=c, return_moments=True),
        lambda v, c: anynorm.batch_norm(v, None, None, *affine, True, channel_axis=c, return_moments=True),
    ):
        y, used = run(x, 1)
        for view in (moved, np.ascontiguousarray(moved)):
            moved_y, moved_used = run(view, channel_axis)
            close(np.moveaxis(moved_y, channel_axis, 1), y)
            np.testing.assert_allclose(moved_used.mean, used.mean, rtol=1e-14, atol=1e-14)
            np.testing.assert_allclose(moved_used.m2, used.m2, rtol=1e-13)


def test_batch_norm_has_no_sample_axis(x, affine):
    y = anynorm.batch_norm(x, None, None, *affine, True)
    for channel_axis in (0, -4):
        moved = anynorm.batch_norm(np.moveaxis(x, 1, 0), None, None, *affine, True, channel_axis=channel_axis)
        close(np.moveaxis(moved, 0, 1), y)


def test_instance_norm_of_one_element_gives_the_bias(x, affine):
    y = anynorm.instance_norm(x[:, :, 0, 0], None, None, *affine)
    assert cases.same_bits(y, np.broadcast_to(affine[1], (4, 12)))


@pytest.mark.parametrize(
    "shape", [(8, 12), (8, 12, 9), (4, 12, 5, 6), (3, 12, 4, 5, 6), (2, 12, 3, 2, 1, 4, 2)], ids=str
)
def test_ranks(shape, affine, dtype, rng):
    x = rng.normal(3, 2, shape).astype(dtype)
    close(anynorm.batch_norm(x, None, None, *affine, True), reference.batch_norm(x, None, None, *affine, True))
    close(anynorm.group_norm(x, 4, *affine), reference.group_norm(x, 4, *affine))
    close(anynorm.instance_norm(x, None, None, *affine), reference.instance_norm(x, None, None, *affine))


def test_group_norm_highest_rank(rng):
    x = rng.normal(size=(2, 6, *[1] * 10, 2, 1, 3)).astype(F32)
    close(anynorm.group_norm(x, 3), reference.group_norm(x, 3))


def test_moments_have_the_shape_of_the_sets(x):
    for call, shape in [
        (lambda: anynorm.batch_norm(x, training=True, return_moments=True), (12,)),
        (lambda: anynorm.instance_norm(x, return_moments=True), (4, 12)),
        (lambda: anynorm.group_norm(x, 3, return_moments=True), (4, 3)),
        (lambda: anynorm.layer_norm(x, return_moments=True), (4, 12, 5)),
        (lambda: anynorm.rms_norm(x, axis=1, return_moments=True), (4, 5, 6)),
    ]:
        y, used = call()
        assert y.shape == x.shape
        assert used.count.shape == used.mean.shape == used.m2.shape == shape
        assert np.all(used.count * np.prod(shape) == x.size)


def test_given_moments(x, affine):
    for run in (
        lambda v, **o: anynorm.batch_norm(v, None, None, *affine, True, return_moments=True, **o),
        lambda v, **o: anynorm.instance_norm(v, None, None, *affine, return_moments=True, **o),
        lambda v, **o: anynorm.group_norm(v, 3, *affine, return_moments=True, **o),
        lambda v, **o: anynorm.layer_norm(v, axis=1, weight=affine[0], return_moments=True, **o),
        lambda v, **o: anynorm.rms_norm(v, axis=1, weight=affine[0], return_moments=True, **o),
    ):
        y, used = run(x)
        again, returned = run(x, moments=used)
        assert cases.same_bits(again, y)
        assert cases.same_moments(returned, used)
        other, _ = run(x[::-1] * 2, moments=used)
        assert not np.allclose(other, y)


def test_batch_norm_with_given_moments_needs_no_running_statistics(x):
    _, used = anynorm.batch_norm(x, training=True, return_moments=True)
    assert cases.same_bits(anynorm.batch_norm(x, moments=used), anynorm.batch_norm(x, training=True))


# --- equalities ------------------------------------------------------------------------------------------------------


def test_rms_norm_of_centred_data_is_layer_norm(rng):
    x = rng.normal(size=(6, 40))
    x -= x.mean(1, keepdims=True)
    np.testing.assert_allclose(anynorm.rms_norm(x, eps=0.0), anynorm.layer_norm(x, eps=0.0), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(4, 12, 5, 6), (3, 64, 17, 19)], ids=str)
def test_norms_are_choices_of_axes(shape, rng):
    x = rng.normal(3, 2, shape).astype(F32)
    weight, bias = rng.normal(size=(2, shape[1])).astype(F32)
    channel = {"weight": weight[:, None, None], "bias": bias[:, None, None]}
    for named, engine in [
        (anynorm.batch_norm(x, None, None, weight, bias, True), anynorm.normalize(x, (0, 2, 3), **channel)),
        (anynorm.instance_norm(x, None, None, weight, bias), anynorm.normalize(x, (2, 3), **channel)),
        (anynorm.layer_norm(x, None, weight, bias, axis=1), anynorm.normalize(x, 1, **channel)),
    ]:
        assert cases.same_bits(named, engine)
    split = x.reshape(shape[0], 4, -1, *shape[2:])
    grouped = {name: p.reshape(4, -1, 1, 1) for name, p in channel.items()}
    engine = anynorm.normalize(split, (2, 3, 4), **grouped).reshape(shape)
    assert cases.same_bits(anynorm.group_norm(x, 4, weight, bias), engine)


# --- running statistics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("running_type", [F32, F64], ids=["running_f32", "running_f64"])
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, 0.37])
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics(name, running_type, momentum, dtype, x, rng):
    x = x.astype(dtype)
    start = rng.normal(size=12).astype(running_type), rng.uniform(1, 2, 12).astype(running_type)
    ours, theirs = [a.copy() for a in start], [a.astype(F64) for a in start]
    for lib, running in [(anynorm, ours), (reference, theirs)]:
        for batch in (x, x[:2] + 1, x[1:] * 3):
            getattr(lib, name)(batch, *running, None, None, True, momentum)
    assert ours[0].dtype == running_type
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-6 if running_type is F32 else 1e-13)
    if momentum == 0:
        assert all(cases.same_bits(mine, before) for mine, before in zip(ours, start, strict=True))


def test_momentum_is_the_share_of_the_new_value_and_the_variance_is_unbiased():
    mean, var = np.float64([10]), np.float64([10])
    anynorm.batch_norm(np.float64([[1], [3], [5]]), mean, var, training=True, momentum=0.25)
    np.testing.assert_allclose(mean, [0.75 * 10 + 0.25 * 3], rtol=1e-15)
    np.testing.assert_allclose(var, [0.75 * 10 + 0.25 * 4], rtol=1e-15)


def test_the_batch_is_normalized_by_its_own_population_variance(x):
    running = np.full(12, 100, F32), np.full(12, 100, F32)
    y = anynorm.batch_norm(x, *running, training=True)
    assert cases.same_bits(y, anynorm.batch_norm(x, training=True))
    close(y.var((0, 2, 3), dtype=F64), np.ones(12), atol=1e-5)


def test_running_statistics_are_only_read_for_evaluation(x, affine):
    mean, var = np.linspace(0, 1, 12, dtype=F32), np.linspace(1, 2, 12, dtype=F32)
    before = mean.copy(), var.copy()
    mean.flags.writeable = var.flags.writeable = False
    expected = reference.batch_norm(x, mean, var, *affine)
    close(anynorm.batch_norm(x, mean, var, *affine), expected)
    close(anynorm.instance_norm(x, mean, var, *affine, use_input_stats=False), expected)
    assert cases.same_bits(mean, before[0])
    assert cases.same_bits(var, before[1])


def test_running_statistics_may_be_strided(x):
    rows = np.zeros((2, 12, 2), F32)
    mean, var = rows[0, ::-1, 0], rows[1, :, 1]
    plain = np.zeros(12, F32), np.zeros(12, F32)
    anynorm.batch_norm(x, mean, var, training=True)
    anynorm.batch_norm(x, *plain, training=True)
    assert cases.same_bits(mean, plain[0])
    assert cases.same_bits(var, plain[1])
    assert np.count_nonzero(rows) == 24


def test_training_in_place_updates_the_statistics_of_the_input(x):
    values = x.copy()
    ours, other = np.zeros((2, 12)), np.zeros((2, 12))
    y = anynorm.batch_norm(values, *other, training=True)
    anynorm.batch_norm(x, *ours, training=True, out=x)
    assert cases.same_bits(x, y)
    assert cases.same_bits(ours, other)


# --- torch -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("layout", [cases.LAYOUT["c"], cases.LAYOUT["channels_last"]], ids=lambda layout: layout.name)
def test_against_torch(torch, layout, dtype, rng):
    """Its float64 results, with parameters and given axes as pasted from a model."""
    f = torch.nn.functional
    x = layout.place(rng.normal(1, 2, (4, 12, 9, 7)).astype(dtype))
    w, b, w7 = (rng.normal(size=n).astype(dtype) for n in (12, 12, 7))
    tx, tw, tb, tw7 = (torch.from_numpy(np.array(a, F64)) for a in (x, w, b, w7))
    mean, var = rng.normal(size=12), rng.uniform(1, 2, 12)
    pairs = [
        (anynorm.layer_norm(x, (7,), w7, w7, 1e-3), f.layer_norm(tx, (7,), tw7, tw7, 1e-3)),
        (anynorm.layer_norm(x, (12, 9, 7)), f.layer_norm(tx, (12, 9, 7))),
        (anynorm.rms_norm(x, (7,), w7, 1e-3), f.rms_norm(tx, (7,), tw7, 1e-3)),
        (anynorm.group_norm(x, 3, w, b, 1e-3), f.group_norm(tx, 3, tw, tb, 1e-3)),
        (anynorm.instance_norm(x, None, None, w, b), f.instance_norm(tx, None, None, tw, tb)),
        (anynorm.batch_norm(x, mean, var, w, b),
         f.batch_norm(tx, torch.from_numpy(mean), torch.from_numpy(var), tw, tb)),
        (anynorm.batch_norm(x, None, None, w, b, True), f.batch_norm(tx, None, None, tw, tb, True)),
    ]  # fmt: skip
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=5e-7 if dtype is F32 else 1e-13,
                                   atol=2e-6 if dtype is F32 else 1e-13)  # fmt: skip


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics_against_torch(torch, name, rng):
    x = rng.normal(1, 2, (4, 12, 9, 7))
    ours = rng.normal(size=12), rng.uniform(1, 2, 12)
    theirs = [torch.from_numpy(a.copy()) for a in ours]
    getattr(anynorm, name)(x, *ours, None, None, True, 0.3)
    getattr(torch.nn.functional, name)(torch.from_numpy(x), *theirs, None, None, True, 0.3)
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, expected.numpy(), rtol=1e-13)


def test_default_rms_eps_is_that_of_torch(torch, rng):
    x = (1e-4 * rng.normal(size=(3, 8))).astype(F32)
    expected = torch.nn.functional.rms_norm(torch.from_numpy(x), (8,)).numpy()
    np.testing.assert_allclose(anynorm.rms_norm(x), expected, rtol=1e-6)
