// SPDX-License-Identifier: Apache-2.0
// The gradients: grad_output, the arguments of the forward call, and what to compute.
#include <tuple>

#include "arguments.hpp"

namespace anynorm::python {
namespace {

// Found at the first call and not at import, since the package that defines it imports this module.
const py::object& gradients_class() {
    PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> storage;
    return storage
        .call_once_and_store_result([] { return py::module_::import("anynorm._gradients").attr("Gradients"); })
        .get_stored();
}

/// The lengths of x along `axes`, in ascending order. Axes that x does not have are left for the core to refuse.
Shape shape_along(const TensorView& x, const Axes& axes) {
    bool named[max_rank] = {};
    for (int i = 0; i < axes.size; ++i) {
        const int axis = axes.values[i] < 0 ? axes.values[i] + x.rank : axes.values[i];
        if (axis >= 0 && axis < x.rank) named[axis] = true;
    }
    Shape shape;
    for (int axis = 0; axis < x.rank; ++axis) {
        if (named[axis]) shape.push(x.shape[axis]);
    }
    return shape;
}

/// One call of a backward function.
class Backward {
  public:
    Backward(const char* function, PyObject* const* values) : arguments(function, values) {
        grad_output.array = arguments.array("grad_output", grad_output.view);
        x.array = arguments.array("x", x.view);
    }

    template <class Options>
    void read_parameters(Options& options) {
        weight_ = arguments.optional_array("weight", options.weight);
        if constexpr (requires { options.bias; }) bias_ = arguments.optional_array("bias", options.bias);
    }

    /// Running statistics, which no backward call updates.
    void read_running(PyObject* mean, PyObject* var, RunningStatistics& view) {
        std::tie(running_mean_, running_var_) = arguments.running(mean, var, false, view);
    }

    /// The keyword tail of all backward functions. `shape` is that of the parameters, where the norm decides about it.
    template <class Options>
    void read_tail(Options& options, const std::optional<Shape>& shape) {
        PyObject* moments = arguments.raw();
        if (moments != Py_None) moments_.read(moments, arguments.named("moments"), options.given);
        if constexpr (requires { options.fusion; }) {
            options.fusion.activation = arguments.activation();
            grad_sum_ = arguments.optional_array("grad_sum", options.fusion.grad_sum);
        } else if constexpr (requires { options.activation; }) {
            options.activation = arguments.activation();
            grad_sum_ = arguments.optional_array("grad_sum", options.grad_sum);
        }
        read_grad_input();
        grad_weight_ = read_gradient("grad_weight", options.weight, shape, gradients.grad_weight);
        if constexpr (requires { options.bias; })
            grad_bias_ = read_gradient("grad_bias", options.bias, shape, gradients.grad_bias);
        options.num_threads = arguments.num_threads();
    }

    void read_selection(bool selects, Selection& selection, Excluded& excluded) {
        selection_ = arguments.selection(selects, selection, excluded);
    }

    /// Makes the call without the GIL and returns an anynorm.Gradients.
    template <class Call>
    py::object run(const Call& call) const {
        {
            const WithoutGil release(x.view.size());
            call();
        }
        const auto or_none = [](const py::object& array) { return array ? array.ptr() : Py_None; };
        PyObject* const results[] = {or_none(grad_input_), or_none(grad_weight_), or_none(grad_bias_)};
        PyObject* result = PyObject_Vectorcall(gradients_class().ptr(), results, 3, nullptr);
        if (!result) throw py::error_already_set();
        return py::reinterpret_steal<py::object>(result);
    }

    Arguments arguments;
    Operand grad_output, x;
    Gradients gradients;

  private:
    /// Whether to compute a gradient into a new array; nothing where an array to write to is given.
    static std::optional<bool> wanted(PyObject* object, const Argument& argument) {
        const std::optional<bool> value = Arguments::truth(object);
        if (!value && !py::isinstance<py::array>(object))
            throw_type_error(argument, "to be True, False or a numpy.ndarray", object);
        return value;
    }

