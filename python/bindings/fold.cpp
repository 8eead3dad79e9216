// SPDX-License-Identifier: Apache-2.0
#include "anynorm/fold.hpp"

#include "arguments.hpp"

namespace anynorm::python {
namespace {

/// The number of channels of the batch norm: the shape of what the core checks against weight.
Shape shape_of_bias(const TensorView& mean) {
    Shape shape;
    shape.push(length(mean, 0));
    return shape;
}

py::object fold_batch_norm(PyObject* const* values) {
    Arguments arguments("fold_batch_norm", values);
    FoldBatchNormOptions options;
    Operand weight;
    TensorView mean, var, folded_bias;
    weight.array = arguments.array("weight", weight.view);
    const py::object bias = arguments.optional_array("bias", options.bias);
    const py::object running_mean = arguments.array("running_mean", mean);
    const py::object running_var = arguments.array("running_var", var);
    refuse_half(arguments.named("running_mean"), mean);
    refuse_half(arguments.named("running_var"), var);
    const py::object bn_weight = arguments.optional_array("bn_weight", options.bn_weight);
    const py::object bn_bias = arguments.optional_array("bn_bias", options.bn_bias);
    options.eps = arguments.number("eps");
    options.channel_axis = arguments.axis("channel_axis");
    options.transpose = arguments.flag("transpose");
    options.groups = arguments.integer("groups");

    Operand folded;
    folded.array = empty_like(weight, weight.view.dtype, folded.view);
    const py::object new_bias = empty(shape_of_bias(mean), weight.view.dtype, folded_bias);
    {
        const WithoutGil release(weight.view.size());
        anynorm::fold_batch_norm(weight.view, mean, var, folded.view, folded_bias, options);
    }
    return py::make_tuple(folded.array, new_bias);
}

PyMethodDef methods[] = {
    method<fold_batch_norm, 10>("fold_batch_norm",
                                "fold_batch_norm($module, weight, bias, running_mean, running_var, bn_weight, bn_bias, "
                                "eps, channel_axis, transpose, groups, /)\n--\n\n"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_fold(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace anynorm::python
