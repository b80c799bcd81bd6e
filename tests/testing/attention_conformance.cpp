// testing/attention_conformance.hpp: every shipped policy passes, a user's passes, and planted bugs are found.

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/sinks.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/attention/streaming_window.hpp>
#include <effinfer/testing/attention_conformance.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

namespace attention_conformance_tests {

using namespace effinfer;
using attention::position;
using testing::check_attention;

namespace {

template <class Policy>
void passes(const Policy& policy) {
  const auto report = check_attention(policy);
  for (const std::string& problem : report.problems) FAIL_CHECK(problem);
  CHECK(report.worst_difference > 0);  // the kernel did run
}

template <class Policy>
bool finds(const Policy& policy, const std::string& rule) {
  for (const std::string& problem : check_attention(policy).problems) {
    if (problem.find(rule) != std::string::npos) return true;
  }
  return false;
}

// A user's own policy, as in the README of the attention folder.
struct dilated : attention::no_hooks {
  int near = 20, step = 4;
  EFFINFER_HOST_DEVICE constexpr bool visible(position p) const { return p.query - p.key < near || p.key % step == 0; }
};

// Planted bugs.
struct window_with_narrow_keys : attention::sliding_window<30> {
  attention::key_range keys(int query, int cached) const { return {query >= 30 ? query - 30 + 2 : 0, cached}; }
};
struct keys_that_fall : attention::no_hooks {
  attention::key_range keys(int query, int cached) const { return {query % 50 == 40 ? 1 : 0, cached}; }
  bool visible(position p) const { return p.key > 0; }
};
struct window_with_hasty_all_visible : attention::sliding_window<30> {
  bool all_visible(attention::tile t) const { return t.query_end - 1 - t.key_begin <= 30; }
};
struct streaming_with_hasty_skip : attention::streaming_window {
  bool any_visible(attention::tile t) const {
    return t.key_begin < first || t.query_begin - (t.key_end - 1) < window - 1;
  }
};
struct streaming_with_hasty_jump : attention::streaming_window {
  int next_key(attention::tile t) const { return std::max(t.key_begin, t.query_begin - window + 2); }
};
struct two_minds : attention::no_hooks {
  float score(float s, position) const { return 0.5f * s; }
  template <class V>
  V scores(const V& s, position) const {
    return V::broadcast(0.4f) * s;
  }
};
struct depends_on_tile : attention::no_hooks {  // a policy that looks at more than its arguments
  mutable int calls = 0;
  float score(float s, position) const { return ++calls % 7 == 0 ? s : 0.5f * s; }
};

}  // namespace

TEST_CASE("every policy of the library conforms") {
  const auto slopes = attention::alibi_slopes(6), logits = testing::numbers(6, 4);
  attention::sliding_window<> window;
  window.window = 33;
  attention::streaming_window streaming;
  streaming.window = 25;
  const attention::alibi alibi{slopes.data()};
  const attention::sinks sinks{logits.data()};
  passes(attention::full{});
  passes(attention::sliding_window<2>{});
  passes(attention::sliding_window<64>{});
  passes(window);
  passes(streaming);
  passes(attention::soft_cap{2.0f});
  CHECK(check_attention(attention::sliding_window<1>{}).passed());  // copies values: no difference at all
  passes(alibi);
  passes(sinks);
  passes(attention::softmax<attention::soft_cap, attention::alibi, attention::sliding_window<>, attention::sinks>{
      {5.0f}, alibi, window, sinks});
}

TEST_CASE("a user's policy conforms") { passes(dilated{}); }

TEST_CASE("planted bugs are found") {
  CHECK(finds(window_with_narrow_keys{}, "outside keys()"));
  CHECK(finds(keys_that_fall{}, "falls"));
  CHECK(finds(window_with_hasty_all_visible{}, "all_visible()"));
  streaming_with_hasty_skip hasty;
  hasty.window = 25;
  CHECK(finds(hasty, "any_visible()"));
  streaming_with_hasty_jump jump;
  jump.window = 25;
  CHECK(finds(jump, "next_key()"));
  CHECK(finds(two_minds{}, "differs from double precision"));
  CHECK(finds(depends_on_tile{}, "other bits"));
}

}  // namespace attention_conformance_tests
