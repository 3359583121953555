// Late interaction in registers, written once for every instruction set. The file that includes
// this one defines, in its own anonymous namespace: LANES, `vector` (LANES floats), `HAS_BF16`,
// `HAS_INT8`, and the operations listed below.
//
//   vector load(const float*)              void store(float*, vector)
//   vector max_of(vector, vector)          float add_up(vector)
//   vector pair_sums(vector a, vector b)   a0 + a1, a2 + a3, …, b0 + b1, …
//   vector weighted(maxima, weights)       the product of what they point to
//   struct Float32, Bfloat16, Int8 with    Accumulator zero(), start(offsets)
//     Operand broadcast<SPLIT>(const uint8_t*)     SPLIT units, repeated
//     Operand query(const uint32_t*)
//     void mac(Accumulator&, Operand query, Operand candidate)
//     vector finish<SPLIT>(Accumulator)            sums of neighbouring SPLIT lanes, as floats
//
// A tile is COUNT candidate vectors against GROUPS registers of query vectors: each broadcast of a
// candidate serves all GROUPS, each load of a query all COUNT. The order in which the products of
// a pair are added depends on `split` and the dimension alone, so identical items tie.

#include <cstring>

#include "plan.h"

namespace metaembed {
namespace {

// Memory takes about 100 ns to answer, in which a thread reads 2 KiB; more is fetched ahead to even
// out the bursts. Into the second cache: what is fetched into the first waits for one of its few
// slots, and the tiles with it.
constexpr ptrdiff_t AHEAD = 8192;
inline void fetch(const void* soon) { __builtin_prefetch(soon, 0, 2); }

template <class F, int SPLIT, int GROUPS, int COUNT>
inline __attribute__((always_inline)) void tile(const uint8_t* candidates, ptrdiff_t stride,
                                                ptrdiff_t ahead, const uint32_t* panel,
                                                const int32_t* offsets, int steps,
                                                vector (&dots)[GROUPS][COUNT]) {
    typename F::Accumulator sums[GROUPS][COUNT];
#pragma GCC unroll 2
    for (int g = 0; g < GROUPS; ++g)
#pragma GCC unroll 16
        for (int c = 0; c < COUNT; ++c) sums[g][c] = F::start(offsets + g * LANES);
    const ptrdiff_t panel_stride = ptrdiff_t(steps) * LANES;
    const ptrdiff_t three = 3 * stride;
    const uint8_t* quads[(COUNT + 3) / 4];
    for (int c = 0; c < COUNT; c += 4) quads[c / 4] = candidates + c * stride;
    // Processors do not see that so many short steps are one stream: fetch it for them, step by
    // step, or before the first where there are few (measured: 10 to 25 % of a search at `2x4`).
    constexpr bool AT_ONCE = SPLIT >= 8;
    constexpr int STEP_BYTES = COUNT * SPLIT * 4;
    const uint8_t* soon = candidates + ahead;
    for (int line = 0; AT_ONCE && line < STEP_BYTES * steps; line += 64) fetch(soon + line);
    for (int step = 0; step < steps; ++step) {
        if constexpr (!AT_ONCE) {
            for (int line = 0; line < STEP_BYTES; line += 64) fetch(soon + line);
            soon += STEP_BYTES;
        }
        typename F::Operand queries[GROUPS];
#pragma GCC unroll 2
        for (int g = 0; g < GROUPS; ++g) queries[g] = F::query(panel + g * panel_stride);
        panel += LANES;
#pragma GCC unroll 16
        for (int c = 0; c < COUNT; ++c) {
            const uint8_t* quad = quads[c / 4];
            const uint8_t* at = c % 4 == 0 ? quad : c % 4 == 1 ? quad + stride
                                                : c % 4 == 2   ? quad + 2 * stride
                                                               : quad + three;
            const typename F::Operand candidate = F::template broadcast<SPLIT>(at);
#pragma GCC unroll 2
            for (int g = 0; g < GROUPS; ++g) F::mac(sums[g][c], queries[g], candidate);
        }
        for (int q = 0; q < (COUNT + 3) / 4; ++q) quads[q] += 4 * SPLIT;
    }
#pragma GCC unroll 2
    for (int g = 0; g < GROUPS; ++g)
#pragma GCC unroll 16
        for (int c = 0; c < COUNT; ++c) dots[g][c] = F::template finish<SPLIT>(sums[g][c]);
}

constexpr int SCALES_AHEAD = 128;  // floats

// The vectors of some items in the form that tiles read.
struct Block {
    const uint8_t* vectors;
    ptrdiff_t stride, item_stride;  // bytes from vector to vector, item to item
    ptrdiff_t ahead;                // how far in front of a tile to fetch
    const float* scales;
    int scale_stride;  // from item to item
    int count, used;   // items, vectors an item
};

template <class F, int SPLIT, int GROUPS>
struct Scan {
    const Block& block;
    const uint32_t* panel;
    const int32_t* offsets;
    int steps;
    float* maxima;            // (GROUPS, .., LANES)
    ptrdiff_t group_stride;   // floats from group to group

