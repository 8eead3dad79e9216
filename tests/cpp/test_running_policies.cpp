// SPDX-License-Identifier: Apache-2.0
// Running statistics beyond PyTorch's defaults: cumulative averages, corrections, exact pooled moments, and what
// becomes of batches with values that are not finite or with one element. See test_running_statistics.cpp for the
// defaults.
#include <gtest/gtest.h>

#include <array>
#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "anynorm/norms.hpp"
#include "oracle.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

constexpr std::int64_t channels = 12;

enum class Which : std::uint8_t { batch, instance };
void PrintTo(Which which, std::ostream* out) { *out << (which == Which::batch ? "batch" : "instance"); }

/// Values of samples, channels and places, whose means are far apart from batch to batch.
std::vector<float> batch_values(std::int64_t samples, std::int64_t places, std::uint64_t seed) {
    Random random(seed);
    std::vector<float> values;
    for (std::int64_t i = 0; i < samples * channels * places; ++i) {
        values.push_back(static_cast<float>(random.unit() + 100.0 * static_cast<double>(seed)));
    }
    return values;
}

/// A channel's statistics, of all kinds that there are.
struct State {
    std::vector<double> mean = numbers(channels, 0.25), var = numbers(channels, 1.5);
    std::array<Moments, channels> pooled{};
    std::int64_t num_batches = 0;

    /// Strided views, as an array of Moments is.
    MomentsView pooled_view() {
        return {.count = view(&pooled[0].count, {channels}, {4}),
                .mean = view(&pooled[0].mean, {channels}, {4}),
                .m2 = view(&pooled[0].m2, {channels}, {4}),
                .mean_low = view(&pooled[0].mean_low, {channels}, {4})};
    }
    RunningStatistics running(std::optional<double> momentum = 0.1) {
        return {.mean = view(mean.data(), {channels}),
                .var = view(var.data(), {channels}),
                .momentum = momentum,
                .num_batches = &num_batches,
                .pooled = pooled_view()};
    }
    /// All numbers but num_batches, a channel after the other.
    std::vector<double> numbers_of(std::int64_t channel) const {
        const Moments& set = at(pooled, channel);
        return {at(mean, channel), at(var, channel), set.count, set.mean, set.m2, set.mean_low};
    }
    std::vector<double> all_numbers() const {
        std::vector<double> result = {static_cast<double>(num_batches)};
        for (std::int64_t channel = 0; channel < channels; ++channel) {
            for (double number : numbers_of(channel)) result.push_back(number);
        }
        return result;
    }
};

RunningUpdate train(Which which, std::vector<float>& values, std::int64_t samples, const RunningStatistics& running,
                    OneElement one_element = OneElement::raise, std::vector<float>* result = nullptr) {
    const std::int64_t places = length(values) / samples / channels;
    std::vector<float> y(values.size());
    const TensorView x_view = view(values.data(), {samples, channels, places}),
                     y_view = view(y.data(), {samples, channels, places});
    const RunningUpdate update =
        which == Which::batch
            ? batch_norm(x_view, y_view, {.running = running, .training = true, .one_element = one_element})
            : instance_norm(x_view, y_view, {.running = running, .one_element = one_element});
    if (result) *result = y;
    return update;
}

/// The definition: the average over samples of the batch's mean and variance for one channel.
std::pair<double, double> exact_batch(Which which, const std::vector<float>& values, std::int64_t samples,
                                      std::int64_t channel, double correction) {
    const Shape shape = {samples, channels, length(values) / samples / channels};
    const std::vector<int> axes = which == Which::batch ? std::vector<int>{0, 2} : std::vector<int>{2};
    const auto sets = exact_moments(values, sets_of(shape, axes));
    const std::int64_t count = length(sets) / channels;
    long double mean = 0, var = 0;
    for (std::int64_t sample = 0; sample < count; ++sample) {
        const ExactMoments& set = at(sets, sample * channels + channel);
        mean += set.mean;
        var += set.m2 / (set.count - static_cast<long double>(correction));
    }
    return {static_cast<double>(mean / static_cast<long double>(count)),
            static_cast<double>(var / static_cast<long double>(count))};
}

