// SPDX-License-Identifier: Apache-2.0
#include "patterns.hpp"

#include <algorithm>
#include <utility>

namespace anynorm::python {

namespace {

/// A view of other lengths, in C order.
py::object reshaped(PyObject* array, const Py_ssize_t* lengths, int rank) {
    py::detail::npy_api::PyArray_Dims to{const_cast<Py_ssize_t*>(lengths), rank};
    PyObject* const view = py::detail::npy_api::get().PyArray_Newshape_(array, &to, 0);
    if (!view) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(view);
}

Py_ssize_t item(PyObject* tuple, Py_ssize_t i) { return PyLong_AsSsize_t(PyTuple_GET_ITEM(tuple, i)); }

PyObject* value_at(PyObject* const* values, Py_ssize_t place) { return place < 0 ? Py_None : values[place]; }

py::object look_up(PyObject* function, PyObject* pattern, int rank, const PatternKeywords& keywords) {
    const auto key = py::reinterpret_steal<py::object>(PyTuple_New(4 + keywords.count()));
    const auto number = py::reinterpret_steal<py::object>(PyLong_FromLong(rank));
    if (!key || !number) throw py::error_already_set();
    PyObject* const first[] = {function, pattern, number.ptr(), keywords.parameters()};
    for (Py_ssize_t i = 0; i < 4; ++i) PyTuple_SET_ITEM(key.ptr(), i, Py_NewRef(first[i]));
    for (Py_ssize_t i = 0; i < keywords.count(); ++i) PyTuple_SET_ITEM(key.ptr(), 4 + i, Py_NewRef(keywords[i]));
    PyObject* const fitted = PyDict_GetItemWithError(known_patterns().ptr(), key.ptr());
    if (!fitted && PyErr_Occurred()) throw py::error_already_set();
    return py::reinterpret_borrow<py::object>(fitted);
}

}  // namespace

py::dict& known_patterns() {
    PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::dict> storage;
    return storage.call_once_and_store_result([] { return py::dict(); }).get_stored();
}

Py_ssize_t* PatternPlaces::named(PyObject* name) {
    const std::pair<const char*, Py_ssize_t*> places[] = {
        {"axis", &axis},           {"x", &x},
        {"keepdims", &keepdims},   {"weight", &weight},
        {"bias", &bias},           {"out", &out},
        {"residual", &residual},   {"sum_out", &sum_out},
        {"out_scale", &out_scale}, {"out_zero_point", &out_zero_point}};
    for (const auto& [text, place] : places) {
        if (PyUnicode_CompareWithASCIIString(name, text) == 0) return place;
    }
    return nullptr;
}

bool PatternKeywords::add(PyObject* name, PyObject* value) {
    if (PyUnicode_CheckExact(value) && PyUnicode_CompareWithASCIIString(name, "parameters") == 0) {
        parameters_ = value;
        return true;
    }
    if (!PyLong_CheckExact(value) || count_ == most) return false;
    items_[count_++] = name;
    items_[count_++] = value;
    return true;
}

bool PatternCall::Lengths::push(Py_ssize_t length) {
    if (rank == max_rank) return false;
    values[rank++] = length;
    return true;
}

bool PatternCall::split(PyObject* factors) {
    const ArrayFields& x = fields(x_.ptr());
    for (int axis = 0; axis < x.nd; ++axis) {
        const Py_ssize_t length = x.dimensions[axis];
        if (factors == Py_None) {
            parts_[axis] = 1;
            if (!apart_.push(length)) return false;
            continue;
        }
        PyObject* const of_axis = PyTuple_GET_ITEM(factors, axis);
        parts_[axis] = static_cast<int>(PyTuple_GET_SIZE(of_axis));
        Py_ssize_t known = 1;
        bool has_rest = false;
        for (Py_ssize_t i = 0; i < parts_[axis]; ++i) {
            const Py_ssize_t factor = item(of_axis, i);
            if (factor < 0)
                has_rest = true;
            else if (__builtin_mul_overflow(known, factor, &known))
                return false;
        }
        if (has_rest ? known == 0 || length % known != 0 : known != length) return false;
        for (Py_ssize_t i = 0; i < parts_[axis]; ++i) {
            const Py_ssize_t factor = item(of_axis, i);
            if (!apart_.push(factor < 0 ? length / known : factor)) return false;
        }
    }
    return true;
}

bool PatternCall::broadcast(PyObject* array, Lengths& result) const {
    const ArrayFields &own = fields(array), &x = fields(x_.ptr());
    const int missing = x.nd - own.nd;
    if (missing < 0) return false;
    int next = 0;
    for (int axis = 0; axis < x.nd; ++axis) {
        const Py_ssize_t length = axis < missing ? 1 : own.dimensions[axis - missing];
        if (length != 1 && length != x.dimensions[axis]) return false;
        for (int part = 0; part < parts_[axis]; ++part, ++next) result.push(length == 1 ? 1 : apart_.values[next]);
    }
    return true;
}

bool PatternCall::along(PyObject* array, PyObject* groups, Lengths& result) const {
    const ArrayFields& own = fields(array);
    if (own.nd != PyTuple_GET_SIZE(groups)) return false;
    result.rank = apart_.rank;
    std::fill_n(result.values, result.rank, 1);
    for (int axis = 0; axis < own.nd; ++axis) {
        PyObject* const merged = PyTuple_GET_ITEM(groups, axis);
        Py_ssize_t length = 1;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(merged); ++i) {
            const Py_ssize_t place = item(merged, i);
            length *= result.values[place] = apart_.values[place];
        }
        if (own.dimensions[axis] != length) return false;
    }
    return true;
}

