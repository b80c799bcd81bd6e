#pragma once
// The query rows of a prefill block in registers: which keys they see, what a policy does to their scores, how scores become
// weights, and how outputs are stored. Both forms of the kernel (prefill.hpp, prefill_wgmma.hpp) are made of this: a warp has
// strips of 16 rows, and of each strip a thread has what execution::simt::d_element says of a matrix of 16 x 8 after the other.

#include <effinfer/attention/policy.hpp>
#include <effinfer/attention/sequence.hpp>
#include <effinfer/core/config.hpp>
#include <effinfer/execution/simt/settled.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace effinfer::inline v0::attention::cuda::detail {

/// What scores in registers are when nothing was seen, and log2(e): they become exponents of two.
inline constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
inline constexpr float log2_e = 1.44269504F;

/// The rows [first_row, past_row) of a sequence that a block works on, row r being head r % group of token r / group; and the
/// keys that they see.
struct query_block {
  int group, first_row, past_row;
  int first_query, last_query;  ///< positions
  key_range visited;

  /// Block number `tile` of a call, `rows` each.
  template <class Mixer, class Sequence>
  EFFINFER_HOST_DEVICE query_block(const Mixer& mixer, const head_layout& heads, const Sequence& s, int tile, int rows)
      : group(heads.heads / heads.kv_heads), first_row((tile - s.first_tile) * rows) {
    const int all_rows = static_cast<int>(s.query.rows) * group;
    past_row = first_row + rows < all_rows ? first_row + rows : all_rows;
    first_query = s.first_position + first_row / group;
    last_query = s.first_position + (past_row - 1) / group;
    visited = {mixer.keys(first_query, first_query + 1).begin, mixer.keys(last_query, last_query + 1).end};
    if (visited.begin < s.cache.first) visited.begin = s.cache.first;
    if (visited.end > last_query + 1) visited.end = last_query + 1;
  }

  /// The first tile of Keys from position `key` on with something to see; past visited.end where there is none.
  template <int Keys, class Mixer>
  [[nodiscard]] EFFINFER_HOST_DEVICE int next_tile(const Mixer& mixer, int key) const {
    if constexpr (Mixer::hides_keys) {
      while (key < visited.end) {
        const int next = mixer.next_key({first_query, last_query + 1, key, visited.end});
        if (next >= visited.end) return next;
        key = next / Keys * Keys;
        const int low = key > visited.begin ? key : visited.begin;
        const int high = key + Keys < visited.end ? key + Keys : visited.end;
        if (mixer.any_visible({first_query, last_query + 1, low, high})) return key;
        key += Keys;
      }
      return key;
    } else {
      return key / Keys * Keys;
    }
  }
};

/// The last of a call's sequences that begins at or before the tile and has one.
template <class Args>
EFFINFER_HOST_DEVICE int sequence_of(const Args& a, int tile) {
  int low = 0, high = a.plan.sequences;  // first_tile of low <= tile < that of high
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (a.sequences[middle].first_tile <= tile ? low : high) = middle;
  }
  return low;
}

/// Of the strips of 16 rows of a warp that begins at `warp_row`: where the thread's rows are, lane / 4 and 8 below it of each.
template <int Strips, class Simt>
EFFINFER_HOST_DEVICE void locate_rows(Simt& t, const query_block& b, int first_position, int sequence, int kv_head,
                                      int warp_row, position (&at)[Strips][2]) {
  EFFINFER_UNROLL
  for (int i = 0; i < Strips * 2; ++i) {
    const int r = warp_row + i * 8 + t.lane() / 4, row = r < b.past_row ? r : b.past_row - 1;
    at[i / 2][i % 2] = {first_position + row / b.group, 0, kv_head * b.group + row % b.group, kv_head, sequence};
  }
}

/// What the scores in the registers are multiplied with to be exponents of two. The scale is in it where no policy wants to see
/// them.
template <class Mixer>
EFFINFER_HOST_DEVICE float score_unit(const head_layout& heads) {
  return Mixer::changes_scores ? log2_e : heads.scale * log2_e;
}

/// Scores of the keys from `key` on, as the mixer wants them; minus infinity where a query doesn't see a key. `Apart` keeps the
/// policy's work on a few scores behind that on others, where there are no registers for all of it at once.
template <bool Apart, class Mixer, class Simt, int Strips, int Columns>
EFFINFER_HOST_DEVICE void apply_policy(Simt& t, const Mixer& mixer, const head_layout& heads, int first_held,
                                       const position (&at)[Strips][2], int key, bool whole,
                                       float (&score)[Strips][Columns][4]) {
  if (!Mixer::changes_scores && whole) return;
  const int thread_key =
      execution::simt::settled(key + t.lane() % 4 * 2);  // columns are at a constant distance from it
  EFFINFER_UNROLL
  for (int i = 0; i < Strips; ++i) {
    EFFINFER_UNROLL
    for (int n = 0; n < Columns; ++n) {
      if constexpr (Mixer::changes_scores && Apart) t.warp_barrier();
      EFFINFER_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int column = n * 8 + e % 2;
        position p = at[i][e / 2];
        p.key = thread_key + column;
        float& one = score[i][n][e];
        if constexpr (Mixer::changes_scores) one = mixer.score(one * heads.scale, p);
        if (!whole) {
          bool seen = column <= p.query - thread_key && column >= first_held - thread_key;
          if constexpr (Mixer::hides_keys) seen = seen && mixer.visible(p);
          if (!seen) one = minus_infinity;
        }
      }
    }
  }
}

