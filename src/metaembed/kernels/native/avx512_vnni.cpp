#define HAS_BF16 0
#define HAS_INT8 1
#include "avx512.h"

namespace metaembed {
extern const InstructionSet avx512_vnni = {"avx512-vnni", is_supported, LANES, form_of, pack,
            score, any_above};
}
