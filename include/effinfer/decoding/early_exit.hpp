#pragma once
// Fewer layers for easy tokens: a token leaves the model where an exit is sure of it (CALM), where exits in a row agree (patience),
// or goes through as many layers as a schedule gives its position (SkipDecode). Lossy: the text is not the whole model's, but for
// a policy that never leaves. The layers a token left out get keys and values from its state, so later tokens find it there.
//
// A strategy and not a model or attention policy: the model is the same, which of its exits to trust is a choice a generation makes,
// as the temperature is, and its exits' logits go to the same rules.

#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>
#include <effinfer/decoding/top_tokens.hpp>
#include <effinfer/models/exit_maps.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Leaves where the exit is confident: confidence > lambda, which at 1 never happens.
///
/// Math: confidence = p_1 - p_2, the distance of the two greatest probabilities at the exit ("softmax response"), or p_1 alone;
/// lambda(t) = clip(9/10 threshold + 1/10 e^(-temperature t / length)) at the t-th generated token where a temperature is given: sure
/// at the start, where an error spoils more, looser later. Source: Schuster et al., "Confident Adaptive Language Modeling"
/// (2022), sections 3.3 and 3.5, equation 5.
struct confidence {
  enum class measure { margin, probability };
  float threshold = 0.9F;
  measure by = measure::margin;
  float temperature = 0;  ///< 0: the threshold stays
  int length = 256;       ///< N, the tokens over which it decays

  void validate() const {
    check_parameter(threshold >= 0 && threshold <= 1, "confidence.threshold", threshold, "[0, 1]");
    check_parameter(std::isfinite(temperature) && temperature >= 0, "confidence.temperature", temperature,
                    "[0, infinity)");
    check_parameter(length >= 1, "confidence.length", length, "[1, 2147483647]");
  }
  [[nodiscard]] float threshold_at(int step) const {
    if (temperature == 0) return threshold;
    const double t = static_cast<double>(temperature) * step / length;
    return static_cast<float>(std::clamp(0.9 * static_cast<double>(threshold) + 0.1 * std::exp(-t), 0.0, 1.0));
  }

  /// What one token needs while it climbs.
  struct climb {
    float lambda;
    measure by;
    bool operator()(execution::instruction_set set, std::span<const float> logits) {
      std::array<token_probability, 2> best{};
      top_tokens(set, logits, best);
      return best[0].probability - (by == measure::margin ? best[1].probability : 0.0F) > lambda;
    }
  };
  [[nodiscard]] climb begin(int step) const { return {threshold_at(step), by}; }
};

/// Leaves where this many exits in a row had the same likeliest token. Source: Zhou et al., "BERT Loses Patience" (2020), section
/// 3.3. More than there are exits: never.
struct patience {
  int times = 2;

  void validate() const { check_parameter(times >= 1, "patience.times", times, "[1, 2147483647]"); }

  struct climb {
    int times;
    int last = -1, equal = 0;
    bool operator()(execution::instruction_set set, std::span<const float> logits) {
      token_probability best;
      top_tokens(set, logits, {&best, 1});
      equal = best.id == last ? equal + 1 : 1;
      last = best.id;
      return equal >= times;
    }
  };
  [[nodiscard]] climb begin(int /*step*/) const { return {times}; }
};

/// As many layers as the position says, never more than at an earlier one: layers(t) falls from `most` at position 0 to `fewest` at
/// position `length` in a straight line, rounded. A token goes through the first `warm_up` layers and the last ones of the model, so a
/// layer that it reads has been read by every token before. Source: Del Corro et al., "SkipDecode" (2023), section 3.
struct monotone_schedule {
  int most = 0;  ///< 0: all layers
  int fewest = 1;
  int warm_up = 0;
  int length = 512;

  void validate() const {
    check_parameter(fewest >= 1, "monotone_schedule.fewest", fewest, "[1, layers]");
    check_parameter(most == 0 || most >= fewest, "monotone_schedule.most", most, "0 or [fewest, layers]");
    check_parameter(warm_up >= 0 && warm_up <= fewest, "monotone_schedule.warm_up", warm_up, "[0, fewest]");
    check_parameter(length >= 1, "monotone_schedule.length", length, "[1, 2147483647]");
  }
  [[nodiscard]] int layers_at(int position, int layers) const {
    const int top = most == 0 ? layers : std::min(most, layers), least = std::min(fewest, top);
    const double share = std::min(1.0, static_cast<double>(position) / length);
    return top - static_cast<int>(std::lround(share * (top - least)));
  }
};

/// Tokens are read through as many layers as `Exit` wants, and chosen by `Rule`. `Exit`: confidence, patience, monotone_schedule, or a
/// struct of one's own with `validate` and `begin` (see `patience`).
///
/// Exact: with an Exit that never leaves the text is that of `Rule` alone. The prompt always goes through all layers.
/// Example: early_exit<confidence, top_p>{.exit = {.threshold = 0.8f}, .maps = maps}
template <class Exit = confidence, class Rule = greedy>
struct early_exit {
  static_assert(validated<Exit> && check_strategy<Rule>::complete);
  using slot = effinfer::slot::decoding;
  using rule_type = Rule;

  Exit exit = {};
  Rule rule = {};
  std::shared_ptr<const models::exit_maps> maps = nullptr;  ///< null: a model trained to be left early (LayerSkip)
  std::vector<int> exits = {};  ///< behind which layers to ask, rising; empty: behind each but the last

  void validate() const {
    exit.validate();
    rule.validate();
    for (std::size_t i = 0; i < exits.size(); ++i) {
      check_parameter(exits[i] >= (i == 0 ? 1 : exits[i - 1] + 1), "early_exit.exits", exits[i],
                      "numbers of layers that rise");
    }
  }
  int operator()(std::span<float> logits, std::span<const int> history, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    return rule(logits, history, random, position, scratch);
  }

  /// Reads one token into `session`, the `step`-th generated one, and returns its logits; `depth`, if not null, is set to the layers
  /// it went through. Errors: as session::append, and `invalid_argument` for an exit that the model doesn't have.
  template <class Session>
  std::span<const float> read(Session& session, int token, int step, const std::stop_token& stop = {},
                              int* depth = nullptr) const {
    const int layers = session.model().config().layers;
    if constexpr (requires { exit.layers_at(0, 0); }) {
      const int count = exit.layers_at(session.position(), layers);
      if (depth != nullptr) *depth = count;
      if (count == layers) return session.append(std::span(&token, 1), stop);
      const int first = std::min(exit.warm_up, count);
      const std::array<std::pair<int, int>, 2> ranges{{{0, first}, {layers - (count - first), layers}}};
      session.append_through(std::span(&token, 1), ranges, true);
      return session.logits(0);
    } else {
      const auto set = session.model().execution().set();
      auto climb = exit.begin(step);
      const auto leaves = [&](int, std::span<const float> logits) { return climb(set, logits); };
      const models::exit_maps none;
      const models::exit_maps& read = maps == nullptr ? none : *maps;
      if (!exits.empty()) return session.append_until(token, read, exits, leaves, stop, depth);
      std::vector<int> all;
      for (int i = 1; i < layers; ++i) all.push_back(i);
      return session.append_until(token, read, all, leaves, stop, depth);
    }
  }
};

static_assert(check_strategy<early_exit<>>::complete);

}  // namespace effinfer::inline v0::decoding
