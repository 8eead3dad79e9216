// SPDX-License-Identifier: Apache-2.0
// The one file of the benchmarks that looks inside the library, as the tests of the kernels do.
#include "kernels.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <anynorm/anynorm.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "dispatch.hpp"
#include "kernels/kernel_table.hpp"
#include "memory.hpp"

namespace bench {
namespace {

using namespace anynorm::kernels;

struct Size {
    std::int64_t rows, n;

    std::int64_t elements() const { return rows * n; }
    std::string name() const { return std::to_string(rows) + "x" + std::to_string(n); }
};

// Short rows, and a long one, of which x and y fit a L1 of 32 KB if they are float32; several long ones, 256 KB of
// float64, fit L2.
constexpr Size sizes[] = {{32, 64}, {1, 2048}, {8, 2048}};
constexpr Size column_sizes[] = {{32, 64}, {256, 64}, {8, 2048}};
constexpr Size largest = sizes[2];
constexpr std::int64_t row_block = 4096, cell_count = 256;

template <class X>
constexpr anynorm::DType stored() {
    if constexpr (std::is_same_v<X, F16>) return anynorm::DType::f16;
    if constexpr (std::is_same_v<X, BF16>) return anynorm::DType::bf16;
    if constexpr (std::is_same_v<X, float>) return anynorm::DType::f32;
    return anynorm::DType::f64;
}

constexpr const char* short_name(anynorm::DType dtype) {
    return dtype == anynorm::DType::f16    ? "f16"
           : dtype == anynorm::DType::bf16 ? "bf16"
           : dtype == anynorm::DType::f32  ? "f32"
                                           : "f64";
}

/// The operands of all kernels of an element type.
template <class X>
struct Operands {
    using C = Compute<X>;
    static constexpr std::size_t elements = largest.rows * largest.n;

    Buffer x{stored<X>(), elements * sizeof(X)}, y{stored<X>(), elements * sizeof(X)};
    Buffer computed{stored<C>(), elements * sizeof(C)};
    Buffer mean{stored<C>(), largest.n * sizeof(C)}, mean_lo{stored<C>(), largest.n * sizeof(C)};
    Buffer rstd{stored<C>(), largest.n * sizeof(C)};
    Buffer weight{stored<C>(), largest.n * sizeof(C)}, bias{stored<C>(), largest.n * sizeof(C)};
    std::vector<Cell> cells = std::vector<Cell>(largest.n, {4096, 3, 0, 4 * 4096});
    std::vector<double> sums = std::vector<double>(2 * largest.n);
    std::vector<Cell> others = std::vector<Cell>(cell_count, {4096, 4, 0, 4 * 4096});

    static X* elements_of(const Buffer& buffer) { return static_cast<X*>(buffer.data()); }
    static C* values_of(const Buffer& buffer) { return static_cast<C*>(buffer.data()); }
};

/// Registers the kernels of one element type and instruction set.
template <class X>
class Registry {
  public:
    using C = Compute<X>;

    Registry(anynorm::Isa isa, std::shared_ptr<Operands<X>> operands)
        : isa_(isa),
          kernels_(anynorm::detail::kernels_for<X>(*anynorm::detail::kernels_of(isa))),
          suffix_(std::string("/") + short_name(stored<X>()) + "/" + std::string(anynorm::name(isa)) + "/"),
          operands_(std::move(operands)) {}

    void add_all() const {
        for (const Size& size : sizes) {
            add_moments("moments_row", kernels_.moments_row, size, false);
            add_affine("affine", size, false, false);
            add_affine("affine_weight_bias", size, false, true);
            add_affine("affine_statistics", size, true, false);
            add_open_lines(size);
            add_rows("normalize_rows", size, false);
            add_rows("normalize_rows_weight_bias", size, true);
            add_moments_beside("moments_row_beside", size);
            add_gradient_sums("gradient_sums_row", kernels_.gradient_sums_row, size, false);
            add_gradient_input("gradient_input", size, false);
            add_gradient_input("gradient_input_statistics", size, true);
            add_gradient_beside(size);
            add_gradient_rows("gradient_rows", size);
        }
        for (const Size& size : column_sizes) {
            add_moments("moments_column", kernels_.moments_column, size, true);
            add_columns_beside("moments_column_beside", size);
            add_gradient_sums("gradient_sums_column", kernels_.gradient_sums_column, size, true);
        }
        for (const Size& size : column_sizes) add_grouped_sums(size);
        add_cells();
        add_conversions();
        add_fusion(anynorm::detail::kernels_of(isa_)->activations);
    }

