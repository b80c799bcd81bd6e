#pragma once
// Output that keeps to a grammar: before the rule chooses, all tokens that can't come next are taken out.
// Source: Willard, Louf, "Efficient Guided Generation for Large Language Models" (2023); masks as in Dong et al., "XGrammar" (2024).

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/drafter.hpp>
#include <effinfer/decoding/grammar/course.hpp>
#include <effinfer/decoding/grammar/grammars.hpp>
#include <effinfer/decoding/policy.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/sample.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding {

/// `Rule` chooses among the tokens with which the generated text is still the beginning of a text of the grammar. The end-of-text
/// tokens are among them exactly where the text may end, so they are forced where nothing else can follow.
///
/// Math: logits_i = -infinity for all tokens i that don't fit; then Rule.
/// Cost: a few microseconds a token at a vocabulary of 128k, and the stores of -infinity; the first visit of a state of the grammar
/// makes its mask, up to some milliseconds (compiled_grammar::prepare makes all at once).
/// Exact: what is chosen depends on the arguments alone; `progress` only remembers how far the history was read. It is why one
/// object serves one generation at a time: copy it for another.
/// Errors: `invalid_argument` (no grammar; a history whose generated part breaks the grammar), `malformed` (no token fits: the
/// vocabulary lacks a byte), `limit` (grammar::limits), and those of the rule.
/// Example: constrained<grammar::json_schema, top_p>{.grammar = {schema, grammar::vocabulary_of(llm.tokenizer())}}
template <grammar::text_grammar Grammar, class Rule = sample>
struct constrained {
  static_assert(check_strategy<Rule>::complete);
  using slot = effinfer::slot::decoding;
  using grammar_type = Grammar;
  using rule_type = Rule;

  Grammar grammar = {};
  Rule rule = {};
  mutable grammar::course progress = {};  ///< how far the history was read: not a parameter

  /// The text begins behind the first `prompt_tokens` tokens of the history. Where nobody says so, the first call is taken for the
  /// first token of the text, as it is in every generation.
  void begin(std::size_t prompt_tokens) { progress.begin(prompt_tokens); }

  void validate() const {
    if (!grammar.compiled()) {
      throw error(error_code::invalid_argument, "decoding::constrained.grammar", "there is none",
                  "for instance .grammar = {schema, grammar::vocabulary_of(tokenizer)}");
    }
    rule.validate();
  }

  int operator()(std::span<float> logits, std::span<const int> history, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    mask(logits, history);
    return rule(logits, history, random, position, scratch);
  }

  void apply(std::span<float> logits, std::span<const int> history,
             workspace& scratch) const requires logit_rule<Rule> {
    mask(logits, history);
    rule.apply(logits, history, scratch);
  }

  /// Up to `most` tokens that must follow `history`: a draft that costs no model (see grammar::course::forced).
  [[nodiscard]] std::vector<int> forced(std::span<const int> history, int most) const {
    start(history);
    if (!progress.follow(grammar.compiled(), history)) return {};
    return progress.forced(static_cast<std::size_t>(std::max(most, 0)));
  }

 private:
  void start(std::span<const int> history) const {
    if (!progress.has_begun()) progress.begin(history.size());
  }
  void mask(std::span<float> logits, std::span<const int> history) const {
    start(history);
    if (!progress.follow(grammar.compiled(), history)) {
      throw error(error_code::invalid_argument, "decoding::constrained: history",
                  "a generated token breaks the grammar", "call begin() for a new text");
    }
    progress.mask(logits);
  }
};

/// Drafts what the grammar leaves no choice for (keys, punctuation, closing brackets), else what `Otherwise` drafts: several tokens
/// in one pass without another model. For speculative<forced_text<G>, constrained<G, Rule>>, with the same grammar in both.
///
/// Where nobody calls begin, the first history it sees is taken for the prompt and one token.
template <grammar::text_grammar Grammar, class Otherwise = prompt_lookup<3>>
struct forced_text {
  static_assert(check_drafter<Otherwise>::complete);
  Grammar grammar = {};
  Otherwise otherwise = {};
  mutable grammar::course progress = {};  ///< how far the history was read: not a parameter

  void begin(std::size_t prompt_tokens) { progress.begin(prompt_tokens); }

  void validate() const {
    if (!grammar.compiled()) {
      throw error(error_code::invalid_argument, "decoding::forced_text.grammar", "there is none",
                  "give that of the rule");
    }
    otherwise.validate();
  }

  [[nodiscard]] std::vector<int> propose(std::span<const int> history, int most_tokens) const {
    if (!progress.has_begun()) progress.begin(std::max<std::size_t>(history.size(), 1) - 1);
    std::vector<int> draft;
    if (progress.follow(grammar.compiled(), history))
      draft = progress.forced(static_cast<std::size_t>(std::max(most_tokens, 0)));
    return draft.empty() ? otherwise.propose(history, most_tokens) : draft;
  }
};

static_assert(check_strategy<constrained<grammar::json_schema>>::complete &&
              check_rule<constrained<grammar::gbnf>>::complete);
static_assert(check_drafter<forced_text<grammar::regular_expression>>::complete);

}  // namespace effinfer::inline v0::decoding
