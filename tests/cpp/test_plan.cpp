// SPDX-License-Identifier: Apache-2.0
// Plans: which kernel, and that blocks and pieces are exact partitions that depend on nothing but the shape.
#include "plan.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "nests.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

using detail::Block;
using detail::Cut;
using detail::Nest;
using detail::op_x;
using detail::Plan;
using detail::PlanRequest;
using detail::Reduction;

const Layout c{};
const Layout channels_last{.order = Layout::Order::channels_last};

Plan plan_of(const Nest& nest, int threads) {
    PlanRequest request;
    request.threads = threads;
    return detail::make_plan(nest, request);
}

/// The lines of to_string: nest, reduce, run.
std::string line(const Plan& plan, const std::string& begin) {
    const std::string text = detail::to_string(plan);
    const std::size_t first = text.find(begin);
    return first == std::string::npos ? text : text.substr(first, text.find('\n', first) - first);
}

struct Row {
    const char* name;
    Shape shape;
    Layout layout;
    std::vector<int> reduce;
    const char* plan;  ///< for one thread

    friend void PrintTo(const Row& self, std::ostream* out) { *out << self.name; }
};

const Row table[] = {
    {"layer",
     {64, 768},
     c,
     {1},
     "nest K64:768 R768:1\nreduce row block=1x768 blocks=1 chunks=1\nrun whole_sets sets=1 elements=1 threads=1\n"},
    {"layer_long",
     {3, 200000},
     c,
     {1},
     "nest K3:200000 R200000:1\nreduce row block=1x4096 blocks=49 chunks=4\n"
     "run whole_sets sets=1 elements=12 threads=1\n"},
    {"batch_nchw",
     {8, 16, 14, 14},
     c,
     {0, 2, 3},
     "nest R8:3136 K16:196 R196:1\nreduce row block=8x196 blocks=1 chunks=1\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"batch_nhwc",
     {8, 16, 14, 14},
     channels_last,
     {0, 2, 3},
     "nest R1568:16 K16:1\nreduce column block=1x1024 blocks=2 chunks=2\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"batch_nc",
     {512, 16},
     c,
     {0},
     "nest R512:16 K16:1\nreduce column block=1x512 blocks=1 chunks=1\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"instance_nhwc",
     {4, 16, 14, 14},
     channels_last,
     {2, 3},
     "nest K4:3136 R196:16 K16:1\nreduce column block=1x196 blocks=1 chunks=1\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"group_nhwc_folds",
     {4, 14, 14, 8, 4},
     c,
     {1, 2, 4},
     "nest K4:6272 R196:32 K8:4 R4:1\nreduce column fold=4 block=1x196 blocks=1 chunks=1\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"group_nhwc_wide_groups",
     {4, 14, 14, 4, 32},
     c,
     {1, 2, 4},
     "nest K4:25088 R196:128 K4:32 R32:1\nreduce row block=128x32 blocks=2 chunks=1\n"
     "run whole_sets sets=4 elements=2 threads=1\n"},
    {"strided_rows_are_packed",
     {8, 100},
     {.name = "strided", .step = 3},
     {1},
     "nest K8:300 R100:3\nreduce row packed block=1x100 blocks=1 chunks=1\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"far_rows_are_columns",
     {8, 100},
     {.name = "strided", .step = 9},
     {1},
     "nest K8:900 R100:9\nreduce column block=1x100 blocks=1 chunks=1\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"few_columns_interleave",
     {3001, 3},
     c,
     {0},
     "nest R3001:3 K3:1\nreduce column interleave=16 block=1x187 blocks=1 chunks=1\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"short_sets_of_few_columns_do_not",
     {5, 63, 10},
     c,
     {1},
     "nest K5:630 R63:10 K10:1\nreduce column block=1x63 blocks=1 chunks=1\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"sets_of_eight_joined_rows_do",
     {5, 64, 10},
     c,
     {1},
     "nest K5:640 R64:10 K10:1\nreduce column interleave=8 block=1x8 blocks=1 chunks=1\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"few_folded_columns_interleave",
     {4, 14, 15, 2, 3},
     c,
     {1, 2, 4},
     "nest K4:1260 R210:6 K2:3 R3:1\nreduce column fold=3 interleave=8 block=1x26 blocks=1 chunks=1\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"group_of_two_axes_folds",
     {4, 196, 8, 2, 2},
     c,
     {1, 3, 4},
     "nest K4:6272 R196:32 K8:4 R4:1\nreduce column fold=4 block=1x196 blocks=1 chunks=1\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"few_columns_of_two_axes",
     {3001, 4, 5},
     c,
     {0},
     "nest R3001:20 K20:1\nreduce column interleave=4 block=1x750 blocks=1 chunks=1\n"
     "run whole_sets sets=1 elements=1 threads=1\n"},
    {"one_set",
     {70000},
     c,
     {0},
     "nest R70000:1\nreduce row block=1x4096 blocks=18 chunks=2\nrun whole_sets sets=1 elements=2 threads=1\n"},
    {"one_element",
     {1},
     c,
     {0},
     "nest\nreduce row block=1x1 blocks=1 chunks=1\nrun whole_sets sets=1 elements=1 threads=1\n"},
};

