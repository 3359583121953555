#define LANES 8
#include <immintrin.h>

#include "generic.h"

namespace metaembed {
namespace {

// Every processor with AVX2 has F16C, which clang cannot ask for.
bool is_supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace

extern const InstructionSet avx2 = {"avx2", is_supported, LANES, form_of, pack,
            score, any_above};

}  // namespace metaembed
