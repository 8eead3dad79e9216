// SPDX-License-Identifier: Apache-2.0
// Reads the arguments of one call, in the order of its signature.
#pragma once

#include <array>
#include <climits>
#include <optional>
#include <utility>

#include "array.hpp"
#include "call.hpp"
#include "statistics.hpp"

namespace anynorm::python {

/// What the keyword tail of all norms says: moments, residual, activation, out, sum_out, dtype, out_scale,
/// out_zero_point, return_moments, num_threads; without those of fusion where a norm has none.
struct Tail {
    GivenMoments moments;
    py::object residual, sum;        ///< not given where x is normalized as it is
    py::object scales, zero_points;  ///< not given where they are numbers
    Operand y;
    bool return_moments = false;
};

/// What keeps the arrays of a selection alive for the length of a call.
using SelectionArrays = std::array<py::object, 4>;

class Arguments {
  public:
    Arguments(const char* function, PyObject* const* values) : function_(function), next_(values) {}

    const char* function() const { return function_; }
    Argument named(const char* name) const { return {function_, name}; }

    py::object array(const char* name, TensorView& view) { return read_array(*next_++, named(name), view); }
    py::object optional_array(const char* name, TensorView& view) { return read_optional(*next_++, named(name), view); }
    PyObject* raw() { return *next_++; }

    double number(const char* name) {
        PyObject* object = *next_++;
        if (PyFloat_CheckExact(object)) return PyFloat_AS_DOUBLE(object);
        const double value = PyFloat_AsDouble(object);
        if (value == -1 && PyErr_Occurred()) {
            clear_type_error();
            throw_type_error(named(name), "to be a number", object);
        }
        return value;
    }

    std::optional<double> optional_number(const char* name) {
        if (*next_ == Py_None) return ++next_, std::nullopt;
        return number(name);
    }

    bool flag(const char* name) {
        PyObject* object = *next_++;
        const std::optional<bool> value = truth(object);
        if (!value) throw_type_error(named(name), "to be True or False", object);
        return *value;
    }

    /// Nothing for objects that are not a bool: others have a truth value too, but a tolerance or an array in the place
    /// of a flag is a call with the arguments in the wrong order.
    static std::optional<bool> truth(PyObject* object) {
        if (object == Py_True) return true;
        if (object == Py_False) return false;
        const std::string type = Py_TYPE(object)->tp_name;
        if (type != "numpy.bool" && type != "numpy.bool_") return std::nullopt;
        return PyObject_IsTrue(object) == 1;
    }

    /// The index of one of the names.
    template <int count>
    int choice(const char* name, const char* const (&names)[count]) {
        PyObject* object = *next_++;
        std::string expected;
        for (int i = 0; i < count; ++i) {
            if (PyUnicode_Check(object) && PyUnicode_CompareWithASCIIString(object, names[i]) == 0) return i;
            expected += (i == 0 ? "'" : i + 1 < count ? "', '" : "' or '") + std::string(names[i]);
        }
        if (!PyUnicode_Check(object)) throw_type_error(named(name), "to be a str", object);
        throw_value_error(named(name), "to be " + expected + "', got '" + text(object) + "'");
    }

    std::int64_t integer(const char* name) { return integer(*next_++, named(name), "to be an int"); }

    int axis(const char* name) { return narrow(integer(name)); }

    /// 0 for None, which leaves the choice to the core.
    int num_threads() {
        PyObject* object = *next_++;
        if (object == Py_None) return 0;
        const Argument argument = named("num_threads");
        const std::int64_t count = integer(object, argument, "to be an int or None");
        if (count < 1) throw_value_error(argument, "of at least 1, got " + std::to_string(count));
        return narrow(count);
    }

    /// `out` and `dtype`, of calls without the rest of the tail: the array given, or a new one like x.
    Operand output(const Operand& x) {
        PyObject* out = *next_++;
        Operand result;
        result.array = output(x, out, *next_++, result.view);
        return result;
    }

    /// None is all axes of x.
    Axes axes(const TensorView& x) {
        PyObject* object = *next_++;
        if (object == Py_None) return Axes::range(0, x.rank);
        return axes(object);
    }

    /// The axes of layer and RMS norm: the last one, or what `normalized_shape` or the next argument, `axis`, names.
    Axes trailing_or_named_axes(const TensorView& x, PyObject* normalized_shape) {
        PyObject* axis = *next_++;
        if (normalized_shape == Py_None) return axis == Py_None ? Axes{-1} : axes(axis);
        if (axis != Py_None) throw_value_error(named("normalized_shape"), "or axis, got both");
        return trailing_axes(x, normalized_shape);
    }