class PlanTable : public testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, PlanTable, testing::ValuesIn(table), [](const auto& info) { return info.param.name; });

TEST_P(PlanTable, ReadsAs) {
    const Row& row = GetParam();
    EXPECT_EQ(detail::to_string(plan_of(nest_of(geometry(row.shape, row.layout), row.reduce), 1)), row.plan);
}

TEST_P(PlanTable, ReductionIsTheSameForEveryNumberOfThreads) {
    const Row& row = GetParam();
    const Nest nest = nest_of(geometry(row.shape, row.layout), row.reduce);
    const std::string expected = line(plan_of(nest, 1), "reduce");
    for (int threads : {2, 3, 8, 64}) EXPECT_EQ(line(plan_of(nest, threads), "reduce"), expected);
}

/// The statistics of a call are those of every other call on the same x.
TEST_P(PlanTable, ReductionIsTheSameForEveryOutputAndParameter) {
    const Row& row = GetParam();
    const TensorView x = geometry(row.shape, row.layout);
    const std::string expected = line(plan_of(nest_of(x, row.reduce), 1), "reduce");
    for (const Layout& layout : layouts()) {
        const TensorView y = geometry(row.shape, layout);
        EXPECT_EQ(line(plan_of(nest_of(x, row.reduce, y), 1), "reduce"), expected) << layout.name;
        for (int axis = 0; axis < x.rank; ++axis) {
            EXPECT_EQ(line(plan_of(nest_of(x, row.reduce, y, {axis}), 1), "reduce"), expected) << layout.name << axis;
        }
    }
}

/// Those with a batch: a first axis that is kept.
std::vector<Row> rows_with_batch() {
    std::vector<Row> result;
    for (const Row& row : table) {
        if (row.reduce.front() != 0) result.push_back(row);
    }
    return result;
}

class PlanOfBatch : public testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, PlanOfBatch, testing::ValuesIn(rows_with_batch()),
                         [](const auto& info) { return info.param.name; });

/// A sample alone is summed as it is in the batch.
TEST_P(PlanOfBatch, ReductionIsTheSameForEveryBatch) {
    const Row& row = GetParam();
    Shape shape = row.shape;
    const std::string expected = line(plan_of(nest_of(geometry(shape, row.layout), row.reduce), 1), "reduce");
    for (std::int64_t batch : {1, 2, 37}) {
        shape[0] = batch;
        const Plan plan = plan_of(nest_of(geometry(shape, row.layout), row.reduce), 4);
        EXPECT_EQ(line(plan, "reduce"), expected) << "batch of " << batch;
    }
}

