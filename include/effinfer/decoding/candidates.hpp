#pragma once
// The tokens that may still be drawn from a row of logits, and the draw. Every filter (top_k.hpp, top_p.hpp, min_p.hpp)
// is one member here, so that a chain of them costs little more than one: a filter narrows what the one before left.
//
// Numbers: weights are integers (cpu/weights.hpp), so sums are exact and no order of summation shows. The draw takes 48
// random bits and walks the tokens left by rising id.
//
// Cost for V tokens: one pass for the maxima of groups of 16; one with e^x where the total is needed (top-p, an unfiltered
// draw); after that only the groups that reach a threshold are visited, and sorting is confined to the few tokens at the cut.

#include <effinfer/core/error.hpp>
#include <effinfer/core/random.hpp>
#include <effinfer/decoding/cpu/weights.hpp>
#include <effinfer/decoding/workspace.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace effinfer::inline v0::decoding {

/// All tokens of `logits` [V] at first; each `keep_...` puts some aside. The likeliest token always stays.
///
/// A NaN counts as -infinity, +infinity as the greatest float. `logits` may be changed in place; it and `scratch` must
/// outlive this object. Errors: `invalid_argument` (V = 0), `limit` (V > 2^21), `malformed` (every logit is -infinity or NaN).
class candidates {
 public:
  candidates(std::span<float> logits, workspace& scratch) : logits_(logits), scratch_(scratch) {
    if (logits.empty()) throw error(error_code::invalid_argument, "decoding: logits", "there are none");
    if (tokens() > cpu::most_tokens) {
      throw error(error_code::limit, "decoding: logits",
                  std::to_string(tokens()) + " tokens are more than " + std::to_string(cpu::most_tokens));
    }
    find_maximum();
    if (maximum_ == infinity) {
      for (float& logit : logits_) {
        if (logit > -lowest) logit = -lowest;
      }
      find_maximum();
    }
    if (maximum_ == -infinity) {
      throw error(error_code::malformed, "decoding: logits",
                  "all " + std::to_string(tokens()) + " are -infinity or NaN, so no token can be chosen",
                  "the checkpoint's weights may be damaged");
    }
  }

  /// Divides the logits by `temperature` >= 0, which flattens the distribution above 1 and sharpens it below; 0, and all below
  /// 2^-60, keep the likeliest token only. Comes before the filters. (Ackley et al. 1985)
  void divide_by(float temperature) {
    if (temperature == 1.0f) return;
    if (temperature < 0x1p-60f) return keep_only(likeliest());
    const float factor = 1.0f / temperature;
    execution::dispatch<cpu::rescale>(scratch_.instructions, logits_.data(), tokens(), maximum_, factor);
    for (auto* maxima : {&scratch_.group_maxima, &scratch_.block_maxima}) {
      const auto count = static_cast<std::ptrdiff_t>(maxima->size());
      execution::dispatch<cpu::rescale>(scratch_.instructions, maxima->data(), count, maximum_, factor);
    }
    maximum_ = 0;
  }

  /// Keeps the tokens whose logit is at least the k-th greatest: k of them, more where several share that logit. k <= 0 keeps all.
  void keep_top_k(int k) {
    if (k <= 0 || k >= tokens()) return;
    if (!listed_) {
      // The k-th greatest block maximum is no greater than the k-th greatest logit, and far fewer values to select from.
      list(k <= cpu::blocks(tokens()) ? nth_greatest(scratch_.block_maxima, cpu::blocks(tokens()), k) : lowest);
    }
    if (k >= listed_tokens_) return;
    const float threshold = nth_greatest(scratch_.values, listed_tokens_, k);
    keep_if([threshold](float value, int, std::uint64_t) { return value >= threshold; });
  }

  /// Keeps the smallest set of likeliest tokens whose probability is at least p (equals go by the lower id). p >= 1 keeps all.
  void keep_top_p(float p) {
    if (!(p < 1.0f)) return;
    if (listed_) return keep_reaching(double{p} * static_cast<double>(sum_listed()));
    const double target = double{p} * static_cast<double>(sum_blocks_left());
    // Where the greatest of each group together reach it, all tokens as great as these do.
    reserve_list();
    std::copy(scratch_.group_maxima.begin(), scratch_.group_maxima.begin() + cpu::groups(tokens()),
              scratch_.values.begin());
    set_list(cpu::groups(tokens()));
    if (static_cast<double>(sum_listed()) >= target) {
      const binning bin_of = fill_bins();
      std::uint64_t reached = 0;
      list(bin_of.edge(bin_reaching(target, reached) + 1));
      if (static_cast<double>(sum_listed()) >= target) return keep_reaching(target);
    }
    keep_reaching_in_row(p, target);
  }

