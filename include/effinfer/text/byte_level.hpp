#pragma once
// The byte alphabet of GPT-2: each of the 256 bytes is written as one printable character, so that a vocabulary of
// byte strings can be kept as text. Bytes that Latin-1 prints stand for themselves, the other 68 are U+0100 onwards.
// Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), bytes_to_unicode in its code.

#include <effinfer/text/utf8.hpp>

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace effinfer::inline v0::text {

/// The character that stands for each byte.
inline constexpr std::array<char32_t, 256> byte_level_characters = [] {
  std::array<char32_t, 256> table{};
  char32_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    table[b] = printable ? static_cast<char32_t>(b) : next++;
  }
  return table;
}();

/// The byte that each character below U+0144 stands for, or -1.
inline constexpr std::array<short, 0x144> byte_level_bytes = [] {
  std::array<short, 0x144> table{};
  for (auto& b : table) b = -1;
  for (unsigned b = 0; b < 256; ++b) table[byte_level_characters[b]] = static_cast<short>(b);
  return table;
}();

/// Appends `bytes`, written in the alphabet, to `out`.
inline void append_byte_level(std::string_view bytes, std::string& out) {
  for (const char b : bytes) append_utf8(out, byte_level_characters[static_cast<unsigned char>(b)]);
}

/// The bytes that well-formed `text` stands for; nothing if one of its characters is outside the alphabet.
inline std::optional<std::string> bytes_of_byte_level(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const code_point c = first_code_point(text);
    if (c.value >= byte_level_bytes.size() || byte_level_bytes[c.value] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(static_cast<unsigned char>(byte_level_bytes[c.value])));
    text.remove_prefix(static_cast<std::size_t>(c.length));
  }
  return bytes;
}

static_assert(byte_level_characters[' '] == 0x120 && byte_level_characters['\n'] == 0x10A &&
              byte_level_characters[0xAD] == 0x143 && byte_level_bytes[0x120] == ' ');

}  // namespace effinfer::inline v0::text