TEST(Plan, SmallCallsAreSerial) {
    EXPECT_EQ(plan_of(nest_of(geometry({31, 1024}), {1}), 8).threads, 1);
    EXPECT_EQ(plan_of(nest_of(geometry({32, 1024}), {1}), 8).threads, 4);  // pieces of at least 32 KB
    EXPECT_EQ(plan_of(nest_of(geometry({64, 1024}), {1}), 8).threads, 8);
    EXPECT_LE(plan_of(nest_of(geometry({256, 768}), {1}), 2'000'000'000).threads, 256);
}

TEST(Plan, FewSetsAreSplit) {
    EXPECT_EQ(plan_of(nest_of(geometry({3, 200000}), {1}), 2).mode, Plan::Mode::split_sets);
    EXPECT_EQ(plan_of(nest_of(geometry({64, 10000}), {1}), 2).mode, Plan::Mode::whole_sets);
    EXPECT_EQ(plan_of(nest_of(geometry({3, 200000}), {1}), 1).mode, Plan::Mode::whole_sets);
}

TEST(Plan, GivenStatisticsOfFewSetsSplitThem) {
    PlanRequest request;
    request.statistics = false;
    EXPECT_EQ(detail::make_plan(nest_of(geometry({8, 16, 14, 14}), {0, 2, 3}), request).mode, Plan::Mode::split_sets);
    EXPECT_EQ(detail::make_plan(nest_of(geometry({5000, 2}), {1}), request).mode, Plan::Mode::whole_sets);
}

PlanRequest request_for(int threads, bool apply = true) {
    PlanRequest request;
    request.threads = threads;
    request.apply = apply;
    return request;
}

/// The batch norm of so many samples of 21 planes of 7x7.
Plan plan_of_planes(std::int64_t samples, const PlanRequest& request) {
    return detail::make_plan(nest_of(geometry({samples, 21, 7, 7}), {0, 2, 3}), request);
}

TEST(Plan, SetsInManyPlacesAreSplit) {
    EXPECT_EQ(plan_of_planes(1040, request_for(1)).mode, Plan::Mode::split_sets);
    EXPECT_EQ(plan_of_planes(1000, request_for(1)).mode, Plan::Mode::whole_sets) << "less than 4 MB";
    EXPECT_EQ(plan_of(nest_of(geometry({511, 64, 7, 7}), {0, 2, 3}), 1).mode, Plan::Mode::whole_sets);
    EXPECT_EQ(plan_of(nest_of(geometry({512, 64, 7, 7}), {0, 2, 3}), 1).mode, Plan::Mode::split_sets);
}

TEST(Plan, PiecesHavePagesOfEveryPlace) {
    PlanRequest request = request_for(1);
    request.wide_piece_bytes = 256 * 1024;
    EXPECT_EQ(plan_of_planes(500, request).sets.pieces, 1);  // 1024 elements are 21 planes
    request.cached_bytes = 1024 * 1024;
    EXPECT_EQ(plan_of_planes(500, request).sets.length, 7);  // 1 MB are ten channels: three pieces of equal length
}

TEST(Plan, MomentsOfPlanesAreReadInLongStretches) {
    const Nest nest = nest_of(geometry({4096, 64, 64}), {0, 2});
    const Plan plan = detail::make_plan(nest, request_for(2, false));
    EXPECT_EQ(plan.reduction.chunks, 4);
    EXPECT_EQ(plan.mode, Plan::Mode::split_sets);
    EXPECT_EQ(plan.sets.length, 32);  // two pieces of four chunks: four for each thread
    EXPECT_EQ(detail::make_plan(nest, request_for(1, false)).sets.pieces, 1);
}

TEST(Plan, ColumnsFromMemoryAreWholeRows) {
    const auto pieces = [](std::int64_t samples) {
        return plan_of(nest_of(geometry({samples, 28, 28, 256}), {1, 2}), 1).sets.pieces;
    };
    EXPECT_EQ(pieces(6), 6);
    EXPECT_EQ(pieces(5), 10) << "less than 4 MB";
}

// ---- Blocks of a set ------------------------------------------------------------------------------------------------

/// Marks the elements (offsets of x from the set's start) of all blocks; every reduced element must be met once.
void expect_blocks_partition(const Nest& whole) {
    // Blocks are of x alone.
    const Nest nest = detail::coalesce(whole, detail::operand_set(op_x, detail::op_cell));
    const Reduction reduction = detail::make_reduction(whole);
    Nest reduced;  // the loops of one set, or of `fold` neighbouring columns of it
    const int loops = reduction.fold > 1 ? nest.depth - 1 : nest.depth;
    for (int i = 0; i < loops; ++i) {
        if (nest.loops[i].reduced) reduced.loops[reduced.depth++] = nest.loops[i];
    }
    std::int64_t extent = 1;
    for (int i = 0; i < reduced.depth; ++i) extent += (reduced.loops[i].n - 1) * reduced.loops[i].stride[op_x];
    std::vector<char> met(static_cast<std::size_t>(extent), 0);
    // Interleaved rows are one row of the kernel: a set's elements are so many columns of it, and the rows of the tail.
    const std::int64_t row_stride = reduction.stride / reduction.interleave;
    const auto mark = [&](const Block& block, std::int64_t stride) {
        for (std::int64_t run = 0; run < block.runs; ++run) {
            for (std::int64_t i = 0; i < block.n; ++i) {
                const std::int64_t offset = block.offset + run * reduction.run_stride + i * stride;
                if (offset >= 0 && offset < extent) ++at(met, offset);
            }
        }
    };
    for (std::int64_t index = 0; index < reduction.blocks; ++index) {
        const Block block = detail::block_of(reduction, index);
        EXPECT_GE(block.runs, 1);
        EXPECT_GE(block.n, 1);
        for (std::int64_t row = 0; row < reduction.interleave; ++row) {
            mark({block.offset + row * row_stride, block.runs, block.n}, reduction.stride);
        }
    }
    mark({reduction.tail_offset, 1, reduction.tail_n}, row_stride);
    std::int64_t wrong = 0;
    detail::walk(reduced, reduced.depth, [&](const std::int64_t* offset) { wrong += at(met, offset[op_x])-- != 1; });
    EXPECT_EQ(wrong, 0) << text_of(nest);
    EXPECT_EQ(std::count(met.begin(), met.end(), 0), extent) << text_of(nest);
}

TEST(PlanBlocks, PartitionTheSetsOfTheTable) {
    for (const Row& row : table) expect_blocks_partition(nest_of(geometry(row.shape, row.layout), row.reduce));
}

TEST(PlanBlocks, PartitionLongSets) {
    expect_blocks_partition(nest_of(geometry({65537}), {0}));
    expect_blocks_partition(nest_of(geometry({3000, 3}), {0}));
    expect_blocks_partition(nest_of(geometry({7, 2, 4097}), {0, 2}));  // rows of more than a block, repeated
    expect_blocks_partition(nest_of(geometry({90, 2, 100}), {0, 2}));  // many runs a block
    expect_blocks_partition(nest_of(geometry({5, 2, 300, 3, 4}), {0, 2, 4}));
    expect_blocks_partition(nest_of(geometry({5, 2, 300, 3, 4, 2}), {0, 2, 4}));
}

TEST(PlanBlocks, PartitionRandomSets) {
    Random random(11);
    for (int round = 0; round < 60; ++round) expect_blocks_partition(random_nest(random, 9000));
}

TEST(PlanBlocks, AreShortEnoughToBoundCancellation) {
    Random random(12);
    for (int round = 0; round < 60; ++round) {
        const Reduction reduction = detail::make_reduction(random_nest(random, 20000));
        EXPECT_LE(reduction.block_n * reduction.block_runs, 4096);
        EXPECT_LE(reduction.chunks, 256);
        EXPECT_GE(reduction.chunks * reduction.chunk_blocks, reduction.blocks);
        EXPECT_LT((reduction.chunks - 1) * reduction.chunk_blocks, reduction.blocks);
    }
}

TEST(PlanBlocks, ChunksOfHugeSetsStayFew) {
    for (const Shape& shape : {Shape{1, std::int64_t{1} << 40}, Shape{std::int64_t{1} << 34, 5}}) {
        const int axis = shape[0] == 1 ? 1 : 0;
        const Nest nest = nest_of(geometry(shape, {shape[1], 1}), {axis});
        EXPECT_LE(detail::make_reduction(nest).chunks, 256);
    }
}

// ---- Pieces of a cut ------------------------------------------------------------------------------------------------

/// Every element of the nest is in exactly one piece; of a cut into whole sets, all of a set in the same.
void expect_pieces_partition(const Plan& plan, const Cut& cut) {
    const Nest& nest = plan.nest;
    std::int64_t last = 0;
    for (int i = 0; i < nest.depth; ++i) last += (nest.loops[i].n - 1) * nest.loops[i].stride[op_x];
    std::vector<std::int64_t> piece_of_element(static_cast<std::size_t>(last + 1), -1);
    std::vector<std::int64_t> piece_of_cell(static_cast<std::size_t>(nest.cells()), -1);
    std::int64_t elements = 0, twice = 0, torn = 0;
    for (std::int64_t index = 0; index < cut.pieces; ++index) {
        const Nest piece = detail::piece_of(nest, cut, index);
        ASSERT_GE(piece.size(), 1) << detail::to_string(plan);
        detail::walk(piece, piece.depth, [&](const std::int64_t* offset) {
            std::int64_t& owner = at(piece_of_element, offset[op_x] - nest.offset[op_x]);
            twice += owner >= 0 ? 1 : 0;
            owner = index;
            std::int64_t& cell_owner = at(piece_of_cell, offset[detail::op_cell]);
            torn += cell_owner >= 0 && cell_owner != index ? 1 : 0;
            cell_owner = index;
            ++elements;
        });
    }
    EXPECT_EQ(elements, nest.size()) << detail::to_string(plan);
    EXPECT_EQ(twice, 0) << detail::to_string(plan);
    EXPECT_TRUE(torn == 0 || !cut.kept_only) << detail::to_string(plan);
}

/// Cells of the largest piece of whole sets, counted.
std::int64_t most_cells(const Plan& plan) {
    std::int64_t most = 0;
    for (std::int64_t index = 0; index < plan.sets.pieces; ++index) {
        most = std::max(most, detail::piece_of(plan.nest, plan.sets, index).cells());
    }
    return most;
}

class PlanPieces : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(, PlanPieces, testing::Values(1, 2, 3, 16),
                         [](const auto& info) { return "threads" + std::to_string(info.param); });

/// Elements of 2 KB make pieces of 128 down to 16 elements, so that small nests are cut often.
TEST_P(PlanPieces, PartitionRandomNests) {
    Random random(static_cast<std::uint64_t>(GetParam()));
    std::int64_t cuts = 0;
    for (int round = 0; round < 60; ++round) {
        PlanRequest request;
        request.threads = GetParam();
        request.element_bytes = 2048;
        const Plan plan = detail::make_plan(random_nest(random, 1500), request);
        expect_pieces_partition(plan, plan.sets);
        expect_pieces_partition(plan, plan.elements);
        EXPECT_LE(most_cells(plan) * plan.reduction.fold, plan.piece_columns) << detail::to_string(plan);
        cuts += plan.sets.pieces > 1 ? 1 : 0;
    }
    EXPECT_GT(cuts, 20);
}

TEST_P(PlanPieces, PartitionManyCells) {
    for (const Shape& shape : {Shape{3, 5000}, Shape{5000, 3}}) {
        for (int axis : {0, 1}) {
            const Plan plan = plan_of(nest_of(geometry(shape), {axis}), GetParam());
            expect_pieces_partition(plan, plan.sets);
            expect_pieces_partition(plan, plan.elements);
            EXPECT_LE(plan.piece_columns, 1024) << detail::to_string(plan);
        }
    }
}

TEST_P(PlanPieces, ScratchIsBounded) {
    Random random(static_cast<std::uint64_t>(100 + GetParam()));
    for (int round = 0; round < 200; ++round) {
        const Plan plan = plan_of(random_nest(random, 60000), GetParam());
        EXPECT_LE(plan.piece_columns, 1024 + 16) << detail::to_string(plan);
        EXPECT_LE(plan.pack_elements, 8192) << detail::to_string(plan);
    }
}

TEST(Plan, OneElementIsOnePiece) {
    const Plan plan = plan_of(nest_of(geometry({}), {}), 4);
    EXPECT_EQ(plan.sets.pieces, 1);
    EXPECT_EQ(plan.elements.pieces, 1);
    EXPECT_EQ(detail::piece_of(plan.nest, plan.sets, 0).size(), 1);
}

}  // namespace
}  // namespace anynorm::test