    /// The running mean and variance, which are written only where the call updates them.
    std::pair<py::object, py::object> running(PyObject* mean, PyObject* var, bool updated,
                                              RunningStatistics& view) const {
        const auto read = [&](PyObject* object, const Argument& argument, TensorView& into) {
            py::object array = updated && object != Py_None ? written_array(object, argument, into)
                                                            : read_optional(object, argument, into);
            refuse_half(argument, into);
            return array;
        };
        return {read(mean, named("running_mean"), view.mean), read(var, named("running_var"), view.var)};
    }

    template <class Options>
    Tail tail(const Operand& x, Options& options) {
        Tail result;
        PyObject* moments = *next_++;
        if (moments != Py_None) result.moments.read(moments, named("moments"), options.given);
        if constexpr (requires { options.fusion; }) {
            Fusion& fusion = options.fusion;
            result.residual = optional_array("residual", fusion.residual);
            fusion.activation = activation();
            PyObject *out = *next_++, *sum = *next_++;
            result.y.array = output(x, out, *next_++, result.y.view);
            result.sum = sum_of(x, sum, fusion);
            quantization(result, fusion);
        } else {
            result.y = output(x);
        }
        result.return_moments = flag("return_moments");
        options.num_threads = num_threads();
        return result;
    }

    Activation activation() {
        PyObject* object = *next_++;
        if (object == Py_None) return Activation::none;
        const Argument argument = named("activation");
        if (!PyUnicode_Check(object)) throw_type_error(argument, "to be a str or None", object);
        for (Activation each : {Activation::relu, Activation::silu, Activation::gelu, Activation::gelu_tanh}) {
            if (PyUnicode_CompareWithASCIIString(object, name(each)) == 0) return each;
        }
        std::string rest = "None, 'relu', 'silu', 'gelu' or 'gelu_tanh', got ";
        throw_value_error(argument, rest.append("'").append(text(object)).append("'"));
    }

    /// labels, num_groups, segments, where and sample_weight; nothing is read of a call that `selects` nothing.
    SelectionArrays selection(bool selects, Selection& selection) {
        SelectionArrays arrays;
        if (!selects) return arrays;
        const auto read = [&](const char* name, TensorView& view, Elements allowed) {
            return read_optional(*next_++, named(name), view, allowed);
        };
        arrays[0] = read("labels", selection.labels, Elements::indices);
        selection.num_groups = integer("num_groups");
        arrays[1] = read("segments", selection.segments, Elements::indices);
        arrays[2] = read("where", selection.where, Elements::truths);
        arrays[3] = read("sample_weight", selection.sample_weight, Elements::floats);
        return arrays;
    }

    /// Those of `selection`, and excluded, into the options of a call.
    SelectionArrays selection(bool selects, Selection& selection, Excluded& excluded) {
        SelectionArrays arrays = this->selection(selects, selection);
        static constexpr const char* names[] = {"zero", "input", "keep"};
        if (selects) excluded = static_cast<Excluded>(choice("excluded", names));
        return arrays;
    }

    /// out_scale and out_zero_point, numbers or arrays.
    void quantization(Tail& tail, Fusion& fusion) {
        if (is_steps(next_[0])) {
            tail.scales = array("out_scale", fusion.scales);
        } else {
            scale(fusion);
        }
        if (is_steps(next_[0])) {
            tail.zero_points = read_zero_points(raw(), named("out_zero_point"), tail.y.view.dtype, fusion.zero_points);
        } else {
            fusion.zero_point = narrow(integer("out_zero_point"));
        }
    }

    /// out_scale as a number.
    void scale(Fusion& fusion) {
        const std::optional<double> scale = optional_number("out_scale");
        if (scale && !(*scale > 0)) throw_value_error(named("out_scale"), "above 0, got " + text(next_[-1]));
        fusion.scale = scale.value_or(0);
    }

    /// The array that `out` is, or a new one of the dtype that the caller asks for, else of that of x.
    py::object output(const Operand& x, PyObject* out, PyObject* dtype, TensorView& view) const {
        const DType wanted = dtype == Py_None ? DType::none : read_dtype(dtype, named("dtype"));
        if (out == Py_None) return empty_like(x, wanted == DType::none ? x.view.dtype : wanted, view);
        py::object array = written_array(out, named("out"), view, Elements::floats_or_bytes);
        if (wanted != DType::none && wanted != view.dtype)
            throw_value_error(named("out"),
                              std::string("of dtype ") + name(wanted) + " as dtype says, got " + name(view.dtype));
        return array;
    }

