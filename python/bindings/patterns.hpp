// SPDX-License-Identifier: Apache-2.0
// Calls by a pattern that was fitted before, in the terms of axes: the body of a function takes 2 us to find out what a
// pattern stands for, this 0.1, and 0.5 where an axis is split.
#pragma once

#include "array.hpp"

namespace anynorm::python {

/// Where a function has the arguments that a pattern is about; -1 where it has none.
struct PatternPlaces {
    Py_ssize_t axis = -1, x = -1, keepdims = -1, weight = -1, bias = -1, residual = -1, out = -1, sum_out = -1,
               out_scale = -1, out_zero_point = -1;

    /// The place that is kept for the parameter of this name; nullptr for any other.
    Py_ssize_t* named(PyObject* name);
};

/// Keywords that a pattern brings: its own parameters' pattern, and the sizes of axes in the order of the call.
class PatternKeywords {
  public:
    /// False where no pattern could have it.
    bool add(PyObject* name, PyObject* value);

    PyObject* parameters() const { return parameters_ ? parameters_ : Py_None; }
    bool any() const { return parameters_ || count_; }
    Py_ssize_t count() const { return count_; }
    PyObject* operator[](Py_ssize_t i) const { return items_[i]; }

  private:
    static constexpr Py_ssize_t most = 16;

    PyObject* parameters_ = nullptr;
    Py_ssize_t count_ = 0;
    PyObject* items_[most];  // name, value, name, value, ...
};

/// One call: what stands for the arguments while it lasts, and what of it is the caller's.
class PatternCall {
  public:
    /// Puts axes in the place of the pattern, and views in the places of arrays. False, with nothing changed, where it
    /// takes the body of the function: the pattern is new, does more than a view can, or does not fit.
    bool arrange(PyObject* function, const PatternPlaces& places, const PatternKeywords& keywords, PyObject** values);

    /// The result of the call in the shape of the caller's x.
    py::object whole(py::object result) const;

  private:
    struct Lengths {
        int rank = 0;
        Py_ssize_t values[max_rank];

        bool push(Py_ssize_t length);
    };

    bool split(PyObject* factors);
    bool broadcast(PyObject* array, Lengths& result) const;
    bool along(PyObject* array, PyObject* groups, Lengths& result) const;

    py::object fitted_, x_, out_;
    py::object views_[4];
    Lengths apart_;             // the axes of x, those apart that the pattern names
    int parts_[max_rank] = {};  // how many of them every axis of x becomes
};

/// {(function, pattern, number of axes, pattern of the parameters, name, size, ...): (axes to reduce, factors of every
/// axis or None, axes of the parameters or None)}, which the bodies fill. A factor of -1 is what is left of the axis.
py::dict& known_patterns();

}  // namespace anynorm::python
