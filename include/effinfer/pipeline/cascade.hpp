#pragma once
// A small model first, a larger one where the small one's answer isn't good enough. Source: Chen, Zaharia, Zou, "FrugalGPT"
// (2023), section 3, LLM cascade: the answer of the first model whose score reaches its threshold.

#include <effinfer/core/error.hpp>
#include <effinfer/pipeline/generation.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace effinfer::inline v0 {

/// What one model of a cascade answered.
struct cascade_answer {
  std::string text;
  std::vector<int> tokens;
  std::vector<decoding::token_log_probabilities> log_probabilities;  ///< of `tokens`, where they were asked for
  finish_reason finished = finish_reason::running;
  int stage = 0;  ///< 0: the first model's, 1: the second's ...
  double score =
      std::numeric_limits<double>::quiet_NaN();  ///< of the last answer that was scored: the last model's isn't
};

/// The mean log-probability of the answer's tokens; -infinity where there are none.
struct mean_log_probability {
  double operator()(std::string_view /*prompt*/, const cascade_answer& answer) const {
    if (answer.log_probabilities.empty()) return -std::numeric_limits<double>::infinity();
    double sum = 0;
    for (const auto& token : answer.log_probabilities) sum += token.chosen.log_probability;
    return sum / static_cast<double>(answer.log_probabilities.size());
  }
};

/// Two pipelines as one: `Small` answers, `Score` judges, and below the threshold `Large` answers anew. `Large` may be a
/// cascade itself.
///
/// `Score`: double(std::string_view prompt, const cascade_answer&), more is better; a lambda will do. The two may have
/// different tokenizers. Copying is cheap and shares the models; safe to call from several threads if `Score` is.
/// Exact: with the threshold -infinity the small model's answers, with +infinity the large one's.
///
/// Example:
///     effinfer::cascade two(small::load(a), large::load(b));
///     std::cout << two.generate(prompt, {.threshold = -1.5}).text;
template <class Small, class Large, class Score = mean_log_probability>
class cascade {
  static_assert(std::is_invocable_r_v<double, const Score&, std::string_view, const cascade_answer&>,
                "effinfer: the score of a cascade needs  double operator()(std::string_view prompt, const "
                "effinfer::cascade_answer& answer) const;");

 public:
  struct generate_options {
    double threshold = -1.0;  ///< answers that score less, or NaN, are asked for again
    typename Small::generate_options small = {};
    typename Large::generate_options large = {};
  };

  cascade(Small small, Large large, Score score = {})
      : small_(std::move(small)), large_(std::move(large)), score_(std::move(score)) {}

  /// Errors: `invalid_argument` (threshold NaN), and those of the pipelines. A cancelled answer isn't asked for again.
  [[nodiscard]] cascade_answer generate(std::string_view prompt, generate_options options = {}) const {
    if (std::isnan(options.threshold)) {
      throw error(error_code::invalid_argument, "cascade.threshold", "it is NaN");
    }
    if (!options.small.log_probabilities) options.small.log_probabilities = 0;
    cascade_answer first = answer(small_, prompt, std::move(options.small));
    first.score = score_(prompt, first);
    if (first.score >= options.threshold || options.threshold == -std::numeric_limits<double>::infinity() ||
        first.finished == finish_reason::cancelled) {
      return first;
    }
    cascade_answer second = answer(large_, prompt, std::move(options.large));
    ++second.stage;
    if (std::isnan(second.score)) second.score = first.score;
    return second;
  }

  [[nodiscard]] const Small& small() const { return small_; }
  [[nodiscard]] const Large& large() const { return large_; }

 private:
  template <class Pipeline>
  static cascade_answer answer(const Pipeline& from, std::string_view prompt,
                               typename Pipeline::generate_options options) {
    auto made = from.generate(prompt, std::move(options));
    if constexpr (std::is_same_v<decltype(made), cascade_answer>) {
      return made;
    } else {
      cascade_answer a;
      a.text = made.text();
      a.tokens.assign(made.tokens().begin(), made.tokens().end());
      a.log_probabilities.assign(made.log_probabilities().begin(), made.log_probabilities().end());
      a.finished = made.finished();
      return a;
    }
  }

  Small small_;
  Large large_;
  Score score_;
};

}  // namespace effinfer::inline v0
