#pragma once
// Beam search: the sequences that are likeliest so far, a few at a time, instead of one token at a time.
// Sources: the stopping rules and the length penalty are those of transformers' generate(num_beams=...); groups: Vijayakumar et
// al., "Diverse Beam Search" (AAAI 2018), algorithm 1 with the Hamming diversity of section 5.1.

#include <effinfer/decoding/chain.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/log_probability.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/search.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding {

/// When a search that has as many whole texts as beams may end.
enum class early_stopping {
  no,     ///< when the best live beam, scored at its present length, is no better than the worst text found
  yes,    ///< at once
  never,  ///< as `no`, but at the length where its score would be best: max_tokens where length_penalty > 0
};

template <class Rule>
class beam_search;

/// What a beam search ranks and stops by, however many beams the type says.
struct beam_settings {
  int beams = 4;
  int groups = 1;
  float length_penalty = 1.0f;
  float diversity = 0.0f;
  early_stopping stop = early_stopping::no;
};

/// Math: score = (sum of log-probabilities) / (tokens ^ length_penalty). With groups > 1 the beams search in groups one after
/// another, and a token that k beams of earlier groups took at this step counts diversity * k less.
///
/// One beam is greedy: it ends with its first whole text.
///
/// `Rule` (a logit rule, or a chain of them) changes the log-probabilities before they count, without renormalizing, as in
/// transformers.
/// Example: beam<8>{.length_penalty = 0.8f};  beam<4, no_repeat_ngram>{.rule = {.size = 3}}
template <int Beams = 4, class Rule = chain<>>
struct beam {
  static_assert(Beams >= 1, "effinfer: beam<N> needs N >= 1.");
  static_assert(check_rule<Rule>::complete);
  using slot = effinfer::slot::decoding;

  int beams = Beams;  ///< those of the type, unless told otherwise
  Rule rule = {};
  float length_penalty = 1.0f;               ///< above 0 favours longer texts, as log-probabilities are negative
  early_stopping stop = early_stopping::no;  ///< see there
  int groups = 1;                            ///< divides `beams`
  float diversity = 0.0f;                    ///< between groups; no effect on one

  void validate() const {
    rule.validate();
    check_parameter(beams >= 1 && beams <= 1024, "beam.beams", beams, "[1, 1024]");
    check_parameter(std::isfinite(length_penalty), "beam.length_penalty", length_penalty, "(-infinity, infinity)");
    check_parameter(groups >= 1 && beams % groups == 0, "beam.groups", groups, "the divisors of beams");
    check_parameter(std::isfinite(diversity) && diversity >= 0.0f, "beam.diversity", diversity, "[0, infinity)");
  }
  int operator()(std::span<float> logits, std::span<const int> history, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    rule.apply(logits, history, scratch);
    return greedy{}(logits, history, random, position, scratch);
  }
  [[nodiscard]] int sequences() const { return beams; }
  [[nodiscard]] beam_search<Rule> begin(const search_request& request) const {
    return {{beams, groups, length_penalty, diversity, stop}, rule, request};
  }
};

/// What `beam` begins: see decoding/search.hpp.
///
/// Exact: equal sums go by the earlier beam, then the lower id.
template <class Rule>
class beam_search {
 public:
  beam_search(const beam_settings& settings, const Rule& rule, const search_request& request)
      : settings_(settings), rule_(rule), request_(request), groups_(static_cast<std::size_t>(settings.groups)) {
    const sequence start{{request.prompt.begin(), request.prompt.end()}};
    for (group& g : groups_) g.live.push_back(start);
  }

  std::span<const continuation> advance(matrix_view<const float> logits) {
    next_.clear();
    std::vector<int> taken;  // by the live beams of earlier groups at this step
    ++length_;
    int row = 0;
    for (group& g : groups_) {
      if (length_ == 1) row = 0;  // all begin behind the prompt
      const int first_row = row;
      row += static_cast<int>(g.live.size());
      if (!g.live.empty()) advance_group(g, logits, first_row, taken);
    }
    return next_;
  }

  [[nodiscard]] std::vector<hypothesis> hypotheses() const {
    std::vector<hypothesis> all;
    for (const group& g : groups_) all.insert(all.end(), g.found.begin(), g.found.end());
    if (all.empty()) {  // stopped from outside
      for (const group& g : groups_) {
        for (const sequence& s : g.live) all.push_back(scored(s));
      }
    }
    sort_by_score(all);
    return all;
  }

