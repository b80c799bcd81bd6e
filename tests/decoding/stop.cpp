// decoding/stop.hpp

#include <effinfer/decoding/stop.hpp>

#include <doctest/doctest.h>

#include <effinfer/core/random.hpp>
#include <string>
#include <vector>

namespace stop_tests {

using namespace effinfer;
using decoding::stop_matcher;

namespace {

struct shown {
  std::string text;
  bool stopped = false;
  bool operator==(const shown&) const = default;
};

shown feed(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  stop_matcher matcher(stops);
  shown all;
  for (const auto& piece : pieces) all.text += matcher.push(piece);
  all.stopped = matcher.stopped();
  if (!all.stopped) all.text += matcher.finish();
  return all;
}

/// The definition: the shortest prefix that ends with a stop string, without the longest stop string that it ends with.
shown by_definition(const std::vector<std::string>& stops, const std::string& text) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t cut = 0;
    for (const auto& stop : stops) {
      if (end >= stop.size() && text.compare(end - stop.size(), stop.size(), stop) == 0)
        cut = std::max(cut, stop.size());
    }
    if (cut > 0) return {text.substr(0, end - cut), true};
  }
  return {text, false};
}

}  // namespace

TEST_CASE("a stop string is found across pieces and not shown") {
  CHECK(feed({"STOP"}, {"one S", "T", "O", "P two"}) == shown{"one ", true});
  CHECK(feed({"STOP"}, {"one S", "TO", "NE"}) == shown{"one STONE", false});
  CHECK(feed({"\n\n"}, {"a\n", "b\n", "\nc"}) == shown{"a\nb", true});
  CHECK(feed({}, {"a", "b"}) == shown{"ab", false});
}

TEST_CASE("only what may begin a stop string is held back") {
  stop_matcher matcher({"</s>", "sand"});
  CHECK(matcher.push("a < b") == "a < b");
  CHECK(matcher.push("<") == "");
  CHECK(matcher.push("/s") == "");
  CHECK(matcher.push("an") == "</");
  CHECK_FALSE(matcher.stopped());
  CHECK(matcher.finish() == "san");
  CHECK(matcher.finish() == "");
}

TEST_CASE("nothing is shown behind a stop") {
  stop_matcher matcher({"x"});
  CHECK(matcher.push("ax") == "a");
  CHECK(matcher.stopped());
  CHECK(matcher.push("more") == "");
  CHECK(matcher.finish() == "");
}

TEST_CASE("of several stops the first complete one counts, and of those the longest") {
  CHECK(feed({"abc", "b"}, {"xabc"}) == shown{"xa", true});
  CHECK(feed({"bc", "abc", "c"}, {"xab", "c"}) == shown{"x", true});
  CHECK(feed({"c", "abc"}, {"xab", "c"}) == shown{"x", true});
}

TEST_CASE("a stop that overlaps its own beginning is found") {
  CHECK(feed({"aab"}, {"a", "a", "a", "b"}) == shown{"a", true});
  CHECK(feed({"abab!"}, {"abab", "ab!"}) == shown{"ab", true});
}

TEST_CASE("characters are never torn") {
  // U+2028 and U+2029 share their first two bytes.
  stop_matcher matcher({"\u2028"});
  CHECK(matcher.push("a\u2029") == "a\u2029");
  CHECK(matcher.push("\u2028") == "");
  CHECK(matcher.stopped());
}

TEST_CASE("the result does not depend on how the text is cut") {
  int stopped = 0;
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    const random_stream random{seed};
    std::uint64_t at = 0;
    const auto below = [&](int n) { return static_cast<int>(random.uniform(at++) * static_cast<float>(n)); };
    const auto word = [&](int length) {
      std::string w;
      for (int i = 0; i < length; ++i) w += static_cast<char>('a' + below(3));
      return w;
    };
    std::vector<std::string> stops;
    for (int i = below(3); i >= 0; --i) stops.push_back(word(1 + below(6)));
    const std::string text = word(60);
    std::vector<std::string> pieces;
    for (std::size_t i = 0; i < text.size();) {
      const auto length = static_cast<std::size_t>(below(7));
      pieces.push_back(text.substr(i, length));
      i += length;
    }
    const auto expected = by_definition(stops, text);
    CHECK(feed(stops, pieces) == expected);
    stopped += expected.stopped;
  }
  CHECK(stopped > 100);
  CHECK(stopped < 500);
}

TEST_CASE("stop strings that can't work are refused by their number") {
  CHECK_THROWS_WITH_AS(stop_matcher({"a", ""}), "stop[1]: an empty string would end every text at once", error);
  CHECK_THROWS_WITH_AS(stop_matcher({"\xC3"}), "stop[0]: not UTF-8, so it can't come up in a text", error);
}

TEST_CASE("stop tokens") {
  const stop_matcher matcher({}, {3, 9});
  CHECK(matcher.is_stop_token(9));
  CHECK_FALSE(matcher.is_stop_token(4));
  CHECK_FALSE(stop_matcher{}.is_stop_token(0));
}

}  // namespace stop_tests