class Running : public testing::TestWithParam<Which> {};
INSTANTIATE_TEST_SUITE_P(, Running, testing::Values(Which::batch, Which::instance), testing::PrintToStringParamName());

TEST_P(Running, WithoutMomentumAreTheAverageOverBatches) {
    for (const double correction : {1.0, 0.0, 0.5}) {
        State state;
        RunningStatistics running = state.running(std::nullopt);
        running.correction = correction;
        auto mean = numbers(channels), var = numbers(channels);
        constexpr int batches = 5;
        for (int i = 0; i < batches; ++i) {
            const std::int64_t samples = 2 + i;
            auto values = batch_values(samples, 7 - i, static_cast<std::uint64_t>(i));
            train(GetParam(), values, samples, running);
            for (std::int64_t channel = 0; channel < channels; ++channel) {
                const auto [m, v] = exact_batch(GetParam(), values, samples, channel, correction);
                at(mean, channel) += m / batches;
                at(var, channel) += v / batches;
            }
        }
        EXPECT_EQ(state.num_batches, batches);
        for (std::int64_t channel = 0; channel < channels; ++channel) {
            EXPECT_NEAR(at(state.mean, channel) / at(mean, channel), 1, 1e-13);
            EXPECT_NEAR(at(state.var, channel) / at(var, channel), 1, 1e-13);
        }
    }
}

TEST_P(Running, WithMomentumOnlyCountBatches) {
    State counted, plain;
    RunningStatistics without = plain.running(0.3);
    without.num_batches = nullptr;
    counted.num_batches = 41;
    auto values = batch_values(3, 4, 1);
    train(GetParam(), values, 3, counted.running(0.3));
    train(GetParam(), values, 3, without);
    EXPECT_EQ(counted.num_batches, 42);
    EXPECT_EQ(different_bits(counted.mean, plain.mean), 0);
    EXPECT_EQ(different_bits(counted.var, plain.var), 0);
}

TEST_P(Running, PooledMomentsAreThoseOfAllData) {
    for (const bool alone : {false, true}) {
        State state;
        RunningStatistics running = state.running();
        if (alone) running.mean = running.var = {};
        std::vector<std::vector<float>> of_channel(channels);
        for (std::uint64_t i = 0; i < 6; ++i) {
            const std::int64_t samples = 1 + static_cast<std::int64_t>(i), places = 9;
            auto values = batch_values(samples, places, i * i);
            train(GetParam(), values, samples, running);
            for (std::int64_t e = 0; e < length(values); ++e)
                at(of_channel, e / places % channels).push_back(at(values, e));
        }
        for (std::int64_t channel = 0; channel < channels; ++channel) {
            const auto& all = at(of_channel, channel);
            const ExactMoments exact = exact_moments(all, sets_of({length(all)}, {0})).front();
            const Moments& pooled = at(state.pooled, channel);
            EXPECT_EQ(pooled.count, static_cast<double>(exact.count));
            EXPECT_NEAR(pooled.mean / static_cast<double>(exact.mean), 1, 1e-14);
            EXPECT_NEAR(pooled.m2 / static_cast<double>(exact.m2), 1, 1e-14);
        }
        EXPECT_EQ(alone, different_bits(state.mean, State().mean) == 0);
    }
}

// --- values that are not finite --------------------------------------------------------------------------------------

struct Spoiled {
    std::vector<float> values = batch_values(3, 4, 2), clean = values;
    explicit Spoiled(double value) {
        for (const std::int64_t channel : {2, 7}) at(values, (channels + channel) * 4 + 1) = static_cast<float>(value);
    }
};

