// Classes and normal forms, on characters whose answer stands in the Unicode Standard.

#include <effinfer/text/byte_level.hpp>
#include <effinfer/text/unicode.hpp>

#include <doctest/doctest.h>

#include <set>
#include <string>

namespace unicode_tests {

namespace text = effinfer::text;

TEST_CASE("classes") {
  int spaces = 0;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) spaces += text::is_white_space(c);
  CHECK(spaces == 25);  // PropList.txt: "Total code points: 25"
  CHECK(text::is_white_space(0x85));
  CHECK_FALSE(text::is_white_space(0x180E));
  CHECK_FALSE(text::is_white_space(0x200B));
  for (const char32_t c :
       {U'a', U'_', U'9', U'\u00AA', U'\u0301', U'\u203F', U'\u200D', U'\u24B6', U'\u2160', U'\U0001F170'}) {
    CHECK(text::is_word(c));
  }
  for (const char32_t c : {U' ', U'-', U'\u00B2', U'\u00BD', U'\u2460', U'\u2019', U'\u24EA'})
    CHECK_FALSE(text::is_word(c));
  for (const char32_t c : {U'7', U'\u00B2', U'\u2160', U'\u0664'}) CHECK(text::is_number(c));
  CHECK_FALSE(text::is_number(U'a'));
  for (const char32_t c : {U'!', U'$', U'`', U'\u00AB', U'\u3001'}) CHECK(text::is_punctuation(c));
  for (const char32_t c : {U'a', U' ', U'1', U'\u20AC', U'\u00A9'}) CHECK_FALSE(text::is_punctuation(c));
}

TEST_CASE("normal forms") {
  using text::normal_form;
  const std::string angstrom = "\u212B";
  CHECK(text::to_normal_form(normal_form::nfc, angstrom) == "\u00C5");
  CHECK(text::to_normal_form(normal_form::nfd, angstrom) == "A\u030A");
  CHECK(text::to_normal_form(normal_form::nfc, "\uFB01") == "\uFB01");
  CHECK(text::to_normal_form(normal_form::nfkc, "\uFB01 \u00BD") == "fi 1\u20442");
  CHECK(text::to_normal_form(normal_form::nfkd, "\u00E9\uFB01") == "e\u0301fi");
  CHECK(text::to_normal_form(normal_form::nfd, "\uAC00") == "\u1100\u1161");
  CHECK(text::to_normal_form(normal_form::nfc, "\u1100\u1161") == "\uAC00");
  CHECK(text::to_normal_form(normal_form::nfd, "a\u0308\u0323") == "a\u0323\u0308");  // canonical order
  CHECK(text::to_normal_form(normal_form::nfc, "\u0958") == "\u0915\u093C");          // composition exclusion
  CHECK(text::to_normal_form(normal_form::nfkc, "\u00A0") == " ");
  CHECK(text::to_normal_form(normal_form::nfc, std::string("a\0b", 3)) == std::string("a\0b", 3));
}

TEST_CASE("lower case") {
  const auto lower = [](char32_t c) {
    std::string out;
    text::append_lower_case(out, c);
    return out;
  };
  CHECK(lower(U'A') == "a");
  CHECK(lower(U'\u00C4') == "\u00E4");
  CHECK(lower(U'\u0130') == "i\u0307");
  CHECK(lower(U'\u03A3') == "\u03C3");
  CHECK(lower(U'\u4E00') == "\u4E00");
}

TEST_CASE("the byte alphabet is one to one") {
  std::set<char32_t> characters(text::byte_level_characters.begin(), text::byte_level_characters.end());
  CHECK(characters.size() == 256);
  std::string all;
  for (int b = 0; b < 256; ++b) all.push_back(static_cast<char>(b));
  std::string written;
  text::append_byte_level(all, written);
  CHECK(text::find_invalid_utf8(written) == std::string::npos);
  CHECK(text::bytes_of_byte_level(written) == all);
  CHECK_FALSE(text::bytes_of_byte_level("a b").has_value());
  CHECK_FALSE(text::bytes_of_byte_level("\u4E00").has_value());
}

}  // namespace unicode_tests
