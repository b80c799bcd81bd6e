#pragma once
// Drafters that look inside the model: they go on from its hidden states (EAGLE, multi-token prediction, Medusa) or run some of
// its layers (self-speculation). Unlike those of drafter.hpp they keep something for each generation, in a nested class
//
//   template <class Session> class run {
//     run(const Drafter& drafter, Session& session);
//     std::span<const tap> taps(int rows);     // the states it wants of the last `rows` tokens of the next pass
//     void read(std::span<const int> rows);    // of that pass these rows stay; of one that verified a draft row i + 1 is node i,
//                                              // and the first row is the token in front of it
//     void propose(std::span<const int> history, int most, draft_tree& tree);   // history: with the last token, unread; `tree`,
//                                              // empty, becomes depth first, of at most `most` nodes; the first call, with
//                                              // `most` = 0, is part of the prefill: to read the prompt
//   };
//
// and, where it has a use for them,
//
//     void row(std::span<const float> logits);   // behind each token of a pass that verifies, the refused ones' too; before read
//     double guess_cost() const;                 // what a level of guesses takes, in passes of the model, until it is measured
//     void expect(least_chances least);          // which guesses pay, before propose (draft_length.hpp)
//     bool chooses() const;                      // true: it proposes what pays of max_draft nodes; else `most` is what pays
//     matrix_view<const float> distributions() const;   // what the last tree's nodes were drawn from, [nodes, V]
//     void propose(history, most, tree, random_stream random);
//
// There are eagle (also EAGLE-3 and MTP), medusa, self_speculation; and, which keep something but look at the text only,
// draft_model, staged, suffix_automaton, lookahead. A guess is verified as any other: the text stays the rule's.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/draft_length.hpp>
#include <effinfer/decoding/draft_tree.hpp>
#include <effinfer/decoding/drafter.hpp>
#include <effinfer/decoding/parameter.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <utility>
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
  /// Before anything is known a guess of probability p is right with probability base + slope p.
  acceptance_estimate(float base, float slope) : base_(base), slope_(slope) {}
  /// The chance that a guess of probability p is right.
  [[nodiscard]] double chance(float p) const {
    const bin& b = bins_[index(p)];
    return (b.right + prior_weight * static_cast<double>(base_ + slope_ * p)) / (b.tried + prior_weight);
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
  float base_, slope_;
  std::array<bin, 12> bins_{};
};

/// Which guesses pay: those whose chance that they and all in front of them are right is worth a row, and which of them are worth
/// guesses behind them.
class paying_guesses {
 public:
  /// `least`: a chance below which there are no guesses, whatever pays.
  explicit paying_guesses(float least) : least_(least) {}

  void expect(least_chances least) { pays_ = least; }
  /// The chance that a guess of probability p is right; `rank`: how many guesses for its place are likelier.
  [[nodiscard]] double chance(int rank, float p) const { return rank == 0 ? first_.chance(p) : second_.chance(p); }
  /// The least chance of a path that may be worth a row behind `guesses` others, and that of several together that are worth another
  /// level of guesses.
  [[nodiscard]] double to_verify(int guesses = 0) const {
    return std::max(static_cast<double>(least_), pays_.to_verify(guesses));
  }
  [[nodiscard]] double to_guess(int guesses) const { return pays_.to_verify(guesses) + pays_.a_level; }

  /// A chain of guesses begins, one behind the other.
  void begin() {
    joint_ = 1;
    length_ = 0;
  }
  /// True if the chain's next guess, of probability p, should be verified.
  bool take(float p) {
    joint_ *= chance(0, p);
    return joint_ >= to_verify(length_++);
  }
  /// True if another guess should be made.
  [[nodiscard]] bool goes_on() const { return joint_ >= to_guess(length_); }
  /// The chance that all of the chain so far is right.
  [[nodiscard]] double joint() const { return joint_; }

  /// Of `tree`, depth first, all but the nodes that are worth their rows together are dropped. What was drawn stays.
  void propose(draft_tree& tree, bool drawn = false) {
    if (!drawn) drop_what_is_too_dear(tree);
    tree_ = tree;
  }
  /// Of that verification these rows stay (state_drafter.hpp): the nodes behind them were right or wrong.
  void learn(std::span<const int> rows) {
    if (tree_.size() == 0) return;
    std::vector<int> children(tree_.tokens.size() + 1, 0);  // so far, by row
    for (int i = 0; i < tree_.size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      const int parent = tree_.parents[at] + 1;
      const int rank = children[static_cast<std::size_t>(parent)]++;
      if (std::find(rows.begin(), rows.end(), parent) == rows.end()) continue;
      const bool right = std::find(rows.begin(), rows.end(), i + 1) != rows.end();
      (rank == 0 ? first_ : second_).learn(tree_.probability[at], right);
    }
    tree_.clear();
  }

 private:
  void drop_what_is_too_dear(draft_tree& tree) const {
    if (pays_.price.back() == 0 || tree.size() == 0) return;
    std::vector<double> joint;
    std::vector<int> children(tree.tokens.size() + 1, 0), order;  // so far, by row
    for (int i = 0; i < tree.size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      const auto row = static_cast<std::size_t>(tree.parents[at]) + 1;  // 0 behind the root
      const double above = row == 0 ? 1 : joint[row - 1];
      joint.push_back(above * chance(children[row]++, tree.probability[at]));
      order.push_back(i);
    }
    const auto of = [&](int i) { return joint[static_cast<std::size_t>(i)]; };
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return of(a) > of(b); });
    double won = 0, best = 0;
    std::size_t kept = 0;
    for (std::size_t n = 1; n <= order.size(); ++n) {
      won += of(order[n - 1]);
      const std::size_t last = pays_.price.size() - 1;
      const double price =
          n <= last ? pays_.price[n]
                    : pays_.price[last] + static_cast<double>(n - last) * (pays_.price[last] - pays_.price[last - 1]);
      if (won - price > best) best = won - price, kept = n;
    }
    if (kept == order.size()) return;
    std::vector<int> now(tree.tokens.size(), -1);
    std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept));
    draft_tree rest;
    for (std::size_t n = 0; n < kept; ++n) {  // a node is never likelier than its parent, which comes first
      const auto at = static_cast<std::size_t>(order[n]);
      now[at] = rest.size();
      rest.add(tree.tokens[at], tree.parents[at] < 0 ? -1 : now[static_cast<std::size_t>(tree.parents[at])],
               tree.probability[at]);
    }
    tree = std::move(rest);
  }

  float least_;
  least_chances pays_;
  double joint_ = 1;
  int length_ = 0;                                              // of the chain
  acceptance_estimate first_{0.4F, 0.6F}, second_{0.0F, 0.7F};  // of the likeliest guess for a place, and of the others
  draft_tree tree_;
};

}  // namespace effinfer::inline v0::decoding
