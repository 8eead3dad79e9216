// SPDX-License-Identifier: Apache-2.0
#include "anynorm/lp_normalize.hpp"

#include "arguments.hpp"

namespace anynorm::python {
namespace {

/// A mask; sets that are named otherwise than by axes have no norm here.
SelectionArrays read_where(Arguments& arguments, bool selects, LpNormalizeOptions& options) {
    Selection selection;
    SelectionArrays arrays = arguments.selection(selects, selection, options.excluded);
    for (const auto& [name, view] : {std::pair<const char*, const TensorView&>{"labels", selection.labels},
                                     {"segments", selection.segments},
                                     {"sample_weight", selection.sample_weight}}) {
        if (!view.given()) continue;
        throw_value_error(arguments.named("sets"), std::string("that axes name, and a mask thins, got ") + name);
    }
    options.where = selection.where;
    return arrays;
}

py::object lp_normalize(PyObject* const* values, bool selects) {
    Arguments arguments("lp_normalize", values);
    LpNormalizeOptions options;
    Operand x;
    x.array = arguments.array("x", x.view);
    options.p = arguments.number("p");
    const Axes axes = arguments.axes(x.view);
    options.eps = arguments.number("eps");
    const Operand y = arguments.output(x);
    options.num_threads = arguments.num_threads();
    const SelectionArrays kept = read_where(arguments, selects, options);
    {
        const WithoutGil release(x.view.size());
        anynorm::lp_normalize(x.view, y.view, axes, options);
    }
    return y.array;
}

py::object lp_normalize_backward(PyObject* const* values, bool selects) {
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
    const SelectionArrays kept = read_where(arguments, selects, options);
    {
        const WithoutGil release(x.view.size());
        anynorm::lp_normalize_backward(grad_output.view, x.view, grad_input.view, axes, options);
    }
    return grad_input.array;
}

PyMethodDef methods[] = {
    selecting_method<lp_normalize, 7>(
        "lp_normalize",
        "lp_normalize($module, x, p, axis, eps, out, dtype, num_threads, "
        "labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    selecting_method<lp_normalize_backward, 8>(
        "lp_normalize_backward",
        "lp_normalize_backward($module, grad_output, x, p, axis, eps, out, dtype, num_threads, "
        "labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_lp_normalize(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace anynorm::python
