#pragma once
// A draw from the tokens that are not too unlikely in themselves.
// Source: Hewitt, Manning, Liang, "Truncation Sampling as Language Model Desmoothing" (Findings of EMNLP 2022), section 3.2.

#include <effinfer/decoding/candidates.hpp>
#include <effinfer/decoding/log_probability.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

namespace effinfer::inline v0::decoding {

/// Temperature, then the tokens whose probability is at least epsilon (the likeliest stay in any case), then a draw.
///
/// Example: epsilon_cutoff{.epsilon = 3e-4f}
struct epsilon_cutoff {
  using slot = effinfer::slot::decoding;
  float epsilon = 3e-4f;  ///< 0 keeps all
  float temperature = 1.0f;

  void validate() const {
    check_parameter(epsilon >= 0.0f && epsilon < 1.0f, "epsilon_cutoff.epsilon", epsilon, "[0, 1)");
    check_temperature(temperature, "epsilon_cutoff.temperature");
  }

  int operator()(std::span<float> logits, std::span<const int> history, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    apply(logits, history, scratch);
    return candidates(logits, scratch).draw(random, position);
  }

  void apply(std::span<float> logits, std::span<const int>, workspace& scratch) const {
    candidates all(logits, scratch);
    all.divide_by(temperature);
    all.write_back();
    const softmax_scale scale = find_softmax_scale(logits);
    const double least = scale.greatest + scale.log_sum + std::log(double{epsilon});
    for (float& logit : logits) {
      if (double{logit} < least && double{logit} < scale.greatest) logit = -std::numeric_limits<float>::infinity();
    }
  }
};

static_assert(check_strategy<epsilon_cutoff>::complete && check_rule<epsilon_cutoff>::complete);

}  // namespace effinfer::inline v0::decoding
