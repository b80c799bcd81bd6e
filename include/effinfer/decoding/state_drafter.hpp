#pragma once
// Drafters that look inside the model: they go on from its hidden states (EAGLE, multi-token prediction, Medusa) or run some of
// its layers (self-speculation). Unlike those of drafter.hpp they keep something for each generation, in a nested class
//
//   template <class Session> class run {
//     run(const Drafter& drafter, Session& session);
//     std::span<const tap> taps(int rows);     // the states it wants of the last `rows` tokens of the next pass
//     void read(int rows, int accepted);       // of that pass the first `rows` rows stay, `accepted` guesses were right
//     void propose(std::span<const int> history, int most, std::vector<int>& guesses);   // history: with the last token, unread;
//                                              // the first call, with `most` = 0, is part of the prefill: to read the prompt
//   };
//
// and, where it has a use for them,
//
//     void row(std::span<const float> logits);   // behind each token of a pass that verifies, the refused ones' too; before read
//     double guess_cost() const;                 // what a guess takes, in passes of the model, until it has been measured
//     void expect(least_chances least);          // which guesses pay, before propose (draft_length.hpp)
//     matrix_view<const float> distributions() const;   // what the last guesses were drawn from, [guesses, V]
//     void propose(history, most, guesses, random_stream random);
//
// There are eagle (also EAGLE-3 and MTP), medusa, self_speculation; and, which keep something but look at the text only,
// draft_model, staged, suffix_automaton, lookahead. A guess is verified as any other: the text stays the rule's.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/draft_length.hpp>
#include <effinfer/decoding/drafter.hpp>
#include <effinfer/decoding/parameter.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace effinfer::inline v0::decoding {

/// True of drafters with a nested `run`.
template <class D>
concept state_drafter = validated<D> && requires {
  requires D::reads_states;
};

/// How often a guess has been right, by the probability that its drafter gave it: what a drafter calls 30 % may be right 80 % of the
/// time under greedy decoding, and 30 % under sampling. Starts with a guess of its own and learns.
class acceptance_estimate {
 public:
  /// The chance that a guess of probability p is right.
  [[nodiscard]] double chance(float p) const {
    const bin& b = bins_[index(p)];
    return (b.right + prior_weight * (0.4 + 0.6 * static_cast<double>(p))) / (b.tried + prior_weight);
  }
  void learn(float p, bool right) {
    bin& b = bins_[index(p)];
    b.right += right ? 1 : 0;
    b.tried += 1;
    if (b.tried < memory) return;
    b.right /= 2;
    b.tried /= 2;
  }

 private:
  static constexpr double prior_weight = 4, memory = 512;
  struct bin {
    double right = 0, tried = 0;
  };
  static std::size_t index(float p) {
    return std::min<std::size_t>(static_cast<std::size_t>(std::max(p, 0.0F) * 12), 11);
  }
  std::array<bin, 12> bins_{};
};

/// A chain of guesses that goes on while the chance that all of them are right pays for one more.
class guarded_chain {
 public:
  /// `least`: a chance below which there are no guesses, whatever pays.
  explicit guarded_chain(float least) : least_(least) {}

  void expect(least_chances least) { pays_ = least; }
  void begin() {
    probabilities_.clear();
    joint_ = 1;
  }
  /// True if a guess of probability p should be verified.
  bool take(float p) {
    joint_ *= estimate_.chance(p);
    if (joint_ < std::max(static_cast<double>(least_), pays_.to_verify)) return false;
    probabilities_.push_back(p);
    return true;
  }
  /// True if another guess should be made.
  [[nodiscard]] bool goes_on() const { return joint_ >= pays_.to_guess; }
  /// Of the guesses taken the first `accepted` were right; the next one, if there is one, was wrong.
  void learn(int accepted) {
    for (std::size_t i = 0; i < probabilities_.size() && i <= static_cast<std::size_t>(accepted); ++i)
      estimate_.learn(probabilities_[i], i < static_cast<std::size_t>(accepted));
    probabilities_.clear();
  }

 private:
  float least_;
  least_chances pays_;
  double joint_ = 1;
  acceptance_estimate estimate_;
  std::vector<float> probabilities_;
};

}  // namespace effinfer::inline v0::decoding
