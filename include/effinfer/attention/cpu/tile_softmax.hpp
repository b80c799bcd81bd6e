#pragma once
// What happens to a tile's scores between the two products: the policy's hooks, then the online softmax.
//
// Source: Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018), algorithm 3; Dao et al.,
// "FlashAttention" (2022), algorithm 1.

#include <effinfer/attention/cpu/tile_products.hpp>
#include <effinfer/attention/policy.hpp>
#include <effinfer/attention/softmax.hpp>

#include <cstdint>
#include <limits>

namespace effinfer::inline v0::attention::detail {

inline constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

/// Query rows of a tile at most: more where a tile's keys and values are prepared for all of them (split_products.hpp).
inline constexpr int most_rows = EFFINFER_X86 ? 128 : tile_rows;

/// Scores of a tile: room for the tile's keys from any first one on.
inline constexpr int score_stride = tile_keys + 16;

/// Which queries the rows of a tile are: row r is token `first_query + r / heads` and head `first_head + r % heads`.
struct tile_queries {
  int first_query, first_head, heads, kv_head, sequence;

  [[nodiscard]] EFFINFER_ALWAYS_INLINE position at(int row, int key) const {
    return {first_query + row / heads, key, first_head + row % heads, kv_head, sequence};
  }
};

/// The hooks `score` and `visible` on keys [begin[r], end[r]) of each row. One place for all rows, so that the
/// compiler makes the same instructions of a hook whatever tile a query falls in.
template <class Mixer>
struct hooks_tile {
  struct args {
    const Mixer* mixer;
    tile_queries queries;
    int rows;
    int first_key;  ///< of the tile
    const int* begin;
    const int* end;
    bool all_visible;
    float* s;
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    const Mixer mixer = *a.mixer;
    for (int r = 0; r < a.rows; ++r) {
      const int b = a.begin[r], e = a.end[r];
      if (b >= e) continue;
      const position first = a.queries.at(r, a.first_key);
      float* s = a.s + r * score_stride;
      if constexpr (Mixer::changes_scores) change<Set>(mixer, first, b, e, s);
      if constexpr (Mixer::hides_keys) {
        if (!a.all_visible) hide(mixer, first, b, e, s);
      }
    }
  }

 private:
  template <instruction_set Set, class First, class... Rest>
  static EFFINFER_ALWAYS_INLINE void change(const softmax<First, Rest...>& mixer, position p, int begin, int end,
                                            float* s) {
    if constexpr (requires(f32x16<Set> v) { mixer.first.scores(v, p); }) {
      const int tile = p.key;
      for (int n = begin; n < end; n += 16) {  // past the end there is room, and nothing is read
        p.key = tile + n;
        mixer.first.scores(f32x16<Set>::load(s + n), p).store(s + n);
      }
      p.key = tile;
    } else if constexpr (overrides_score<First>) {
      const int tile = p.key;
      for (int n = begin; n < end; ++n) {
        p.key = tile + n;
        s[n] = mixer.first.score(s[n], p);
      }
      p.key = tile;
    }
    if constexpr (softmax<Rest...>::changes_scores) change<Set>(mixer.rest, p, begin, end, s);
  }

