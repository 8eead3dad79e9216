// SPDX-License-Identifier: Apache-2.0
// The private module anynorm._core: one add_ function for each file beside this one.
#include "array.hpp"

namespace anynorm::python {

void add_backward(py::module_& module);
void add_batch_renorm(py::module_& module);
void add_fold(py::module_& module);
void add_function(py::module_& module);
void add_lp_normalize(py::module_& module);
void add_memory(py::module_& module);
void add_moments(py::module_& module);
void add_normalize(py::module_& module);
void add_norms(py::module_& module);
void add_running(py::module_& module);
void add_runtime(py::module_& module);

}  // namespace anynorm::python

// No state that calls could change: what is written is written at import or behind call_once, but for an atomic (the
// dtype of bfloat16) and the pool of results, which has a lock.
PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
    using namespace anynorm::python;
    load_numpy();
    add_backward(module);
    add_batch_renorm(module);
    add_fold(module);
    add_function(module);
    add_lp_normalize(module);
    add_memory(module);
    add_moments(module);
    add_normalize(module);
    add_norms(module);
    add_running(module);
    add_runtime(module);
}
