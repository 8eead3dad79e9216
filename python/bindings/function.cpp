// SPDX-License-Identifier: Apache-2.0
// anynorm._core.Function: a Python function whose body is one call of this module, called without a frame of its own.
//
// The Python function keeps what it is good at: the signature, the documentation, the types, and the errors of a call
// that does not fit the signature. Only matching arguments to parameters is done here, in a quarter of the time: of
// 0.5 us for a row of 64 it was a third. A call with more than the compiled function takes, which are its parameters
// after those, with a pattern in the place of an axis, or with an x that is no plain ndarray (a masked array, a table,
// a list), runs the body; but for patterns that the body has met before.
#include "patterns.hpp"

// After Python.h, which it needs.
#include <structmember.h>

#include <algorithm>
#include <utility>

namespace anynorm::python {

namespace py = pybind11;

namespace {

constexpr Py_ssize_t most_parameters = 32;

struct Function {
    PyObject_HEAD vectorcallfunc vectorcall;
    PyObject *function, *compiled, *name, *dict, *weakrefs;
    Py_ssize_t count, positional;
    PatternPlaces places;
    PyObject* names[most_parameters];
    PyObject* defaults[most_parameters];  // nullptr where there is none
};

Function& self_of(PyObject* object) { return *reinterpret_cast<Function*>(object); }

// Keywords are interned wherever they are written out, so that the same name is the same object.
Py_ssize_t index_of(const Function& self, PyObject* name) {
    for (Py_ssize_t i = 0; i < self.count; ++i) {
        if (self.names[i] == name) return i;
    }
    for (Py_ssize_t i = 0; i < self.count; ++i) {
        if (PyUnicode_Compare(self.names[i], name) == 0) return i;
    }
    return -1;
}

/// Whether the arguments fit the parameters; `values` has them in order then, and `rest` what comes with a pattern.
bool match(const Function& self, PyObject* const* arguments, Py_ssize_t given, PyObject* keywords, PyObject** values,
           PatternKeywords& rest) {
    if (given > self.positional) return false;
    std::copy_n(arguments, given, values);
    std::copy(self.defaults + given, self.defaults + self.count, values + given);
    const Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;
    for (Py_ssize_t i = 0; i < named; ++i) {
        PyObject *const name = PyTuple_GET_ITEM(keywords, i), *const value = arguments[given + i];
        const Py_ssize_t index = index_of(self, name);
        if (index < 0 ? self.places.axis < 0 || !rest.add(name, value) : index < given) return false;
        if (index >= 0) values[index] = value;
    }
    return std::find(values + given, values + self.count, nullptr) == values + self.count;
}

PyObject* call_compiled(const Function& self, PyObject* const* values) {
    const auto compiled = reinterpret_cast<PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t)>(
        reinterpret_cast<void (*)()>(PyCFunction_GET_FUNCTION(self.compiled)));
    return compiled(PyCFunction_GET_SELF(self.compiled), values, self.count);
}

PyObject* call(PyObject* object, PyObject* const* arguments, std::size_t count, PyObject* keywords) {
    const Function& self = self_of(object);
    PyObject* values[most_parameters];
    PatternKeywords rest;
    if (match(self, arguments, PyVectorcall_NARGS(count), keywords, values, rest) &&
        (self.places.x < 0 || is_ndarray(values[self.places.x]))) {
        const bool is_pattern =
            self.places.axis >= 0 && self.places.x >= 0 && PyUnicode_Check(values[self.places.axis]);
        if (!is_pattern && !rest.any()) return call_compiled(self, values);
        try {
            PatternCall pattern;
            if (is_pattern && pattern.arrange(self.name, self.places, rest, values)) {
                auto result = py::reinterpret_steal<py::object>(call_compiled(self, values));
                return pattern.whole(std::move(result)).release().ptr();
            }
        } catch (py::error_already_set& error) {
            error.restore();
            return nullptr;
        }
    }
    return PyObject_Vectorcall(self.function, arguments, count, keywords);
}

/// `count` parameters are the compiled function's; those after them have defaults, and are the body's to read.
void read_signature(Function& self, Py_ssize_t count) {
    const py::handle function(self.function);
    const py::object code = function.attr("__code__"), defaults = function.attr("__defaults__"),
                     named_defaults = function.attr("__kwdefaults__");
    const py::tuple names = code.attr("co_varnames");
    self.positional = code.attr("co_argcount").cast<Py_ssize_t>();
    const Py_ssize_t parameters = self.positional + code.attr("co_kwonlyargcount").cast<Py_ssize_t>();
    if (count < self.positional || count > std::min(parameters, most_parameters))
        throw py::value_error("Function: expected a count of at most 32 parameters, with all positional ones");
    self.count = count;
    self.places = {};
    for (Py_ssize_t i = 0; i < self.count; ++i) {
        self.names[i] = Py_NewRef(PyTuple_GET_ITEM(names.ptr(), i));
        if (Py_ssize_t* const place = self.places.named(self.names[i])) *place = i;
        PyObject* value = nullptr;
        if (i >= self.positional) {
            if (!named_defaults.is_none()) value = PyDict_GetItemWithError(named_defaults.ptr(), self.names[i]);
        } else if (!defaults.is_none()) {
            const Py_ssize_t place = i - (self.positional - PyTuple_GET_SIZE(defaults.ptr()));
            if (place >= 0) value = PyTuple_GET_ITEM(defaults.ptr(), place);
        }
        self.defaults[i] = Py_XNewRef(value);
    }
}

PyObject* create(PyTypeObject* type, PyObject* arguments, PyObject* keywords) {
    static const char* const names[] = {"function", "compiled", "count", nullptr};
    PyObject *function = nullptr, *compiled = nullptr;
    Py_ssize_t number = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!O!n:Function", const_cast<char**>(names), &PyFunction_Type,
                                     &function, &PyCFunction_Type, &compiled, &number))
        return nullptr;
    PyObject* const object = type->tp_alloc(type, 0);
    if (!object) return nullptr;
    Function& self = self_of(object);
    self.vectorcall = call;
    self.function = Py_NewRef(function);
    self.compiled = Py_NewRef(compiled);
    try {
        self.name = py::object(py::handle(function).attr("__name__")).release().ptr();
        read_signature(self, number);
    } catch (...) {
        py::detail::try_translate_exceptions();
        Py_DECREF(object);
        return nullptr;
    }
    return object;
}

