// SPDX-License-Identifier: Apache-2.0
// What is refused, with which words, and that nothing has been written then.
#include <gtest/gtest.h>

#include <cstring>
#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "anynorm/normalize.hpp"
#include "anynorm/norms.hpp"
#include "refusal.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

/// Every array that a call may take, of which none may change. x is (2, 6, 4).
struct Arrays {
    std::vector<float> x = std::vector<float>(100, 1.5f), y = std::vector<float>(200, 2.5f);
    std::vector<double> weight = numbers(24, 3.5), bias = numbers(24, 4.5);
    std::vector<float> running_mean = std::vector<float>(24, 5.5f), running_var = std::vector<float>(24, 6.5f);
    std::vector<double> count = numbers(48, 7.5), mean = numbers(48, 8.5), m2 = numbers(48, 9.5);
    std::vector<double> mean_low = numbers(48, 1e-17);
    std::vector<float> f32_moments = std::vector<float>(48, 10.5f);

    TensorView x_view() { return view(x.data(), {2, 6, 4}); }
    TensorView y_view() { return view(y.data(), {2, 6, 4}); }
    MomentsView rows() {
        return {view(count.data(), {2, 6}),
                view(mean.data(), {2, 6}),
                view(m2.data(), {2, 6}),
                {},
                view(mean_low.data(), {2, 6})};
    }
    TensorView of_channels(std::vector<double>& values) { return view(values.data(), {6}); }
    TensorView of_channels(std::vector<float>& values) { return view(values.data(), {6}); }
    RunningStatistics running(double momentum = 0.1) {
        return {of_channels(running_mean), of_channels(running_var), momentum};
    }

    friend bool operator==(const Arrays&, const Arrays&) = default;
};

template <class T>
TensorView of_dtype(T* data, DType dtype) {
    TensorView result = view(data, {2, 6, 4});
    result.dtype = dtype;
    return result;
}

TensorView with_rank(TensorView view, int rank) {
    view.rank = rank;
    return view;
}

TensorView with_length(TensorView view, int axis, std::int64_t length) {
    view.shape[axis] = length;
    return view;
}

struct Row {
    const char* name;
    const char* message;
    void (*call)(Arrays&);

    friend void PrintTo(const Row& self, std::ostream* out) { *out << self.name; }
};