    // ITEMS items of USED vectors each, which lie one after another.
    template <int ITEMS, int USED>
    inline __attribute__((always_inline)) void items_tile(int item) {
        vector dots[GROUPS][ITEMS * USED];
        const int at = item * USED;
        fetch(block.scales + at + SCALES_AHEAD);
        tile<F, SPLIT, GROUPS, ITEMS * USED>(block.vectors + at * block.stride, block.stride,
                                             block.ahead, panel, offsets, steps, dots);
#pragma GCC unroll 16
        for (int i = 0; i < ITEMS; ++i)
#pragma GCC unroll 2
            for (int g = 0; g < GROUPS; ++g) {
                float* at_item = maxima + g * group_stride + ptrdiff_t(item + i) * LANES;
                vector best = load(at_item);
#pragma GCC unroll 4
                for (int v = i * USED; v < (i + 1) * USED; ++v)
                    best = max_of(best, F::scaled(dots[g][v], block.scales + at + v));
                store(at_item, best);
            }
    }

    template <int USED>
    void by_tile() {
        constexpr int VECTORS = GROUPS == 1 ? MAX_TILE : MAX_TILE > 8 ? 8 : MAX_TILE;
        constexpr int ITEMS = VECTORS / USED;
        int item = 0;
        for (; item + ITEMS <= block.count; item += ITEMS) items_tile<ITEMS, USED>(item);
        for (; item < block.count; ++item) items_tile<1, USED>(item);
    }

    // COUNT vectors of one item, whose maxima stay in registers.
    template <int COUNT>
    inline __attribute__((always_inline)) void item_tile(const uint8_t*& vectors,
                                                         const float*& scales,
                                                         vector (&best)[GROUPS]) {
        vector dots[GROUPS][COUNT];
        tile<F, SPLIT, GROUPS, COUNT>(vectors, block.stride, block.ahead, panel, offsets, steps,
                                      dots);
#pragma GCC unroll 16
        for (int c = 0; c < COUNT; ++c)
#pragma GCC unroll 2
            for (int g = 0; g < GROUPS; ++g)
                best[g] = max_of(best[g], F::scaled(dots[g][c], scales + c));
        vectors += COUNT * block.stride, scales += COUNT;
    }

    void by_item() {
        for (int item = 0; item < block.count; ++item) {
            const uint8_t* vectors = block.vectors + item * block.item_stride;
            const float* scales = block.scales + ptrdiff_t(item) * block.scale_stride;
            float* at = maxima + ptrdiff_t(item) * LANES;
            vector best[GROUPS];
            for (int g = 0; g < GROUPS; ++g) best[g] = load(at + g * group_stride);
            int left = block.used;
            if constexpr (MAX_TILE >= 16 && GROUPS == 1)
                for (; left >= 16; left -= 16) item_tile<16>(vectors, scales, best);
            if constexpr (MAX_TILE >= 8)
                for (; left >= 8; left -= 8) item_tile<8>(vectors, scales, best);
            for (; left >= 4; left -= 4) item_tile<4>(vectors, scales, best);
            if (left == 3) item_tile<3>(vectors, scales, best);
            if (left == 2) item_tile<2>(vectors, scales, best);
            if (left == 1) item_tile<1>(vectors, scales, best);
            for (int g = 0; g < GROUPS; ++g) store(at + g * group_stride, best[g]);
        }
    }

