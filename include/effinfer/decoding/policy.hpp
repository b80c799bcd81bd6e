#pragma once
// Decoding policies: which token comes next.
//
// There are
//   greedy              the likeliest token                                                    greedy.hpp
//   temperature         a draw from the whole distribution, flattened or sharpened             temperature.hpp
//   top_k               a draw from the k likeliest                (Fan et al. 2018)           top_k.hpp
//   top_p               a draw from the nucleus                    (Holtzman et al. 2020)      top_p.hpp
//   min_p               a draw from those near the likeliest       (Nguyen et al. 2024)        min_p.hpp
//   top_n_sigma         a draw from those within n deviations      (Tang et al. 2024)          top_n_sigma.hpp
//   epsilon_cutoff, eta_cutoff   a draw from those above a floor   (Hewitt et al. 2022)        epsilon_cutoff.hpp, eta_cutoff.hpp
//   locally_typical     a draw from those of expected surprise     (Meister et al. 2023)       locally_typical.hpp
//   mirostat            a draw of steady surprise                  (Basu et al. 2021)          mirostat.hpp
//   sample              all of these with all parameters at run time; the default              sample.hpp
//   chain<Rules...>     rules one after another, then a draw                                   chain.hpp
//   speculative<Drafter, Rule, Acceptance>   several tokens a pass, by default the same text   speculative.hpp
//   constrained<Grammar, Rule>   JSON Schema, GBNF, regular expressions  (Willard, Louf 2023)  constrained.hpp
//   early_exit<Exit, Rule>       fewer layers for easy tokens; lossy     (Schuster et al. 2022)  early_exit.hpp
//   beam<N, Rule>       the likeliest texts found with N at a time; groups of them   (Vijayakumar 2018)  beam.hpp
//   best_of<N, Rule>    N texts drawn, the likeliest taken                                     best_of.hpp
//   contrastive         likely tokens whose state is new           (Su et al. 2022)            contrastive.hpp
// The last three follow several sequences: search.hpp says how.
// Rules that only change logits, for chain: repetition_penalty, presence_penalty, frequency_penalty, dry, no_repeat_ngram,
// logit_bias, min_length, rule (of a lambda); and the draws above are rules as well. Drafters (drafter.hpp and
// state_drafter.hpp say what one is): prompt_lookup<N>, forced_text<Grammar>, suffix_automaton, lookahead,
// draft_model<Model>, staged<Drafter, Model>, self_speculation, medusa, eagle, either<Drafters...>, otherwise<First, Second>.
// Acceptances (acceptance.hpp): sample_and_match, rejection, k_sequential, typical.
//
// To add one, write one file with one struct:
//
//   struct ban_token {                                  // a rule: changes the logits; -infinity takes a token out
//     int id = 0;
//     void validate() const {}                          // throws effinfer::error for a parameter out of range
//     void apply(std::span<float> logits, std::span<const int> history, workspace& scratch) const {
//       logits[id] = -INFINITY;
//     }
//   };
//   static_assert(check_rule<ban_token>::complete);     // names what is missing; chain<ban_token, top_p> now works
//
// A whole strategy has `slot` and the call operator instead of `apply`; see `greedy` for the shortest one.

#include <effinfer/core/random.hpp>
#include <effinfer/core/slot.hpp>
#include <effinfer/decoding/workspace.hpp>

#include <concepts>
#include <cstdint>
#include <span>

namespace effinfer::inline v0::decoding {

/// Has `void validate() const`: throws `invalid_argument` naming the field and its value. Called once when a generation starts,
/// not for each token.
template <class P>
concept validated = requires(const P& p) {
  { p.validate() } -> std::same_as<void>;
};

/// Changes a row of logits in place.
///
/// Shapes: logits [V]; history: all tokens so far, prompt and generated. -infinity takes a token out. What it does may depend on
/// nothing but its arguments other than `scratch`, and on its parameters.
template <class P>
concept logit_rule = validated<P> &&
    requires(const P& p, std::span<float> logits, std::span<const int> history, workspace& scratch) {
  { p.apply(logits, history, scratch) } -> std::same_as<void>;
};

/// Chooses the next token.
///
/// Shapes: logits [V], which it may overwrite; history: all tokens so far, prompt and generated; position: how many there are,
/// that is, the position of the token to be chosen. Returns an id in [0, V). The choice may depend on nothing but the arguments other
/// than `scratch`, and on the parameters: speculation and the promise of equal text for equal seeds stand on it.
/// Errors: `malformed` where no token can be chosen (all logits -infinity or NaN).
template <class P>
concept decoding_strategy = policy_of<P, slot::decoding> && validated<P> &&
    requires(const P& p, std::span<float> logits, std::span<const int> history, random_stream random,
             std::uint64_t position, workspace& scratch) {
  { p(logits, history, random, position, scratch) } -> std::same_as<int>;
};

/// `check_strategy<P>::complete` is true, or the compiler says which line P lacks.
template <class P>
struct check_strategy {
  static_assert(policy_of<P, slot::decoding>,
                "effinfer: decoding policy needs  using slot = effinfer::slot::decoding;");
  static_assert(validated<P>, "effinfer: decoding policy needs  void validate() const;");
  static_assert(
      requires(const P& p, std::span<float> logits, std::span<const int> history, random_stream random,
               std::uint64_t position, workspace& scratch) {
        { p(logits, history, random, position, scratch) } -> std::same_as<int>;
      },
      "effinfer: decoding policy needs  int operator()(std::span<float> logits, std::span<const int> history, "
      "random_stream random, std::uint64_t position, workspace& scratch) const;");
  static constexpr bool complete = true;
};

/// `check_rule<P>::complete` is true, or the compiler says which line P lacks.
template <class P>
struct check_rule {
  static_assert(validated<P>, "effinfer: logit rule needs  void validate() const;");
  static_assert(
      requires(const P& p, std::span<float> logits, std::span<const int> history, workspace& scratch) {
        { p.apply(logits, history, scratch) } -> std::same_as<void>;
      },
      "effinfer: logit rule needs  void apply(std::span<float> logits, std::span<const int> history, workspace& "
      "scratch) const;");
  static constexpr bool complete = true;
};

}  // namespace effinfer::inline v0::decoding
