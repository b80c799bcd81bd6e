// The sampling kernel on the host context: the tokens of decoding::sample, for the same seeds.

#include "simt/host.hpp"
#include "simt/numbers.hpp"

#include <effinfer/core/dtype.hpp>
#include <effinfer/decoding/cuda/sample.hpp>
#include <effinfer/decoding/cuda/weight.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/execution/instruction_set.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

namespace sampling_tests {

namespace ei = effinfer;
namespace decoding = ei::decoding;
using namespace simt_host;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Normal deviates times `spread` (Box and Muller 1958).
std::vector<float> logits(std::size_t count, std::uint64_t seed, float spread) {
  const ei::random_stream random{seed};
  std::vector<float> out(count);
  for (std::size_t i = 0; i < count; ++i) {
    const double radius = std::sqrt(-2 * std::log(1 - double{random.uniform(i, 0)}));
    out[i] = spread * static_cast<float>(radius * std::cos(6.283185307179586 * double{random.uniform(i, 1)}));
  }
  return out;
}

template <class T = float, int Threads = 128>
std::vector<int> drawn(const std::vector<T>& row, const std::vector<decoding::cuda::sample_row>& rows,
                       thread_order order) {
  using kernel = decoding::cuda::sample<T, Threads>;
  std::vector<T> all;
  for (std::size_t i = 0; i < rows.size(); ++i) all.insert(all.end(), row.begin(), row.end());
  std::vector<int> token(rows.size(), -9);
  typename kernel::args a{
      {all.data(), static_cast<std::ptrdiff_t>(rows.size()), static_cast<std::ptrdiff_t>(row.size())},
      rows.data(),
      token.data()};
  start<kernel>(a, order);
  // The same in several kernels, from memory that holds anything.
  std::vector<int> again(rows.size(), -9);
  const std::size_t bytes = decoding::cuda::sample_space::bytes(a.logits.columns);
  std::vector<std::byte> workspace(rows.size() * bytes, std::byte{0xa5});
  a.token = again.data(), a.workspace = workspace.data();
  decoding::cuda::start_sample<T>(a, [&](auto one, const auto& args) {
    using part = typename decltype(one)::type;
    if constexpr (std::is_same_v<part, decoding::cuda::sample<T>>) {
      start<kernel>(args, order);
    } else {
      start<part>(args, order);
    }
  });
  CHECK(again == token);
  return token;
}

// The portable kernels have no fused multiplication, and weights that may differ in the last place.
bool weights_agree() { return ei::execution::best_instruction_set() != ei::execution::instruction_set::portable; }

void check_same(const std::vector<float>& row, const decoding::sample& rule, int draws,
                thread_order order = thread_order::shuffled) {
  std::vector<decoding::cuda::sample_row> rows;
  for (int i = 0; i < draws; ++i)
    rows.push_back(decoding::cuda::row_of(rule, ei::random_stream{static_cast<std::uint64_t>(i) * 77},
                                          static_cast<std::uint64_t>(i)));
  const std::vector<int> token = drawn<>(row, rows, order);
  decoding::workspace scratch;
  for (int i = 0; i < draws; ++i) {
    std::vector<float> copy = row;
    const auto at = static_cast<std::size_t>(i);
    const int wanted = rule(copy, {}, rows[at].random, rows[at].position, scratch);
    CHECK_MESSAGE(token[at] == wanted, "draw ", i, ": temperature ", rule.temperature, " k ", rule.top_k, " p ",
                  rule.top_p, " min p ", rule.min_p, ", ", row.size(), " tokens");
  }
}

}  // namespace

TEST_CASE("weights are the CPU's, bit for bit") {
  if (!weights_agree()) return;
  std::vector<float> x;
  for (int i = 0; i < 40000; ++i) x.push_back(-static_cast<float>(i) * 0.00091F);
  x.push_back(-infinity), x.push_back(-1e30F), x.push_back(-0.0F), x.push_back(-0x1p-149F);
  std::vector<std::uint64_t> wanted(x.size());
  ei::execution::dispatch<decoding::cpu::weigh>(ei::execution::best_instruction_set(), x.data(),
                                                static_cast<std::ptrdiff_t>(x.size()), 0.0F, wanted.data());
  int different = 0;
  for (std::size_t i = 0; i < x.size(); ++i) different += decoding::cuda::weight(x[i]) != wanted[i];
  CHECK(different == 0);
}

