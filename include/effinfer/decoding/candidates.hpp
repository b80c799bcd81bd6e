#pragma once
// The tokens that may still be drawn from a row of logits, and the draw. Every filter (top_k.hpp, top_p.hpp, min_p.hpp)
// is one member here, so that a chain of them costs little more than one: a filter narrows what the one before left.
//
// Numbers: weights are integers (cpu/weights.hpp), so sums are exact and no order of summation shows. The draw takes 48
// random bits and walks the tokens left by rising id.
//
// Cost for V tokens: one pass for the maxima of blocks of 128; one with e^x where the total is needed (top-p, an unfiltered
// draw); after that only the blocks that reach a threshold are visited, and sorting is confined to the few tokens at the cut.

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
    if (maximum_ == std::numeric_limits<float>::infinity()) {
      constexpr float greatest = std::numeric_limits<float>::max();
      for (float& logit : logits_) {
        if (logit > greatest) logit = greatest;
      }
      find_maximum();
    }
    if (maximum_ == -std::numeric_limits<float>::infinity()) {
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
    auto& maxima = scratch_.block_maxima;
    execution::dispatch<cpu::rescale>(scratch_.instructions, maxima.data(), cpu::blocks(tokens()), maximum_, factor);
    maximum_ = 0;
  }

  /// Keeps the tokens whose logit is at least the k-th greatest: k of them, more where several share that logit. k <= 0 keeps all.
  void keep_top_k(int k) {
    if (k <= 0 || k >= size()) return;
    if (whole_) {
      // The k-th greatest block maximum is no greater than the k-th greatest logit, and far fewer values to select from.
      float threshold = std::numeric_limits<float>::lowest();
      if (k <= cpu::blocks(tokens())) {
        threshold = std::max(threshold, nth_greatest(scratch_.block_maxima, cpu::blocks(tokens()), k));
      }
      collect(threshold);
      if (k >= size_) return;
    }
    const float threshold = nth_greatest(scratch_.values, size_, k);
    keep_if([threshold](float value, int, std::uint64_t) { return value >= threshold; });
  }

  /// Keeps the smallest set of likeliest tokens whose probability is at least p (equals go by the lower id). p >= 1 keeps all.
  void keep_top_p(float p) {
    if (!(p < 1.0f)) return;
    if (whole_) {
      const double target = double{p} * static_cast<double>(sum_blocks());
      float depth = 2;
      do {
        collect(maximum_ - depth);
        weigh();
        depth *= 2;
      } while (static_cast<double>(total()) < target && depth <= 2 * cpu::weightless);
      cut_at(target);
    } else {
      weigh();
      cut_at(double{p} * static_cast<double>(total()));
    }
  }

  /// Keeps the tokens at least p times as likely as the likeliest. p <= 0 keeps all.
  void keep_min_p(float p) {
    if (!(p > 0.0f)) return;
    // A little lower than ln p, for the rounding of e^x; the comparison that counts is of weights.
    if (whole_) collect(static_cast<float>(double{maximum_} + std::log(double{p}) - 1e-3));
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
    if (!whole_ && size_ == 1) return scratch_.ids[0];
    const double u = double{random.uniform(position, 0)} + double{random.uniform(position, 1)} * 0x1p-24;
    std::ptrdiff_t first = 0;
    std::uint64_t rest = 0;
    if (whole_) {
      rest = share(u, sum_blocks());
      std::ptrdiff_t block = 0;
      for (; rest >= scratch_.block_weights[index(block)]; ++block) rest -= scratch_.block_weights[index(block)];
      first = block * cpu::block_tokens;
      const std::ptrdiff_t count = std::min(cpu::block_tokens, tokens() - first);
      reserve(scratch_.weights, cpu::block_tokens);
      execution::dispatch<cpu::weigh>(scratch_.instructions, logits_.data() + first, count, maximum_,
                                      scratch_.weights.data());
    } else {
      weigh();
      rest = share(u, total());
    }
    std::ptrdiff_t i = 0;
    for (; rest >= scratch_.weights[index(i)]; ++i) rest -= scratch_.weights[index(i)];
    return whole_ ? static_cast<int>(first + i) : scratch_.ids[index(i)];
  }

  /// Writes -infinity over the logits of all tokens put aside.
  void write_back() {
    if (whole_) return;
    std::fill(logits_.begin(), logits_.end(), -std::numeric_limits<float>::infinity());
    for (std::ptrdiff_t i = 0; i < size_; ++i) logits_[index(scratch_.ids[index(i)])] = scratch_.values[index(i)];
  }

  /// How many tokens are left.
  [[nodiscard]] std::ptrdiff_t size() const { return whole_ ? tokens() : size_; }

 private:
  static std::size_t index(std::ptrdiff_t i) { return static_cast<std::size_t>(i); }
  [[nodiscard]] std::ptrdiff_t tokens() const { return static_cast<std::ptrdiff_t>(logits_.size()); }

  template <class Vector>
  static void reserve(Vector& v, std::ptrdiff_t count) {
    if (v.size() < index(count)) v.resize(index(count));
  }

  void find_maximum() {
    reserve(scratch_.block_maxima, cpu::blocks(tokens()));
    float* maxima = scratch_.block_maxima.data();
    execution::dispatch<cpu::find_block_maxima>(scratch_.instructions, logits_.data(), tokens(), maxima);
    maximum_ = *std::max_element(maxima, maxima + cpu::blocks(tokens()));
  }

  std::uint64_t sum_blocks() {
    reserve(scratch_.block_weights, cpu::blocks(tokens()));
    std::uint64_t* sums = scratch_.block_weights.data();
    execution::dispatch<cpu::sum_block_weights>(scratch_.instructions, logits_.data(), tokens(), maximum_, sums);
    std::uint64_t all = 0;
    for (std::ptrdiff_t block = 0; block < cpu::blocks(tokens()); ++block) all += sums[block];
    return all;
  }

  /// Makes the candidates those of the whole vocabulary whose logit is at least `threshold`, by rising id.
  void collect(float threshold) {
    reserve(scratch_.ids, tokens() + 1);  // the slot past the end takes the write that is not kept
    reserve(scratch_.values, tokens() + 1);
    int* ids = scratch_.ids.data();
    float* values = scratch_.values.data();
    std::ptrdiff_t n = 0;
    for (std::ptrdiff_t block = 0; block < cpu::blocks(tokens()); ++block) {
      if (!(scratch_.block_maxima[index(block)] >= threshold)) continue;
      const std::ptrdiff_t end = std::min(tokens(), (block + 1) * cpu::block_tokens);
      for (std::ptrdiff_t i = block * cpu::block_tokens; i < end; ++i) {
        ids[n] = static_cast<int>(i);
        values[n] = logits_[index(i)];
        n += logits_[index(i)] >= threshold;
      }
    }
    whole_ = false;
    size_ = n;
    weighed_ = false;
  }

  void keep_only(int id) {
    reserve(scratch_.ids, tokens() + 1);
    reserve(scratch_.values, tokens() + 1);
    scratch_.ids[0] = id;
    scratch_.values[0] = maximum_;
    whole_ = false;
    size_ = 1;
    weighed_ = false;
  }

  template <class Keep>
  void keep_if(Keep keep) {
    if (!weighed_) reserve(scratch_.weights, size_);
    std::ptrdiff_t n = 0;
    for (std::ptrdiff_t i = 0; i < size_; ++i) {
      const int id = scratch_.ids[index(i)];
      const float value = scratch_.values[index(i)];
      const std::uint64_t weight = scratch_.weights[index(i)];
      scratch_.ids[index(n)] = id;
      scratch_.values[index(n)] = value;
      scratch_.weights[index(n)] = weight;
      n += keep(value, id, weight);
    }
    size_ = n;
  }

  void weigh() {
    if (weighed_) return;
    reserve(scratch_.weights, std::max(tokens() + 1, cpu::block_tokens));
    execution::dispatch<cpu::weigh>(scratch_.instructions, scratch_.values.data(), size_, maximum_,
                                    scratch_.weights.data());
    weighed_ = true;
  }

  [[nodiscard]] std::uint64_t total() const {
    std::uint64_t all = 0;
    for (std::ptrdiff_t i = 0; i < size_; ++i) all += scratch_.weights[index(i)];
    return all;
  }

  static std::uint64_t share(double u, std::uint64_t all) {
    return std::min(static_cast<std::uint64_t>(u * static_cast<double>(all)), all - 1);
  }

  /// The n-th greatest of the first `count` of `values`, n from 1.
  float nth_greatest(const std::vector<float>& values, std::ptrdiff_t count, std::ptrdiff_t n) {
    reserve(scratch_.pool, tokens());
    std::copy(values.begin(), values.begin() + count, scratch_.pool.begin());
    std::nth_element(scratch_.pool.begin(), scratch_.pool.begin() + (n - 1), scratch_.pool.begin() + count,
                     std::greater<>());
    return scratch_.pool[index(n - 1)];
  }

  /// Of the weighed candidates by falling logit (equals by rising id) keeps as many as reach the weight `target`.
  ///
  /// Not a sort of all: equal bins of the logits' range, added up from the top, say in which the target lies; that one
  /// is sorted.
  void cut_at(double target) {
    const float* values = scratch_.values.data();
    const auto last_bin = static_cast<float>(scratch_.bin_weights.size() - 1);
    const float range = std::clamp(maximum_ - *std::min_element(values, values + size_), 1e-30f, cpu::weightless);
    const float bins = last_bin / range;
    // Each step is monotone in the value, so a greater logit never falls into a later bin.
    const auto bin_of = [&](float value) { return static_cast<int>(std::min((maximum_ - value) * bins, last_bin)); };

    scratch_.bin_weights.fill(0);
    for (std::ptrdiff_t i = 0; i < size_; ++i) {
      scratch_.bin_weights[index(bin_of(values[i]))] += scratch_.weights[index(i)];
    }
    std::uint64_t reached = 0;
    int bin = 0;
    while (index(bin) + 1 < scratch_.bin_weights.size() &&
           static_cast<double>(reached + scratch_.bin_weights[index(bin)]) < target) {
      reached += scratch_.bin_weights[index(bin++)];
    }

    reserve(scratch_.order, tokens());
    std::ptrdiff_t n = 0;
    for (std::ptrdiff_t i = 0; i < size_; ++i) {
      if (bin_of(values[i]) == bin) scratch_.order[index(n++)] = static_cast<int>(i);
    }
    std::sort(scratch_.order.begin(), scratch_.order.begin() + n, [values](int a, int b) {
      return values[a] > values[b] || (values[a] == values[b] && a < b);  // candidates stand by rising id
    });
    std::ptrdiff_t last = 0;
    for (; last + 1 < n; ++last) {
      reached += scratch_.weights[index(scratch_.order[index(last)])];
      if (static_cast<double>(reached) >= target) break;
    }
    const float cut = values[scratch_.order[index(last)]];
    const int cut_id = scratch_.ids[index(scratch_.order[index(last)])];
    keep_if(
        [cut, cut_id](float value, int id, std::uint64_t) { return value > cut || (value == cut && id <= cut_id); });
  }

  std::span<float> logits_;
  workspace& scratch_;
  float maximum_ = 0;
  bool whole_ = true;     // all of logits_; else the first size_ of the scratch's ids and values
  bool weighed_ = false;  // the scratch's weights belong to these candidates
  std::ptrdiff_t size_ = 0;
};

}  // namespace effinfer::inline v0::decoding
