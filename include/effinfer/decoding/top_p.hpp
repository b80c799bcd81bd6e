#pragma once
// A draw from the nucleus: the smallest set of likeliest tokens that together have probability p.
// Source: Holtzman, Buys, Du, Forbes, Choi, "The Curious Case of Neural Text Degeneration" (ICLR 2020), section 3.1.

#include <effinfer/decoding/candidates.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cstdint>
#include <span>

namespace effinfer::inline v0::decoding {

/// Temperature, then the nucleus (of equally likely tokens at its edge the lower ids), then a draw.
///
/// Example: top_p{.p = 0.9f, .temperature = 0.8f}
struct top_p {
  using slot = effinfer::slot::decoding;
  float p = 0.9f;  ///< 1 keeps all
  float temperature = 1.0f;

  void validate() const {
    check_parameter(p > 0.0f && p <= 1.0f, "top_p.p", p, "(0, 1]");
    check_temperature(temperature, "top_p.temperature");
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
    left.keep_top_p(p);
    return left;
  }
};

static_assert(check_strategy<top_p>::complete && check_rule<top_p>::complete);

}  // namespace effinfer::inline v0::decoding