 private:
  struct sequence {
    std::vector<int> tokens;     // the prompt's too
    double log_probability = 0;  // of the rest
    double rank = 0;             // the same with the diversity's share
  };
  struct group {
    std::vector<sequence> live;
    std::vector<hypothesis> found;  // by falling score, at most as many as beams
  };
  struct candidate {
    int parent;  // among the group's live beams
    int id;
    double log_probability, rank;
  };

  [[nodiscard]] int beams() const { return settings_.beams / settings_.groups; }

  void advance_group(group& g, matrix_view<const float> logits, int first_row, std::vector<int>& taken) {
    // Enough that `beams` go on even where all ends come first.
    const auto wanted = static_cast<std::size_t>(std::max(2, 1 + request_.end_tokens) * beams());
    std::vector<candidate> candidates = best_of_rows(g, logits, first_row, taken, wanted);
    std::vector<sequence> live;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const candidate& c = candidates[i];
      sequence s = g.live[static_cast<std::size_t>(c.parent)];
      s.tokens.push_back(c.id);
      s.log_probability = c.log_probability;
      s.rank = c.rank;
      const bool last = length_ >= request_.max_tokens;
      const bool stops = request_.ends && request_.ends(std::span<const int>(s.tokens).subspan(request_.prompt.size()));
      const bool ends = last || stops;
      if (ends && i < static_cast<std::size_t>(beams())) {
        g.found.push_back(scored(s));
        if (!stops) taken.push_back(c.id);
      }
      if (!ends && live.size() < static_cast<std::size_t>(beams())) {
        next_.push_back({first_row + c.parent, c.id});
        taken.push_back(c.id);
        live.push_back(std::move(s));
      }
    }
    sort_by_score(g.found);
    if (g.found.size() > static_cast<std::size_t>(beams())) g.found.resize(static_cast<std::size_t>(beams()));
    if (!live.empty() && may_stop(g, live.front())) {
      next_.resize(next_.size() - live.size());
      live.clear();
    }
    g.live = std::move(live);
  }

  std::vector<candidate> best_of_rows(const group& g, matrix_view<const float> logits, int first_row,
                                      const std::vector<int>& taken, std::size_t wanted) {
    std::vector<candidate> all;
    for (std::size_t i = 0; i < g.live.size(); ++i) {
      const std::span<const float> row(logits.row(first_row + static_cast<int>(i)),
                                       static_cast<std::size_t>(logits.columns));
      softmax_scale scale{0, 0};
      std::span<const float> scores = row;
      if constexpr (std::is_same_v<Rule, chain<>>) {
        scale = find_softmax_scale(row);
      } else {
        row_.resize(row.size());
        log_softmax(row, row_);
        rule_.apply(row_, g.live[i].tokens, scratch_);
        scores = row_;
      }
      // Diversity moves down no more tokens than were taken.
      for (const auto& t : top_log_probabilities(scores, static_cast<int>(wanted + taken.size()), scale)) {
        const auto times = static_cast<double>(std::count(taken.begin(), taken.end(), t.id));
        all.push_back({static_cast<int>(i), t.id, g.live[i].log_probability + t.log_probability,
                       g.live[i].rank + t.log_probability - double{settings_.diversity} * times});
      }
    }
    std::stable_sort(all.begin(), all.end(), [](const candidate& a, const candidate& b) { return a.rank > b.rank; });
    if (all.size() > wanted) all.resize(wanted);
    return all;
  }

  [[nodiscard]] bool may_stop(const group& g, const sequence& best_live) const {
    if (g.found.size() < static_cast<std::size_t>(beams())) return false;
    if (settings_.stop == early_stopping::yes || settings_.beams == 1) return true;
    const bool at_the_end = settings_.stop == early_stopping::never && settings_.length_penalty > 0;
    return score(best_live.rank, at_the_end ? request_.max_tokens : length_) <= g.found.back().score;
  }

  [[nodiscard]] double score(double rank, int tokens) const {
    return rank / std::pow(static_cast<double>(tokens), double{settings_.length_penalty});
  }
  [[nodiscard]] hypothesis scored(const sequence& s) const {
    const auto generated = std::span<const int>(s.tokens).subspan(request_.prompt.size());
    return {{generated.begin(), generated.end()},
            s.log_probability,
            score(s.rank, std::max(1, static_cast<int>(generated.size())))};
  }
  static void sort_by_score(std::vector<hypothesis>& all) {
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.score > b.score; });
  }

  beam_settings settings_;
  Rule rule_;
  search_request request_;
  std::vector<group> groups_;
  int length_ = 0;
  std::vector<continuation> next_;
  std::vector<float> row_;
  workspace scratch_;
};

static_assert(search_policy<beam<>>);

}  // namespace effinfer::inline v0::decoding
