#pragma once
// How long the next draft should be, from how many guesses were right so far and what they cost. The costs are given, or measured
// as the text is written: then two runs may draft differently, though with sample_and_match the text is the same.
// Source: Leviathan, Kalman, Matias (2023), sections 3.3 and 3.5.

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>

namespace effinfer::inline v0::decoding {

/// The chances at which guesses pay. All 0: as many as may be.
struct least_chances {
  static constexpr int most_rows = 16;
  /// What so many guesses together must win, in tokens, to be worth their rows; those above go on by the last step.
  std::array<double, most_rows> price{};
  double a_level = 0;  ///< what another level of guesses must win besides, to be worth making it

  /// What the guess behind `guesses` others must win, where it may be the first of several that are cheaper together.
  [[nodiscard]] double to_verify(int guesses) const {
    return step[static_cast<std::size_t>(std::clamp(guesses, 0, most_rows - 2))];
  }
  /// Sets the prices: of(k), k >= 1, rises from 0 for none.
  template <class Price>
  void set_prices(const Price& of) {
    for (int k = 1; k < most_rows; ++k) price[static_cast<std::size_t>(k)] = of(k);
    for (std::size_t from = 0; from + 1 < price.size(); ++from) {
      step[from] = price[from + 1] - price[from];
      for (std::size_t to = from + 2; to < price.size(); ++to)
        step[from] = std::min(step[from], (price[to] - price[from]) / static_cast<double>(to - from));
    }
  }

  std::array<double, most_rows - 1> step{};  ///< of each number of guesses: to_verify
};

/// Math: with a the share of guesses that were right, r(k) what k more rows cost and c what a guess does, in passes of one token, k
/// guesses give (1 - a^(k+1)) / (1 - a) tokens for 1 + r(k) + c k passes; k is the one that gives most tokens a pass. While guesses
/// gain less than they cost there are none, but for a try now and then, at least 16 and at most 1024 passes apart.
class draft_length {
 public:
  /// `row_cost`: what one more row of a pass costs, in passes of one token; 0: drafts are always as long as they may be; nothing:
  /// it is measured.
  draft_length(int most, std::optional<double> row_cost) : most_(most), measured_(!row_cost) {
    if (row_cost) row_cost_ = *row_cost;
  }

  /// `guess_cost`: what the drafter thinks a guess takes, in passes too. Call once a pass.
  [[nodiscard]] int next(double guess_cost) {
    if (first_seconds_ == 0) first_cost_ = guess_cost_ = guess_cost;
    if (row_cost_ <= 0) return most_;
    // Passes of one token are measured first, and again now and then: the rest is judged by what they take.
    if (measured_ && (plain_passes_ < 2 || ++since_plain_ >= 64)) return 0;
    const double a = right_ / tried_;
    double tokens = 1, chance = 1, best = 1;
    int length = 0;
    for (int k = 1; k <= most_; ++k) {
      chance *= a;
      tokens += chance;
      const double rate = tokens / (1 + rows_cost(k) + levels_cost(k));
      if (rate > best) best = rate, length = k;
    }
    const bool pays = length > 0 && gained_ >= spent_;
    if (pays) wait_ = 16;
    if (!pays && ++idle_ < wait_) return 0;
    tries_ = !pays;
    idle_ = 0;
    return std::max(length, std::min(most_, 1));
  }

  /// A guess pays where its chance is above its cost times the tokens that a pass's time gives: these are the ones won so far
  /// (Dinkelbach 1967: the rate that is won with the rate so far as the price rises to the best there is).
  [[nodiscard]] least_chances least() const {
    least_chances least;
    if (row_cost_ <= 0) return least;
    const double rate = std::max(tokens_ / cost_, 1.0);
    least.set_prices([&](int k) { return rate * rows_cost(k); });
    least.a_level = rate * guess_cost_;
    return least;
  }
  /// False of a draft that is a try only: it should cost little.
  [[nodiscard]] bool pays() const { return !tries_; }

