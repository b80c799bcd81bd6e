#pragma once
// Sets of Unicode scalar values, and the byte strings that a range of them is written as in UTF-8.
// Source of the byte ranges: The Unicode Standard 15.0, table 3-7.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// Both ends belong to the range.
struct code_point_range {
  char32_t first, last;
  friend bool operator==(const code_point_range&, const code_point_range&) = default;
};

/// A set of Unicode scalar values (U+0000 to U+10FFFF without the surrogates), as sorted ranges with gaps between them.
class code_point_set {
 public:
  static constexpr char32_t greatest = 0x10FFFF;

  code_point_set() = default;
  code_point_set(char32_t first, char32_t last) { add(first, last); }

  /// All scalar values.
  static code_point_set all() { return {0, greatest}; }

  /// Adds a range; surrogates in it, and an empty one (first > last), add nothing.
  void add(char32_t first, char32_t last) {
    last = std::min(last, greatest);
    if (first < 0xD800 && last > 0xDFFF) {
      add(first, 0xD7FF);
      return add(0xE000, last);
    }
    if (first >= 0xD800 && first <= 0xDFFF) first = 0xE000;
    if (last >= 0xD800 && last <= 0xDFFF) last = 0xD7FF;
    if (first > last) return;
    // U+D7FF and U+E000 are neighbours: no range bridges them, so ranges stay inside the scalar values.
    const auto from = std::lower_bound(ranges_.begin(), ranges_.end(), first,
                                       [](const code_point_range& r, char32_t c) { return r.last + 1 < c; });
    auto to = from;
    while (to != ranges_.end() && to->first <= last + 1) {
      first = std::min(first, to->first);
      last = std::max(last, to->last);
      ++to;
    }
    if (from == to) {
      ranges_.insert(from, {first, last});
    } else {
      *from = {first, last};
      ranges_.erase(from + 1, to);
    }
  }
  void add(const code_point_set& other) {
    for (const code_point_range& r : other.ranges_) add(r.first, r.last);
  }

  /// The scalar values that are not in the set.
  [[nodiscard]] code_point_set complement() const {
    code_point_set out;
    char32_t next = 0;
    for (const code_point_range& r : ranges_) {
      if (r.first > next) out.add(next, r.first - 1);
      next = r.last + 1;
    }
    out.add(next, greatest);
    return out;
  }
  /// The values that are not in the other set.
  [[nodiscard]] code_point_set without(const code_point_set& other) const {
    code_point_set both = complement();
    both.add(other);
    return both.complement();
  }
  [[nodiscard]] bool contains(char32_t c) const {
    return std::any_of(ranges_.begin(), ranges_.end(),
                       [&](const code_point_range& r) { return c >= r.first && c <= r.last; });
  }
  [[nodiscard]] bool empty() const { return ranges_.empty(); }
  [[nodiscard]] const std::vector<code_point_range>& ranges() const& { return ranges_; }
  [[nodiscard]] std::vector<code_point_range> ranges() && { return std::move(ranges_); }

 private:
  std::vector<code_point_range> ranges_;
};

/// Byte strings of one length: at place i a byte from low[i] to high[i].
struct byte_sequence {
  int length = 0;
  std::array<std::uint8_t, 4> low{}, high{};
};

/// Calls `use(byte_sequence)` for each of the few sequences whose strings are the UTF-8 of a range of scalar values.
template <class Use>
void for_each_utf8_sequence(char32_t first, char32_t last, Use&& use) {
  // Cut where the length changes, then where the low bits don't run through all their values; what is left is a product of ranges.
  for (const char32_t border : {char32_t{0x7F}, char32_t{0x7FF}, char32_t{0xFFFF}}) {
    if (first <= border && last > border) {
      for_each_utf8_sequence(first, border, use);
      return for_each_utf8_sequence(border + 1, last, use);
    }
  }
  const int length = first < 0x80 ? 1 : first < 0x800 ? 2 : first < 0x10000 ? 3 : 4;
  for (int i = 1; i < length; ++i) {
    const char32_t low_bits = (char32_t{1} << (6 * i)) - 1;
    if ((first | low_bits) == (last | low_bits)) continue;
    if ((first & low_bits) != 0) {
      for_each_utf8_sequence(first, first | low_bits, use);
      return for_each_utf8_sequence((first | low_bits) + 1, last, use);
    }
    if ((last & low_bits) != low_bits) {
      for_each_utf8_sequence(first, (last & ~low_bits) - 1, use);
      return for_each_utf8_sequence(last & ~low_bits, last, use);
    }
  }
  constexpr std::array<char32_t, 5> lead{0, 0, 0xC0, 0xE0, 0xF0};
  byte_sequence s;
  s.length = length;
  for (int i = 0; i < length; ++i) {
    const int shift = 6 * (length - 1 - i);
    const char32_t mark = i == 0 ? lead[static_cast<std::size_t>(length)] : 0x80;
    const char32_t bits = i == 0 ? 0xFF : 0x3F;
    s.low[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(mark | ((first >> shift) & bits));
    s.high[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(mark | ((last >> shift) & bits));
  }
  use(s);
}

}  // namespace effinfer::inline v0::decoding::grammar
