#pragma once
// Which positions a cache holds, wherever its memory is: all, or in a ring the last ones.

#include <effinfer/core/error.hpp>
#include <effinfer/kv_cache/saved_bytes.hpp>
#include <effinfer/kv_cache/shape.hpp>

#include <algorithm>
#include <cstdint>
#include <string>

namespace effinfer::inline v0::kv_cache::detail {

/// Positions [first(), length()), position p in slot p % slots. `window` positions before the next one are always held; 0: all of them,
/// and then at most `slots` fit.
class held_positions {
 public:
  held_positions(int slots, int window) : slots_(slots), window_(window) {}

  /// Tokens read, also those no longer held.
  [[nodiscard]] int length() const { return length_; }
  /// The oldest position held.
  [[nodiscard]] int first() const { return first_; }
  /// Positions that memory is there for.
  [[nodiscard]] int capacity() const { return slots_; }
  /// The most tokens that one `write` takes now.
  [[nodiscard]] int room() const { return window_ == 0 ? slots_ - length_ : slots_ - window_ + 1; }

  /// `tokens` tokens, written in every layer, are now part of the sequence.
  void commit(int tokens) { length_ += tokens; }

  /// The shortest length that `truncate` can go back to: 0, or in a ring that has let positions go the one whose next
  /// token still sees its whole window.
  [[nodiscard]] int truncation_limit() const { return first_ == 0 ? 0 : std::min(length_, first_ + window_ - 1); }
  /// Forgets all tokens from position n on; false, and nothing changes, where n < truncation_limit().
  /// Errors: `invalid_argument` (n outside [0, length()]).
  bool truncate(int n) {
    if (n < 0 || n > length_) {
      throw error(error_code::invalid_argument, "kv_cache.truncate",
                  std::to_string(n) + " is not in [0, " + std::to_string(length_) + "]");
    }
    if (n == 0) return clear(), true;
    if (n < truncation_limit()) return false;
    length_ = n;
    return true;
  }

  /// A point to come back to. Cost: nothing.
  struct mark {
    int length = 0;
  };
  [[nodiscard]] mark snapshot() const { return {length_}; }
  /// Forgets what was written since; false, and nothing changes, where a ring has let too much go.
  bool rollback(mark m) { return truncate(m.length); }

  /// No tokens, nothing held.
  void clear() { first_ = length_ = 0; }

 protected:
  /// Room for `tokens` more: a ring lets its oldest positions go.
  void make_room(int tokens) { first_ = std::max(first_, length_ + tokens - slots_); }

  /// Errors: `malformed`, `mismatch` (another shape or number type, more positions than fit, or a shorter window than this ring's).
  void check_saved(const saved_header& h, const shape& s, std::int32_t element) const {
    check_field(h.element, element, "number type");
    check_field(h.layers, s.layers, "layers");
    check_field(h.heads, s.kv_heads, "kv_heads");
    check_field(h.head_size, s.head_size, "head_size");
    if (h.first < 0 || h.length < h.first)
      throw error(error_code::malformed, "kv_cache.load", "impossible positions in the header");
    if (h.length - h.first > slots_ || (window_ == 0 && h.first > 0)) {
      throw error(error_code::mismatch, "kv_cache.load",
                  "positions [" + std::to_string(h.first) + ", " + std::to_string(h.length) + ") were saved, " +
                      std::to_string(slots_) + " fit");
    }
    if (h.first > 0 && h.length - h.first < window_ - 1) {
      throw error(error_code::mismatch, "kv_cache.load",
                  std::to_string(h.length - h.first) + " positions were saved, the window needs " +
                      std::to_string(window_ - 1));
    }
  }

  /// f(index of the first element, number of elements) for each piece of memory that positions [first, length) take up.
  template <class F>
  void for_each_run(const shape& s, int row, int first, int length, const F& f) const {
    const auto d = static_cast<std::uint64_t>(row), head_elements = static_cast<std::uint64_t>(slots_) * d;
    const auto blocks = 2 * static_cast<std::uint64_t>(s.layers) * static_cast<std::uint64_t>(s.kv_heads);
    for (std::uint64_t block = 0; block < blocks; ++block) {
      for (int p = first; p < length;) {
        const int slot = p % slots_;
        const int n = std::min(length - p, slots_ - slot);
        f(block * head_elements + static_cast<std::uint64_t>(slot) * d, static_cast<std::uint64_t>(n) * d);
        p += n;
      }
    }
  }

  int slots_ = 0;
  int window_ = 0;
  int first_ = 0;
  int length_ = 0;
};

}  // namespace effinfer::inline v0::kv_cache::detail