  private:
    /// `bytes` are read and written, every operand once.
    template <class Call>
    void add(const std::string& kernel, const std::string& size, std::int64_t elements, std::size_t bytes,
             Call call) const {
        const auto run = [=, keep = operands_](benchmark::State& state) {
            for ([[maybe_unused]] auto _ : state) call();
            // In time of the CPU, not of the clock: one thread that waits for nothing, on a machine that others share.
            constexpr auto rate = benchmark::Counter::kIsIterationInvariantRate;
            state.counters["GB"] = benchmark::Counter(static_cast<double>(bytes) * 1e-9, rate);
            state.counters["elements"] = benchmark::Counter(static_cast<double>(elements), rate);
        };
        benchmark::RegisterBenchmark(("kernel/" + kernel + suffix_ + size).c_str(), run);
    }

    MomentsArgs<X> moments_args(const Size& size, bool columns) const {
        MomentsArgs<X> args{};
        args.x = Operands<X>::elements_of(operands_->x);
        args.cells = columns ? size.n : size.rows;
        args.cell_stride = columns ? 1 : size.n;
        args.runs = 1;
        args.n = columns ? size.rows : size.n;
        args.stride = columns ? size.n : 1;
        args.center = true;
        args.out = operands_->cells.data();
        return args;
    }

    void add_moments(const char* name, void (*kernel)(const MomentsArgs<X>&) noexcept, const Size& size,
                     bool columns) const {
        const MomentsArgs<X> args = moments_args(size, columns);
        add(name, size.name(), size.elements(), size.elements() * sizeof(X) + args.cells * sizeof(Cell),
            [=] { kernel(args); });
    }

    /// Sums of some rows while others of the same size are written.
    void add_moments_beside(const char* name, const Size& size) const {
        const MomentsArgs<X> args = moments_args(size, false);
        AffineQueue<X> queue;
        queue.args = affine_args(size, false);
        queue.refill = [](void*, AffineArgs<X>&) noexcept { return false; };
        add(name, size.name(), 2 * size.elements(), 3 * size.elements() * sizeof(X) + args.cells * sizeof(Cell),
            [=, kernel = kernels_.moments_row_beside] {
                OpenLine open;
                begin_line(open);
                AffineQueue<X> results = queue;
                results.args.open = &open;
                kernel(args, results);
            });
    }

    void add_columns_beside(const char* name, const Size& size) const {
        const MomentsArgs<X> args = moments_args(size, true);
        const AffineArgs<X> affine = affine_args(size, true);
        const AffineColumns<X> columns{affine.x, affine.y, affine.mean, affine.mean_lo, affine.rstd, affine.bias};
        add(name, size.name(), 2 * size.elements(), 3 * size.elements() * sizeof(X) + args.cells * sizeof(Cell),
            [=, kernel = kernels_.moments_column_beside] { kernel(args, columns); });
    }

    GradientSumsArgs<X> gradient_sums_args(const Size& size, bool columns) const {
        const AffineArgs<X> affine = affine_args(size, columns);
        double* const sums = operands_->sums.data();
        const std::int64_t targets = columns ? size.n : size.rows;
        return {size.rows,       size.n,      affine.x,      affine.x,       affine.mean,
                affine.mean_lo,  affine.rstd, affine.weight, size.n,         size.n,
                affine.stat_row, 0,           sums,          sums + targets, 1};
    }

    void add_gradient_sums(const char* name, void (*const (&kernels)[4])(const GradientSumsArgs<X>&) noexcept,
                           const Size& size, bool columns) const {
        const GradientSumsArgs<X> args = gradient_sums_args(size, columns);
        const std::int64_t targets = columns ? size.n : size.rows;
        const auto kernel = kernels[gradient_index(columns, false)];
        add(name, size.name(), size.elements(), 2 * size.elements() * sizeof(X) + 2 * targets * sizeof(double),
            [=] { kernel(args); });
    }

    GradientInputArgs<X> gradient_input_args(const Size& size, bool statistics) const {
        const AffineArgs<X> affine = affine_args(size, statistics);
        return {size.rows,      size.n,          affine.x,    affine.x,      affine.y, affine.mean,
                affine.mean_lo, affine.bias,     affine.rstd, affine.weight, size.n,   size.n,
                size.n,         affine.stat_row, 0,           false};
    }

    void add_gradient_input(const char* name, const Size& size, bool statistics) const {
        const GradientInputArgs<X> args = gradient_input_args(size, statistics);
        const auto kernel = kernels_.gradient_input[gradient_index(statistics, false)];
        const std::int64_t values_read = 4 * (statistics ? size.n : size.rows);
        add(name, size.name(), size.elements(), 3 * size.elements() * sizeof(X) + values_read * sizeof(C),
            [=] { kernel(args); });
    }

