// attention/linear.hpp: the recurrence against double precision and bit for bit against itself; the chunked and the
// parallel form against the recurrence.

#include "execution/instruction_sets.hpp"

#include <effinfer/attention/cpu/linear.hpp>
#include <effinfer/attention/cpu/linear_chunked.hpp>
#include <effinfer/attention/cpu/linear_parallel.hpp>

#include <effinfer/testing/attention_oracle.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace linear_tests {

using namespace effinfer;
using attention::head_layout;

namespace {

using floats = std::vector<float>;
using mixer_type = attention::linear<attention::elu_plus_one, attention::decay_per_head>;

struct problem {
  head_layout heads;
  int tokens;
  floats query, key, value, rates;

  problem(head_layout h, int t, std::uint64_t seed) : heads(h), tokens(t) {
    const auto n = static_cast<std::size_t>(t) * static_cast<std::size_t>(h.head_size);
    query = testing::numbers(n * static_cast<std::size_t>(h.heads), seed, 3.0f);
    key = testing::numbers(n * static_cast<std::size_t>(h.kv_heads), seed + 1, 3.0f);
    value = testing::numbers(n * static_cast<std::size_t>(h.kv_heads), seed + 2);
    for (int i = 0; i < h.heads; ++i) rates.push_back(i == 0 ? 1.0f : 1.0f - 0.5f / static_cast<float>(i * i));
  }
  mixer_type mixer() const {
    mixer_type m;
    m.decay.rates = rates.data();
    return m;
  }
  attention::recurrent_sequence rows(int first, int n, float* out, kv_cache::recurrent_state& state) const {
    const std::ptrdiff_t c = std::ptrdiff_t{heads.heads} * heads.head_size,
                         kv = std::ptrdiff_t{heads.kv_heads} * heads.head_size;
    return {{query.data() + first * c, n, c},
            {key.data() + first * kv, n, kv},
            {value.data() + first * kv, n, kv},
            {out + first * c, n, c},
            state.view(0)};
  }
  kv_cache::recurrent_state empty() const { return {1, heads.heads, heads.head_size}; }

  std::vector<double> expected() const {
    const auto d = static_cast<std::size_t>(heads.head_size);
    std::vector<double> out(query.size());
    const auto phi = [](float x) { return x > 0 ? static_cast<double>(x) + 1 : std::exp(static_cast<double>(x)); };
    for (int h = 0; h < heads.heads; ++h) {
      const int kv = h / (heads.heads / heads.kv_heads);
      const double g = static_cast<double>(rates[static_cast<std::size_t>(h)]);
      std::vector<double> s(d * d), z(d);
      for (int t = 0; t < tokens; ++t) {
        const float* q = query.data() + static_cast<std::size_t>(t * heads.heads + h) * d;
        const float* k = key.data() + static_cast<std::size_t>(t * heads.kv_heads + kv) * d;
        const float* v = value.data() + static_cast<std::size_t>(t * heads.kv_heads + kv) * d;
        double denominator = 1e-6;
        double* o = out.data() + static_cast<std::size_t>(t * heads.heads + h) * d;
        for (std::size_t i = 0; i < d; ++i) {
          z[i] = g * z[i] + phi(k[i]);
          denominator += phi(q[i]) * z[i];
          for (std::size_t j = 0; j < d; ++j) {
            s[i * d + j] = g * s[i * d + j] + phi(k[i]) * static_cast<double>(v[j]);
            o[j] += phi(q[i]) * s[i * d + j];
          }
        }
        for (std::size_t j = 0; j < d; ++j) o[j] /= denominator;
      }
    }
    return out;
  }
};

floats recurrent(const execution::cpu::context& exec, const problem& p, kv_cache::recurrent_state& state, int chunk) {
  floats out(p.query.size());
  for (int first = 0; first < p.tokens; first += chunk) {
    const auto s = p.rows(first, std::min(chunk, p.tokens - first), out.data(), state);
    attention::attend(exec, p.mixer(), p.heads, std::span(&s, 1));
  }
  return out;
}

double worst(const floats& got, const std::vector<double>& want) {
  double w = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double e = std::abs(static_cast<double>(got[i]) - want[i]);
    w = e <= w ? w : e;
  }
  return w;
}

std::vector<std::byte> saved(const kv_cache::recurrent_state& s) {
  std::vector<std::byte> bytes;
  s.save(bytes);
  return bytes;
}

// Outputs are averages of values below 1 with positive weights: sums of up to T * D terms, each rounded once.
constexpr double tolerance = 2e-6;

}  // namespace