  static EFFINFER_ALWAYS_INLINE void hide(const Mixer& mixer, position p, int begin, int end, float* s) {
    const int tile = p.key;
    for (int n = begin; n < end; ++n) {
      p.key = tile + n;
      s[n] = mixer.visible(p) ? s[n] : minus_infinity;
    }
  }
};

/// What a row's softmax has seen so far.
struct row_state {
  float max[most_rows];
  float sum[most_rows * 16];  ///< in sixteen lanes, added up at the end
};

/// Scores to weights e^(s - max), the row's sum and output so far brought to the new maximum. A row that sees no key of
/// the tile gets end = begin, and nothing of it changes.
struct weigh_tile {
  struct args {
    int rows;
    const int* begin;
    int* end;
    float* s;  ///< [rows, score_stride]: scores in, weights out, 0 outside [begin, end)
    row_state* state;
    float* out;  ///< [rows, padded D]
    int size;
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = f32x16<Set>;
    const int stride = padded(a.size);
    for (int r = 0; r < a.rows; ++r) {
      const int b = a.begin[r], e = a.end[r];
      if (b >= e) continue;
      float* s = a.s + r * score_stride;
      vector s0 = vector::load(s), s1 = vector::load(s + 16), s2 = vector::load(s + 32), s3 = vector::load(s + 48);
      if (b > 0 || e < tile_keys) {  // in registers: a load of what was just stored in smaller pieces would wait for it
        static_assert(tile_keys == 64);
        const std::uint64_t seen = (~std::uint64_t{0} >> (tile_keys - e)) & (~std::uint64_t{0} << b);
        s0 = keep(s0, seen & 0xffff, minus_infinity), s1 = keep(s1, seen >> 16 & 0xffff, minus_infinity);
        s2 = keep(s2, seen >> 32 & 0xffff, minus_infinity), s3 = keep(s3, seen >> 48, minus_infinity);
      }
      const float tile_max = max(max(s0, s1), max(s2, s3)).max_lane();
      const float old_max = a.state->max[r];
      const float new_max = tile_max > old_max ? tile_max : old_max;
      if (tile_max == minus_infinity) {
        a.end[r] = b;
        continue;
      }
      const vector shift = vector::broadcast(new_max);
      s0 = exp_nonpositive(s0 - shift);
      s1 = e > 16 ? exp_nonpositive(s1 - shift) : vector::zero();
      s2 = e > 32 ? exp_nonpositive(s2 - shift) : vector::zero();
      s3 = e > 48 ? exp_nonpositive(s3 - shift) : vector::zero();
      s0.store(s), s1.store(s + 16), s2.store(s + 32), s3.store(s + 48);
      vector sum = vector::load(a.state->sum + r * 16);
      if (new_max != old_max) {
        a.state->max[r] = new_max;
        const vector fade = exp_nonpositive(vector::broadcast(old_max) - shift);
        sum = sum * fade;
        float* out = a.out + std::ptrdiff_t{r} * stride;
        for (int d = 0; d < stride; d += 16) (vector::load(out + d) * fade).store(out + d);
      }
      ((sum + s0) + (s1 + (s2 + s3))).store(a.state->sum + r * 16);
    }
  }
};

/// to[i] = from[i] factor + zero. With a zero of -0 that is the product, with one of 0 a zero has no sign.
struct scale_row {
  struct args {
    const float* from;
    int size;
    float factor;
    float zero;
    float* to;
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = f32x16<Set>;
    const vector factor = vector::broadcast(a.factor), zero = vector::broadcast(a.zero);
    int i = 0;
    for (; i + 16 <= a.size; i += 16) fma(vector::load(a.from + i), factor, zero).store(a.to + i);
    const int left = a.size - i;
    if (left > 0) fma(vector::load_first(a.from + i, left), factor, zero).store_first(a.to + i, left);
  }
};

/// Two softmaxes of a row over different keys made one: `total` takes in `part`.
struct merge_rows {
  struct args {
    int rows;
    int size;
    const float* part_max;  ///< [rows]
    const float* part_sum;  ///< [rows, 16]
    const float* part_out;  ///< [rows, padded D]
    float* max;             ///< [rows]
    float* sum;             ///< [rows]
    float* out;             ///< [rows, padded D]
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = f32x16<Set>;
    const int stride = padded(a.size);
    for (int r = 0; r < a.rows; ++r) {
      const float old_max = a.max[r], part_max = a.part_max[r];
      if (part_max == minus_infinity) continue;
      const float new_max = part_max > old_max ? part_max : old_max;
      const vector fade = exp_nonpositive(vector::broadcast(old_max - new_max));
      const vector share = exp_nonpositive(vector::broadcast(part_max - new_max));
      float both[16];
      fma(vector::broadcast(vector::load(a.part_sum + r * 16).sum()), share, vector::broadcast(a.sum[r]) * fade)
          .store(both);
      a.max[r] = new_max;
      a.sum[r] = both[0];
      float* out = a.out + std::ptrdiff_t{r} * stride;
      const float* part = a.part_out + std::ptrdiff_t{r} * stride;
      for (int d = 0; d < stride; d += 16)
        fma(vector::load(part + d), share, vector::load(out + d) * fade).store(out + d);
    }
  }
};

}  // namespace effinfer::inline v0::attention::detail