/// Scores become weights e^(score - greatest so far); `fade`: what everything that was summed under an older greatest is to be
/// multiplied with. `sum` is the thread's share.
template <class Simt, int Strips, int Columns>
EFFINFER_HOST_DEVICE void weigh(Simt& t, float unit, float (&score)[Strips][Columns][4], float (&greatest)[Strips][2],
                                float (&sum)[Strips][2], float (&fade)[Strips][2]) {
  // Two maxima of each row at a time, and the lanes' of all rows: each step alone takes longer than several.
  float most[Strips * 2][2];
  EFFINFER_UNROLL
  for (int i = 0; i < Strips * 2; ++i) most[i][0] = most[i][1] = greatest[i / 2][i % 2];
  EFFINFER_UNROLL
  for (int n = 0; n < Columns * Strips * 4; ++n) {
    const int i = n % (Strips * 2), c = n / (Strips * 2);
    most[i][c % 2] = std::fmax(most[i][c % 2], score[i / 2][c / 2][i % 2 * 2 + c % 2]);
  }
  EFFINFER_UNROLL
  for (int i = 0; i < Strips * 2; ++i) most[i][0] = std::fmax(most[i][0], most[i][1]);
  EFFINFER_UNROLL
  for (int mask = 1; mask < 4; mask *= 2) {
    EFFINFER_UNROLL
    for (int i = 0; i < Strips * 2; ++i) most[i][0] = std::fmax(most[i][0], t.shuffle_xor(most[i][0], mask));
  }
  EFFINFER_UNROLL
  for (int i = 0; i < Strips * 2; ++i) {
    const int strip = i / 2, half = i % 2;
    const float shift = most[i][0] == minus_infinity ? 0.0F : most[i][0] * unit;
    fade[strip][half] = t.exp2(std::fma(greatest[strip][half], unit, -shift));
    greatest[strip][half] = most[i][0];
    float added = 0;
    EFFINFER_UNROLL
    for (int n = 0; n < Columns * 2; ++n) {
      float& one = score[strip][n / 2][half * 2 + n % 2];
      one = t.exp2(std::fma(one, unit, -shift));
      added += one;
    }
    sum[strip][half] = std::fma(sum[strip][half], fade[strip][half], added);
  }
}

template <int Strips, int Columns>
EFFINFER_HOST_DEVICE void fade_out(const float (&fade)[Strips][2], float (&out)[Strips][Columns][4]) {
  EFFINFER_UNROLL
  for (int i = 0; i < Strips * Columns * 4; ++i)
    out[i / 4 / Columns][i / 4 % Columns][i % 4] *= fade[i / 4 / Columns][i % 4 / 2];
}

/// What values are to be multiplied with at the end that were weighted 2^(score - greatest), with `sum` of those weights: with the
/// mixer's start among them. 0 where nothing was seen.
template <class Simt>
EFFINFER_HOST_DEVICE float factor_of(Simt& t, const softmax_start& start, float greatest, float sum) {
  const float other = start.max * log2_e;
  const float most = greatest > other ? greatest : other, shift = most == minus_infinity ? 0.0F : most;
  const float share = t.exp2(greatest - shift);
  float total = sum * share;
  if (start.sum != 0.0F) total += start.sum * t.exp2(other - shift);
  return total != 0.0F ? share / total : 0.0F;
}

/// The same of a thread's rows, once for each, whose sums the four threads of a row share. All lanes call it.
template <class Mixer, class Simt>
EFFINFER_HOST_DEVICE float final_factor(Simt& t, const Mixer& mixer, float unit, int head, float greatest, float sum) {
  float all = sum;
  all += t.shuffle_xor(all, 1);
  all += t.shuffle_xor(all, 2);
  return factor_of(t, mixer.start(head), greatest * unit, all);
}

/// Two second operands of t.mma.
template <class Simt, class Shared, bool Transposed>
EFFINFER_HOST_DEVICE void load_two(Simt& t, Shared from, int place, std::uint32_t (&b)[2][2],
                                   std::bool_constant<Transposed>) {
  std::uint32_t r[4];
  if constexpr (Transposed) {
    t.load_matrices_transposed(from, place, r);
  } else {
    t.load_matrices(from, place, r);
  }
  EFFINFER_UNROLL
  for (int i = 0; i < 4; ++i) b[i / 2][i % 2] = r[i];
}

}  // namespace effinfer::inline v0::attention::cuda::detail
