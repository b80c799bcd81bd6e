// The merge engine against the definition, followed to the letter: look at all adjacent pairs, merge the leftmost of
// best rank, begin again.

#include <effinfer/text/bpe.hpp>

#include <effinfer/core/random.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace bpe_tests {

namespace text = effinfer::text;

namespace {

struct model {
  text::vocabulary tokens;
  std::map<std::pair<int, int>, std::pair<int, int>> merges;  // pair -> rank, result
  text::merge_table table;
};

// All letters of `alphabet`, and `count` merges of random pairs of the tokens there are so far.
model random_model(const std::string& alphabet, int count, std::uint64_t seed) {
  model m;
  const effinfer::random_stream random{seed};
  for (const char c : alphabet) m.tokens.add(std::string(1, c), m.tokens.size());
  for (std::uint64_t draw = 0; count > 0 && draw < 100000; draw += 2) {
    const auto pick = [&](std::uint64_t at) {
      return static_cast<int>(random.uniform(at) * static_cast<float>(m.tokens.size()));
    };
    const int left = pick(draw);
    const int right = pick(draw + 1);
    const std::string merged = std::string(m.tokens.text(left)) + std::string(m.tokens.text(right));
    if (merged.size() > 12 || m.merges.count({left, right}) > 0) continue;
    int result = m.tokens.find(merged);
    if (result < 0) m.tokens.add(merged, result = m.tokens.size());
    const int rank = static_cast<int>(m.merges.size());
    m.merges[{left, right}] = {rank, result};
    m.table.add(left, right, {static_cast<std::uint32_t>(rank), result}, true);
    --count;
  }
  return m;
}

std::vector<int> by_definition(const model& m, const std::string& piece) {
  std::vector<int> symbols;
  for (const char c : piece) symbols.push_back(m.tokens.find(std::string(1, c)));
  while (true) {
    std::size_t best = symbols.size();
    int best_rank = 1 << 30;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = m.merges.find({symbols[i], symbols[i + 1]});
      if (found != m.merges.end() && found->second.first < best_rank) {
        best = i;
        best_rank = found->second.first;
      }
    }
    if (best == symbols.size()) return symbols;
    symbols[best] = m.merges.at({symbols[best], symbols[best + 1]}).second;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

constexpr auto all_plain = [](int) { return true; };

}  // namespace

TEST_CASE("merging equals the definition, for short and long pieces") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const model m = random_model("abc", 40, seed);
    const text::bpe engine(m.tokens, m.table, {}, all_plain);
    text::bpe_scratch scratch;
    const effinfer::random_stream random{seed + 1000};
    for (std::uint64_t length = 0; length < 120; ++length) {
      std::string piece;
      for (std::uint32_t i = 0; i < length; ++i)
        piece.push_back("abc"[static_cast<int>(3 * random.uniform(length, i))]);
      std::vector<int> ids;
      engine.encode(piece, scratch, ids);
      REQUIRE(ids == by_definition(m, piece));
    }
  }
}

TEST_CASE("a long text cut where no merge can cross equals the definition") {
  // 40 letters and few merges: most places are cuts.
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const std::string alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN";
    const model m = random_model(alphabet, 60, seed);
    const text::bpe engine(m.tokens, m.table, {}, all_plain);
    const text::bpe whole_only(m.tokens, m.table, {.ignore_merges = true}, all_plain);
    text::bpe_scratch scratch;
    const effinfer::random_stream random{seed + 2000};
    for (std::uint64_t n = 0; n < 100; ++n) {
      std::string piece;
      for (std::uint32_t i = 0; i < 40 + n; ++i) {
        const auto id = static_cast<int>(random.uniform(n, i) * static_cast<float>(m.tokens.size()));
        piece += m.tokens.text(id);
      }
      std::vector<int> ids;
      engine.encode(piece, scratch, ids);
      const std::vector<int> wanted = by_definition(m, piece);
      REQUIRE(ids == wanted);
      ids.clear();
      whole_only.encode(piece, scratch, ids);
      REQUIRE(ids == wanted);
    }
  }
}

