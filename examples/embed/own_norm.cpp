// SPDX-License-Identifier: Apache-2.0
// A norm of one's own: the RMS norm of every head of the queries inside a fused query-key-value projection, in place.
#include <anynorm/anynorm.hpp>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

// `qkv` has shape (tokens, 3, heads, dim); only its queries are touched. `weight` has shape (dim), for all heads.
void query_norm(const anynorm::TensorView& qkv, const anynorm::TensorView& weight, double eps) {
    if (qkv.rank != 4)
        throw std::invalid_argument("query_norm: expected qkv of rank 4, got " + std::to_string(qkv.rank));
    anynorm::TensorView queries = qkv;  // qkv[:, 0]: one axis less, and no element moves
    queries.rank = 3;
    for (int axis = 1; axis < 3; ++axis) {
        queries.shape[axis] = qkv.shape[axis + 1];
        queries.strides[axis] = qkv.strides[axis + 1];
    }
    anynorm::normalize(queries, {.reduce = {2}}, queries,
                       {.weight = weight, .eps = eps, .center = false, .caller = "query_norm"});
}

int main() {
    const std::int64_t tokens = 2, heads = 2, dim = 2;
    std::vector<float> qkv = {2, 2, 0, 5, 7, 7, 7, 7, 8, 8, 8, 8,  //
                              1, 7, 6, 6, 7, 7, 7, 7, 8, 8, 8, 8};
    const std::vector<float> weight = {1, 10};

    query_norm(anynorm::view(qkv.data(), {tokens, 3, heads, dim}), anynorm::view(weight.data(), {dim}), 0);
    for (std::size_t i = 0; i < qkv.size(); ++i) {
        std::printf("%.4g%c", static_cast<double>(qkv[i]), i % 12 == 11 ? '\n' : ' ');
    }

    try {
        query_norm(anynorm::view(qkv.data(), {tokens, 3, heads, dim}), anynorm::view(weight.data(), {1, 1, 1, dim}), 0);
    } catch (const std::invalid_argument& error) {
        std::printf("%s\n", error.what());
    }
}
