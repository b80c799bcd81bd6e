#pragma once
// Makes single tokens likelier, less likely or impossible.

#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <map>
#include <span>
#include <string>

namespace effinfer::inline v0::decoding {

/// Math: logit_id += bias_id; a bias of -infinity takes the token out.
///
/// Errors: `invalid_argument` (a bias that is NaN or +infinity, an id outside the vocabulary: that one at the first token).
/// Example: chain<logit_bias, top_p>{{logit_bias{.biases = {{42, -2.5f}, {7, -INFINITY}}}, top_p{}}}
struct logit_bias {
  std::map<int, float> biases = {};

  void validate() const {
    for (const auto& [id, bias] : biases) {
      check_parameter(id >= 0, "logit_bias.biases: id", id, "[0, V)");
      check_parameter(bias < std::numeric_limits<float>::infinity(), "logit_bias.biases[" + std::to_string(id) + "]",
                      bias, "[-infinity, infinity)");
    }
  }

  void apply(std::span<float> logits, std::span<const int>, workspace&) const {
    for (const auto& [id, bias] : biases) {
      check_parameter(id >= 0 && static_cast<std::size_t>(id) < logits.size(), "logit_bias.biases: id", id,
                      "[0, " + std::to_string(logits.size()) + ")");
      float& logit = logits[static_cast<std::size_t>(id)];
      logit = std::isinf(bias) ? bias : logit + bias;
    }
  }
};

static_assert(check_rule<logit_bias>::complete);

}  // namespace effinfer::inline v0::decoding
