# SPDX-License-Identifier: Apache-2.0
"""Patterns in the place of axes: the same call by axes on the split array, to the bit."""

import math

import cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import anynorm
from anynorm import _core

SHAPE = (3, 12, 5, 4)


@pytest.fixture
def x(rng, dtype):
    return rng.normal(3, 2, SHAPE).astype(dtype)


# --- the norms as patterns -------------------------------------------------------------------------------------------

NORMS = {
    "batch": ("n c h w -> c", {}, lambda x, w, b: anynorm.batch_norm(x, None, None, w, b, True, return_moments=True)),
    "layer": ("n c h w -> n h w", {}, lambda x, w, b: anynorm.layer_norm(x, None, w, b, axis=1, return_moments=True)),
    "instance": ("n c ... -> n c", {}, lambda x, w, b: anynorm.instance_norm(x, None, None, w, b, return_moments=True)),
    "group": ("n (g c) ... -> n g", {"g": 4}, lambda x, w, b: anynorm.group_norm(x, 4, w, b, return_moments=True)),
    "group_by_size": ("n (g c) ... -> n g", {"c": 3}, lambda x, w, b: anynorm.group_norm(x, 4, w, b, return_moments=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
def test_norms_as_patterns(name, layout, rng, dtype):
    pattern, sizes, call = NORMS[name]
    x = layout.place(rng.normal(3, 2, SHAPE).astype(dtype))
    weight, bias = rng.normal(size=(2, SHAPE[1])).astype(dtype)
    expected, statistics = call(x, weight, bias)
    own = "(g c)" if sizes else "c"
    y, used = anynorm.normalize(x, pattern, weight=weight, bias=bias, parameters=own, return_moments=True, **sizes)
    assert y.strides == expected.strides
    assert cases.same_bits(y, expected)
    assert cases.same_moments(used, statistics)
    # Without a pattern of their own they broadcast against x, whose axis of channels is split or not.
    column = weight[:, None, None], bias[:, None, None]
    assert cases.same_bits(anynorm.normalize(x, pattern, weight=column[0], bias=column[1], **sizes), expected)


@pytest.mark.parametrize("pattern, shape", [
    ("n c h w -> n c h w", SHAPE), ("n c h w -> w c", (4, 12)), ("n c h w -> (c n)", (36,)), ("n c h w ->", ()),
    ("n c h w -> 1 c 1", (1, 12, 1)), ("n c h w -> () h", (1, 5)), ("... w -> ...", (3, 12, 5)), ("... -> ...", SHAPE),
    ("n ... -> (...) n", (240, 3)), ("... h w -> w (... h)", (4, 180)), ("n (a b) h w -> b (a n)", (3, 12)),
    ("n (2 b) h w -> n b", (3, 6)), ("n (a b 2) h (w 1) -> a w", (3, 4)),
], ids=str)  # fmt: skip
def test_statistics_have_the_right_hand_shape(pattern, shape, x):
    """As einops has it, where it is installed; and given to a call in that shape they are those of the call itself."""
    sizes = {"a": 4} if "2 b" not in pattern and "(a b)" in pattern else {"a": 3} if "a b 2" in pattern else {}
    y, used = anynorm.normalize(x, pattern, return_moments=True, **sizes)
    assert used.shape == shape
    assert cases.same_moments(anynorm.moments(x, pattern, **sizes), used)
    close = {"rtol": 1e-6, "atol": 1e-6} if x.dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-13}
    np.testing.assert_allclose(anynorm.normalize(x, pattern, moments=used, **sizes), y, **close)
    einops = pytest.importorskip("einops")
    expected = einops.reduce(x.astype(np.float64), pattern, "mean", **sizes)
    np.testing.assert_allclose(used.mean, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("pattern, axis", [
    ("n c h w -> c", (0, 2, 3)), ("n c ... -> n c", (2, 3)), ("... w -> ...", 3), ("a b c d ->", None),
], ids=str)  # fmt: skip
def test_what_is_remembered_of_a_pattern(pattern, axis, x):
    """The axes, where it has names alone; everything else is looked at again."""
    for _ in range(3):
        assert cases.same_bits(anynorm.normalize(x, pattern), anynorm.normalize(x, axis))
        assert cases.same_moments(anynorm.moments(x, pattern), anynorm.moments(x, axis))
    assert {("normalize", pattern, 4, None), ("moments", pattern, 4, None)} <= _core.known_patterns.keys()
    assert cases.same_bits(anynorm.normalize(x.tolist(), pattern), anynorm.normalize(x.astype(np.float64), axis))
    mask = x > 3
    assert cases.same_bits(anynorm.normalize(x, pattern, where=mask), anynorm.normalize(x, axis, where=mask))
    with pytest.raises(ValueError, match=r"^moments: expected keepdims to be False with a pattern"):
        anynorm.moments(x, pattern, keepdims=True)
    with pytest.raises(ValueError, match=r"^normalize: pattern .*: expected sizes of its axes, got g"):
        anynorm.normalize(x, pattern, g=2)
    if "..." not in pattern:
        with pytest.raises(ValueError, match=r"^normalize: pattern .*: expected x of 4 axes, got shape"):
            anynorm.normalize(x[0], pattern)


@pytest.mark.parametrize("pattern, length", [
    ("n c h w -> 1 c 1", 3), ("n c h w -> w c", 3), ("n c h w -> (n c) ()", 1), ("n c ... -> (c ...) n", 3),
], ids=str)  # fmt: skip
def test_what_is_not_remembered_of_a_pattern(pattern, length, x):
    """What comes back as other views, if not for these lengths."""
    x = x[:, :length]
    for _ in range(2):
        y, used = anynorm.normalize(x, pattern, return_moments=True)
        assert cases.same_moments(anynorm.moments(x, pattern), used)
        assert cases.same_bits(anynorm.normalize(x, pattern, moments=used), y)
    assert not [key for key in _core.known_patterns if key[1] == pattern]


SPLITS = {
    "(g c)": ("n (g c) h w -> n g", {"g": 4}, "(g c)", (12,)),
    "(g 3)": ("n (g 3) h w -> n g", {}, "g", (4,)),
    "ellipsis": ("... (h k) w -> ...", {"k": 5}, None, (12, 1, 1)),
    "blocks": ("n c (h k) (w l) -> n c h w", {"h": 1, "l": 2}, "c k", (12, 5)),
    "literal": ("n 12 h w -> n h", {"w": 4}, "1 w", (1, 4)),
    "names": ("n c h w -> n", {}, "c h", (12, 5)),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_that_is_remembered_is_that_of_the_body(name, layout, rng, dtype):
    """The second call does not run the body of the function; views, new arrays and `out` are the same."""
    pattern, sizes, parameters, shape = SPLITS[name]
    weight, bias = rng.normal(size=(2, *shape)).astype(dtype)
    for length in (3, 2):  # the samples, of which nothing was remembered
        x = layout.place(rng.normal(3, 2, (length, *SHAPE[1:])).astype(dtype))
        options = {"weight": weight, "bias": bias, **({"parameters": parameters} if parameters else {}), **sizes}
        expected, used = anynorm.normalize.__wrapped__(x, pattern, **options, return_moments=True)
        y, taken = anynorm.normalize(x, pattern, **options, return_moments=True)
        assert cases.same_bits(y, expected)
        assert y.strides == expected.strides
        assert cases.same_moments(taken, used)
        assert cases.same_moments(anynorm.moments(x, pattern, **sizes), used)
        assert cases.same_bits(anynorm.normalize(x, pattern, moments=used, **options), expected)
        out = layout.empty(x.shape, dtype) if layout.output else np.empty_like(x)
        assert anynorm.normalize(x, pattern, out=out, **options) is out
        assert cases.same_bits(out, expected)
        y, total = anynorm.normalize(x, pattern, residual=x, **options)
        assert cases.same_bits(total, x + x)
        assert cases.same_bits(y, anynorm.normalize.__wrapped__(x, pattern, residual=x, **options)[0])
    key = ("normalize", pattern, 4, parameters, *(item for pair in sizes.items() for item in pair))
    assert key in _core.known_patterns


WRONG = {
    "length": {"x": np.ones((3, 13, 5, 4))}, "rank": {"x": np.ones((3, 12, 5))}, "integers": {"x": np.ones(SHAPE, int)},
    "none": {"x": None}, "g_5": {"g": 5}, "g_0": {"g": 0}, "g_negative": {"g": -4}, "g_float": {"g": 4.0},
    "g_huge": {"g": 2**70}, "h": {"h": 6}, "k": {"k": 2}, "weight": {"weight": np.ones(4)},
    "weight_rank": {"weight": np.ones((4, 3))}, "weight_scalar": {"weight": 1.0}, "bias": {"bias": np.ones(12, int)},
    "out": {"out": np.ones((3, 4, 3, 5, 4))}, "out_list": {"out": [1.0]}, "eps": {"eps": -1.0},
    "moments": {"moments": anynorm.Moments.empty((3, 5))}, "parameters": {"parameters": "c g"},
    "parameters_short": {"parameters": "c"}, "parameters_int": {"parameters": 3}, "labels": {"labels": np.zeros(7, int)},
    "residual": {"residual": np.ones(3)}, "keepdims": {"keepdims": True},
}  # fmt: skip


@pytest.mark.parametrize("changed", WRONG.values(), ids=WRONG)
def test_a_wrong_call_of_a_pattern_that_is_remembered_is_refused_as_by_the_body(changed):
    good = {"x": np.ones(SHAPE), "axis": "n (g c) h w -> n g", "weight": np.ones(12), "parameters": "(g c)", "g": 4}
    for _ in range(2):
        anynorm.normalize(**good)
    messages = []
    for call in (anynorm.normalize, anynorm.normalize.__wrapped__):
        with pytest.raises((TypeError, ValueError)) as caught:
            call(**(good | changed))
        messages.append((caught.type, str(caught.value)))
    assert messages[0] == messages[1]


# --- any pattern ----------------------------------------------------------------------------------------------------


@st.composite
def patterns(draw):
    """A pattern for up to six axes of x, what it does by hand, and the sizes to give."""
    count = draw(st.integers(1, 6))
    names = [f"a{i}" for i in range(count)]
    lengths = [draw(st.integers(1, 4)) for _ in names]
    cuts = sorted(draw(st.sets(st.integers(1, count - 1)))) if count > 1 else []
    groups = [names[i:j] for i, j in zip([0, *cuts], [*cuts, count], strict=True)]
    left = [group[0] if len(group) == 1 else f"({' '.join(group)})" for group in groups]
    free = {draw(st.sampled_from(group)) for group in groups}
    sizes = {name: n for name, n in zip(names, lengths, strict=True) if name not in free}
    shape = tuple(math.prod(lengths[names.index(name)] for name in group) for group in groups)

    def side(chosen):
        cuts = sorted(draw(st.sets(st.integers(1, len(chosen) - 1)))) if len(chosen) > 1 else []
        parts = [chosen[i:j] for i, j in zip([0, *cuts], [*cuts, len(chosen)], strict=True)]
        words = [part[0] if len(part) == 1 and draw(st.booleans()) else f"({' '.join(part)})" for part in parts]
        lengths_of = [math.prod(lengths[names.index(name)] for name in part) for part in parts]
        return " ".join(words), chosen, tuple(lengths_of)

    kept = side(draw(st.permutations(sorted(draw(st.sets(st.sampled_from(names)))))))
    own = side(draw(st.permutations(sorted(draw(st.sets(st.sampled_from(names)))))))
    return f"{' '.join(left)} -> {kept[0]}", shape, names, lengths, sizes, kept, own


def by_hand(array, names, lengths, chosen):
    """An array whose axes are `chosen` of the named ones, with all of them in order, of length 1 where it has none."""
    apart = array.reshape([lengths[names.index(name)] for name in chosen])
    apart = apart.transpose([chosen.index(name) for name in names if name in chosen])
    return apart.reshape([n if name in chosen else 1 for name, n in zip(names, lengths, strict=True)])


@settings(max_examples=150, deadline=None)
@given(patterns(), st.sampled_from([np.float32, np.float64]), st.integers(0, 2**32 - 1), st.booleans())
def test_any_pattern_equals_the_call_by_axes(case, dtype, seed, fortran):
    pattern, shape, names, lengths, sizes, (_, kept, kept_shape), (own, own_names, own_shape) = case
    rng = np.random.default_rng(seed)
    x, grad_output = (np.array(v, order="F" if fortran else "C") for v in rng.normal(3, 2, (2, *shape)).astype(dtype))
    weight, bias = rng.normal(size=(2, *own_shape)).astype(dtype)
    axes = tuple(i for i, name in enumerate(names) if name not in kept)
    options = {"weight": by_hand(weight, names, lengths, own_names), "bias": by_hand(bias, names, lengths, own_names)}

    expected, statistics = anynorm.normalize(x.reshape(lengths), axes, return_moments=True, **options)
    y, used = anynorm.normalize(x, pattern, weight=weight, bias=bias, parameters=own, return_moments=True, **sizes)
    assert cases.same_bits(y, expected.reshape(shape))
    assert used.shape == kept_shape
    for ours, theirs in zip((used.count, used.mean, used.m2), (statistics.count, statistics.mean, statistics.m2), strict=True):  # fmt: skip
        back = by_hand(np.asarray(ours), names, lengths, kept)
        assert cases.same_bits(back.reshape(np.shape(theirs)), np.asarray(theirs))

    expected = anynorm.normalize_backward(
        grad_output.reshape(lengths), x.reshape(lengths), axes, moments=statistics, **options
    )
    found = anynorm.normalize_backward(
        grad_output, x, pattern, weight=weight, bias=bias, parameters=own, moments=used, **sizes
    )
    assert cases.same_bits(found.grad_input, expected.grad_input.reshape(shape))
    assert cases.same_bits(by_hand(found.grad_weight, names, lengths, own_names), expected.grad_weight)
    assert cases.same_bits(by_hand(found.grad_bias, names, lengths, own_names), expected.grad_bias)


# --- operands --------------------------------------------------------------------------------------------------------

GROUPS = {"axis": "n (g c) h w -> n g", "g": 4}


def split(x):
    return x.reshape(3, 4, 3, 5, 4)


def test_results_are_written_where_the_caller_says(x, out_layout, rng):
    residual = rng.normal(size=SHAPE).astype(x.dtype)
    out, sum_out = out_layout.empty(SHAPE, x.dtype), out_layout.empty(SHAPE, x.dtype)
    result = anynorm.normalize(x, **GROUPS, residual=residual, out=out, sum_out=sum_out)
    assert result[0] is out
    assert result[1] is sum_out
    like, like_sum = out_layout.empty(SHAPE, x.dtype), out_layout.empty(SHAPE, x.dtype)
    expected, total = anynorm.normalize(
        split(x), (2, 3, 4), residual=split(residual), out=split(like), sum_out=split(like_sum)
    )
    assert cases.same_bits(out, expected.reshape(SHAPE))
    assert cases.same_bits(sum_out, total.reshape(SHAPE))
    fresh = anynorm.normalize(x, **GROUPS, residual=residual, return_moments=True)
    np.testing.assert_allclose(fresh[0], out, rtol=1e-6, atol=1e-7)
    assert cases.same_bits(fresh[1], sum_out)
    assert fresh[2].shape == (3, 4)


def test_gradients_are_written_where_the_caller_says(x, out_layout, rng):
    weight = rng.normal(size=12).astype(x.dtype)
    grad_input, grad_weight = out_layout.empty(SHAPE, x.dtype), np.full(12, np.nan)
    given = {"weight": weight, "parameters": "(g c)", **GROUPS}
    found = anynorm.normalize_backward(x, x + 1, grad_input=grad_input, grad_weight=grad_weight, **given)
    assert found.grad_input is grad_input
    assert found.grad_weight is grad_weight
    expected = anynorm.normalize_backward(split(x), split(x + 1), (2, 3, 4), weight=weight.reshape(4, 3, 1, 1))
    np.testing.assert_allclose(grad_input, expected.grad_input.reshape(SHAPE), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grad_weight, expected.grad_weight.ravel(), rtol=1e-6)
    only = anynorm.normalize_backward(x, x + 1, grad_input=False, **given)
    assert only.grad_input is None
    assert cases.same_bits(only.grad_weight, expected.grad_weight.ravel())
    assert only.grad_bias is None


def test_p_norms(x, rng):
    out = np.empty_like(x)
    assert anynorm.lp_normalize(x, 1, "n (g c) h w -> n g", g=4, out=out) is out
    assert cases.same_bits(out, anynorm.lp_normalize(split(x), 1, (2, 3, 4)).reshape(SHAPE))
    grad = rng.normal(size=SHAPE).astype(x.dtype)
    found = anynorm.lp_normalize_backward(grad, x, 2, "n (g c) h w -> n g", g=4)
    assert cases.same_bits(found, anynorm.lp_normalize_backward(split(grad), split(x), 2, (2, 3, 4)).reshape(SHAPE))


def test_array_likes_and_lengths_of_any_integer_type():
    x = np.arange(12.0).reshape(2, 6)
    expected = anynorm.normalize(x.reshape(2, 2, 3), 2).reshape(2, 6)
    assert cases.same_bits(anynorm.normalize(x.tolist(), "n (g c) -> n g", g=np.int16(2)), expected)
    assert cases.same_bits(anynorm.normalize(x, "n(g c)->n g", c=3, g=2, weight=1.0), expected)
    assert anynorm.moments(np.float64(3), "->").mean == 3
    assert anynorm.moments(np.empty((0, 4)), "n (a b) -> a", a=2).count.tolist() == [0, 0]


# --- errors ----------------------------------------------------------------------------------------------------------

WRONG = {
    "no_arrow": ("n c h w", {}, "expected -> before the axes that are kept", "w", 7),
    "two_arrows": ("n c -> h -> w", {}, "expected one ->", "->", 9),
    "unknown_axis": ("n c h w -> k", {}, "expected the axes before the arrow, got k", "k", 11),
    "twice": ("n c n w -> c", {}, "expected each axis once, got n twice", "n", 4),
    "twice_kept": ("n c h w -> (c n) n", {}, "expected each axis once, got n twice", "n", 17),
    "open": ("n (c h w -> n", {}, "expected ) for this one", "(", 2),
    "closed": ("n c) h w -> n", {}, "expected ( before )", ")", 3),
    "nested": ("n (c (d)) h w -> n", {}, "expected no parentheses within parentheses", "(", 5),
    "ellipsis_in_group": ("n (c ...) -> n", {}, "expected ... outside of parentheses before the arrow", "...", 5),
    "sign": ("n c h+w -> n", {}, "expected names, 1, ..., ( or ), got +", "+", 5),
    "number_kept": ("n c h w -> 2 n", {}, "expected names and 1 here, got 2", "2", 11),
    "rank": ("n c h -> n", {}, "expected x of 3 axes, got shape (3, 12, 5, 4)", "n c h", 0),
    "rank_ellipsis": ("n c h w d ... -> n", {}, "expected x of at least 5 axes, got shape (3, 12, 5, 4)",
                      "n c h w d ...", 0),
    "no_size": ("n (g c) h w -> g", {}, "expected the size of g or c, as in g=2", "g c", 3),
    "divides": ("n (g c) h w -> g", {"g": 5},
                "expected a length that 5 divides for axis 1 of x of shape (3, 12, 5, 4), got 12", "(g c)", 2),
    "size": ("n c h w -> c", {"c": 5}, "expected length 5 for axis 1 of x of shape (3, 12, 5, 4), got 12", "c", 2),
    "unknown_size": ("n c h w -> c", {"g": 5}, "expected sizes of its axes, got g", "n c h w", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_errors_point_into_the_pattern(name):
    pattern, sizes, message, at, start = WRONG[name]
    x, out = np.ones(SHAPE, np.float32), np.full(SHAPE, 7, np.float32)
    with pytest.raises(ValueError, match=r"^normalize: pattern") as caught:
        anynorm.normalize(x, pattern, out=out, **sizes)
    first, second, third = str(caught.value).split("\n")
    assert first == f"normalize: pattern '{pattern}': {message}"
    assert second == f"  {pattern}"
    assert third.index("^") == 2 + start
    assert third.count("^") == len(at)
    assert np.all(out == 7)


@pytest.mark.parametrize("arguments, error, message", [
    ({"parameters": "g k"}, ValueError, "normalize: parameters 'g k': expected axes of 'n (g c) h w -> n g', got k\n"),
    ({"parameters": "c c"}, ValueError, "normalize: parameters 'c c': expected each axis once, got c twice\n"),
    ({"parameters": 3}, TypeError, "normalize: expected parameters to be a str or None, got int"),
    ({"g": 2.0}, TypeError, "normalize: expected the size g to be an int, got float"),
    ({"weight": np.ones(4), "parameters": "(g c)"}, ValueError, "normalize: expected weight of shape (12,), got (4,)"),
    ({"bias": np.ones((5, 1, 1))}, ValueError,
     "normalize: expected bias of a shape that broadcasts to (3, 12, 5, 4), got (5, 1, 1)"),
    ({"weight": np.ones((1, 1, 1, 1, 1))}, ValueError,
     "normalize: expected weight of a shape that broadcasts to (3, 12, 5, 4), got (1, 1, 1, 1, 1)"),
    ({"moments": anynorm.Moments.empty((4, 3))}, ValueError, "normalize: expected moments.count of shape (3, 4), got (4, 3)"),
    ({"moments": anynorm.Moments.empty((3, 4)), "axis": "n (g c) h w -> g n"}, ValueError,
     "normalize: expected moments of shape (4, 3), got (3, 4)"),
    ({"moments": 3}, TypeError, "normalize: expected moments of type anynorm.Moments, got int"),
    ({"residual": np.ones((3, 12, 20))}, ValueError,
     "normalize: expected residual of shape (3, 12, 5, 4), got (3, 12, 20)"),
    ({"sum_out": [1.0]}, TypeError, "normalize: expected sum_out of type numpy.ndarray, got list"),
    ({"keep": 3}, ValueError, "normalize: pattern 'n (g c) h w -> n g': expected sizes of its axes, got keep\n"),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else None)  # fmt: skip
def test_other_wrong_arguments(arguments, error, message):
    x, out = np.ones(SHAPE), np.full(SHAPE, 7.0)
    with pytest.raises(error) as caught:
        anynorm.normalize(x, **{**GROUPS, "out": out, **arguments})
    assert str(caught.value).startswith(message)
    assert np.all(out == 7)


def test_arguments_that_need_a_pattern():
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"^normalize: expected parameters with a pattern in the place of axis"):
        anynorm.normalize(x, 1, parameters="c")
    with pytest.raises(TypeError, match=r"^moments\(\) got an unexpected keyword argument 'g'$"):
        anynorm.moments(x, 1, g=3)
    with pytest.raises(ValueError, match=r"^moments: expected keepdims to be False with a pattern"):
        anynorm.moments(x, "n c -> n", keepdims=True)
