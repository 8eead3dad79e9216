// SPDX-License-Identifier: Apache-2.0
#include "array.hpp"

#include <algorithm>
#include <atomic>
#include <bit>

#include "memory.hpp"

namespace anynorm::python {
namespace {

using Numpy = py::detail::npy_api;
using DTypeFields = py::detail::PyArrayDescr_Proxy;

// Written once at import, before any other function of this file can be called.
const Numpy* numpy = nullptr;

constexpr const char* dtypes = "float16, bfloat16, float32 or float64";

/// What messages call the element types that an array may have.
const char* names_of(Elements allowed) {
    return allowed == Elements::indices ? "int32 or int64" : allowed == Elements::truths ? "bool" : dtypes;
}

constexpr char foreign_byte_order = PY_LITTLE_ENDIAN ? '>' : '<';

std::string message(const Argument& argument, const std::string& rest) {
    return std::string(argument.function) + ": expected " + argument.name + " " + rest;
}

// What NumPy's own header calls NPY_HALF and NPY_USERDEF.
constexpr int half_type = 23, first_foreign_type = 256;

// The dtype of ml_dtypes.bfloat16, from the first array or argument that has it. NumPy has none of its own, and a
// package that adds one registers it once for the process. It is never given back.
std::atomic<PyObject*> bfloat16{nullptr};

bool is_bfloat16(PyObject* descr) {
    if (descr == bfloat16.load(std::memory_order_acquire)) return true;
    const auto dtype = py::reinterpret_borrow<py::dtype>(descr);
    if (dtype.num() < first_foreign_type || dtype.itemsize() != 2) return false;
    const py::object type = dtype.attr("type");
    if (text(type.attr("__module__").ptr()) != "ml_dtypes" || text(type.attr("__name__").ptr()) != "bfloat16")
        return false;
    PyObject* none = nullptr;
    if (bfloat16.compare_exchange_strong(none, descr, std::memory_order_acq_rel)) Py_INCREF(descr);
    return true;
}

DType dtype_of(PyObject* descr) {
    const auto& dtype = *reinterpret_cast<const DTypeFields*>(descr);
    if (dtype.byteorder == foreign_byte_order) return DType::none;
    switch (dtype.type_num) {
        case Numpy::NPY_FLOAT_:
            return DType::f32;
        case Numpy::NPY_DOUBLE_:
            return DType::f64;
        case half_type:
            return DType::f16;
        case Numpy::NPY_BYTE_:
            return DType::i8;
        case Numpy::NPY_UBYTE_:
            return DType::u8;
        case Numpy::NPY_INT_:
            return DType::i32;
        case Numpy::NPY_LONG_:
            return sizeof(long) == 8 ? DType::i64 : DType::i32;
        case Numpy::NPY_LONGLONG_:
            return DType::i64;
        case Numpy::NPY_BOOL_:
            return DType::boolean;
        default:
            return is_bfloat16(descr) ? DType::bf16 : DType::none;
    }
}

bool has_dtype(Elements allowed, DType dtype) {
    switch (dtype) {
        case DType::f16:
        case DType::bf16:
        case DType::f32:
        case DType::f64:
            return allowed <= Elements::floats_or_bytes;
        case DType::i8:
        case DType::u8:
            return allowed == Elements::floats_or_bytes;
        case DType::i32:
        case DType::i64:
            return allowed == Elements::indices;
        case DType::boolean:
            return allowed == Elements::truths;
        case DType::none:
            break;
    }
    return false;
}

/// A new reference to the dtype of new arrays.
PyObject* descr_of(DType dtype) {
    switch (dtype) {
        case DType::f16:
            return numpy->PyArray_DescrFromType_(half_type);
        case DType::f32:
            return numpy->PyArray_DescrFromType_(Numpy::NPY_FLOAT_);
        case DType::f64:
            return numpy->PyArray_DescrFromType_(Numpy::NPY_DOUBLE_);
        case DType::i8:
            return numpy->PyArray_DescrFromType_(Numpy::NPY_BYTE_);
        case DType::u8:
            return numpy->PyArray_DescrFromType_(Numpy::NPY_UBYTE_);
        default:
            return Py_NewRef(bfloat16.load(std::memory_order_acquire));  // somebody has named it in this call
    }
}

// Subclasses are read as the ndarray that they are, except masked arrays: their data has values that do not count.
void refuse_mask(PyObject* array, const Argument& argument) {
    const py::object masked = py::module_::import("numpy.ma").attr("MaskedArray");
    if (py::isinstance(array, masked))
        throw py::type_error(std::string(argument.function) +
                             ": expected an array without a mask, got numpy.ma.MaskedArray; "
                             "use .filled() or .compressed() of " +
                             argument.name);
}

void show(PyObject* object, const Argument& argument, TensorView& view, Elements allowed) {
    const ArrayFields& array = fields(object);
    view.dtype = dtype_of(array.descr);
    if (!has_dtype(allowed, view.dtype))
        throw py::type_error(message(argument, std::string("of dtype ") + names_of(allowed) + ", got ") +
                             text(array.descr));
    if (array.nd > max_rank) throw_value_error(argument, "of at most 16 axes, got " + std::to_string(array.nd));
    const auto item = static_cast<std::int64_t>(size_of(view.dtype));
    const int shift = std::countr_zero(static_cast<std::uint64_t>(item));  // a division takes 5 ns, for every axis
    view.data = array.data;
    view.rank = array.nd;
    for (int axis = 0; axis < array.nd; ++axis) {
        view.shape[axis] = array.dimensions[axis];
        // NumPy leaves any number at all as the stride of an axis that nobody steps along.
        view.strides[axis] = 0;
        if (array.dimensions[axis] <= 1) continue;
        if (array.strides[axis] & (item - 1))
            throw_value_error(argument, "with strides that are multiples of the item size " + std::to_string(item) +
                                            ", got " + std::to_string(array.strides[axis]) + " for axis " +
                                            std::to_string(axis) + "; use .copy()");
        view.strides[axis] = array.strides[axis] >> shift;
    }
    if (!(array.flags & Numpy::NPY_ARRAY_ALIGNED_))
        throw_value_error(argument, "at an address that is a multiple of " + std::to_string(item) +
                                        ", got misaligned memory; use .copy()");
}

// `strides` in bytes, or nullptr for C order; `fortran` is then the other choice.
py::object allocate(int rank, const py::ssize_t* shape, const py::ssize_t* strides, bool fortran, DType dtype,
                    TensorView& view) {
    std::size_t bytes = size_of(dtype);
    for (int axis = 0; axis < rank; ++axis) bytes *= static_cast<std::size_t>(shape[axis]);
    const FromPool from_pool(bytes);
    PyObject* array = numpy->PyArray_NewFromDescr_(numpy->PyArray_Type_, descr_of(dtype), rank, shape, strides, nullptr,
                                                   fortran ? Numpy::NPY_ARRAY_F_CONTIGUOUS_ : 0, nullptr);
    if (!array) throw py::error_already_set();
    auto owner = py::reinterpret_steal<py::object>(array);
    show(array, {"", "a new array"}, view, Elements::floats_or_bytes);
    return owner;
}

}  // namespace

void load_numpy() { numpy = &Numpy::get(); }

void throw_type_error(const Argument& argument, const std::string& rest, PyObject* got) {
    throw py::type_error(message(argument, rest) + ", got " + Py_TYPE(got)->tp_name);
}

void clear_type_error() {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
    PyErr_Clear();
}

void throw_value_error(const Argument& argument, const std::string& rest) {
    throw std::invalid_argument(message(argument, rest));
}

std::string text(PyObject* object) {
    const auto string = py::reinterpret_steal<py::object>(PyObject_Str(object));
    if (!string) throw py::error_already_set();
    return string.cast<std::string>();
}

std::string shape_text(const TensorView& x) {
    std::string result = "(";
    for (int axis = 0; axis < x.rank; ++axis) result += (axis ? ", " : "") + std::to_string(x.shape[axis]);
    return result + (x.rank == 1 ? ",)" : ")");
}

bool is_ndarray(PyObject* object) { return Py_TYPE(object) == numpy->PyArray_Type_; }

py::object read_array(PyObject* object, const Argument& argument, TensorView& view, Elements allowed) {
    auto array = py::reinterpret_borrow<py::object>(object);
    if (Py_TYPE(object) != numpy->PyArray_Type_) {
        if (numpy->PyArray_Check_(object)) {
            refuse_mask(object, argument);
        } else {
            if (object == Py_None) throw_type_error(argument, "to be an array", object);
            PyObject* made = numpy->PyArray_FromAny_(object, nullptr, 0, 0, Numpy::NPY_ARRAY_ENSUREARRAY_, nullptr);
            if (!made) throw py::error_already_set();
            array = py::reinterpret_steal<py::object>(made);
        }
    }
    show(array.ptr(), argument, view, allowed);
    return array;
}

py::object read_optional(PyObject* object, const Argument& argument, TensorView& view, Elements allowed) {
    return object == Py_None ? py::object() : read_array(object, argument, view, allowed);
}

void refuse_half(const Argument& argument, const TensorView& view) {
    if (view.dtype == DType::f16 || view.dtype == DType::bf16)
        throw py::type_error(message(argument, std::string("of dtype float32 or float64, got ") + name(view.dtype)));
}

py::object written_array(PyObject* object, const Argument& argument, TensorView& view, Elements allowed) {
    if (!numpy->PyArray_Check_(object)) throw_type_error(argument, "of type numpy.ndarray", object);
    if (Py_TYPE(object) != numpy->PyArray_Type_) refuse_mask(object, argument);
    if (!(fields(object).flags & Numpy::NPY_ARRAY_WRITEABLE_))
        throw_value_error(argument, "to be writeable, got a read-only array");
    show(object, argument, view, allowed);
    return py::reinterpret_borrow<py::object>(object);
}

py::object written_counter(PyObject* object, const Argument& argument, bool written, std::int64_t*& value) {
    if (!numpy->PyArray_Check_(object)) throw_type_error(argument, "of type numpy.ndarray", object);
    if (Py_TYPE(object) != numpy->PyArray_Type_) refuse_mask(object, argument);
    const ArrayFields& array = fields(object);
    const auto dtype = py::reinterpret_borrow<py::dtype>(array.descr);
    if (dtype.kind() != 'i' || dtype.itemsize() != 8 || dtype.byteorder() == foreign_byte_order)
        throw py::type_error(message(argument, "of dtype int64, got ") + text(array.descr));
    py::ssize_t size = 1;
    for (int axis = 0; axis < array.nd; ++axis) size *= array.dimensions[axis];
    if (size != 1) throw_value_error(argument, "of one element, got " + std::to_string(size));
    if (written && !(array.flags & Numpy::NPY_ARRAY_WRITEABLE_))
        throw_value_error(argument, "to be writeable, got a read-only array");
    if (!(array.flags & Numpy::NPY_ARRAY_ALIGNED_))
        throw_value_error(argument, "at an address that is a multiple of 8, got misaligned memory; use .copy()");
    value = reinterpret_cast<std::int64_t*>(array.data);
    return py::reinterpret_borrow<py::object>(object);
}

bool is_array_like(PyObject* object) {
    return py::isinstance<py::array>(object) ? py::reinterpret_borrow<py::array>(object).ndim() > 0
                                             : PyList_Check(object) || PyTuple_Check(object);
}

py::object read_zero_points(PyObject* object, const Argument& argument, DType result, TensorView& view) {
    if (result != DType::i8 && result != DType::u8)
        throw_value_error(argument, std::string("with a result of dtype int8 or uint8, got ") + name(result));
    if (is_array_like(object) && py::isinstance<py::array>(object))
        return read_array(object, argument, view, Elements::floats_or_bytes);
    const py::object given = py::module_::import("numpy").attr("asarray")(py::handle(object));
    const std::string kind = py::str(given.attr("dtype").attr("kind"));
    if (kind != "i" && kind != "u") throw_type_error(argument, "to be an int or an array of them", object);
    const std::int64_t least = result == DType::i8 ? -128 : 0;
    if (given.attr("min")().cast<std::int64_t>() < least || given.attr("max")().cast<std::int64_t>() > least + 255)
        throw_value_error(argument, std::string("of values of ") + name(result) + ", got " + text(object));
    return read_array(py::object(given.attr("astype")(name(result))).ptr(), argument, view, Elements::floats_or_bytes);
}

DType read_dtype(PyObject* object, const Argument& argument) {
    // NumPy knows this name once ml_dtypes has been imported.
    if (PyUnicode_Check(object) && PyUnicode_CompareWithASCIIString(object, "bfloat16") == 0) {
        PyObject* package = PyImport_ImportModule("ml_dtypes");
        if (!package) {
            if (!PyErr_ExceptionMatches(PyExc_ImportError)) throw py::error_already_set();
            PyErr_Clear();
            throw py::import_error(
                message(argument, "bfloat16 with the package ml_dtypes installed, which defines it"));
        }
        Py_DECREF(package);
    }
    PyObject* descr = nullptr;
    if (!numpy->PyArray_DescrConverter_(object, &descr)) {
        clear_type_error();
        throw py::type_error(message(argument, std::string(dtypes) + ", got ") + text(object));
    }
    const auto owner = py::reinterpret_steal<py::object>(descr);
    const DType dtype = dtype_of(descr);
    if (!has_dtype(Elements::floats_or_bytes, dtype))
        throw py::type_error(message(argument, std::string(dtypes) + ", got ") + text(descr));
    return dtype;
}

py::object empty(std::span<const std::int64_t> shape, DType dtype, TensorView& view) {
    py::ssize_t lengths[max_rank];
    std::copy(shape.begin(), shape.end(), lengths);
    return allocate(static_cast<int>(shape.size()), lengths, nullptr, false, dtype, view);
}

py::object empty_like(const Operand& x, DType dtype, TensorView& view) {
    const ArrayFields& like = fields(x.array.ptr());
    const int rank = like.nd;
    const bool c_order = like.flags & Numpy::NPY_ARRAY_C_CONTIGUOUS_;
    const bool f_order = like.flags & Numpy::NPY_ARRAY_F_CONTIGUOUS_;
    // Arrays without elements and with one axis are in C order however they are strided.
    if (c_order || f_order || rank < 2 || x.view.size() == 0)
        return allocate(rank, like.dimensions, nullptr, f_order && !c_order, dtype, view);

    int order[max_rank];
    for (int axis = 0; axis < rank; ++axis) order[axis] = axis;
    const auto step = [&](int axis) { return like.strides[axis] < 0 ? -like.strides[axis] : like.strides[axis]; };
    std::stable_sort(order, order + rank, [&](int a, int b) { return step(a) > step(b); });
    py::ssize_t strides[max_rank];
    auto stride = static_cast<py::ssize_t>(size_of(dtype));
    for (int i = rank - 1; i >= 0; --i) {
        strides[order[i]] = stride;
        stride *= like.dimensions[order[i]];
    }
    return allocate(rank, like.dimensions, strides, false, dtype, view);
}

}  // namespace anynorm::python