    /// Sums of some rows while results of others of the same size are written; or results alone.
    void add_gradient_beside(const Size& size) const {
        const GradientSumsArgs<X> args = gradient_sums_args(size, false);
        const GradientInputQueue<X> results{gradient_input_args(size, false)};
        const std::size_t bytes = size.elements() * sizeof(X);
        add("gradient_sums_beside", size.name(), 2 * size.elements(), 5 * bytes + 2 * size.rows * sizeof(double),
            [=, kernel = kernels_.gradient_sums_beside] {
                GradientInputQueue<X> queue = results;
                kernel(args, queue);
            });
        add("gradient_input_left", size.name(), size.elements(), 3 * bytes + 4 * size.rows * sizeof(C),
            [=, kernel = kernels_.gradient_input_left] {
                GradientInputQueue<X> queue = results;
                kernel(queue);
            });
    }

    void add_gradient_rows(const char* name, const Size& size) const {
        const AffineArgs<X> affine = affine_args(size, false);
        GradientRowsArgs<X> args{};
        args.rows = size.rows;
        args.n = args.x_row = args.grad_output_row = args.grad_input_row = size.n;
        args.x = args.grad_output = affine.x;
        args.grad_input = affine.y;
        args.weight = affine.weight;
        args.cells = operands_->cells.data();
        args.eps = 1e-5;
        args.center = true;
        args.bias_sums = operands_->sums.data();
        args.weight_sums = args.bias_sums + size.n;
        const auto kernel = kernels_.gradient_rows[gradient_rows_index(true, true)];
        const std::size_t parameters = size.n * (sizeof(C) + 2 * sizeof(double));
        add(name, size.name(), size.elements(), 3 * size.elements() * sizeof(X) + parameters, [=] { kernel(args); });
    }

    /// Rows with statistics of their own, or one of columns for all.
    AffineArgs<X> affine_args(const Size& size, bool statistics) const {
        const auto values = [](const Buffer& buffer) { return Operands<X>::values_of(buffer); };
        AffineArgs<X> args{};
        args.rows = size.rows;
        args.n = args.x_row = args.y_row = size.n;
        args.x = Operands<X>::elements_of(operands_->x);
        args.y = Operands<X>::elements_of(operands_->y);
        args.mean = values(operands_->mean);
        args.mean_lo = values(operands_->mean_lo);
        args.rstd = values(operands_->rstd);
        args.weight = values(operands_->weight);
        args.bias = values(operands_->bias);
        args.stat_row = statistics ? 0 : 1;
        return args;
    }

    void add_affine(const char* name, const Size& size, bool statistics, bool parameters) const {
        const AffineArgs<X> args = affine_args(size, statistics);
        const std::int64_t values_read = 3 * (statistics ? size.n : size.rows) + 2 * (parameters ? size.n : 1);
        const auto kernel = kernels_.affine[affine_index(statistics, parameters, parameters)];
        add(name, size.name(), size.elements(), 2 * size.elements() * sizeof(X) + values_read * sizeof(C),
            [=] { kernel(args); });
    }

    /// A call of the affine kernel for each row, past the caches; all but the last leave a line open for the next.
    void add_open_lines(const Size& size) const {
        AffineArgs<X> args = affine_args(size, false);
        args.rows = 1;
        args.stream = true;
        const auto affine = kernels_.affine[affine_index(false, false, false)];
        add("close_line", size.name(), size.elements(),
            2 * size.elements() * sizeof(X) + (3 * size.rows + 2) * sizeof(C),
            [=, rows = size.rows, close_line = kernels_.close_line] {
                OpenLine open;
                begin_line(open);
                AffineArgs<X> row = args;
                row.open = &open;
                for (std::int64_t i = 0; i < rows; ++i) {
                    affine(row);
                    row.x += args.x_row;
                    row.y += args.y_row;
                    row.mean += args.stat_row;
                    row.mean_lo += args.stat_row;
                    row.rstd += args.stat_row;
                }
                close_line(open);
            });
    }

    void add_rows(const char* name, const Size& size, bool parameters) const {
        RowsArgs<X> args{};
        args.rows = size.rows;
        args.n = args.x_row = args.y_row = size.n;
        args.block = row_block;
        args.chunk_blocks = 1;
        args.x = Operands<X>::elements_of(operands_->x);
        args.y = Operands<X>::elements_of(operands_->y);
        args.weight = Operands<X>::values_of(operands_->weight);
        args.bias = Operands<X>::values_of(operands_->bias);
        args.eps = 1e-5;
        args.center = true;
        const auto kernel = kernels_.normalize_rows[rows_index(parameters, parameters)];
        add(name, size.name(), size.elements(),
            2 * size.elements() * sizeof(X) + 2 * (parameters ? size.n : 1) * sizeof(C), [=] { kernel(args); });
    }