  /// Keeps the tokens at least p times as likely as the likeliest. p <= 0 keeps all.
  void keep_min_p(float p) {
    if (!(p > 0.0f)) return;
    // A little lower than ln p, for the rounding of e^x; the comparison that counts is of weights.
    if (!listed_) list(static_cast<float>(double{maximum_} + std::log(double{p}) - 1e-3));
    weigh();
    const auto least = static_cast<std::uint64_t>(std::min(double{p}, 1.0) * static_cast<double>(cpu::greatest_weight));
    keep_if([least](float, int, std::uint64_t weight) { return weight >= least; });
  }

  /// The token of the greatest logit; of several the lowest id. Comes before the filters.
  [[nodiscard]] int likeliest() const {
    std::ptrdiff_t block = 0;
    while (scratch_.block_maxima[index(block)] != maximum_) ++block;
    std::ptrdiff_t i = block * cpu::block_tokens;
    while (logits_[index(i)] != maximum_) ++i;
    return static_cast<int>(i);
  }

  /// A token at random, each by its share of the weights left.
  ///
  /// Exact: a pure function of the logits, the filters and (seed, position).
  [[nodiscard]] int draw(random_stream random, std::uint64_t position) {
    if (listed_ && listed_tokens_ == 1) return scratch_.ids[0];
    const double u = double{random.uniform(position, 0)} + double{random.uniform(position, 1)} * 0x1p-24;
    if (listed_) {
      std::uint64_t rest = share(u, sum_listed());
      return scratch_.ids[index(walk(scratch_.weights, rest))];
    }
    std::uint64_t rest = share(u, sum_blocks_left());
    const std::ptrdiff_t block = walk(scratch_.block_weights, rest);
    list(threshold_, infinity, block, block + 1);
    weigh();
    return scratch_.ids[index(walk(scratch_.weights, rest))];
  }

  /// Writes -infinity over the logits of all tokens put aside.
  void write_back() {
    if (!listed_) {
      for (float& logit : logits_) {
        if (!(logit >= threshold_)) logit = -infinity;
      }
      return;
    }
    std::fill(logits_.begin(), logits_.end(), -infinity);
    for (std::ptrdiff_t i = 0; i < listed_tokens_; ++i)
      logits_[index(scratch_.ids[index(i)])] = scratch_.values[index(i)];
  }

 private:
  static constexpr float infinity = std::numeric_limits<float>::infinity();
  static constexpr float lowest = std::numeric_limits<float>::lowest();
  static constexpr std::ptrdiff_t sampled_tokens = 4096;

  static std::size_t index(std::ptrdiff_t i) { return static_cast<std::size_t>(i); }
  [[nodiscard]] std::ptrdiff_t tokens() const { return static_cast<std::ptrdiff_t>(logits_.size()); }

  template <class Vector>
  static void reserve(Vector& v, std::ptrdiff_t count) {
    if (v.size() < index(count)) v.resize(index(count));
  }

  void find_maximum() {
    scratch_.group_maxima.resize(index(cpu::groups(tokens())));
    scratch_.block_maxima.resize(index(cpu::blocks(tokens())));
    execution::dispatch<cpu::find_maxima>(scratch_.instructions, logits_.data(), tokens(), scratch_.group_maxima.data(),
                                          scratch_.block_maxima.data());
    maximum_ = *std::max_element(scratch_.block_maxima.begin(), scratch_.block_maxima.end());
  }

  /// Fills the block weights with those of logits >= threshold; returns their sum.
  std::uint64_t sum_blocks(float threshold) {
    const std::ptrdiff_t blocks = cpu::blocks(tokens());
    reserve(scratch_.block_weights, blocks);
    std::uint64_t* sums = scratch_.block_weights.data();
    execution::dispatch<cpu::sum_block_weights>(
        scratch_.instructions,
        cpu::sum_block_weights{logits_.data(), tokens(), scratch_.group_maxima.data(), maximum_, threshold, sums});
    return std::accumulate(sums, sums + blocks, std::uint64_t{0});
  }

  /// The weight of all tokens left while there is no list.
  std::uint64_t sum_blocks_left() {
    if (!blocks_weighed_) return sum_blocks(threshold_);
    return std::accumulate(scratch_.block_weights.begin(), scratch_.block_weights.begin() + cpu::blocks(tokens()),
                           std::uint64_t{0});
  }

