// Threads that stay: at the smallest budgets starting one costs more than a search.
#pragma once
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace metaembed {

class Threads {
  public:
    // Call work(0) here and work(1), …, work(count - 1) on other threads, and wait for all. When
    // somebody else is using the threads, call work(0) alone: the caller then does everything.
    static void run(int count, const std::function<void(int)>& work) {
        Threads& threads = shared();
        std::unique_lock<std::mutex> turn(threads.turn_, std::try_to_lock);
        if (count <= 1 || !turn.owns_lock()) return work(0);
        count = threads.grow(count);
        {
            std::lock_guard<std::mutex> lock(threads.mutex_);
            threads.work_ = &work;
            threads.wanted_ = count - 1;
            threads.running_.store(count - 1, std::memory_order_relaxed);
            threads.job_.fetch_add(1, std::memory_order_release);
        }
        threads.wake_.notify_all();
        work(0);
        for (int spin = 0; threads.running_.load(std::memory_order_acquire) > 0; ++spin)
            if (spin > 1000) std::this_thread::yield();
    }

  private:
    // A forked child has none of its parent's threads, and makes its own.
    static Threads& shared() {
        static std::mutex mutex;
        static Threads* threads = nullptr;
        static pid_t owner = 0;
        std::lock_guard<std::mutex> lock(mutex);
        if (!threads || owner != getpid()) threads = new Threads, owner = getpid();
        return *threads;  // never deleted: its threads live as long as the process
    }

    // Returns how many threads there are for the work, the caller included.
    int grow(int count) {
        try {
            while (started_ < count - 1) {
                std::thread([this, number = started_ + 1] { serve(number); }).detach();
                ++started_;
            }
        } catch (const std::exception&) {
        }
        return started_ + 1 < count ? started_ + 1 : count;
    }

    void serve(int number) {
        uint64_t done = 0;
        for (;;) {
            // The next search often comes at once, and sleeping and waking take longer than one.
            const auto patience = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
            while (job_.load(std::memory_order_acquire) == done &&
                   std::chrono::steady_clock::now() < patience)
                ;
            const std::function<void(int)>* work = nullptr;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return job_.load(std::memory_order_relaxed) != done; });
                done = job_.load(std::memory_order_relaxed);
                if (number <= wanted_) work = work_;
            }
            if (!work) continue;
            (*work)(number);
            running_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable wake_;
    std::atomic<uint64_t> job_{0};
    std::atomic<int> running_{0};
    const std::function<void(int)>* work_ = nullptr;
    int wanted_ = 0, started_ = 0;
};

}  // namespace metaembed
