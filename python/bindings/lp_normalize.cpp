// SPDX-License-Identifier: Apache-2.0
#include "anynorm/lp_normalize.hpp"

#include "arguments.hpp"

namespace anynorm::python {
namespace {

py::object lp_normalize(PyObject* const* values) {
    Arguments arguments("lp_normalize", values);
    LpNormalizeOptions options;
    Operand x;
    x.array = arguments.array("x", x.view);
    options.p = arguments.number("p");
    const Axes axes = arguments.axes(x.view);
    options.eps = arguments.number("eps");
    const Operand y = arguments.output(x);
    options.num_threads = arguments.num_threads();
    {
        const WithoutGil release(x.view.size());
        anynorm::lp_normalize(x.view, y.view, axes, options);
    }
    return y.array;
}

py::object lp_normalize_backward(PyObject* const* values) {
    Arguments arguments("lp_normalize_backward", values);
    LpNormalizeOptions options;
    Operand grad_output, x;
    grad_output.array = arguments.array("grad_output", grad_output.view);
    x.array = arguments.array("x", x.view);
    options.p = arguments.number("p");
    const Axes axes = arguments.axes(x.view);
    options.eps = arguments.number("eps");
    const Operand grad_input = arguments.output(x);
    options.num_threads = arguments.num_threads();
    {
        const WithoutGil release(x.view.size());
        anynorm::lp_normalize_backward(grad_output.view, x.view, grad_input.view, axes, options);
    }
    return grad_input.array;
}

PyMethodDef methods[] = {
    method<lp_normalize, 7>("lp_normalize",
                            "lp_normalize($module, x, p, axis, eps, out, dtype, num_threads, /)\n--\n\n"),
    method<lp_normalize_backward, 8>(
        "lp_normalize_backward",
        "lp_normalize_backward($module, grad_output, x, p, axis, eps, out, dtype, num_threads, /)\n--\n\n"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_lp_normalize(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace anynorm::python
