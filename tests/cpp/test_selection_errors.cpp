// SPDX-License-Identifier: Apache-2.0
// Every way to call with a selection that does not fit: what is said, and that nothing has been written.
#include <gtest/gtest.h>

#include <cstdint>
#include <ostream>
#include <vector>

#include "anynorm/anynorm.hpp"
#include "refusal.hpp"
#include "support.hpp"

namespace anynorm::test {
namespace {

/// x and y of shape (6, 4), whose rows are in groups.
struct Arrays {
    std::vector<float> x = std::vector<float>(24, 1.5f), y = std::vector<float>(24, 2.5f);
    std::vector<std::int32_t> labels = {0, 1, -1, 2, 1, 0}, offsets = {0, 2, 2, 6};
    bool mask[24] = {true};
    std::vector<double> weights = numbers(24, 1);
    std::vector<double> count = numbers(16, 7.5), mean = numbers(16, 8.5), m2 = numbers(16, 9.5);
    std::vector<float> running = std::vector<float>(4, 5.5f), running_var = std::vector<float>(4, 6.5f);

    TensorView x_view() { return view(x.data(), {6, 4}); }
    TensorView y_view() { return view(y.data(), {6, 4}); }
    TensorView label_view() { return view(labels.data(), {6, 1}); }
    Selection by_label() { return {.labels = label_view(), .num_groups = 3}; }
    Selection by_mask() { return {.where = view(mask, {6, 1})}; }

    friend bool operator==(const Arrays&, const Arrays&) = default;
};

struct Row {
    const char* name;
    const char* message;
    void (*call)(Arrays&);

