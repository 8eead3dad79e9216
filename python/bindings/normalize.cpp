// SPDX-License-Identifier: Apache-2.0
#include "arguments.hpp"

namespace anynorm::python {
namespace {

py::object normalize(PyObject* const* values, bool selects) {
    Arguments arguments("normalize", values);
    NormalizeOptions options;
    Operand x;
    x.array = arguments.array("x", x.view);
    Grouping sets{arguments.axes(x.view)};
    const py::object weight = arguments.optional_array("weight", options.weight);
    const py::object bias = arguments.optional_array("bias", options.bias);
    options.eps = arguments.number("eps");
    options.center = arguments.flag("center");
    const Tail tail = arguments.tail(x, options);
    const SelectionArrays arrays = arguments.selection(selects, sets.selection, options.excluded);
    return run(
        tail, options, sets.selection, [&] { return shape_of_sets(x.view, sets.reduce); },
        [&] { anynorm::normalize(x.view, sets, tail.y.view, options); });
}

py::object quantize(PyObject* const* values) {
    Arguments arguments("quantize", values);
    Operand y;
    y.array = arguments.array("y", y.view);
    const double scale = arguments.number("scale");
    const int zero_point = arguments.axis("zero_point");
    PyObject* const dtype = arguments.raw();
    TensorView view;
    const py::object q = arguments.output(y, arguments.raw(), dtype, view);
    {
        const WithoutGil release(y.view.size());
        anynorm::quantize(y.view, view, scale, zero_point);
    }
    return q;
}

PyMethodDef methods[] = {
    selecting_method<normalize, 16>(
        "normalize",
        "normalize($module, x, axis, weight, bias, eps, center, moments, residual, activation, out, sum_out, dtype, "
        "out_scale, out_zero_point, return_moments, num_threads, labels=None, num_groups=0, segments=None, where=None, "
        "sample_weight=None, excluded='zero', /)\n--\n\n"),
    method<quantize, 5>("quantize", "quantize($module, y, scale, zero_point, dtype, out, /)\n--\n\n"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_normalize(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace anynorm::python