    void run() {
        if (block.item_stride == block.used * block.stride && block.scale_stride == block.used)
            switch (block.used) {
                case 1: return by_tile<1>();
                case 2: return by_tile<2>();
                case 3: return by_tile<3>();
                case 4: return by_tile<4>();
            }
        by_item();
    }
};

#if HAS_SUM_EACH
// A single query vector fills a register by itself, and the sums of as many candidate vectors as a
// register has lanes are taken at once: lanes then are candidates, and maxima one float an item.
template <class F>
struct SingleScan {
    const Block& block;
    const uint32_t* panel;
    const int32_t* offsets;
    int steps;
    float* maxima;  // (items)

    // The dot products of `count` vectors, one a lane; what is beyond repeats the last.
    template <bool FULL>
    inline __attribute__((always_inline)) vector dots(const uint8_t* vectors, const float* scales,
                                                      int count) const {
        typename F::Accumulator sums[LANES];
        const uint8_t* at[LANES];
#pragma GCC unroll 16
        for (int c = 0; c < LANES; ++c) {
            sums[c] = F::start(offsets);
            at[c] = vectors + (FULL || c < count ? c : count - 1) * block.stride;
        }
        fetch(scales + SCALES_AHEAD);
        const uint8_t* soon = vectors + block.ahead;
        for (int step = 0; step < steps; ++step) {
            const typename F::Operand query = F::query(panel + step * LANES);
#pragma GCC unroll 16
            for (int c = 0; c < LANES; ++c, soon += 64) {
                fetch(soon);
                F::mac(sums[c], query, F::template broadcast<LANES>(at[c] + step * LANES * 4));
            }
        }
        vector all = sum_each(sums);
        if constexpr (F::HAS_SCALES) {
            float few[LANES];
            if (!FULL) {
                for (int c = 0; c < LANES; ++c) few[c] = scales[c < count ? c : count - 1];
                scales = few;
            }
            all = all * load(scales);
        }
        return all;
    }

    void run() const {
        const bool is_one_row = block.item_stride == block.used * block.stride &&
                                block.scale_stride == block.used;
        if (is_one_row && block.used < LANES)
            flat();
        else
            by_item();
    }

    void flat() const {
        const int total = block.count * block.used;
        float some[LANES];
        for (int at = 0, item = 0, of_item = 0; at < total; at += LANES) {
            const uint8_t* vectors = block.vectors + at * block.stride;
            const int count = total - at < LANES ? total - at : LANES;
            store(some, count == LANES ? dots<true>(vectors, block.scales + at, count)
                                       : dots<false>(vectors, block.scales + at, count));
            if (block.used == 1) {
                for (int c = 0; c < count; ++c)
                    maxima[at + c] = maxima[at + c] > some[c] ? maxima[at + c] : some[c];
                continue;
            }
            for (int c = 0; c < count; ++c) {
                if (some[c] > maxima[item]) maxima[item] = some[c];
                if (++of_item == block.used) of_item = 0, ++item;
            }
        }
    }

