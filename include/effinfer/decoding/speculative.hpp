#pragma once
// Several tokens from one pass of the model: a drafter guesses, the model reads the tree of guesses at once, and the rule
// chooses at each position as if it were alone. Where the choice equals a guess the row behind that one is valid too.
// Source: Leviathan, Kalman, Matias, "Fast Inference from Transformers via Speculative Decoding" (ICML 2023). Theirs accepts by
// rejection sampling and keeps the distribution (acceptance::rejection); by default each position keeps its random number, so
// the tokens themselves are those of the rule alone. Trees: Miao et al., "SpecInfer" (ASPLOS 2024), section 4.

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/decoding/acceptance.hpp>
#include <effinfer/decoding/draft_tree.hpp>
#include <effinfer/decoding/drafter.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>
#include <effinfer/decoding/state_drafter.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Verifies a tree of guesses on the way down: `next` takes the logits behind the history, then those behind each guess that stayed.
/// Row 0 of the pass is the last token of the history, row i + 1 is node i of the tree.
///
/// Math: token_i = acceptance(rule, logits_i, history + token_0 ... token_{i-1}, guesses_i, position + i), for i = 0, 1, ...: guesses_i
/// are the children of the node that token_{i-1} is, in the tree's order; up to and including the first token that is none of them.
/// Exact, with sample_and_match: token for token what the rule gives when it is called for one position after the other.
template <class Rule, class Acceptance = acceptance::sample_and_match>
class verification {
 public:
  /// `history`: all tokens in front of the guesses; `position`: how many they are; `drawn_from` [n, V]: what node i was drawn
  /// from; of siblings the first's row counts, and one without a row wasn't drawn. The arguments must outlive this object.
  verification(const Rule& rule, const draft_tree& drafts, std::span<const int> history, random_stream random,
               std::uint64_t position, workspace& scratch, const Acceptance& accept = {},
               matrix_view<const float> drawn_from = {})
      : rule_(rule),
        accept_(accept),
        drafts_(drafts),
        drawn_from_(drawn_from),
        random_(random),
        position_(position),
        scratch_(scratch),
        known_(history.size()) {
    scratch_.history.assign(history.begin(), history.end());
  }

  /// The row whose logits `next` takes; -1 where there is none.
  [[nodiscard]] int row() const { return row_; }

  /// Chooses the token behind row `row()` with logits [V], which may be changed. True where there is another row.
  bool next(std::span<float> logits) {
    rows_.push_back(row_);
    const int node = row_ - 1;
    guesses_.clear();
    std::span<const float> q;
    for (int i = row_; i < drafts_.size(); ++i) {
      if (drafts_.parents[static_cast<std::size_t>(i)] != node) continue;
      if (guesses_.empty() && i < drawn_from_.rows)
        q = {drawn_from_.row(i), static_cast<std::size_t>(drawn_from_.columns)};
      guesses_.push_back(drafts_.tokens[static_cast<std::size_t>(i)]);
    }
    const int token = accept_(rule_, logits, scratch_.history, guesses_, q, random_,
                              position_ + scratch_.history.size() - known_, scratch_);
    scratch_.history.push_back(token);
    row_ = -1;
    for (int i = node + 1; i < drafts_.size() && row_ < 0; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (drafts_.parents[at] == node && drafts_.tokens[at] == token) row_ = i + 1;
    }
    return row_ >= 0;
  }

  /// The tokens chosen so far; all but the last equal their guesses. Valid until the workspace is used again.
  [[nodiscard]] std::span<const int> accepted() const { return std::span<const int>(scratch_.history).subspan(known_); }
  /// The rows that these tokens were chosen behind.
  [[nodiscard]] std::span<const int> rows() const { return rows_; }

 private:
  const Rule& rule_;
  Acceptance accept_;
  const draft_tree& drafts_;
  matrix_view<const float> drawn_from_;
  random_stream random_;
  std::uint64_t position_;
  workspace& scratch_;
  std::size_t known_;
  int row_ = 0;
  std::vector<int> rows_, guesses_;
};

