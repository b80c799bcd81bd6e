#pragma once
// Sequences for attention, on caches of any kind, and ways to compare what comes out.

#include <effinfer/attention/cpu/softmax.hpp>
#include <effinfer/testing/attention_oracle.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace problems {

using namespace effinfer;
using attention::head_layout;

using floats = std::vector<float>;

/// One sequence: queries, keys and values of S tokens.
struct problem {
  head_layout heads;
  int tokens;
  floats query, key, value;
  int columns() const { return heads.heads * heads.head_size; }
  int kv_columns() const { return heads.kv_heads * heads.head_size; }
};

/// Values that every cache type stores exactly, so that the oracle sees the same numbers.
inline problem make(head_layout heads, int tokens, std::uint64_t seed) {
  problem p{heads, tokens, {}, {}, {}};
  p.heads.scale = 1.0f / std::sqrt(static_cast<float>(heads.head_size));
  const auto n = static_cast<std::size_t>(tokens);
  p.query = testing::numbers(n * static_cast<std::size_t>(p.columns()), seed, 4.0f);
  p.key = testing::numbers(n * static_cast<std::size_t>(p.kv_columns()), seed + 1, 2.0f);
  p.value = testing::numbers(n * static_cast<std::size_t>(p.kv_columns()), seed + 2);
  for (auto* v : {&p.key, &p.value}) {
    for (float& x : *v) x = std::round(x * 64.0f) / 64.0f;  // eight bits
  }
  return p;
}

template <class View, class Mixer>
floats attend(const execution::cpu::context& exec, const Mixer& mixer, const problem& p, const View& view, int first,
              int tokens, bool prompt = false) {
  floats out(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(p.columns()), std::nanf(""));
  const attention::sequence<View> s{{p.query.data() + std::ptrdiff_t{first} * p.columns(), tokens, p.columns()},
                                    {out.data(), tokens, p.columns()},
                                    view,
                                    first,
                                    0,
                                    prompt};
  attention::attend(exec, mixer, p.heads, std::span(&s, 1));
  return out;
}

/// The whole sequence through a cache in passes of `chunk` tokens.
template <class Cache, class Mixer>
floats in_chunks(const execution::cpu::context& exec, const Mixer& mixer, const problem& p, Cache cache, int chunk,
                 bool prompt = false) {
  floats out;
  for (int first = 0; first < p.tokens; first += chunk) {
    const int n = std::min(chunk, p.tokens - first);
    const matrix_view<const float> key(p.key.data() + std::ptrdiff_t{first} * p.kv_columns(), n, p.kv_columns());
    const matrix_view<const float> value(p.value.data() + std::ptrdiff_t{first} * p.kv_columns(), n, p.kv_columns());
    const auto view = cache.write(exec, 0, key, value);
    const floats part = attend(exec, mixer, p, view, first, n, prompt);
    out.insert(out.end(), part.begin(), part.end());
    cache.commit(n);
  }
  return out;
}

inline double worst(const floats& got, const std::vector<double>& want) {
  REQUIRE(got.size() == want.size());
  double w = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double e = std::abs(static_cast<double>(got[i]) - want[i]);
    w = e <= w ? w : e;  // a NaN stays
  }
  return w;
}

inline bool same(const floats& a, const floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct hide_all : attention::no_hooks {
  bool visible(attention::position) const { return false; }
};
struct hide_some : attention::no_hooks {  // by a score of -infinity, and whole tiles of them
  float score(float s, attention::position p) const { return p.key / 64 % 2 == 0 && p.query > 64 ? -INFINITY : s; }
};

}  // namespace problems
