# SPDX-License-Identifier: Apache-2.0
"""The public functions are called without a Python frame, and behave as the functions that they stand for."""

import copy
import inspect
import pickle

import cases
import numpy as np
import pytest

import anynorm
from anynorm import functional

FUNCTIONS = [getattr(functional, name) for name in functional.__all__]


@pytest.fixture(params=FUNCTIONS, ids=lambda function: function.__name__)
def function(request):
    return request.param


def test_it_looks_like_a_function(function):
    original = function.__wrapped__
    assert inspect.isfunction(original)
    assert inspect.isroutine(function)
    assert inspect.signature(function) == inspect.signature(original)
    assert function.__doc__ == original.__doc__
    assert function.__module__ == original.__module__
    assert repr(function) == repr(original)
    assert getattr(anynorm, function.__name__) is function


def test_it_is_pickled_by_name(function):
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.deepcopy(function) is function


def assert_same(result, expected):
    assert type(result) is type(expected)
    if isinstance(result, anynorm.Moments):
        assert cases.same_moments(result, expected)
    elif isinstance(result, anynorm.Gradients):
        assert cases.same_bits(result.grad_input, expected.grad_input)
        assert result[1:] == expected[1:] == (None, None)
    elif isinstance(result, tuple):
        assert all(map(cases.same_bits, result, expected))
    else:
        assert cases.same_bits(result, expected)


def test_it_does_what_its_body_says(function):
    """With defaults, by position, by keyword in another order."""
    x, grad_output = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    parameters = inspect.signature(function).parameters
    given = {"grad_output": grad_output, "x": x, "axis": 1, "num_groups": 2, "training": True, "num_threads": 1}
    given |= {"running_mean": np.zeros(6), "running_var": np.ones(6), "one_element": "bias"}
    given |= {"y": x, "scale": 0.1}
    if getattr(parameters.get("num_groups"), "default", 0) is None:  # a matter of labels, but for group norm
        del given["num_groups"]
    given = {name: value for name, value in given.items() if name in parameters}
    if "bn_weight" in parameters:  # the arrays of a layer and of a batch norm with one channel a row
        names = ("bias", "running_mean", "running_var")
        given = {"weight": x, **{name: np.abs(grad_output[:, i]) for i, name in enumerate(names)}}
    required = {name: value for name, value in given.items()
                if parameters[name].default is inspect.Parameter.empty or name == "training"}  # fmt: skip

    def fresh(arguments):
        return copy.deepcopy(arguments)  # since running statistics are updated

    for arguments in (given, dict(reversed(given.items())), required):
        assert_same(function(**fresh(arguments)), function.__wrapped__(**fresh(arguments)))
    positional = [given[name] for name in ("grad_output", "x", "weight", "y") if name in given]
    rest = {name: value for name, value in given.items() if name not in ("grad_output", "x", "weight", "y")}
    assert_same(function(*positional, **fresh(rest)), function(**fresh(given)))


def test_a_name_that_is_not_interned():
    x = np.ones((2, 3))
    name = "Return_moments".lower()
    assert len(anynorm.layer_norm(x, **{name: True})) == 2


@pytest.mark.parametrize(
    "arguments, keywords",
    [((), {}), ((1,), {"y": 2}), (tuple(range(17)), {}), ((1,), {"x": 2}), ((1,), {"": 2})],
)
def test_wrong_calls_have_pythons_errors(function, arguments, keywords):
    messages = []
    for call in (function, function.__wrapped__):
        with pytest.raises(TypeError) as caught:
            call(*arguments, **keywords)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_it_is_a_method_in_a_class():
    class Array:
        standardized = anynorm.layer_norm

        def __array__(self, dtype=None, copy=None):
            return np.array([[1.0, 3.0]])

    assert cases.same_bits(Array().standardized(eps=0), np.array([[-1.0, 1.0]]))
    assert Array.standardized is anynorm.layer_norm
