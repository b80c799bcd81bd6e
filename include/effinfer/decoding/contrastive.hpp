#pragma once
// Contrastive search: likely tokens whose state isn't like one that was there before, which keeps a text from going in circles
// without drawing lots. Source: Su et al., "A Contrastive Framework for Neural Text Generation" (2022), equation 5.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/log_probability.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/search.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace effinfer::inline v0::decoding {

class contrastive_search;

/// Math: of the k likeliest tokens v the one with the greatest (1 - penalty) p(v | x) - penalty max_j cos(h_v, h_j), where h
/// are the states behind the final norm: h_v with v read behind the text, h_j of the text's tokens.
///
/// Of a session that held tokens before, only the prompt's and those behind it count as text.
/// Exact: with k = 1 or penalty = 0 it is greedy. Cost: the k tokens are read in one pass, one pass a token.
/// Example: contrastive{.k = 6, .penalty = 0.6f}
struct contrastive {
  using slot = effinfer::slot::decoding;

  int k = 4;
  float penalty = 0.6F;  ///< alpha

  void validate() const {
    check_parameter(k >= 1 && k <= 1024, "contrastive.k", k, "[1, 1024]");
    check_parameter(penalty >= 0 && penalty <= 1, "contrastive.penalty", penalty, "[0, 1]");
  }
  int operator()(std::span<float> logits, std::span<const int> history, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    return greedy{}(logits, history, random, position, scratch);
  }
  [[nodiscard]] int sequences() const { return k; }
  [[nodiscard]] contrastive_search begin(const search_request& request) const;
};

/// What `contrastive` begins: the sequences it goes on with are the text so far, each with another candidate behind it.
///
/// Exact: equal scores go to the likelier token, then the lower id.
class contrastive_search {
 public:
  contrastive_search(const contrastive& policy, const search_request& request) : policy_(policy), request_(request) {}

  std::span<const continuation> advance(matrix_view<const float> logits, matrix_view<const float> states) {
    int row = 0;
    if (next_.empty()) {
      for (std::ptrdiff_t r = 0; r < states.rows; ++r) remember(states.row(r), states.columns);
    } else {
      row = choose(states);
      const auto chosen = static_cast<std::size_t>(row);
      remember(states.row(row), states.columns);
      found_.tokens.push_back(next_[chosen].token);
      found_.log_probability += candidates_[chosen].log_probability;
      if (static_cast<int>(found_.tokens.size()) >= request_.max_tokens ||
          (request_.ends && request_.ends(found_.tokens))) {
        return {};
      }
    }
    candidates_ = top_log_probabilities({logits.row(row), static_cast<std::size_t>(logits.columns)}, policy_.k);
    next_.clear();
    for (const token_log_probability& c : candidates_) next_.push_back({row, c.id});
    return next_;
  }

  [[nodiscard]] std::vector<hypothesis> hypotheses() const {
    hypothesis only = found_;
    only.score = only.log_probability;
    return {only};
  }

 private:
  static double length(const float* state, std::ptrdiff_t columns) {
    double sum = 0;
    for (std::ptrdiff_t i = 0; i < columns; ++i) sum += double{state[i]} * double{state[i]};
    return std::sqrt(sum);
  }
  /// Keeps a state at length 1.
  void remember(const float* state, std::ptrdiff_t columns) {
    const double scale = 1 / std::max(length(state, columns), 1e-30);
    for (std::ptrdiff_t i = 0; i < columns; ++i) text_.push_back(static_cast<float>(double{state[i]} * scale));
  }

  [[nodiscard]] int choose(matrix_view<const float> states) const {
    const std::ptrdiff_t e = states.columns, tokens = static_cast<std::ptrdiff_t>(text_.size()) / e;
    int best = 0;
    double best_score = 0;
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      const float* const state = states.row(static_cast<std::ptrdiff_t>(i));
      float nearest = -std::numeric_limits<float>::infinity();
      for (std::ptrdiff_t t = 0; t < tokens; ++t) {
        const float* const before = text_.data() + t * e;
        float product = 0;
        for (std::ptrdiff_t j = 0; j < e; ++j) product += state[j] * before[j];
        nearest = std::max(nearest, product);
      }
      const double alike = double{nearest} / std::max(length(state, e), 1e-30);
      const double alpha = policy_.penalty;
      const double score = (1 - alpha) * std::exp(candidates_[i].log_probability) - alpha * alike;
      if (i == 0 || score > best_score) {
        best = static_cast<int>(i);
        best_score = score;
      }
    }
    return best;
  }

  contrastive policy_;
  search_request request_;
  std::vector<float> text_;  // [tokens, E], each of length 1
  std::vector<token_log_probability> candidates_;
  std::vector<continuation> next_;
  hypothesis found_;
};

inline contrastive_search contrastive::begin(const search_request& request) const { return {*this, request}; }

static_assert(search_policy<contrastive>);

}  // namespace effinfer::inline v0::decoding
