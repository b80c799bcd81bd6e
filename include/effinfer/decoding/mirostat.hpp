#pragma once
// A draw whose surprise is held at a target: the text gets neither repetitive nor incoherent as it grows.
// Source: Basu, Ramachandran, Keskar, Varshney, "Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity" (ICLR
// 2021); version 2 as in the authors' code, which drops the Zipf estimate of version 1.

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
#include <vector>

namespace effinfer::inline v0::decoding {

/// Temperature, then the tokens whose surprise is at most mu (the likeliest stay in any case), then a draw; mu follows what was drawn.
///
/// Math: surprise_i = -log2 p_i; mu_0 = 2 target; mu_(t+1) = mu_t - rate * (surprise of token t among those kept - target). A token that
/// mirostat had put aside (forced by another rule) leaves mu as it is.
/// State: the mu of each position, which belongs to the history: where a call's history is a shorter one (drafts turned down, a session cut
/// back) the state goes back with it, so speculation gives the text of the plain loop. A history that doesn't continue what was
/// seen starts anew. One generation each, one thread at a time; a copy goes on independently.
/// Example: mirostat{.target = 5.0f, .rate = 0.1f}
struct mirostat {
  using slot = effinfer::slot::decoding;
  float target = 5.0f;  ///< in bits a token
  float rate = 0.1f;
  float temperature = 1.0f;

  /// What was seen. Not a parameter: leave it as it is.
  struct memory {
    std::vector<int> history;     ///< of the last call
    std::vector<double> mu;       ///< of the positions up to that one, the last mu.size() of them
    std::vector<float> surprise;  ///< at that position, of each token; NaN for those put aside
  };
  mutable memory seen = {};

  void validate() const {
    check_parameter(std::isfinite(target) && target >= 0.0f, "mirostat.target", target, "[0, infinity)");
    check_parameter(std::isfinite(rate) && rate >= 0.0f, "mirostat.rate", rate, "[0, infinity)");
    check_temperature(temperature, "mirostat.temperature");
  }

  int operator()(std::span<float> logits, std::span<const int> history, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    apply(logits, history, scratch);
    return candidates(logits, scratch).draw(random, position);
  }

  void apply(std::span<float> logits, std::span<const int> history, workspace& scratch) const {
    candidates all(logits, scratch);
    all.divide_by(temperature);
    all.write_back();
    const double mu = mu_behind(history);
    const softmax_scale scale = find_softmax_scale(logits);
    const double least = scale.greatest + scale.log_sum - mu * ln_2;
    for (float& logit : logits) {
      if (double{logit} < least && double{logit} < scale.greatest) logit = -std::numeric_limits<float>::infinity();
    }
    const softmax_scale kept = find_softmax_scale(logits);
    seen.surprise.resize(logits.size());
    for (std::size_t i = 0; i < logits.size(); ++i) {
      seen.surprise[i] = std::isfinite(logits[i])
                             ? static_cast<float>((kept.greatest + kept.log_sum - double{logits[i]}) / ln_2)
                             : std::numeric_limits<float>::quiet_NaN();
    }
  }

 private:
  static constexpr double ln_2 = 0.69314718055994530942;

  /// The mu of the token behind `history`; afterwards `seen` ends there.
  double mu_behind(std::span<const int> history) const {
    const std::size_t now = history.size(), last = seen.history.size();
    const auto same = std::mismatch(history.begin(), history.end(), seen.history.begin(), seen.history.end()).first;
    const bool continues = static_cast<std::size_t>(same - history.begin()) == std::min(now, last);
    const std::size_t first = last + 1 - seen.mu.size();  // the position of mu[0]
    if (!seen.mu.empty() && continues && now == last + 1) {
      const int token = history.back();
      const bool known = token >= 0 && static_cast<std::size_t>(token) < seen.surprise.size();
      const float surprise =
          known ? seen.surprise[static_cast<std::size_t>(token)] : std::numeric_limits<float>::quiet_NaN();
      const double error = std::isnan(surprise) ? 0 : double{surprise} - double{target};
      seen.mu.push_back(seen.mu.back() - double{rate} * error);
    } else if (!seen.mu.empty() && continues && now >= first && now <= last) {
      seen.mu.resize(now - first + 1);
    } else {
      seen.mu.assign(1, 2 * double{target});
    }
    seen.history.assign(history.begin(), history.end());
    return seen.mu.back();
  }
};

static_assert(check_strategy<mirostat>::complete && check_rule<mirostat>::complete);

}  // namespace effinfer::inline v0::decoding
