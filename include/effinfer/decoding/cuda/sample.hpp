#pragma once
// A token drawn from each row of logits: temperature, top-k, top-p, min-p, draw, in the order and with the numbers of
// decoding::sample (its penalties are another kernel's), so the same token for the same seed and position on both backends.
//
// Nothing is sorted. Each filter keeps an upper set of the order "greater logit first, of equals the lower id", which its last token
// describes. That token is found by the digits of its logit from the highest on: a pass adds up what the tokens that share the digits so far
// weigh (top-p) or how many they are (top-k), by their next digit. The sums are integers, so no order of addition shows.
//
// A block a row: its warps own runs of consecutive tokens, so that what goes by rising id (equals at the edge, the draw) is a sum over
// warps and then a walk of one of them.
//
// One block takes long for a large vocabulary. With a workspace three kernels come before it, a block for each 1024 tokens: the greatest
// logits; how many tokens there are and what they weigh, by their distance from the greatest in eighths; the tokens that a filter may
// leave, which seldom are many. The last kernel then works on these alone, on the whole row where they are too many, and without filters
// on the 1024 tokens that the draw falls into:
//
//   start_sample<float>({logits, rows, token, workspace}, [&](auto kernel, const auto& args) {
//     q.template launch<typename decltype(kernel)::type>(args);
//   });

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/core/random.hpp>
#include <effinfer/decoding/cuda/greedy.hpp>
#include <effinfer/decoding/cuda/weight.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/pack.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

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

/// token[r] drawn from logits[r]; -1 where all are -infinity or NaN. With a workspace the three kernels above come before.
template <class T, int Threads = 512>
struct sample {
  using args = sample_args<T>;
  static constexpr int most_kept = 8192;
  static constexpr int bins = 2048, warps = Threads / 32;

  /// Errors: `invalid_argument` (V = 0), `limit` (V > 2^21: sums of weights fit 64 bits up to there).
  static execution::simt::grid plan(const args& a) {
    const char* const who = "decoding::cuda::sample";
    if (a.logits.columns < 1) throw error(error_code::invalid_argument, who, "there are no logits");
    if (a.logits.columns > std::ptrdiff_t{1} << 21) {
      throw error(error_code::limit, who, std::to_string(a.logits.columns) + " tokens are more than 2097152");
    }
    return {static_cast<int>(a.logits.rows), 1, Threads,
            static_cast<int>(sizeof(sum)) * (bins + warps + 4) + 2 * 4 * (warps + most_kept)};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    search<Simt> s(t, a);
    s.find_maximum();
    int token = -1;
    if (s.maximum > minus_infinity) {
      if (detail::sample_rule::is_greedy(s.rule)) {
        token = s.likeliest;
      } else {
        if (s.rule.temperature != 1.0F) s.rescale();
        const bool filters = detail::sample_rule::filters(s.rule, s.tokens);
        if (a.workspace != nullptr && filters) s.take_kept();
        s.keep_top_k();
        s.keep_top_p();
        token = s.id_of(a.workspace != nullptr && !filters ? s.draw_from_part() : s.draw());
      }
    }
    if (t.thread() == 0) a.token[t.block()] = token;
  }

 private:
  using sum = unsigned long long;
  static constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
  static constexpr float lowest = std::numeric_limits<float>::lowest();
  static constexpr int none = std::numeric_limits<int>::max();

  /// Greater for greater floats; the zeros are equal.
  EFFINFER_HOST_DEVICE static std::uint32_t key(float v) {
    const auto bits = std::bit_cast<std::uint32_t>(v + 0.0F);
    return bits >> 31 != 0 ? ~bits : bits | 0x80000000U;
  }
  EFFINFER_HOST_DEVICE static float value_of_key(std::uint32_t k) {
    return std::bit_cast<float>(k >> 31 != 0 ? k & 0x7fffffffU : ~k);
  }

  template <class Simt>
  struct search {
    Simt& t;
    const args& a;
    sample_row rule;
    const T* row;
    int tokens, first = 0, end = 0;  // of the warp's run
    decltype(t.template shared<sum>(1)) histogram, warp_sums, found;
    decltype(t.template shared<float>(1)) warp_values;
    decltype(t.template shared<int>(1)) warp_ids;
    decltype(t.template shared<float>(1)) kept_values;
    decltype(t.template shared<int>(1)) kept_ids;
    int parts;
    bool has_kept = false;
    sum whole = 0;  // the weight of all tokens, where `tokens` are only some of them
    float maximum = minus_infinity, factor = 1;
    int likeliest = none;
    bool rescaled = false;
    // The tokens left: those of a greater logit, and of an equal one those up to this id.
    float cut = lowest;
    int cut_id = none;

