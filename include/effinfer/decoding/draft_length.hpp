#pragma once
// How long the next draft should be, from how many guesses were right so far and what they cost. The costs are given, or measured
// as the text is written: then two runs may draft differently, though with sample_and_match the text is the same.
// Source: Leviathan, Kalman, Matias (2023), sections 3.3 and 3.5.

#include <algorithm>
#include <optional>

namespace effinfer::inline v0::decoding {

/// The least chance that all guesses so far hold at which one more pays. Both 0: as many as may be.
struct least_chances {
  double to_verify = 0;  ///< a guess that has been made
  double to_guess = 0;   ///< another guess
};

/// Math: with a the share of guesses that were right and c what one costs, in passes of one token, k guesses give
/// (1 - a^(k+1)) / (1 - a) tokens for 1 + c k passes; k is the one that gives most tokens a pass. While guesses gain less than they
/// cost there are none, but for a try after 16, 32, 64 ... and then every 1024 passes.
class draft_length {
 public:
  /// `row_cost`: what one more row of a pass costs, in passes of one token; 0: drafts are always as long as they may be; nothing:
  /// it is measured.
  draft_length(int most, std::optional<double> row_cost) : most_(most), measured_(!row_cost) {
    if (row_cost) row_cost_ = *row_cost;
  }

  /// `guess_cost`: what the drafter thinks a guess takes, in passes too. Call once a pass.
  [[nodiscard]] int next(double guess_cost) {
    if (guess_seconds_ == 0) guess_cost_ = guess_cost;
    if (row_cost_ <= 0) return most_;
    // Passes of one token are measured first, and again now and then: the rest is judged by what they take.
    if (measured_ && (plain_passes_ < 2 || ++since_plain_ >= 32)) return 0;
    const double a = right_ / tried_, c = row_cost_ + guess_cost_;
    double tokens = 1, chance = 1;
    int length = 0;
    rate_ = 1;
    for (int k = 1; k <= most_; ++k) {
      chance *= a;
      tokens += chance;
      const double rate = tokens / (1 + c * k);
      if (rate <= rate_ && k > 1) break;  // it rises up to one point and falls from there
      if (rate > rate_) rate_ = rate, length = k;
    }
    const bool pays = length > 0 && gained_ >= spent_;
    if (pays) wait_ = 16;
    if (!pays && ++idle_ < wait_) return 0;
    if (!pays) wait_ = std::min(2 * wait_, 1024);
    idle_ = 0;
    return std::max(length, std::min(most_, 1));
  }

  [[nodiscard]] least_chances least() const {
    if (row_cost_ <= 0) return {};
    return {row_cost_ * rate_, (row_cost_ + guess_cost_) * rate_};
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

  /// How long the drafter took for so many guesses.
  void drafted(int guesses, double seconds) {
    if (!measured_ || pass_seconds_ == 0) return;
    follow(guess_seconds_, seconds / std::max(guesses, 1));
    guess_cost_ = guess_seconds_ / pass_seconds_;
  }
  /// How long a pass of so many rows took.
  void passed(int rows, double seconds) {
    if (!measured_) return;
    if (rows == 1) {
      since_plain_ = 0;
      if (++plain_passes_ <= 2) {  // the first ones may find cold memory
        pass_seconds_ = plain_passes_ == 1 ? seconds : std::min(pass_seconds_, seconds);
      } else {
        follow(pass_seconds_, seconds);
      }
    } else if (pass_seconds_ > 0) {
      pass_seconds_ = std::min(pass_seconds_, seconds);  // more rows never take less
      follow(row_seconds_, std::max(seconds - pass_seconds_, 0.0) / (rows - 1));
      row_cost_ = std::clamp(row_seconds_ / pass_seconds_, 1e-3, 1.0);
    }
  }

 private:
  /// A mean of the last few values; those that something else on the machine made long count little.
  static void follow(double& mean, double value) {
    mean = mean == 0 ? value : mean + 0.2 * (std::min(value, 1.5 * mean) - mean);
  }

  int most_;
  bool measured_;
  double row_cost_ = 0.15, guess_cost_ = 0, rate_ = 1;
  double right_ = 1.5, tried_ = 2.5, gained_ = 1, spent_ = 0.5;  // before anything is known
  double pass_seconds_ = 0, row_seconds_ = 0, guess_seconds_ = 0;
  int idle_ = 0, wait_ = 16, plain_passes_ = 0, since_plain_ = 0;
};

}  // namespace effinfer::inline v0::decoding
