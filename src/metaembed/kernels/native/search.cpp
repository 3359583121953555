// The search over all items: rounding queries, sharing items out to threads, keeping the best k.
// The interface to Python is at the end; metaembed/kernels/native.py is its other side.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "plan.h"
#include "threads.h"

namespace metaembed {
namespace {

const InstructionSet* const SETS[] = {
#if defined(__x86_64__)
    &avx512_bf16, &avx512_vnni, &avx512_float, &avx2,
#endif
    &portable};

constexpr size_t CHUNK_BYTES = 192 << 10;   // candidates scored together: they stay in cache
constexpr size_t MAXIMA_BYTES = 96 << 10;   // their running maxima
constexpr int MAX_CHUNK = 256;
constexpr int64_t SHARE_BYTES = 512 << 10;  // what a thread takes at a time
constexpr int64_t SMALL_BYTES = 128 << 10;  // a search that one thread has done before another wakes
constexpr double DENSE = 0.7;  // selected rows of a stretch from which scoring all of it is faster

struct Part {
    const Plane* planes;
    const int64_t* rows;  // null: all
    int64_t count;
};

template <class T>
class Buffer {
  public:
    explicit Buffer(size_t size) {
        const size_t bytes = (std::max<size_t>(size, 1) * sizeof(T) + 127) / 64 * 64;
        data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
        if (!data_) throw std::bad_alloc();
        std::memset(static_cast<void*>(data_), 0, bytes);
    }
    ~Buffer() { std::free(data_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    T* get() { return data_; }

  private:
    T* data_;
};

// --- queries as the storage type sees them (metaembed.storage.round_queries) ---

void round_to_bfloat16(float* numbers, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, numbers + i, 4);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
        std::memcpy(numbers + i, &bits, 4);
    }
}

void quantise(float* numbers, float* scales, int count, int dim) {
    for (int v = 0; v < count; ++v, numbers += dim) {
        float peak = 0;
        for (int d = 0; d < dim; ++d) peak = std::max(peak, std::fabs(numbers[d]));
        scales[v] = peak / 127.0f;
        for (int d = 0; d < dim; ++d) {
            const float code = scales[v] > 0 ? std::nearbyint(numbers[d] / scales[v]) : 0.0f;
            numbers[d] = std::min(127.0f, std::max(-127.0f, code));
        }
    }
}

// --- the best k of what one thread has seen, for one query ---

struct Entry {
    float score;
    int64_t position;
    bool operator<(const Entry& other) const {  // better
        return score > other.score || (score == other.score && position < other.position);
    }
};

// Entries come in ascending position, so that one with the score of the worst kept cannot enter.
class Top {
  public:
    explicit Top(size_t k) : k_(k) {}
    // Returns the score that another has to exceed.
    float offer(float score, int64_t position) {
        entries_.push_back({score, position});
        // Keeping more than k for a while costs less than a heap.
        if (entries_.size() >= 2 * k_ + 32) shrink();
        return threshold_;
    }
    const std::vector<Entry>& entries() const { return entries_; }

  private:
    void shrink() {
        std::nth_element(entries_.begin(), entries_.begin() + (k_ - 1), entries_.end());
        entries_.resize(k_);
        threshold_ = entries_.back().score;
    }
    size_t k_;
    std::vector<Entry> entries_;
    float threshold_ = -std::numeric_limits<float>::infinity();
};

struct Tops {
    std::vector<Top> of_query;
    std::vector<float> thresholds;
};

// --- one search ---

class Search {
  public:
    Search(const InstructionSet& set, Queries queries, const Part* parts, int num_parts,
           int num_planes, int64_t k)
        : set_(set), parts_(parts), num_parts_(num_parts), num_planes_(num_planes), k_(k),
          numbers_(size_t(queries.num_vectors()) * queries.dim), scales_(queries.num_vectors()) {
        const Plane* planes = parts[0].planes;
        const size_t count = size_t(queries.num_vectors()) * queries.dim;
        std::memcpy(numbers_.get(), queries.numbers, count * sizeof(float));
        queries.numbers = numbers_.get();
        if (planes[0].kind >= INT8) {
            quantise(numbers_.get(), scales_.get(), queries.num_vectors(), queries.dim);
            queries.scales = scales_.get();
        } else if (planes[0].kind == BFLOAT16) {
            round_to_bfloat16(numbers_.get(), count);
        }
        plan_.queries = queries;
        plan_.lanes = set.lanes;
        plan_.form = set.form_of(planes[0].kind);
        plan_.split = 1;
        while (plan_.split * 2 * queries.num_vectors() <= set.lanes) plan_.split *= 2;
        const int vectors_a_group = set.lanes / plan_.split;
        plan_.groups = (queries.num_vectors() + vectors_a_group - 1) / vectors_a_group;
        const int units = units_of(plan_.form, queries.dim);
        plan_.steps = (units + plan_.split - 1) / plan_.split;
        plan_.stride = plan_.steps * plan_.split * 4;
        choose_chunk(planes);
        for (int p = 0; p < num_parts; ++p) num_items_ += parts[p].count;
    }

