// AVX-512. Compiled three times: with bfloat16 and byte dot products, with the latter, with neither.
#define LANES 16
#define MAX_TILE 16
#define HAS_SUM_EACH 1
#include <immintrin.h>

#include "plan.h"

namespace metaembed {
namespace {

using vector = __m512;

inline vector load(const float* at) { return _mm512_loadu_ps(at); }
inline void store(float* at, vector v) { _mm512_storeu_ps(at, v); }
inline vector max_of(vector a, vector b) { return _mm512_max_ps(a, b); }
inline float add_up(vector v) { return _mm512_reduce_add_ps(v); }
inline vector pair_sums(vector a, vector b) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return _mm512_add_ps(_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b));
}
inline vector weighted(const float* maxima, const float* weights) {
    return _mm512_mul_ps(load(maxima), load(weights));
}

template <int SPLIT>
inline __m512i broadcast_units(const uint8_t* at) {
    if constexpr (SPLIT == 1) return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(at));
    if constexpr (SPLIT == 2)
        return _mm512_set1_epi64(*reinterpret_cast<const long long*>(at));
    if constexpr (SPLIT == 4)
        return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    if constexpr (SPLIT == 8)
        return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
    return _mm512_loadu_si512(at);
}

template <int SPLIT>
inline __m512 sum_splits(__m512 v) {
    if constexpr (SPLIT >= 2) v = _mm512_add_ps(v, _mm512_permute_ps(v, 0xB1));
    if constexpr (SPLIT >= 4) v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4E));
    if constexpr (SPLIT >= 8) v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0xB1));
    if constexpr (SPLIT >= 16) v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0x4E));
    return v;
}

// Lane c of the result is the sum of all lanes of sums[c].
inline __m512 sum_each(const __m512 (&sums)[16]) {
    __m512 pairs[8], quads[4];
    for (int i = 0; i < 8; ++i)
        pairs[i] = _mm512_add_ps(_mm512_unpacklo_ps(sums[2 * i], sums[2 * i + 1]),
                                 _mm512_unpackhi_ps(sums[2 * i], sums[2 * i + 1]));
    for (int i = 0; i < 4; ++i) {
        const __m512d a = _mm512_castps_pd(pairs[2 * i]), b = _mm512_castps_pd(pairs[2 * i + 1]);
        quads[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                                 _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    const auto halves = [](__m512 a, __m512 b) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
    };
    return halves(halves(quads[0], quads[1]), halves(quads[2], quads[3]));
}

inline __m512 sum_each(const __m512i (&sums)[16]) {
    __m512i pairs[8], quads[4];
    for (int i = 0; i < 8; ++i)
        pairs[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[2 * i], sums[2 * i + 1]),
                                    _mm512_unpackhi_epi32(sums[2 * i], sums[2 * i + 1]));
    for (int i = 0; i < 4; ++i)
        quads[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(pairs[2 * i], pairs[2 * i + 1]),
                                    _mm512_unpackhi_epi64(pairs[2 * i], pairs[2 * i + 1]));
    const auto halves = [](__m512i a, __m512i b) {
        return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88),
                                _mm512_shuffle_i32x4(a, b, 0xDD));
    };
    return _mm512_cvtepi32_ps(
        halves(halves(quads[0], quads[1]), halves(quads[2], quads[3])));
}

struct Float32 {
    using Accumulator = __m512;
    using Operand = __m512;
    static Accumulator start(const int32_t*) { return _mm512_setzero_ps(); }
    static Operand query(const uint32_t* at) { return _mm512_loadu_ps(at); }
    template <int SPLIT>
    static Operand broadcast(const uint8_t* at) {
        return _mm512_castsi512_ps(broadcast_units<SPLIT>(at));
    }
    static void mac(Accumulator& sum, Operand query, Operand candidate) {
        sum = _mm512_fmadd_ps(candidate, query, sum);
    }
    template <int SPLIT>
    static vector finish(Accumulator sum) { return sum_splits<SPLIT>(sum); }
    static vector scaled(vector dots, const float* scale) {
        return _mm512_mul_ps(dots, _mm512_set1_ps(*scale));
    }
    static constexpr bool HAS_SCALES = true;
};

