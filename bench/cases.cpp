// SPDX-License-Identifier: Apache-2.0
#include "cases.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace bench {
namespace {

std::vector<std::int64_t> integers(const std::string& text, char separator) {
    std::vector<std::int64_t> values;
    std::istringstream stream(text);
    for (std::string word; std::getline(stream, word, separator);) values.push_back(std::stoll(word));
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

/// Understands one word such as axis=0,2,3 and adds it to the name.
void read_option(Case& result, const std::string& word, const Resize& resize) {
    const std::size_t equals = word.find('=');
    const std::string key = word.substr(0, equals);
    const std::vector<std::int64_t> values = integers(word.substr(equals + 1), ',');
    result.name += "/" + word;
    if (key == "axis" && result.kind == "moments") {
        result.axes.assign(values.begin(), values.end());
    } else if (key == "channel") {
        result.channel_axis = static_cast<int>(values.at(0));
    } else if (key == "training" && result.kind == "batch_norm") {
        result.training = values.at(0) != 0;
    } else if (key == "groups") {
        result.groups = std::min(values.at(0), resize.max_length);
        result.name.replace(result.name.rfind('=') + 1, std::string::npos, std::to_string(result.groups));
    } else {
        throw std::invalid_argument(key);
    }
}

Case read_case(const std::string& line, const Resize& resize) {
    std::istringstream words(line);
    std::string dtype, shape;
    Case result;
    words >> result.kind >> dtype >> shape;
    result.dtype = dtype_named(dtype);
    result.shape = integers(shape, 'x');
    result.axes = {-1};

    for (std::int64_t& length : result.shape) length = std::min(length, resize.max_length);
    const std::size_t bytes = std::max<std::size_t>(result.bytes(), 1);
    result.shape.at(0) *= static_cast<std::int64_t>(std::max<std::size_t>((resize.min_bytes + bytes - 1) / bytes, 1));

    result.name = result.kind + "/";
    for (const std::int64_t length : result.shape) result.name += std::to_string(length) + "x";
    result.name.back() = '/';
    result.name += dtype;
    for (std::string word; words >> word;) read_option(result, word, resize);
    return result;
}

}  // namespace

std::int64_t Case::channels() const {
    const int rank = static_cast<int>(shape.size());
    return shape.at(static_cast<std::size_t>(channel_axis < 0 ? channel_axis + rank : channel_axis));
}

std::size_t Case::bytes() const {
    std::size_t product = anynorm::size_of(dtype);
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
            message += "then axis= of moments or channel=, groups= and training= of the norms that have them; got `";
            message += line + "`";
            throw std::runtime_error(message);
        }
    }
    return cases;
}

}  // namespace bench