TEST_CASE("sampling draws the CPU's tokens: every filter alone and together") {
  if (!weights_agree()) return;
  const decoding::sample rules[] = {
      {},
      {.temperature = 0.0F},
      {.temperature = 0.7F},
      {.temperature = 1.6F},
      {.top_k = 1},
      {.top_k = 7},
      {.temperature = 0.8F, .top_k = 40},
      {.top_p = 0.9F},
      {.temperature = 1.3F, .top_p = 0.97F},
      {.top_p = 1e-6F},
      {.min_p = 0.05F},
      {.min_p = 1.0F},
      {.temperature = 0.9F, .top_k = 50, .top_p = 0.8F, .min_p = 0.02F},
      {.top_k = 1 << 20, .top_p = 0.9999F, .min_p = 1e-9F},
  };
  for (const std::size_t count : {std::size_t{1}, std::size_t{33}, std::size_t{1000}, std::size_t{5003}}) {
    for (const float spread : {0.5F, 4.0F, 30.0F}) {
      const std::vector<float> row = logits(count, count, spread);
      for (const decoding::sample& rule : rules) check_same(row, rule, 3);
    }
  }
}

TEST_CASE("sampling with equals, infinities and NaN") {
  if (!weights_agree()) return;
  std::vector<float> equal(700, 2.5F), few = logits(900, 3, 3), odd = few, zeros = few;
  for (std::size_t i = 0; i < few.size(); ++i) few[i] = std::round(few[i]);  // many at each edge
  for (std::size_t i = 0; i < odd.size(); i += 3) odd[i] = i % 2 == 0 ? not_a_number : -infinity;
  for (std::size_t i = 0; i < zeros.size(); ++i) zeros[i] = i % 2 == 0 ? 0.0F : -0.0F;
  std::vector<float> infinite = few;
  infinite[17] = infinite[400] = infinity;
  std::vector<float> all_but_one(300, not_a_number);
  all_but_one[211] = -3e38F;
  for (const auto& row : {equal, few, odd, zeros, infinite, all_but_one}) {
    for (const float p : {0.1F, 0.5F, 0.9F, 1.0F}) {
      for (const int k : {0, 3, 100}) {
        check_same(row, {.top_k = k, .top_p = p}, 3);
        check_same(row, {.temperature = 0.6F, .top_k = k, .top_p = p, .min_p = 0.1F}, 2);
      }
    }
    for (const thread_order order : {thread_order::forward, thread_order::reverse})
      check_same(row, {.top_k = 100, .top_p = 0.6F}, 4, order);
  }
  CHECK(drawn<>(std::vector<float>(64, -infinity), {{}}, thread_order::shuffled) == std::vector<int>{-1});
  CHECK(drawn<>(std::vector<float>(64, not_a_number), {{.top_k = 2}}, thread_order::shuffled) == std::vector<int>{-1});
}

TEST_CASE_TEMPLATE("sampling from 16-bit logits, which share few values, with the threads of a GPU", T, ei::bf16,
                   ei::f16) {
  if (!weights_agree()) return;
  std::vector<T> row;
  std::vector<float> floats;
  for (const float v : logits(32003, 5, 4)) {
    row.push_back(T(v));
    floats.push_back(static_cast<float>(row.back()));
  }
  const decoding::sample rule{.temperature = 0.9F, .top_k = 3000, .top_p = 0.95F, .min_p = 1e-4F};
  std::vector<decoding::cuda::sample_row> rows;
  for (std::uint64_t i = 0; i < 3; ++i) rows.push_back(decoding::cuda::row_of(rule, ei::random_stream{i}, 40 + i));
  const std::vector<int> token = drawn<T, 512>(row, rows, thread_order::shuffled);
  decoding::workspace scratch;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::vector<float> copy = floats;
    CHECK(token[i] == rule(copy, {}, rows[i].random, rows[i].position, scratch));
  }
}

TEST_CASE("what sampling can't do is said before it runs") {
  using kernel = decoding::cuda::sample<float>;
  CHECK_THROWS_AS((void)kernel::plan({{nullptr, 1, 0}, nullptr, nullptr}), ei::error);
  CHECK_THROWS_AS((void)kernel::plan({{nullptr, 1, (1 << 21) + 1}, nullptr, nullptr}), ei::error);
  CHECK_THROWS_AS((void)decoding::cuda::row_of({.temperature = -1}, {}, 0), ei::error);
  CHECK_THROWS_AS((void)decoding::cuda::row_of({.repetition_penalty = 1.1F}, {}, 0), ei::error);
}

#if !defined(__CUDACC__)
TEST_CASE("atomic additions to shared memory need barriers around them, not between them") {
  const launch l{.threads = 64, .shared_bytes = 256};
  const auto count = [](bool before, bool after) {
    return [=](auto& t) {
      const auto s = t.template shared<int>(2);
      if (t.thread() < 2) s[t.thread()] = 0;
      if (before) t.barrier();
      t.atomic_add(s, t.thread() % 2, 1);
      if (after) t.barrier();
      const int sum = s[0];
      CHECK(sum == 32);
    };
  };
  run(l, count(true, true));
  CHECK_THROWS_AS(run(l, count(false, true)), simt_error);
  CHECK_THROWS_AS(run(l, count(true, false)), simt_error);
  CHECK_THROWS_AS(run(l, [](auto& t) { t.atomic_add(t.template shared<int>(2), 0, 1); }), simt_error);
}
#endif

}  // namespace sampling_tests
