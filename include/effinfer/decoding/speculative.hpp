#pragma once
// Several tokens from one pass of the model: a drafter guesses, the model reads all guesses at once, and the rule
// chooses at each position as if it were alone. Where the choice equals the guess the next row is valid too.
// Source: Leviathan, Kalman, Matias, "Fast Inference from Transformers via Speculative Decoding" (ICML 2023). Theirs accepts by
// rejection sampling and keeps the distribution (acceptance::rejection); by default each position keeps its random number, so
// the tokens themselves are those of the rule alone.

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/decoding/acceptance.hpp>
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

/// Verifies a draft row by row: `next` takes the logits behind the history, then those behind each draft that stayed.
///
/// Math: token_i = acceptance(rule, logits_i, history + token_0 ... token_{i-1}, draft_i, position + i), for i = 0, 1, ... up to and
/// including the first i with token_i != draft_i, or one past the last draft.
/// Exact, with sample_and_match: token for token what the rule gives when it is called for one position after the other.
template <class Rule, class Acceptance = acceptance::sample_and_match>
class verification {
 public:
  /// `history`: all tokens in front of the first draft; `position`: how many they are; `drawn_from` [D, V], or no rows: what the
  /// drafts were drawn from. The arguments must outlive this object.
  verification(const Rule& rule, std::span<const int> drafts, std::span<const int> history, random_stream random,
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

  /// Chooses the token behind one row of logits [V], which may be changed. True where the next row counts too.
  bool next(std::span<float> logits) {
    const auto i = scratch_.history.size() - known_;
    const int guess = i < drafts_.size() ? drafts_[i] : -1;
    const auto row = static_cast<std::ptrdiff_t>(i);
    const std::span<const float> q =
        row < drawn_from_.rows
            ? std::span<const float>(drawn_from_.row(row), static_cast<std::size_t>(drawn_from_.columns))
            : std::span<const float>();
    const int token = accept_(rule_, logits, scratch_.history, guess, q, random_, position_ + i, scratch_);
    scratch_.history.push_back(token);
    return token == guess;
  }

  /// The tokens chosen so far; all but the last equal their drafts. Valid until the workspace is used again.
  [[nodiscard]] std::span<const int> accepted() const { return std::span<const int>(scratch_.history).subspan(known_); }

 private:
  const Rule& rule_;
  Acceptance accept_;
  std::span<const int> drafts_;
  matrix_view<const float> drawn_from_;
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

/// `Drafter` guesses up to `max_draft` tokens a pass, `Rule` decides, and `Acceptance` (acceptance.hpp) says how.
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
  int max_draft = 10;  ///< 0 never drafts
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
  /// Shapes: drafts [D]; logits [D + 1, V], row 0 behind the history and row i behind drafts[i - 1], may be changed; history [S]
  /// without the drafts; drawn_from [D, V], or no rows: what the drafts were drawn from. Errors: `invalid_argument` (logits has another number of rows), and those of the rule.
  [[nodiscard]] std::vector<int> verify(std::span<const int> drafts, matrix_view<float> logits,
                                        std::span<const int> history, random_stream random, std::uint64_t position,
                                        workspace& scratch, matrix_view<const float> drawn_from = {}) const {
    if (logits.rows != static_cast<std::ptrdiff_t>(drafts.size()) + 1) {
      throw error(error_code::invalid_argument, "decoding::speculative.verify: logits",
                  std::to_string(logits.rows) + " rows for " + std::to_string(drafts.size()) +
                      " drafts: there must be one more");
    }
    verification<Rule, Acceptance> run(rule, drafts, history, random, position, scratch, accept, drawn_from);
    std::ptrdiff_t row = 0;
    while (run.next({logits.row(row), static_cast<std::size_t>(logits.columns)})) ++row;
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
