// SPDX-License-Identifier: Apache-2.0
// Every case of shapes.txt beside the memory pass on the same buffers: a copy for a norm, a read for moments, a triad
// for gradients.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "calls.hpp"
#include "cases.hpp"
#include "kernels.hpp"
#include "memory.hpp"
#include "passes.hpp"

namespace bench {
namespace {

constexpr const char* usage = R"(anynorm_bench: also takes
    --shapes=FILE       another list than the one that comes with the Python package
    --threads=1,2       1 and the maximum, if left out
    --min-mib=NUMBER    repeat the first axis of every shape until x has as many MiB (4 times the last cache: DRAM)
    --max-length=NUMBER cut longer axes, for a quick look
    --kernels           the kernels below the norms instead, each by itself: kernel/affine/f32/avx2/1x2048
)";

struct Flags {
    std::string shapes = BENCH_SHAPES;  // where the sources were when they were compiled
    std::vector<int> threads;
    Resize resize;
    bool kernels = false;
};

/// Takes our flags out of the command line.
Flags read_flags(int& argc, char** argv) {
    Flags flags;
    const auto ours = [&](std::string_view word) {
        if (word == "--kernels") return flags.kernels = true;
        const std::size_t equals = word.find('=');
        if (equals == std::string_view::npos) return false;
        const std::string_view name = word.substr(0, equals);
        const std::string value(word.substr(equals + 1));
        if (name == "--shapes") {
            flags.shapes = value;
        } else if (name == "--threads") {
            for (std::size_t at = 0; at < value.size(); at = std::min(value.find(',', at), value.size() - 1) + 1)
                flags.threads.push_back(std::stoi(value.substr(at)));
        } else if (name == "--min-mib") {
            flags.resize.min_bytes = std::stoull(value) << 20;
        } else if (name == "--max-length") {
            flags.resize.max_length = std::stoll(value);
        } else {
            return false;
        }
        return true;
    };
    argc = static_cast<int>(std::remove_if(argv + 1, argv + argc, ours) - argv);
    if (flags.threads.empty()) {
        flags.threads = {1};
        if (has_threads() && anynorm::max_threads() > 1) flags.threads.push_back(anynorm::max_threads());
    }
    for (const int threads : flags.threads) {
        if (threads < 1)
            throw std::runtime_error("--threads: expected numbers of at least 1, got " + std::to_string(threads));
        if (threads > 1 && !has_threads())
            throw std::runtime_error("--threads: expected 1, because the benchmarks were compiled without OpenMP");
    }
    return flags;
}

/// Seconds a call, of every run of google-benchmark. A run of fewer calls than another was a rehearsal: so it finds
/// out how many calls fill its minimum time.
class Samples {
  public:
    void add(benchmark::IterationCount calls, double seconds) {
        if (calls < calls_) return;
        if (calls > calls_) seconds_.clear();
        calls_ = calls;
        seconds_.push_back(seconds);
    }

    bool empty() const { return seconds_.empty(); }

    double median() const {
        std::vector<double> sorted = seconds_;
        std::sort(sorted.begin(), sorted.end());
        return (sorted[sorted.size() / 2] + sorted[(sorted.size() - 1) / 2]) / 2;
    }

  private:
    benchmark::IterationCount calls_ = 0;
    std::vector<double> seconds_;
};

/// A row of the summary.
struct Row {
    std::string name;
    int threads;
    double reads, written;  ///< arrays of the size of x that must move
    int reads_again;        ///< how many more, since no cache holds a set
    double bytes;           ///< of all that must move once
    Samples norm;
    std::map<std::string, Samples> passes;

    double seconds(std::string_view pass) const {
        const auto found = passes.find(std::string(pass));
        return found == passes.end() || found->second.empty() ? 0 : found->second.median();
    }

    /// Seconds of the fastest pass that does the work of the case, and its name. A copy is as many as are written, with
    /// reads of what is left; gradients are also a triad.
    std::pair<double, std::string_view> best_pass() const {
        const double read_time = seconds("read");
        if (written == 0) return {read_time, read_time > 0 ? "read" : "-"};
        std::pair<double, std::string_view> best{0, "-"};
        const auto offer = [&](std::string_view pass_name, double copies, double more_reads) {
            const double time = seconds(pass_name) * copies + read_time * more_reads;
            const bool measured = seconds(pass_name) > 0 && (more_reads == 0 || read_time > 0);
            if (measured && (best.first == 0 || time < best.first)) best = {time, pass_name};
        };
        offer("copy", written, reads - written);
        offer("copy_streaming", written, reads - written);
        if (reads == 2 && written == 1) {
            offer("triad", 1, 0);
            offer("triad_streaming", 1, 0);
        }
        return best;
    }

