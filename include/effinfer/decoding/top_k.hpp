#pragma once
// A draw from the k likeliest tokens.
// Source: Fan, Lewis, Dauphin, "Hierarchical Neural Story Generation" (ACL 2018), section 5.

#include <effinfer/decoding/candidates.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cstdint>
#include <span>

namespace effinfer::inline v0::decoding {

/// Temperature, then the tokens whose logit is at least the k-th greatest (all of those that share it, as in transformers),
/// then a draw.
///
/// Example: top_k{.k = 40, .temperature = 0.8f}
struct top_k {
  using slot = effinfer::slot::decoding;
  int k = 50;  ///< 0 keeps all
  float temperature = 1.0f;

  void validate() const {
    check_parameter(k >= 0, "top_k.k", k, "[0, 2147483647]");
    check_temperature(temperature, "top_k.temperature");
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
    left.keep_top_k(k);
    return left;
  }
};

static_assert(check_strategy<top_k>::complete && check_rule<top_k>::complete);

}  // namespace effinfer::inline v0::decoding