    EFFINFER_HOST_DEVICE search(Simt& simt, const args& arguments)
        : t(simt),
          a(arguments),
          rule(a.rows[t.block()]),
          row(a.logits.row(t.block())),
          tokens(static_cast<int>(a.logits.columns)),
          histogram(t.template shared<sum>(bins)),
          warp_sums(t.template shared<sum>(warps)),
          found(t.template shared<sum>(4)),
          warp_values(t.template shared<float>(warps)),
          warp_ids(t.template shared<int>(warps)),
          kept_values(t.template shared<float>(most_kept)),
          kept_ids(t.template shared<int>(most_kept)),
          parts((tokens + sample_space::part - 1) / sample_space::part) {
      share();
    }
    [[nodiscard]] EFFINFER_HOST_DEVICE sample_space space() const { return {a.workspace, t.block(), parts}; }
    EFFINFER_HOST_DEVICE void share() {
      const int each = (tokens + Threads - 1) / Threads * 32;
      first = t.warp() * each < tokens ? t.warp() * each : tokens;
      end = first + each < tokens ? first + each : tokens;
    }

    EFFINFER_HOST_DEVICE float value(int i) const {
      const float x = has_kept ? static_cast<float>(kept_values[i]) : detail::sampled_logit(row[i]);
      return rescaled ? (x - maximum) * factor : x;
    }
    EFFINFER_HOST_DEVICE bool left(float v, int i) const { return v > cut || (v == cut && i <= cut_id); }
    EFFINFER_HOST_DEVICE std::uint64_t weight_of(float v) const { return weight(rescaled ? v : v - maximum); }

    EFFINFER_HOST_DEVICE void meet(float v, int i) {
      if (v > maximum || (v == maximum && i < likeliest)) maximum = v, likeliest = i;
    }
    EFFINFER_HOST_DEVICE int id_of(int i) const { return has_kept ? static_cast<int>(kept_ids[i]) : i; }

    EFFINFER_HOST_DEVICE void find_maximum() {
      if (a.workspace != nullptr) {
        const candidate best = detail::greatest_of(t, space().greatest, parts, warp_values, warp_ids);
        maximum = best.value, likeliest = best.id;
        return;
      }
      for (int i = first + t.lane(); i < end; i += 32) {
        const float v = value(i);
        if (v > minus_infinity) meet(v, i);
      }
      for (int mask = 16; mask > 0; mask /= 2) {
        const float other = t.shuffle_xor(maximum, mask);
        meet(other, t.shuffle_xor(likeliest, mask));
      }
      if (t.lane() == 0) warp_values[t.warp()] = maximum, warp_ids[t.warp()] = likeliest;
      t.barrier();
      for (int w = 0; w < warps; ++w) meet(warp_values[w], warp_ids[w]);
    }
    EFFINFER_HOST_DEVICE void rescale() {
      factor = 1.0F / rule.temperature;
      rescaled = true;
    }

    /// The row becomes what sample_kept left, if that isn't too many.
    EFFINFER_HOST_DEVICE void take_kept() {
      const sample_space own_space = space();
      // Where the tokens of each part go; the histogram isn't needed yet.
      const int each = (parts + Threads - 1) / Threads, from = t.thread() * each;
      sum own = 0, all = 0;
      for (int p = from; p < from + each && p < parts; ++p) own += static_cast<sum>(own_space.kept_counts[p]);
      sum before = detail::sum_to_thread(t, own, warp_sums, all) - own;
      if (all > most_kept) return;
      for (int p = from; p < from + each && p < parts; ++p) {
        histogram[p] = before;
        before += static_cast<sum>(own_space.kept_counts[p]);
      }
      t.barrier();
      for (int p = t.warp(); p < parts; p += warps) {
        const int to = static_cast<int>(static_cast<sum>(histogram[p]));
        for (int i = t.lane(); i < own_space.kept_counts[p]; i += 32) {
          const int id = own_space.kept[p * sample_space::part + i];
          kept_ids[to + i] = id;
          kept_values[to + i] = detail::sampled_logit(row[id]);
        }
      }
      t.barrier();
      if (!detail::sample_rule::counts(rule, tokens)) whole = own_space.whole[0];
      has_kept = true;
      tokens = static_cast<int>(all);
      share();
    }

    EFFINFER_HOST_DEVICE sum sum_to_lane(sum v) { return detail::sum_to_lane(t, v); }

