// SPDX-License-Identifier: Apache-2.0
#include "running.hpp"

#include <cmath>
#include <stdexcept>
#include <string>

#include "elements.hpp"
#include "validate.hpp"

namespace anynorm::detail {
namespace {

/// The views that an update writes.
class Written {
  public:
    explicit Written(const RunningStatistics& running) {
        for (const NamedView& each :
             {NamedView{"running_mean", &running.mean}, NamedView{"running_var", &running.var},
              NamedView{"pooled.count", &running.pooled.count}, NamedView{"pooled.mean", &running.pooled.mean},
              NamedView{"pooled.m2", &running.pooled.m2}, NamedView{"pooled.mean_low", &running.pooled.mean_low}}) {
            if (each.view->given()) views_[count_++] = each;
        }
        if (!running.num_batches) return;
        // Only where it lies is looked at: eight bytes, as a float64 has.
        counter_ = view(reinterpret_cast<double*>(running.num_batches), {});
        views_[count_++] = {"num_batches", &counter_};
    }
    Written(const Written&) = delete;
    Written& operator=(const Written&) = delete;

    const NamedView* begin() const { return views_; }
    const NamedView* end() const { return views_ + count_; }

  private:
    NamedView views_[7] = {};
    int count_ = 0;
    TensorView counter_;
};

/// An element of float32 or float64, of a view of shape (C) or (samples, C).
double statistic(const TensorView& view, std::int64_t sample, std::int64_t channel) {
    const std::int64_t offset =
        view.rank == 1 ? channel * view.strides[0] : sample * view.strides[0] + channel * view.strides[1];
    return element_at(elements_of(view), offset);
}

/// The moments of one set; what is lost of the mean is 0 where it is not given.
Moments moments_at(const MomentsView& views, std::int64_t sample, std::int64_t channel) {
    return {statistic(views.count, sample, channel), statistic(views.mean, sample, channel),
            statistic(views.m2, sample, channel),
            views.mean_low.given() ? statistic(views.mean_low, sample, channel) : 0.0};
}

void set_statistic(const TensorView& view, std::int64_t channel, double value) {
    store(elements_of(view), channel * view.strides[0], 1, &value, 1);
}

std::int64_t samples_of(const MomentsView& batch) { return batch.count.rank == 2 ? batch.count.shape[0] : 1; }
std::int64_t channels_of(const MomentsView& batch) { return batch.count.shape[batch.count.rank - 1]; }

/// What a batch says of one channel.
struct ChannelBatch {
    double mean = 0, var = 0;  ///< averaged over the samples
    Moments all;               ///< of all elements
    bool has_variance = true;
    bool finite = true;
};

/// Whether the dtype in which it is kept can hold it.
bool is_finite_as(DType dtype, double value) {
    return std::isfinite(dtype == DType::f32 ? static_cast<double>(static_cast<float>(value)) : value);
}

ChannelBatch look_at(const RunningStatistics& running, const MomentsView& batch, std::int64_t channel) {
    ChannelBatch result;
    const std::int64_t samples = samples_of(batch);
    for (std::int64_t sample = 0; sample < samples; ++sample) {
        const Moments set = moments_at(batch, sample, channel);
        result.has_variance = result.has_variance && set.count > running.correction;
        result.mean += set.mean;
        result.var += set.variance(running.correction);
        result.all.merge(set);
    }
    if (samples != 1) {
        result.mean /= static_cast<double>(samples);
        result.var /= static_cast<double>(samples);
        result.has_variance = result.has_variance && samples > 0;
    }
    result.finite = std::isfinite(result.all.mean) && std::isfinite(result.all.m2);
    if (running.mean.given() && result.has_variance) {
        result.finite = result.finite && is_finite_as(running.mean.dtype, result.mean) &&
                        is_finite_as(running.var.dtype, result.var);
    }
    return result;
}

void move_towards(const TensorView& running, std::int64_t channel, double share, double value) {
    set_statistic(running, channel, (1 - share) * statistic(running, 0, channel) + share * value);
}

void merge_into(const MomentsView& pooled, std::int64_t channel, const Moments& other) {
    Moments all = moments_at(pooled, 0, channel);
    all.merge(other);
    set_statistic(pooled.count, channel, all.count);
    set_statistic(pooled.mean, channel, all.mean);
    set_statistic(pooled.m2, channel, all.m2);
    if (pooled.mean_low.given()) set_statistic(pooled.mean_low, channel, all.mean_low);
}

void refuse_nonfinite(const char* caller, const RunningStatistics& running, const MomentsView& batch) {
    for (std::int64_t channel = 0; channel < channels_of(batch); ++channel) {
        const ChannelBatch found = look_at(running, batch, channel);
        if (found.finite || found.all.count == 0) continue;
        const std::string kept = running.var.given() ? std::string(" of ") + name(running.var.dtype) : "";
        throw std::range_error(std::string(caller) + ": expected finite moments to update running statistics" + kept +
                               " with, got mean " + number_text(found.all.mean) + " and m2 " +
                               number_text(found.all.m2) + " for channel " + std::to_string(channel));
    }
}

void check_pooled(const char* caller, const MomentsView& pooled, std::int64_t channels) {
    for (const NamedView& each : {NamedView{"pooled.count", &pooled.count}, NamedView{"pooled.mean", &pooled.mean},
                                  NamedView{"pooled.m2", &pooled.m2}, NamedView{"pooled.mean_low", &pooled.mean_low}}) {
        if (!each.view->given()) {
            if (each.view == &pooled.mean_low) continue;
            fail(caller, "pooled moments with count, mean and m2", "some of them");
        }
        check_view(caller, each.what, *each.view);
        if (each.view->dtype != DType::f64)
            fail(caller, std::string(each.what) + " of dtype float64", name(each.view->dtype));
        check_shape(caller, each.what, *each.view, &channels, 1);
    }
}

}  // namespace

void check_running(const char* caller, const RunningStatistics& running, std::int64_t channels) {
    if (running.mean.given() != running.var.given()) {
        fail(caller, "running mean and variance together",
             running.mean.given() ? "the mean only" : "the variance only");
    }
    if (running.mean.given()) {
        check_statistic(caller, "running_mean", running.mean);
        check_statistic(caller, "running_var", running.var);
        check_shape(caller, "running_mean", running.mean, &channels, 1);
        check_shape(caller, "running_var", running.var, &channels, 1);
    }
    if (running.momentum && !(*running.momentum >= 0 && *running.momentum <= 1)) {
        fail(caller, "momentum from 0 to 1", number_text(*running.momentum));
    }
    if (!(running.correction >= 0 && running.correction <= 1)) {
        fail(caller, "correction from 0 to 1", number_text(running.correction));
    }
    if (running.pooled.given()) check_pooled(caller, running.pooled, channels);
}

void check_running_output(const char* caller, const RunningStatistics& running,
                          std::initializer_list<NamedView> operands,
                          std::initializer_list<const MomentsView*> moments) {
    const Written written(running);
    for (const NamedView& each : written) {
        check_output(caller, each.what, *each.view);
        for (const NamedView* other = written.begin(); other < &each; ++other) {
            check_apart(caller, other->what, *other->view, each.what, *each.view);
        }
        for (const NamedView& other : operands) check_apart(caller, each.what, *each.view, other.what, *other.view);
        for (const MomentsView* other : moments) check_moments_apart(caller, *other, each.what, *each.view);
    }
    if (!running.momentum && !running.num_batches) {
        fail(caller, "num_batches, without which the average over all batches cannot go on", "none");
    }
    if (running.num_batches && *running.num_batches < 0) {
        fail(caller, "num_batches of at least 0", std::to_string(*running.num_batches));
    }
}

void check_counts(const char* caller, const RunningStatistics& running, const MomentsView& batch) {
    if (!running.mean.given()) return;
    for (std::int64_t sample = 0; sample < samples_of(batch); ++sample) {
        for (std::int64_t channel = 0; channel < channels_of(batch); ++channel) {
            const double n = statistic(batch.count, sample, channel);
            if (n > running.correction) continue;
            fail(caller,
                 running.correction == 1
                     ? "moments of more than one value per channel to train with"
                     : "moments of more than " + number_text(running.correction) + " values per channel to train with",
                 number_text(n));
        }
    }
}

RunningUpdate learn(const char* caller, const RunningStatistics& running, const MomentsView& batch) {
    if (running.nonfinite == NonFinite::raise) refuse_nonfinite(caller, running, batch);
    const double share = running.momentum ? *running.momentum : 1 / (1 + static_cast<double>(*running.num_batches));
    RunningUpdate result;
    bool any = false;
    for (std::int64_t channel = 0; channel < channels_of(batch); ++channel) {
        const ChannelBatch found = look_at(running, batch, channel);
        if (found.all.count == 0) continue;
        if (!found.finite && running.nonfinite == NonFinite::skip) {
            if (result.skipped < RunningUpdate::most_named) result.channels[result.skipped] = channel;
            ++result.skipped;
            continue;
        }
        const bool averages = running.mean.given() && found.has_variance;
        if (averages) {
            move_towards(running.mean, channel, share, found.mean);
            move_towards(running.var, channel, share, found.var);
        }
        if (running.pooled.given()) merge_into(running.pooled, channel, found.all);
        any = any || averages || !running.mean.given();
    }
    if (any && running.num_batches) ++*running.num_batches;
    return result;
}

void running_as_moments(const RunningStatistics& running, std::int64_t samples, bool per_sample, MomentsView& result) {
    static double one = 1;
    const auto spread = [&](const TensorView& statistic) {
        if (!per_sample) return statistic;
        TensorView view = statistic;
        view.rank = 2;
        view.shape[0] = samples;
        view.strides[0] = 0;
        view.shape[1] = statistic.shape[0];
        view.strides[1] = statistic.strides[0];
        return view;
    };
    const TensorView count = view(&one, {running.mean.shape[0]}, {0});
    result = {.count = spread(count), .mean = spread(running.mean), .m2 = spread(running.var)};
}

}  // namespace anynorm::detail

