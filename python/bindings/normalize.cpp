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
    PyObject *const scale = arguments.raw(), *const zero_point = arguments.raw(), *const dtype = arguments.raw();
    TensorView view;
    const py::object q = arguments.output(y, arguments.raw(), dtype, view);
    const int num_threads = arguments.num_threads();
    PyObject* const steps[] = {scale, zero_point};
    Arguments step("quantize", steps);
    if (!is_array_like(scale) && !is_array_like(zero_point)) {
        const double of_all = step.number("scale");
        const int zero = step.axis("zero_point");
        const WithoutGil release(y.view.size());
        anynorm::quantize(y.view, view, of_all, zero, num_threads);
        return q;
    }
    TensorView scales, zero_points;
    double of_all = 0;
    py::object read;
    if (is_array_like(scale)) {
        read = step.array("scale", scales);
    } else {
        of_all = step.number("scale");
        scales = anynorm::view(&of_all, {});
    }
    const py::object zeros = read_zero_points(step.raw(), step.named("zero_point"), view.dtype, zero_points);
    const WithoutGil release(y.view.size());
    anynorm::quantize(y.view, view, scales, zero_points, num_threads);
    return q;
}

PyMethodDef methods[] = {
    selecting_method<normalize, 16>(
        "normalize",
        "normalize($module, x, axis, weight, bias, eps, center, moments, residual, activation, out, sum_out, dtype, "
        "out_scale, out_zero_point, return_moments, num_threads, labels=None, num_groups=0, segments=None, where=None, "
        "sample_weight=None, excluded='zero', /)\n--\n\n"),
    method<quantize, 6>("quantize", "quantize($module, y, scale, zero_point, dtype, out, num_threads, /)\n--\n\n"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_normalize(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace anynorm::python