/// True of speculative<...>: a generation loop then drafts and verifies.
template <class T>
inline constexpr bool is_speculative = false;

/// A drafter of either kind, or the compiler says which line it lacks.
template <class Drafter>
constexpr bool draftable() {
  if constexpr (state_drafter<Drafter>) {
    return true;
  } else {
    return check_drafter<Drafter>::complete;
  }
}

/// `Drafter` guesses a tree of up to `max_draft` tokens a pass, `Rule` decides, and `Acceptance` (acceptance.hpp) says how.
///
/// Exact: by default the text is that of `Rule` alone. As a strategy for one position it is `Rule`.
/// Example: speculative<prompt_lookup<3>, top_p>{.rule = {.p = 0.9f}, .max_draft = 8}
template <class Drafter, class Rule = greedy, class Acceptance = acceptance::sample_and_match>
struct speculative {
  static_assert(draftable<Drafter>() && check_strategy<Rule>::complete);
  static_assert(!is_speculative<Rule>,
                "effinfer: speculative<Drafter, Rule> can't be the rule of another: give it the rule inside.");
  using slot = effinfer::slot::decoding;
  using drafter_type = Drafter;
  using rule_type = Rule;
  using acceptance_type = Acceptance;

  Drafter drafter = {};
  Rule rule = {};
  int max_draft = 10;  ///< nodes of the tree; 0 never drafts
  /// What one more row of a pass costs, in passes of one token: drafts are as long as pays, and stop where they don't
  /// (draft_length.hpp). 0: always as long as they may be; nothing: measured, so that drafts, and with
  /// acceptance::rejection or typical the text, may differ from run to run.
  std::optional<float> row_cost = Acceptance::same_text ? std::optional<float>() : 0.15F;
  Acceptance accept = {};

  void validate() const {
    drafter.validate();
    rule.validate();
    accept.validate();
    if (row_cost) check_parameter(*row_cost >= 0 && *row_cost <= 1, "speculative.row_cost", *row_cost, "[0, 1]");
    check_parameter(max_draft >= 0 && max_draft <= 1024, "speculative.max_draft", max_draft, "[0, 1024]");
  }

  int operator()(std::span<float> logits, std::span<const int> history, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    return rule(logits, history, random, position, scratch);
  }

  /// The tokens that follow `history`, at least one: see `verification`.
  ///
  /// Shapes: logits [drafts.size() + 1, V], row 0 behind the history and row i + 1 behind node i, may be changed; history [S]
  /// without the drafts; drawn_from as for `verification`. Errors: `invalid_argument` (logits has another number of rows), and
  /// those of the rule.
  [[nodiscard]] std::vector<int> verify(const draft_tree& drafts, matrix_view<float> logits,
                                        std::span<const int> history, random_stream random, std::uint64_t position,
                                        workspace& scratch, matrix_view<const float> drawn_from = {}) const {
    if (logits.rows != drafts.size() + 1) {
      throw error(error_code::invalid_argument, "decoding::speculative.verify: logits",
                  std::to_string(logits.rows) + " rows for " + std::to_string(drafts.size()) +
                      " drafts: there must be one more");
    }
    verification<Rule, Acceptance> run(rule, drafts, history, random, position, scratch, accept, drawn_from);
    while (run.next({logits.row(run.row()), static_cast<std::size_t>(logits.columns)})) continue;
    return {run.accepted().begin(), run.accepted().end()};
  }
};

template <class Drafter, class Rule, class Acceptance>
inline constexpr bool is_speculative<speculative<Drafter, Rule, Acceptance>> = true;

/// True of speculative<...> whose drafter looks inside the model (state_drafter.hpp).
template <class T>
inline constexpr bool drafts_from_states = false;
template <class Drafter, class Rule, class Acceptance>
inline constexpr bool drafts_from_states<speculative<Drafter, Rule, Acceptance>> = state_drafter<Drafter>;

}  // namespace effinfer::inline v0::decoding
