// SPDX-License-Identifier: Apache-2.0
#include <anynorm/anynorm.hpp>
#include <cstdio>
#include <vector>

int main() {
    // Two rows of four; the library never owns memory, so the vectors are ours.
    const std::vector<float> x = {1, 1, 3, 3, 10, 30, 10, 30};
    const std::vector<float> weight = {1, 1, 1, 2};
    std::vector<float> y(x.size());

    anynorm::layer_norm(anynorm::view(x.data(), {2, 4}), anynorm::view(y.data(), {2, 4}), {-1},
                        {.weight = anynorm::view(weight.data(), {4}), .eps = 0});

    for (std::size_t i = 0; i < y.size(); ++i) std::printf("%g%c", static_cast<double>(y[i]), i % 4 == 3 ? '\n' : ' ');
}