  /// The drafter was asked and made `guessed` guesses, at most `levels` one behind the other, `accepted` of them right.
  void learn(int guessed, int levels, int accepted) {
    right_ += accepted;
    tried_ += std::min(accepted + 1, levels);
    gained_ += accepted;
    const double spent = rows_cost(guessed) + levels_cost(levels);
    spent_ += spent;
    tokens_ += 1 + accepted;
    if (!measured_) cost_ += 1 + spent;
    if (measured_ && guessed == 0) cost_ += 1;  // a pass of one row, which `passed` doesn't count
    if (tried_ > 48) right_ /= 2, tried_ /= 2;
    if (gained_ + spent_ > 12) gained_ /= 2, spent_ /= 2;
    if (tokens_ > 64) tokens_ /= 2, cost_ /= 2;
    if (!tries_) return;
    // Tries take at most a fortieth of the time, and the less the longer they fail.
    const double took = std::max(try_seconds_ > 0 ? try_seconds_ / pass_seconds_ : 0, spent);
    if (accepted > 0) {
      idle_ = wait_ = 16;  // another one at once
    } else {
      wait_ = std::clamp(2 * wait_, static_cast<int>(40 * std::min(took, 25.0)), 1024);
    }
    tries_ = false;
    try_seconds_ = 0;
  }

  /// How long the drafter took for so many levels of guesses.
  void drafted(int levels, double seconds) {
    if (!measured_ || pass_seconds_ == 0) return;
    cost_ += seconds / pass_seconds_;
    if (tries_) try_seconds_ = seconds;
    // With the first level the drafter reads what was accepted; and after a pause what it missed, which tells nothing of its next time.
    if (levels <= 1) {
      if (!tries_ || first_seconds_ == 0 || seconds < first_seconds_) follow(first_seconds_, seconds);
    } else if (!tries_) {
      const double first = first_seconds_ > 0 ? first_seconds_ : seconds / levels;
      follow(guess_seconds_, std::max(seconds - first, 0.0) / (levels - 1));
      first_seconds_ = std::min(first, seconds);
    }
    if (first_seconds_ > 0) first_cost_ = first_seconds_ / pass_seconds_;
    guess_cost_ = guess_seconds_ > 0 ? guess_seconds_ / pass_seconds_ : first_cost_;
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
      cost_ += seconds / pass_seconds_;
      follow(row_seconds_, std::max(seconds - pass_seconds_, 0.0) / (rows - 1));
      row_cost_ = std::clamp(row_seconds_ / pass_seconds_, 1e-3, 1.0);
      if (rows > least_chances::most_rows) return;
      follow(rows_seconds_[static_cast<std::size_t>(rows - 1)], std::max(seconds - pass_seconds_, 0.0));
    }
  }

 private:
  [[nodiscard]] double levels_cost(int levels) const { return first_cost_ + guess_cost_ * std::max(levels - 1, 0); }
  /// What so many rows more than one cost, in passes. Products take rows in blocks, so that some cost next to nothing and the next one
  /// much: each number of rows has its own time, those not seen yet the mean of a row beyond the last one that was.
  [[nodiscard]] double rows_cost(int rows) const {
    if (!measured_ || pass_seconds_ == 0) return row_cost_ * rows;
    double below = 0;  // of the greatest number seen, not above `rows`
    int seen = 0;
    for (int n = 1; n < least_chances::most_rows; ++n) {
      const double seconds = rows_seconds_[static_cast<std::size_t>(n)];
      if (seconds == 0) continue;
      const double cost = std::max(seconds / pass_seconds_, below);
      if (n >= rows) return below + (cost - below) * (rows - seen) / (n - seen);
      below = cost;
      seen = n;
    }
    return below + row_cost_ * (rows - seen);
  }

  /// A mean of the last few values; those that something else on the machine made long count little.
  static void follow(double& mean, double value) {
    mean = mean == 0 ? value : mean + 0.2 * (std::min(value, 1.5 * mean) - mean);
  }

  int most_;
  bool measured_;
  double row_cost_ = 0.15, first_cost_ = 0, guess_cost_ = 0;
  double right_ = 1.5, tried_ = 2.5, gained_ = 2, spent_ = 0.5;  // before anything is known
  double tokens_ = 1, cost_ = 1;
  std::array<double, least_chances::most_rows> rows_seconds_{};  // by rows beyond the first: above a pass of one
  double pass_seconds_ = 0, row_seconds_ = 0, first_seconds_ = 0, guess_seconds_ = 0, try_seconds_ = 0;
  bool tries_ = false;  // this draft isn't one that should pay
  int idle_ = 0, wait_ = 16, plain_passes_ = 0, since_plain_ = 0;
};

}  // namespace effinfer::inline v0::decoding