bool PatternCall::arrange(PyObject* function, const PatternPlaces& places, const PatternKeywords& keywords,
                          PyObject** values) {
    if (places.keepdims >= 0 && values[places.keepdims] != Py_False) return false;
    PyObject* const x = values[places.x];
    fitted_ = look_up(function, values[places.axis], fields(x).nd, keywords);
    if (!fitted_) return false;
    PyObject *const axes = PyTuple_GET_ITEM(fitted_.ptr(), 0), *const factors = PyTuple_GET_ITEM(fitted_.ptr(), 1),
                    *const groups = PyTuple_GET_ITEM(fitted_.ptr(), 2);
    if (factors == Py_None && groups == Py_None) {
        values[places.axis] = axes;
        return true;
    }
    x_ = py::reinterpret_borrow<py::object>(x);
    if (!split(factors)) return false;
    PyObject* const out = value_at(values, places.out);
    PyObject* const parameters[] = {value_at(values, places.weight), value_at(values, places.bias)};
    for (int i = 0; i < 2; ++i) {
        if (parameters[i] == Py_None) continue;
        Lengths lengths;
        if (!is_ndarray(parameters[i])) return false;
        if (!(groups == Py_None ? broadcast(parameters[i], lengths) : along(parameters[i], groups, lengths)))
            return false;
        views_[i] = reshaped(parameters[i], lengths.values, lengths.rank);
    }
    if (factors != Py_None) {
        if (value_at(values, places.residual) != Py_None || value_at(values, places.sum_out) != Py_None) return false;
        if (is_array_like(value_at(values, places.out_scale)) || is_array_like(value_at(values, places.out_zero_point)))
            return false;
        if (out != Py_None) {
            if (!is_ndarray(out) || fields(out).nd != fields(x).nd ||
                !std::equal(fields(x).dimensions, fields(x).dimensions + fields(x).nd, fields(out).dimensions))
                return false;
            out_ = py::reinterpret_borrow<py::object>(out);
            views_[2] = reshaped(out, apart_.values, apart_.rank);
            values[places.out] = views_[2].ptr();
        }
        views_[3] = reshaped(x, apart_.values, apart_.rank);
        values[places.x] = views_[3].ptr();
    } else {
        x_ = py::object();
    }
    if (views_[0]) values[places.weight] = views_[0].ptr();
    if (views_[1]) values[places.bias] = views_[1].ptr();
    values[places.axis] = axes;
    return true;
}

py::object PatternCall::whole(py::object result) const {
    const auto as_given = [this](PyObject* y) {
        const ArrayFields& x = fields(x_.ptr());
        return out_ ? out_ : reshaped(y, x.dimensions, x.nd);
    };
    if (!x_ || !result) return result;
    if (is_ndarray(result.ptr())) return as_given(result.ptr());
    if (!PyTuple_CheckExact(result.ptr())) return result;  // moments alone
    return py::make_tuple(as_given(PyTuple_GET_ITEM(result.ptr(), 0)), py::handle(PyTuple_GET_ITEM(result.ptr(), 1)));
}

}  // namespace anynorm::python
