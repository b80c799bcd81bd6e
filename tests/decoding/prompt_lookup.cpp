// decoding/prompt_lookup.hpp

#include <effinfer/decoding/prompt_lookup.hpp>

#include <doctest/doctest.h>

#include <effinfer/core/random.hpp>
#include <vector>

namespace prompt_lookup_tests {

using namespace effinfer;
using decoding::prompt_lookup;
using tokens = std::vector<int>;

TEST_CASE("the draft is what followed the last tokens before") {
  const prompt_lookup<3> drafter;
  CHECK(drafter.propose(tokens{1, 2, 3, 4, 5, 6, 1, 2, 3}, 2) == tokens{4, 5});
  CHECK(drafter.propose(tokens{1, 2, 3, 4, 5, 6, 1, 2, 3}, 1) == tokens{4});
  CHECK(drafter.propose(tokens{1, 2, 3, 4, 5, 6, 1, 2, 3}, 0).empty());
  CHECK(drafter.propose(tokens{1, 2, 3, 4, 5, 6, 1, 2, 3}, -1).empty());
}

TEST_CASE("the longest match wins, of equally long ones the most recent") {
  // "2 3" came up twice, "1 2 3" once and earlier.
  CHECK(prompt_lookup<3>{}.propose(tokens{1, 2, 3, 40, 9, 2, 3, 50, 1, 2, 3}, 1) == tokens{40});
  CHECK(prompt_lookup<2>{}.propose(tokens{1, 2, 3, 40, 9, 2, 3, 50, 1, 2, 3}, 1) == tokens{50});
  CHECK(prompt_lookup<3>{}.propose(tokens{7, 1, 8, 2, 8}, 1) == tokens{2});
}

TEST_CASE("matches that are too short are not used") {
  CHECK(prompt_lookup<3>{}.propose(tokens{5, 6, 9, 5}, 2) == tokens{6, 9});
  CHECK(prompt_lookup<3>{.shortest_match = 2}.propose(tokens{5, 6, 9, 5}, 2).empty());
  CHECK(prompt_lookup<3>{.shortest_match = 2}.propose(tokens{5, 6, 9, 5, 6}, 1) == tokens{9});
  CHECK(prompt_lookup<3>{}.propose(tokens{1, 2, 3}, 4).empty());
  CHECK(prompt_lookup<3>{}.propose(tokens{}, 4).empty());
  CHECK(prompt_lookup<3>{}.propose(tokens{1}, 4).empty());
}

TEST_CASE("a loop goes on for the whole draft") {
  CHECK(prompt_lookup<3>{}.propose(tokens{4, 4}, 5) == tokens{4, 4, 4, 4, 4});
  CHECK(prompt_lookup<3>{}.propose(tokens{0, 1, 2, 1, 2, 1, 2}, 5) == tokens{1, 2, 1, 2, 1});
  CHECK(prompt_lookup<2>{}.propose(tokens{1, 2, 3, 1, 2}, 7) == tokens{3, 1, 2, 3, 1, 2, 3});
}

TEST_CASE("against a search for every length, on random histories over few tokens") {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const random_stream random{seed};
    tokens history(static_cast<std::size_t>(random.uniform(0) * 40));
    for (std::size_t i = 0; i < history.size(); ++i) history[i] = static_cast<int>(random.uniform(i + 1) * 4);
    tokens expected;
    for (std::size_t n = 4; n >= 1 && expected.empty(); --n) {
      for (std::size_t begin = history.size(); begin-- > 0 && expected.empty();) {
        if (history.size() < n || begin + n >= history.size()) continue;
        bool same = true;
        for (std::size_t i = 0; i < n; ++i) same = same && history[begin + i] == history[history.size() - n + i];
        if (!same) continue;
        auto grown = history;
        for (std::size_t i = begin + n; expected.size() < 6; ++i) {
          expected.push_back(grown[i]);
          grown.push_back(grown[i]);
        }
      }
    }
    CHECK(prompt_lookup<4>{}.propose(history, 6) == expected);
  }
}

TEST_CASE("shortest_match out of range is refused by name") {
  CHECK_THROWS_WITH_AS(prompt_lookup<3>{.shortest_match = 4}.validate(),
                       "decoding::prompt_lookup.shortest_match: 4 is not in [1, N]", error);
  CHECK_THROWS_WITH_AS(prompt_lookup<3>{.shortest_match = 0}.validate(),
                       "decoding::prompt_lookup.shortest_match: 0 is not in [1, N]", error);
  CHECK_NOTHROW(prompt_lookup<3>{.shortest_match = 3}.validate());
}

}  // namespace prompt_lookup_tests