const Row table[] = {
    // x
    {"moments_without_x", "moments: expected x of dtype float16, bfloat16, float32 or float64, got none",
     [](Arrays&) { moments({}, {}, {}); }},
    {"moments_of_unknown_dtype", "moments: expected x of dtype float16, bfloat16, float32 or float64, got another",
     [](Arrays& a) { moments(of_dtype(a.x.data(), static_cast<DType>(77)), {}, {}); }},
    {"normalize_without_x", "normalize: expected x of dtype float16, bfloat16, float32 or float64, got none",
     [](Arrays& a) { normalize({}, {}, a.y_view()); }},
    {"rank_too_high", "moments: expected x of a rank from 0 to 16, got 17",
     [](Arrays& a) { moments(with_rank(a.x_view(), 17), {}, {}); }},
    {"rank_negative", "normalize: expected x of a rank from 0 to 16, got -1",
     [](Arrays& a) { normalize(with_rank(a.x_view(), -1), {}, a.y_view()); }},
    {"length_negative", "normalize: expected x with lengths of at least 0, got (2, -6, 4)",
     [](Arrays& a) { normalize(with_length(a.x_view(), 1, -6), {}, a.y_view()); }},
    // axes
    {"axis_too_high", "moments: expected axis from -3 to 2, got 3", [](Arrays& a) { moments(a.x_view(), {{3}}, {}); }},
    {"axis_too_low", "layer_norm: expected axis from -3 to 2, got -4",
     [](Arrays& a) { layer_norm(a.x_view(), a.y_view(), {-4}); }},
    {"axis_twice", "normalize: expected each axis once, got axis 2 twice",
     [](Arrays& a) { normalize(a.x_view(), {{2, -1}}, a.y_view()); }},
    {"axis_of_rank_0", "rms_norm: expected no axis for an array of rank 0, got 0",
     [](Arrays& a) { rms_norm(view(a.x.data(), {}), view(a.y.data(), {}), {0}); }},
    {"channel_axis_too_high", "batch_norm: expected channel_axis from -3 to 2, got 7",
     [](Arrays& a) { batch_norm(a.x_view(), a.y_view(), {.training = true, .channel_axis = 7}); }},
    {"instance_channel_axis_0", "instance_norm: expected channel_axis other than 0, the axis of the samples, got 0",
     [](Arrays& a) { instance_norm(a.x_view(), a.y_view(), {.channel_axis = -3}); }},
    {"group_channel_axis_0", "group_norm: expected channel_axis other than 0, the axis of the samples, got 0",
     [](Arrays& a) { group_norm(a.x_view(), a.y_view(), 2, {.channel_axis = 0}); }},
    // output
    {"without_output", "normalize: expected output of dtype float16, bfloat16, float32 or float64, got none",
     [](Arrays& a) { normalize(a.x_view(), {}, {}); }},
    {"output_of_other_shape", "layer_norm: expected output of shape (2, 6, 4), got (2, 4, 6)",
     [](Arrays& a) { layer_norm(a.x_view(), view(a.y.data(), {2, 4, 6}), {-1}); }},
    {"output_of_other_rank", "group_norm: expected output of shape (2, 6, 4), got (48,)",
     [](Arrays& a) { group_norm(a.x_view(), view(a.y.data(), {48}), 2); }},
    {"output_that_overlaps_itself",
     "normalize: expected output without elements that share memory, got strides that reach one element twice",
     [](Arrays& a) { normalize(a.x_view(), {}, view(a.y.data(), {2, 6, 4}, {0, 4, 1})); }},
    {"output_of_sliding_windows",
     "normalize: expected output without elements that share memory, got strides that reach one element twice",
     [](Arrays& a) { normalize(a.x_view(), {}, view(a.y.data(), {2, 6, 4}, {24, 1, 1})); }},
    {"output_overlaps_x", "normalize: expected output apart from x (or the same array), got arrays that share memory",
     [](Arrays& a) { normalize(a.x_view(), {}, view(a.x.data() + 1, {2, 6, 4})); }},
    {"output_is_x_reversed",
     "normalize: expected output apart from x (or the same array), got arrays that share memory",
     [](Arrays& a) { normalize(a.x_view(), {}, view(a.x.data() + 47, {2, 6, 4}, {-24, -4, -1})); }},
    {"output_overlaps_weight", "normalize: expected output apart from weight, got arrays that share memory",
     [](Arrays& a) { normalize(a.x_view(), {}, a.y_view(), {.weight = view(a.y.data() + 47, {1})}); }},
    {"output_overlaps_bias", "layer_norm: expected output apart from bias, got arrays that share memory",
     [](Arrays& a) { layer_norm(a.x_view(), a.y_view(), {2}, {.bias = view(a.y.data() + 3, {4})}); }},
    {"output_overlaps_given", "batch_norm: expected moments.mean apart from output, got arrays that share memory",
     [](Arrays& a) {
         batch_norm(a.x_view(), a.y_view(), {.running = {view(a.y.data(), {6}), a.of_channels(a.running_var)}});
     }},
    // parameters
    {"weight_that_does_not_broadcast", "normalize: expected weight of a shape that broadcasts to (2, 6, 4), got (6,)",
     [](Arrays& a) { normalize(a.x_view(), {}, a.y_view(), {.weight = a.of_channels(a.weight)}); }},
    {"bias_of_higher_rank", "normalize: expected bias of a shape that broadcasts to (2, 6, 4), got (1, 1, 1, 4)",
     [](Arrays& a) { normalize(a.x_view(), {}, a.y_view(), {.bias = view(a.bias.data(), {1, 1, 1, 4})}); }},
    {"weight_of_unknown_dtype",
     "normalize: expected weight of dtype float16, bfloat16, float32 or float64, got another",
     [](Arrays& a) {
         normalize(a.x_view(), {}, a.y_view(), {.weight = of_dtype(a.weight.data(), static_cast<DType>(77))});
     }},
    {"batch_weight_of_other_length", "batch_norm: expected weight of shape (6,), got (4,)",
     [](Arrays& a) { batch_norm(a.x_view(), a.y_view(), {.weight = view(a.weight.data(), {4}), .training = true}); }},
    {"instance_bias_of_two_axes", "instance_norm: expected bias of shape (6,), got (6, 1)",
     [](Arrays& a) { instance_norm(a.x_view(), a.y_view(), {.bias = view(a.bias.data(), {6, 1})}); }},
    {"group_weight_of_groups", "group_norm: expected weight of shape (6,), got (2,)",
     [](Arrays& a) { group_norm(a.x_view(), a.y_view(), 2, {.weight = view(a.weight.data(), {2})}); }},
    {"layer_weight_of_other_shape", "layer_norm: expected weight of shape (6, 4), got (24,)",
     [](Arrays& a) { layer_norm(a.x_view(), a.y_view(), {2, 1}, {.weight = view(a.weight.data(), {24})}); }},
    {"rms_weight_of_other_length", "rms_norm: expected weight of shape (4,), got (3,)",
     [](Arrays& a) { rms_norm(a.x_view(), a.y_view(), {2}, {.weight = view(a.weight.data(), {3})}); }},
    // numbers
    {"eps_negative", "normalize: expected eps of at least 0, got -0.001",
     [](Arrays& a) { normalize(a.x_view(), {}, a.y_view(), {.eps = -1e-3}); }},
    {"eps_nan", "rms_norm: expected eps of at least 0, got nan",
     [](Arrays& a) { rms_norm(a.x_view(), a.y_view(), {2}, {.eps = nan}); }},
    {"threads_negative", "moments: expected num_threads of at least 0, got -2",
     [](Arrays& a) { moments(a.x_view(), {}, {}, {.num_threads = -2}); }},
    {"threads_negative_in_a_norm", "group_norm: expected num_threads of at least 0, got -1",
     [](Arrays& a) { group_norm(a.x_view(), a.y_view(), 2, {.num_threads = -1}); }},
    {"groups_that_do_not_divide",
     "group_norm: expected num_groups of at least 1 that divides the number of channels, got 6 channels and "
     "num_groups=4",
     [](Arrays& a) { group_norm(a.x_view(), a.y_view(), 4); }},
    {"groups_0",
     "group_norm: expected num_groups of at least 1 that divides the number of channels, got 6 channels and "
     "num_groups=0",
     [](Arrays& a) { group_norm(a.x_view(), a.y_view(), 0); }},
    {"momentum_above_1", "batch_norm: expected momentum from 0 to 1, got 1.5",
     [](Arrays& a) { batch_norm(a.x_view(), a.y_view(), {.running = a.running(1.5), .training = true}); }},
    {"momentum_nan", "instance_norm: expected momentum from 0 to 1, got nan",
     [](Arrays& a) { instance_norm(a.x_view(), a.y_view(), {.running = a.running(nan)}); }},
    // ranks of norms
    {"batch_of_rank_1", "batch_norm: expected x of rank 2 to 16, got 1",
     [](Arrays& a) { batch_norm(view(a.x.data(), {6}), view(a.y.data(), {6}), {.training = true}); }},
    {"instance_of_rank_1", "instance_norm: expected x of rank 2 to 16, got 1",
     [](Arrays& a) { instance_norm(view(a.x.data(), {6}), view(a.y.data(), {6})); }},
    {"group_of_rank_1", "group_norm: expected x of rank 2 to 15, got 1",
     [](Arrays& a) { group_norm(view(a.x.data(), {6}), view(a.y.data(), {6}), 2); }},
    {"group_of_rank_16", "group_norm: expected x of rank 2 to 15, got 16",
     [](Arrays& a) {
         const TensorView x = view(a.x.data(), {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
         group_norm(x, x, 1);
     }},
    // returned moments
    {"moments_of_other_shape", "moments: expected moments.mean of shape (2, 6), got (6, 2)",
     [](Arrays& a) { moments(a.x_view(), {{2}}, {{}, view(a.mean.data(), {6, 2}), {}}); }},
    {"moments_with_axes_of_other_shape", "moments: expected moments.m2 of shape (2, 1, 4), got (2, 6, 4)",
     [](Arrays& a) { moments(a.x_view(), {{1}}, {{}, {}, view(a.m2.data(), {2, 6, 4})}); }},
    {"moments_of_float32", "normalize: expected moments.count of dtype float64, got float32",
     [](Arrays& a) {
         normalize(a.x_view(), {{2}}, a.y_view(), {.moments = {view(a.f32_moments.data(), {2, 6}), {}, {}}});
     }},
    {"moments_overlap_each_other",
     "moments: expected moments.mean apart from moments.count, got arrays that share memory",
     [](Arrays& a) {
         moments(a.x_view(), {{2}}, {view(a.count.data(), {2, 6}), view(a.count.data() + 11, {2, 6}), {}});
     }},
    {"moments_overlap_themselves",
     "moments: expected moments.m2 without elements that share memory, got strides that reach one element twice",
     [](Arrays& a) { moments(a.x_view(), {{2}}, {{}, {}, view(a.m2.data(), {2, 6}, {0, 1})}); }},
    {"moments_overlap_x", "moments: expected moments.mean apart from x, got arrays that share memory",
     [](Arrays& a) { moments(view(a.mean.data(), {4, 6}), {{1}}, {{}, view(a.mean.data() + 20, {4}), {}}); }},
    {"moments_overlap_output", "normalize: expected moments.m2 apart from output, got arrays that share memory",
     [](Arrays& a) {
         normalize(view(a.x.data(), {4, 6}), {{1}}, view(a.m2.data(), {4, 6}),
                   {.moments = {{}, {}, view(a.m2.data(), {4})}});
     }},
    {"moments_overlap_weight", "layer_norm: expected moments.count apart from weight, got arrays that share memory",
     [](Arrays& a) {
         layer_norm(a.x_view(), a.y_view(), {2},
                    {.weight = view(a.count.data(), {4}), .moments = {view(a.count.data(), {2, 6}), {}, {}}});
     }},
    {"moments_overlap_given",
     "normalize: expected moments.mean apart from the given mean, got arrays that share memory",
     [](Arrays& a) {
         const MomentsView given = {view(a.count.data(), {2, 6}), view(a.mean.data(), {2, 6}),
                                    view(a.m2.data(), {2, 6})};
         normalize(a.x_view(), {{2}}, a.y_view(), {.given = given, .moments = {{}, given.mean, {}}});
     }},
    {"mean_low_of_other_shape", "moments: expected moments.mean_low of shape (2, 6), got (6, 2)",
     [](Arrays& a) { moments(a.x_view(), {{2}}, {.mean_low = view(a.mean_low.data(), {6, 2})}); }},
    {"mean_low_of_float32", "moments: expected moments.mean_low of dtype float64, got float32",
     [](Arrays& a) { moments(a.x_view(), {{2}}, {.mean_low = view(a.f32_moments.data(), {2, 6})}); }},
    {"mean_low_overlaps_mean",
     "layer_norm: expected moments.mean_low apart from moments.mean, got arrays that share memory",
     [](Arrays& a) {
         MomentsView views = a.rows();
         views.mean_low = views.mean;
         layer_norm(a.x_view(), a.y_view(), {2}, {.moments = views});
     }},
    {"mean_low_overlaps_given",
     "normalize: expected moments.mean apart from the given mean_low, got arrays that share memory",
     [](Arrays& a) {
         const MomentsView given = a.rows();
         normalize(a.x_view(), {{2}}, a.y_view(), {.given = given, .moments = {.mean = given.mean_low}});
     }},
    // given moments
    {"mean_low_alone", "normalize: expected given moments with count, mean and m2, got some of them",
     [](Arrays& a) { normalize(a.x_view(), {{2}}, a.y_view(), {.given = {.mean_low = a.rows().mean_low}}); }},
    {"given_mean_low_of_other_shape", "normalize: expected moments.mean_low of shape (2, 6), got (12,)",
     [](Arrays& a) {
         MomentsView given = a.rows();
         given.mean_low = view(a.mean_low.data(), {12});
         normalize(a.x_view(), {{2}}, a.y_view(), {.given = given});
     }},
    {"given_mean_low_is_output", "normalize: expected moments.mean_low apart from output, got arrays that share memory",
     [](Arrays& a) {
         MomentsView given = {view(a.count.data(), {4}),
                              view(a.mean.data(), {4}),
                              view(a.m2.data(), {4}),
                              {},
                              view(a.mean_low.data(), {4})};
         normalize(view(a.x.data(), {4, 6}), {{1}}, view(a.mean_low.data(), {4, 6}), {.given = given});
     }},
    {"given_in_part", "normalize: expected given moments with count, mean and m2, got some of them",
     [](Arrays& a) {
         normalize(a.x_view(), {{2}}, a.y_view(),
                   {.given = {{}, view(a.mean.data(), {2, 6}), view(a.m2.data(), {2, 6})}});
     }},
    {"given_of_other_shape", "layer_norm: expected moments.m2 of shape (2, 6), got (12,)",
     [](Arrays& a) {
         layer_norm(a.x_view(), a.y_view(), {2},
                    {.given = {view(a.count.data(), {2, 6}), view(a.mean.data(), {2, 6}), view(a.m2.data(), {12})}});
     }},
    // running statistics
    {"neither_training_nor_statistics",
     "batch_norm: expected running_mean and running_var, whose statistics are used, got none",
     [](Arrays& a) { batch_norm(a.x_view(), a.y_view()); }},
    {"instance_without_statistics",
     "instance_norm: expected running_mean and running_var, whose statistics are used, got none",
     [](Arrays& a) { instance_norm(a.x_view(), a.y_view(), {.use_input_stats = false}); }},
    {"running_mean_only", "batch_norm: expected running mean and variance together, got the mean only",
     [](Arrays& a) { batch_norm(a.x_view(), a.y_view(), {.running = {a.of_channels(a.running_mean), {}}}); }},
    {"running_var_only", "instance_norm: expected running mean and variance together, got the variance only",
     [](Arrays& a) { instance_norm(a.x_view(), a.y_view(), {.running = {{}, a.of_channels(a.running_var)}}); }},
    {"running_of_other_length", "batch_norm: expected running_var of shape (6,), got (4,)",
     [](Arrays& a) {
         batch_norm(a.x_view(), a.y_view(),
                    {.running = {a.of_channels(a.running_mean), view(a.running_var.data(), {4})}, .training = true});
     }},
    {"one_value_per_channel",
     "batch_norm: expected more than one value per channel to train with, got x of shape (1, 6, 1)",
     [](Arrays& a) {
         batch_norm(view(a.x.data(), {1, 6, 1}), view(a.y.data(), {1, 6, 1}),
                    {.running = a.running(), .training = true});
     }},
    {"one_value_per_sample_and_channel",
     "instance_norm: expected more than one value per channel to train with, got x of shape (2, 6, 1)",
     [](Arrays& a) {
         instance_norm(view(a.x.data(), {2, 6, 1}), view(a.y.data(), {2, 6, 1}), {.running = a.running()});
     }},
    {"running_overlap_each_other",
     "batch_norm: expected running_mean apart from running_var, got arrays that share memory",
     [](Arrays& a) {
         batch_norm(
             a.x_view(), a.y_view(),
             {.running = {view(a.running_mean.data(), {6}), view(a.running_mean.data() + 5, {6})}, .training = true});
     }},
    {"running_overlap_themselves",
     "batch_norm: expected running_var without elements that share memory, got strides that reach one element twice",
     [](Arrays& a) {
         batch_norm(
             a.x_view(), a.y_view(),
             {.running = {a.of_channels(a.running_mean), view(a.running_var.data(), {6}, {0})}, .training = true});
     }},
    {"running_overlap_x", "batch_norm: expected running_mean apart from x, got arrays that share memory",
     [](Arrays& a) {
         batch_norm(a.x_view(), a.y_view(),
                    {.running = {view(a.x.data() + 40, {6}), a.of_channels(a.running_var)}, .training = true});
     }},
    {"running_overlap_output", "instance_norm: expected running_var apart from output, got arrays that share memory",
     [](Arrays& a) {
         instance_norm(a.x_view(), a.y_view(), {.running = {a.of_channels(a.running_mean), view(a.y.data(), {6})}});
     }},
    {"running_overlap_weight", "batch_norm: expected running_mean apart from weight, got arrays that share memory",
     [](Arrays& a) {
         batch_norm(a.x_view(), a.y_view(),
                    {.weight = a.of_channels(a.running_mean), .running = a.running(), .training = true});
     }},
    {"running_with_moments_of_other_shape", "batch_norm: expected moments.mean of shape (1, 6, 1), got (2, 6, 4)",
     [](Arrays& a) {
         batch_norm(a.x_view(), a.y_view(),
                    {.running = a.running(), .training = true, .moments = {{}, view(a.mean.data(), {2, 6, 4}), {}}});
     }},
    {"running_with_given_in_part", "batch_norm: expected given moments with count, mean and m2, got some of them",
     [](Arrays& a) {
         batch_norm(a.x_view(), a.y_view(),
                    {.running = a.running(), .training = true, .given = {{}, view(a.mean.data(), {6}), {}}});
     }},
};

class Errors : public testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, Errors, testing::ValuesIn(table), [](const auto& info) { return info.param.name; });

TEST_P(Errors, SayWhatAndWriteNothing) { expect_refusal(GetParam().call, GetParam().message); }

TEST(Caller, BeginsTheMessage) {
    Arrays a;
    try {
        normalize(a.x_view(), {{3}}, a.y_view(), {.caller = "power_norm"});
        FAIL();
    } catch (const std::invalid_argument& error) {
        EXPECT_STREQ(error.what(), "power_norm: expected axis from -3 to 2, got 3");
    }
}

/// What looks like one of the errors, and is not.
TEST(NoError, InPlaceInterleavedAndOneElement) {
    Arrays a;
    EXPECT_NO_THROW(normalize(a.x_view(), {{2}}, a.x_view()));
    EXPECT_NO_THROW(
        normalize(view(a.y.data(), {2, 6, 4}, {48, 8, 2}), {{2}}, view(a.y.data() + 1, {2, 6, 4}, {48, 8, 2})));
    EXPECT_NO_THROW(instance_norm(view(a.x.data(), {2, 6, 1}), view(a.y.data(), {2, 6, 1})));
    EXPECT_NO_THROW(batch_norm(a.x_view(), a.y_view(), {.running = a.running(0)}));
    EXPECT_NO_THROW(normalize(a.x_view(), {}, a.y_view(), {.weight = view(a.x.data(), {1}), .eps = 0}));
    EXPECT_NO_THROW(normalize(a.x_view(), {}, a.y_view(), {.eps = infinity}));
}

}  // namespace
}  // namespace anynorm::test
