// SPDX-License-Identifier: Apache-2.0
#include "cases.hpp"

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>

namespace bench {
namespace {

/// What each function takes; all take one of the views, and forward norms may do more besides.
const std::map<std::string, std::set<std::string>> options_of = {
    {"layer_norm", {}},
    {"rms_norm", {}},
    {"batch_norm", {"channel"}},
    {"group_norm", {"channel", "groups"}},
    {"instance_norm", {"channel"}},
    {"moments", {"axis", "labels", "sorted", "segments", "where"}},
    {"normalize", {"axis", "labels", "sorted", "segments", "where"}},
};
constexpr std::int64_t cache_line = 64;  // bytes; a longer step would leave some of them alone

std::int64_t integer(const std::string& text) {
    std::size_t end = 0;
    const std::int64_t value = std::stoll(text, &end);
    if (end != text.size()) throw std::invalid_argument(text);
    return value;
}

std::vector<std::int64_t> integers(const std::string& text, char separator) {
    std::vector<std::int64_t> values;
    std::istringstream stream(text);
    for (std::string word; std::getline(stream, word, separator);) values.push_back(integer(word));
    if (values.empty()) throw std::invalid_argument("no numbers");
    return values;
}

anynorm::DType dtype_named(const std::string& name) {
    using enum anynorm::DType;
    if (name == "f32") return f32;
    if (name == "f64") return f64;
    if (name == "f16") return f16;
    if (name == "bf16") return bf16;
    throw std::invalid_argument(name);
}

bool takes(const Case& each, const std::string& key) {
    if (key == "order" || key == "step" || options_of.at(each.norm()).contains(key)) return true;
    if (key == "training") return each.kind == "batch_norm";
    return each.writes() && !each.backward() && each.kind != "normalize" &&
           (key == "residual" || key == "activation" || key == "result");
}

anynorm::Activation activation_named(const std::string& name) {
    using enum anynorm::Activation;
    for (const anynorm::Activation each : {relu, silu, gelu_tanh})
        if (name == anynorm::name(each)) return each;
    throw std::invalid_argument(name);
}

/// Understands one word such as axis=0,2,3.
void read_option(Case& result, const std::string& key, const std::string& value) {
    if (!takes(result, key)) throw std::invalid_argument(key);
    if (key == "activation") {
        result.activation = activation_named(value);
    } else if (key == "residual" || key == "result") {
        if (value != (key == "result" ? "i8" : "1")) throw std::invalid_argument(value);
        (key == "result" ? result.integers : result.residual) = true;
    } else if (key == "labels" || key == "segments") {
        std::int64_t& groups = key == "labels" ? result.labels : result.segments;
        groups = integer(value);
        if (groups < 1) throw std::invalid_argument(value);
    } else if (key == "where") {
        if (value != "padding" && value != "rows" && value != "elements") throw std::invalid_argument(value);
        result.where = value;
    } else if (key == "sorted") {
        if (value != "1") throw std::invalid_argument(value);
        result.sorted = true;
    } else if (key == "axis") {
        for (const std::int64_t axis : integers(value, ',')) result.axes.push_back(static_cast<int>(axis));
    } else if (key == "channel") {
        result.channel_axis = static_cast<int>(integer(value));
    } else if (key == "training") {
        result.training = integer(value) != 0;
    } else if (key == "groups") {
        result.groups = integer(value);
    } else if (key == "order") {
        if (value != "F") throw std::invalid_argument(value);
        result.fortran_order = true;
    } else {
        result.step = integer(value);
        if (result.step < 2 || result.step > cache_line / static_cast<std::int64_t>(anynorm::size_of(result.dtype)))
            throw std::invalid_argument(value);
    }
}

void resize_shape(Case& result, const Resize& resize) {
    for (std::int64_t& length : result.shape) length = std::min(length, resize.max_length);
    result.groups = std::min(result.groups, resize.max_length);
    const std::size_t bytes = std::max<std::size_t>(result.bytes(), 1);
    result.shape.at(0) *= static_cast<std::int64_t>(std::max<std::size_t>((resize.min_bytes + bytes - 1) / bytes, 1));
}

Case read_case(const std::string& line, const Resize& resize) {
    std::istringstream words(line);
    std::string dtype, shape, told;
    Case result;
    words >> result.kind >> dtype >> shape;
    result.dtype = dtype_named(dtype);
    result.shape = integers(shape, 'x');
    const bool known = options_of.contains(result.norm()) &&
                       !(result.backward() && (result.norm() == "moments" || result.norm() == "normalize"));
    if (!known) throw std::invalid_argument(result.kind);
    const std::int64_t rows = std::min(result.shape.at(0), resize.max_length);
    for (std::string word; words >> word;) {
        const std::size_t equals = word.find('=');
        if (equals == std::string::npos) throw std::invalid_argument(word);
        const std::string key = word.substr(0, equals);
        read_option(result, key, word.substr(equals + 1));
        told += '/';
        if (key == "groups") {
            told += "groups=" + std::to_string(std::min(result.groups, resize.max_length));
        } else if (key == "labels" || key == "segments") {
            std::int64_t& groups = key == "labels" ? result.labels : result.segments;
            groups = std::min(groups, rows);  // so that none is empty
            told += key + "=" + std::to_string(groups);
        } else {
            told += word;
        }
    }
    if (result.fortran_order && result.step > 1) throw std::invalid_argument("order=F and step");
    if ((result.labels > 0) + (result.segments > 0) + !result.where.empty() > 1)
        throw std::invalid_argument("labels, segments and where");
    if (result.axes.empty()) result.axes = {-1};
    // Sets then run over all of x, and none of them is empty.
    if (!result.where.empty() && std::ranges::find(result.axes, 0) == result.axes.end())
        throw std::invalid_argument("where");
    if (result.where == "padding" && result.shape.size() < 3) throw std::invalid_argument("where");
    resize_shape(result, resize);

    result.name = result.kind + "/";
    for (const std::int64_t length : result.shape) result.name += std::to_string(length) + "x";
    result.name.back() = '/';
    result.name += dtype + told;
    return result;
}

}  // namespace

std::int64_t Case::channels() const {
    const int rank = static_cast<int>(shape.size());
    return shape.at(static_cast<std::size_t>(channel_axis < 0 ? channel_axis + rank : channel_axis));
}

std::vector<std::int64_t> Case::strides() const {
    std::vector<std::int64_t> result(shape.size());
    std::int64_t stride = step;
    for (std::size_t i = 0; i < shape.size(); ++i) {
        const std::size_t axis = fortran_order ? i : shape.size() - 1 - i;
        result[axis] = stride;
        stride *= shape[axis];
    }
    return result;
}

std::vector<std::int64_t> Case::mask_shape() const {
    std::vector<std::int64_t> result = shape;
    if (where == "padding") std::fill(result.begin() + 2, result.end(), 1);
    if (where == "rows") result.back() = 1;
    return result;
}

std::size_t Case::set_bytes() const {
    if (labels > 0) return sizeof(std::int64_t) * static_cast<std::size_t>(shape.at(0));
    if (where.empty()) return 0;
    std::size_t product = sizeof(bool);
    for (const std::int64_t length : mask_shape()) product *= static_cast<std::size_t>(length);
    return product;
}

std::size_t Case::bytes() const {
    std::size_t product = anynorm::size_of(dtype) * static_cast<std::size_t>(step);
    for (const std::int64_t length : shape) product *= static_cast<std::size_t>(length);
    return product;
}

std::vector<Case> read_cases(const std::string& path, const Resize& resize) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("shapes: expected a readable file, got " + path);
    std::vector<Case> cases;
    int number = 0;
    for (std::string line; std::getline(file, line);) {
        ++number;
        if (line.empty() || line.front() == '#' || line.front() == '[') continue;
        try {
            Case next = read_case(line, resize);
            const auto known = [&](const Case& other) { return other.name == next.name; };
            if (std::none_of(cases.begin(), cases.end(), known)) cases.push_back(std::move(next));
        } catch (const std::exception&) {
            std::string message = path + ":" + std::to_string(number) + ": expected `kind dtype shape`, ";
            message +=
                "then axis=, labels=, sorted=1, segments= and where=rows of moments and normalize or channel=, groups= "
                "and training= of the norms that have them, ";
            message += "residual=1, activation=gelu_tanh and result=i8 of a norm that does more, ";
            message += "then order=F or step=2; got `" + line + "`";
            throw std::runtime_error(message);
        }
    }
    return cases;
}

}  // namespace bench