TEST_P(Running, NotFiniteMomentsChangeTheirChannelOnlyIfTheyMay) {
    for (const double value : {nan, infinity, -infinity}) {
        for (const NonFinite policy : {NonFinite::skip, NonFinite::propagate, NonFinite::raise}) {
            State state, expected;
            const State before;
            Spoiled data(value);
            train(GetParam(), data.clean, 3, expected.running());
            RunningStatistics running = state.running();
            running.nonfinite = policy;
            if (policy == NonFinite::raise) {
                EXPECT_THROW(train(GetParam(), data.values, 3, running), std::range_error);
                EXPECT_EQ(different_bits(state.all_numbers(), before.all_numbers()), 0);
                continue;
            }
            const RunningUpdate update = train(GetParam(), data.values, 3, running);
            EXPECT_EQ(update.skipped, policy == NonFinite::skip ? 2 : 0);
            for (std::int64_t channel = 0; channel < channels; ++channel) {
                const bool spoiled = channel == 2 || channel == 7;
                if (spoiled && policy == NonFinite::propagate) {
                    EXPECT_FALSE(std::isfinite(at(state.var, channel)));
                    EXPECT_FALSE(std::isfinite(at(state.pooled, channel).m2));
                } else {
                    const State& like = spoiled ? before : expected;
                    EXPECT_EQ(different_bits(state.numbers_of(channel), like.numbers_of(channel)), 0) << channel;
                }
            }
            if (policy == NonFinite::skip) {
                EXPECT_EQ(update.channels[0], 2);
                EXPECT_EQ(update.channels[1], 7);
            }
            EXPECT_EQ(state.num_batches, 1);
        }
    }
}

TEST_P(Running, ABatchThatIsNowhereFiniteDoesNotCount) {
    State state;
    std::vector<float> values(3 * channels * 4, std::numeric_limits<float>::quiet_NaN());
    const RunningUpdate update = train(GetParam(), values, 3, state.running(std::nullopt));
    EXPECT_EQ(update.skipped, channels);
    for (int i = 0; i < RunningUpdate::most_named; ++i) EXPECT_EQ(update.channels[i], i);
    EXPECT_EQ(different_bits(state.all_numbers(), State().all_numbers()), 0);
}

TEST(RunningInFloat32, SkipWhatFloat32CannotHold) {
    std::vector<double> x(4 * channels), y(4 * channels);
    for (std::int64_t i = 0; i < length(x); ++i) at(x, i) = (i % channels == 5 ? 1e30 : 1) * static_cast<double>(i);
    std::vector<float> mean(channels, 1), var(channels, 2);
    const RunningUpdate update = batch_norm(
        view(x.data(), {4, channels}), view(y.data(), {4, channels}),
        {.running = {.mean = view(mean.data(), {channels}), .var = view(var.data(), {channels})}, .training = true});
    EXPECT_EQ(update.skipped, 1);
    EXPECT_EQ(update.channels[0], 5);
    EXPECT_THROW(batch_norm(view(x.data(), {4, channels}), view(y.data(), {4, channels}),
                            {.running = {.mean = view(mean.data(), {channels}),
                                         .var = view(var.data(), {channels}),
                                         .nonfinite = NonFinite::raise},
                             .training = true}),
                 std::range_error);
    for (std::int64_t channel = 0; channel < channels; ++channel) EXPECT_EQ(at(var, channel) == 2, channel == 5);
}

// --- sets of one element ---------------------------------------------------------------------------------------------

TEST_P(Running, OneElementIsRefusedOrGivesTheBias) {
    const std::int64_t samples = GetParam() == Which::batch ? 1 : 3;
    auto values = batch_values(samples, 1, 3);
    State state;
    EXPECT_THROW(train(GetParam(), values, samples, state.running()), std::invalid_argument);
    EXPECT_EQ(different_bits(state.all_numbers(), State().all_numbers()), 0);

    std::vector<float> y;
    const RunningUpdate update = train(GetParam(), values, samples, state.running(), OneElement::bias, &y);
    EXPECT_EQ(update.skipped, 0);
    EXPECT_EQ(different_bits(y, std::vector<float>(y.size(), 0)), 0);
    EXPECT_EQ(different_bits(state.mean, State().mean), 0);
    EXPECT_EQ(different_bits(state.var, State().var), 0);
    EXPECT_EQ(state.num_batches, 0);
    // There is nothing that pooled moments could not learn from one element.
    for (const Moments& set : state.pooled) EXPECT_EQ(set.count, static_cast<double>(samples));
}

