// SPDX-License-Identifier: Apache-2.0
#include "running.hpp"

#include <stdexcept>

namespace anynorm::python {
namespace {

constexpr const char* nonfinite_names[] = {"warn", "skip", "raise", "propagate"};
constexpr NonFinite nonfinite_values[] = {NonFinite::skip, NonFinite::skip, NonFinite::raise, NonFinite::propagate};
constexpr const char* one_element_names[] = {"raise", "bias"};

std::string message(const char* function, const RunningUpdate& update) {
    const bool one = update.skipped == 1;
    std::string text = std::string(function) + ": the running statistics of channel" + (one ? " " : "s ");
    const std::int64_t named = update.skipped < RunningUpdate::most_named ? update.skipped : RunningUpdate::most_named;
    for (std::int64_t i = 0; i < named; ++i) text += (i ? ", " : "") + std::to_string(update.channels[i]);
    if (named < update.skipped) text += " and " + std::to_string(update.skipped - named) + " more";
    return text + (one ? " stay as they are, because the moments of its batch are not finite"
                       : " stay as they are, because the moments of their batch are not finite");
}

py::object update_running(PyObject* const* values) {
    Arguments arguments("update_running", values);
    RunningStatistics statistics;
    OneElement one_element = OneElement::raise;
    MomentsView moments;
    PyObject* mean = arguments.raw();
    PyObject* var = arguments.raw();
    GivenMoments given;
    given.read(arguments.raw(), arguments.named("moments"), moments);
    Running running(arguments, mean, var, true, statistics);
    running.read_options(one_element);
    running.report(anynorm::update_running(statistics, moments, one_element));
    return py::none();
}

PyMethodDef methods[] = {
    method<update_running, 9>("update_running",
                              "update_running($module, running_mean, running_var, moments, momentum, num_batches, "
                              "correction, pooled, nonfinite, one_element, /)\n--\n\n"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

Running::Running(Arguments& arguments, PyObject* mean, PyObject* var, bool updated, RunningStatistics& view)
    : arguments_(arguments), view_(view), arrays_(arguments.running(mean, var, updated, view)), updated_(updated) {
    view.momentum = arguments.optional_number("momentum");
}

void Running::read_options(OneElement& one_element) {
    read_num_batches(arguments_.raw());
    view_.correction = arguments_.number("correction");
    PyObject* pooled = arguments_.raw();
    if (pooled != Py_None) pooled_.read(pooled, arguments_.named("pooled"), view_.pooled, updated_);
    const int nonfinite = arguments_.choice("nonfinite", nonfinite_names);
    warns_ = nonfinite == 0;
    view_.nonfinite = nonfinite_values[nonfinite];
    one_element = arguments_.choice("one_element", one_element_names) == 0 ? OneElement::raise : OneElement::bias;
}

void Running::read_num_batches(PyObject* object) {
    if (object == Py_None) return;
    num_batches_ = written_counter(object, arguments_.named("num_batches"), updated_, view_.num_batches);
}

void Running::report(const RunningUpdate& update) const {
    if (update.skipped == 0 || !warns_) return;
    const std::string text = message(arguments_.function(), update);
    if (PyErr_WarnEx(PyExc_RuntimeWarning, text.c_str(), 1) != 0) throw py::error_already_set();
}

void add_running(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
    // What the core throws where NonFinite::raise has been asked for, and nowhere else.
    py::register_local_exception_translator([](std::exception_ptr thrown) {
        try {
            if (thrown) std::rethrow_exception(thrown);
        } catch (const std::range_error& error) {
            PyErr_SetString(PyExc_FloatingPointError, error.what());
        }
    });
}

}  // namespace anynorm::python
