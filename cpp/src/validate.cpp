// SPDX-License-Identifier: Apache-2.0
#include "validate.hpp"

#include <charconv>
#include <cmath>
#include <stdexcept>

#include "overlap.hpp"

namespace anynorm::detail {

void fail(const char* caller, const std::string& expected, const std::string& got) {
    throw std::invalid_argument(std::string(caller) + ": expected " + expected + ", got " + got);
}

std::string shape_text(const std::int64_t* shape, int rank) {
    std::string text = "(";
    for (int axis = 0; axis < rank; ++axis) text += (axis > 0 ? ", " : "") + std::to_string(shape[axis]);
    return text + (rank == 1 ? ",)" : ")");
}

std::string number_text(double value) {
    char text[32];
    const auto result = std::to_chars(text, text + sizeof text, value);
    return {text, result.ptr};
}

namespace {

bool is_wide(DType dtype) { return dtype == DType::f32 || dtype == DType::f64; }
bool is_half(DType dtype) { return dtype == DType::f16 || dtype == DType::bf16; }
bool is_integer(DType dtype) { return dtype == DType::i8 || dtype == DType::u8; }

const char* dtype_text(DType dtype) { return dtype > DType::boolean ? "another" : name(dtype); }

}  // namespace

void check_geometry(const char* caller, const char* what, const TensorView& view) {
    if (view.rank < 0 || view.rank > max_rank) {
        fail(caller, std::string(what) + " of a rank from 0 to 16", std::to_string(view.rank));
    }
    for (int axis = 0; axis < view.rank; ++axis) {
        if (view.shape[axis] < 0) fail(caller, std::string(what) + " with lengths of at least 0", shape_text(view));
    }
}

void check_view(const char* caller, const char* what, const TensorView& view) {
    if (!is_wide(view.dtype) && !is_half(view.dtype)) {
        fail(caller, std::string(what) + " of dtype float16, bfloat16, float32 or float64", dtype_text(view.dtype));
    }
    check_geometry(caller, what, view);
}

void check_result(const char* caller, const char* what, const TensorView& view) {
    if (!is_integer(view.dtype)) return check_view(caller, what, view);
    check_geometry(caller, what, view);
}

void check_statistic(const char* caller, const char* what, const TensorView& view) {
    if (!is_wide(view.dtype)) fail(caller, std::string(what) + " of dtype float32 or float64", dtype_text(view.dtype));
    check_geometry(caller, what, view);
}

int check_axis(const char* caller, const char* what, int axis, int rank) {
    if (axis < -rank || axis >= rank) {
        if (rank == 0) fail(caller, std::string("no ") + what + " for an array of rank 0", std::to_string(axis));
        fail(caller, std::string(what) + " from " + std::to_string(-rank) + " to " + std::to_string(rank - 1),
             std::to_string(axis));
    }
    return axis < 0 ? axis + rank : axis;
}

std::uint32_t check_axes(const char* caller, const Axes& axes, int rank) {
    std::uint32_t set = 0;
    for (int i = 0; i < axes.size; ++i) {
        const int axis = check_axis(caller, "axis", axes.values[i], rank);
        if ((set >> axis & 1) != 0) fail(caller, "each axis once", "axis " + std::to_string(axis) + " twice");
        set |= 1u << axis;
    }
    return set;
}

void check_shape(const char* caller, const char* what, const TensorView& view, const std::int64_t* shape, int rank) {
    bool fits = view.rank == rank;
    for (int axis = 0; fits && axis < rank; ++axis) fits = view.shape[axis] == shape[axis];
    if (!fits) fail(caller, std::string(what) + " of shape " + shape_text(shape, rank), shape_text(view));
}

void check_broadcasts(const char* caller, const char* what, const TensorView& view, const TensorView& to) {
    bool fits = view.rank <= to.rank;
    for (int axis = 0; fits && axis < view.rank; ++axis) {
        const std::int64_t n = view.shape[axis];
        fits = n == 1 || n == to.shape[to.rank - view.rank + axis];
    }
    if (!fits) {
        fail(caller, std::string(what) + " of a shape that broadcasts to " + shape_text(to), shape_text(view));
    }
}

void check_eps(const char* caller, double eps) {
    if (!(eps >= 0)) fail(caller, "eps of at least 0", number_text(eps));
}

void check_threads(const char* caller, int num_threads) {
    if (num_threads < 0) fail(caller, "num_threads of at least 0", std::to_string(num_threads));
}

void check_output(const char* caller, const char* what, const TensorView& out) {
    if (overlaps_itself(out)) {
        fail(caller, std::string(what) + " without elements that share memory", "strides that reach one element twice");
    }
}

void check_apart(const char* caller, const char* what, const TensorView& out, const char* other_what,
                 const TensorView& other) {
    if (overlaps(out, other)) {
        fail(caller, std::string(what) + " apart from " + other_what, "arrays that share memory");
    }
}

void check_activation(const char* caller, Activation activation) {
    if (activation > Activation::gelu_tanh) {
        fail(caller, "one of the activations", "number " + std::to_string(static_cast<int>(activation)));
    }
}

void check_residual(const char* caller, const Fusion& fusion, const TensorView& x) {
    if (fusion.residual.given() != fusion.sum.given()) {
        fail(caller, "residual and the sum to write, both or neither",
             fusion.residual.given() ? "residual alone" : "sum alone");
    }
    for (const Named& named : {Named{"residual", fusion.residual}, Named{"sum", fusion.sum}}) {
        if (!named.view.given()) continue;
        check_view(caller, named.what, named.view);
        check_shape(caller, named.what, named.view, x.shape, x.rank);
    }
}

void check_quantization(const char* caller, double scale, int zero_point, DType result) {
    if (!is_integer(result)) {
        if (scale != 0 || zero_point != 0) {
            fail(caller, "an output of dtype int8 or uint8 for a scale and a zero point", name(result));
        }
        return;
    }
    // As a float32 too, or the division would be one by 0.
    if (!(scale > 0) || !std::isfinite(scale) || static_cast<float>(scale) == 0 ||
        !std::isfinite(static_cast<float>(scale))) {
        fail(caller, "a scale above 0, in the range of float32, for an output of dtype " + std::string(name(result)),
             number_text(scale));
    }
    const int least = result == DType::i8 ? -128 : 0;
    if (zero_point < least || zero_point > least + 255) {
        fail(caller,
             "a zero point from " + std::to_string(least) + " to " + std::to_string(least + 255) +
                 " for an output of dtype " + name(result),
             std::to_string(zero_point));
    }
}

void check_statistics(const char* caller, const MomentsView& views, const TensorView& x, std::uint32_t reduced) {
    if (!views.given()) return;
    std::int64_t kept[max_rank], all[max_rank];
    int rank = 0;
    for (int axis = 0; axis < x.rank; ++axis) {
        const bool is_reduced = (reduced >> axis & 1) != 0;
        all[axis] = is_reduced ? 1 : x.shape[axis];
        if (!is_reduced) kept[rank++] = x.shape[axis];
    }
    for (const Named& each : named(views)) {
        if (!each.view.given()) continue;
        check_statistic(caller, each.what, each.view);
        if (each.view.rank == x.rank) {
            check_shape(caller, each.what, each.view, all, x.rank);
        } else {
            check_shape(caller, each.what, each.view, kept, rank);
        }
    }
}

void check_moments_output(const char* caller, const MomentsView& out, const TensorView& x, std::uint32_t reduced) {
    if (!out.given()) return;
    check_statistics(caller, out, x, reduced);
    const auto views = named(out);
    for (const Named& each : views) {
        if (!each.view.given()) continue;
        if (each.view.dtype != DType::f64) {
            fail(caller, std::string(each.what) + " of dtype float64", name(each.view.dtype));
        }
        check_output(caller, each.what, each.view);
        for (const Named* other = views.data(); other < &each; ++other) {
            check_apart(caller, each.what, each.view, other->what, other->view);
        }
    }
}

void check_moments_apart(const char* caller, const MomentsView& out, const char* other_what, const TensorView& other) {
    if (!out.given()) return;
    for (const Named& each : named(out)) check_apart(caller, each.what, each.view, other_what, other);
}

}  // namespace anynorm::detail
