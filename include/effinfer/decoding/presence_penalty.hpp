#pragma once
// Makes a token less likely once it has been there, however often.
// Source: OpenAI API reference, "Frequency and presence penalties" (2021).

#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace effinfer::inline v0::decoding {

/// Math: logit - penalty, for each token of the history, once.
struct presence_penalty {
  float penalty = 0.5f;         ///< 0 changes nothing, negative encourages
  int ignore_first_tokens = 0;  ///< of the history: the prompt's length lets the generated text alone count

  void validate() const {
    check_parameter(std::isfinite(penalty), "presence_penalty.penalty", penalty, "(-infinity, infinity)");
    check_parameter(ignore_first_tokens >= 0, "presence_penalty.ignore_first_tokens", ignore_first_tokens,
                    "[0, 2147483647]");
  }

  void apply(std::span<float> logits, std::span<const int> history, workspace& scratch) const {
    if (penalty == 0.0f) return;
    scratch.count(without_first(history, ignore_first_tokens), logits.size(),
                  [&](int id, std::uint32_t) { logits[static_cast<std::size_t>(id)] -= penalty; });
  }
};

static_assert(check_rule<presence_penalty>::complete);

}  // namespace effinfer::inline v0::decoding
