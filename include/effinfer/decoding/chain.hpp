#pragma once
// Rules one after another, then a draw: sampling put together at compile time, also from rules of your own.

#include <effinfer/decoding/candidates.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cstdint>
#include <span>
#include <tuple>

namespace effinfer::inline v0::decoding {

/// Applies the rules in the given order, then draws from what is left (with `greedy` as the last rule: takes the likeliest).
///
/// Each rule sees the logits as the one before left them: a probability is one among the tokens still in.
/// Example: chain<repetition_penalty, top_k, top_p>{{repetition_penalty{}, top_k{.k = 40}, top_p{.p = 0.9f}}}
template <class... Rules>
struct chain {
  static_assert((check_rule<Rules>::complete && ...));
  using slot = effinfer::slot::decoding;
  std::tuple<Rules...> rules = {};

  void validate() const {
    std::apply([](const Rules&... rule) { (rule.validate(), ...); }, rules);
  }

  void apply(std::span<float> logits, std::span<const int> history, workspace& scratch) const {
    std::apply([&](const Rules&... rule) { (rule.apply(logits, history, scratch), ...); }, rules);
  }

  int operator()(std::span<float> logits, std::span<const int> history, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    apply(logits, history, scratch);
    return candidates(logits, scratch).draw(random, position);
  }
};

static_assert(check_strategy<chain<>>::complete && check_rule<chain<>>::complete);

}  // namespace effinfer::inline v0::decoding
