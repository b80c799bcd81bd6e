// UTF-8 against an oracle of the other kind: every byte sequence of up to three bytes is judged by decoding it with
// arithmetic and asking whether encoding the value again gives the same bytes.

#include <effinfer/text/utf8.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace utf8_tests {

namespace text = effinfer::text;

namespace {

std::string bytes(std::initializer_list<int> values) {
  std::string out;
  for (const int v : values) out.push_back(static_cast<char>(v));
  return out;
}

// Encodes by the definition, independently of append_utf8.
std::string encoded(std::uint32_t c) {
  if (c < 0x80) return bytes({static_cast<int>(c)});
  if (c < 0x800) return bytes({static_cast<int>(0xC0 + c / 64), static_cast<int>(0x80 + c % 64)});
  if (c < 0x10000) {
    return bytes(
        {static_cast<int>(0xE0 + c / 4096), static_cast<int>(0x80 + c / 64 % 64), static_cast<int>(0x80 + c % 64)});
  }
  return bytes({static_cast<int>(0xF0 + c / 262144), static_cast<int>(0x80 + c / 4096 % 64),
                static_cast<int>(0x80 + c / 64 % 64), static_cast<int>(0x80 + c % 64)});
}

}  // namespace

TEST_CASE("every code point goes to UTF-8 and back") {
  for (std::uint32_t c = 0; c <= 0x10FFFF; ++c) {
    const std::string wanted = encoded(c);
    const bool is_surrogate = c >= 0xD800 && c <= 0xDFFF;
    if (is_surrogate) {
      REQUIRE(text::find_invalid_utf8(wanted) == 0);
      continue;
    }
    std::string got;
    text::append_utf8(got, c);
    REQUIRE(got == wanted);
    REQUIRE(text::find_invalid_utf8(got) == std::string::npos);
    REQUIRE(text::first_code_point(got).value == c);
    REQUIRE(text::first_code_point(got).length == static_cast<int>(got.size()));
    REQUIRE(text::last_code_point("x" + got).value == c);
    for (std::size_t n = 1; n < got.size(); ++n) {
      const text::utf8_unit unit = text::first_utf8_unit(got.substr(0, n));
      REQUIRE(unit.status == text::utf8_status::incomplete);
      REQUIRE(unit.length == static_cast<int>(n));
    }
  }
}

TEST_CASE("invalid UTF-8 is found where it begins") {
  CHECK(text::find_invalid_utf8("") == std::string::npos);
  CHECK(text::find_invalid_utf8("plain ascii, longer than eight bytes") == std::string::npos);
  CHECK(text::find_invalid_utf8("plain ascii, longer\xFF") == 19);
  CHECK(text::find_invalid_utf8("\xC3\xA4\xC3") == 2);
  CHECK(text::find_invalid_utf8("\x80") == 0);
  CHECK(text::find_invalid_utf8("a\xC0\xAF") == 1);          // overlong
  CHECK(text::find_invalid_utf8("a\xE0\x9F\xBF") == 1);      // overlong
  CHECK(text::find_invalid_utf8("a\xF4\x90\x80\x80") == 1);  // beyond U+10FFFF
  CHECK(text::find_invalid_utf8("12345678\xED\xA0\x80") == 8);
}

TEST_CASE("the assembler replaces maximal subparts, as the Unicode Standard's table 3-11 shows") {
  const std::string broken = bytes({0xE1, 0x80, 0xE2, 0xF0, 0x91, 0x92, 0xF1, 0xBF, 0x41});
  std::string wanted;
  for (int i = 0; i < 4; ++i) wanted += text::replacement_character;
  wanted += 'A';
  // The same in every way of cutting the bytes in two.
  for (std::size_t cut = 0; cut <= broken.size(); ++cut) {
    text::utf8_assembler assembler;
    std::string out;
    assembler.push(broken.substr(0, cut), out);
    assembler.push(broken.substr(cut), out);
    assembler.finish(out);
    CHECK(out == wanted);
  }
  text::utf8_assembler by_byte(text::broken_bytes::one_a_byte);
  std::string out;
  by_byte.push(bytes({0xF0, 0x91, 0x92}), out);
  CHECK(out.empty());
  CHECK(by_byte.has_pending());
  by_byte.finish(out);
  CHECK(out == "\uFFFD\uFFFD\uFFFD");
}

}  // namespace utf8_tests