    /// Empties the histogram, adds measure(value, id) of the tokens left whose key starts with `prefix` above bit `shift + bits`, and
    /// returns the sum of the whole. Bins fall from the greatest digit.
    template <class Measure>
    EFFINFER_HOST_DEVICE sum add_up(std::uint32_t prefix, int shift, int bits, const Measure& measure) {
      t.barrier();
      for (int b = t.thread(); b < bins; b += Threads) histogram[b] = sum{0};
      t.barrier();
      sum own = 0;
      for (int i = first + t.lane(); i < end; i += 32) {
        const float v = value(i);
        if (!left(v, i)) continue;
        const std::uint32_t k = key(v);
        if (shift + bits < 32 && k >> (shift + bits) != prefix) continue;
        const auto m = static_cast<sum>(measure(v));
        if (m == 0) continue;
        own += m;
        const auto digit = static_cast<int>(k >> shift & ((1U << bits) - 1));
        t.atomic_add(histogram, (1 << bits) - 1 - digit, m);
      }
      own = t.shuffle(sum_to_lane(own), 31);
      if (t.lane() == 0) warp_sums[t.warp()] = own;
      t.barrier();
      sum all = 0;
      for (int w = 0; w < warps; ++w) all += warp_sums[w];
      return all;
    }

    /// The first bin that brings `reached` to `target`; `reached` becomes the sum before it. There is one.
    EFFINFER_HOST_DEVICE int find_bin(double target, sum& reached, sum& in_bin) {
      constexpr int each = (bins + Threads - 1) / Threads;
      sum own = 0;
      for (int b = 0; b < each; ++b) {
        if (t.thread() * each + b < bins) own += histogram[t.thread() * each + b];
      }
      const sum to_here = sum_to_lane(own);
      t.barrier();  // all have read warp_sums
      if (t.lane() == 31) warp_sums[t.warp()] = to_here;
      t.barrier();
      sum before = reached + to_here - own;
      for (int w = 0; w < t.warp(); ++w) before += warp_sums[w];
      for (int b = 0; b < each; ++b) {
        if (t.thread() * each + b >= bins) break;
        const sum in = histogram[t.thread() * each + b];
        if (static_cast<double>(before) < target && static_cast<double>(before + in) >= target) {
          found[0] = static_cast<sum>(t.thread() * each + b);
          found[1] = before;
          found[2] = in;
        }
        before += in;
      }
      t.barrier();
      reached = found[1];
      in_bin = found[2];
      return static_cast<int>(static_cast<sum>(found[0]));
    }

    /// Of the tokens left by falling logit, the logit of that which brings the sum of `measure` to target(the whole sum); how much comes
    /// before those that share it, and what these are together. False where the whole is no more than the target, so that all stay. `beside`: the whole, where there are
    /// tokens beside those that are looked at.
    template <class Measure, class Target>
    EFFINFER_HOST_DEVICE bool find_cut(const Measure& measure, const Target& target_of, float& at, sum& reached,
                                       sum& together, double& target, sum beside = 0) {
      std::uint32_t prefix = 0;
      reached = 0;
      target = 0;
      for (int level = 0; level < 3; ++level) {
        const int shift = level == 0 ? 21 : level == 1 ? 10 : 0, width = level < 2 ? 11 : 10;
        sum all = add_up(prefix, shift, width, measure);
        if (level == 0) {
          if (beside != 0) all = beside;
          target = target_of(all);
          if (!(static_cast<double>(all) > target)) return false;
        }
        const int bin = find_bin(target, reached, together);
        prefix = prefix << width | static_cast<std::uint32_t>((1 << width) - 1 - bin);
      }
      at = value_of_key(prefix);
      return true;
    }

    EFFINFER_HOST_DEVICE void keep_top_k() {
      if (rule.top_k <= 0 || rule.top_k >= tokens) return;
      float at = 0;
      sum reached = 0, together = 0;
      double target = 0;
      const auto k = static_cast<double>(rule.top_k);
      if (find_cut([](float) { return 1; }, [k](sum) { return k; }, at, reached, together, target)) cut = at;
    }

    EFFINFER_HOST_DEVICE void keep_top_p() {
      if (!(rule.top_p < 1.0F)) return;
      float at = 0;
      sum reached = 0, together = 0;
      double target = 0;
      const double p = rule.top_p;
      if (!find_cut([this](float v) { return weight_of(v); }, [p](sum all) { return p * static_cast<double>(all); }, at,
                    reached, together, target, whole))
        return;
      // The tokens of this logit weigh the same: how many of them reach the target?
      const sum each = weight_of(at);
      sum enough = together / each, short_of = 0;
      while (enough - short_of > 1) {
        const sum middle = short_of + (enough - short_of) / 2;
        if (static_cast<double>(reached + middle * each) >= target) {
          enough = middle;
        } else {
          short_of = middle;
        }
      }
      int id = none;
      if (enough * each < together) {
        sum rest = enough - 1;
        id = walk(rest, [this, at](float v, int i) { return sum{v == at && left(v, i)}; });
      }
      cut = at;
      cut_id = id < cut_id ? id : cut_id;
    }

