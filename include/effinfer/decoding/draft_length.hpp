#pragma once
// How long the next draft should be, from how many guesses were right so far and what they cost. Counts and a given cost, no
// clock: the same run drafts the same way each time.
// Source: Leviathan, Kalman, Matias (2023), sections 3.3 and 3.5, with the acceptance measured as the text is written.

#include <algorithm>

namespace effinfer::inline v0::decoding {

/// Math: with a the share of guesses that were right and c what one costs, in passes of one token, k guesses give
/// (1 - a^(k+1)) / (1 - a) tokens for 1 + c k passes; k is the one that gives most tokens a pass. While guesses have lately gained less
/// than they cost there are none, but for a try after 8, 16, 32 and then every 64 passes.
class draft_length {
 public:
  /// `row_cost`: what one more row of a pass costs; 0: drafts are always as long as they may be.
  draft_length(int most, double row_cost) : most_(most), row_cost_(row_cost) {}

  /// `guess_cost`: what the drafter takes for a guess, in passes too. Call once a pass.
  [[nodiscard]] int next(double guess_cost) {
    guess_cost_ = guess_cost;
    if (row_cost_ <= 0) return most_;
    if (gained_ < spent_ && ++idle_ < wait_) return 0;
    if (gained_ < spent_) {
      idle_ = 0;
      wait_ = std::min(2 * wait_, 64);
    } else {
      wait_ = 8;
    }
    const double a = right_ / tried_, c = row_cost_ + guess_cost_;
    double tokens = 1, chance = 1, best = 0;
    int length = 0;
    for (int k = 1; k <= most_; ++k) {
      chance *= a;
      tokens += chance;
      const double rate = tokens / (1 + c * k);
      if (rate <= best) break;  // it rises up to one point and falls from there
      best = rate;
      length = k;
    }
    return length;
  }

  /// The drafter was asked and made `guessed` guesses, `accepted` of them right.
  void learn(int guessed, int accepted) {
    right_ += accepted;
    tried_ += std::min(accepted + 1, guessed);
    gained_ += accepted;
    spent_ += row_cost_ * guessed + guess_cost_ * std::max(guessed, 1);
    if (tried_ > 48) right_ /= 2, tried_ /= 2;
    if (gained_ + spent_ > 12) gained_ /= 2, spent_ /= 2;
  }

 private:
  int most_;
  double row_cost_, guess_cost_ = 0;
  double right_ = 3, tried_ = 4, gained_ = 2, spent_ = 1;  // before anything is known
  int idle_ = 0, wait_ = 8;
};

}  // namespace effinfer::inline v0::decoding