    void add_cells() const {
        const auto values = [](const Buffer& buffer) { return Operands<X>::values_of(buffer); };
        const std::string size = std::to_string(cell_count);
        Cell *const into = operands_->cells.data(), *const from = operands_->others.data();
        add("merge_cells", size, cell_count, 3 * cell_count * sizeof(Cell),
            [=, kernel = kernels_.merge_cells] { kernel(into, from, cell_count); });
        C *const mean = values(operands_->mean), *const low = values(operands_->mean_lo),
                 *const rstd = values(operands_->rstd);
        add("coefficients", size, cell_count, cell_count * (sizeof(Cell) + 3 * sizeof(C)),
            [=, kernel = kernels_.coefficients] { kernel(from, cell_count, 1e-5, mean, low, rstd); });
    }

    /// Rows of a few groups, whose blocks never fill.
    void add_grouped_sums(const Size& size) const {
        constexpr std::int64_t groups = 64;
        const auto labels = std::make_shared<std::vector<std::int32_t>>();
        for (std::int64_t row = 0; row < size.rows; ++row)
            labels->push_back(static_cast<std::int32_t>(row * 29 % groups));
        const auto counts = std::make_shared<std::vector<std::int32_t>>(static_cast<std::size_t>(groups));
        const std::int64_t bytes = groups * block_bytes<X>(size.n);
        const auto blocks = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(bytes));
        const X* const x = Operands<X>::elements_of(operands_->x);
        add("grouped_sums", size.name(), size.elements(), size.elements() * sizeof(X) + static_cast<std::size_t>(bytes),
            [=, kernel = kernels_.grouped_sums] {
                std::fill(counts->begin(), counts->end(), 0);
                kernel({size.rows,
                        size.n,
                        x,
                        size.n,
                        {.narrow = labels->data()},
                        true,
                        counts->data(),
                        blocks->data(),
                        groups});
            });
        const auto cells = std::make_shared<std::vector<Cell>>(static_cast<std::size_t>(groups * size.n));
        add("grouped_cells", size.name(), groups * size.n,
            static_cast<std::size_t>(bytes) + cells->size() * sizeof(Cell), [=, kernel = kernels_.grouped_cells] {
                std::fill(counts->begin(), counts->end(), 8);
                kernel({groups, size.n, true, counts->data(), blocks->data(), cells->data()});
            });
    }

    void add_conversions() const {
        X* const stored = Operands<X>::elements_of(operands_->x);
        C* const computed = Operands<X>::values_of(operands_->computed);
        for (const std::int64_t n : {sizes[1].n, largest.elements()}) {
            const std::size_t bytes = n * (sizeof(X) + sizeof(C));
            add("promote", std::to_string(n), n, bytes,
                [=, kernel = kernels_.promote] { kernel(computed, stored, n); });
            add("demote", std::to_string(n), n, bytes, [=, kernel = kernels_.demote] { kernel(stored, computed, n); });
        }
    }

    /// What surrounds a norm, on as much as passes through L1 at a time; activations where there are kernels for them.
    void add_fusion(const ActivationKernels& activations) const {
        constexpr std::int64_t n = 512;
        const std::string size = std::to_string(n);
        X *const x = Operands<X>::elements_of(operands_->x), *const y = Operands<X>::elements_of(operands_->y);
        add("add", size, n, 3 * n * sizeof(X), [=, kernel = kernels_.add] { kernel(y, x, x, n); });
        const C* const computed = Operands<X>::values_of(operands_->computed);
        auto* const bytes = reinterpret_cast<std::uint8_t*>(y);
        const Quantization<C> to{C(0.05), C(-128), C(127), 0};
        add("quantize", size, n, n * (sizeof(C) + 1),
            [=, kernel = kernels_.quantize] { kernel(bytes, computed, n, to); });
        if constexpr (std::is_same_v<X, float>) {
            constexpr const char* names[] = {"relu", "silu", "gelu", "gelu_tanh"};
            for (int i = 0; i < 4; ++i) {
                add(std::string("activate_") + names[i], size, n, 2 * n * sizeof(X),
                    [=, kernel = activations.activate[i]] { kernel(y, x, n); });
                add(std::string("activation_gradient_") + names[i], size, n, 3 * n * sizeof(X),
                    [=, kernel = activations.activation_gradient[i]] { kernel(y, x, x, n); });
            }
        }
    }

    anynorm::Isa isa_;
    const Kernels<X>& kernels_;
    std::string suffix_;
    std::shared_ptr<Operands<X>> operands_;
};

template <class X>
void add_kernels_of() {
    const auto operands = std::make_shared<Operands<X>>();
    for (const anynorm::Isa isa : anynorm::available_isas()) Registry<X>(isa, operands).add_all();
}

}  // namespace

void add_kernels() {
    add_kernels_of<float>();
    add_kernels_of<double>();
    add_kernels_of<F16>();
    add_kernels_of<BF16>();
}

}  // namespace bench
