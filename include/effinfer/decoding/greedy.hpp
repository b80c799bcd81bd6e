#pragma once
// The likeliest token, always.

#include <effinfer/decoding/candidates.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cstdint>
#include <span>

namespace effinfer::inline v0::decoding {

/// Math: argmax of the logits; of equals the lowest id. NaN is never chosen.
struct greedy {
  using slot = effinfer::slot::decoding;

  void validate() const {}

  int operator()(std::span<float> logits, std::span<const int>, random_stream, std::uint64_t,
                 workspace& scratch) const {
    return candidates(logits, scratch).likeliest();
  }

  void apply(std::span<float> logits, std::span<const int>, workspace& scratch) const {
    candidates left(logits, scratch);
    left.divide_by(0);
    left.write_back();
  }
};

static_assert(check_strategy<greedy>::complete && check_rule<greedy>::complete);

}  // namespace effinfer::inline v0::decoding
