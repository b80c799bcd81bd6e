#include <effinfer/execution/cpu.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace thread_pool_tests {

namespace ex = effinfer::execution;

TEST_CASE("each item is worked on once, for any count, grain and number of threads") {
  for (const int threads : {1, 2, 3, 8}) {
    ex::thread_pool pool(threads);
    CHECK(pool.threads() == threads);
    for (const std::ptrdiff_t count : {0, 1, 2, 7, 64, 1000}) {
      for (const std::ptrdiff_t grain : {0, 1, 3, 64, 5000}) {
        std::vector<int> seen(static_cast<std::size_t>(count), 0);
        std::atomic<bool> too_large = false;
        pool.parallel_for(count, grain, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
          if (threads > 1 && end - begin > std::max<std::ptrdiff_t>(grain, 1)) too_large = true;
          for (std::ptrdiff_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
        });
        CHECK(!too_large);
        for (const int s : seen) CHECK(s == 1);
      }
    }
  }
}

TEST_CASE("loops follow one another at once, and a loop's writes are there when it returns") {
  ex::thread_pool pool(3);
  std::vector<int> values(300, 0);
  for (int round = 1; round <= 3000; ++round) {
    pool.parallel_for(300, 50, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      for (std::ptrdiff_t i = begin; i < end; ++i) ++values[static_cast<std::size_t>(i)];
    });
    REQUIRE(values[static_cast<std::size_t>(round) % 300] == round);
  }
}

TEST_CASE("several callers share a pool") {
  ex::thread_pool pool(3);
  std::atomic<long> sum = 0;
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        pool.parallel_for(100, 7, [&](std::ptrdiff_t begin, std::ptrdiff_t end) { sum += end - begin; });
      }
    });
  }
  for (auto& c : callers) c.join();
  CHECK(sum == 4 * 500 * 100);
}

#if defined(__linux__)
TEST_CASE("a pinned worker may run on one core only, the caller where it could before") {
  cpu_set_t before, allowed;
  REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  for (const bool pin : {false, true}) {
    ex::thread_pool pool(3, pin);
    const auto caller = std::this_thread::get_id();
    std::atomic<int> workers = 0, wrong = 0;
    // Until a worker has come along: on a busy machine the caller may be through before.
    for (int round = 0; round < 10000 && workers == 0; ++round) {
      pool.parallel_for(64, 1, [&](std::ptrdiff_t, std::ptrdiff_t) {
        std::this_thread::sleep_for(std::chrono::microseconds(20));
        if (std::this_thread::get_id() == caller) return;
        cpu_set_t cores;
        const bool ok =
            sched_getaffinity(0, sizeof cores, &cores) == 0 && CPU_COUNT(&cores) == (pin ? 1 : CPU_COUNT(&before));
        if (!ok) ++wrong;
        ++workers;
      });
    }
    CHECK(workers > 0);
    CHECK(wrong == 0);
  }
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  CHECK(CPU_EQUAL(&allowed, &before));
}
#endif

TEST_CASE("pools come and go") {
  for (int i = 0; i < 200; ++i) {
    ex::thread_pool pool(4);
    if (i % 2 == 0) pool.parallel_for(10, 1, [](std::ptrdiff_t, std::ptrdiff_t) {});
  }
}

// A worker that is late to a loop meets the end of the pool: one that mistakes it for the loop sleeps for good.
TEST_CASE("a pool may end right after a loop") {
  for (int i = 0; i < 2000; ++i) ex::thread_pool(3).parallel_for(2, 1, [](std::ptrdiff_t, std::ptrdiff_t) {});
}

}  // namespace thread_pool_tests
