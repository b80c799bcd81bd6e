// decoding/token_automaton.hpp, output_store.hpp, suffix_automaton.hpp, lookahead.hpp, draft_length.hpp.

#include <effinfer/decoding/draft_length.hpp>
#include <effinfer/decoding/output_store.hpp>
#include <effinfer/decoding/suffix_automaton.hpp>
#include <effinfer/decoding/token_automaton.hpp>

#include <effinfer/core/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

namespace suffix_automaton_tests {

using namespace effinfer;
using namespace effinfer::decoding;
using tokens = std::vector<int>;

namespace {

tokens random_text(std::uint64_t seed, int size, int vocabulary) {
  tokens text;
  for (int i = 0; i < size; ++i)
    text.push_back(
        static_cast<int>(random_stream{seed}.uniform(static_cast<std::uint64_t>(i)) * static_cast<float>(vocabulary)));
  return text;
}

/// All a drafter's run needs of a session.
struct no_session {
  struct decoder_type {
    struct tap {};
  };
};
tokens drafted(const suffix_automaton& drafter, const tokens& history, int most) {
  no_session session;
  suffix_automaton::run<no_session> run(drafter, session);
  draft_tree guesses;
  run.propose(history, most, guesses);
  return guesses.tokens;
}

/// How often `what` stands in `text`, and where its first place ends.
std::pair<int, int> find(const tokens& text, const tokens& what) {
  int count = 0, first = 0;
  for (auto at = text.begin();; ++at) {
    at = std::search(at, text.end(), what.begin(), what.end());
    if (at == text.end()) return {count, first};
    if (count++ == 0) first = static_cast<int>(at - text.begin()) + static_cast<int>(what.size());
  }
}

}  // namespace

TEST_CASE("a suffix automaton knows all substrings, where they end first, and the longest repeated suffix") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const tokens text = random_text(seed, 40, 2 + static_cast<int>(seed % 3));
    token_automaton automaton;
    tokens so_far;
    for (const int token : text) {
      automaton.push_back(token);
      so_far.push_back(token);
      std::size_t repeated = 0;  // by trying all
      for (std::size_t n = 1; n < so_far.size(); ++n)
        if (find(so_far, tokens(so_far.end() - static_cast<std::ptrdiff_t>(n), so_far.end())).first > 1) repeated = n;
      const auto& state = automaton.states()[static_cast<std::size_t>(automaton.repeated())];
      REQUIRE(state.length == static_cast<int>(repeated));
      const tokens suffix(so_far.end() - static_cast<std::ptrdiff_t>(repeated), so_far.end());
      if (repeated > 0) REQUIRE(state.end == find(so_far, suffix).second);
    }
    REQUIRE(automaton.states().size() <= 2 * text.size());
    REQUIRE(automaton.edges().size() <= 3 * text.size());
    for (std::size_t from = 0; from < text.size(); ++from) {
      int state = 0;
      for (std::size_t to = from; to < text.size(); ++to) {
        state = automaton.next(state, text[to]);
        REQUIRE(state != token_automaton::none);
      }
      REQUIRE(automaton.next(state, 9) == token_automaton::none);
    }
  }
}

TEST_CASE("the store counts what followed") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const std::vector<tokens> texts{random_text(seed, 30, 3), random_text(seed + 100, 20, 3), {}};
    const output_store store(texts);
    CHECK(store.size() == 53);
    for (std::size_t from = 0; from < 25; ++from) {
      tokens what(texts[0].begin() + static_cast<std::ptrdiff_t>(from),
                  texts[0].begin() + static_cast<std::ptrdiff_t>(from) + 3);
      int state = 0;
      for (const int token : what) state = store.automaton().next(state, token);
      const int count = find(texts[0], what).first + find(texts[1], what).first;
      REQUIRE(store.occurrences(state) == count);
      int best = output_store::separator, most = 0;
      for (int token = 0; token < 3; ++token) {
        what.push_back(token);
        const int here = find(texts[0], what).first + find(texts[1], what).first;
        if (here > most) best = token, most = here;
        what.pop_back();
      }
      float share = 0;
      REQUIRE(store.follow(state, share) == best);
      REQUIRE(share == doctest::Approx(double(most) / count));
    }
  }
}

TEST_CASE("drafts by the longest suffix") {
  const suffix_automaton drafter;
  CHECK(drafted(drafter, {1, 2, 3, 4, 5, 6, 1, 2, 3}, 2) == tokens{4, 5});
  CHECK(drafted(drafter, {1, 2, 3, 40, 9, 2, 3, 50, 1, 2, 3}, 1) == tokens{40});
  CHECK(drafted(drafter, {4, 4, 4}, 5) == tokens{4, 4, 4, 4, 4});
  CHECK(drafted(drafter, {5, 6, 9, 5}, 2).empty());
  CHECK(drafted({.shortest_match = 1}, {5, 6, 9, 5}, 2) == tokens{6, 9});
  CHECK(drafted(drafter, {7}, 2).empty());

  const std::vector<tokens> texts{{1, 2, 3, 4, 5}, {2, 3, 4, 6}, {2, 3, 7}};
  const auto past = std::make_shared<const output_store>(texts);
  CHECK(drafted({.past = past}, {2, 3}, 3) == tokens{4, 5});  // 4 twice, 7 once; 5 before 6; then the text ends
  CHECK(drafted({.past = past, .least_share = 0.6F}, {2, 3}, 3) == tokens{4});
  CHECK(drafted({.past = past}, {2, 3, 9, 2, 3}, 2) == tokens{9, 2});  // equally long: this text's own
  CHECK_THROWS_AS(suffix_automaton{.shortest_match = 0}.validate(), error);
}

