#pragma once
// "Don't repeat yourself": the longer the repetition that a token would go on with, the less likely it gets.
// Source: p-e-w, "DRY: A modern repetition penalty that reliably prevents looping" (text-generation-webui, pull request 5677, 2024).

#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Math: for a token that followed an earlier occurrence of the history's last n tokens (the greatest such n counts), n >= allowed:
/// logit -= multiplier * base^(n - allowed). A breaker is never part of a repetition and never penalized: it keeps what has to come
/// again (line ends, quotation marks, names of speakers) apart.
///
/// Cost: O(history), also where it is one token again and again.
/// Example: chain<dry, min_p>{{dry{.multiplier = 0.8f, .breakers = {13}}, min_p{}}}
struct dry {
  float multiplier = 0.8f;         ///< 0 changes nothing
  float base = 1.75f;              ///< growth for each further token
  int allowed = 2;                 ///< repetitions shorter than this are free
  int ignore_first_tokens = 0;     ///< of the history: the prompt's length lets the generated text alone count
  std::vector<int> breakers = {};  ///< token ids

  void validate() const {
    check_parameter(std::isfinite(multiplier) && multiplier >= 0.0f, "dry.multiplier", multiplier, "[0, infinity)");
    check_parameter(std::isfinite(base) && base >= 1.0f, "dry.base", base, "[1, infinity)");
    check_parameter(allowed >= 1, "dry.allowed", allowed, "[1, 2147483647]");
    check_parameter(ignore_first_tokens >= 0, "dry.ignore_first_tokens", ignore_first_tokens, "[0, 2147483647]");
  }

  void apply(std::span<float> logits, std::span<const int> history, workspace& scratch) const {
    const auto text = without_first(history, ignore_first_tokens);
    const std::size_t n = text.size();
    std::size_t longest = 0;  // up to the last breaker
    while (longest < n && !breaks(text[n - 1 - longest])) ++longest;
    if (multiplier == 0.0f || longest < static_cast<std::size_t>(allowed)) return;

    // common[i]: how many tokens before and with text[n - 1 - i] equal the text's last ones (the Z-function of the text read
    // backwards; [left, right) is the known stretch that ends last).
    auto& common = scratch.order;
    if (common.size() < n) common.resize(n);
    if (scratch.counts.size() < logits.size()) scratch.counts.resize(logits.size(), 0);
    std::size_t left = 0, right = 0;
    for (std::size_t i = 1; i < n; ++i) {
      std::size_t z = i < right ? std::min(right - i, static_cast<std::size_t>(common[i - left])) : 0;
      while (i + z < n && text[n - 1 - z] == text[n - 1 - i - z]) ++z;
      if (i + z > right) {
        left = i;
        right = i + z;
      }
      common[i] = static_cast<int>(z);
      const int next = text[n - i];
      if (next < 0 || static_cast<std::size_t>(next) >= logits.size()) continue;
      auto& best = scratch.counts[static_cast<std::size_t>(next)];
      best = std::max(best, static_cast<std::uint32_t>(std::min(z, longest)));
    }
    for (const int next : text) {
      if (next < 0 || static_cast<std::size_t>(next) >= logits.size()) continue;
      const int repeated = static_cast<int>(scratch.counts[static_cast<std::size_t>(next)]);
      scratch.counts[static_cast<std::size_t>(next)] = 0;  // as the workspace wants it, and each token once
      if (repeated < allowed || breaks(next)) continue;
      const double penalty = double{multiplier} * std::pow(double{base}, repeated - allowed);
      logits[static_cast<std::size_t>(next)] -=
          static_cast<float>(std::min(penalty, double{std::numeric_limits<float>::max()}));
    }
  }

 private:
  [[nodiscard]] bool breaks(int id) const { return std::find(breakers.begin(), breakers.end(), id) != breakers.end(); }
};

static_assert(check_rule<dry>::complete);

}  // namespace effinfer::inline v0::decoding
