#pragma once
// Two drafters, the second for where the first has nothing: what costs nothing to guess goes first.
// Source: Hu et al., "SAM Decoding: Speculative Decoding via Suffix Automaton" (2024), section 3.3.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/core/random.hpp>
#include <effinfer/decoding/either.hpp>
#include <effinfer/decoding/state_drafter.hpp>

#include <span>
#include <vector>

namespace effinfer::inline v0::decoding {

/// The guesses of `First`; where it makes none, those of `Second`. Only `Second` may look into the model or draw its guesses.
///
/// Example: speculative<otherwise<suffix_automaton, eagle>>{.drafter = {.second = {.network = network}}}
template <class First, class Second>
struct otherwise {
  static constexpr bool reads_states = true;
  First first = {};
  Second second = {};

  void validate() const {
    first.validate();
    second.validate();
  }

  template <class Session>
  class run {
   public:
    using tap = typename Session::decoder_type::tap;
    run(const otherwise& drafter, Session& session)
        : first_(drafter.first, session), second_(drafter.second, session) {}

    std::span<const tap> taps(int rows) { return second_.taps(rows); }
    void row(std::span<const float> logits) {
      if constexpr (requires { second_.row(logits); }) second_.row(logits);
    }
    void read(std::span<const int> rows) {
      first_.read(rows);
      second_.read(rows);
      from_first_ = false;
    }
    void expect(const least_chances& least) {
      if constexpr (requires { first_.expect(least); }) {
        least_chances free = least;
        free.a_level = 0;
        first_.expect(free);
      }
      if constexpr (requires { second_.expect(least); }) second_.expect(least);
    }
    [[nodiscard]] bool chooses() const {
      return requires { first_.chooses(); }
      &&requires { second_.chooses(); };
    }
    [[nodiscard]] double guess_cost() const {
      if constexpr (requires { second_.guess_cost(); }) return second_.guess_cost();
      return 0;
    }
    [[nodiscard]] matrix_view<const float> distributions() const {
      if constexpr (requires { second_.distributions(); }) {
        if (!from_first_) return second_.distributions();
      }
      return {};
    }
    void propose(std::span<const int> history, int most, draft_tree& tree, random_stream random) {
      first_.propose(history, most, tree);
      from_first_ = tree.size() > 0;
      if (from_first_) return;
      if constexpr (requires { second_.propose(history, most, tree, random); }) {
        second_.propose(history, most, tree, random);
      } else {
        second_.propose(history, most, tree);
      }
    }

   private:
    typename decltype(detail::run_of<First, Session>())::type first_;
    typename decltype(detail::run_of<Second, Session>())::type second_;
    bool from_first_ = false;
  };
};

}  // namespace effinfer::inline v0::decoding