  /// Makes the list that of the row's tokens left whose logit is in [from, below), by rising id.
  void list(float from, float below = infinity) { list(from, below, 0, cpu::blocks(tokens())); }
  void list(float from, float below, std::ptrdiff_t first_block, std::ptrdiff_t end_block) {
    reserve_list();
    from = std::max(from, threshold_);
    int* ids = scratch_.ids.data();
    std::ptrdiff_t n = 0;
    for (std::ptrdiff_t block = first_block; block < end_block; ++block) {
      if (!(scratch_.block_maxima[index(block)] >= from)) continue;
      const std::ptrdiff_t end = std::min(tokens(), (block + 1) * cpu::block_tokens);
      for (std::ptrdiff_t first = block * cpu::block_tokens; first < end; first += cpu::group_tokens) {
        if (!(scratch_.group_maxima[index(first / cpu::group_tokens)] >= from)) continue;
        for (std::ptrdiff_t i = first; i < std::min(end, first + cpu::group_tokens); ++i) {
          const float value = logits_[index(i)];
          ids[n] = static_cast<int>(i);  // no branch, as none could be foretold
          n += static_cast<int>(value >= from) & static_cast<int>(value < below);
        }
      }
    }
    for (std::ptrdiff_t i = 0; i < n; ++i) scratch_.values[index(i)] = logits_[index(ids[i])];
    set_list(n);
  }

  void keep_only(int id) {
    reserve_list();
    scratch_.ids[0] = id;
    scratch_.values[0] = maximum_;
    set_list(1);
  }

  void reserve_list() {
    reserve(scratch_.ids, tokens() + 1);  // the place past the end takes a write that isn't kept
    reserve(scratch_.values, tokens() + 1);
    reserve(scratch_.weights, tokens() + 1);
  }

  void set_list(std::ptrdiff_t count) {
    listed_ = true;
    weighed_ = false;
    listed_tokens_ = count;
  }

  template <class Keep>
  void keep_if(Keep keep) {
    std::ptrdiff_t n = 0;
    for (std::ptrdiff_t i = 0; i < listed_tokens_; ++i) {
      const int id = scratch_.ids[index(i)];
      const float value = scratch_.values[index(i)];
      const std::uint64_t weight = scratch_.weights[index(i)];
      scratch_.ids[index(n)] = id;
      scratch_.values[index(n)] = value;
      scratch_.weights[index(n)] = weight;
      n += keep(value, id, weight);
    }
    listed_tokens_ = n;
  }

  void weigh() {
    if (weighed_) return;
    execution::dispatch<cpu::weigh>(scratch_.instructions, scratch_.values.data(), listed_tokens_, maximum_,
                                    scratch_.weights.data());
    weighed_ = true;
  }

  std::uint64_t sum_listed() {
    weigh();
    return std::accumulate(scratch_.weights.begin(), scratch_.weights.begin() + listed_tokens_, std::uint64_t{0});
  }

  static std::uint64_t share(double u, std::uint64_t all) {
    return std::min(static_cast<std::uint64_t>(u * static_cast<double>(all)), all - 1);
  }

  /// The first i with weights[0] + ... + weights[i] > rest; less those before it, `rest` is what is left for i.
  static std::ptrdiff_t walk(const std::vector<std::uint64_t>& weights, std::uint64_t& rest) {
    std::ptrdiff_t i = 0;
    for (; rest >= weights[index(i)]; ++i) rest -= weights[index(i)];
    return i;
  }

  /// The n-th greatest of the first `count` of `values`, n from 1.
  float nth_greatest(const std::vector<float>& values, std::ptrdiff_t count, std::ptrdiff_t n) {
    reserve(scratch_.pool, tokens());
    std::copy(values.begin(), values.begin() + count, scratch_.pool.begin());
    const auto nth = scratch_.pool.begin() + (n - 1);
    std::nth_element(scratch_.pool.begin(), nth, scratch_.pool.begin() + count, std::greater<>());
    return *nth;
  }

  /// Equal bins from the greatest listed logit downwards. Each step is monotone, so a greater logit never falls into a later bin.
  struct binning {
    float top, bins_per_unit, last;
    [[nodiscard]] int operator()(float value) const {
      return static_cast<int>(std::min((top - value) * bins_per_unit, last));
    }
    /// About the greatest value of a bin; the lowest float for what would follow the last one.
    [[nodiscard]] float edge(int bin) const {
      return static_cast<float>(bin) <= last ? top - static_cast<float>(bin) / bins_per_unit : lowest;
    }
  };

  /// Adds up the list's weights by bin.
  binning fill_bins() {
    float least = maximum_, greatest = lowest;
    for (std::ptrdiff_t i = 0; i < listed_tokens_; ++i) {
      least = std::min(least, scratch_.values[index(i)]);
      greatest = std::max(greatest, scratch_.values[index(i)]);
    }
    const auto last = static_cast<float>(scratch_.bin_weights.size() - 1);
    const binning bin_of{greatest, last / std::clamp(greatest - least, 1e-30f, cpu::weightless), last};
    scratch_.bin_weights.fill(0);
    for (std::ptrdiff_t i = 0; i < listed_tokens_; ++i) {
      scratch_.bin_weights[index(bin_of(scratch_.values[index(i)]))] += scratch_.weights[index(i)];
    }
    return bin_of;
  }

