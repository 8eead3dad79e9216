// SPDX-License-Identifier: Apache-2.0
#include "arguments.hpp"

namespace anynorm::python {
namespace {

struct MomentsClass {
    py::object type, make;
    PyObject *count, *mean, *m2, *mean_low, *weight2;
};

// Found at the first call that needs it and not at import, since the package that defines it imports this module.
const MomentsClass& moments_class() {
    PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<MomentsClass> storage;
    return storage
        .call_once_and_store_result([] {
            const py::object type = py::module_::import("anynorm._moments").attr("Moments");
            return MomentsClass{type,
                                type.attr("_wrap"),
                                PyUnicode_InternFromString("_count"),
                                PyUnicode_InternFromString("_mean"),
                                PyUnicode_InternFromString("_m2"),
                                PyUnicode_InternFromString("_mean_low"),
                                PyUnicode_InternFromString("_weight2")};
        })
        .get_stored();
}

py::object read_attribute(PyObject* object, PyObject* name, const Argument& argument, bool written, TensorView& view) {
    const auto value = py::reinterpret_steal<py::object>(PyObject_GetAttr(object, name));
    if (!value) throw py::error_already_set();
    return written ? written_array(value.ptr(), argument, view) : read_array(value.ptr(), argument, view);
}

py::object moments(PyObject* const* values, bool selects) {
    Arguments arguments("moments", values);
    Operand x;
    x.array = arguments.array("x", x.view);
    Grouping sets{arguments.axes(x.view)};
    const bool keepdims = arguments.flag("keepdims");
    const MomentsOptions options{.num_threads = arguments.num_threads()};
    const SelectionArrays arrays = arguments.selection(selects, sets.selection);
    MomentsView out;
    const NewMoments result(grouped(sets.selection, shape_of_sets(x.view, sets.reduce, keepdims)), out,
                            sets.selection.sample_weight.given());
    {
        const WithoutGil release(x.view.size());
        anynorm::moments(x.view, sets, out, options);
    }
    return result.wrap();
}

PyMethodDef methods[] = {
    selecting_method<moments, 4, 5>("moments",
                                    "moments($module, x, axis, keepdims, num_threads, labels=None, num_groups=0, "
                                    "segments=None, where=None, sample_weight=None, /)\n--\n\n"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void GivenMoments::read(PyObject* object, const Argument& argument, MomentsView& view, bool written) {
    const MomentsClass& known = moments_class();
    if (!PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(known.type.ptr())))
        throw_type_error(argument, "of type anynorm.Moments", object);
    if (written) {  // the squares of weights are not among what running statistics keep
        const auto weight2 = py::reinterpret_steal<py::object>(PyObject_GetAttr(object, known.weight2));
        if (!weight2) throw py::error_already_set();
        if (!weight2.is_none()) throw_value_error(argument, "without weight2, got one of weighted elements");
    }
    count_ = read_attribute(object, known.count, argument, written, view.count);
    mean_ = read_attribute(object, known.mean, argument, written, view.mean);
    m2_ = read_attribute(object, known.m2, argument, written, view.m2);
    mean_low_ = read_attribute(object, known.mean_low, argument, written, view.mean_low);
}

NewMoments::NewMoments(std::span<const std::int64_t> shape, MomentsView& view, bool weighted)
    : count_(empty(shape, DType::f64, view.count)),
      mean_(empty(shape, DType::f64, view.mean)),
      m2_(empty(shape, DType::f64, view.m2)),
      mean_low_(empty(shape, DType::f64, view.mean_low)),
      weight2_(weighted ? empty(shape, DType::f64, view.weight2) : py::object()) {}

py::object NewMoments::wrap() const {
    PyObject* const arrays[] = {count_.ptr(), mean_.ptr(), m2_.ptr(), mean_low_.ptr(), weight2_.ptr()};
    PyObject* result = PyObject_Vectorcall(moments_class().make.ptr(), arrays, weight2_ ? 5 : 4, nullptr);
    if (!result) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
}

Shape shape_of_sets(const TensorView& x, const Axes& axes, bool keepdims) {
    bool reduced[max_rank] = {};
    for (int i = 0; i < axes.size; ++i) {
        const int axis = axes.values[i] < 0 ? axes.values[i] + x.rank : axes.values[i];
        if (axis >= 0 && axis < x.rank) reduced[axis] = true;
    }
    Shape shape;
    for (int axis = 0; axis < x.rank; ++axis) {
        if (!reduced[axis])
            shape.push(x.shape[axis]);
        else if (keepdims)
            shape.push(1);
    }
    return shape;
}

void add_moments(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace anynorm::python
