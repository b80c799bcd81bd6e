#pragma once
// A draw from the tokens that are not too far behind the likeliest one.
// Source: Nguyen et al., "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs" (2024), section 3.

#include <effinfer/decoding/candidates.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cstdint>
#include <span>

namespace effinfer::inline v0::decoding {

/// Temperature, then the tokens whose probability is at least p times that of the likeliest, then a draw.
///
/// Example: min_p{.p = 0.05f, .temperature = 1.5f}
struct min_p {
  using slot = effinfer::slot::decoding;
  float p = 0.1f;  ///< 0 keeps all
  float temperature = 1.0f;

  void validate() const {
    check_parameter(p >= 0.0f && p <= 1.0f, "min_p.p", p, "[0, 1]");
    check_temperature(temperature, "min_p.temperature");
  }

  int operator()(std::span<float> logits, std::span<const int>, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    return filtered(logits, scratch).draw(random, position);
  }

  void apply(std::span<float> logits, std::span<const int>, workspace& scratch) const {
    filtered(logits, scratch).write_back();
  }

 private:
  [[nodiscard]] candidates filtered(std::span<float> logits, workspace& scratch) const {
    candidates left(logits, scratch);
    left.divide_by(temperature);
    left.keep_min_p(p);
    return left;
  }
};

static_assert(check_strategy<min_p>::complete && check_rule<min_p>::complete);

}  // namespace effinfer::inline v0::decoding