#if HAS_BF16
struct Bfloat16 {
    using Accumulator = __m512;
    using Operand = __m512bh;
    static Accumulator start(const int32_t*) { return _mm512_setzero_ps(); }
    static Operand query(const uint32_t* at) { return Operand(_mm512_loadu_si512(at)); }
    template <int SPLIT>
    static Operand broadcast(const uint8_t* at) { return Operand(broadcast_units<SPLIT>(at)); }
    static void mac(Accumulator& sum, Operand query, Operand candidate) {
        sum = _mm512_dpbf16_ps(sum, query, candidate);
    }
    template <int SPLIT>
    static vector finish(Accumulator sum) { return sum_splits<SPLIT>(sum); }
    static vector scaled(vector dots, const float*) { return dots; }
    static constexpr bool HAS_SCALES = false;
};
#endif

#if HAS_INT8
struct Int8 {
    using Accumulator = __m512i;
    using Operand = __m512i;
    static Accumulator start(const int32_t* offsets) { return _mm512_loadu_si512(offsets); }
    static Operand query(const uint32_t* at) { return _mm512_loadu_si512(at); }
    template <int SPLIT>
    static Operand broadcast(const uint8_t* at) { return broadcast_units<SPLIT>(at); }
    static void mac(Accumulator& sum, Operand query, Operand candidate) {
        sum = _mm512_dpbusd_epi32(sum, candidate, query);
    }
    template <int SPLIT>
    static vector finish(Accumulator v) {
        if constexpr (SPLIT >= 2) v = _mm512_add_epi32(v, _mm512_shuffle_epi32(v, _MM_PERM_CDAB));
        if constexpr (SPLIT >= 4) v = _mm512_add_epi32(v, _mm512_shuffle_epi32(v, _MM_PERM_BADC));
        if constexpr (SPLIT >= 8) v = _mm512_add_epi32(v, _mm512_shuffle_i32x4(v, v, 0xB1));
        if constexpr (SPLIT >= 16) v = _mm512_add_epi32(v, _mm512_shuffle_i32x4(v, v, 0x4E));
        return _mm512_cvtepi32_ps(v);
    }
    static vector scaled(vector dots, const float* scale) {
        return _mm512_mul_ps(dots, _mm512_set1_ps(*scale));
    }
    static constexpr bool HAS_SCALES = true;
};
#endif

}  // namespace
}  // namespace metaembed

#include "tiles.h"

namespace metaembed {
namespace {

void unpack(const uint8_t* codes, int32_t kind, int32_t form, int32_t dim, uint8_t* out) {
    int32_t d = 0;
    if (form == FORM_FLOAT32) {
        float* numbers = reinterpret_cast<float*>(out);
        for (; d + 16 <= dim; d += 16) {
            __m512 some;
            if (kind == FLOAT16)
                some = _mm512_cvtph_ps(
                    _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 2 * d)));
            else if (kind == BFLOAT16)
                some = _mm512_castsi512_ps(_mm512_slli_epi32(
                    _mm512_cvtepu16_epi32(
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 2 * d))),
                    16));
            else if (kind == INT8)
                some = _mm512_cvtepi32_ps(_mm512_sub_epi32(
                    _mm512_cvtepu8_epi32(
                        _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + d))),
                    _mm512_set1_epi32(128)));
            else
                break;
            _mm512_storeu_ps(numbers + d, some);
        }
    } else if (kind == INT4) {
        for (; d + 64 <= dim; d += 64) {
            const __m512i both = _mm512_cvtepu8_epi16(
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + d / 2)));
            const __m512i apart = _mm512_and_si512(
                _mm512_or_si512(both, _mm512_slli_epi16(both, 4)), _mm512_set1_epi8(15));
            _mm512_storeu_si512(out + d, _mm512_add_epi8(apart, _mm512_set1_epi8(120)));
        }
    } else if (kind == BINARY) {
        for (; d + 64 <= dim; d += 64) {
            uint64_t bits;
            std::memcpy(&bits, codes + d / 8, 8);
            _mm512_storeu_si512(
                out + d, _mm512_mask_blend_epi8(bits, _mm512_set1_epi8(127),
                                                _mm512_set1_epi8(char(129))));
        }
    }
    if (d == dim) return;
    // The rest, from a byte boundary of every kind.
    const int32_t skipped = kind == INT4     ? d / 2
                            : kind == BINARY ? d / 8
                            : kind == INT8   ? d
                                             : 2 * d;
    unpack_plainly(codes + skipped, kind, form, dim - d, out + (form == FORM_FLOAT32 ? 4 * d : d));
}

bool is_supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
#if HAS_INT8
           && __builtin_cpu_supports("avx512vnni")
#endif
#if HAS_BF16
           && __builtin_cpu_supports("avx512bf16")
#endif
        ;
}

}  // namespace
}  // namespace metaembed
