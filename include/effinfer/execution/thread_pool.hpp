#pragma once
// A fork-join pool: a decode step forks a few hundred times, so workers spin briefly before they sleep. A loop waits only
// for workers that have joined it: on a busy machine one that the system hasn't woken yet costs nothing.

#include <effinfer/core/config.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace effinfer::inline v0::execution {

/// `threads` threads, the caller among them. Several callers may use one pool at the same time: while
/// it is busy for one, another's loop runs on that caller's own thread alone, with the same result.
class thread_pool {
 public:
  /// Starts `threads - 1` workers; 0 or less means one a core. With `pin`, worker i stays on the i-th of the cores that the
  /// creating thread may run on (Linux; elsewhere, and where the system refuses, it moves freely). The calling threads are left
  /// alone: they are not the pool's.
  explicit thread_pool(int threads, bool pin = false) {
    if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    try {
      workers_.reserve(static_cast<std::size_t>(threads - 1));
      shares_ = std::min(threads, most_shares);
      for (int i = 1; i < threads; ++i) {
        workers_.emplace_back([this, i] { work(i); });
        if (pin) pin_to_core(workers_.back(), i);
      }
    } catch (...) {
      stop();
      throw;
    }
  }
  ~thread_pool() { stop(); }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  [[nodiscard]] int threads() const noexcept { return static_cast<int>(workers_.size()) + 1; }

  /// Calls `body(begin, end)` on parts of [0, count), each of at most `grain` items, and returns when all
  /// are done. A thread takes the parts of its own share of [0, count) one after the other, then those that others haven't
  /// got to: `body` must not care who runs which part, and must not throw.
  template <class Body>
  void parallel_for(std::ptrdiff_t count, std::ptrdiff_t grain, const Body& body) {
    if (count <= 0) return;
    grain = std::max<std::ptrdiff_t>(grain, 1);
    if (workers_.empty() || count <= grain) return body(std::ptrdiff_t{0}, count);
    std::unique_lock lock(busy_, std::try_to_lock);
    if (!lock) return body(std::ptrdiff_t{0}, count);
    for (int i = 0; i < shares_; ++i) {
      share_[i].next.store(count * i / shares_, std::memory_order_relaxed);
      share_[i].end = count * (i + 1) / shares_;
    }
    grain_ = grain;
    body_ = &body;
    call_ = [](const void* b, std::ptrdiff_t begin, std::ptrdiff_t end) { (*static_cast<const Body*>(b))(begin, end); };
    generation_.fetch_add(1, std::memory_order_release);
    gate_.store(open, std::memory_order_release);
    generation_.notify_all();
    take_parts(0);
    gate_.fetch_and(~open, std::memory_order_acq_rel);
    for (int spin = 0; gate_.load(std::memory_order_acquire) != 0; ++spin) {
      // A worker that is inside for long may have lost its core to somebody: leave it this one.
      spin < 4000 ? pause() : std::this_thread::yield();
    }
  }

 private:
  void take_parts(int thread) {
    for (int i = 0; i < shares_; ++i) {
      share& from = share_[(thread + i) % shares_];
      while (from.next.load(std::memory_order_relaxed) < from.end) {
        const std::ptrdiff_t begin = from.next.fetch_add(grain_, std::memory_order_relaxed);
        if (begin < from.end) call_(body_, begin, std::min(begin + grain_, from.end));
      }
    }
  }

  void work(int index) {
    std::uint32_t seen = 0;
    for (;;) {
      // About 20 us of spinning: longer than the serial gaps of a decode step, shorter than a time slice.
      for (int spin = 0; spin < 4000 && generation_.load(std::memory_order_acquire) == seen; ++spin) pause();
      generation_.wait(seen, std::memory_order_acquire);
      // In this order: stop() counts up last, and what it has counted must not be waited for.
      seen = generation_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_acquire)) return;
      std::uint32_t gate = gate_.load(std::memory_order_relaxed);
      while ((gate & open) != 0) {
        if (!gate_.compare_exchange_weak(gate, gate + one_inside, std::memory_order_acquire, std::memory_order_relaxed))
          continue;
        seen = generation_.load(std::memory_order_acquire);  // of the loop that was joined, maybe a newer one
        take_parts(index);
        gate_.fetch_sub(one_inside, std::memory_order_release);
        break;
      }
    }
  }

  void stop() {
    stopping_.store(true, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  static void pin_to_core([[maybe_unused]] std::thread& worker, [[maybe_unused]] int index) {
#if defined(__linux__) && defined(CPU_SET)
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    index %= std::max(CPU_COUNT(&allowed), 1);
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (!CPU_ISSET(core, &allowed) || index-- != 0) continue;
      CPU_ZERO(&one);
      CPU_SET(core, &one);
      pthread_setaffinity_np(worker.native_handle(), sizeof one, &one);
      return;
    }
#endif
  }

  static void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ volatile("isb");  // some 10 ns, as x86's; "yield" does nothing on most processors
#else
    std::this_thread::yield();
#endif
  }

  static constexpr std::uint32_t open = 1, one_inside = 2;

  /// A run of parts that threads begin with: a stream stays one stream, and cores far apart don't send a counter to and fro for
  /// each part (500 ns between two dies).
  struct alignas(64) share {
    std::atomic<std::ptrdiff_t> next{0};
    std::ptrdiff_t end = 0;
  };
  static constexpr int most_shares = 8;  ///< of more threads several have one together: whoever is done looks at all

  std::mutex busy_;
  share share_[most_shares];
  int shares_ = 1;
  // One cache line each for what all threads write and what they only read.
  alignas(64) std::atomic<std::uint32_t> gate_{0};  ///< `open` while a loop has parts, plus `one_inside` a worker in it
  alignas(64) std::atomic<std::uint32_t> generation_{0};
  std::atomic<bool> stopping_{false};
  std::ptrdiff_t grain_ = 1;
  const void* body_ = nullptr;
  void (*call_)(const void*, std::ptrdiff_t, std::ptrdiff_t) = nullptr;
  std::vector<std::thread> workers_;
};

}  // namespace effinfer::inline v0::execution