TEST_CASE("one letter, 256 KiB of it, takes no time") {
  model m = random_model("a", 0, 0);
  std::string letters = "a";
  for (int rank = 0; rank < 10; ++rank) {
    const int half = m.tokens.find(letters);
    letters += letters;
    m.tokens.add(letters, m.tokens.size());
    m.table.add(half, half, {static_cast<std::uint32_t>(rank), m.tokens.find(letters)}, true);
  }
  const text::bpe engine(m.tokens, m.table, {}, all_plain);
  text::bpe_scratch scratch;
  std::vector<int> ids;
  const auto begin = std::chrono::steady_clock::now();
  engine.encode(std::string(256 * 1024, 'a'), scratch, ids);
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(2));  // quadratic merging takes minutes
  CHECK(ids == std::vector<int>(256, 10));
}

TEST_CASE("characters that are no token") {
  text::vocabulary tokens;
  tokens.add("<unk>", 0);
  tokens.add("a", 1);
  tokens.add("<0xC3>", 2);
  tokens.add("<0xA9>", 3);
  const auto encoded = [&](text::bpe_options options, const char* piece) {
    const text::bpe engine(tokens, {}, options, all_plain);
    text::bpe_scratch scratch;
    std::vector<int> ids;
    engine.encode(piece, scratch, ids);
    return ids;
  };
  using list = std::vector<int>;
  CHECK(encoded({}, "a\u00E9xa") == list{1, 1});
  CHECK(encoded({.unknown = 0}, "a\u00E9xa") == list{1, 0, 0, 1});
  CHECK(encoded({.unknown = 0, .fuse_unknown = true}, "a\u00E9xa") == list{1, 0, 1});
  CHECK(encoded({.byte_fallback = true, .unknown = 0}, "a\u00E9x") == list{1, 2, 3, 0});
  CHECK(encoded({.byte_fallback = true}, "\u00EAa") == list{1});  // <0xAA> is not there
  // Hugging Face's order: the unknown token waits, and the bytes overtake it.
  CHECK(encoded({.byte_fallback = true, .unknown = 0}, "x\u00E9a") == list{2, 3, 0, 1});
}

TEST_CASE("ignore_merges takes a piece that is a token as it is, plain tokens only") {
  text::vocabulary tokens;
  for (const char* t : {"a", "b", "ab", "<s>"}) tokens.add(t, tokens.size());
  const auto plain = [](int id) { return id != 3; };
  text::bpe_scratch scratch;
  std::vector<int> ids;
  text::bpe(tokens, {}, {.ignore_merges = true}, plain).encode("ab", scratch, ids);
  text::bpe(tokens, {}, {}, plain).encode("ab", scratch, ids);
  text::bpe(tokens, {}, {.ignore_merges = true}, plain).encode("<s>", scratch, ids);
  CHECK(ids == std::vector<int>{2, 0, 1});
}

TEST_CASE("a vocabulary keeps ids and texts apart") {
  text::vocabulary tokens;
  for (int i = 0; i < 5000; ++i) CHECK(tokens.add("token " + std::to_string(i), 3 * i));
  CHECK_FALSE(tokens.add("token 7", 1));
  CHECK_FALSE(tokens.add("new", 3));
  CHECK(tokens.count() == 5000);
  CHECK(tokens.size() == 3 * 4999 + 1);
  for (int i = 0; i < 5000; ++i) {
    REQUIRE(tokens.find("token " + std::to_string(i)) == 3 * i);
    REQUIRE(tokens.text(3 * i) == "token " + std::to_string(i));
    REQUIRE_FALSE(tokens.has(3 * i + 1));
  }
  CHECK(tokens.find("token") == -1);
  CHECK(tokens.text(-1).empty());
  CHECK_FALSE(tokens.has(1 << 30));
}

}  // namespace bpe_tests
