#define HAS_BF16 1
#define HAS_INT8 1
#include "avx512.h"

namespace metaembed {
extern const InstructionSet avx512_bf16 = {"avx512-bf16", is_supported, LANES, form_of, pack,
            score, any_above};
}