TEST_CASE("a store comes back from its file, and no broken file does harm") {
  const std::string path = (std::filesystem::temp_directory_path() / "effinfer_test_output_store").string();
  const std::vector<tokens> texts{random_text(1, 50, 9), random_text(2, 9, 70000)};
  const output_store store(texts);
  store.save(path);
  const output_store back = output_store::load(path);
  CHECK(back.size() == store.size());
  const auto past = std::make_shared<const output_store>(back);
  CHECK(drafted({.past = past}, {texts[1][2], texts[1][3]}, 9) == tokens(texts[1].begin() + 4, texts[1].end()));

  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto code_of = [&](const std::string& content) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
    try {
      (void)output_store::load(path);
    } catch (const error& e) {
      return to_string(e.code());
    }
    return to_string(error_code::cancelled);  // none
  };
  CHECK(code_of(bytes) == "cancelled");
  for (std::size_t size = 0; size < bytes.size(); ++size) REQUIRE(code_of(bytes.substr(0, size)) == "malformed");
  CHECK(code_of(bytes + "x") == "malformed");
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    const auto code = code_of(damaged);
    REQUIRE((code == "malformed" || code == "limit"));
  }
  std::string huge = bytes;
  huge[7] = 0x7f;
  CHECK(code_of(huge) == "limit");
  std::remove(path.c_str());
  CHECK_THROWS_AS((void)output_store::load(path), error);
  CHECK_THROWS_AS(output_store(std::vector<tokens>{{1, -2}}), error);
  CHECK_THROWS_AS(store.save("/nowhere/at/all"), error);
}

TEST_CASE("drafts are as long as pays, and stop where they don't") {
  const auto rows_drafted = [](double right, double row_cost, double guess_cost, int passes) {
    draft_length length(8, row_cost);
    int drafted = 0, longest = 0;
    for (int i = 0; i < passes; ++i) {
      const int most = length.next(guess_cost);
      int accepted = 0;
      for (const random_stream random{3}; accepted < most; ++accepted)
        if (random.uniform(static_cast<std::uint64_t>(i), static_cast<std::uint32_t>(accepted)) >= right) break;
      drafted += most;
      if (i > passes / 2) longest = std::max(longest, most);
      if (most > 0) length.learn(most, most, accepted);
    }
    return std::pair(drafted, longest);
  };
  CHECK(rows_drafted(1, 0.15, 0, 400).second == 8);
  CHECK(rows_drafted(0.5, 0.15, 0, 400).second < 5);
  CHECK(rows_drafted(0, 0, 0, 400).first == 3200);  // no cost: as long as it may be
  // Nothing is ever right: all that was drafted costs less than 5 % of the passes.
  for (const double row_cost : {0.05, 0.15, 0.3, 0.6, 1.0})
    CHECK(rows_drafted(0, row_cost, 0, 400).first * row_cost < 20);
  CHECK(rows_drafted(0.02, 0.15, 0, 1000).first * 0.15 < 50);
  // Measured: a pass of 100 us, a row of 10 and a guess of 20 give what these costs give when stated; rows behind the third may
  // take more.
  const auto measured = [](double right, double further_row = 10e-6) {
    draft_length length(8, std::nullopt);
    int longest = 0;
    for (int i = 0; i < 600; ++i) {
      const int most = length.next(0.9);
      if (i == 0) CHECK(most == 0);  // what one row takes is learned first
      if (most > 0) length.drafted(most, 20e-6 * most);
      length.passed(1 + most, 100e-6 + 10e-6 * std::min(most, 3) + further_row * std::max(most - 3, 0));
      int accepted = 0;
      for (const random_stream random{3}; accepted < most; ++accepted)
        if (random.uniform(static_cast<std::uint64_t>(i), static_cast<std::uint32_t>(accepted)) >= right) break;
      if (most > 0) length.learn(most, most, accepted);
      if (i == 599) {
        const least_chances least = length.least();
        CHECK(least.a_level > 0);
        CHECK(std::is_sorted(least.price.begin(), least.price.end()));
        if (right == 1 && further_row > 50e-6) CHECK(least.to_verify(3) > 2 * least.to_verify(0));
      }
      if (i > 300) longest = std::max(longest, most);
    }
    return longest;
  };
  CHECK(measured(1) == 8);
  CHECK(measured(1, 200e-6) == 3);
  CHECK(measured(0.7) < 5);
  CHECK(measured(0.7) >= 1);
  CHECK(measured(0.1) <= 1);
  CHECK(rows_drafted(0.3, 0.1, 0.5, 1000).first * 0.6 < 50 + 0.3 * rows_drafted(0.3, 0.1, 0.5, 1000).first);
}

}  // namespace suffix_automaton_tests
