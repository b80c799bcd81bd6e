#pragma once
// Several whole texts drawn, the likeliest taken.

#include <effinfer/core/random.hpp>
#include <effinfer/decoding/log_probability.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/decoding/search.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace effinfer::inline v0::decoding {

/// What texts are compared by: their log-probability for each token, or for all together (which favours short ones).
enum class score_by { mean, sum };

template <class Rule>
class best_of_search;

/// `n` texts by `Rule`, ranked by the model's log-probability (before rules and temperature).
///
/// Exact: text i is the one that Rule alone gives with the seed plus i.
/// Example: best_of<8, top_p>{.rule = {.p = 0.9f}}
template <int N = 4, class Rule = sample>
struct best_of {
  static_assert(N >= 1, "effinfer: best_of<N> needs N >= 1.");
  static_assert(check_strategy<Rule>::complete);
  static_assert(!search_policy<Rule>,
                "effinfer: best_of<Rule> draws by a rule of one sequence, and this one is a search.");
  using slot = effinfer::slot::decoding;

  int n = N;  ///< that of the type, unless told otherwise
  Rule rule = {};
  score_by score = score_by::mean;

  void validate() const {
    rule.validate();
    check_parameter(n >= 1 && n <= 1024, "best_of.n", n, "[1, 1024]");
  }
  int operator()(std::span<float> logits, std::span<const int> history, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    return rule(logits, history, random, position, scratch);
  }
  [[nodiscard]] int sequences() const { return n; }
  [[nodiscard]] best_of_search<Rule> begin(const search_request& request) const { return {n, rule, score, request}; }
};

/// What best_of begins: see decoding/search.hpp.
template <class Rule>
class best_of_search {
 public:
  best_of_search(int n, const Rule& rule, score_by score, const search_request& request)
      : score_(score), request_(request) {
    for (int i = 0; i < n; ++i) {
      texts_.push_back({rule, {request.prompt.begin(), request.prompt.end()}});
      live_.push_back(static_cast<std::size_t>(i));
    }
  }

  std::span<const continuation> advance(matrix_view<const float> logits) {
    next_.clear();
    std::vector<std::size_t> still_live;
    for (std::size_t i = 0; i < live_.size(); ++i) {
      const int parent = logits.rows == 1 ? 0 : static_cast<int>(i);
      text& t = texts_[live_[i]];
      const auto columns = static_cast<std::size_t>(logits.columns);
      row_.assign(logits.row(parent), logits.row(parent) + columns);
      const int token = t.rule(row_, t.tokens, random_stream{request_.seed + live_[i]}, t.tokens.size(), scratch_);
      t.log_probability += log_probability({logits.row(parent), columns}, token);
      t.tokens.push_back(token);
      const auto generated = std::span<const int>(t.tokens).subspan(request_.prompt.size());
      if (generated.size() >= static_cast<std::size_t>(request_.max_tokens)) continue;
      if (request_.ends && request_.ends(generated)) continue;
      still_live.push_back(live_[i]);
      next_.push_back({parent, token});
    }
    live_ = std::move(still_live);
    return next_;
  }

  [[nodiscard]] std::vector<hypothesis> hypotheses() const {
    std::vector<hypothesis> all;
    for (const text& t : texts_) {
      const auto generated = std::span<const int>(t.tokens).subspan(request_.prompt.size());
      const double count =
          score_ == score_by::sum ? 1 : static_cast<double>(std::max<std::size_t>(1, generated.size()));
      all.push_back({{generated.begin(), generated.end()}, t.log_probability, t.log_probability / count});
    }
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.score > b.score; });
    return all;
  }

 private:
  struct text {
    Rule rule;  // a copy: it may keep a state
    std::vector<int> tokens;
    double log_probability = 0;
  };

  score_by score_;
  search_request request_;
  std::vector<text> texts_;
  std::vector<std::size_t> live_;
  std::vector<continuation> next_;
  std::vector<float> row_;
  workspace scratch_;
};

static_assert(search_policy<best_of<>>);

}  // namespace effinfer::inline v0::decoding
