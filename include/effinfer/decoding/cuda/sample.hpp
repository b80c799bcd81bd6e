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
// One block takes long for a large vocabulary. With a workspace three kernels come before it, a block for each 1024 tokens
// (sample_parts.hpp). The last kernel then works on the tokens that these leave alone, on the whole row where they are too many, and
// without filters on the 1024 tokens that the draw falls into:
//
//   start_sample<float>({logits, rows, token, workspace}, [&](auto kernel, const auto& args) {
//     q.template launch<typename decltype(kernel)::type>(args);
//   });

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/cuda/greedy.hpp>
#include <effinfer/decoding/cuda/sample_parts.hpp>
#include <effinfer/decoding/cuda/sample_row.hpp>
#include <effinfer/decoding/cuda/weight.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::decoding::cuda {

/// token[r] drawn from logits[r]; -1 where all are -infinity or NaN. With a workspace the three kernels of sample_parts.hpp come before.
template <class T, int Threads = 512>
struct sample {
  using args = sample_args<T>;
  static constexpr int most_kept = 8192;
  static constexpr int bins = 2048, warps = Threads / 32;
  static constexpr int shared_bytes = 8 * (bins + warps + 4) + 2 * 4 * (warps + most_kept);
  static_assert(shared_bytes <= execution::simt::least_shared_bytes);

  /// Errors: `invalid_argument` (V = 0), `limit` (V > 2^21: sums of weights fit 64 bits up to there).
  static execution::simt::grid plan(const args& a) {
    const char* const who = "decoding::cuda::sample";
    if (a.logits.columns < 1) throw error(error_code::invalid_argument, who, "there are no logits");
    if (a.logits.columns > std::ptrdiff_t{1} << 21) {
      throw error(error_code::limit, who, std::to_string(a.logits.columns) + " tokens are more than 2097152");
    }
    return {static_cast<int>(a.logits.rows), 1, Threads, shared_bytes};
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
