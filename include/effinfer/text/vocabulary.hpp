#pragma once
// The tokens of a model: texts by id and ids by text. All texts lie in one block of memory; the way back is an
// open-addressing hash table of ids, so a look-up touches one cache line for the slot and one for the text.

#include <effinfer/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace effinfer::inline v0::text {

/// Hashes short strings, eight bytes at a time; the same on every machine of one byte order.
inline std::uint64_t hash_bytes(std::string_view bytes) {
  constexpr std::uint64_t multiplier = 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio: spreads neighbouring values
  std::uint64_t hash = bytes.size() * multiplier;
  const char* p = bytes.data();
  std::size_t left = bytes.size();
  const auto mix = [&](std::uint64_t word) {
    hash = (hash ^ word) * multiplier;
    hash ^= hash >> 32;
  };
  for (; left >= 8; left -= 8, p += 8) {
    std::uint64_t word;
    std::memcpy(&word, p, 8);
    mix(word);
  }
  if (left > 0) {
    std::uint64_t word = 0;
    std::memcpy(&word, p, left);
    mix(word);
  }
  return hash;
}

/// Token texts by id and back. Ids need not be dense: some may name no token.
class vocabulary {
 public:
  /// Ids above this are taken for damage. The largest vocabularies published have some 256 thousand tokens.
  static constexpr std::int64_t max_id = (1 << 24) - 1;

  /// Makes room for `tokens` tokens, so that adding them does not move the others.
  void reserve(std::size_t tokens, std::size_t bytes = 0) {
    entries_.reserve(tokens);
    bytes_.reserve(bytes);
    if (2 * tokens > slots_.size()) rehash(2 * tokens);
  }

  /// Adds a token. False, and nothing changes, if the text or the id is there already.
  /// Precondition: 0 <= id <= max_id; the caller has bounded id against the size of its input.
  bool add(std::string_view text, int id) {
    if (has(id) || find(text) >= 0) return false;
    const auto index = static_cast<std::size_t>(id);
    if (index >= entries_.size()) entries_.resize(index + 1);
    entries_[index] = {bytes_.size(), static_cast<std::int64_t>(text.size())};
    bytes_.append(text);
    ++count_;
    if (2 * count_ > slots_.size()) {
      rehash(4 * count_);
    } else {
      place(id);
    }
    return true;
  }

  /// One more than the greatest id.
  [[nodiscard]] int size() const { return static_cast<int>(entries_.size()); }
  /// How many ids name a token.
  [[nodiscard]] std::size_t count() const { return count_; }

  [[nodiscard]] bool has(int id) const {
    return id >= 0 && static_cast<std::size_t>(id) < entries_.size() &&
           entries_[static_cast<std::size_t>(id)].length >= 0;
  }
  /// The text of a token; empty for an id that names none.
  [[nodiscard]] std::string_view text(int id) const {
    if (!has(id)) return {};
    const entry& e = entries_[static_cast<std::size_t>(id)];
    return {bytes_.data() + e.offset, static_cast<std::size_t>(e.length)};
  }
  /// The id of a text, or -1.
  [[nodiscard]] int find(std::string_view wanted) const {
    if (slots_.empty()) return -1;
    const std::uint64_t hash = hash_bytes(wanted);
    for (std::size_t i = first_slot(hash);; i = next(i)) {
      const slot s = slots_[i];
      if (s.id < 0 || (s.tag == tag_of(hash) && text(s.id) == wanted)) return s.id;
    }
  }

 private:
  struct entry {
    std::size_t offset = 0;
    std::int64_t length = -1;  // -1: no token has this id
  };
  struct slot {
    std::int32_t id = -1;   // -1: free
    std::uint32_t tag = 0;  // upper half of the hash: tells nearly all other texts apart without a look at them
  };

  static std::uint32_t tag_of(std::uint64_t hash) { return static_cast<std::uint32_t>(hash >> 32); }
  [[nodiscard]] std::size_t first_slot(std::uint64_t hash) const {
    return static_cast<std::size_t>(hash) & (slots_.size() - 1);
  }
  [[nodiscard]] std::size_t next(std::size_t i) const { return (i + 1) & (slots_.size() - 1); }
  void place(int id) {
    const std::uint64_t hash = hash_bytes(text(id));
    std::size_t i = first_slot(hash);
    while (slots_[i].id >= 0) i = next(i);
    slots_[i] = {id, tag_of(hash)};
  }
  void rehash(std::size_t wanted) {
    std::size_t size = 16;
    while (size < wanted) size *= 2;
    slots_.assign(size, slot{});
    for (std::size_t id = 0; id < entries_.size(); ++id) {
      if (entries_[id].length >= 0) place(static_cast<int>(id));
    }
  }

  std::string bytes_;
  std::vector<entry> entries_;  // by id
  std::vector<slot> slots_;     // a power of two, at most half full
  std::size_t count_ = 0;
};

}  // namespace effinfer::inline v0::text
