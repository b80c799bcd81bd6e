// The attention policies on their own: what their hooks say, and how softmax<...> chains them.

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/grouped_query.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sinks.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/attention/softmax.hpp>
#include <effinfer/attention/streaming_window.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

namespace policies_tests {

using namespace effinfer;
using namespace effinfer::attention;

namespace {
constexpr position at(int query, int key, int head = 0) { return {query, key, head, 0, 0}; }

template <class F>
error_code thrown(const F& f) {
  try {
    f();
  } catch (const error& e) {
    return e.code();
  }
  return error_code::io;
}
}  // namespace

TEST_CASE("a window counts the token itself") {
  constexpr sliding_window<3> three;
  static_assert(three.visible(at(10, 10)) && three.visible(at(10, 8)) && !three.visible(at(10, 7)));
  static_assert(three.keys(10, 11) == key_range{8, 11} && three.keys(1, 2) == key_range{0, 2});
  static_assert(three.all_visible({10, 11, 8, 11}) && !three.all_visible({10, 12, 8, 11}));
  static_assert(sizeof(three) == 1);
  const sliding_window<> same{.window = 3};
  for (int q = 0; q < 20; ++q) {
    CHECK(same.keys(q, q + 1) == three.keys(q, q + 1));
    for (int k = 0; k <= q; ++k) CHECK(same.visible(at(q, k)) == three.visible(at(q, k)));
  }
  // As wide as numbers go: a layer without a window.
  const sliding_window<> all{.window = std::numeric_limits<int>::max()};
  CHECK(all.visible(at(1 << 30, 0)));
  CHECK(all.keys(1 << 30, 1 << 30) == key_range{0, 1 << 30});
}

TEST_CASE("parameters out of range are refused, also inside a chain") {
  CHECK(thrown([] { sliding_window<>{.window = 0}.validate(); }) == error_code::invalid_argument);
  CHECK(thrown([] { soft_cap{.cap = 0.0f}.validate(); }) == error_code::invalid_argument);
  CHECK(thrown([] { soft_cap{.cap = NAN}.validate(); }) == error_code::invalid_argument);
  CHECK(thrown([] { streaming_window{.first = -1, .window = 4}.validate(); }) == error_code::invalid_argument);
  CHECK(thrown([] {
          softmax<soft_cap, sliding_window<>>{{}, {.window = -3}}.validate();
        }) == error_code::invalid_argument);
  softmax<soft_cap, sliding_window<>>{{}, {.window = 1}}.validate();
}

TEST_CASE("ALiBi's slopes are the paper's, also for head counts that are no power of two") {
  CHECK(alibi_slopes(8) ==
        std::vector<float>{0.5f, 0.25f, 0.125f, 0.0625f, 0.03125f, 0.015625f, 0.0078125f, 0.00390625f});
  CHECK(alibi_slopes(1) == std::vector<float>{0.00390625f});
  const auto twelve = alibi_slopes(12);
  REQUIRE(twelve.size() == 12);
  for (int i = 0; i < 8; ++i)
    CHECK(twelve[static_cast<std::size_t>(i)] == alibi_slopes(8)[static_cast<std::size_t>(i)]);
  for (int i = 0; i < 4; ++i) CHECK(twelve[static_cast<std::size_t>(8 + i)] == doctest::Approx(std::exp2(-0.5 - i)));
  const auto slopes = alibi_slopes(8);
  CHECK(alibi{.slopes = slopes.data()}.score(3.0f, at(10, 4, 1)) == 3.0f - 0.25f * 6);
}

TEST_CASE("the soft cap bends, and hardly touches small scores") {
  const soft_cap cap{.cap = 20.0f};
  CHECK(cap.score(0.01f, at(1, 0)) == doctest::Approx(0.01).epsilon(1e-5));
  CHECK(cap.score(20.0f, at(1, 0)) == doctest::Approx(20 * std::tanh(1.0)));
  CHECK(cap.score(1e6f, at(1, 0)) == 20.0f);
}

TEST_CASE("a chain: scores in order, visible if all say so, the keys that all visit, starts together") {
  const std::vector<float> slopes{1.0f}, sink{2.0f}, other{3.0f};
  const softmax<soft_cap, alibi> cap_first{{.cap = 10.0f}, {.slopes = slopes.data()}};
  const softmax<alibi, soft_cap> alibi_first{{.slopes = slopes.data()}, {.cap = 10.0f}};
  CHECK(cap_first.score(50.0f, at(5, 0)) == doctest::Approx(10 * std::tanh(5.0) - 5));
  CHECK(alibi_first.score(50.0f, at(5, 0)) == doctest::Approx(10 * std::tanh(4.5)));
  CHECK(cap_first.get<alibi>().slopes == slopes.data());

  const softmax<sliding_window<8>, sliding_window<>> windows{{}, {.window = 3}};
  CHECK(windows.visible(at(9, 7)));
  CHECK_FALSE(windows.visible(at(9, 6)));
  CHECK(windows.keys(9, 10) == key_range{7, 10});
  CHECK(windows.all_visible({9, 10, 7, 10}));
  CHECK_FALSE(windows.all_visible({9, 10, 6, 10}));

  CHECK(full{}.start(0).sum == 0.0f);
  const softmax<sinks, alibi, sinks> two{{.logits = sink.data()}, {.slopes = slopes.data()}, {.logits = other.data()}};
  CHECK(two.start(0).max == 3.0f);
  CHECK(two.start(0).sum == doctest::Approx(1 + std::exp(-1.0)));

  static_assert(!full::changes_scores && !full::hides_keys);
  static_assert(softmax<alibi>::changes_scores && !softmax<alibi>::hides_keys);
  static_assert(!softmax<sliding_window<4>>::changes_scores && softmax<sliding_window<4>>::hides_keys);
  static_assert(std::is_trivially_copyable_v<softmax<sliding_window<>, alibi, sinks>>);
}

namespace {
struct misspelt : no_hooks {
  bool visable(position) const { return false; }
};
struct without_slot {
  float score(float s, position) const { return s; }
  bool visible(position) const { return true; }
  key_range keys(int, int cached) const { return {0, cached}; }
};
struct through_a_base : sliding_window<4> {};
struct holds_memory : no_hooks {
  std::vector<float> bias;
  float score(float s, position) const { return s; }
};
}  // namespace

TEST_CASE("the concept takes whole policies only") {
  static_assert(attention_variant<through_a_base>);
  static_assert(!attention_variant<misspelt> && !attention_variant<without_slot> && !attention_variant<holds_memory>);
  static_assert(!attention_variant<no_hooks> && !attention_variant<full> && !attention_variant<int>);
  static_assert(std::is_same_v<multi_head<8>, grouped_query<8, 8>> &&
                std::is_same_v<multi_query<8>, grouped_query<8, 1>>);
  static_assert(policy_of<full, slot::attention> && policy_of<linear<>, slot::attention>);
}

}  // namespace policies_tests
