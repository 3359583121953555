// Float32 lanes by the compiler's vector extension: AVX2, NEON and whatever else it knows.
#define MAX_TILE 4
#define HAS_BF16 0
#define HAS_INT8 0
#define HAS_SUM_EACH 0
#include <cstring>

#include "plan.h"

namespace metaembed {
namespace {

typedef float vector __attribute__((vector_size(4 * LANES)));

inline vector load(const float* at) {
    vector v;
    std::memcpy(&v, at, sizeof v);
    return v;
}
inline void store(float* at, vector v) { std::memcpy(at, &v, sizeof v); }
inline vector max_of(vector a, vector b) { return a > b ? a : b; }
inline float add_up(vector v) {
    float parts[LANES];
    store(parts, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; ++i) parts[i] += parts[i + half];
    return parts[0];
}
inline vector pair_sums(vector a, vector b) {
    float in[2 * LANES], out[LANES];
    store(in, a), store(in + LANES, b);
    for (int i = 0; i < LANES; ++i) out[i] = in[2 * i] + in[2 * i + 1];
    return load(out);
}
inline vector weighted(const float* maxima, const float* weights) {
    return load(maxima) * load(weights);
}

struct Float32 {
    using Accumulator = vector;
    using Operand = vector;
    static Accumulator start(const int32_t*) { return vector{}; }
    static Operand query(const uint32_t* at) { return load(reinterpret_cast<const float*>(at)); }
    template <int SPLIT>
    static Operand broadcast(const uint8_t* at) {
        float units[LANES];
        std::memcpy(units, at, 4 * SPLIT);
        if constexpr (SPLIT == 1) return vector{} + units[0];
        for (int i = SPLIT; i < LANES; ++i) units[i] = units[i % SPLIT];
        return load(units);
    }
    static void mac(Accumulator& sum, Operand query, Operand candidate) {
        sum += candidate * query;
    }
    template <int SPLIT>
    static vector finish(Accumulator sum) {
        if constexpr (SPLIT == 1) return sum;
        float lanes[LANES];
        store(lanes, sum);
        for (int half = SPLIT / 2; half; half /= 2)
            for (int i = 0; i < LANES; ++i)
                if (i % SPLIT < half) lanes[i] += lanes[i + half];
        return load(lanes);
    }
    static vector scaled(vector dots, const float* scale) { return dots * *scale; }
};

}  // namespace
}  // namespace metaembed

#include "tiles.h"

namespace metaembed {
namespace {

void unpack(const uint8_t* codes, int32_t kind, int32_t form, int32_t dim, uint8_t* out) {
    float* numbers = reinterpret_cast<float*>(out);
    if (kind == BFLOAT16) {
        for (int32_t d = 0; d < dim; ++d) {
            uint16_t upper;
            std::memcpy(&upper, codes + 2 * d, 2);
            const uint32_t bits = uint32_t(upper) << 16;
            std::memcpy(numbers + d, &bits, 4);
        }
    } else if (kind == INT8) {
        for (int32_t d = 0; d < dim; ++d) numbers[d] = float(int(codes[d]) - 128);
#if defined(__F16C__) || defined(__aarch64__)
    } else if (kind == FLOAT16) {
#if defined(__F16C__)
        int32_t d = 0;
        for (; d + 8 <= dim; d += 8)
            _mm256_storeu_ps(numbers + d, _mm256_cvtph_ps(_mm_loadu_si128(
                                              reinterpret_cast<const __m128i*>(codes + 2 * d))));
        unpack_plainly(codes + 2 * d, kind, form, dim - d, out + 4 * d);
#else
        for (int32_t d = 0; d < dim; ++d) {
            __fp16 half;
            std::memcpy(&half, codes + 2 * d, 2);
            numbers[d] = half;
        }
#endif
#endif
    } else {
        unpack_plainly(codes, kind, form, dim, out);
    }
}

}  // namespace
}  // namespace metaembed
