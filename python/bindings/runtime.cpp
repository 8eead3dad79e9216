// SPDX-License-Identifier: Apache-2.0
#include "anynorm/runtime.hpp"

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

namespace anynorm::python {

namespace py = pybind11;

namespace {

py::str to_str(Isa isa) { return py::str(std::string(name(isa))); }

py::tuple available() {
    const auto isas = available_isas();
    py::tuple names(isas.size());
    for (std::size_t i = 0; i < isas.size(); ++i) names[i] = to_str(isas[i]);
    return names;
}

void use(py::handle object) {
    if (!py::isinstance<py::str>(object))
        throw py::type_error(std::string("use_isa: expected name of type str, got ") + Py_TYPE(object.ptr())->tp_name);
    const auto wanted = object.cast<std::string>();
    std::string known;
    for (const Isa isa : available_isas()) {
        if (name(isa) == wanted) return use_isa(isa);
        known += (known.empty() ? "" : ", ") + std::string(name(isa));
    }
    throw std::invalid_argument("use_isa: expected one of " + known + ", got " + wanted);
}

/// How this module was compiled, for reports of errors; python/CMakeLists.txt fills it in.
py::dict build() {
    py::dict facts;
    facts["compiler"] = ANYNORM_BUILD_COMPILER;
    facts["type"] = ANYNORM_BUILD_TYPE;
    facts["flags"] = ANYNORM_BUILD_FLAGS;
    facts["kernels"] = ANYNORM_BUILD_KERNELS;
    facts["openmp"] = ANYNORM_BUILD_OPENMP;
    return facts;
}

}  // namespace

void add_runtime(py::module_& module) {
    module.attr("__version__") = std::string(version());
    module.attr("build") = build();
    module.def("available_isas", &available);
    module.def("active_isa", [] { return to_str(active_isa()); });
    module.def("use_isa", &use, py::arg("name"), py::pos_only());
    module.def("max_threads", &max_threads);
}

}  // namespace anynorm::python