  private:
    /// Where to write the sum of x and a residual: a new array like x, if the caller names none.
    py::object sum_of(const Operand& x, PyObject* out, Fusion& fusion) const {
        if (out != Py_None) return written_array(out, named("sum_out"), fusion.sum);
        return fusion.residual.given() ? empty_like(x, x.view.dtype, fusion.sum) : py::object();
    }

    static int narrow(std::int64_t value) {
        return static_cast<int>(value < INT_MIN ? INT_MIN : value > INT_MAX ? INT_MAX : value);
    }

    /// As is_array_like(), with a short way out for what calls without 8 bits have.
    static bool is_steps(PyObject* object) {
        return object != Py_None && !PyLong_CheckExact(object) && !PyFloat_CheckExact(object) && is_array_like(object);
    }

    static std::int64_t integer(PyObject* object, const Argument& argument, const char* rest) {
        if (PyLong_CheckExact(object)) {  // in a fifth of the time
            int overflow = 0;
            const long value = PyLong_AsLongAndOverflow(object, &overflow);
            if (overflow == 0) return value;
        }
        if (!PyIndex_Check(object)) throw_type_error(argument, rest, object);
        // With no exception to raise, NumPy-style clipping: every bound that the core checks is far inside.
        const Py_ssize_t value = PyNumber_AsSsize_t(object, nullptr);
        if (value == -1 && PyErr_Occurred()) {
            clear_type_error();
            throw_type_error(argument, rest, object);
        }
        return value;
    }

    Axes axes(PyObject* object) const {
        constexpr const char* rest = "to be an int or a tuple of ints";
        const Argument argument = named("axis");
        if (!PyTuple_Check(object)) return Axes{narrow(integer(object, argument, rest))};
        const Py_ssize_t count = PyTuple_GET_SIZE(object);
        if (count > max_rank) throw_value_error(argument, "of at most 16 axes, got " + std::to_string(count));
        Axes result;
        for (Py_ssize_t i = 0; i < count; ++i)
            result.values[result.size++] = narrow(integer(PyTuple_GET_ITEM(object, i), argument, rest));
        return result;
    }

    Axes trailing_axes(const TensorView& x, PyObject* object) const {
        const Argument argument = named("normalized_shape");
        constexpr const char* rest = "to be an int or a tuple of ints";
        py::object list;  // as a tuple
        PyObject* const* lengths = &object;
        Py_ssize_t count = 1;
        if (PyList_Check(object)) {
            list = py::reinterpret_steal<py::object>(PyList_AsTuple(object));
            if (!list) throw py::error_already_set();
            object = list.ptr();
        }
        if (PyTuple_Check(object)) {
            lengths = &PyTuple_GET_ITEM(object, 0);
            count = PyTuple_GET_SIZE(object);
        } else if (!PyIndex_Check(object) || PySequence_Check(object)) {
            throw_type_error(argument, rest, object);
        }
        const Py_ssize_t kept = x.rank - count;
        bool fits = count > 0 && kept >= 0;
        for (Py_ssize_t i = 0; i < count; ++i) {
            const std::int64_t length = integer(lengths[i], argument, rest);
            fits = fits && length == x.shape[kept + i];
        }
        if (!fits) {
            const bool is_tuple = PyTuple_Check(object);
            throw_value_error(argument, "to be trailing lengths of x of shape " + shape_text(x) + ", got " +
                                            (is_tuple ? text(object) : "(" + text(object) + ",)"));
        }
        return Axes::range(static_cast<int>(kept), static_cast<int>(count));
    }

    const char* function_;
    PyObject* const* next_;
};

/// Makes the call without the GIL and returns y, with the sum and the Moments behind it where the caller asked for
/// them.
template <class Options, class ShapeOfSets, class Call>
py::object run(const Tail& tail, Options& options, const Selection& selection, const ShapeOfSets& shape_of_sets,
               const Call& call) {
    std::optional<NewMoments> used;
    if (tail.return_moments)
        used.emplace(grouped(selection, shape_of_sets()), options.moments, selection.sample_weight.given());
    {
        const WithoutGil release(tail.y.view.size());
        call();
    }
    const bool sums = tail.residual.ptr() != nullptr;
    if (!used) return sums ? py::object(py::make_tuple(tail.y.array, tail.sum)) : tail.y.array;
    if (sums) return py::make_tuple(tail.y.array, tail.sum, used->wrap());
    return py::make_tuple(tail.y.array, used->wrap());
}

}  // namespace anynorm::python
