// SPDX-License-Identifier: Apache-2.0
// The list of shapes that the C++ and the Python benchmark share.
#pragma once

#include <anynorm/anynorm.hpp>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace bench {

struct Case {
    std::string name;  ///< "group_norm/8x256x64x64/f32/channel=1/groups=32"
    std::string kind;  ///< the name of the function: a norm, the same with _backward, moments or normalize
    anynorm::DType dtype = anynorm::DType::f32;
    std::vector<std::int64_t> shape;
    std::vector<int> axes;  ///< of moments and normalize; layer and RMS norm take the last
    int channel_axis = 1;   ///< of batch, group and instance norm
    std::int64_t groups = 1;
    bool training = true;        ///< of batch norm: statistics of x, not running ones
    bool fortran_order = false;  ///< the first axis is the fastest
    std::int64_t step = 1;       ///< every so many-th element along the last axis of an array that is as much longer
    anynorm::Activation activation = anynorm::Activation::none;
    bool residual = false;      ///< another array is added to x before, and the sum is written as well
    bool integers = false;      ///< y is int8
    std::int64_t labels = 0;    ///< of moments and normalize: rows that share one are a set, 0 without
    bool sorted = false;        ///< of labels: they rise
    std::int64_t segments = 0;  ///< of the same: so many stretches of rows, each a set, 0 without
    std::string where;          ///< of the same: what is used, "padding", "rows" or "elements"; all of it without

    bool backward() const { return kind.ends_with("_backward"); }
    std::string norm() const { return backward() ? kind.substr(0, kind.rfind('_')) : kind; }
    bool writes() const { return kind != "moments"; }

    /// How many arrays of the size of x must be read and written: x, grad_output, the residual; y or grad_input, the
    /// sum.
    int reads() const { return 1 + backward() + residual; }
    double written() const {
        return !writes() ? 0 : residual + (integers ? 1.0 / static_cast<double>(anynorm::size_of(dtype)) : 1);
    }
    /// How many are read again where no cache holds a set: the statistics of batch norm, those by label and those
    /// under a mask are complete when all has been read.
    int reads_again() const {
        if (kind == "normalize") return (labels > 0 && !sorted) || !where.empty() ? 1 : 0;
        return norm() != "batch_norm" || !training ? 0 : backward() ? 2 : 1;
    }

    std::vector<std::int64_t> mask_shape() const;  ///< of the mask, which lies along x
    std::size_t set_bytes() const;                 ///< of what says who is in a set: labels, or a mask

    std::int64_t channels() const;
    std::vector<std::int64_t> strides() const;  ///< of x and y, in elements
    std::size_t bytes() const;                  ///< of the memory of x, gaps included: a pass touches all its lines
};

/// Changes to every shape of the list; cases that become equal are measured once.
struct Resize {
    std::int64_t max_length = std::numeric_limits<std::int64_t>::max();  ///< longer axes are cut, for a quick look
    std::size_t min_bytes = 0;  ///< the first axis is repeated until x has as many, to leave the cache behind
};

/// Reads the list. Throws std::runtime_error that names the line which is not understood.
std::vector<Case> read_cases(const std::string& path, const Resize& resize);

}  // namespace bench
