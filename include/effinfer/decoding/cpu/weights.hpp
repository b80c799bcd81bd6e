#pragma once
// From logits to weights: the passes over the vocabulary.
//
// The weight of a token is an integer, floor(2^42 e^(logit - maximum)): the likeliest token has 2^42. Sums of
// integers are the same in every order, so a probability doesn't depend on how the vocabulary is cut into vectors and blocks,
// nor on which tokens were put aside before. A token less likely than 2^-42 of the likeliest has weight 0.
//
// All instruction sets but the portable give the same weights; that may differ in the last place of e^x.

#include <effinfer/execution/instruction_set.hpp>
#include <effinfer/execution/vector.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>

namespace effinfer::inline v0::decoding::cpu {

// Maxima are kept of groups, one vector each, and of blocks of eight groups; sums of blocks only, as adding up the lanes of a
// vector costs as much as e^x.
inline constexpr std::ptrdiff_t group_tokens = 16;
inline constexpr std::ptrdiff_t block_tokens = 128;
inline constexpr int weight_bits = 42;  // 2^21 tokens of the greatest weight fit 64 bits
inline constexpr std::uint64_t greatest_weight = std::uint64_t{1} << weight_bits;
/// Below `maximum - weightless` all weights are 0: ln 2^42 = 29.11.
inline constexpr float weightless = 30.0f;
inline constexpr std::ptrdiff_t most_tokens = std::ptrdiff_t{1} << 21;

constexpr std::ptrdiff_t groups(std::ptrdiff_t tokens) { return (tokens + group_tokens - 1) / group_tokens; }
constexpr std::ptrdiff_t blocks(std::ptrdiff_t tokens) { return (tokens + block_tokens - 1) / block_tokens; }

/// The greatest logit of each group and of each block; NaN counts as -infinity.
struct find_maxima {
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* logits, std::ptrdiff_t tokens, float* of_groups,
                                         float* of_blocks) {
    using vector = execution::f32x16<Set>;
    constexpr float lowest = -std::numeric_limits<float>::infinity();
    const vector none = vector::broadcast(lowest);
    for (std::ptrdiff_t first = 0; first < tokens; first += block_tokens) {
      const std::ptrdiff_t end = first + block_tokens < tokens ? first + block_tokens : tokens;
      float greatest = lowest;
      for (std::ptrdiff_t i = first; i < end; i += group_tokens) {
        const vector x = i + 16 <= end ? vector::load(logits + i) : vector::load_first(logits + i, end - i, lowest);
        const float of_group = max(x, none).max_lane();  // `max` keeps the right one at NaN
        *of_groups++ = of_group;
        greatest = of_group > greatest ? of_group : greatest;
      }
      *of_blocks++ = greatest;
    }
  }
};

/// values[i] = (values[i] - maximum) * factor.
struct rescale {
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(float* values, std::ptrdiff_t count, float maximum, float factor) {
    using vector = execution::f32x16<Set>;
    const vector m = vector::broadcast(maximum), f = vector::broadcast(factor);
    std::ptrdiff_t i = 0;
    for (; i + 16 <= count; i += 16) ((vector::load(values + i) - m) * f).store(values + i);
    if (i < count) ((vector::load_first(values + i, count - i) - m) * f).store_first(values + i, count - i);
  }
};

namespace detail {

template <execution::instruction_set Set>
inline constexpr int native_lanes = Set == execution::instruction_set::avx512 ? 16
                                    : Set == execution::instruction_set::avx2 ? 8
                                                                              : 4;
// g++ knows a vector type inside a template only by a dependent name.
template <class T, int Lanes>
struct native_vector {
  typedef T type __attribute__((vector_size(sizeof(T) * Lanes), aligned(16)));
};

/// A weight as upper 24 and lower 18 bits, both exact in 32-bit lanes: 64-bit conversions exist in AVX-512 only.
template <execution::instruction_set Set>
struct split_weights {
  static constexpr int lanes = native_lanes<Set>;
  using floats = typename native_vector<float, lanes>::type;
  using integers = typename native_vector<std::int32_t, lanes>::type;
  static constexpr int parts = 16 / lanes;
  integers upper[parts], lower[parts];

