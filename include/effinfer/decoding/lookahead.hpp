#pragma once
// Drafts without a second model: each pass gives a token behind each of its guesses, right or wrong, and those are guesses for the
// next (Jacobi iteration). What stood at neighbouring places in the last few passes is kept as n-grams, and verified where its
// first token comes up.
// Sources: Fu et al., "Break the Sequential Dependency of LLM Inference Using Lookahead Decoding" (2024), section 3; Santilli et
// al., "Accelerating Transformer Inference for Translation via Parallel Decoding" (2023). Theirs reads a window of several
// trajectories and the n-grams side by side under a mask of its own; here both share one chain, an n-gram in front.

#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/state_drafter.hpp>
#include <effinfer/decoding/top_tokens.hpp>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Example: speculative<lookahead>{.drafter = {.ngram = 4}, .max_draft = 6}
struct lookahead {
  static constexpr bool reads_states = true;
  int ngram = 4;         ///< tokens of an n-gram of the pool
  int ngrams_kept = 16;  ///< for each first token; the oldest goes
  bool jacobi = true;    ///< go on with the last pass's guesses where the pool ends; false: verify n-grams only

  void validate() const {
    check_parameter(ngram >= 2 && ngram <= 64, "lookahead.ngram", ngram, "[2, 64]");
    check_parameter(ngrams_kept >= 1, "lookahead.ngrams_kept", ngrams_kept, "[1, 2147483647]");
  }

  template <class Session>
  class run {
   public:
    using tap = typename Session::decoder_type::tap;
    run(const lookahead& drafter, Session& session)
        : ngram_(drafter.ngram), ngrams_kept_(drafter.ngrams_kept), jacobi_(drafter.jacobi), session_(&session) {}

    std::span<const tap> taps(int /*rows*/) { return {}; }
    /// The logits behind one more token of a pass, guesses that were refused among them. Greedy, whatever the rule.
    void row(std::span<const float> logits) {
      token_probability best;
      top_tokens(session_->model().execution().set(), logits, {&best, 1});
      next_.push_back(best.id);
    }
    void read(int rows, int /*accepted*/) {
      // next_[i] is now the guess for place (first row) + 1 + i; those behind the accepted rows are the new trajectory.
      const auto stay = std::min(static_cast<std::size_t>(rows), next_.size());
      trajectory_.assign(next_.begin() + static_cast<std::ptrdiff_t>(stay), next_.end());
      next_.clear();
    }
    void propose(std::span<const int> history, int most, std::vector<int>& guesses) {
      learn(history);
      int token = history.back();
      while (static_cast<int>(guesses.size()) < most) {
        const auto found = pool_.find(token);
        if (found == pool_.end() || found->second.empty()) break;
        for (const int next : found->second.back()) {
          if (static_cast<int>(guesses.size()) == most) return;
          guesses.push_back(token = next);
        }
      }
      if (!jacobi_) return;
      for (auto i = guesses.size(); i < trajectory_.size() && static_cast<int>(guesses.size()) < most; ++i)
        guesses.push_back(trajectory_[i]);
      // The window's end is filled with anything; the iteration makes something of it.
      while (static_cast<int>(guesses.size()) < std::min(most, ngram_)) guesses.push_back(history.back());
    }

   private:
    /// N-grams from the text and, behind it, the trajectory.
    void learn(std::span<const int> history) {
      const auto n = static_cast<std::size_t>(ngram_);
      for (std::size_t i = known_; i + n <= history.size(); ++i) keep(history.subspan(i, n));
      known_ = history.size() + 1 > n ? history.size() + 1 - n : 0;
      if (trajectory_.size() < n) return;
      for (std::size_t i = 0; i + n <= trajectory_.size(); ++i) keep(std::span<const int>(trajectory_).subspan(i, n));
    }
    void keep(std::span<const int> tokens) {
      std::deque<std::vector<int>>& kept = pool_[tokens[0]];
      std::vector<int> rest(tokens.begin() + 1, tokens.end());
      const auto same = std::find(kept.begin(), kept.end(), rest);
      if (same != kept.end()) kept.erase(same);
      kept.push_back(std::move(rest));
      if (static_cast<int>(kept.size()) > ngrams_kept_) kept.pop_front();
    }

    int ngram_, ngrams_kept_;
    bool jacobi_;
    Session* session_;
    std::size_t known_ = 0;  // n-grams that begin in front of it are in the pool
    std::vector<int> next_, trajectory_;
    std::unordered_map<int, std::deque<std::vector<int>>> pool_;
  };
};

static_assert(state_drafter<lookahead>);

}  // namespace effinfer::inline v0::decoding