    int64_t num_items() const { return num_items_; }

    // Scores of all items, (queries, items), or the best k of each query when k > 0.
    bool run(int threads, float* scores, int64_t* positions) {
        const size_t lanes = size_t(plan_.groups) * set_.lanes;
        Buffer<uint32_t> panel(lanes * plan_.steps);
        Buffer<int32_t> offsets(lanes);
        Buffer<float> weights(lanes);
        plan_.panel = panel.get(), plan_.offsets = offsets.get(), plan_.weights = weights.get();
        set_.pack(plan_);
        threads = num_items_ * bytes_an_item_ <= SMALL_BYTES ? 1 : std::max(1, threads);
        const size_t Q = plan_.queries.count;
        const Tops none{std::vector<Top>(k_ > 0 ? Q : 0, Top(size_t(k_))),
                        std::vector<float>(Q, -std::numeric_limits<float>::infinity())};
        std::vector<Tops> tops(threads, none);
        std::atomic<int64_t> next{0};
        std::atomic<bool> out_of_memory{false}, is_finite{true};
        Threads::run(threads, [&](int thread) {
            try {
                if (!work(next, tops[thread], scores)) is_finite = false;
            } catch (const std::bad_alloc&) {
                out_of_memory = true;
            }
        });
        if (out_of_memory) throw std::bad_alloc();
        if (k_ > 0 && is_finite) merge(tops, scores, positions);
        return is_finite;
    }

  private:
    void choose_chunk(const Plane* planes) {
        max_used_ = 1;
        int64_t used = 0, stored = 0;
        for (int p = 0; p < num_planes_; ++p) {
            max_used_ = std::max(max_used_, planes[p].used);
            used += planes[p].used;
            stored += int64_t(planes[p].used) * planes[p].code_bytes;
        }
        bytes_an_item_ = stored;
        const size_t maxima = size_t(plan_.groups) * set_.lanes * sizeof(float);
        const size_t fitting = std::min(CHUNK_BYTES / (size_t(used) * plan_.stride),
                                        MAXIMA_BYTES / maxima);
        plan_.chunk = int32_t(std::min<size_t>(MAX_CHUNK, std::max<size_t>(4, fitting)));
        chunks_a_share_ = std::max<int64_t>(1, SHARE_BYTES / (plan_.chunk * stored));
    }

    // Take shares of all items until there are none. False when a score was not finite.
    bool work(std::atomic<int64_t>& next, Tops& tops, float* scores) {
        const size_t Q = plan_.queries.count, chunk = plan_.chunk;
        Buffer<float> maxima(size_t(plan_.groups) * chunk * set_.lanes);
        Buffer<uint8_t> vectors(chunk * max_used_ * plan_.stride);
        Buffer<float> scales(chunk * max_used_), ones(chunk * max_used_);
        Buffer<float> sums(size_t(plan_.groups + 1) * set_.lanes), out(chunk * Q);
        std::fill_n(ones.get(), chunk * max_used_, 1.0f);
        const Workspace space{maxima.get(), vectors.get(), scales.get(), ones.get(), sums.get()};
        bool is_finite = true;
        const int64_t share = chunk * chunks_a_share_;
        for (int64_t start; (start = next.fetch_add(share)) < num_items_;) {
            const int64_t stop = std::min(start + share, num_items_);
            int64_t first_of_part = 0;
            for (int p = 0; p < num_parts_ && first_of_part < stop; ++p) {
                const Part& part = parts_[p];
                int64_t at = std::max(start, first_of_part) - first_of_part;
                const int64_t end = std::min(stop - first_of_part, part.count);
                while (at < end) {
                    const int count = score_some(part, at, end, space, out.get(), is_finite);
                    keep(out.get(), count, first_of_part + at, tops, scores);
                    at += count;
                }
                first_of_part += part.count;
            }
        }
        return is_finite;
    }

