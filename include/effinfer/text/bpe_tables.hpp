#pragma once
// The tables that merging looks things up in: merges by pairs of symbols, symbols by characters.

#include <effinfer/core/config.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace effinfer::inline v0::text {

/// Which pairs of symbols merge, into what, and in which order. A flat hash table: one probe is mostly one cache line.
class merge_table {
 public:
  static constexpr std::uint32_t no_rank = 0xFFFFFFFFu;
  struct merge {
    std::uint32_t rank = no_rank;  ///< the smallest merges first
    std::int32_t result = -1;
  };

  void reserve(std::size_t merges) {
    if (2 * merges > slots_.size()) rehash(2 * merges);
  }
  /// Adds a pair. If it is there already, the new rank replaces the old one when `replaces` is set.
  void add(int left, int right, merge m, bool replaces) {
    if (2 * (count_ + 1) > slots_.size()) rehash(4 * (count_ + 1));
    slot& s = slots_[slot_of(key(left, right))];
    if (s.key == empty) {
      s = {key(left, right), m};
      ++count_;
    } else if (replaces) {
      s.value = m;
    }
  }
  [[nodiscard]] merge find(int left, int right) const {
    if (slots_.empty()) return {};
    const slot& s = slots_[slot_of(key(left, right))];
    return s.key == empty ? merge{} : s.value;
  }
  [[nodiscard]] std::size_t size() const { return count_; }
  /// Calls `use(merge)` for each pair's merge, in no order.
  template <class Use>
  void for_each(Use use) const {
    for (const slot& s : slots_) {
      if (s.key != empty) use(s.value);
    }
  }

 private:
  static constexpr std::uint64_t empty = ~std::uint64_t{0};
  struct slot {
    std::uint64_t key = empty;
    merge value;
  };
  static std::uint64_t key(int left, int right) {
    return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) | static_cast<std::uint32_t>(right);
  }
  [[nodiscard]] std::size_t slot_of(std::uint64_t k) const {
    std::uint64_t hash = k * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
    std::size_t i = static_cast<std::size_t>(hash) & (slots_.size() - 1);
    while (slots_[i].key != empty && slots_[i].key != k) i = (i + 1) & (slots_.size() - 1);
    return i;
  }
  void rehash(std::size_t wanted) {
    std::size_t size = 16;
    while (size < wanted) size *= 2;
    std::vector<slot> old(size);
    old.swap(slots_);
    for (const slot& s : old) {
      if (s.key != empty) slots_[slot_of(s.key)] = s;
    }
  }

  std::vector<slot> slots_;  // a power of two, at most half full
  std::size_t count_ = 0;
};

/// Symbols by code point: two stages, so that a look-up is two loads and an absent plane costs nothing.
class character_table {
 public:
  void set(char32_t c, int symbol) {
    if (pages_.empty()) pages_.resize(0x110000 / 256, -1);
    std::int32_t& page = pages_[c / 256];
    if (page < 0) {
      page = static_cast<std::int32_t>(symbols_.size());
      symbols_.resize(symbols_.size() + 256, -1);
    }
    symbols_[static_cast<std::size_t>(page) + c % 256] = symbol;
  }
  [[nodiscard]] int find(char32_t c) const {
    if (pages_.empty() || pages_[c / 256] < 0) return -1;
    return symbols_[static_cast<std::size_t>(pages_[c / 256]) + c % 256];
  }

 private:
  std::vector<std::int32_t> pages_;  // by c / 256: where its 256 symbols begin, or -1
  std::vector<std::int32_t> symbols_;
};

}  // namespace effinfer::inline v0::text