namespace anynorm::inline ANYNORM_ABI {

RunningUpdate update_running(const RunningStatistics& running, const MomentsView& moments, OneElement one_element) {
    using namespace detail;
    constexpr const char* caller = "update_running";
    if (!learns(running)) {
        fail(caller, "running_mean and running_var, or pooled, to update",
             running.var.given() ? "running_var" : "none");
    }
    const TensorView& shaped = running.mean.given() ? running.mean : running.pooled.mean;
    check_view(caller, running.mean.given() ? "running_mean" : "pooled.mean", shaped);
    if (shaped.rank != 1) fail(caller, "running statistics of shape (C,)", shape_text(shaped));
    const std::int64_t channels = shaped.shape[0];
    check_running(caller, running, channels);
    const NamedView views[] = {{"moments.count", &moments.count},
                               {"moments.mean", &moments.mean},
                               {"moments.m2", &moments.m2},
                               {"moments.mean_low", &moments.mean_low}};
    for (const NamedView& each : views) {
        if (!each.view->given()) {
            if (each.view == &moments.mean_low) continue;
            fail(caller, "moments with count, mean and m2", "some of them");
        }
        check_statistic(caller, each.what, *each.view);
        const TensorView& view = *each.view;
        if ((view.rank != 1 && view.rank != 2) || view.shape[view.rank - 1] != channels) {
            fail(caller,
                 std::string(each.what) + " of shape " + shape_text(&channels, 1) + " or (N, " +
                     std::to_string(channels) + ")",
                 shape_text(view));
        }
        check_shape(caller, each.what, view, moments.count.shape, moments.count.rank);
    }
    check_running_output(caller, running, {}, {&moments});
    if (one_element == OneElement::raise) check_counts(caller, running, moments);
    return learn(caller, running, moments);
}

}  // namespace anynorm::inline ANYNORM_ABI
