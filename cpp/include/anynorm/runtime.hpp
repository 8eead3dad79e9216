// SPDX-License-Identifier: Apache-2.0
// What runs: instruction set, threads, version.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "anynorm/version.hpp"

namespace anynorm::inline ANYNORM_ABI {

/// Instruction sets that kernels exist for. avx2, avx512 and neon give the same bits; baseline (SSE2 on x86-64, plain
/// code elsewhere) has no fused multiply-add and is outside that promise.
enum class Isa : std::uint8_t { baseline, avx2, avx512, neon };

std::string_view name(Isa isa) noexcept;

/// The compiled instruction sets that this CPU can run, slowest first.
std::span<const Isa> available_isas() noexcept;

/// The one in use: the fastest available, unless the environment variable ANYNORM_ISA (read at the first call) or
/// use_isa() chose another. Throws std::invalid_argument if ANYNORM_ISA names one that is unknown or not available.
Isa active_isa();

/// Chooses the instruction set of all later calls. Throws std::invalid_argument if it is not available.
void use_isa(Isa isa);

/// The number of threads a call uses when it is not told: omp_get_max_threads() at the time of the call; 1 without
/// OpenMP, and in a child made by fork(), where OpenMP runtimes hang. Calls at the same time share that number: one
/// uses what the others leave, at least its own thread.
int max_threads() noexcept;

/// Runs task(state, i) for every i in [0, count), in any order, on up to num_threads threads, and returns when all
/// are done. The tasks do not throw.
using ParallelFor = void (*)(std::int64_t count, int num_threads, void (*task)(void* state, std::int64_t index),
                             void* state);

/// Replaces OpenMP by the embedder's own thread pool; nullptr restores the default. The results do not depend on it.
/// How many threads a call asks for stays its num_threads or, left out, max_threads(), which is 1 without OpenMP.
void set_parallel_for(ParallelFor parallel_for) noexcept;

/// "0.1.0".
std::string_view version() noexcept;

}  // namespace anynorm::inline ANYNORM_ABI