    friend void PrintTo(const Row& self, std::ostream* out) { *out << self.name; }
};

void run(Arrays& a, const Selection& selection) { normalize(a.x_view(), {{0}, selection}, a.y_view()); }

const Row table[] = {
    {"labels_of_floats", "normalize: expected labels of dtype int32 or int64, got float64",
     [](Arrays& a) { run(a, {.labels = view(a.weights.data(), {6, 1}), .num_groups = 3}); }},
    {"labels_that_do_not_broadcast", "normalize: expected labels of a shape that broadcasts to (6, 4), got (6,)",
     [](Arrays& a) { run(a, {.labels = view(a.labels.data(), {6}), .num_groups = 3}); }},
    {"labels_along_a_kept_axis",
     "normalize: expected labels of length 1 along axis 0, which is not reduced, got (6, 1)",
     [](Arrays& a) { normalize(a.x_view(), {{1}, a.by_label()}, a.y_view()); }},
    {"label_too_large", "moments: expected labels below num_groups=2, got 2",
     [](Arrays& a) { moments(a.x_view(), {{0}, {.labels = a.label_view(), .num_groups = 2}}, {}); }},
    {"num_groups_negative", "moments: expected num_groups of at least 0, got -1",
     [](Arrays& a) { moments(a.x_view(), {{0}, {.labels = a.label_view(), .num_groups = -1}}, {}); }},
    {"labels_and_segments", "normalize: expected labels or segments, got both",
     [](Arrays& a) {
         Selection both = a.by_label();
         both.segments = view(a.offsets.data(), {4});
         run(a, both);
     }},
    {"segments_of_floats", "normalize: expected segments of dtype int32 or int64, got float64",
     [](Arrays& a) { run(a, {.segments = view(a.weights.data(), {4})}); }},
    {"segments_of_no_offset", "normalize: expected segments of shape (groups + 1,) or (groups, 2), got (0,)",
     [](Arrays& a) { run(a, {.segments = view(a.offsets.data(), {0})}); }},
    {"segments_in_threes", "normalize: expected segments of shape (groups + 1,) or (groups, 2), got (1, 3)",
     [](Arrays& a) { run(a, {.segments = view(a.offsets.data(), {1, 3})}); }},
    {"segments_of_a_kept_axis",
     "normalize: expected axis 0 among the reduced axes where there are segments, got a call that keeps it",
     [](Arrays& a) { normalize(a.x_view(), {{1}, {.segments = view(a.offsets.data(), {4})}}, a.y_view()); }},
    {"segments_that_fall",
     "normalize: expected segments that rise from at least 0 to at most 6, the length of axis 0, got 2 after 6",
     [](Arrays& a) {
         const std::int64_t falling[] = {0, 6, 2, 6};
         run(a, {.segments = view(falling, {4})});
     }},
    {"segments_beyond_the_end",
     "normalize: expected segments that rise from at least 0 to at most 6, the length of axis 0, got 7",
     [](Arrays& a) {
         const std::int64_t far[] = {0, 7};
         run(a, {.segments = view(far, {2})});
     }},
    {"segments_negative",
     "normalize: expected segments that rise from at least 0 to at most 6, the length of axis 0, got -1 after 0",
     [](Arrays& a) {
         const std::int64_t before[] = {-1, 7};
         run(a, {.segments = view(before, {2})});
     }},
    {"too_many_positions", "moments: expected fewer than 2^32 positions to select from, got 4294967296",
     [](Arrays& a) {
         const std::int64_t n = std::int64_t{1} << 32;
         moments(view(a.x.data(), {n}, {0}), {{0}, {.where = view(a.mask, {n}, {1})}}, {});
     }},
    {"where_of_bytes", "normalize: expected where of dtype bool, got int8",
     [](Arrays& a) { run(a, {.where = view(reinterpret_cast<std::int8_t*>(a.mask), {6, 1})}); }},
    {"where_that_does_not_broadcast", "normalize: expected where of a shape that broadcasts to (6, 4), got (6,)",
     [](Arrays& a) { run(a, {.where = view(a.mask, {6})}); }},
    {"weights_of_integers", "normalize: expected sample_weight of dtype float32 or float64, got int32",
     [](Arrays& a) { run(a, {.sample_weight = a.label_view()}); }},
    {"weight_negative", "normalize: expected sample_weight that is finite and at least 0, got -2",
     [](Arrays& a) {
         const double weight = -2;
         run(a, {.sample_weight = view(&weight, {})});
     }},
    {"weight_infinite", "normalize: expected sample_weight that is finite and at least 0, got inf",
     [](Arrays& a) {
         const double weight = infinity;
         run(a, {.sample_weight = view(&weight, {})});
     }},
    {"excluded_as_another", "normalize: expected excluded as zero, input or keep, got number 9",
     [](Arrays& a) { normalize(a.x_view(), {{0}, a.by_mask()}, a.y_view(), {.excluded = static_cast<Excluded>(9)}); }},
    {"excluded_input_as_bytes",
     "normalize: expected excluded elements that are zero, or kept, where the output is quantized, got the input",
     [](Arrays& a) {
         NormalizeOptions options;
         options.fusion.scale = 0.1;
         options.excluded = Excluded::input;
         normalize(a.x_view(), {{0}, a.by_mask()}, view(reinterpret_cast<std::int8_t*>(a.y.data()), {6, 4}), options);
     }},
    {"moments_without_groups", "normalize: expected moments.mean with a first axis of length 3, got shape (4,)",
     [](Arrays& a) {
         normalize(a.x_view(), {{0}, a.by_label()}, a.y_view(), {.moments = {{}, view(a.mean.data(), {4}), {}}});
     }},
    {"moments_of_other_lengths", "normalize: expected moments.m2 of shape (4,), got (5,)",
     [](Arrays& a) {
         normalize(a.x_view(), {{0}, a.by_label()}, a.y_view(), {.moments = {{}, {}, view(a.m2.data(), {3, 5})}});
     }},
    {"moments_that_overlap", "moments: expected moments.mean apart from moments.count, got arrays that share memory",
     [](Arrays& a) {
         moments(a.x_view(), {{0}, a.by_label()}, {view(a.count.data(), {3, 4}), view(a.count.data(), {3, 4}), {}});
     }},
    {"mean_low_without_groups", "normalize: expected moments.mean_low with a first axis of length 3, got shape (4,)",
     [](Arrays& a) {
         normalize(a.x_view(), {{0}, a.by_label()}, a.y_view(), {.moments = {.mean_low = view(a.mean.data(), {4})}});
     }},
    {"mean_low_that_overlaps",
     "moments: expected moments.mean_low apart from moments.mean, got arrays that share memory",
     [](Arrays& a) {
         const TensorView mean = view(a.mean.data(), {3, 4});
         moments(a.x_view(), {{0}, a.by_label()}, {.mean = mean, .mean_low = mean});
     }},
    {"given_in_part", "normalize: expected given moments with count, mean and m2, got some of them",
     [](Arrays& a) {
         normalize(a.x_view(), {{0}, a.by_label()}, a.y_view(), {.given = {{}, view(a.mean.data(), {3, 4}), {}}});
     }},
    {"output_over_weights", "normalize: expected output apart from sample_weight, got arrays that share memory",
     [](Arrays& a) { run(a, {.sample_weight = a.y_view()}); }},
    {"running_statistics_of_labels",
     "batch_norm: expected no running statistics where labels or segments split the channels, got some",
     [](Arrays& a) {
         BatchNormOptions options;
         options.running = {view(a.running.data(), {4}), view(a.running_var.data(), {4})};
         options.training = true;
         options.selection = a.by_label();
         batch_norm(a.x_view(), a.y_view(), options);
     }},
    {"running_over_weights", "batch_norm: expected running_mean apart from sample_weight, got arrays that share memory",
     [](Arrays& a) {
         BatchNormOptions options;
         options.running = {view(a.running.data(), {4}), view(a.running_var.data(), {4})};
         options.training = true;
         options.selection.sample_weight = view(a.running.data(), {4});
         batch_norm(a.x_view(), a.y_view(), options);
     }},
};

class SelectionErrors : public testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, SelectionErrors, testing::ValuesIn(table), [](const auto& info) { return info.param.name; });

TEST_P(SelectionErrors, SayWhatAndWriteNothing) { expect_refusal(GetParam().call, GetParam().message); }

}  // namespace
}  // namespace anynorm::test
