#pragma once
// Makes tokens that have been there less likely.
// Source: Keskar, McCann, Varshney, Xiong, Socher, "CTRL" (2019), section 4.1, as transformers has it: a negative logit is multiplied,
// so that the penalty always lowers it.

#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace effinfer::inline v0::decoding {

/// Math: for each token of the history, once: logit / penalty where it is positive, logit * penalty where not.
///
/// Example: chain<repetition_penalty, top_p>{{repetition_penalty{.penalty = 1.1f}, top_p{.p = 0.9f}}}
struct repetition_penalty {
  float penalty = 1.1f;         ///< 1 changes nothing, less than 1 encourages
  int ignore_first_tokens = 0;  ///< of the history: the prompt's length lets the generated text alone count

  void validate() const {
    check_parameter(std::isfinite(penalty) && penalty > 0.0f, "repetition_penalty.penalty", penalty, "(0, infinity)");
    check_parameter(ignore_first_tokens >= 0, "repetition_penalty.ignore_first_tokens", ignore_first_tokens,
                    "[0, 2147483647]");
  }

  void apply(std::span<float> logits, std::span<const int> history, workspace& scratch) const {
    if (penalty == 1.0f) return;
    scratch.count(without_first(history, ignore_first_tokens), logits.size(), [&](int id, std::uint32_t) {
      float& logit = logits[static_cast<std::size_t>(id)];
      logit = logit < 0.0f ? logit * penalty : logit / penalty;
    });
  }
};

static_assert(check_rule<repetition_penalty>::complete);

}  // namespace effinfer::inline v0::decoding
