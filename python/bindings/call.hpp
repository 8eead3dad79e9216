// SPDX-License-Identifier: Apache-2.0
// How Python calls the core: METH_FASTCALL, since parsing by pybind11 costs more than normalizing a short row does.
#pragma once

#include "array.hpp"

namespace anynorm::python {

/// A function of the module as CPython wants it. The arguments are positional and all present: defaults, keywords and
/// documentation are those of functional.py.
template <py::object (*function)(PyObject* const* arguments), Py_ssize_t arity>
PyObject* fastcall(PyObject*, PyObject* const* arguments, Py_ssize_t count) noexcept {
    if (count != arity) {
        PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", arity, count);
        return nullptr;
    }
    try {
        return function(arguments).release().ptr();
    } catch (...) {
        py::detail::try_translate_exceptions();
        return nullptr;
    }
}

/// As fastcall, of a function that takes those of a Selection behind `arity` others, `selecting` of them, or none.
template <py::object (*function)(PyObject* const* arguments, bool selects), Py_ssize_t arity, Py_ssize_t selecting>
PyObject* selecting_fastcall(PyObject*, PyObject* const* arguments, Py_ssize_t count) noexcept {
    if (count != arity && count != arity + selecting) {
        PyErr_Format(PyExc_TypeError, "expected %zd or %zd arguments, got %zd", arity, arity + selecting, count);
        return nullptr;
    }
    try {
        return function(arguments, count != arity).release().ptr();
    } catch (...) {
        py::detail::try_translate_exceptions();
        return nullptr;
    }
}

template <py::object (*function)(PyObject* const* arguments, bool selects), Py_ssize_t arity, Py_ssize_t selecting = 6>
PyMethodDef selecting_method(const char* name, const char* doc) {
    return {
        name,
        reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&selecting_fastcall<function, arity, selecting>)),
        METH_FASTCALL, doc};
}

template <py::object (*function)(PyObject* const* arguments), Py_ssize_t arity>
PyMethodDef method(const char* name, const char* doc) {
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&fastcall<function, arity>)),
            METH_FASTCALL, doc};
}

/// Lets other Python threads run during its lifetime; an exception passes with the GIL held again.
///
/// Not for a few elements: beside a busy Python thread, getting the GIL back takes longer than the work, whose time is
/// a microsecond. NumPy draws the same line, at 500 elements.
class WithoutGil {
  public:
    explicit WithoutGil(std::int64_t elements) : state_(elements >= 2048 ? PyEval_SaveThread() : nullptr) {}
    ~WithoutGil() {
        if (state_) PyEval_RestoreThread(state_);
    }
    WithoutGil(const WithoutGil&) = delete;
    WithoutGil& operator=(const WithoutGil&) = delete;

  private:
    PyThreadState* state_;
};

}  // namespace anynorm::python
