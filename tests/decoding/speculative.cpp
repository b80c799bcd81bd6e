// decoding/speculative.hpp: the text of a speculative policy is, token for token, the text of its rule. The model is a
// pure function from history to logits.

#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/decoding/top_p.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <span>
#include <vector>

#include "decoding/reference.hpp"

namespace speculative_tests {

using namespace effinfer;
using namespace effinfer::decoding;
using tokens = std::vector<int>;

namespace {

constexpr int vocabulary = 31;
constexpr int end_of_text = 7;

/// Logits that depend on the last three tokens: repetitive enough to draft, random enough to refuse drafts.
std::vector<float> model(std::span<const int> history, float spread) {
  std::uint64_t key = 17;
  for (std::size_t i = history.size() - std::min<std::size_t>(3, history.size()); i < history.size(); ++i) {
    key = key * 1000003 + static_cast<std::uint64_t>(history[i]);
  }
  return reference::logits(vocabulary, key % 40, spread);
}

struct run {
  tokens generated;
  int passes = 0;
};

template <class Rule>
run plain(const Rule& rule, tokens history, std::uint64_t seed, int max_tokens, float spread) {
  run r;
  workspace scratch;
  while (static_cast<int>(r.generated.size()) < max_tokens) {
    auto logits = model(history, spread);
    const int token = rule(logits, history, {seed}, history.size(), scratch);
    ++r.passes;
    if (token == end_of_text) break;
    history.push_back(token);
    r.generated.push_back(token);
  }
  return r;
}

template <class Policy>
run speculated(const Policy& policy, tokens history, std::uint64_t seed, int max_tokens, float spread) {
  run r;
  workspace scratch;
  bool ended = false;
  while (!ended && static_cast<int>(r.generated.size()) < max_tokens) {
    const auto drafts = policy.drafter.propose(history, policy.max_draft);
    std::vector<float> rows;
    auto assumed = history;
    for (std::size_t i = 0; i <= drafts.size(); ++i) {
      const auto row = model(assumed, spread);
      rows.insert(rows.end(), row.begin(), row.end());
      if (i < drafts.size()) assumed.push_back(drafts[i]);
    }
    const auto accepted = policy.verify(draft_tree::chain(drafts),
                                        {rows.data(), static_cast<std::ptrdiff_t>(drafts.size()) + 1, vocabulary},
                                        history, {seed}, history.size(), scratch);
    ++r.passes;
    REQUIRE(accepted.size() >= 1);
    REQUIRE(accepted.size() <= drafts.size() + 1);
    for (const int token : accepted) {
      if (token == end_of_text || static_cast<int>(r.generated.size()) == max_tokens) {
        ended = true;
        break;
      }
      history.push_back(token);
      r.generated.push_back(token);
    }
  }
  return r;
}

template <class Rule>
void compare(const Rule& rule, float spread, bool& some_ended, bool& some_saved) {
  const tokens prompt{1, 2, 3, 1, 2, 3, 1};
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    for (const int max_tokens : {0, 1, 2, 23, 60}) {
      for (const int max_draft : {0, 1, 4, 10}) {
        const auto one_by_one = plain(rule, prompt, seed, max_tokens, spread);
        const speculative<prompt_lookup<3>, Rule> policy{.drafter = {}, .rule = rule, .max_draft = max_draft};
        const auto many = speculated(policy, prompt, seed, max_tokens, spread);
        REQUIRE(many.generated == one_by_one.generated);
        REQUIRE(many.passes <= one_by_one.passes);
        if (max_draft == 0) REQUIRE(many.passes == one_by_one.passes);
        some_ended = some_ended || static_cast<int>(one_by_one.generated.size()) < max_tokens;
        some_saved = some_saved || many.passes < one_by_one.passes;
      }
    }
  }
}

/// Proposes whatever a test tells it to.
struct fixed_drafter {
  tokens draft;
  void validate() const {}
  [[nodiscard]] std::vector<int> propose(std::span<const int>, int) const { return draft; }
};

}  // namespace

TEST_CASE("greedy: the same tokens in fewer passes") {
  bool some_ended = false, some_saved = false;
  for (const float spread : {2.0f, 2.5f, 3.1f}) compare(greedy{}, spread, some_ended, some_saved);
  CHECK(some_saved);
}

TEST_CASE("sampling: the same tokens for every seed") {
  bool some_ended = false, some_saved = false;
  compare(top_p{.p = 0.9f}, 4, some_ended, some_saved);
  compare(
      sample{.temperature = 0.8f, .top_k = 12, .min_p = 0.02f, .repetition_penalty = 1.1f, .frequency_penalty = 0.1f},
      5, some_ended, some_saved);
  CHECK(some_ended);
  CHECK(some_saved);
}

TEST_CASE("an end token inside an accepted draft ends the text there") {
  // The rule gives 1, 7 (end), 5; the drafter guessed all of it.
  const auto row = [](int token) {
    std::vector<float> logits(vocabulary, 0.0f);
    logits[static_cast<std::size_t>(token)] = 9;
    return logits;
  };
  std::vector<float> rows;
  for (const int token : {1, end_of_text, 5, 6}) {
    const auto one = row(token);
    rows.insert(rows.end(), one.begin(), one.end());
  }
  const speculative<fixed_drafter> policy{.drafter = {{1, end_of_text, 5}}};
  workspace scratch;
  const auto accepted = policy.verify(draft_tree::chain(policy.drafter.propose({}, 3)), {rows.data(), 4, vocabulary},
                                      tokens{0}, {1}, 1, scratch);
  CHECK(accepted == tokens{1, end_of_text, 5, 6});  // what stands behind the end is the caller's to drop
}

