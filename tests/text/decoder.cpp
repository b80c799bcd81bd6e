// Decoder chains: what a stream gives in parts is what the definition gives for the whole, however the steps combine.

#include <effinfer/text/decoder.hpp>

#include <effinfer/core/random.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

namespace decoder_tests {

namespace text = effinfer::text;
namespace decoders = effinfer::text::decoders;

namespace {

using list = std::vector<std::string>;

// Runs the chain, and checks on the way that nothing but whole characters comes out.
std::string decoded(const text::decoder& chain, const list& tokens) {
  text::decoding run(chain);
  std::string all;
  for (const std::string& token : tokens) {
    std::string part;
    run.push(token, false, part);
    CHECK(text::find_invalid_utf8(part) == std::string::npos);
    all += part;
  }
  std::string part;
  run.finish(part);
  return all + part;
}

text::decoder llama2() {
  return {{decoders::replace_text{"\u2581", " "}, decoders::byte_fallback{}, decoders::fuse{},
           decoders::strip{U' ', 1, 0}}};
}

}  // namespace

TEST_CASE("Llama 2's chain") {
  CHECK(decoded(llama2(), {"\u2581Hello", "\u2581world"}) == "Hello world");
  CHECK(decoded(llama2(), {"\u2581", "\u2581Hello"}) == " Hello");
  CHECK(decoded(llama2(), {"<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "!"}) == "\U0001F600!");
  CHECK(decoded(llama2(), {"<0x20>", "<0x20>", "a"}) == " a");
  CHECK(decoded(llama2(), {}).empty());
  // Broken bytes: one U+FFFD each, and the whole characters of the run stay.
  CHECK(decoded(llama2(), {"a", "<0xF0>", "<0x9F>", "b"}) == "a\uFFFD\uFFFDb");
  CHECK(decoded(llama2(), {"<0xC3>", "<0xA9>", "<0xFF>", "<0xC3>"}) == "\u00E9\uFFFD\uFFFD");
}

TEST_CASE("characters come out as soon as they are whole") {
  const text::decoder chain{{decoders::byte_level{}}};
  text::decoding run(chain);
  const auto push = [&](std::string_view token) {
    std::string out;
    run.push(token, false, out);
    return out;
  };
  CHECK(push("\u00F0") == "");        // byte F0
  CHECK(push("\u0141\u013A") == "");  // bytes 9F 98
  CHECK(push("\u0122a") ==
        "\U0001F600"
        "a");  // byte 80
  CHECK(push("\u00C3") == "");
  CHECK(push("x") == "\uFFFDx");  // can't be completed any more
  CHECK(push("\u0120y") == " y");
  CHECK(push("a b\u4E00") == "a b\u4E00");  // not in the alphabet: its own text
  CHECK(push("\u00E4") == "");
  std::string rest;
  run.finish(rest);
  CHECK(rest == "\uFFFD");
}

TEST_CASE("steps for single texts") {
  CHECK(decoded({{decoders::metaspace{"\u2581", false}}}, {"\u2581a\u2581b", "\u2581c"}) == "ab c");
  CHECK(decoded({{decoders::metaspace{"\u2581", true}}}, {"\u2581a\u2581b", "\u2581c"}) == " a b c");
  CHECK(decoded({{decoders::join_by_space{}}}, {"a", "", "b"}) == "a  b");
  CHECK(decoded({{decoders::strip{U'x', 1, 2}}}, {"xxaxxx", "x", "axx", "xa"}) == "xaxaa");
  CHECK(decoded({{decoders::fuse{}, decoders::strip{U'x', 1, 2}}}, {"xxax", "xx", "x"}) == "xaxx");
  CHECK(decoded({{decoders::replace_regex{text::regex("a+", "test"), "-"}}}, {"baa", "ab"}) == "b--b");
  CHECK(decoded({{decoders::fuse{}, decoders::replace_regex{text::regex("a+", "test"), "-"}}}, {"baa", "ab"}) == "b-b");
}

TEST_CASE("a replacement across parts of a fused text equals the replacement in the whole") {
  const text::decoder chain{{decoders::fuse{}, decoders::replace_text{"aab", "X"}}};
  const effinfer::random_stream random{7};
  for (std::uint64_t n = 0; n < 500; ++n) {
    list tokens;
    std::string whole;
    for (std::uint32_t i = 0; i < 12; ++i) {
      std::string token;
      for (std::uint32_t k = 0; k < 3; ++k) {
        if (random.uniform(n, 3 * i + k) < 0.7f)
          token.push_back(random.uniform(n + 1000, 3 * i + k) < 0.65f ? 'a' : 'b');
      }
      whole += token;
      tokens.push_back(token);
    }
    text::decoder::replace_all(whole, "aab", "X");
    REQUIRE(decoded(chain, tokens) == whole);
  }
}

TEST_CASE("the bytes of a token") {
  CHECK(llama2().bytes_of("\u2581the", false) == " the");
  CHECK(llama2().bytes_of("<0xE4>", false) == "\xE4");
  CHECK(llama2().bytes_of("<0xE4>", true) == "<0xE4>");
  CHECK(text::decoder{{decoders::byte_level{}}}.bytes_of("\u0120\u00E4", false) == " \xE4");
  CHECK_FALSE(text::byte_of_fallback("<0xG0>").has_value());
  CHECK_FALSE(text::byte_of_fallback("<0x00").has_value());
}

}  // namespace decoder_tests
