#pragma once
// No end before so many tokens have been generated.

#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Takes the tokens in `ends` out while fewer than `tokens` follow the prompt. The prompt's length must be told, as a rule sees one
/// history: prompt_tokens = int(tokenizer.encode(prompt).size()), and what the session held before it.
///
/// Errors: `invalid_argument` (negative numbers; an id outside the vocabulary: that one at the first token).
/// Example: chain<min_length, top_p>{{min_length{.tokens = 20, .prompt_tokens = 7, .ends = {2}}, top_p{}}}
struct min_length {
  int tokens = 0;
  int prompt_tokens = 0;
  std::vector<int> ends = {};  ///< model_config::eos_ids, and what else ends a text

  void validate() const {
    check_parameter(tokens >= 0, "min_length.tokens", tokens, "[0, 2147483647]");
    check_parameter(prompt_tokens >= 0, "min_length.prompt_tokens", prompt_tokens, "[0, 2147483647]");
    for (const int id : ends) check_parameter(id >= 0, "min_length.ends", id, "[0, V)");
  }

  void apply(std::span<float> logits, std::span<const int> history, workspace&) const {
    if (history.size() >= static_cast<std::size_t>(prompt_tokens) + static_cast<std::size_t>(tokens)) return;
    for (const int id : ends) {
      check_parameter(id >= 0 && static_cast<std::size_t>(id) < logits.size(), "min_length.ends", id,
                      "[0, " + std::to_string(logits.size()) + ")");
      logits[static_cast<std::size_t>(id)] = -std::numeric_limits<float>::infinity();
    }
  }
};

static_assert(check_rule<min_length>::complete);

}  // namespace effinfer::inline v0::decoding
