// SPDX-License-Identifier: Apache-2.0
#include "running.hpp"

namespace anynorm::python {
namespace {

py::object batch_renorm(PyObject* const* values, bool selects) {
    return channel_norm("batch_renorm", values, selects, "training", &BatchRenormOptions::training, per_channel,
                        anynorm::batch_renorm);
}

PyMethodDef methods[] = {
    selecting_method<batch_renorm, 21>(
        "batch_renorm",
        "batch_renorm($module, x, running_mean, running_var, weight, bias, training, momentum, eps, r_max, d_max, "
        "channel_axis, num_batches, correction, pooled, nonfinite, one_element, moments, out, dtype, return_moments, "
        "num_threads, labels=None, num_groups=0, segments=None, where=None, sample_weight=None, excluded='zero', "
        "/)\n--\n\n"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_batch_renorm(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace anynorm::python