  /// The first bin whose weight, added to `reached` and those before it, reaches `target`, else the last. `reached` becomes the sum
  /// without it.
  int bin_reaching(double target, std::uint64_t& reached) const {
    const auto& weights = scratch_.bin_weights;
    std::size_t bin = 0;
    while (bin + 1 < weights.size() && static_cast<double>(reached + weights[bin]) < target) reached += weights[bin++];
    return static_cast<int>(bin);
  }

  /// Of the list by falling logit, equals by rising id: the first to bring `reached` to `target`. Only its bin is sorted; those
  /// behind it there stand in the scratch's order.
  struct cut {
    float value;
    int id;
    std::ptrdiff_t order_begin, order_end;
  };
  cut find_cut(double target, std::uint64_t reached) {
    weigh();
    const binning bin_of = fill_bins();
    const int bin = bin_reaching(target, reached);
    reserve(scratch_.order, tokens());
    const float* values = scratch_.values.data();
    std::ptrdiff_t n = 0;
    for (std::ptrdiff_t i = 0; i < listed_tokens_; ++i) {
      if (bin_of(values[i]) == bin) scratch_.order[index(n++)] = static_cast<int>(i);
    }
    std::sort(scratch_.order.begin(), scratch_.order.begin() + n, [values](int a, int b) {
      return values[a] > values[b] || (values[a] == values[b] && a < b);  // the list stands by rising id
    });
    std::ptrdiff_t last = 0;
    for (; last + 1 < n; ++last) {
      reached += scratch_.weights[index(scratch_.order[index(last)])];
      if (static_cast<double>(reached) >= target) break;
    }
    const int at = scratch_.order[index(last)];
    return {values[at], scratch_.ids[index(at)], last + 1, n};
  }

  /// Keeps of the list the likeliest that reach the weight `target`.
  void keep_reaching(double target) { keep_to(find_cut(target, 0)); }
  void keep_to(const cut& c) {
    keep_if([c](float value, int id, std::uint64_t) { return value > c.value || (value == c.value && id <= c.id); });
  }

  /// The same for a nucleus of very many tokens. A sample of the vocabulary brackets its edge; only the tokens in the bracket are
  /// listed, and the row gets a threshold. A sample that misleads costs time: the bracket is then moved.
  void keep_reaching_in_row(float p, double target) {
    std::ptrdiff_t n = 0;
    const std::ptrdiff_t step = std::max<std::ptrdiff_t>(1, tokens() / sampled_tokens);
    for (std::ptrdiff_t i = 0; i < tokens(); i += step) {
      scratch_.values[index(n)] = logits_[index(i)];
      n += logits_[index(i)] >= threshold_;
    }
    set_list(n);
    const auto sampled = static_cast<double>(sum_listed());
    const binning bin_of = fill_bins();
    std::uint64_t reached = 0;
    float upper = bin_of.edge(bin_reaching((double{p} - 0.02) * sampled, reached));
    float lower = bin_of.edge(bin_reaching((double{p} + 0.02) * sampled, reached = 0) + 1);

    reached = sum_blocks(upper);
    if (static_cast<double>(reached) >= target) {
      lower = upper;
      upper = infinity;
      reached = sum_blocks(upper);
    }
    list(lower, upper);
    for (float width = std::max(0.25f, std::min(upper, maximum_) - lower);
         static_cast<double>(reached + sum_listed()) < target && lower > lowest; width *= 2) {
      lower = std::max(lowest, lower - width);
      list(lower, upper);
    }
    const cut c = find_cut(target, reached);
    for (std::ptrdiff_t i = c.order_begin; i < c.order_end; ++i) {
      const int at = scratch_.order[index(i)];
      if (scratch_.values[index(at)] == c.value) logits_[index(scratch_.ids[index(at)])] = -infinity;
    }
    keep_to(c);
    for (std::ptrdiff_t i = 0; i < listed_tokens_; ++i) {
      scratch_.block_weights[index(scratch_.ids[index(i)] / cpu::block_tokens)] += scratch_.weights[index(i)];
    }
    threshold_ = c.value;
    listed_ = false;
    blocks_weighed_ = true;
  }

  std::span<float> logits_;
  workspace& scratch_;
  float maximum_ = 0;
  float threshold_ = lowest;     // while there is no list: the tokens left are those with at least this logit
  bool listed_ = false;          // the tokens left are the first listed_tokens_ of the scratch's ids and values
  bool weighed_ = false;         // the scratch's weights are theirs
  bool blocks_weighed_ = false;  // the scratch's block weights are those of the tokens left
  std::ptrdiff_t listed_tokens_ = 0;
};

}  // namespace effinfer::inline v0::decoding
