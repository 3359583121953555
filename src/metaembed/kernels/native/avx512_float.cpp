#define HAS_BF16 0
#define HAS_INT8 0
#include "avx512.h"

namespace metaembed {
extern const InstructionSet avx512_float = {"avx512-float", is_supported, LANES, form_of, pack,
            score, any_above};
}