// --- update_running --------------------------------------------------------------------------------------------------

TEST_P(Running, UpdateOfItsOwnIsThatOfATrainingCall) {
    State trained, updated;
    auto values = batch_values(3, 5, 4);
    train(GetParam(), values, 3, trained.running(0.2));
    const Shape shape = GetParam() == Which::batch ? Shape{channels} : Shape{3, channels};
    Tensor<double> count(shape), mean(shape, {.name = "strided", .step = 2}), m2(shape), mean_low(shape);
    const MomentsView batch{count.view(), mean.view(), m2.view(), {}, mean_low.view()};
    const Axes axes = GetParam() == Which::batch ? Axes{0, 2} : Axes{2};
    moments(view(values.data(), {3, channels, 5}), {axes}, batch);
    const RunningUpdate update = update_running(updated.running(0.2), batch);
    EXPECT_EQ(update.skipped, 0);
    EXPECT_EQ(different_bits(updated.all_numbers(), trained.all_numbers()), 0);
}

TEST(UpdateRunning, LeavesChannelsWithoutVarianceIfTold) {
    State state;
    auto count = numbers(channels, 4), mean = numbers(channels, 8), m2 = numbers(channels, 3);
    count[1] = 1;
    count[3] = 0;
    const MomentsView batch{view(count.data(), {channels}), view(mean.data(), {channels}), view(m2.data(), {channels})};
    EXPECT_THROW(update_running(state.running(), batch), std::invalid_argument);
    EXPECT_EQ(different_bits(state.all_numbers(), State().all_numbers()), 0);
    update_running(state.running(1), batch, OneElement::bias);
    for (std::int64_t channel = 0; channel < channels; ++channel) {
        const bool left = channel == 1 || channel == 3;
        EXPECT_EQ(at(state.mean, channel), left ? 0.25 : 8);
        EXPECT_EQ(at(state.var, channel), left ? 1.5 : 1);
        EXPECT_EQ(at(state.pooled, channel).count, at(count, channel));
    }
}

// --- errors ----------------------------------------------------------------------------------------------------------

struct Row {
    const char* name;
    const char* message;
    void (*change)(RunningStatistics&, State&);

    friend void PrintTo(const Row& self, std::ostream* out) { *out << self.name; }
};

const Row table[] = {
    {"no_momentum_without_num_batches",
     "expected num_batches, without which the average over all batches cannot go on, got none",
     [](RunningStatistics& running, State&) { running.momentum.reset(), running.num_batches = nullptr; }},
    {"num_batches_negative", "expected num_batches of at least 0, got -3",
     [](RunningStatistics&, State& state) { state.num_batches = -3; }},
    {"correction_above_1", "expected correction from 0 to 1, got 2",
     [](RunningStatistics& running, State&) { running.correction = 2; }},
    {"correction_nan", "expected correction from 0 to 1, got nan",
     [](RunningStatistics& running, State&) { running.correction = nan; }},
    {"momentum_negative", "expected momentum from 0 to 1, got -0.5",
     [](RunningStatistics& running, State&) { running.momentum = -0.5; }},
    {"pooled_in_part", "expected pooled moments with count, mean and m2, got some of them",
     [](RunningStatistics& running, State&) { running.pooled.mean = {}; }},
    {"pooled_of_float32", "expected pooled.m2 of dtype float64, got float32",
     [](RunningStatistics& running, State&) { running.pooled.m2.dtype = DType::f32; }},
    {"pooled_mean_low_of_float32", "expected pooled.mean_low of dtype float64, got float32",
     [](RunningStatistics& running, State&) { running.pooled.mean_low.dtype = DType::f32; }},
    {"pooled_mean_low_of_other_shape", "expected pooled.mean_low of shape (12,), got (11,)",
     [](RunningStatistics& running, State&) { running.pooled.mean_low.shape[0] = 11; }},
    {"pooled_mean_low_is_pooled_mean", "expected pooled.mean apart from pooled.mean_low, got arrays that share memory",
     [](RunningStatistics& running, State&) { running.pooled.mean_low = running.pooled.mean; }},
    {"pooled_mean_low_alone", "expected pooled moments with count, mean and m2, got some of them",
     [](RunningStatistics& running, State&) { running.pooled = {.mean_low = running.pooled.mean_low}; }},
    {"pooled_of_other_shape", "expected pooled.count of shape (12,), got (11,)",
     [](RunningStatistics& running, State&) { running.pooled.count.shape[0] = 11; }},
    {"pooled_overlaps_running", "expected running_var apart from pooled.mean, got arrays that share memory",
     [](RunningStatistics& running, State&) { running.pooled.mean = running.var; }},
    {"pooled_overlaps_itself",
     "expected pooled.mean without elements that share memory, got strides that reach one element twice",
     [](RunningStatistics& running, State&) { running.pooled.mean.strides[0] = 0; }},
    {"num_batches_within_pooled", "expected pooled.m2 apart from num_batches, got arrays that share memory",
     [](RunningStatistics& running, State& state) {
         running.num_batches = reinterpret_cast<std::int64_t*>(&state.pooled[4].m2);
     }},
};