    void print() const {
        const double median = norm.median(), speed = bytes * 1e-9;
        std::printf("%-60s %7d %10.4f %8.2f", name.c_str(), threads, 1e3 * median, speed / median);
        const auto [pass, best] = best_pass();
        if (pass > 0) {
            std::printf(" %8.2f %7.2f", speed / pass, pass / median);
            std::printf(" %8.2f", (pass + reads_again * seconds("read")) / median);
        }
        std::printf("  %.*s\n", static_cast<int>(best.size()), best.data());
    }
};

/// Hands a call to google-benchmark. The row must stay where it is.
void add_benchmark(const std::string& name, double bytes, Samples& samples, Call call) {
    const auto run = [bytes, &samples, call = std::move(call)](benchmark::State& state) {
        call();  // once for nothing, so that no run begins with what another left in the caches
        const auto start = std::chrono::steady_clock::now();
        for ([[maybe_unused]] auto _ : state) call();
        const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
        const double seconds = elapsed.count() / static_cast<double>(state.iterations());
        samples.add(state.iterations(), seconds);
        state.counters["GB/s"] = bytes * 1e-9 / seconds;
    };
    benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime();
}

void add_case(const Case& each, const Buffers& buffers, Row& row) {
    const std::string threads = "/threads:" + std::to_string(row.threads);
    add_benchmark(each.name + threads, row.bytes, row.norm, make_call(each, buffers, row.threads));
    const auto add_pass = [&](const std::string& name, double bytes, Call call) {
        add_benchmark(each.name + "/" + name + threads, bytes, row.passes[name], std::move(call));
    };
    const auto pass = [&, x = buffers.x.data(), y = buffers.y.data(), size = each.bytes(),
                       count = row.threads](auto run) { return [=] { run(y, x, size, count); }; };
    const double x_bytes = static_cast<double>(each.bytes());
    add_pass("read", x_bytes, pass([](const void*, const void* from, std::size_t size, int count) {
                 benchmark::DoNotOptimize(read(from, size, count));
             }));
    if (!each.writes()) return;
    add_pass("copy", 2 * x_bytes, pass(copy_regular));
    // The gaps of y must stay, so its lines must be read before they are written, which past the caches they are not.
    if (each.step == 1) add_pass("copy_streaming", 2 * x_bytes, pass(copy_streaming));
    if (each.reads() < 2) return;
    const auto pass_beside = [=, beside = buffers.beside.data()](auto run) {
        return pass(
            [=](void* to, const void* from, std::size_t size, int count) { run(to, from, beside, size, count); });
    };
    add_pass("triad", 3 * x_bytes, pass_beside(triad));
    if (each.step == 1) add_pass("triad_streaming", 3 * x_bytes, pass_beside(triad_streaming));
}

/// Why the library does not take a case: its half types are young. A refusal of any other is a mistake of ours.
std::string refusal(const Case& each, const Buffers& buffers) {
    if (each.dtype != anynorm::DType::f16 && each.dtype != anynorm::DType::bf16) return {};
    try {
        make_call(each, buffers, 1)();
        return {};
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
}

/// Measures, and prints the table of those cases that --benchmark_filter chose.
void run_cases(const Flags& flags) {
    const std::vector<Case> cases = read_cases(flags.shapes, flags.resize);
    std::map<anynorm::DType, Buffers> buffers;
    for (const Case& each : cases) buffers.try_emplace(each.dtype, each.dtype, cases);
    std::vector<std::unique_ptr<Row>> rows;
    for (const Case& each : cases) {
        if (const std::string reason = refusal(each, buffers.at(each.dtype)); !reason.empty()) {
            std::fprintf(stderr, "skipped %s: %s\n", each.name.c_str(), reason.c_str());
            continue;
        }
        for (const int threads : flags.threads) {
            const double reads = each.reads(), written = each.written();
            const double bytes =
                static_cast<double>(each.bytes()) * (reads + written) + static_cast<double>(each.set_bytes());
            Row& row =
                *rows.emplace_back(new Row{each.name, threads, reads, written, each.reads_again(), bytes, {}, {}});
            add_case(each, buffers.at(each.dtype), row);
        }
    }
    benchmark::RunSpecifiedBenchmarks();

    std::erase_if(rows, [](const auto& row) { return row->norm.empty(); });
    if (rows.empty()) return;
    std::printf("\n%-60s %7s %10s %8s %8s %7s %8s  %s\n", "case", "threads", "ms", "GB/s", "pass", "of_pass",
                "of_limit", "best pass");
    for (const auto& row : rows) row->print();
}

int run(int argc, char** argv) {
    // Ours first: google-benchmark prints the names of the flags that it does not know, and its own help.
    const Flags flags = read_flags(argc, argv);
    benchmark::Initialize(&argc, argv, [] {
        benchmark::PrintDefaultHelp();
        std::fputs(usage, stdout);
    });
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::AddCustomContext(
        "anynorm", std::string(anynorm::version()) + ", " + std::string(anynorm::name(anynorm::active_isa())));

    if (flags.kernels) {
        add_kernels();
        benchmark::RunSpecifiedBenchmarks();
    } else {
        run_cases(flags);
    }
    benchmark::Shutdown();
    return 0;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    try {
        return bench::run(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "anynorm_bench: %s\n", error.what());
        return 1;
    }
}
