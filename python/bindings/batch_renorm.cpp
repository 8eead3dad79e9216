// SPDX-License-Identifier: Apache-2.0
#include "running.hpp"

namespace anynorm::python {
namespace {

py::object batch_renorm(PyObject* const* values) {
    Arguments arguments("batch_renorm", values);
    BatchRenormOptions options;
    Operand x;
    x.array = arguments.array("x", x.view);
    PyObject* running_mean = arguments.raw();
    PyObject* running_var = arguments.raw();
    const py::object weight = arguments.optional_array("weight", options.weight);
    const py::object bias = arguments.optional_array("bias", options.bias);
    options.training = arguments.flag("training");
    Running running(arguments, running_mean, running_var, options.training, options.running);
    options.eps = arguments.number("eps");
    options.r_max = arguments.number("r_max");
    options.d_max = arguments.number("d_max");
    options.channel_axis = arguments.axis("channel_axis");
    running.read_options(options.one_element);
    const Tail tail = arguments.tail(x, options);
    RunningUpdate update;
    py::object result = run(
        tail, options, [&] { return per_channel(x.view, options.channel_axis); },
        [&] { update = anynorm::batch_renorm(x.view, tail.y.view, options); });
    running.report(update);
    return result;
}

PyMethodDef methods[] = {
    method<batch_renorm, 21>(
        "batch_renorm",
        "batch_renorm($module, x, running_mean, running_var, weight, bias, training, momentum, eps, r_max, d_max, "
        "channel_axis, num_batches, correction, pooled, nonfinite, one_element, moments, out, dtype, return_moments, "
        "num_threads, /)\n--\n\n"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_batch_renorm(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace anynorm::python