TEST_CASE("the recurrence agrees with double precision on every instruction set and shape") {
  for (const auto set : instruction_sets::supported_bases()) {
    const execution::cpu::context exec({.threads = 1, .set = set});
    for (const head_layout heads :
         {head_layout{1, 1, 1}, {4, 2, 7}, {2, 1, 16}, {3, 3, 24}, {4, 1, 64}, {2, 2, 80}, {2, 1, 128}}) {
      const problem p(heads, 100, 3);
      auto state = p.empty();
      CHECK(worst(recurrent(exec, p, state, 100), p.expected()) < tolerance);
    }
  }
}

TEST_CASE(
    "the recurrence gives the same bits and the same state however the tokens are cut, and on any number of threads") {
  const execution::cpu::context one({.threads = 1}), three({.threads = 3});
  const problem p({4, 2, 40}, 101, 5);
  auto state = p.empty();
  const floats want = recurrent(one, p, state, 101);
  for (const int chunk : {1, 7, 16, 50}) {
    auto other = p.empty();
    CHECK(std::memcmp(recurrent(chunk == 7 ? three : one, p, other, chunk).data(), want.data(),
                      want.size() * sizeof(float)) == 0);
    CHECK(saved(other) == saved(state));
  }
}

TEST_CASE("recurrent, chunked and parallel forms agree") {
  const execution::cpu::context exec({.threads = 2});
  for (const head_layout heads : {head_layout{4, 2, 7}, {2, 1, 16}, {4, 1, 64}, {2, 2, 80}, {2, 1, 128}, {1, 1, 300}}) {
    const problem p(heads, 150, 7);
    const auto want = p.expected();
    auto state = p.empty(), chunked = p.empty(), unused = p.empty();
    const floats steps = recurrent(exec, p, state, 150);
    CHECK(worst(steps, want) < tolerance);

    floats out(p.query.size());
    for (const int cut : {150, 90}) {  // from the empty state, and from another
      chunked.clear();
      for (int first = 0; first < p.tokens; first += cut) {
        const auto s = p.rows(first, std::min(cut, p.tokens - first), out.data(), chunked);
        attention::attend_chunked(exec, p.mixer(), p.heads, std::span(&s, 1));
      }
      CHECK(worst(out, want) < 2 * tolerance);
    }
    const auto a = state.view(0), b = chunked.view(0);
    const int d = heads.head_size;
    double far = 0, size = 0;
    for (int i = 0; i < heads.heads * d * d; ++i) {
      far = std::max(far, static_cast<double>(std::abs(a.matrices[i] - b.matrices[i])));
      size = std::max(size, static_cast<double>(std::abs(a.matrices[i])));
    }
    CHECK(far < 1e-5 * size);

    const auto s = p.rows(0, p.tokens, out.data(), unused);
    attention::attend_parallel(exec, p.mixer(), p.heads, std::span(&s, 1));
    CHECK(worst(out, want) < 2 * tolerance);
  }
}

namespace {
struct squared {  // a feature map without a form for vectors
  float operator()(float x) const { return x * x + 0.125f; }
};
}  // namespace

TEST_CASE("a feature map of one's own needs one function; without decay nothing is forgotten") {
  const execution::cpu::context exec({.threads = 1});
  const problem p({1, 1, 20}, 40, 9);
  attention::linear<squared> mixer;
  floats out(p.query.size());
  auto state = p.empty();
  const auto s = p.rows(0, 40, out.data(), state);
  attention::attend(exec, mixer, p.heads, std::span(&s, 1));
  const auto phi = [](float x) { return static_cast<double>(x) * static_cast<double>(x) + 0.125; };
  for (int t = 0; t < 40; ++t) {
    double sum = 1e-6, o = 0;
    for (int k = 0; k <= t; ++k) {
      double w = 0;
      for (int i = 0; i < 20; ++i)
        w += phi(p.query[static_cast<std::size_t>(t * 20 + i)]) * phi(p.key[static_cast<std::size_t>(k * 20 + i)]);
      sum += w;
      o += w * static_cast<double>(p.value[static_cast<std::size_t>(k * 20 + 3)]);
    }
    CHECK(std::abs(static_cast<double>(out[static_cast<std::size_t>(t * 20 + 3)]) - o / sum) < tolerance);
  }
}

TEST_CASE("views that don't fit are refused before anything is computed") {
  const execution::cpu::context exec({.threads = 1});
  const problem p({4, 2, 16}, 10, 11);
  floats out(p.query.size(), -7.0f);
  auto state = p.empty();
  auto s = p.rows(0, 10, out.data(), state);
  s.key.rows = 9;
  CHECK_THROWS_AS(attention::attend(exec, p.mixer(), p.heads, std::span<const attention::recurrent_sequence>(&s, 1)),
                  error);
  CHECK_THROWS_AS(
      attention::attend(exec, p.mixer(), head_layout{4, 3, 16}, std::span<const attention::recurrent_sequence>(&s, 1)),
      error);
  CHECK(out[0] == -7.0f);
}

}  // namespace linear_tests
