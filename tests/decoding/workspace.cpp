// decoding/workspace.hpp: nothing is allocated after the first token. Counts every allocation of this program.

#include <effinfer/decoding/sample.hpp>
#include <effinfer/decoding/temperature.hpp>
#include <effinfer/decoding/top_p.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <vector>

#include "decoding/reference.hpp"

namespace workspace_tests {
namespace {
std::atomic<long> allocations{0};
}
}  // namespace workspace_tests

// Not inlined: g++ then takes the pair malloc, free inside for a mismatch (-Wmismatched-new-delete).
__attribute__((noinline)) void* operator new(std::size_t bytes) {
  ++workspace_tests::allocations;
  if (void* p = std::malloc(bytes > 0 ? bytes : 1)) return p;
  throw std::bad_alloc();
}
// std::stable_sort asks for its buffer in this form, which the address sanitizer would otherwise answer itself.
__attribute__((noinline)) void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++workspace_tests::allocations;
  return std::malloc(bytes > 0 ? bytes : 1);
}
__attribute__((noinline)) void operator delete(void* p) noexcept { std::free(p); }
__attribute__((noinline)) void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace workspace_tests {

using namespace effinfer;

TEST_CASE("no rule allocates after the first token, however the distribution looks") {
  const std::size_t vocabulary = 5000;
  std::vector<std::vector<float>> rows;
  for (const float spread : {10.0f, 0.0f, 0.01f, 3.0f, 1.0f}) rows.push_back(reference::logits(vocabulary, 6, spread));
  const std::vector<int> history{1, 2, 3, 4, 4, 4};
  const auto count = [&](const auto& rule) {
    decoding::workspace scratch;
    std::vector<float> row(vocabulary);
    long before = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (i == 1) before = allocations;
      row.assign(rows[i].begin(), rows[i].end());
      (void)rule(row, history, random_stream{1}, i, scratch);
    }
    CHECK(before > 0);
    return allocations - before;
  };
  CHECK(count(decoding::temperature{}) == 0);
  CHECK(count(decoding::top_p{}) == 0);
  CHECK(count(decoding::sample{.temperature = 0.8f, .top_p = 0.99f, .repetition_penalty = 1.1f}) == 0);
  CHECK(count(decoding::sample{.top_k = 40, .top_p = 0.9f, .min_p = 0.01f}) == 0);
  CHECK(count(decoding::sample{.top_k = 3000}) == 0);
  CHECK(count(decoding::sample{.min_p = 0.01f}) == 0);
}

TEST_CASE("what a workspace was used for before changes nothing") {
  decoding::workspace used;
  const std::vector<int> history{7, 7, 8};
  for (std::uint64_t i = 0; i < 60; ++i) {
    const decoding::sample rule{
        .temperature = 0.9f, .top_k = i % 2 ? 20 : 0, .top_p = i % 3 ? 0.8f : 1, .presence_penalty = 1};
    decoding::workspace fresh;
    auto a = reference::logits(i % 4 ? 300 : 2000, i, 2);
    auto b = a;
    CHECK(rule(a, history, {2}, i, used) == rule(b, history, {2}, i, fresh));
  }
}

}  // namespace workspace_tests
