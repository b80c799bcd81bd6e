#pragma once
// The kernels that come before a draw (sample.hpp) where one block would take long, with a block for each part of a row: the greatest logits;
// how many tokens there are and what they weigh, by their distance from the greatest in eighths; the tokens that a filter may leave, which
// seldom are many.

#include <effinfer/decoding/cuda/greedy.hpp>
#include <effinfer/decoding/cuda/sample_row.hpp>
#include <effinfer/decoding/cuda/weight.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/pack.hpp>

#include <cstdint>

namespace effinfer::inline v0::decoding::cuda {

namespace detail {

/// A block for each part of a row: x the part, y the row. A thread has 8 tokens.
struct sample_part {
  static constexpr int width = 8, threads = sample_space::part / width, warps = threads / execution::simt::warp_size;

  template <class T>
  static execution::simt::grid plan(const sample_args<T>& a, int shared_bytes) {
    return {sample_space::parts(a.logits.columns), static_cast<int>(a.logits.rows), threads, shared_bytes};
  }
  template <class Simt>
  EFFINFER_HOST_DEVICE static int first(Simt& t) {
    return t.block() * sample_space::part + t.thread() * width;
  }
  /// -infinity behind the row.
  template <class Simt, class T>
  EFFINFER_HOST_DEVICE static void load(Simt& t, const sample_args<T>& a, float (&x)[width]) {
    const T* const from = a.logits.row(t.block_y()) + first(t);
    const int left = static_cast<int>(a.logits.columns) - first(t);
    const auto read = execution::simt::load_pack<T, width>(from, left, execution::simt::takes_packs<T, width>(from));
    EFFINFER_UNROLL
    for (int i = 0; i < width; ++i) x[i] = i < left ? sampled_logit(read.v[i]) : no_logit;
  }
};

}  // namespace detail

/// The greatest logit of each part; empties the bins.
template <class T>
struct sample_greatest {
  using args = sample_args<T>;
  using part = detail::sample_part;
  static execution::simt::grid plan(const args& a) { return part::plan(a, 2 * 4 * part::warps); }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto values = t.template shared<float>(part::warps);
    const auto ids = t.template shared<int>(part::warps);
    const sample_space space(a.workspace, t.block_y(), t.blocks());
    float x[part::width];
    part::load(t, a, x);
    candidate best;
    EFFINFER_UNROLL
    for (int i = 0; i < part::width; ++i) best.meet({x[i], part::first(t) + i});
    best = detail::meet_in_block(t, best, values, ids);
    if (t.thread() == 0) space.greatest[t.block()] = best;
    for (int b = t.thread(); t.block() == 0 && b < sample_space::bins; b += t.threads())
      space.weights[b] = 0, space.counts[b] = 0;
  }
};

/// Counts and weights by bins, and what min-p leaves of each part.
template <class T>
struct sample_bins {
  using args = sample_args<T>;
  using part = detail::sample_part;
  using sum = sample_space::sum;
  static constexpr int bins = sample_space::bins;
  static execution::simt::grid plan(const args& a) { return part::plan(a, 3 * 4 * bins + (8 + 2 * 4) * part::warps); }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    // Weights in two halves, whose sums over a part fit 32 bits.
    const auto counts = t.template shared<unsigned>(bins), upper = t.template shared<unsigned>(bins),
               lower = t.template shared<unsigned>(bins);
    const auto sums = t.template shared<sum>(part::warps);
    const auto values = t.template shared<float>(part::warps);
    const auto ids = t.template shared<int>(part::warps);
    const sample_space space(a.workspace, t.block_y(), t.blocks());
    const sample_row row = a.rows[t.block_y()];
    float x[part::width];
    part::load(t, a, x);
    for (int b = t.thread(); b < bins; b += t.threads()) counts[b] = 0U, upper[b] = 0U, lower[b] = 0U;
    const candidate greatest = detail::greatest_of(t, space.greatest, t.blocks(), values, ids);  // has a barrier
    if (greatest.id < 0 || detail::sample_rule::is_greedy(row)) return;
    const detail::sample_rule rule(row, greatest.value);
    const std::uint64_t least = detail::sample_rule::least(row);
    sum own = 0;
    EFFINFER_UNROLL
    for (int i = 0; i < part::width; ++i) {
      if (!(x[i] > detail::no_logit)) continue;
      const float v = rule.scale(x[i]);
      const std::uint64_t w = weight(rule.below(v));
      if (w >= least) own += w;
      const int b = rule.bin(v);
      t.atomic_add(counts, b, 1U);
      if (w == 0) continue;
      t.atomic_add(upper, b, static_cast<unsigned>(w >> half_bits));
      t.atomic_add(lower, b, static_cast<unsigned>(w & ((1U << half_bits) - 1)));
    }
    sum all = 0;
    detail::sum_to_thread(t, own, sums, all);  // has barriers
    if (t.thread() == 0) space.part_weights[t.block()] = all;
    for (int b = t.thread(); b < bins; b += t.threads()) {
      const unsigned count = counts[b];
      if (count == 0) continue;
      t.atomic_add(space.counts + b, count);
      const sum both = (sum{static_cast<unsigned>(upper[b])} << half_bits) + static_cast<unsigned>(lower[b]);
      if (both != 0) t.atomic_add(space.weights + b, both);
    }
  }

 private:
  static constexpr int half_bits = 22;
  static_assert(weight_bits - half_bits + 10 < 32 && half_bits + 10 <= 32 && sample_space::part == 1 << 10);
};

