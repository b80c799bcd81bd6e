#pragma once
// UTF-8: checking, decoding, encoding, and putting characters together from bytes that arrive in parts.
// Source: The Unicode Standard 15.0, table 3-7 (well-formed byte sequences) and section 3.9, "U+FFFD substitution of
// maximal subparts", which the WHATWG encoding standard and Rust's from_utf8_lossy follow too.

#include <effinfer/core/config.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace effinfer::inline v0::text {

/// What stands at the beginning of some bytes.
enum class utf8_status {
  character,   ///< one whole character
  incomplete,  ///< the beginning of a character, cut off by the end of the bytes
  broken,      ///< bytes that can't become a character whatever follows
};

/// `length` is the character's bytes, the bytes there are of an incomplete one, or the maximal broken subpart (>= 1).
struct utf8_unit {
  utf8_status status;
  int length;
};

/// Looks at the first character of `bytes`, which must not be empty.
constexpr utf8_unit first_utf8_unit(std::string_view bytes) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned lead = at(0);
  if (lead < 0x80) return {utf8_status::character, 1};
  if (lead < 0xC2 || lead > 0xF4) return {utf8_status::broken, 1};
  const int length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range shuts out overlong forms (E0, F0), surrogates (ED) and values beyond U+10FFFF (F4).
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (int i = 1; i < length; ++i) {
    if (static_cast<std::size_t>(i) >= bytes.size()) return {utf8_status::incomplete, i};
    const unsigned byte = at(static_cast<std::size_t>(i));
    if (byte < (i == 1 ? low : 0x80u) || byte > (i == 1 ? high : 0xBFu)) return {utf8_status::broken, i};
  }
  return {utf8_status::character, length};
}

/// Where the first byte that isn't part of a well-formed character stands, or npos.
inline std::size_t find_invalid_utf8(std::string_view bytes) {
  std::size_t i = 0;
  while (i < bytes.size()) {
    while (bytes.size() - i >= 8) {  // ASCII, eight bytes at a time
      std::uint64_t eight;
      std::memcpy(&eight, bytes.data() + i, 8);
      if (eight & 0x8080808080808080u) break;
      i += 8;
    }
    if (i == bytes.size()) break;
    const utf8_unit unit = first_utf8_unit(bytes.substr(i));
    if (unit.status != utf8_status::character) return i;
    i += static_cast<std::size_t>(unit.length);
  }
  return std::string_view::npos;
}

/// A code point and its bytes in UTF-8.
struct code_point {
  char32_t value;
  int length;
};

/// The first character of well-formed, non-empty text.
constexpr code_point first_code_point(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[i])); };
  const char32_t lead = at(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {((lead & 0x1F) << 6) | (at(1) & 0x3F), 2};
  if (lead < 0xF0) return {((lead & 0x0F) << 12) | ((at(1) & 0x3F) << 6) | (at(2) & 0x3F), 3};
  return {((lead & 0x07) << 18) | ((at(1) & 0x3F) << 12) | ((at(2) & 0x3F) << 6) | (at(3) & 0x3F), 4};
}

/// Bytes of the character whose first byte is `lead`, in well-formed text.
constexpr int utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// The last character of well-formed, non-empty text.
constexpr code_point last_code_point(std::string_view text) {
  std::size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return first_code_point(text.substr(begin));
}

/// Appends a code point (a Unicode scalar value) to `out`.
inline void append_utf8(std::string& out, char32_t c) {
  const auto byte = [&](char32_t b) { out.push_back(static_cast<char>(static_cast<unsigned char>(b))); };
  if (c < 0x80) {
    byte(c);
  } else if (c < 0x800) {
    byte(0xC0 | (c >> 6));
    byte(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    byte(0xE0 | (c >> 12));
    byte(0x80 | ((c >> 6) & 0x3F));
    byte(0x80 | (c & 0x3F));
  } else {
    byte(0xF0 | (c >> 18));
    byte(0x80 | ((c >> 12) & 0x3F));
    byte(0x80 | ((c >> 6) & 0x3F));
    byte(0x80 | (c & 0x3F));
  }
}

/// U+FFFD, which stands for bytes that are no character.
inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

/// How many U+FFFD stand for broken bytes.
enum class broken_bytes {
  one_a_subpart,  ///< one for each maximal subpart, as from_utf8_lossy
  one_a_byte,     ///< one for each byte
};

/// Puts characters together from bytes that arrive in parts. Whole characters come out as soon as they are there;
/// what can no longer become a character comes out as U+FFFD.
class utf8_assembler {
 public:
  explicit utf8_assembler(broken_bytes rule = broken_bytes::one_a_subpart) : rule_(rule) {}

  /// Takes more bytes and appends what they complete to `out`.
  void push(std::string_view bytes, std::string& out) {
    pending_.append(bytes);
    std::string_view rest = pending_;
    while (!rest.empty()) {
      const utf8_unit unit = first_utf8_unit(rest);
      if (unit.status == utf8_status::incomplete) break;
      const auto length = static_cast<std::size_t>(unit.length);
      if (unit.status == utf8_status::character) {
        out.append(rest.substr(0, length));
      } else {
        replace(length, out);
      }
      rest.remove_prefix(length);
    }
    pending_.erase(0, pending_.size() - rest.size());
  }

  /// The bytes end here: a character that was begun becomes U+FFFD. Ready for the next run of bytes.
  void finish(std::string& out) {
    if (!pending_.empty()) replace(pending_.size(), out);
    pending_.clear();
  }

  [[nodiscard]] bool has_pending() const { return !pending_.empty(); }

 private:
  void replace(std::size_t bytes, std::string& out) const {
    const std::size_t count = rule_ == broken_bytes::one_a_byte ? bytes : 1;
    for (std::size_t i = 0; i < count; ++i) out.append(replacement_character);
  }

  broken_bytes rule_;
  std::string pending_;  // at most three bytes
};

}  // namespace effinfer::inline v0::text