    /// The sum of measure(value, id) over each warp's run, into warp_sums; returns that over all.
    template <class Measure>
    EFFINFER_HOST_DEVICE sum add_up_runs(const Measure& measure) {
      sum own = 0;
      for (int i = first + t.lane(); i < end; i += 32) own += measure(value(i), i);
      own = t.shuffle(sum_to_lane(own), 31);
      t.barrier();  // whatever was in warp_sums has been read
      if (t.lane() == 0) warp_sums[t.warp()] = own;
      t.barrier();
      sum all = 0;
      for (int w = 0; w < warps; ++w) all += warp_sums[w];
      return all;
    }

    /// The first token by rising id with measure(0) + ... + measure(token) > rest. There is one.
    template <class Measure>
    EFFINFER_HOST_DEVICE int walk(sum rest, const Measure& measure) {
      add_up_runs(measure);
      return walk_runs(rest, measure);
    }
    template <class Measure>
    EFFINFER_HOST_DEVICE int walk_runs(sum rest, const Measure& measure) {
      sum before = 0;
      for (int w = 0; w < t.warp(); ++w) before += warp_sums[w];
      const sum own = warp_sums[t.warp()];
      if (before <= rest && rest < before + own) {  // one warp
        for (int i = first; i < end; i += 32) {
          const int id = i + t.lane();
          const sum to_here = before + sum_to_lane(id < end ? measure(value(id), id) : sum{0});
          const std::uint32_t past = t.ballot(to_here > rest);
          before = t.shuffle(to_here, 31);
          if (past == 0) continue;
          if (t.lane() == 0) found[3] = static_cast<sum>(i + lowest_bit(past));
          break;
        }
      }
      t.barrier();
      return static_cast<int>(static_cast<sum>(found[3]));
    }
    EFFINFER_HOST_DEVICE static int lowest_bit(std::uint32_t bits) {
      int at = 0;
      while ((bits >> at & 1U) == 0) ++at;
      return at;
    }

    EFFINFER_HOST_DEVICE sum drawn(sum all) const {
      const double u =
          double{rule.random.uniform(rule.position, 0)} + double{rule.random.uniform(rule.position, 1)} * 0x1p-24;
      const auto rest = static_cast<sum>(u * static_cast<double>(all));
      return rest < all ? rest : all - 1;
    }
    EFFINFER_HOST_DEVICE int draw() {
      const std::uint64_t least = detail::sample_rule::least(rule);
      const auto measure = [this, least](float v, int i) {
        const std::uint64_t w = left(v, i) ? weight_of(v) : 0;
        return static_cast<sum>(w >= least ? w : 0);
      };
      return walk_runs(drawn(add_up_runs(measure)), measure);
    }
    /// Without filters: the part that the draw falls into is found by the weights of all parts.
    EFFINFER_HOST_DEVICE int draw_from_part() {
      const sample_space own_space = space();
      const int each = (parts + Threads - 1) / Threads, from = t.thread() * each;
      sum own = 0, all = 0;
      for (int p = from; p < from + each && p < parts; ++p) own += own_space.part_weights[p];
      sum before = detail::sum_to_thread(t, own, warp_sums, all) - own;
      const sum rest = drawn(all);
      for (int p = from; p < from + each && p < parts; ++p) {
        const sum in = own_space.part_weights[p];
        if (before <= rest && rest < before + in) found[0] = static_cast<sum>(p), found[1] = before;
        before += in;
      }
      t.barrier();
      const int begin = static_cast<int>(static_cast<sum>(found[0])) * sample_space::part;
      const sum rest_of_part = rest - found[1];
      const int past = begin + sample_space::part < tokens ? begin + sample_space::part : tokens;
      const int of_warp = (past - begin + Threads - 1) / Threads * 32;
      first = begin + t.warp() * of_warp < past ? begin + t.warp() * of_warp : past;
      end = first + of_warp < past ? first + of_warp : past;
      const std::uint64_t least = detail::sample_rule::least(rule);
      return walk(rest_of_part, [this, least](float v, int i) {
        const std::uint64_t w = left(v, i) ? weight_of(v) : 0;
        return static_cast<sum>(w >= least ? w : 0);
      });
    }
  };
};

/// Starts the kernels of a draw: start(std::type_identity<kernel>, args), one behind the other.
template <class T, class Start>
void start_sample(const sample_args<T>& a, const Start& start) {
  if (a.workspace != nullptr) {
    start(std::type_identity<sample_greatest<T>>(), a);
    start(std::type_identity<sample_bins<T>>(), a);
    start(std::type_identity<sample_kept<T>>(), a);
  }
  start(std::type_identity<sample<T>>(), a);
}

}  // namespace effinfer::inline v0::decoding::cuda
