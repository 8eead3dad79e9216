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

}  // namespace anynorm::python
