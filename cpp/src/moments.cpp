// SPDX-License-Identifier: Apache-2.0
#include "anynorm/moments.hpp"

#include "parallel.hpp"
#include "schedule.hpp"
#include "selected.hpp"
#include "statistics_views.hpp"
#include "validate.hpp"

namespace anynorm::inline ANYNORM_ABI {

void moments(const TensorView& x, const Grouping& sets, const MomentsView& out, const MomentsOptions& options) {
    using namespace detail;
    constexpr const char* caller = "moments";
    check_view(caller, "x", x);
    const AxisSet reduced = check_axes(caller, sets.reduce, x.rank);
    check_threads(caller, options.num_threads);
    const Selection& selection = sets.selection;
    const bool selected = takes_selection(selection, out);
    RowRanges rising;
    if (selected) {
        rising = check_selection(caller, selection, x, reduced, options.num_threads);
        check_selected_output(caller, out, selection, x, reduced);
    } else {
        check_moments_output(caller, out, x, reduced);
    }
    check_moments_apart(caller, out, "x", x);
    const kernels::KernelTable& table = active_kernels();

    if (selected) {
        const Selection taken = with_segments(selection, rising);
        SelectedCall call{.selection = taken};
        call.x = x;
        call.reduced = reduced;
        call.moments = out;
        call.center = options.center;
        call.num_threads = options.num_threads;
        return run_selected(call, table);
    }
    if (x.size() == 0) {
        store_empty_moments(out);
        return;
    }
    OperandStrides strides;
    strides.set(op_x, own_strides(x));
    add_statistics_strides(strides, out, x, reduced);
    Call call;
    call.x = elements_of(x);
    call.out = elements_of(out);
    call.center = options.center;
    PlanRequest request;
    request.element_bytes = static_cast<std::int64_t>(size_of(x.dtype));
    ThreadShare threads(options.num_threads);
    request.threads = threads.count();
    request.apply = false;
    Plan plan = make_plan(make_nest(x, reduced, strides), request);
    threads.keep(plan.threads);
    run_plan(plan, call, table);
}

}  // namespace anynorm::inline ANYNORM_ABI