/// The tokens that the first of a row's filters may leave, part by part, by rising id.
template <class T>
struct sample_kept {
  using args = sample_args<T>;
  using part = detail::sample_part;
  using sum = sample_space::sum;
  static constexpr int bins = sample_space::bins;
  static execution::simt::grid plan(const args& a) { return part::plan(a, (8 + 3 * 4) * part::warps + 16); }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto sums = t.template shared<sum>(part::warps);
    const auto kept_sums = t.template shared<int>(part::warps);
    const auto values = t.template shared<float>(part::warps);
    const auto ids = t.template shared<int>(part::warps);
    const auto last = t.template shared<int>(1);
    const sample_space space(a.workspace, t.block_y(), t.blocks());
    const sample_row row = a.rows[t.block_y()];
    const int tokens = static_cast<int>(a.logits.columns);
    float x[part::width];
    part::load(t, a, x);
    const candidate greatest = detail::greatest_of(t, space.greatest, t.blocks(), values, ids);
    if (greatest.id < 0 || detail::sample_rule::is_greedy(row) || !detail::sample_rule::filters(row, tokens)) return;
    // The bin in which the filter's sum is reached; top-p after top-k takes from what that leaves.
    constexpr int each = bins / part::threads;
    static_assert(bins % part::threads == 0);
    const bool by_count = detail::sample_rule::counts(row, tokens);
    sum in[each], own = 0, all = 0;
    EFFINFER_UNROLL
    for (int b = 0; b < each; ++b) {
      const int bin = t.thread() * each + b;
      in[b] = by_count ? space.counts[bin] : space.weights[bin];
      own += in[b];
    }
    if (t.thread() == 0) last[0] = bins - 1;
    sum before = detail::sum_to_thread(t, own, sums, all) - own;
    const double target =
        by_count ? double{static_cast<double>(row.top_k)} : double{row.top_p} * static_cast<double>(all);
    EFFINFER_UNROLL
    for (int b = 0; b < each; ++b) {
      if (static_cast<double>(before) < target && static_cast<double>(before + in[b]) >= target)
        last[0] = t.thread() * each + b;
      before += in[b];
    }
    if (t.thread() == 0 && t.block() == 0) space.whole[0] = all;
    t.barrier();
    const int end = last[0];
    const detail::sample_rule rule(row, greatest.value);
    bool stays[part::width];
    int count = 0, of_part = 0;
    EFFINFER_UNROLL
    for (int i = 0; i < part::width; ++i) {
      stays[i] = x[i] > detail::no_logit && rule.bin(rule.scale(x[i])) <= end;
      count += stays[i] ? 1 : 0;
    }
    int to = detail::sum_to_thread(t, count, kept_sums, of_part) - count;
    if (t.thread() == 0) space.kept_counts[t.block()] = of_part;
    int* const kept = space.kept + t.block() * sample_space::part;
    EFFINFER_UNROLL
    for (int i = 0; i < part::width; ++i) {
      if (stays[i]) kept[to++] = part::first(t) + i;
    }
  }
};

}  // namespace effinfer::inline v0::decoding::cuda