    // Score up to a chunk of a part's selected rows from `at`; returns how many.
    int score_some(const Part& part, int64_t at, int64_t end, const Workspace& space, float* out,
                   bool& is_finite) {
        int count = int(std::min<int64_t>(end - at, plan_.chunk));
        if (!part.rows) {
            is_finite &=
                set_.score(plan_, part.planes, num_planes_, nullptr, at, count, space, out);
            return count;
        }
        const int64_t* rows = part.rows + at;
        // A stretch with few gaps is scored as if it had none, and the gaps are then dropped.
        int dense = 0;
        while (dense < count && rows[dense] >= rows[0] && rows[dense] - rows[0] < plan_.chunk &&
               (dense == 0 || rows[dense] > rows[dense - 1]))
            ++dense;
        const int64_t span = rows[dense - 1] - rows[0] + 1;
        if (dense < DENSE * double(span) || dense * 2 < count) {
            is_finite &=
                set_.score(plan_, part.planes, num_planes_, rows, 0, count, space, out);
            return count;
        }
        is_finite &= set_.score(plan_, part.planes, num_planes_, nullptr, rows[0], int(span), space,
                                out);
        const size_t Q = plan_.queries.count;
        for (int i = 0; i < dense; ++i)
            if (rows[i] - rows[0] != i)
                std::memcpy(out + i * Q, out + (rows[i] - rows[0]) * Q, Q * sizeof(float));
        return dense;
    }

    void keep(const float* out, int count, int64_t position, Tops& tops, float* scores) const {
        const int64_t Q = plan_.queries.count;
        if (k_ == 0) {
            for (int i = 0; i < count; ++i)
                for (int64_t q = 0; q < Q; ++q) scores[q * num_items_ + position + i] = out[i * Q + q];
            return;
        }
        // Few scores get in: look at a row of them at once.
        float* thresholds = tops.thresholds.data();
        if (Q == 1) {
            for (int i = 0; i < count; i += 16) {
                const int stop = std::min(i + 16, count);
                int some = 0;
                for (int j = i; j < stop; ++j) some |= out[j] > thresholds[0];
                for (int j = i; some && j < stop; ++j)
                    if (out[j] > thresholds[0])
                        thresholds[0] = tops.of_query[0].offer(out[j], position + j);
            }
            return;
        }
        for (int i = 0; i < count; ++i, out += Q) {
            if (!set_.any_above(out, thresholds, int(Q))) continue;
            for (int64_t q = 0; q < Q; ++q)
                if (out[q] > thresholds[q])
                    thresholds[q] = tops.of_query[q].offer(out[q], position + i);
        }
    }

    void merge(const std::vector<Tops>& tops, float* scores, int64_t* positions) const {
        std::vector<Entry> all;
        for (int q = 0; q < plan_.queries.count; ++q) {
            all.clear();
            for (const Tops& of_thread : tops) {
                const auto& some = of_thread.of_query[q].entries();
                all.insert(all.end(), some.begin(), some.end());
            }
            const auto best = all.begin() + k_;
            if (best != all.end()) std::nth_element(all.begin(), best, all.end());
            std::sort(all.begin(), best);
            for (int64_t i = 0; i < k_; ++i) {
                scores[q * k_ + i] = all[size_t(i)].score;
                positions[q * k_ + i] = all[size_t(i)].position;
            }
        }
    }

    const InstructionSet& set_;
    const Part* parts_;
    int num_parts_, num_planes_, max_used_ = 1;
    int64_t k_, num_items_ = 0, bytes_an_item_ = 0, chunks_a_share_ = 1;
    Buffer<float> numbers_, scales_;
    Plan plan_{};
};

}  // namespace
}  // namespace metaembed

using namespace metaembed;

#define EXPORT extern "C" __attribute__((visibility("default")))

enum Status { OK, NOT_FINITE, OUT_OF_MEMORY, UNSUPPORTED };

// The name of the number-th instruction set if this processor has it, "" if not, null at the end.
EXPORT const char* metaembed_instruction_set(int number) {
    if (number < 0 || number >= int(sizeof SETS / sizeof *SETS)) return nullptr;
    return SETS[number]->is_supported() ? SETS[number]->name : "";
}

// Changes when plan.h's Plane, Part below it, or a signature does.
EXPORT int metaembed_interface() { return 1; }

// k > 0: the best k items of each query into scores and positions (queries, k); there must be k.
// k = 0: all scores into scores (queries, items).
EXPORT int metaembed_search(int set, const float* queries, int count, int r_q, int dim,
                            const Part* parts, int num_parts, int num_planes, int64_t k,
                            int threads, float* scores, int64_t* positions) {
    if (set < 0 || set >= int(sizeof SETS / sizeof *SETS) || !SETS[set]->is_supported())
        return UNSUPPORTED;
    try {
        Search search(*SETS[set], {count, r_q, dim, queries, nullptr}, parts, num_parts, num_planes,
                      k);
        return search.run(threads, scores, positions) ? OK : NOT_FINITE;
    } catch (const std::bad_alloc&) {
        return OUT_OF_MEMORY;
    }
}