  /// Sixteen values of `e`, each in [0, 1].
  EFFINFER_ALWAYS_INLINE void set(const execution::f32x16<Set>& e) {
    alignas(64) float buffer[16];
    e.store(buffer);
    for (int part = 0; part < parts; ++part) {
      floats scaled = *reinterpret_cast<const floats*>(buffer + part * lanes);
      scaled *= 0x1p24f;
      upper[part] = __builtin_convertvector(scaled, integers);
      scaled = (scaled - __builtin_convertvector(upper[part], floats)) * 0x1p18f;
      lower[part] = __builtin_convertvector(scaled, integers);
    }
  }
  /// Sets to 0 the lanes whose value, one of sixteen, is below `threshold`.
  EFFINFER_ALWAYS_INLINE void clear_below(const execution::f32x16<Set>& values, float threshold) {
    alignas(64) float buffer[16];
    values.store(buffer);
    for (int part = 0; part < parts; ++part) {
      const floats v = *reinterpret_cast<const floats*>(buffer + part * lanes);
      const integers keep = v >= threshold;
      upper[part] &= keep;
      lower[part] &= keep;
    }
  }
  EFFINFER_ALWAYS_INLINE void clear() {
    for (int part = 0; part < parts; ++part) upper[part] = lower[part] = integers{};
  }
  EFFINFER_ALWAYS_INLINE void add(const split_weights& other) {
    for (int part = 0; part < parts; ++part) {
      upper[part] += other.upper[part];
      lower[part] += other.lower[part];
    }
  }
  EFFINFER_ALWAYS_INLINE void store(std::int32_t* upper_lanes, std::int32_t* lower_lanes) const {
    for (int part = 0; part < parts; ++part) {
      *reinterpret_cast<integers*>(upper_lanes + part * lanes) = upper[part];
      *reinterpret_cast<integers*>(lower_lanes + part * lanes) = lower[part];
    }
  }
};

/// e^(x - maximum), 0 where x is NaN.
template <execution::instruction_set Set>
EFFINFER_ALWAYS_INLINE void relative_likelihood(execution::f32x16<Set>& x, const execution::f32x16<Set>& maximum) {
  x = max(exp(x - maximum), execution::f32x16<Set>::zero());
}

}  // namespace detail

/// sums[b] = the weights of those of block b's logits that are at least `threshold`, added up; group_maxima as
/// find_maxima gives them. No value may be above `maximum`, which is finite.
struct sum_block_weights {
  const float* logits;
  std::ptrdiff_t tokens;
  const float* group_maxima;
  float maximum;
  float threshold;
  std::uint64_t* sums;

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const sum_block_weights& a) {
    using vector = execution::f32x16<Set>;
    constexpr float lowest = -std::numeric_limits<float>::infinity();
    const vector m = vector::broadcast(a.maximum);
    for (std::ptrdiff_t block = 0; block * block_tokens < a.tokens; ++block) {
      const std::ptrdiff_t first = block * block_tokens;
      const std::ptrdiff_t end = first + block_tokens < a.tokens ? first + block_tokens : a.tokens;
      detail::split_weights<Set> sum, next;
      sum.clear();
      for (std::ptrdiff_t i = first; i < end; i += group_tokens) {
        if (a.group_maxima[i / group_tokens] < a.threshold) continue;
        const vector x = i + 16 <= end ? vector::load(a.logits + i) : vector::load_first(a.logits + i, end - i, lowest);
        vector e = x;
        detail::relative_likelihood<Set>(e, m);
        next.set(e);
        next.clear_below(x, a.threshold);
        sum.add(next);
      }
      alignas(64) std::int32_t upper[16], lower[16];
      sum.store(upper, lower);
      std::uint64_t upper_sum = 0, lower_sum = 0;
      for (int lane = 0; lane < 16; ++lane) {
        upper_sum += static_cast<std::uint32_t>(upper[lane]);
        lower_sum += static_cast<std::uint32_t>(lower[lane]);
      }
      a.sums[block] = (upper_sum << 18) + lower_sum;
    }
  }
};

/// weights[i] = the weight of values[i].
struct weigh {
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* values, std::ptrdiff_t count, float maximum,
                                         std::uint64_t* weights) {
    using vector = execution::f32x16<Set>;
    const vector m = vector::broadcast(maximum);
    for (std::ptrdiff_t i = 0; i < count; i += 16) {
      const std::ptrdiff_t some = count - i < 16 ? count - i : 16;
      vector x = some == 16 ? vector::load(values + i) : vector::load_first(values + i, some);
      detail::relative_likelihood<Set>(x, m);
      detail::split_weights<Set> split;
      split.set(x);
      alignas(64) std::int32_t upper[16], lower[16];
      split.store(upper, lower);
      for (std::ptrdiff_t lane = 0; lane < some; ++lane) {
        weights[i + lane] = (static_cast<std::uint64_t>(static_cast<std::uint32_t>(upper[lane])) << 18) +
                            static_cast<std::uint32_t>(lower[lane]);
      }
    }
  }
};

}  // namespace effinfer::inline v0::decoding::cpu
