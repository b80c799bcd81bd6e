#pragma once
// The k likeliest tokens of a row of logits with their probabilities: what drafters branch on, and what exits measure.

#include <effinfer/execution/instruction_set.hpp>
#include <effinfer/execution/vector.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace effinfer::inline v0::decoding {

/// A token and its probability under softmax(logits).
struct token_probability {
  int id = 0;
  float probability = 0;
};

namespace detail {

struct top_tokens_row {
  static constexpr std::ptrdiff_t most_blocks = 512;
  struct args {
    const float* x;
    std::ptrdiff_t size;
    token_probability* out;
    int count;
  };
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = execution::f32x16<Set>;
    constexpr float lowest = -std::numeric_limits<float>::infinity();
    const std::ptrdiff_t block =
        std::max<std::ptrdiff_t>(64, (a.size + most_blocks * 16 - 1) / (most_blocks * 16) * 16);
    const std::ptrdiff_t blocks = (a.size + block - 1) / block;
    float maxima[most_blocks];
    float greatest = lowest;
    for (std::ptrdiff_t b = 0; b < blocks; ++b) {
      const std::ptrdiff_t end = std::min(a.size, (b + 1) * block);
      vector most = vector::broadcast(lowest);
      std::ptrdiff_t i = b * block;
      for (; i + 16 <= end; i += 16) most = max(vector::load(a.x + i), most);  // a NaN is passed over
      if (i < end) most = max(vector::load_first(a.x + i, end - i, lowest), most);
      maxima[b] = most.max_lane();
      greatest = std::max(greatest, maxima[b]);
    }
    vector sum = vector::zero();
    const vector shift = vector::broadcast(greatest);
    std::ptrdiff_t i = 0;
    for (; i + 16 <= a.size; i += 16) sum += max(exp(vector::load(a.x + i) - shift), vector::zero());
    if (i < a.size) sum += max(exp(vector::load_first(a.x + i, a.size - i, lowest) - shift), vector::zero());
    const float total = sum.sum();
    for (int k = 0; k < a.count; ++k) {
      const std::ptrdiff_t b = std::max_element(&maxima[0], &maxima[blocks]) - &maxima[0];
      const std::ptrdiff_t first = b * block, end = std::min(a.size, first + block);
      std::ptrdiff_t best = -1;
      float next = lowest;  // of the block, without what is taken
      for (std::ptrdiff_t n = first; n < end; ++n) {
        if (!(a.x[n] > next) && !(best < 0 && a.x[n] == maxima[b])) continue;
        bool taken = false;
        for (int j = 0; j < k; ++j) taken = taken || a.out[j].id == n;
        if (taken) continue;
        if (best < 0 && a.x[n] == maxima[b]) {
          best = n;
        } else {
          next = a.x[n];
        }
      }
      if (best < 0) best = first;  // nothing but -infinity and NaN
      a.out[k] = {static_cast<int>(best), std::exp(a.x[best] - greatest) / total};
      maxima[b] = next;
    }
  }
};

}  // namespace detail

/// out[i] = the token with the (i + 1)-th greatest logit, the lower id first among equals. Shapes: logits [V], out [k], k <= V.
/// NaN counts as -infinity; where fewer than k logits are above that the rest of `out` is unspecified.
inline void top_tokens(execution::instruction_set set, std::span<const float> logits,
                       std::span<token_probability> out) {
  const detail::top_tokens_row::args args{logits.data(), static_cast<std::ptrdiff_t>(logits.size()), out.data(),
                                          static_cast<int>(std::min(out.size(), logits.size()))};
  execution::dispatch<detail::top_tokens_row>(set, args);
}

}  // namespace effinfer::inline v0::decoding
