// SPDX-License-Identifier: Apache-2.0
// ndarray <-> TensorView. Types, byte order, alignment and writability are checked here, since the core never sees
// them; shapes and axes are checked by the core.
#pragma once

#include <pybind11/numpy.h>

#include <span>
#include <string>

#include "anynorm/anynorm.hpp"

namespace anynorm::python {

namespace py = pybind11;

/// The argument that is being read: its error messages are "function: expected name <rest>".
struct Argument {
    const char* function;
    const char* name;
};

[[noreturn]] void throw_type_error(const Argument& argument, const std::string& rest, PyObject* got);
[[noreturn]] void throw_value_error(const Argument& argument, const std::string& rest);

/// For the TypeError that Python has raised and which a clearer one is to replace; any other error is passed on.
void clear_type_error();

/// An array and the view of it. Views are filled in place and not returned: with room for 16 axes they are large, and
/// the options of a call hold many.
struct Operand {
    TensorView view;
    py::object array;
};

/// Which element types an array may have: int8 and uint8 are for results that are quantized, indices and truths for
/// selections.
enum class Elements : std::uint8_t { floats, floats_or_bytes, indices, truths };

/// Any array-like; an ndarray is never copied. Returns the array whose memory `view` shows.
py::object read_array(PyObject* object, const Argument& argument, TensorView& view,
                      Elements allowed = Elements::floats);

/// As read_array; None leaves `view` as it is, an operand that is not given.
py::object read_optional(PyObject* object, const Argument& argument, TensorView& view,
                         Elements allowed = Elements::floats);

/// For statistics, which change by less than a half type can tell.
void refuse_half(const Argument& argument, const TensorView& view);

/// An ndarray to be written; anything else would be a copy that the caller never sees.
py::object written_array(PyObject* object, const Argument& argument, TensorView& view,
                         Elements allowed = Elements::floats);

/// An int64 ndarray of one element, to be counted up where `written`.
py::object written_counter(PyObject* object, const Argument& argument, bool written, std::int64_t*& value);

/// str(object).
std::string text(PyObject* object);

/// The shape of x as Python prints it: "(2, 3)".
std::string shape_text(const TensorView& x);

/// Whether it has elements, or is a number: a list, a tuple or an ndarray with axes.
bool is_array_like(PyObject* object);

/// Zero points of results of a dtype as an array of it; numbers and lists of them are made one.
py::object read_zero_points(PyObject* object, const Argument& argument, DType result, TensorView& view);

/// The value of a `dtype=` argument, int8 and uint8 among them.
DType read_dtype(PyObject* object, const Argument& argument);

/// A new array without values in C order.
py::object empty(std::span<const std::int64_t> shape, DType dtype, TensorView& view);

/// A new array without values, of the shape and memory order of x, as numpy.empty_like(x, subok=False).
py::object empty_like(const Operand& x, DType dtype, TensorView& view);

/// What NumPy keeps of an ndarray: lengths, strides, flags.
using ArrayFields = py::detail::PyArray_Proxy;
inline const ArrayFields& fields(PyObject* array) { return *py::detail::array_proxy(array); }

/// Whether it is an ndarray and of no subclass.
bool is_ndarray(PyObject* object);

/// Finds NumPy; called once, when the module is imported.
void load_numpy();

}  // namespace anynorm::python
