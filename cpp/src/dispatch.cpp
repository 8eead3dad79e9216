// SPDX-License-Identifier: Apache-2.0
#include "dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(ANYNORM_HAVE_AVX2) || defined(ANYNORM_HAVE_AVX512)
#include <cpuid.h>
#endif

namespace anynorm::inline ANYNORM_ABI {
namespace {

constexpr int isa_count = 4;

#if defined(ANYNORM_HAVE_AVX2) || defined(ANYNORM_HAVE_AVX512)
// Clang's __builtin_cpu_supports does not know the name.
bool cpu_has_f16c() noexcept {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool cpu_has_avx2() noexcept {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && cpu_has_f16c();
}
#endif

bool cpu_can_run(Isa isa) noexcept {
    switch (isa) {
        case Isa::baseline:
            return true;
        case Isa::avx2:
#if defined(ANYNORM_HAVE_AVX2)
            return cpu_has_avx2();
#else
            return false;
#endif
        case Isa::avx512:
#if defined(ANYNORM_HAVE_AVX512)
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && cpu_has_avx2();
#else
            return false;
#endif
        case Isa::neon:
#if defined(ANYNORM_HAVE_NEON)
            return true;  // part of every AArch64 CPU
#else
            return false;
#endif
    }
    return false;
}

struct Available {
    Isa isas[isa_count];
    std::size_t count = 0;

    Available() noexcept {
        for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::neon}) {
            if (cpu_can_run(isa)) isas[count++] = isa;
        }
    }
};

const Available& available() noexcept {
    static const Available result;
    return result;
}

bool is_available(Isa isa) noexcept {
    for (Isa candidate : available_isas()) {
        if (candidate == isa) return true;
    }
    return false;
}

std::string names_of_available() {
    std::string text;
    for (Isa isa : available_isas()) text += std::string(text.empty() ? "" : ", ") + std::string(name(isa));
    return text;
}

Isa isa_from_environment() {
    const char* wanted = std::getenv("ANYNORM_ISA");
    if (wanted == nullptr || *wanted == '\0') return available_isas().back();
    for (Isa isa : available_isas()) {
        if (name(isa) == wanted) return isa;
    }
    throw std::invalid_argument("ANYNORM_ISA: expected one of " + names_of_available() + ", got " + wanted);
}

constexpr int not_chosen = -1;
std::atomic<int> chosen{not_chosen};

}  // namespace

std::string_view name(Isa isa) noexcept {
    switch (isa) {
        case Isa::baseline:
            return "baseline";
        case Isa::avx2:
            return "avx2";
        case Isa::avx512:
            return "avx512";
        case Isa::neon:
            return "neon";
    }
    return "unknown";
}

std::span<const Isa> available_isas() noexcept { return {available().isas, available().count}; }

Isa active_isa() {
    const int isa = chosen.load(std::memory_order_relaxed);
    if (isa != not_chosen) return static_cast<Isa>(isa);
    const Isa first = isa_from_environment();
    int expected = not_chosen;  // a use_isa() that came in between stays
    chosen.compare_exchange_strong(expected, static_cast<int>(first));
    return static_cast<Isa>(chosen.load());
}

void use_isa(Isa isa) {
    if (!is_available(isa)) {
        throw std::invalid_argument("use_isa: expected one of " + names_of_available() + ", got " +
                                    std::string(name(isa)));
    }
    chosen.store(static_cast<int>(isa));
}

}  // namespace anynorm::inline ANYNORM_ABI

namespace anynorm::detail {

const kernels::KernelTable* kernels_of(Isa isa) noexcept {
    switch (isa) {
        case Isa::baseline:
            return &kernels::baseline_table;
#if defined(ANYNORM_HAVE_AVX2)
        case Isa::avx2:
            return &kernels::avx2_table;
#endif
#if defined(ANYNORM_HAVE_AVX512)
        case Isa::avx512:
            return &kernels::avx512_table;
#endif
#if defined(ANYNORM_HAVE_NEON)
        case Isa::neon:
            return &kernels::neon_table;
#endif
        default:
            return nullptr;
    }
}

const kernels::KernelTable& active_kernels() { return *kernels_of(active_isa()); }

}  // namespace anynorm::detail
