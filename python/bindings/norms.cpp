// SPDX-License-Identifier: Apache-2.0
#include "running.hpp"

namespace anynorm::python {
namespace {

Shape per_sample(const TensorView& x, std::int64_t sets) {
    Shape shape;
    shape.push(length(x, 0));
    shape.push(sets);
    return shape;
}

py::object layer_norm(PyObject* const* values, bool selects) {
    Arguments arguments("layer_norm", values);
    LayerNormOptions options;
    Operand x;
    x.array = arguments.array("x", x.view);
    PyObject* normalized_shape = arguments.raw();
    const py::object weight = arguments.optional_array("weight", options.weight);
    const py::object bias = arguments.optional_array("bias", options.bias);
    options.eps = arguments.number("eps");
    const Axes axes = arguments.trailing_or_named_axes(x.view, normalized_shape);
    const Tail tail = arguments.tail(x, options);
    const SelectionArrays arrays = arguments.selection(selects, options.selection, options.excluded);
    return run(
        tail, options, options.selection, [&] { return shape_of_sets(x.view, axes); },
        [&] { anynorm::layer_norm(x.view, tail.y.view, axes, options); });
}

py::object rms_norm(PyObject* const* values, bool selects) {
    Arguments arguments("rms_norm", values);
    RmsNormOptions options;
    Operand x;
    x.array = arguments.array("x", x.view);
    PyObject* normalized_shape = arguments.raw();
    const py::object weight = arguments.optional_array("weight", options.weight);
    options.eps = arguments.optional_number("eps");
    const Axes axes = arguments.trailing_or_named_axes(x.view, normalized_shape);
    const Tail tail = arguments.tail(x, options);
    const SelectionArrays arrays = arguments.selection(selects, options.selection, options.excluded);
    return run(
        tail, options, options.selection, [&] { return shape_of_sets(x.view, axes); },
        [&] { anynorm::rms_norm(x.view, tail.y.view, axes, options); });
}

py::object group_norm(PyObject* const* values, bool selects) {
    Arguments arguments("group_norm", values);
    GroupNormOptions options;
    Operand x;
    x.array = arguments.array("x", x.view);
    const std::int64_t num_groups = arguments.integer("num_groups");
    const py::object weight = arguments.optional_array("weight", options.weight);
    const py::object bias = arguments.optional_array("bias", options.bias);
    options.eps = arguments.number("eps");
    options.channel_axis = arguments.axis("channel_axis");
    const Tail tail = arguments.tail(x, options);
    const SelectionArrays arrays = arguments.selection(selects, options.selection, options.excluded);
    // A number that the core is going to refuse must not become the size of an array.
    const auto sets = [&] {
        const bool sensible =
            num_groups > 0 && (num_groups <= length(x.view, options.channel_axis) || x.view.size() == 0);
        return per_sample(x.view, sensible ? num_groups : 0);
    };
    return run(tail, options, options.selection, sets,
               [&] { anynorm::group_norm(x.view, tail.y.view, num_groups, options); });
}

py::object instance_norm(PyObject* const* values, bool selects) {
    const auto sets = [](const TensorView& x, int channel_axis) { return per_sample(x, length(x, channel_axis)); };
    return channel_norm("instance_norm", values, selects, "use_input_stats", &InstanceNormOptions::use_input_stats,
                        sets, anynorm::instance_norm);
}

py::object batch_norm(PyObject* const* values, bool selects) {
    return channel_norm("batch_norm", values, selects, "training", &BatchNormOptions::training, per_channel,
                        anynorm::batch_norm);
}

PyMethodDef methods[] = {
    selecting_method<layer_norm, 16>(
        "layer_norm",
        "layer_norm($module, x, normalized_shape, weight, bias, eps, axis, "
        "moments, residual, activation, out, sum_out, dtype, "
        "out_scale, out_zero_point, return_moments, num_threads, "
        "labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    selecting_method<rms_norm, 15>(
        "rms_norm",
        "rms_norm($module, x, normalized_shape, weight, eps, axis, "
        "moments, residual, activation, out, sum_out, dtype, "
        "out_scale, out_zero_point, return_moments, num_threads, "
        "labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    selecting_method<group_norm, 16>(
        "group_norm",
        "group_norm($module, x, num_groups, weight, bias, eps, channel_axis, "
        "moments, residual, activation, out, sum_out, dtype, "
        "out_scale, out_zero_point, return_moments, num_threads, "
        "labels=None, label_count=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    selecting_method<instance_norm, 24>(
        "instance_norm",
        "instance_norm($module, x, running_mean, running_var, weight, bias, use_input_stats, momentum, "
        "eps, channel_axis, num_batches, correction, pooled, nonfinite, one_element, "
        "moments, residual, activation, out, sum_out, dtype, "
        "out_scale, out_zero_point, return_moments, num_threads, "
        "labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    selecting_method<batch_norm, 24>(
        "batch_norm",
        "batch_norm($module, x, running_mean, running_var, weight, bias, training, momentum, eps, "
        "channel_axis, num_batches, correction, pooled, nonfinite, one_element, "
        "moments, residual, activation, out, sum_out, dtype, "
        "out_scale, out_zero_point, return_moments, num_threads, "
        "labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_norms(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace anynorm::python
