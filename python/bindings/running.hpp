// SPDX-License-Identifier: Apache-2.0
// The arguments of running statistics: num_batches, correction, pooled, nonfinite, one_element.
#pragma once

#include "arguments.hpp"

namespace anynorm::python {

/// What keeps the arrays of running statistics alive for the length of a call, and tells the caller how it went.
class Running {
  public:
    /// Reads running_mean, running_var and momentum, which are written only where the call updates them.
    Running(Arguments& arguments, PyObject* mean, PyObject* var, bool updated, RunningStatistics& view);

    /// Reads the keyword arguments, in the order above.
    void read_options(OneElement& one_element);

    /// Makes a RuntimeWarning of channels that were left unchanged, if the caller asked for one.
    void report(const RunningUpdate& update) const;

  private:
    void read_num_batches(PyObject* object);

    Arguments& arguments_;
    RunningStatistics& view_;
    std::pair<py::object, py::object> arrays_;
    py::object num_batches_;
    GivenMoments pooled_;
    bool updated_, warns_ = false;
};

/// A norm that keeps running statistics: reads the arguments that all of them have, in their order, and makes the call.
template <class Options, class ShapeOfSets>
py::object channel_norm(const char* function, PyObject* const* values, bool selects, const char* flag,
                        bool Options::* trains, const ShapeOfSets& shape_of_sets,
                        RunningUpdate (*norm)(const TensorView&, const TensorView&, const Options&)) {
    Arguments arguments(function, values);
    Options options;
    Operand x;
    x.array = arguments.array("x", x.view);
    PyObject* running_mean = arguments.raw();
    PyObject* running_var = arguments.raw();
    const py::object weight = arguments.optional_array("weight", options.weight);
    const py::object bias = arguments.optional_array("bias", options.bias);
    options.*trains = arguments.flag(flag);
    Running running(arguments, running_mean, running_var, options.*trains, options.running);
    options.eps = arguments.number("eps");
    if constexpr (requires { options.r_max; }) {
        options.r_max = arguments.number("r_max");
        options.d_max = arguments.number("d_max");
    }
    options.channel_axis = arguments.axis("channel_axis");
    running.read_options(options.one_element);
    const Tail tail = arguments.tail(x, options);
    const SelectionArrays arrays = arguments.selection(selects, options.selection, options.excluded);
    RunningUpdate update;
    py::object result = run(
        tail, options, options.selection, [&] { return shape_of_sets(x.view, options.channel_axis); },
        [&] { update = norm(x.view, tail.y.view, options); });
    running.report(update);
    return result;
}

}  // namespace anynorm::python
