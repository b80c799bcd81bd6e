#pragma once
// Drafts without a second model: each pass gives a token behind each of its guesses, right or wrong, and those are guesses for the
// next (Jacobi iteration). What stood at neighbouring places in the last few passes is kept as n-grams, and verified where its
// first token comes up.
// Sources: Fu et al., "Break the Sequential Dependency of LLM Inference Using Lookahead Decoding" (2024), section 3; Santilli et
// al., "Accelerating Transformer Inference for Translation via Parallel Decoding" (2023). Theirs reads a window of several
// trajectories beside the n-grams; here one trajectory goes on behind the newest n-gram, and other n-grams are branches beside it.

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
  int branches = 3;      ///< n-grams that are verified at once, at most

  void validate() const {
    check_parameter(ngram >= 2 && ngram <= 64, "lookahead.ngram", ngram, "[2, 64]");
    check_parameter(branches >= 1, "lookahead.branches", branches, "[1, 2147483647]");
    check_parameter(ngrams_kept >= 1, "lookahead.ngrams_kept", ngrams_kept, "[1, 2147483647]");
  }

  template <class Session>
  class run {
   public:
    using tap = typename Session::decoder_type::tap;
    run(const lookahead& drafter, Session& session)
        : ngram_(drafter.ngram),
          ngrams_kept_(drafter.ngrams_kept),
          jacobi_(drafter.jacobi),
          branches_(drafter.branches),
          session_(&session) {}

    std::span<const tap> taps(int /*rows*/) { return {}; }
    /// The logits behind one more token of a pass, guesses that were refused among them. Greedy, whatever the rule.
    void row(std::span<const float> logits) {
      token_probability best;
      top_tokens(session_->model().execution().set(), logits, {&best, 1});
      next_.push_back(best.id);
    }
    void expect(const least_chances& least) { pays_.expect(least); }
    void read(std::span<const int> rows) {
      // Of the first branch next_[i] is the guess for place (first row) + 1 + i; those behind the tokens that stay are the new trajectory.
      const auto first = std::min(next_.size(), static_cast<std::size_t>(first_branch_) + 1), stay = rows.size();
      trajectory_.clear();
      if (stay < first)
        trajectory_.assign(next_.begin() + static_cast<std::ptrdiff_t>(stay),
                           next_.begin() + static_cast<std::ptrdiff_t>(first));
      next_.clear();
      first_branch_ = 0;
      pays_.learn(rows);
    }
    void propose(std::span<const int> history, int most, draft_tree& tree) {
      learn(history);
      int last = -1, length = 0;  // of the first branch
      const auto add = [&](int token) {
        if (tree.size() >= most) return false;
        tree.add(token, last, 1);
        last = tree.size() - 1;
        ++length;
        return true;
      };
      int token = history.back();
      for (bool more = true; more;) {
        const auto found = pool_.find(token);
        if (found == pool_.end() || found->second.empty()) break;
        for (const int next : found->second.back()) more = add(token = next);
        if (length == ngram_ - 1) add_branches(found->second, most, tree);
      }
      if (jacobi_) {
        for (auto i = static_cast<std::size_t>(length); i < trajectory_.size() && add(trajectory_[i]);) ++i;
        // The window's end is filled with anything; the iteration makes something of it.
        while (length < std::min(most, ngram_) && add(history.back())) continue;
      }
      first_branch_ = length;
      tree.sort_depth_first();
      pays_.propose(tree, true);  // what the iteration goes through needn't pay by itself
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
    /// Older n-grams for the same place, where they differ from what is there.
    void add_branches(const std::deque<std::vector<int>>& ngrams, int most, draft_tree& tree) {
      int added = 1;
      for (auto kept = ngrams.rbegin() + 1; kept < ngrams.rend() && added < branches_; ++kept) {
        int parent = -1;
        double joint = 1;
        bool differs = false;
        for (const int token : *kept) {
          int node = -1;
          for (int i = parent + 1; i < tree.size() && node < 0; ++i) {
            const auto at = static_cast<std::size_t>(i);
            if (tree.parents[at] == parent && tree.tokens[at] == token) node = i;
          }
          if (node < 0) {
            const float p = differs ? 0.9F : 0.5F / static_cast<float>(added);
            joint *= pays_.chance(differs ? 0 : 1, p);
            if (joint < pays_.to_verify(tree.size()) || tree.size() >= most) break;
            differs = true;
            node = tree.size();
            tree.add(token, parent, p);
          }
          parent = node;
        }
        added += differs ? 1 : 0;
      }
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
    int branches_;
    Session* session_;
    paying_guesses pays_{0};
    int first_branch_ = 0;   // nodes of the last tree's first branch
    std::size_t known_ = 0;  // n-grams that begin in front of it are in the pool
    std::vector<int> next_, trajectory_;
    std::unordered_map<int, std::deque<std::vector<int>>> pool_;
  };
};

static_assert(state_drafter<lookahead>);

}  // namespace effinfer::inline v0::decoding
