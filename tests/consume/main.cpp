// SPDX-License-Identifier: Apache-2.0
// What an embedder's first program looks like. Every way to get at the library builds this file.
#include <anynorm/anynorm.hpp>
#include <cmath>
#include <cstdio>
#include <vector>

int main() {
    const std::vector<float> x = {1, 2, 3, 4, -2, 0, 0, 2};
    const std::vector<float> weight = {1, 2, 3, 4};
    std::vector<float> y(x.size());
    anynorm::layer_norm(anynorm::view(x.data(), {2, 4}), anynorm::view(y.data(), {2, 4}), {-1},
                        {.weight = anynorm::view(weight.data(), {4}), .eps = 0});

    // The rows have mean 2.5 and 0, variance 1.25 and 2.
    const double rstd[2] = {1 / std::sqrt(1.25), 1 / std::sqrt(2.0)};
    const double mean[2] = {2.5, 0};
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double expected =
            (static_cast<double>(x[i]) - mean[i / 4]) * rstd[i / 4] * static_cast<double>(weight[i % 4]);
        worst = std::fmax(worst, std::fabs(static_cast<double>(y[i]) - expected));
    }
    std::printf("anynorm %s, %s, worst error %.1e\n", anynorm::version().data(),
                anynorm::name(anynorm::active_isa()).data(), worst);
    return worst < 1e-6 ? 0 : 1;
}
