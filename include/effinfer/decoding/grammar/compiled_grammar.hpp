#pragma once
// A grammar made ready for a vocabulary: the automaton, and the token masks of its states, each made when it is first asked for.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/grammar/automaton.hpp>
#include <effinfer/decoding/grammar/expression.hpp>
#include <effinfer/decoding/grammar/state_mask.hpp>
#include <effinfer/decoding/grammar/token_vocabulary.hpp>

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// Shared by any number of matchers in any number of threads.
///
/// Memory: at most vocabulary / 8 bytes a state whose mask was asked for, and 4 for each byte left over at the end of a rule.
class compiled_grammar {
 public:
  /// Errors: `malformed` (no text matches, left recursion ...), `limit`, `invalid_argument` (no vocabulary).
  compiled_grammar(const rule_set& rules, std::shared_ptr<const token_vocabulary> vocabulary)
      : vocabulary_(std::move(vocabulary)), automaton_(rules), masks_(automaton_.size()) {
    if (!vocabulary_) {
      throw error(error_code::invalid_argument, "grammar: vocabulary", "it is null", "see grammar::vocabulary_of");
    }
  }
  ~compiled_grammar() {
    for (auto& mask : masks_) delete mask.load(std::memory_order_relaxed);
  }
  compiled_grammar(const compiled_grammar&) = delete;
  compiled_grammar& operator=(const compiled_grammar&) = delete;

  [[nodiscard]] const pushdown_automaton& automaton() const { return automaton_; }
  [[nodiscard]] const token_vocabulary& vocabulary() const { return *vocabulary_; }

  /// The mask of a state; the first call for it takes up to some milliseconds.
  [[nodiscard]] const state_mask& mask(index state) const {
    std::atomic<const state_mask*>& place = masks_[state];
    if (const state_mask* known = place.load(std::memory_order_acquire)) return *known;
    auto made = std::make_unique<const state_mask>(make_state_mask(automaton_, *vocabulary_, state));
    const state_mask* first = nullptr;
    // Of two threads that make the same mask one wins; they made the same.
    if (place.compare_exchange_strong(first, made.get(), std::memory_order_acq_rel)) return *made.release();
    return *first;
  }

  /// Makes all masks now, so that no token waits for one.
  void prepare() const {
    for (index s = 0; s < automaton_.size(); ++s) static_cast<void>(mask(s));
  }

  /// Bytes that the masks made so far take.
  [[nodiscard]] std::size_t mask_bytes() const {
    std::size_t sum = 0;
    for (const auto& mask : masks_) {
      if (const state_mask* made = mask.load(std::memory_order_acquire)) sum += made->bytes();
    }
    return sum;
  }

 private:
  std::shared_ptr<const token_vocabulary> vocabulary_;
  pushdown_automaton automaton_;
  mutable std::vector<std::atomic<const state_mask*>> masks_;
};

}  // namespace effinfer::inline v0::decoding::grammar
