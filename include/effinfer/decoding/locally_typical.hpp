#pragma once
// A draw from the tokens that are about as surprising as the model expects the next one to be.
// Source: Meister, Pimentel, Wiher, Cotterell, "Locally Typical Sampling" (TACL 2023), equation 8.

#include <effinfer/decoding/candidates.hpp>
#include <effinfer/decoding/log_probability.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace effinfer::inline v0::decoding {

/// Temperature, then the smallest set of tokens whose surprise is nearest to the entropy and that together have probability `mass`
/// (equals at its edge all stay, as in transformers), then a draw.
///
/// Math: tokens by rising |-ln p_i - entropy|. Example: locally_typical{.mass = 0.9f}
struct locally_typical {
  using slot = effinfer::slot::decoding;
  float mass = 0.9f;  ///< 1 keeps all
  float temperature = 1.0f;

  void validate() const {
    check_parameter(mass > 0.0f && mass <= 1.0f, "locally_typical.mass", mass, "(0, 1]");
    check_temperature(temperature, "locally_typical.temperature");
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
    if (mass >= 1.0f) return;
    const softmax_scale scale = find_softmax_scale(logits);
    const double expected = entropy(logits, scale);
    scratch.distances.resize(logits.size());
    scratch.order.resize(logits.size());
    std::size_t count = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (!std::isfinite(logits[i])) continue;
      scratch.distances[i] = std::abs(scale.log_sum - (double{logits[i]} - scale.greatest) - expected);
      scratch.order[count++] = static_cast<int>(i);
    }
    // A heap, as mostly few tokens reach the mass.
    const auto distance = [&](int id) { return scratch.distances[static_cast<std::size_t>(id)]; };
    const auto farther = [&](int a, int b) { return distance(a) > distance(b); };
    const auto begin = scratch.order.begin();
    auto end = begin + static_cast<std::ptrdiff_t>(count);
    std::make_heap(begin, end, farther);
    double reached = 0, edge = 0;
    while (end != begin && reached < double{mass}) {
      const int id = scratch.order.front();
      edge = distance(id);
      reached += std::exp(double{logits[static_cast<std::size_t>(id)]} - scale.greatest - scale.log_sum);
      std::pop_heap(begin, end--, farther);
    }
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (std::isfinite(logits[i]) && scratch.distances[i] > edge) logits[i] = -std::numeric_limits<float>::infinity();
    }
  }
};

static_assert(check_strategy<locally_typical>::complete && check_rule<locally_typical>::complete);

}  // namespace effinfer::inline v0::decoding