class RunningErrors : public testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, RunningErrors, testing::ValuesIn(table), [](const auto& info) { return info.param.name; });

TEST_P(RunningErrors, SayWhatAndWriteNothing) {
    auto count = numbers(channels, 4), mean = numbers(channels, 8), m2 = numbers(channels, 3);
    const MomentsView batch{view(count.data(), {channels}), view(mean.data(), {channels}), view(m2.data(), {channels})};
    auto values = batch_values(3, 5, 4);
    const auto refused = [&](const char* caller, const auto& call) {
        State state;
        RunningStatistics running = state.running();
        GetParam().change(running, state);
        const State before = state;
        try {
            call(running);
            FAIL() << "no std::invalid_argument";
        } catch (const std::invalid_argument& error) {
            EXPECT_EQ(error.what(), std::string(caller) + ": " + GetParam().message);
        }
        EXPECT_EQ(different_bits(state.all_numbers(), before.all_numbers()), 0);
    };
    refused("batch_norm", [&](const RunningStatistics& running) { train(Which::batch, values, 3, running); });
    refused("instance_norm", [&](const RunningStatistics& running) { train(Which::instance, values, 3, running); });
    refused("update_running", [&](const RunningStatistics& running) { update_running(running, batch); });
}

TEST(UpdateRunning, RefusesMomentsThatDoNotFit) {
    State state;
    auto count = numbers(3 * channels, 4), other = numbers(3 * channels, 8);
    const TensorView fits = view(other.data(), {channels});
    const auto message = [&](const RunningStatistics& running, const MomentsView& batch) -> std::string {
        try {
            update_running(running, batch);
        } catch (const std::invalid_argument& error) {
            return error.what();
        }
        return "none";
    };
    EXPECT_EQ(message({}, {fits, fits, fits}),
              "update_running: expected running_mean and running_var, or pooled, to update, got none");
    EXPECT_EQ(message(state.running(), {fits, {}, fits}),
              "update_running: expected moments with count, mean and m2, got some of them");
    EXPECT_EQ(message(state.running(), {view(count.data(), {3, 11}), fits, fits}),
              "update_running: expected moments.count of shape (12,) or (N, 12), got (3, 11)");
    EXPECT_EQ(message(state.running(), {view(count.data(), {3, channels}), fits, fits}),
              "update_running: expected moments.mean of shape (3, 12), got (12,)");
    EXPECT_EQ(message(state.running(), {fits, fits, fits, {}, view(other.data(), {3, channels})}),
              "update_running: expected moments.mean_low of shape (12,), got (3, 12)");
    EXPECT_EQ(message(state.running(), {fits, fits, fits, {}, state.running().pooled.mean_low}),
              "update_running: expected moments.mean_low apart from pooled.mean_low, got arrays that share memory");
    EXPECT_EQ(message(state.running(), {fits, state.running().mean, fits}),
              "update_running: expected moments.mean apart from running_mean, got arrays that share memory");
    EXPECT_EQ(different_bits(state.all_numbers(), State().all_numbers()), 0);
}

}  // namespace
}  // namespace anynorm::test