TEST_CASE("verification stops at the first wrong draft, and keeps the token in its place") {
  std::vector<float> rows(4 * vocabulary, 0.0f);
  for (const int row : {0, 1, 2, 3}) rows[static_cast<std::size_t>(row * vocabulary + 10 + row)] = 9;
  const speculative<fixed_drafter> policy;
  workspace scratch;
  const matrix_view<float> logits(rows.data(), 4, vocabulary);
  CHECK(policy.verify(draft_tree::chain(tokens{10, 11, 12}), logits, tokens{0}, {1}, 1, scratch) ==
        tokens{10, 11, 12, 13});
  CHECK(policy.verify(draft_tree::chain(tokens{10, 3, 12}), logits, tokens{0}, {1}, 1, scratch) == tokens{10, 11});
  CHECK(policy.verify(draft_tree::chain(tokens{3, 11, 12}), logits, tokens{0}, {1}, 1, scratch) == tokens{10});
  CHECK(policy.verify({}, {rows.data(), 1, vocabulary}, tokens{0}, {1}, 1, scratch) == tokens{10});
}

TEST_CASE("a tree's text is the rule's, token for token, wherever the right guesses stand") {
  const top_p sampled{.p = 0.9f};
  workspace scratch;
  int longest = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const auto draw = [&](std::uint64_t at, float below) {
      return static_cast<int>(random_stream{seed}.uniform(1000 + at) * below);
    };
    tokens history{1, 2, 3};
    history.resize(3 + seed % 4, 5);
    const auto truth = plain(sampled, history, seed, 4, 3).generated;
    draft_tree tree;  // random, but for some nodes that are what the rule gives there
    std::vector<tokens> paths;
    for (int i = 0; i < 14; ++i) {
      const int parent = i == 0 ? -1 : draw(static_cast<std::uint64_t>(i), static_cast<float>(i + 1)) - 1;
      tokens path = parent < 0 ? tokens{} : paths[static_cast<std::size_t>(parent)];
      const bool right = path.size() < truth.size() && i % 2 == 0;
      path.push_back(right ? truth[path.size()] : draw(100 + static_cast<std::uint64_t>(i), vocabulary));
      tree.add(path.back(), parent, 0.5F);
      paths.push_back(path);
    }
    tree.sort_depth_first();
    std::vector<float> rows;
    for (int row = 0; row <= tree.size(); ++row) {
      tokens path;
      for (int node = row - 1; node >= 0; node = tree.parents[static_cast<std::size_t>(node)])
        path.insert(path.begin(), tree.tokens[static_cast<std::size_t>(node)]);
      auto read = history;
      read.insert(read.end(), path.begin(), path.end());
      const auto logits = model(read, 3);
      rows.insert(rows.end(), logits.begin(), logits.end());
    }
    const speculative<fixed_drafter, top_p> policy{.rule = sampled};
    const auto accepted =
        policy.verify(tree, {rows.data(), tree.size() + 1, vocabulary}, history, {seed}, history.size(), scratch);
    for (std::size_t i = 0; i < std::min(accepted.size(), truth.size()); ++i) REQUIRE(accepted[i] == truth[i]);
    longest = std::max(longest, static_cast<int>(accepted.size()));
  }
  CHECK(longest >= 4);
}

TEST_CASE("a wrong number of rows and parameters out of range are refused by name") {
  std::vector<float> rows(3 * vocabulary, 0.0f);
  workspace scratch;
  const speculative<prompt_lookup<3>> policy;
  CHECK_THROWS_WITH_AS(
      (void)policy.verify(draft_tree::chain(tokens{1}), {rows.data(), 3, vocabulary}, tokens{0}, {1}, 1, scratch),
      "decoding::speculative.verify: logits: 3 rows for 1 drafts: there must be one more", error);
  CHECK_THROWS_WITH_AS((speculative<prompt_lookup<3>>{.max_draft = -1}.validate()),
                       "decoding::speculative.max_draft: -1 is not in [0, 1024]", error);
  CHECK_THROWS_WITH_AS((speculative<prompt_lookup<3>, top_p>{.rule = {.p = 3}}.validate()),
                       "decoding::top_p.p: 3.000000 is not in (0, 1]", error);
  CHECK_THROWS_AS((speculative<prompt_lookup<3>>{.drafter = {.shortest_match = 0}}.validate()), error);
  CHECK_NOTHROW(policy.validate());
}

TEST_CASE("as a strategy for one position it is its rule") {
  workspace scratch;
  for (std::uint64_t position = 0; position < 30; ++position) {
    auto a = reference::logits(400, position, 2);
    auto b = a;
    CHECK(speculative<prompt_lookup<3>, top_p>{}(a, {}, {1}, position, scratch) ==
          top_p{}(b, {}, {1}, position, scratch));
  }
  static_assert(is_speculative<speculative<prompt_lookup<2>>> && !is_speculative<top_p>);
}

}  // namespace speculative_tests
