#pragma once
// A draw from the whole distribution, flattened or sharpened.
// Source: Ackley, Hinton, Sejnowski, "A learning algorithm for Boltzmann machines" (1985).

#include <effinfer/decoding/candidates.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cstdint>
#include <span>

namespace effinfer::inline v0::decoding {

/// Math: P(token i) = e^(logit_i / value) / sum_j e^(logit_j / value); value 0 is `greedy`.
///
/// Example: temperature{.value = 0.8f}
struct temperature {
  using slot = effinfer::slot::decoding;
  float value = 1.0f;

  void validate() const { check_temperature(value, "temperature.value"); }

  int operator()(std::span<float> logits, std::span<const int>, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    candidates left(logits, scratch);
    left.divide_by(value);
    return left.draw(random, position);
  }

  void apply(std::span<float> logits, std::span<const int>, workspace& scratch) const {
    candidates left(logits, scratch);
    left.divide_by(value);
    left.write_back();
  }
};

static_assert(check_strategy<temperature>::complete && check_rule<temperature>::complete);

}  // namespace effinfer::inline v0::decoding
