// Four lanes: NEON on ARM, SSE2 on x86, plain C++ elsewhere.
#define LANES 4
#include "generic.h"

namespace metaembed {
namespace {

bool is_supported() { return true; }

}  // namespace

#if defined(__aarch64__)
#define NAME "neon"
#else
#define NAME "portable"
#endif

extern const InstructionSet portable = {NAME, is_supported, LANES, form_of, pack,
            score, any_above};

}  // namespace metaembed
