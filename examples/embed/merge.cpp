// SPDX-License-Identifier: Apache-2.0
// Standardizes columns of data that arrives in parts: statistics of all parts first, then every part in place.
#include <anynorm/anynorm.hpp>
#include <array>
#include <cstdio>
#include <vector>

constexpr std::int64_t columns = 2;
using Statistics = std::array<anynorm::Moments, columns>;

// An array of Moments as the four arrays that the library reads and writes.
static_assert(sizeof(anynorm::Moments) == 4 * sizeof(double));
anynorm::MomentsView fields(Statistics& statistics) {
    anynorm::Moments* first = statistics.data();
    return {.count = anynorm::view(&first->count, {columns}, {4}),
            .mean = anynorm::view(&first->mean, {columns}, {4}),
            .m2 = anynorm::view(&first->m2, {columns}, {4}),
            .mean_low = anynorm::view(&first->mean_low, {columns}, {4})};
}

int main() {
    std::vector<std::vector<float>> parts = {{1, 10}, {3, 30, 3, 30}, {1, 10}};

    Statistics total;  // a default-constructed Moments is the empty set
    for (const std::vector<float>& part : parts) {
        const auto rows = static_cast<std::int64_t>(part.size()) / columns;
        Statistics own;
        anynorm::moments(anynorm::view(part.data(), {rows, columns}), {.reduce = {0}}, fields(own));
        for (std::size_t i = 0; i < total.size(); ++i) total[i].merge(own[i]);
    }
    for (const anynorm::Moments& column : total) {
        std::printf("count %g, mean %g, variance %g\n", column.count, column.mean, column.variance());
    }

    for (std::vector<float>& part : parts) {
        const auto rows = static_cast<std::int64_t>(part.size()) / columns;
        const anynorm::TensorView x = anynorm::view(part.data(), {rows, columns});
        anynorm::normalize(x, {.reduce = {0}}, x, {.eps = 0, .given = fields(total)});
    }
    std::printf("first row %g %g, second row %g %g\n", static_cast<double>(parts[0][0]),
                static_cast<double>(parts[0][1]), static_cast<double>(parts[1][0]), static_cast<double>(parts[1][1]));
}