    void by_item() const {
        float some[LANES];
        for (int item = 0; item < block.count; ++item) {
            const uint8_t* vectors = block.vectors + item * block.item_stride;
            const float* scales = block.scales + ptrdiff_t(item) * block.scale_stride;
            vector best = vector{} + maxima[item];
            int at = 0;
            for (; at + LANES <= block.used; at += LANES)
                best = max_of(best, dots<true>(vectors + at * block.stride, scales + at, LANES));
            if (at < block.used)
                best = max_of(best, dots<false>(vectors + at * block.stride, scales + at,
                                                block.used - at));
            store(some, best);
            float most = some[0];
            for (int c = 1; c < LANES; ++c) most = some[c] > most ? some[c] : most;
            maxima[item] = most;
        }
    }
};
#endif

template <class F, int SPLIT, int GROUPS>
void scan(const Plan& plan, const Block& block, int group, float* maxima) {
    const ptrdiff_t group_stride = ptrdiff_t(plan.chunk) * LANES;
    Scan<F, SPLIT, GROUPS>{block,
                           plan.panel + ptrdiff_t(group) * plan.steps * LANES,
                           plan.offsets + group * LANES,
                           plan.steps,
                           maxima + group * group_stride,
                           group_stride}
        .run();
}

template <class F>
void scan_all(const Plan& plan, const Block& block, float* maxima) {
    switch (plan.split) {
#if HAS_SUM_EACH
        case LANES:
            return SingleScan<F>{block, plan.panel, plan.offsets, plan.steps, maxima}.run();
#else
        case LANES: return scan<F, LANES, 1>(plan, block, 0, maxima);
#endif
        case LANES / 2: return scan<F, LANES / 2, 1>(plan, block, 0, maxima);
#if LANES >= 8
        case LANES / 4:
            if (LANES / 4 > 1) return scan<F, LANES / 4, 1>(plan, block, 0, maxima);
            break;
#endif
#if LANES >= 16
        case LANES / 8:
            if (LANES / 8 > 1) return scan<F, LANES / 8, 1>(plan, block, 0, maxima);
            break;
#endif
    }
    int group = 0;
    for (; group + 2 <= plan.groups; group += 2) scan<F, 1, 2>(plan, block, group, maxima);
    if (group < plan.groups) scan<F, 1, 1>(plan, block, group, maxima);
}

// Whether the candidates' codes are what tiles of this form read.
inline bool is_direct(int32_t kind, int32_t form) {
    return (kind == FLOAT32 && form == FORM_FLOAT32) ||
           (kind == BFLOAT16 && form == FORM_BFLOAT16) || (kind == INT8 && form == FORM_INT8);
}

float half_to_float(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16, magnitude = half & 0x7fff;
    float number;
    if (magnitude < 0x400) {  // a denormal, exact in float32
        number = float(magnitude) * 0x1p-24f;
        uint32_t bits;
        std::memcpy(&bits, &number, 4);
        bits |= sign;
        std::memcpy(&number, &bits, 4);
        return number;
    }
    const uint32_t exponent = magnitude >= 0x7c00 ? 0xff : (magnitude >> 10) + 112;
    const uint32_t bits = sign | exponent << 23 | (magnitude & 0x3ff) << 13;
    std::memcpy(&number, &bits, 4);
    return number;
}

// One candidate vector into the form of the tiles. The instruction set's own `unpack` does what it
// can do faster.
void unpack(const uint8_t* codes, int32_t kind, int32_t form, int32_t dim, uint8_t* out);

void unpack_plainly(const uint8_t* codes, int32_t kind, int32_t form, int32_t dim, uint8_t* out) {
    const auto number = [&](int32_t d) -> float {
        switch (kind) {
            case FLOAT16: {
                uint16_t half;
                std::memcpy(&half, codes + 2 * d, 2);
                return half_to_float(half);
            }
            case BFLOAT16: {
                uint16_t upper;
                std::memcpy(&upper, codes + 2 * d, 2);
                const uint32_t bits = uint32_t(upper) << 16;
                float value;
                std::memcpy(&value, &bits, 4);
                return value;
            }
            case INT8: return float(int(codes[d]) - 128);
            case INT4: return float(int(codes[d / 2] >> 4 * (d % 2) & 15) - 8);
            default: return codes[d / 8] >> d % 8 & 1 ? 1.0f : -1.0f;
        }
    };
    if (form == FORM_INT8)
        for (int32_t d = 0; d < dim; ++d) out[d] = uint8_t(int(number(d)) + 128);
    else
        for (int32_t d = 0; d < dim; ++d) {
            const float value = number(d);
            std::memcpy(out + 4 * d, &value, 4);
        }
}

// A block of the items' vectors of one plane: where they lie if tiles can read them there, else
// copied or unpacked into the workspace.
Block prepare(const Plan& plan, const Plane& plane, const int64_t* rows, int64_t first, int count,
              const Workspace& work) {
    const int used = plane.used;
    const ptrdiff_t code = plane.code_bytes;
    const ptrdiff_t row_bytes = plane.width * code, used_bytes = used * code;
    const int rows_ahead = int(AHEAD / used_bytes) > 0 ? int(AHEAD / used_bytes) : 1;
    const bool direct = is_direct(plane.kind, plan.form);
    if (direct && !rows && (used == plane.width || used >= 8)) {
        // Tiles read whole steps; at the end of the plane that may be more than there is.
        const int64_t last = (first + count - 1) * plane.width + used - 1;
        if (last * code + plan.stride <= plane.rows * plane.width * code)
            return {plane.codes + first * row_bytes,
                    code,
                    row_bytes,
                    used == plane.width ? AHEAD : rows_ahead * row_bytes,
                    plane.scales ? plane.scales + first * plane.width : work.ones,
                    plane.scales ? plane.width : used,
                    count,
                    used};
    }
    uint8_t* out = work.vectors;
    for (int item = 0; item < count; ++item) {
        const int64_t row = rows ? rows[item] : first + item;
        const uint8_t* codes = plane.codes + row * row_bytes;
        if (!rows || item + rows_ahead < count) {
            const int64_t later = rows ? rows[item + rows_ahead] : row + rows_ahead;
            const uint8_t* soon = plane.codes + later * row_bytes;
            for (ptrdiff_t b = 0; b < used_bytes && b < AHEAD; b += 64) fetch(soon + b);
        }
        for (int v = 0; v < used; ++v, out += plan.stride, codes += code) {
            if (direct)
                std::memcpy(out, codes, size_t(code));
            else
                unpack(codes, plane.kind, plan.form, plan.queries.dim, out);
        }
        if (plane.scales)
            std::memcpy(work.scales + ptrdiff_t(item) * used, plane.scales + row * plane.width,
                        sizeof(float) * size_t(used));
    }
    return {work.vectors, plan.stride, ptrdiff_t(used) * plan.stride, 0,
            plane.scales ? work.scales : work.ones, used, count, used};
}

// The maxima of one item over all planes, weighted and summed for each query.
void sum_up(const Plan& plan, const float* maxima, float* sums, float* out) {
    const Queries& queries = plan.queries;
    const ptrdiff_t group_stride = ptrdiff_t(plan.chunk) * LANES;
    if (queries.count == 1) {
        vector total = weighted(maxima, plan.weights);
        for (int g = 1; g < plan.groups; ++g)
            total = total + weighted(maxima + g * group_stride, plan.weights + g * LANES);
        *out = add_up(total);
        return;
    }
    for (int g = 0; g < plan.groups; ++g)
        store(sums + g * LANES, weighted(maxima + g * group_stride, plan.weights + g * LANES));
    // Lanes that repeat another have weight 0. Neighbours are added while they pair off.
    int left = queries.r_q * plan.split, total = queries.count * left;
    for (; left % 2 == 0; left /= 2, total /= 2)
        for (int i = 0; i < total / 2; i += LANES)
            store(sums + i, pair_sums(load(sums + 2 * i), load(sums + 2 * i + LANES)));
    for (int q = 0; q < queries.count; ++q) {
        float sum = sums[q * left];
        for (int v = 1; v < left; ++v) sum += sums[q * left + v];
        out[q] = sum;
    }
}

bool score(const Plan& plan, const Plane* planes, int num_planes, const int64_t* rows,
           int64_t first, int count, const Workspace& work, float* out) {
    const ptrdiff_t group_stride = ptrdiff_t(plan.chunk) * LANES;
    for (int g = 0; g < plan.groups; ++g)
        for (ptrdiff_t i = 0; i < ptrdiff_t(count) * LANES; ++i)
            work.maxima[g * group_stride + i] = -__builtin_inff();
    for (int p = 0; p < num_planes; ++p) {
        const Block block = prepare(plan, planes[p], rows, first, count, work);
        switch (plan.form) {
#if HAS_BF16
            case FORM_BFLOAT16: scan_all<Bfloat16>(plan, block, work.maxima); break;
#endif
#if HAS_INT8
            case FORM_INT8: scan_all<Int8>(plan, block, work.maxima); break;
#endif
            default: scan_all<Float32>(plan, block, work.maxima);
        }
    }
    if (plan.queries.num_vectors() == 1) {
        const int lanes = HAS_SUM_EACH ? 1 : LANES;  // an item has
        for (int item = 0; item < count; ++item)
            out[item] = work.maxima[ptrdiff_t(item) * lanes] * plan.weights[0];
    } else {
        for (int item = 0; item < count; ++item)
            sum_up(plan, work.maxima + ptrdiff_t(item) * LANES, work.sums,
                   out + ptrdiff_t(item) * plan.queries.count);
    }
    int is_finite = 1;
    for (ptrdiff_t i = 0; i < ptrdiff_t(count) * plan.queries.count; ++i)
        is_finite &= __builtin_fabsf(out[i]) <= __FLT_MAX__;
    return is_finite;
}

bool any_above(const float* scores, const float* thresholds, int count) {
    int some = 0;
    for (int i = 0; i < count; ++i) some |= scores[i] > thresholds[i];
    return some;
}

int32_t form_of(int32_t kind) {
    if (HAS_BF16 && kind == BFLOAT16) return FORM_BFLOAT16;
    if (HAS_INT8 && kind >= INT8) return FORM_INT8;
    return FORM_FLOAT32;
}

// One unit of a query vector: the numbers that a lane multiplies in a step.
uint32_t unit(const float* numbers, int32_t form, int32_t dim, int32_t index) {
    uint32_t packed = 0;
    if (form == FORM_FLOAT32) {
        if (index < dim) std::memcpy(&packed, numbers + index, 4);
    } else if (form == FORM_BFLOAT16) {
        for (int i = 0; i < 2 && 2 * index + i < dim; ++i) {
            uint32_t bits;
            std::memcpy(&bits, numbers + 2 * index + i, 4);
            packed |= bits >> 16 << 16 * i;
        }
    } else {
        for (int i = 0; i < 4 && 4 * index + i < dim; ++i)
            packed |= uint32_t(uint8_t(int8_t(numbers[4 * index + i]))) << 8 * i;
    }
    return packed;
}

void pack(const Plan& plan) {
    const Queries& queries = plan.queries;
    const int vectors_a_group = LANES / plan.split;
    for (int g = 0; g < plan.groups; ++g)
        for (int lane = 0; lane < LANES; ++lane) {
            const int v = g * vectors_a_group + lane / plan.split;
            const bool is_real = v < queries.num_vectors();
            const float* numbers = queries.numbers + ptrdiff_t(v) * queries.dim;
            uint32_t* column = plan.panel + ptrdiff_t(g) * plan.steps * LANES + lane;
            for (int step = 0; step < plan.steps; ++step)
                column[step * LANES] =
                    is_real ? unit(numbers, plan.form, queries.dim,
                                   step * plan.split + lane % plan.split)
                            : 0;
            const bool counts = is_real && lane % plan.split == 0;
            plan.weights[g * LANES + lane] =
                !counts ? 0.0f : queries.scales ? queries.scales[v] : 1.0f;
            int32_t sum = 0;
            if (plan.form == FORM_INT8 && counts)
                for (int32_t d = 0; d < queries.dim; ++d) sum += int32_t(numbers[d]);
            // Added to one lane of a split, it reaches all of them in their sum.
            plan.offsets[g * LANES + lane] = -128 * sum;
        }
}

}  // namespace
}  // namespace metaembed
