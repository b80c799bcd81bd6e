#pragma once
// Drafters: cheap guesses at the next tokens, for speculative.hpp to verify. A bad guess costs time, never correctness.
//
// To add one: a struct with the two members below; `prompt_lookup` is one. speculative<your_drafter, top_p> then works.

#include <effinfer/decoding/policy.hpp>

#include <concepts>
#include <span>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Guesses what follows `history` (prompt and generated tokens, oldest first): at most `most_tokens` ids, possibly none.
template <class D>
concept token_drafter = validated<D> && requires(const D& d, std::span<const int> history, int most_tokens) {
  { d.propose(history, most_tokens) } -> std::same_as<std::vector<int>>;
};

/// `check_drafter<D>::complete` is true, or the compiler says which line D lacks.
template <class D>
struct check_drafter {
  static_assert(validated<D>, "effinfer: drafter needs  void validate() const;");
  static_assert(
      requires(const D& d, std::span<const int> history, int most_tokens) {
        { d.propose(history, most_tokens) } -> std::same_as<std::vector<int>>;
      },
      "effinfer: drafter needs  std::vector<int> propose(std::span<const int> history, int most_tokens) const;");
  static constexpr bool complete = true;
};

}  // namespace effinfer::inline v0::decoding
