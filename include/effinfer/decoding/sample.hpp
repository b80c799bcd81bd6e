#pragma once
// Every filter and penalty with its parameters at run time: what a command line or a server needs. The default policy.

#include <effinfer/decoding/candidates.hpp>
#include <effinfer/decoding/frequency_penalty.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>
#include <effinfer/decoding/presence_penalty.hpp>
#include <effinfer/decoding/repetition_penalty.hpp>

#include <cmath>
#include <cstdint>
#include <span>

namespace effinfer::inline v0::decoding {

/// Order: repetition, frequency and presence penalty, temperature, top-k, top-p, min-p, draw. That is the order of
/// transformers (and of vLLM for the penalties): parameters tuned there mean the same here. Penalties come first as they speak of
/// the model's own logits; temperature before the filters as p is a probability of what will be drawn from.
///
/// Exact: the same tokens as chain<repetition_penalty, frequency_penalty, presence_penalty, temperature, top_k, top_p, min_p>.
/// Example: sample{.temperature = 0.7f, .top_p = 0.9f}
struct sample {
  using slot = effinfer::slot::decoding;
  float temperature = 1.0f;               ///< 0 takes the likeliest token
  int top_k = 0;                          ///< 0 keeps all
  float top_p = 1.0f;                     ///< 1 keeps all
  float min_p = 0.0f;                     ///< 0 keeps all
  float repetition_penalty = 1.0f;        ///< 1 changes nothing
  float frequency_penalty = 0.0f;         ///< 0 changes nothing
  float presence_penalty = 0.0f;          ///< 0 changes nothing
  int penalties_ignore_first_tokens = 0;  ///< of the history: the prompt's length lets the generated text alone count

  void validate() const {
    check_temperature(temperature, "sample.temperature");
    check_parameter(top_k >= 0, "sample.top_k", top_k, "[0, 2147483647]");
    check_parameter(top_p > 0.0f && top_p <= 1.0f, "sample.top_p", top_p, "(0, 1]");
    check_parameter(min_p >= 0.0f && min_p <= 1.0f, "sample.min_p", min_p, "[0, 1]");
    check_parameter(std::isfinite(repetition_penalty) && repetition_penalty > 0.0f, "sample.repetition_penalty",
                    repetition_penalty, "(0, infinity)");
    check_parameter(std::isfinite(frequency_penalty), "sample.frequency_penalty", frequency_penalty,
                    "(-infinity, infinity)");
    check_parameter(std::isfinite(presence_penalty), "sample.presence_penalty", presence_penalty,
                    "(-infinity, infinity)");
    check_parameter(penalties_ignore_first_tokens >= 0, "sample.penalties_ignore_first_tokens",
                    penalties_ignore_first_tokens, "[0, 2147483647]");
  }

  int operator()(std::span<float> logits, std::span<const int> history, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    return filtered(logits, history, scratch).draw(random, position);
  }

  void apply(std::span<float> logits, std::span<const int> history, workspace& scratch) const {
    filtered(logits, history, scratch).write_back();
  }

 private:
  [[nodiscard]] candidates filtered(std::span<float> logits, std::span<const int> history, workspace& scratch) const {
    const int ignored = penalties_ignore_first_tokens;
    decoding::repetition_penalty{.penalty = repetition_penalty, .ignore_first_tokens = ignored}.apply(logits, history,
                                                                                                      scratch);
    decoding::frequency_penalty{.penalty = frequency_penalty, .ignore_first_tokens = ignored}.apply(logits, history,
                                                                                                    scratch);
    decoding::presence_penalty{.penalty = presence_penalty, .ignore_first_tokens = ignored}.apply(logits, history,
                                                                                                  scratch);
    candidates left(logits, scratch);
    left.divide_by(temperature);
    left.keep_top_k(top_k);
    left.keep_top_p(top_p);
    left.keep_min_p(min_p);
    return left;
  }
};

static_assert(check_strategy<sample>::complete && check_rule<sample>::complete);

}  // namespace effinfer::inline v0::decoding