int traverse(PyObject* object, visitproc visit, void* arg) {
    const Function& self = self_of(object);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self.function);
    Py_VISIT(self.compiled);
    Py_VISIT(self.dict);
    for (PyObject* value : self.defaults) Py_VISIT(value);
    return 0;
}

void destroy(PyObject* object) {
    Function& self = self_of(object);
    PyTypeObject* const type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self.weakrefs) PyObject_ClearWeakRefs(object);
    for (PyObject** each : {&self.function, &self.compiled, &self.name, &self.dict}) Py_CLEAR(*each);
    for (PyObject*& name : self.names) Py_CLEAR(name);
    for (PyObject*& value : self.defaults) Py_CLEAR(value);
    type->tp_free(object);
    Py_DECREF(type);
}

/// A method where it is an attribute of a class, as any function.
PyObject* bind(PyObject* object, PyObject* instance, PyObject*) {
    return instance && instance != Py_None ? PyMethod_New(object, instance) : Py_NewRef(object);
}

PyObject* represent(PyObject* object) { return PyObject_Repr(self_of(object).function); }

/// Pickled by name, as any function.
PyObject* reduce(PyObject* object, PyObject*) {
    return PyObject_GetAttrString(self_of(object).function, "__qualname__");
}

PyMethodDef methods[] = {{"__reduce__", reduce, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};

PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Function, vectorcall), READONLY, nullptr},
    {"__dictoffset__", T_PYSSIZET, offsetof(Function, dict), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Function, weakrefs), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyGetSetDef attributes[] = {{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
                            {nullptr, nullptr, nullptr, nullptr, nullptr}};

template <class Slot>
void* slot(Slot function) {
    return reinterpret_cast<void*>(function);
}

}  // namespace

void add_function(py::module_& module) {
    PyType_Slot slots[] = {{Py_tp_new, slot(create)},        {Py_tp_dealloc, slot(destroy)},
                           {Py_tp_traverse, slot(traverse)}, {Py_tp_call, slot(PyVectorcall_Call)},
                           {Py_tp_descr_get, slot(bind)},    {Py_tp_repr, slot(represent)},
                           {Py_tp_methods, methods},         {Py_tp_members, members},
                           {Py_tp_getset, attributes},       {0, nullptr}};
    PyType_Spec spec = {"anynorm._core.Function", static_cast<int>(sizeof(Function)), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL, slots};
    const auto type = py::reinterpret_steal<py::object>(PyType_FromSpec(&spec));
    if (!type || PyModule_AddObjectRef(module.ptr(), "Function", type.ptr()) != 0) throw py::error_already_set();
    module.attr("known_patterns") = known_patterns();
}

}  // namespace anynorm::python
