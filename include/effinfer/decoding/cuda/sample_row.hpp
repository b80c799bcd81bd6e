#pragma once
// What the kernels of a draw (sample.hpp, sample_parts.hpp) have in common: what they are told, their memory, what a row's rule makes of its
// logits, and sums over a block.

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/core/random.hpp>
#include <effinfer/decoding/cuda/greedy.hpp>
#include <effinfer/decoding/cuda/weight.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/execution/simt/context.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>

namespace effinfer::inline v0::decoding::cuda {

/// How a row is drawn from. The fields are those of decoding::sample, with its ranges.
struct sample_row {
  float temperature = 1.0F;
  int top_k = 0;
  float top_p = 1.0F;
  float min_p = 0.0F;
  random_stream random = {};
  std::uint64_t position = 0;
};

/// The row's part of a rule. Errors: `invalid_argument` (as decoding::sample's), `unsupported` (penalties).
inline sample_row row_of(const decoding::sample& rule, random_stream random, std::uint64_t position) {
  rule.validate();
  if (rule.repetition_penalty != 1.0F || rule.frequency_penalty != 0.0F || rule.presence_penalty != 0.0F) {
    throw error(error_code::unsupported, "decoding::cuda::row_of", "penalties are not applied by the sampling kernel");
  }
  return {rule.temperature, rule.top_k, rule.top_p, rule.min_p, random, position};
}

/// What the kernels are told. Shapes: logits [R, V], rows [R] in device memory, token [R]; workspace: null, or R * sample_space::bytes(V) bytes.
/// T: float, bf16 or f16. A NaN counts as -infinity, +infinity as the greatest float.
template <class T>
struct sample_args {
  matrix_view<const T> logits;
  const sample_row* rows;
  int* token;
  std::byte* workspace = nullptr;
};

/// A row's part of the workspace.
struct sample_space {
  using sum = unsigned long long;
  static constexpr int part = 1024;  ///< tokens of a block
  static constexpr int bins = 256;   ///< distances from the greatest, in eighths; in the last all that are further away

  sum *weights, *whole, *part_weights;  ///< [bins], of all tokens, [parts] of what min-p leaves of a part
  candidate* greatest;                  ///< [parts]
  unsigned* counts;                     ///< [bins]
  int *kept_counts, *kept;              ///< [parts], [parts, part]: the tokens that a filter may leave

  static int parts(std::ptrdiff_t tokens) { return static_cast<int>((tokens + part - 1) / part); }
  static std::size_t bytes(std::ptrdiff_t tokens) { return size(parts(tokens)); }

  EFFINFER_HOST_DEVICE sample_space(std::byte* workspace, int row, int parts)
      : weights(reinterpret_cast<sum*>(workspace + static_cast<std::size_t>(row) * size(parts))),
        whole(weights + bins),
        part_weights(whole + 1),
        greatest(reinterpret_cast<candidate*>(part_weights + parts)),
        counts(reinterpret_cast<unsigned*>(greatest + parts)),
        kept_counts(reinterpret_cast<int*>(counts + bins)),
        kept(kept_counts + parts) {}

 private:
  EFFINFER_HOST_DEVICE static std::size_t size(int parts) {
    const auto n = static_cast<std::size_t>(parts);
    return ((bins + 1 + n) * sizeof(sum) + n * sizeof(candidate) + (bins + n + n * part) * sizeof(int) + 15) / 16 * 16;
  }
};

namespace detail {

inline constexpr float lowest_logit = std::numeric_limits<float>::lowest();
inline constexpr float no_logit = -std::numeric_limits<float>::infinity();

template <class T>
EFFINFER_HOST_DEVICE float sampled_logit(T logit) {
  const auto x = static_cast<float>(logit);
  if (!(x == x)) return no_logit;
  return x > -lowest_logit ? -lowest_logit : x;
}

/// What a row's rule makes of logits, given the greatest.
struct sample_rule {
  float maximum, factor;
  bool rescaled;

  EFFINFER_HOST_DEVICE sample_rule(const sample_row& row, float greatest)
      : maximum(greatest), factor(1.0F / row.temperature), rescaled(row.temperature != 1.0F) {}
  [[nodiscard]] EFFINFER_HOST_DEVICE float scale(float x) const { return rescaled ? (x - maximum) * factor : x; }
  [[nodiscard]] EFFINFER_HOST_DEVICE float below(float v) const { return rescaled ? v : v - maximum; }
  /// Never falls from a greater logit to a smaller one.
  [[nodiscard]] EFFINFER_HOST_DEVICE int bin(float v) const {
    const float distance = -below(v) * 8.0F;
    return distance < static_cast<float>(sample_space::bins - 1) ? static_cast<int>(distance) : sample_space::bins - 1;
  }
  EFFINFER_HOST_DEVICE static bool is_greedy(const sample_row& row) { return row.temperature < 0x1p-60F; }
  EFFINFER_HOST_DEVICE static bool counts(const sample_row& row, int tokens) {
    return row.top_k > 0 && row.top_k < tokens;
  }
  EFFINFER_HOST_DEVICE static bool filters(const sample_row& row, int tokens) {
    return counts(row, tokens) || row.top_p < 1.0F;
  }
  /// What min-p leaves weighs so much.
  EFFINFER_HOST_DEVICE static std::uint64_t least(const sample_row& row) {
    const double share = row.min_p < 1.0F ? double{row.min_p} : 1.0;
    return row.min_p > 0.0F ? static_cast<std::uint64_t>(share * static_cast<double>(std::uint64_t{1} << weight_bits))
                            : 0;
  }
};

/// The likeliest of a block's candidates, in all threads; `values`, `ids`: one a warp.
template <class Simt, class Values, class Ids>
EFFINFER_HOST_DEVICE candidate meet_in_block(Simt& t, candidate best, Values values, Ids ids) {
  meet_in_warp(t, best);
  if (t.lane() == 0) values[t.warp()] = best.value, ids[t.warp()] = best.id;
  t.barrier();
  for (int w = 0; w < execution::simt::warps(t.threads()); ++w) best.meet({values[w], ids[w]});
  return best;
}
template <class Simt, class Values, class Ids>
EFFINFER_HOST_DEVICE candidate greatest_of(Simt& t, const candidate* of, int parts, Values values, Ids ids) {
  candidate best;
  for (int p = t.thread(); p < parts; p += t.threads()) best.meet(of[p]);
  return meet_in_block(t, best, values, ids);
}

/// The sum of v over the lanes up to this one.
template <class Simt, class N>
EFFINFER_HOST_DEVICE N sum_to_lane(Simt& t, N v) {
  for (int by = 1; by < execution::simt::warp_size; by *= 2) {
    const N other = t.shuffle(v, t.lane() >= by ? t.lane() - by : t.lane());
    if (t.lane() >= by) v += other;
  }
  return v;
}
/// The same over the threads of a block; `of_warps`: one a warp, `all`: over the block. Begins with a barrier.
template <class Simt, class N, class Sums>
EFFINFER_HOST_DEVICE N sum_to_thread(Simt& t, N v, Sums of_warps, N& all) {
  N here = sum_to_lane(t, v);
  t.barrier();
  if (t.lane() == execution::simt::warp_size - 1) of_warps[t.warp()] = here;
  t.barrier();
  all = 0;
  N before = 0;
  for (int w = 0; w < execution::simt::warps(t.threads()); ++w) {
    if (w == t.warp()) before = all;
    all += of_warps[w];
  }
  return before + here;
}

}  // namespace detail

}  // namespace effinfer::inline v0::decoding::cuda
