#pragma once
// A draw from the tokens whose logits stand out from the noise.
// Source: Tang, Liu, Xu, Wang, Chen, Wang, Zhang, "Top-n-sigma: Not All Logits Are You Need" (2024), algorithm 1.

#include <effinfer/decoding/candidates.hpp>
#include <effinfer/decoding/log_probability.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace effinfer::inline v0::decoding {

/// Temperature, then the tokens whose logit is at least maximum - n * sigma, then a draw.
///
/// Math: sigma is the standard deviation (divided by their number) of the logits of the tokens still in. The set kept is the same at
/// every temperature above 0.
/// Example: top_n_sigma{.n = 1.0f, .temperature = 1.5f}
struct top_n_sigma {
  using slot = effinfer::slot::decoding;
  float n = 1.0f;  ///< standard deviations below the greatest logit
  float temperature = 1.0f;

  void validate() const {
    check_parameter(std::isfinite(n) && n >= 0.0f, "top_n_sigma.n", n, "[0, infinity)");
    check_temperature(temperature, "top_n_sigma.temperature");
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
    double greatest = -std::numeric_limits<double>::infinity(), sum = 0;
    std::size_t count = 0;
    for (const float logit : logits) {
      if (!std::isfinite(logit)) continue;
      if (double{logit} > greatest) greatest = double{logit};
      sum += double{logit};
      ++count;
    }
    const double mean = sum / static_cast<double>(count);  // at least one is in, or `candidates` would have thrown
    double squares = 0;
    for (const float logit : logits) {
      if (std::isfinite(logit)) squares += (double{logit} - mean) * (double{logit} - mean);
    }
    const double least = greatest - double{n} * std::sqrt(squares / static_cast<double>(count));
    for (float& logit : logits) {
      if (double{logit} < least) logit = -std::numeric_limits<float>::infinity();
    }
  }
};

static_assert(check_strategy<top_n_sigma>::complete && check_rule<top_n_sigma>::complete);

}  // namespace effinfer::inline v0::decoding
