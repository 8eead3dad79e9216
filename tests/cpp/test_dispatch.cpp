// SPDX-License-Identifier: Apache-2.0
// Which instruction set runs: what the machine has, what is asked for, and what the environment forces.
#include "dispatch.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "anynorm/runtime.hpp"
#include "support.hpp"

namespace anynorm::test {
namespace {

constexpr Isa all_isas[] = {Isa::baseline, Isa::avx2, Isa::avx512, Isa::neon};

bool is_available(Isa isa) {
    return std::find(available_isas().begin(), available_isas().end(), isa) != available_isas().end();
}

TEST(Dispatch, BaselineIsAlwaysAvailableAndSlowest) {
    ASSERT_FALSE(available_isas().empty());
    EXPECT_EQ(available_isas().front(), Isa::baseline);
}

TEST(Dispatch, AvailableIsasAscendWithoutRepetition) {
    const std::vector<Isa> isas = isas_of_this_machine();
    EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
    EXPECT_EQ(std::adjacent_find(isas.begin(), isas.end()), isas.end());
    // Whoever has AVX-512 has AVX2.
    EXPECT_TRUE(is_available(Isa::avx2) || !is_available(Isa::avx512));
}

TEST(Dispatch, Names) {
    EXPECT_EQ(name(Isa::baseline), "baseline");
    EXPECT_EQ(name(Isa::avx2), "avx2");
    EXPECT_EQ(name(Isa::avx512), "avx512");
    EXPECT_EQ(name(Isa::neon), "neon");
}

TEST(Dispatch, EveryAvailableIsaHasATableOfItsOwn) {
    std::vector<const kernels::KernelTable*> tables;
    for (Isa isa : available_isas()) {
        const kernels::KernelTable* table = detail::kernels_of(isa);
        ASSERT_NE(table, nullptr) << name(isa);
        EXPECT_NE(table->f32.moments_row, nullptr);
        EXPECT_NE(table->f64.moments_column, nullptr);
        for (int shape = 0; shape < 8; ++shape) {
            EXPECT_NE(table->f32.affine[shape], nullptr);
            EXPECT_NE(table->f64.affine[shape], nullptr);
        }
        EXPECT_EQ(std::count(tables.begin(), tables.end(), table), 0) << name(isa);
        tables.push_back(table);
    }
}

TEST(Dispatch, UseIsaChangesTheKernels) {
    for (Isa isa : available_isas()) {
        const UseIsa use(isa);
        EXPECT_EQ(active_isa(), isa);
        EXPECT_EQ(&detail::active_kernels(), detail::kernels_of(isa));
    }
}

TEST(Dispatch, UseIsaRefusesWhatTheMachineHasNot) {
    std::string available;
    for (Isa isa : available_isas()) available += (available.empty() ? "" : ", ") + std::string(name(isa));
    const Isa before = active_isa();
    int refused = 0;
    for (Isa isa : all_isas) {
        if (is_available(isa)) continue;
        try {
            use_isa(isa);
            ADD_FAILURE() << name(isa);
        } catch (const std::invalid_argument& error) {
            EXPECT_EQ(error.what(), "use_isa: expected one of " + available + ", got " + std::string(name(isa)));
        }
        EXPECT_EQ(active_isa(), before);
        ++refused;
    }
    EXPECT_GE(refused, 1);  // no machine has both AVX and NEON
}

/// Every other test restores what it found, so this holds wherever it runs among them.
TEST(Dispatch, EnvironmentForcesIsa) {
    const char* forced = std::getenv("ANYNORM_ISA");
    if (forced != nullptr && *forced != '\0') {
        EXPECT_EQ(name(active_isa()), forced);
    } else {
        EXPECT_EQ(active_isa(), available_isas().back());
    }
}

#if defined(__linux__)

/// Runs the test above in a process of its own, where the environment is read for the first time. The exit status,
/// 127 where this machine cannot start a process (an emulator). The shard that this process is one of is not the
/// other's affair: it would have no test to run.
int run_with_environment(const std::string& isa, std::string& output) {
    const std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
    const std::string command = "GTEST_TOTAL_SHARDS=1 GTEST_SHARD_INDEX=0 ANYNORM_ISA='" + isa + "' '" + program +
                                "' --gtest_filter=Dispatch.EnvironmentForcesIsa --gtest_brief=1 2>&1";
    std::FILE* pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) return 127;
    std::array<char, 256> line{};
    while (std::fgets(line.data(), static_cast<int>(line.size()), pipe) != nullptr) output += line.data();
    const int status = pclose(pipe);
    return status < 0 ? 127 : status >> 8;
}

TEST(DispatchProcess, EnvironmentIsReadAtTheFirstCall) {
    for (Isa isa : available_isas()) {
        std::string output;
        const int status = run_with_environment(std::string(name(isa)), output);
        if (status >= 126) GTEST_SKIP() << "no processes here: " << output;
        EXPECT_EQ(status, 0) << output;
        EXPECT_NE(output.find("[  PASSED  ] 1 test"), std::string::npos) << output;
    }
}

TEST(DispatchProcess, UnknownNameInTheEnvironmentIsRefused) {
    std::string output;
    const int status = run_with_environment("pentium", output);
    if (status >= 126) GTEST_SKIP() << "no processes here: " << output;
    EXPECT_NE(status, 0);
    EXPECT_NE(output.find("ANYNORM_ISA: expected one of baseline"), std::string::npos) << output;
    EXPECT_NE(output.find(", got pentium"), std::string::npos) << output;
}

#endif

}  // namespace
}  // namespace anynorm::test
