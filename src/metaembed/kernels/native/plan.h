// What the search and the tiles of each instruction set say to each other. Plain data only: these
// files are compiled several times with different flags, and must share no code of any library.
#pragma once
#include <cstddef>
#include <cstdint>

namespace metaembed {

enum Kind : int32_t { FLOAT32, FLOAT16, BFLOAT16, INT8, INT4, BINARY };  // metaembed.storage

// Consecutive vectors of every row of a segment: codes (rows, width, code_bytes), scales (rows, width).
struct Plane {
    const uint8_t* codes;
    const float* scales;  // null where the kind has none
    int64_t rows;
    int32_t kind;
    int32_t width;       // vectors a row
    int32_t used;        // of which the first so many are scored
    int32_t code_bytes;  // of one vector
};

// Queries as they are scored: num_vectors = queries * r_q vectors, already rounded.
struct Queries {
    int32_t count, r_q, dim;
    const float* numbers;  // (num_vectors, dim): values, or int8 codes where there are scales
    const float* scales;   // (num_vectors); null unless the planes are quantised
    int num_vectors() const { return count * r_q; }
};

// How one instruction set goes about one search. A *unit* is what one 32-bit lane multiplies in a
// step: one float, two bfloat16 or four bytes. A register holds `split` units of each of
// `lanes / split` query vectors, so that few query vectors still fill it; `split` lanes are then
// added up. Query vectors lie in `groups` registers a step; the panel is (groups, steps, lanes).
enum Form : int32_t { FORM_FLOAT32, FORM_BFLOAT16, FORM_INT8 };

struct Plan {
    int32_t form, split, groups, steps, lanes;
    int32_t stride;      // bytes of one candidate vector in this form, padded to whole steps
    int32_t chunk;       // items scored together
    uint32_t* panel;     // (groups, steps, lanes)
    int32_t* offsets;    // (groups, lanes): int8 only, what the zero point adds, to be subtracted
    float* weights;      // (groups, lanes): the query's scale, or 0 where a lane repeats another
    Queries queries;
};

// Memory of one thread.
struct Workspace {
    float* maxima;     // (groups, chunk, lanes)
    uint8_t* vectors;  // (chunk, used, stride): candidates unpacked; zeroed, since padding stays
    float* scales;     // (chunk, used)
    const float* ones;
    float* sums;       // (groups + 1, lanes)
};

struct InstructionSet {
    const char* name;
    bool (*is_supported)();
    int32_t lanes;
    int32_t (*form_of)(int32_t kind);
    void (*pack)(const Plan& plan);
    // Score `count` items: rows[i], or first + i when rows is null. out is (count, queries).
    // False when a score is not finite.
    bool (*score)(const Plan& plan, const Plane* planes, int num_planes, const int64_t* rows,
                  int64_t first, int count, const Workspace& work, float* out);
    bool (*any_above)(const float* scores, const float* thresholds, int count);
};

extern const InstructionSet avx512_bf16, avx512_vnni, avx512_float, avx2, portable;

inline int32_t units_of(int32_t form, int32_t dim) {
    const int32_t dims = form == FORM_FLOAT32 ? 1 : form == FORM_BFLOAT16 ? 2 : 4;
    return (dim + dims - 1) / dims;
}

}  // namespace metaembed
