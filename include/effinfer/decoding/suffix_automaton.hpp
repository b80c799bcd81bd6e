#pragma once
// Drafts by copying, with the longest suffix that came up before, in this text or in texts of former times, at a cost that doesn't
// grow with them. Sources: as output_store.hpp.

#include <effinfer/decoding/output_store.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/state_drafter.hpp>
#include <effinfer/decoding/token_automaton.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace effinfer::inline v0::decoding {

/// What followed the longest suffix of the text that stands in it earlier, its first place; or, where its suffix in `past` is longer,
/// what most often followed there, token for token.
///
/// Cost: O(1) amortised a token of the text. Example: speculative<suffix_automaton>{.drafter = {.past = store}}
struct suffix_automaton {
  static constexpr bool reads_states = true;
  std::shared_ptr<const output_store> past = nullptr;
  int shortest_match = 2;    ///< suffixes of fewer tokens are not used
  float least_chance = 0;    ///< no further guess where the chance that all hold is below, even if it paid
  float least_share = 0.3F;  ///< of `past`: no further token where the likeliest followed less often than this

  void validate() const {
    check_parameter(shortest_match >= 1, "suffix_automaton.shortest_match", shortest_match, "[1, 2147483647]");
    check_parameter(least_chance >= 0 && least_chance <= 1, "suffix_automaton.least_chance", least_chance, "[0, 1]");
    check_parameter(least_share >= 0 && least_share <= 1, "suffix_automaton.least_share", least_share, "[0, 1]");
  }

  template <class Session>
  class run {
   public:
    using tap = typename Session::decoder_type::tap;
    run(const suffix_automaton& drafter, Session& /*session*/)
        : past_(drafter.past),
          shortest_match_(drafter.shortest_match),
          least_share_(drafter.least_share),
          pays_(drafter.least_chance) {}

    std::span<const tap> taps(int /*rows*/) { return {}; }
    void expect(const least_chances& least) { pays_.expect(least); }
    [[nodiscard]] bool chooses() const { return true; }
    void read(std::span<const int> rows) { pays_.learn(rows); }
    void propose(std::span<const int> history, int most, draft_tree& tree) {
      for (auto i = static_cast<std::size_t>(text_.size()); i < history.size(); ++i) {
        text_.push_back(history[i]);
        if (past_ != nullptr) past_->automaton().walk(in_past_, past_length_, history[i]);
      }
      copy(history, most, tree);
      pays_.propose(tree);
    }

   private:
    void copy(std::span<const int> history, int most, draft_tree& tree) {
      pays_.begin();
      const token_automaton::state& match = text_.states()[static_cast<std::size_t>(text_.repeated())];
      if (std::max(match.length, past_length_) < shortest_match_) return;
      if (past_length_ > match.length) {
        int state = in_past_;
        float share = 0;
        while (tree.size() < most) {
          const int token = past_->follow(state, share);
          if (token == output_store::separator || share < least_share_ || !pays_.take(share)) return;
          tree.add(token, tree.size() - 1, share);
        }
        return;
      }
      const std::size_t size = history.size();  // as in LZ77: a copy may go on in itself
      for (auto i = static_cast<std::size_t>(match.end); tree.size() < most; ++i) {
        const float p = confidence(match.length + tree.size());
        if (!pays_.take(p)) return;
        tree.add(i < size ? history[i] : tree.tokens[i - size], tree.size() - 1, p);
      }
    }

    /// The longer the match, the likelier that it goes on: how likely is learned for each of the estimate's bins.
    static float confidence(int match) { return static_cast<float>(match) / static_cast<float>(match + 2); }

    std::shared_ptr<const output_store> past_;
    int shortest_match_;
    float least_share_;
    token_automaton text_;
    paying_guesses pays_;
    int in_past_ = 0, past_length_ = 0;
  };
};

static_assert(state_drafter<suffix_automaton>);

}  // namespace effinfer::inline v0::decoding
