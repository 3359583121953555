// What this machine can do at most: reads from memory, and multiplications between registers.
// machine.py compiles this file, calls it and divides.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

volatile uint64_t sink;  // keeps the compiler from dropping what nobody reads

// Runs work(thread) on every thread, begun together, and returns the seconds until all are done.
template <typename Work>
double together(int num_threads, Work work) {
  std::atomic<int> waiting{num_threads};
  std::atomic<bool> go{false};
  std::vector<std::thread> threads;
  for (int number = 0; number < num_threads; ++number) {
    threads.emplace_back([&, number] {
      --waiting;
      while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
      work(number);
    });
  }
  while (waiting.load() > 0) std::this_thread::yield();
  const auto start = std::chrono::steady_clock::now();
  go.store(true, std::memory_order_release);
  for (auto& thread : threads) thread.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

typedef uint64_t Line __attribute__((vector_size(64), aligned(64)));

// One body for every instruction set: the attribute of the caller decides how a line is loaded.
// `streams` places are read in turn; which number of streams is fastest depends on the machine.
template <int streams>
__attribute__((always_inline)) inline uint64_t read_streams(const Line* lines, size_t count) {
  Line sums[streams] = {};
  const size_t part = count / streams;
  for (size_t i = 0; i < part; ++i)
    for (int stream = 0; stream < streams; ++stream) sums[stream] ^= lines[stream * part + i];
  uint64_t all = 0;
  for (const Line& sum : sums)
    for (int i = 0; i < 8; ++i) all ^= sum[i];
  return all;
}

__attribute__((always_inline)) inline uint64_t read_lines(const Line* lines, size_t count,
                                                          int streams) {
  return streams == 1 ? read_streams<1>(lines, count) : read_streams<4>(lines, count);
}

uint64_t read_plain(const Line* lines, size_t count, int streams) {
  return read_lines(lines, count, streams);
}

#if defined(__x86_64__)
#define TARGET(features) __attribute__((target(features)))

TARGET("avx2") uint64_t read_avx2(const Line* lines, size_t count, int streams) {
  return read_lines(lines, count, streams);
}

TARGET("avx512f") uint64_t read_avx512(const Line* lines, size_t count, int streams) {
  return read_lines(lines, count, streams);
}
#endif

// Independent sums: at least latency times throughput of the multipliers, and they fit in the
// registers (16, or 32 with AVX-512) beside the operand.
constexpr int CHAINS = 12;

#if defined(__aarch64__)
#define IN_REGISTER "+w"
#else
#define IN_REGISTER "+v"
#endif

// The empty asm pins every sum to a register, so that no round is merged with another or dropped.
#define MULTIPLIER(name, attributes, sum_type, operand_type, operand, step) \
  attributes void name(long rounds) {                                       \
    sum_type sums[CHAINS] = {};                                             \
    operand_type a = operand;                                               \
    asm volatile("" : IN_REGISTER(a));                                      \
    for (long i = 0; i < rounds; ++i) {                                     \
      _Pragma("GCC unroll 12") for (int chain = 0; chain < CHAINS; ++chain) { \
        sum_type& sum = sums[chain];                                        \
        step;                                                               \
        asm volatile("" : IN_REGISTER(sum));                                \
      }                                                                     \
    }                                                                       \
  }

#if defined(__x86_64__) || defined(__aarch64__)
typedef float Floats __attribute__((vector_size(16)));
MULTIPLIER(multiply_plain, , Floats, Floats, (Floats{} + 0.5f), sum = a + sum * a)
#endif

#if defined(__x86_64__)

MULTIPLIER(fma_avx512, TARGET("avx512f"), __m512, __m512, _mm512_set1_ps(0.5f),
           sum = _mm512_fmadd_ps(a, a, sum))
MULTIPLIER(dot_bf16, TARGET("avx512f,avx512bf16"), __m512, __m512, _mm512_set1_ps(0.5f),
           sum = _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)a))
MULTIPLIER(dot_vnni, TARGET("avx512f,avx512vnni"), __m512i, __m512i, _mm512_set1_epi32(0x01010101),
           sum = _mm512_dpbusd_epi32(sum, a, a))
MULTIPLIER(fma_avx2, TARGET("avx2,fma"), __m256, __m256, _mm256_set1_ps(0.5f),
           sum = _mm256_fmadd_ps(a, a, sum))
MULTIPLIER(dot_avx2, TARGET("avx2"), __m256i, __m256i, _mm256_set1_epi8(1),
           __m256i pairs = _mm256_maddubs_epi16(a, a); asm volatile("" : "+v"(pairs));
           sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, a)))
#endif

struct Multiplier {
  const char* type;
  const char* instruction;
  double operations;  // of one round: a multiplication and an addition count as two
  bool usable;
  void (*run)(long rounds);
};

// The first usable one of a type is taken.
const std::vector<Multiplier>& multipliers() {
  static const std::vector<Multiplier> all = {
#if defined(__x86_64__)
      {"float32", "AVX-512 FMA", CHAINS * 32., bool(__builtin_cpu_supports("avx512f")), fma_avx512},
      {"bfloat16", "AVX-512 vdpbf16ps", CHAINS * 64.,
       bool(__builtin_cpu_supports("avx512bf16")), dot_bf16},
      {"int8", "AVX-512 vpdpbusd", CHAINS * 128., bool(__builtin_cpu_supports("avx512vnni")),
       dot_vnni},
      {"float32", "AVX2 FMA", CHAINS * 16.,
       __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), fma_avx2},
      {"int8", "AVX2 vpmaddubsw", CHAINS * 64., bool(__builtin_cpu_supports("avx2")), dot_avx2},
#endif
#if defined(__x86_64__) || defined(__aarch64__)
      {"float32", "128-bit multiply and add", CHAINS * 8., true, multiply_plain},
#endif
  };
  return all;
}

uint64_t (*reader())(const Line*, size_t, int) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return read_avx512;
  if (__builtin_cpu_supports("avx2")) return read_avx2;
#endif
  return read_plain;
}

}  // namespace

extern "C" {

// Seconds in which the threads read `num_bytes` between them, each a part of its own, in one
// stream or in four.
double read_seconds(const char* data, size_t num_bytes, int num_threads, int streams) {
  const auto read = reader();
  const Line* lines = reinterpret_cast<const Line*>((reinterpret_cast<uintptr_t>(data) + 63) & ~63);
  const size_t part = (num_bytes / sizeof(Line) - 1) / num_threads;
  return together(num_threads, [=](int thread) {
    sink = sink ^ read(lines + thread * part, part, streams);
  });
}

int num_multipliers() { return static_cast<int>(multipliers().size()); }
const char* multiplier_type(int which) { return multipliers()[which].type; }
const char* multiplier_instruction(int which) { return multipliers()[which].instruction; }
int multiplier_usable(int which) { return multipliers()[which].usable; }

// Operations a second of all threads together.
double multiply_rate(int which, long rounds, int num_threads) {
  const Multiplier& multiplier = multipliers()[which];
  const double seconds = together(num_threads, [&](int) { multiplier.run(rounds); });
  return multiplier.operations * rounds * num_threads / seconds;
}
}
