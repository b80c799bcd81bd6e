#pragma once
// A rule from a lambda, or from any struct that can be called: for what isn't worth a policy of its own.

#include <effinfer/decoding/policy.hpp>

#include <concepts>
#include <span>
#include <utility>

namespace effinfer::inline v0::decoding {

/// Calls f(logits [V], history), which changes the logits in place.
///
/// State: f may keep some (a `mutable` lambda, a struct with members). A generation works on its own copy, so state is per request; it
/// is then for f to see that the result depends on nothing but the history, if drafts are to be verified with it.
/// Example:
///     auto no_sevens = rule([](std::span<float> logits, std::span<const int>) { logits[7] = -INFINITY; });
///     using llm = pipeline<chain<decltype(no_sevens), top_p>>;
///     llm::load(path).generate(prompt, {.decoding = {{no_sevens, top_p{}}}});
template <class F>
struct rule {
  static_assert(
      std::invocable<F&, std::span<float>, std::span<const int>>,
      "effinfer: rule(f) needs f that can be called as  f(std::span<float> logits, std::span<const int> history).");
  mutable F f;

  rule() requires std::default_initializable<F>
  = default;
  rule(F function)
      : f(std::move(function)) {}  // NOLINT(google-explicit-constructor): chain's tuple takes the lambda itself

  void validate() const {}
  void apply(std::span<float> logits, std::span<const int> history, workspace&) const { f(logits, history); }
};

}  // namespace effinfer::inline v0::decoding
