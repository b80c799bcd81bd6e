#pragma once
// Several tokens from one pass of the model: a drafter guesses, the model reads all guesses at once, and the rule
// chooses at each position as if it were alone. Where the choice equals the guess the next row is valid too.
// Source: Leviathan, Kalman, Matias, "Fast Inference from Transformers via Speculative Decoding" (ICML 2023). Theirs accepts by
// rejection sampling and keeps the distribution; here each position keeps its random number, so the tokens themselves
// are those of the rule alone.

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/decoding/drafter.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>
#include <effinfer/decoding/state_drafter.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Verifies a draft row by row: `next` takes the logits behind the history, then those behind each draft that was right.
///
/// Math: token_i = rule(logits_i, history + token_0 ... token_{i-1}, random, position + i), for i = 0, 1, ... up to and including
/// the first i with token_i != draft_i, or one past the last draft.
/// Exact: token for token what the rule gives when it is called for one position after the other.
template <class Rule>
class verification {
 public:
  /// `history`: all tokens in front of the first draft; `position`: how many they are. The arguments must outlive this object.
  verification(const Rule& rule, std::span<const int> drafts, std::span<const int> history, random_stream random,
               std::uint64_t position, workspace& scratch)
      : rule_(rule), drafts_(drafts), random_(random), position_(position), scratch_(scratch), known_(history.size()) {
    scratch_.history.assign(history.begin(), history.end());
  }

  /// Chooses the token behind one row of logits [V], which may be changed. True where the next row counts too.
  bool next(std::span<float> logits) {
    const auto i = scratch_.history.size() - known_;
    const int token = rule_(logits, scratch_.history, random_, position_ + i, scratch_);
    scratch_.history.push_back(token);
    return i < drafts_.size() && drafts_[i] == token;
  }

  /// The tokens chosen so far; all but the last equal their drafts. Valid until the workspace is used again.
  [[nodiscard]] std::span<const int> accepted() const { return std::span<const int>(scratch_.history).subspan(known_); }

 private:
  const Rule& rule_;
  std::span<const int> drafts_;
  random_stream random_;
  std::uint64_t position_;
  workspace& scratch_;
  std::size_t known_;
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

/// `Drafter` guesses up to `max_draft` tokens a pass, `Rule` decides.
///
/// Exact: the text is that of `Rule` alone. As a strategy for one position it is `Rule`.
/// Example: speculative<prompt_lookup<3>, top_p>{.rule = {.p = 0.9f}, .max_draft = 8}
template <class Drafter, class Rule = greedy>
struct speculative {
  static_assert(draftable<Drafter>() && check_strategy<Rule>::complete);
  static_assert(!is_speculative<Rule>,
                "effinfer: speculative<Drafter, Rule> can't be the rule of another: give it the rule inside.");
  using slot = effinfer::slot::decoding;
  using drafter_type = Drafter;
  using rule_type = Rule;

  Drafter drafter = {};
  Rule rule = {};
  int max_draft = 10;  ///< 0 never drafts

  void validate() const {
    drafter.validate();
    rule.validate();
    check_parameter(max_draft >= 0 && max_draft <= 1024, "speculative.max_draft", max_draft, "[0, 1024]");
  }

  int operator()(std::span<float> logits, std::span<const int> history, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    return rule(logits, history, random, position, scratch);
  }

  /// The tokens that follow `history`, at least one: see `verification`.
  ///
  /// Shapes: drafts [D]; logits [D + 1, V], row 0 behind the history and row i behind drafts[i - 1], may be changed; history [S]
  /// without the drafts. Errors: `invalid_argument` (logits has another number of rows), and those of the rule.
  [[nodiscard]] std::vector<int> verify(std::span<const int> drafts, matrix_view<float> logits,
                                        std::span<const int> history, random_stream random, std::uint64_t position,
                                        workspace& scratch) const {
    if (logits.rows != static_cast<std::ptrdiff_t>(drafts.size()) + 1) {
      throw error(error_code::invalid_argument, "decoding::speculative.verify: logits",
                  std::to_string(logits.rows) + " rows for " + std::to_string(drafts.size()) +
                      " drafts: there must be one more");
    }
    verification<Rule> run(rule, drafts, history, random, position, scratch);
    std::ptrdiff_t row = 0;
    while (run.next({logits.row(row), static_cast<std::size_t>(logits.columns)})) ++row;
    return {run.accepted().begin(), run.accepted().end()};
  }
};

template <class Drafter, class Rule>
inline constexpr bool is_speculative<speculative<Drafter, Rule>> = true;

/// True of speculative<...> whose drafter looks inside the model (state_drafter.hpp).
template <class T>
inline constexpr bool drafts_from_states = false;
template <class Drafter, class Rule>
inline constexpr bool drafts_from_states<speculative<Drafter, Rule>> = state_drafter<Drafter>;

}  // namespace effinfer::inline v0::decoding
