#pragma once
// A drafter that is chosen at run time, among some that the type names: what a command line or a server needs.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/core/random.hpp>
#include <effinfer/decoding/draft_tree.hpp>
#include <effinfer/decoding/drafter.hpp>
#include <effinfer/decoding/state_drafter.hpp>

#include <span>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace effinfer::inline v0::decoding {

namespace detail {
/// What a drafter without memory needs to stand beside those with some.
template <class Drafter, class Session>
class token_run {
 public:
  token_run(const Drafter& drafter, Session& /*session*/) : drafter_(drafter) {}
  std::span<const typename Session::decoder_type::tap> taps(int /*rows*/) { return {}; }
  void read(std::span<const int> /*rows*/) {}
  void propose(std::span<const int> history, int most, draft_tree& tree) {
    tree = draft_tree::chain(drafter_.propose(history, most));
  }

 private:
  Drafter drafter_;
};

template <class Drafter, class Session>
auto run_of() {
  if constexpr (state_drafter<Drafter>) {
    return std::type_identity<typename Drafter::template run<Session>>();
  } else {
    return std::type_identity<token_run<Drafter, Session>>();
  }
}
}  // namespace detail

/// One of `Drafters`, the first if nothing is said.
///
/// Example: speculative<either<prompt_lookup<3>, eagle>>{.drafter = {eagle{.network = network}}}
template <class... Drafters>
struct either {
  static constexpr bool reads_states = true;
  std::variant<Drafters...> chosen = {};

  void validate() const {
    std::visit([](const auto& drafter) { drafter.validate(); }, chosen);
  }

  template <class Session>
  class run {
   public:
    using tap = typename Session::decoder_type::tap;
    run(const either& drafter, Session& session)
        : run_(std::visit(
              [&](const auto& one) {
                using chosen_run =
                    typename decltype(detail::run_of<std::remove_cvref_t<decltype(one)>, Session>())::type;
                return any(std::in_place_type<chosen_run>, one, session);
              },
              drafter.chosen)) {}

    std::span<const tap> taps(int rows) {
      return std::visit([&](auto& r) -> std::span<const tap> { return r.taps(rows); }, run_);
    }
    void row(std::span<const float> logits) {
      std::visit(
          [&](auto& r) {
            if constexpr (requires { r.row(logits); }) r.row(logits);
          },
          run_);
    }
    void read(std::span<const int> rows) {
      std::visit([&](auto& r) { r.read(rows); }, run_);
    }
    [[nodiscard]] bool chooses() const {
      return std::visit(
          [](const auto& r) {
            if constexpr (requires { r.chooses(); }) return r.chooses();
            return false;
          },
          run_);
    }
    void expect(const least_chances& least) {
      std::visit(
          [&](auto& r) {
            if constexpr (requires { r.expect(least); }) r.expect(least);
          },
          run_);
    }
    [[nodiscard]] double guess_cost() const {
      return std::visit(
          [](const auto& r) {
            if constexpr (requires { r.guess_cost(); }) return r.guess_cost();
            return 0.0;
          },
          run_);
    }
    [[nodiscard]] matrix_view<const float> distributions() const {
      return std::visit(
          [](const auto& r) -> matrix_view<const float> {
            if constexpr (requires { r.distributions(); }) return r.distributions();
            return {};
          },
          run_);
    }
    void propose(std::span<const int> history, int most, draft_tree& tree, random_stream random) {
      std::visit(
          [&](auto& r) {
            if constexpr (requires { r.propose(history, most, tree, random); }) {
              r.propose(history, most, tree, random);
            } else {
              r.propose(history, most, tree);
            }
          },
          run_);
    }

   private:
    using any = std::variant<typename decltype(detail::run_of<Drafters, Session>())::type...>;
    any run_;
  };
};

}  // namespace effinfer::inline v0::decoding
