#pragma once
// What a tokenizer asks of Unicode: classes of characters, the four normal forms, lower case. Tables: utf8proc.
// The classes are those that Rust and its regex crate use, since Hugging Face's tokenizers are written in it.

#include <effinfer/core/error.hpp>
#include <effinfer/text/utf8.hpp>

#include <utf8proc.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace effinfer::inline v0::text {

/// The Unicode property White_Space.
constexpr bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

inline utf8proc_category_t general_category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

/// General category M (marks that combine with the character before them).
inline bool is_mark(char32_t c) {
  const auto category = general_category(c);
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

/// General category N (digits, letters used as numbers, fractions ...).
inline bool is_number(char32_t c) {
  const auto category = general_category(c);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

/// General category P, or any ASCII character that is punctuation in C.
inline bool is_punctuation(char32_t c) {
  if (c < 0x80)
    return (c > 0x20 && c < 0x30) || (c > 0x39 && c < 0x41) || (c > 0x5A && c < 0x61) || (c > 0x7A && c < 0x7F);
  const auto category = general_category(c);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

/// \w of UTS #18: Alphabetic, marks, decimal digits, connector punctuation, join controls.
inline bool is_word(char32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
  switch (general_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: break;
  }
  // Join controls, and the circled, squared and negative letters: symbols that are Other_Alphabetic.
  return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
         (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

/// Appends the lower-case form of one character: the simple mapping, except U+0130, which becomes two characters.
inline void append_lower_case(std::string& out, char32_t c) {
  if (c == 0x130) {
    out.append("i\xCC\x87");
  } else if (c < 0x80) {
    out.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
  } else {
    append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
}

/// The four normal forms of Unicode Standard Annex #15.
enum class normal_form { nfc, nfd, nfkc, nfkd };

/// The normal form of well-formed text. Errors: limit for text beyond what utf8proc can hold.
inline std::string to_normal_form(normal_form form, std::string_view text) {
  // Below U+0300 nothing composes further, below U+00A0 nothing decomposes: most text needs no look at the tables.
  const unsigned char unchanged_below = form == normal_form::nfc ? 0xCC : 0xC2;
  bool is_unchanged = true;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= unchanged_below) {
      is_unchanged = false;
      break;
    }
  }
  if (is_unchanged) return std::string(text);

  int options = UTF8PROC_STABLE;
  options |= form == normal_form::nfc || form == normal_form::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == normal_form::nfkc || form == normal_form::nfkd) options |= UTF8PROC_COMPAT;
  const auto flags = static_cast<utf8proc_option_t>(options);
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto size = static_cast<utf8proc_ssize_t>(text.size());

  const auto check = [](utf8proc_ssize_t result) {
    if (result < 0) throw error(error_code::limit, "text::to_normal_form, argument text", utf8proc_errmsg(result));
    return static_cast<std::size_t>(result);
  };
  std::vector<utf8proc_int32_t> points(check(utf8proc_decompose(bytes, size, nullptr, 0, flags)));
  check(utf8proc_decompose(bytes, size, points.data(), static_cast<utf8proc_ssize_t>(points.size()), flags));
  points.resize(check(utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()), flags)));
  std::string out;
  out.reserve(text.size());
  for (const utf8proc_int32_t point : points) append_utf8(out, static_cast<char32_t>(point));
  return out;
}

}  // namespace effinfer::inline v0::text