    void read_grad_input() {
        PyObject* object = arguments.raw();
        const Argument argument = arguments.named("grad_input");
        const std::optional<bool> made = wanted(object, argument);
        if (!made)
            grad_input_ = written_array(object, argument, gradients.grad_input);
        else if (*made)
            grad_input_ = empty_like(x, x.view.dtype, gradients.grad_input);
    }

    py::object read_gradient(const char* name, const TensorView& parameter, const std::optional<Shape>& shape,
                             TensorView& view) {
        PyObject* object = arguments.raw();
        const Argument argument = arguments.named(name);
        const std::optional<bool> made = object == Py_None ? parameter.given() : wanted(object, argument);
        if (!made) return written_array(object, argument, view);
        if (!*made) return {};
        if (parameter.given())
            return empty({parameter.shape, static_cast<std::size_t>(parameter.rank)}, parameter.dtype, view);
        if (!shape)
            throw_value_error(argument, "to be an array, or the parameter that has its shape, got True without it");
        return empty(*shape, x.view.dtype, view);
    }

    py::object weight_, bias_, running_mean_, running_var_, grad_sum_;
    py::object grad_input_, grad_weight_, grad_bias_;
    GivenMoments moments_;
    SelectionArrays selection_;
};

py::object normalize_backward(PyObject* const* values, bool selects) {
    Backward call("normalize_backward", values);
    NormalizeBackwardOptions options;
    Grouping sets{call.arguments.axes(call.x.view)};
    call.read_parameters(options);
    options.eps = call.arguments.number("eps");
    options.center = call.arguments.flag("center");
    options.frozen = call.arguments.flag("frozen");
    call.read_tail(options, std::nullopt);
    call.read_selection(selects, sets.selection, options.excluded);
    return call.run(
        [&] { anynorm::normalize_backward(call.grad_output.view, call.x.view, sets, call.gradients, options); });
}

py::object layer_norm_backward(PyObject* const* values, bool selects) {
    Backward call("layer_norm_backward", values);
    LayerNormOptions options;
    PyObject* normalized_shape = call.arguments.raw();
    call.read_parameters(options);
    options.eps = call.arguments.number("eps");
    const Axes axes = call.arguments.trailing_or_named_axes(call.x.view, normalized_shape);
    call.read_tail(options, shape_along(call.x.view, axes));
    call.read_selection(selects, options.selection, options.excluded);
    return call.run(
        [&] { anynorm::layer_norm_backward(call.grad_output.view, call.x.view, axes, call.gradients, options); });
}

py::object rms_norm_backward(PyObject* const* values, bool selects) {
    Backward call("rms_norm_backward", values);
    RmsNormOptions options;
    PyObject* normalized_shape = call.arguments.raw();
    call.read_parameters(options);
    options.eps = call.arguments.optional_number("eps");
    const Axes axes = call.arguments.trailing_or_named_axes(call.x.view, normalized_shape);
    call.read_tail(options, shape_along(call.x.view, axes));
    call.read_selection(selects, options.selection, options.excluded);
    return call.run(
        [&] { anynorm::rms_norm_backward(call.grad_output.view, call.x.view, axes, call.gradients, options); });
}

py::object group_norm_backward(PyObject* const* values, bool selects) {
    Backward call("group_norm_backward", values);
    GroupNormOptions options;
    const std::int64_t num_groups = call.arguments.integer("num_groups");
    call.read_parameters(options);
    options.eps = call.arguments.number("eps");
    options.channel_axis = call.arguments.axis("channel_axis");
    call.read_tail(options, per_channel(call.x.view, options.channel_axis));
    call.read_selection(selects, options.selection, options.excluded);
    return call.run(
        [&] { anynorm::group_norm_backward(call.grad_output.view, call.x.view, num_groups, call.gradients, options); });
}

/// Batch and instance norm, whose forward calls differ in the name of a flag.
template <class Options>
void read_channel_norm(Backward& call, const char* flag, bool Options::* value, Options& options) {
    PyObject* running_mean = call.arguments.raw();
    PyObject* running_var = call.arguments.raw();
    call.read_parameters(options);
    options.*value = call.arguments.flag(flag);
    call.read_running(running_mean, running_var, options.running);
    options.running.momentum = call.arguments.optional_number("momentum");
    options.eps = call.arguments.number("eps");
    options.channel_axis = call.arguments.axis("channel_axis");
    call.read_tail(options, per_channel(call.x.view, options.channel_axis));
}

py::object instance_norm_backward(PyObject* const* values, bool selects) {
    Backward call("instance_norm_backward", values);
    InstanceNormOptions options;
    read_channel_norm(call, "use_input_stats", &InstanceNormOptions::use_input_stats, options);
    call.read_selection(selects, options.selection, options.excluded);
    return call.run(
        [&] { anynorm::instance_norm_backward(call.grad_output.view, call.x.view, call.gradients, options); });
}

py::object batch_norm_backward(PyObject* const* values, bool selects) {
    Backward call("batch_norm_backward", values);
    BatchNormOptions options;
    read_channel_norm(call, "training", &BatchNormOptions::training, options);
    call.read_selection(selects, options.selection, options.excluded);
    return call.run([&] { anynorm::batch_norm_backward(call.grad_output.view, call.x.view, call.gradients, options); });
}

py::object batch_renorm_backward(PyObject* const* values, bool selects) {
    Backward call("batch_renorm_backward", values);
    BatchRenormOptions options;
    PyObject* running_mean = call.arguments.raw();
    PyObject* running_var = call.arguments.raw();
    call.read_parameters(options);
    options.training = call.arguments.flag("training");
    call.read_running(running_mean, running_var, options.running);
    options.running.momentum = call.arguments.optional_number("momentum");
    options.eps = call.arguments.number("eps");
    options.r_max = call.arguments.number("r_max");
    options.d_max = call.arguments.number("d_max");
    options.channel_axis = call.arguments.axis("channel_axis");
    call.read_tail(options, per_channel(call.x.view, options.channel_axis));
    call.read_selection(selects, options.selection, options.excluded);
    return call.run(
        [&] { anynorm::batch_renorm_backward(call.grad_output.view, call.x.view, call.gradients, options); });
}

PyMethodDef methods[] = {
    selecting_method<normalize_backward, 15>(
        "normalize_backward",
        "normalize_backward($module, grad_output, x, axis, weight, bias, eps, center, "
        "frozen, moments, activation, grad_sum, grad_input, "
        "grad_weight, grad_bias, num_threads, "
        "labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    selecting_method<layer_norm_backward, 14>(
        "layer_norm_backward",
        "layer_norm_backward($module, grad_output, x, normalized_shape, weight, bias, eps, "
        "axis, moments, activation, grad_sum, grad_input, "
        "grad_weight, grad_bias, num_threads, "
        "labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    selecting_method<rms_norm_backward, 12>(
        "rms_norm_backward",
        "rms_norm_backward($module, grad_output, x, normalized_shape, weight, eps, axis, "
        "moments, activation, grad_sum, grad_input, "
        "grad_weight, num_threads, "
        "labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    selecting_method<group_norm_backward, 14>(
        "group_norm_backward",
        "group_norm_backward($module, grad_output, x, num_groups, weight, bias, eps, "
        "channel_axis, moments, activation, grad_sum, "
        "grad_input, grad_weight, grad_bias, num_threads, "
        "labels=None, label_count=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    selecting_method<instance_norm_backward, 17>(
        "instance_norm_backward",
        "instance_norm_backward($module, grad_output, x, running_mean, running_var, weight, bias, use_input_stats, "
        "momentum, eps, channel_axis, moments, activation, grad_sum, grad_input, grad_weight, grad_bias, num_threads, "
        "labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    selecting_method<batch_norm_backward, 17>(
        "batch_norm_backward",
        "batch_norm_backward($module, grad_output, x, running_mean, running_var, weight, bias, training, momentum, "
        "eps, channel_axis, moments, activation, grad_sum, grad_input, grad_weight, grad_bias, num_threads, "
        "labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    selecting_method<batch_renorm_backward, 17>(
        "batch_renorm_backward",
        "batch_renorm_backward($module, grad_output, x, running_mean, running_var, weight, bias, training, momentum, "
        "eps, r_max, d_max, channel_axis, moments, grad_input, grad_weight, grad_bias, num_threads, "
        "labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', /)\n--\n\n"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_backward(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace anynorm::python
