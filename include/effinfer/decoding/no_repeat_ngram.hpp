#pragma once
// No run of n tokens comes twice.
// Source: Paulus, Xiong, Socher, "A Deep Reinforced Model for Abstractive Summarization" (ICLR 2018), section 2.5.

#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>

namespace effinfer::inline v0::decoding {

/// Takes out each token that would complete a run of `size` tokens that the history holds already. Cost: one pass over the history.
///
/// Example: chain<no_repeat_ngram, top_p>{{no_repeat_ngram{.size = 3}, top_p{}}}
struct no_repeat_ngram {
  int size = 3;                 ///< 0 forbids nothing, 1 forbids every token of the history
  int ignore_first_tokens = 0;  ///< of the history: the prompt's length lets the generated text alone count

  void validate() const {
    check_parameter(size >= 0, "no_repeat_ngram.size", size, "[0, 2147483647]");
    check_parameter(ignore_first_tokens >= 0, "no_repeat_ngram.ignore_first_tokens", ignore_first_tokens,
                    "[0, 2147483647]");
  }

  void apply(std::span<float> logits, std::span<const int> history, workspace&) const {
    const auto text = without_first(history, ignore_first_tokens);
    const auto run = static_cast<std::size_t>(size);
    if (run == 0 || text.size() < run) return;
    const auto last = text.last(run - 1);
    for (std::size_t end = run - 1; end < text.size(); ++end) {
      const int id = text[end];
      if (id < 0 || static_cast<std::size_t>(id) >= logits.size()) continue;
      if (std::equal(last.begin(), last.end(), text.begin() + static_cast<std::ptrdiff_t>(end - last.size()))) {
        logits[static_cast<std::size_t>(id)] = -std::numeric_limits<float>::infinity();
      }
    }
  }
};

static_assert(check_rule<no_repeat_ngram>::complete);

}  // namespace effinfer::inline v0::decoding
