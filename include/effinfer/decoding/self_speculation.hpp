#pragma once
// The model drafts for itself with some of its layers: its first few (LayerSkip) or all but some (Draft & Verify). They share its
// keys and values; what the draft wrote is taken back before the whole model reads the guesses.
// Sources: Elhoushi et al., "LayerSkip" (2024), section 4.3; Zhang et al., "Draft & Verify" (2023), section 3.

#include <effinfer/decoding/state_drafter.hpp>
#include <effinfer/decoding/top_tokens.hpp>
#include <effinfer/models/exit_maps.hpp>

#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Example: speculative<self_speculation>{.drafter = {.layers = {{0, 8}}}}: the first eight layers;
/// {.layers = {{0, 6}, {9, 12}}} skips three of twelve.
struct self_speculation {
  static constexpr bool reads_states = true;
  std::vector<std::pair<int, int>> layers = {{0, 1}};  ///< [first, last) ranges that rise; those that draft
  /// Where the draft ends inside the model: what makes its states ones to predict from. Null: the state as it is.
  std::shared_ptr<const models::exit_maps> maps = nullptr;
  float least_chance = 0;  ///< no further guess where the chance that all hold is below, even if it paid

  void validate() const {
    int done = 0;
    for (const auto& [first, last] : layers) {
      check_parameter(first >= done && last > first, "self_speculation.layers", first,
                      "ranges [first, last) that rise");
      done = last;
    }
    check_parameter(!layers.empty(), "self_speculation.layers", 0, "at least one range");
    check_parameter(least_chance >= 0 && least_chance <= 1, "self_speculation.least_chance", least_chance, "[0, 1]");
  }

  template <class Session>
  class run {
   public:
    using tap = typename Session::decoder_type::tap;
    run(const self_speculation& drafter, Session& session)
        : layers_(drafter.layers), maps_(drafter.maps), session_(&session), pays_(drafter.least_chance) {}

    std::span<const tap> taps(int /*rows*/) { return {}; }
    void expect(const least_chances& least) { pays_.expect(least); }
    [[nodiscard]] bool chooses() const { return true; }
    void read(std::span<const int> rows) { pays_.learn(rows); }
    [[nodiscard]] double guess_cost() const {
      int used = 0;
      for (const auto& [first, last] : layers_) used += last - first;
      return static_cast<double>(used) / session_->model().config().layers;
    }
    void propose(std::span<const int> history, int most, draft_tree& tree) {
      if (most < 1) return;
      const int base = session_->position(), depth = layers_.back().second;
      int token = history.back();
      session_->mark();
      pays_.begin();
      for (int i = 0; i < most; ++i) {
        session_->append_through(std::span(&token, 1), layers_);
        token_probability best;
        top_tokens(session_->model().execution().set(),
                   maps_ == nullptr ? session_->logits(0) : session_->logits(*maps_, depth, 0), {&best, 1});
        if (!pays_.take(best.probability)) break;
        tree.add(token = best.id, i - 1, best.probability);
        if (!pays_.goes_on()) break;
      }
      session_->rollback(base);
      pays_.propose(tree);
    }

   private:
    std::vector<std::pair<int, int>> layers_;
    std::shared_ptr<const models::exit_maps> maps_;
    Session* session_;
    paying_guesses pays_;
  };
};

static_assert(state_drafter<self_speculation>);

}  // namespace effinfer::inline v0::decoding
