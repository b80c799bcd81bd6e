#pragma once
// Byte-pair encoding: a piece of text begins as single symbols, and the adjacent pair with the best rank is merged
// into one symbol, leftmost first, until no pair has a rank.
// Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units" (ACL 2016), section
// 3.2; the merge order by score is Kudo, Richardson, "SentencePiece" (EMNLP 2018).

#include <effinfer/core/error.hpp>
#include <effinfer/text/byte_level.hpp>
#include <effinfer/text/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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

/// True if each of the 256 characters of the byte alphabet is a token.
inline bool has_byte_alphabet(const vocabulary& tokens) {
  std::string character;
  for (const char32_t c : byte_level_characters) {
    character.clear();
    append_utf8(character, c);
    if (tokens.find(character) < 0) return false;
  }
  return true;
}

/// How text becomes symbols, and what stands for characters that are no token.
struct bpe_options {
  bool byte_level = false;     ///< symbols are the bytes of the piece, written in the alphabet of byte_level.hpp
  bool byte_fallback = false;  ///< a character that is no token becomes the tokens <0x00> to <0xFF> of its bytes
  int unknown = -1;            ///< otherwise it becomes this token, or vanishes if this is negative
  bool fuse_unknown = false;   ///< a run of unknown characters becomes one token
  bool ignore_merges = false;  ///< a piece that is a token stays whole even if no merges lead to it
};

/// Memory that an encoding works in; one a call, reused from piece to piece.
struct bpe_scratch {
  struct link {
    std::int32_t previous, next;
  };
  std::vector<std::int32_t> symbols;
  std::vector<merge_table::merge> merges;  // of symbol i with the one after it
  std::vector<link> links;
  std::vector<std::uint64_t> queue;
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

/// The merge engine over one vocabulary. Immutable after construction; holds no reference to what it was made of.
class bpe {
 public:
  bpe() = default;
  /// `is_plain(id)` says whether a token may come out for a piece just because the piece is its text.
  /// `stand_ins` are characters that take part in merges without being tokens; the first has the symbol `tokens.size()`.
  /// Precondition: byte_level only if has_byte_alphabet(tokens).
  template <class IsPlain>
  bpe(const vocabulary& tokens, merge_table merges, bpe_options options, IsPlain is_plain,
      std::vector<std::string> stand_ins = {})
      : merges_(std::move(merges)),
        options_(options),
        stand_ins_(std::move(stand_ins)),
        first_stand_in_(tokens.size()) {
    index_bytes(tokens);
    if (!options_.byte_level) index_characters(tokens);
    index_pieces(tokens, is_plain);
  }

  /// Appends the tokens of `piece` to `ids`. With byte_level any bytes will do, else `piece` must be UTF-8.
  /// Cost: O(n log n) in its bytes. Errors: limit for a piece over 2 GiB.
  void encode(std::string_view piece, bpe_scratch& scratch, std::vector<int>& ids) const {
    if (piece.size() <= longest_indexed_bytes_) {
      const int whole = pieces_.find(piece);
      if (whole >= 0) {
        ids.push_back(whole);
        return;
      }
    }
    split_and_merge(piece, scratch, ids);
  }

 private:
  void index_bytes(const vocabulary& tokens) {
    static constexpr std::string_view digits = "0123456789ABCDEF";
    std::string text;
    for (std::size_t b = 0; b < 256; ++b) {
      text.clear();
      if (options_.byte_level) {
        append_utf8(text, byte_level_characters[b]);
      } else {
        text.append("<0x").append(1, digits[b / 16]).append(1, digits[b % 16]).append(">");
      }
      byte_symbols_[b] = tokens.find(text);
    }
  }

  void index_characters(const vocabulary& tokens) {
    const auto index = [&](std::string_view text, int symbol) {
      if (text.empty() || static_cast<std::size_t>(utf8_length(text[0])) != text.size()) return;
      characters_.set(first_code_point(text).value, symbol);
    };
    for (int id = 0; id < tokens.size(); ++id) index(tokens.text(id), id);
    for (std::size_t i = 0; i < stand_ins_.size(); ++i) index(stand_ins_[i], first_stand_in_ + static_cast<int>(i));
  }

  // Most pieces of real text are whole tokens, and what becomes of a token's text is known with the vocabulary. A
  // table of the texts that stay whole saves most of the merging on English.
  template <class IsPlain>
  void index_pieces(const vocabulary& tokens, IsPlain is_plain) {
    constexpr std::size_t longest_worth_trying_bytes = 128;
    bpe_scratch scratch;
    std::vector<int> ids;
    pieces_.reserve(tokens.count());
    std::size_t longest = 0;
    for (int id = 0; id < tokens.size(); ++id) {
      std::string_view piece = tokens.text(id);
      if (piece.empty() || !is_plain(id)) continue;
      std::optional<std::string> bytes;
      if (options_.byte_level) {
        bytes = bytes_of_byte_level(piece);
        if (!bytes) continue;
        piece = *bytes;
      }
      if (!options_.ignore_merges) {
        if (piece.size() > longest_worth_trying_bytes) continue;
        ids.clear();
        split_and_merge(piece, scratch, ids);
        if (ids.size() != 1 || ids[0] != id) continue;
      }
      pieces_.add(piece, id);
      longest = std::max(longest, piece.size());
    }
    longest_indexed_bytes_ = longest;
  }

  void split_and_merge(std::string_view piece, bpe_scratch& s, std::vector<int>& ids) const {
    if (piece.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
      throw error(error_code::limit, "text::bpe::encode, argument piece", "more than 2 GiB");
    }
    s.symbols.clear();
    if (options_.byte_level) {
      for (const char b : piece) s.symbols.push_back(byte_symbols_[static_cast<unsigned char>(b)]);
    } else {
      split_characters(piece, s.symbols);
    }
    // Shifting arrays beats a heap for words; 32 is where the two meet on English and on random letters.
    if (s.symbols.size() <= 32) {
      merge_short(s);
    } else {
      merge_long(s);
    }
    for (const std::int32_t symbol : s.symbols) {
      if (symbol < first_stand_in_) {
        ids.push_back(symbol);
      } else {
        const std::string& character = stand_ins_[static_cast<std::size_t>(symbol - first_stand_in_)];
        if (!append_fallback(character, ids) && options_.unknown >= 0) ids.push_back(options_.unknown);
      }
    }
  }

  void split_characters(std::string_view piece, std::vector<std::int32_t>& symbols) const {
    // As Hugging Face's `merge_word`, to the letter: an unknown token waits for the next known character (so that
    // more may be fused into it), and byte tokens overtake it.
    bool unknown_waits = false;
    while (!piece.empty()) {
      const code_point c = first_code_point(piece);
      const std::string_view character = piece.substr(0, static_cast<std::size_t>(c.length));
      piece.remove_prefix(character.size());
      const int symbol = characters_.find(c.value);
      if (symbol >= 0) {
        if (unknown_waits) symbols.push_back(options_.unknown);
        unknown_waits = false;
        symbols.push_back(symbol);
      } else if (!append_fallback(character, symbols) && options_.unknown >= 0) {
        if (unknown_waits && !options_.fuse_unknown) symbols.push_back(options_.unknown);
        unknown_waits = true;
      }
    }
    if (unknown_waits) symbols.push_back(options_.unknown);
  }

  /// The tokens of a character's bytes, if all of them are there.
  bool append_fallback(std::string_view character, std::vector<std::int32_t>& symbols) const {
    if (!options_.byte_fallback) return false;
    for (const char b : character) {
      if (byte_symbols_[static_cast<unsigned char>(b)] < 0) return false;
    }
    for (const char b : character) symbols.push_back(byte_symbols_[static_cast<unsigned char>(b)]);
    return true;
  }

  void merge_short(bpe_scratch& s) const {
    std::size_t n = s.symbols.size();
    if (n < 2) return;
    s.merges.resize(n);
    for (std::size_t i = 0; i + 1 < n; ++i) s.merges[i] = merges_.find(s.symbols[i], s.symbols[i + 1]);
    while (n > 1) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < n; ++i) {
        if (s.merges[i].rank < s.merges[best].rank) best = i;
      }
      if (s.merges[best].rank == merge_table::no_rank) break;
      s.symbols[best] = s.merges[best].result;
      for (std::size_t i = best + 1; i + 1 < n; ++i) {
        s.symbols[i] = s.symbols[i + 1];
        s.merges[i - 1] = s.merges[i];
      }
      --n;
      if (best > 0) s.merges[best - 1] = merges_.find(s.symbols[best - 1], s.symbols[best]);
      if (best + 1 < n) s.merges[best] = merges_.find(s.symbols[best], s.symbols[best + 1]);
    }
    s.symbols.resize(n);
  }

  void merge_long(bpe_scratch& s) const {
    // The queue holds rank * 2^32 + position, least first: the order of merging, with the leftmost first among
    // equals. Entries go stale when a symbol changes; s.merges says what a position would merge to now.
    const std::size_t n = s.symbols.size();
    s.merges.assign(n, {});
    s.links.resize(n);
    s.queue.clear();
    const auto last = static_cast<std::int32_t>(n) - 1;
    const auto entry = [&](std::int32_t at) {
      return (std::uint64_t{s.merges[static_cast<std::size_t>(at)].rank} << 32) | static_cast<std::uint32_t>(at);
    };
    const auto look_up = [&](std::int32_t at) {
      const std::int32_t next = s.links[static_cast<std::size_t>(at)].next;
      merge_table::merge& m = s.merges[static_cast<std::size_t>(at)];
      m = next < 0 ? merge_table::merge{}
                   : merges_.find(s.symbols[static_cast<std::size_t>(at)], s.symbols[static_cast<std::size_t>(next)]);
      return m.rank != merge_table::no_rank;
    };
    for (std::int32_t i = 0; i <= last; ++i) s.links[static_cast<std::size_t>(i)] = {i - 1, i < last ? i + 1 : -1};
    for (std::int32_t i = 0; i < last; ++i) {
      if (look_up(i)) s.queue.push_back(entry(i));
    }
    std::make_heap(s.queue.begin(), s.queue.end(), std::greater<>{});
    const auto push = [&](std::int32_t at) {
      if (!look_up(at)) return;
      s.queue.push_back(entry(at));
      std::push_heap(s.queue.begin(), s.queue.end(), std::greater<>{});
    };
    while (!s.queue.empty()) {
      const std::uint64_t top = s.queue.front();
      std::pop_heap(s.queue.begin(), s.queue.end(), std::greater<>{});
      s.queue.pop_back();
      const auto at = static_cast<std::int32_t>(top & 0xFFFFFFFFu);
      const auto index = static_cast<std::size_t>(at);
      if (s.merges[index].rank != top >> 32) continue;
      const std::int32_t right = s.links[index].next;
      s.symbols[index] = s.merges[index].result;
      s.merges[static_cast<std::size_t>(right)] = {};
      s.symbols[static_cast<std::size_t>(right)] = -1;
      s.links[index].next = s.links[static_cast<std::size_t>(right)].next;
      if (s.links[index].next >= 0) s.links[static_cast<std::size_t>(s.links[index].next)].previous = at;
      push(at);
      if (s.links[index].previous >= 0) push(s.links[index].previous);
    }
    s.symbols.erase(std::remove(s.symbols.begin(), s.symbols.end(), -1), s.symbols.end());
  }

  merge_table merges_;
  bpe_options options_;
  std::vector<std::string> stand_ins_;
  std::int32_t first_stand_in_ = 0;
  std::array<std::int32_t, 256> byte_symbols_{};
  character_table characters_;
  vocabulary pieces_;  // texts of pieces that are one token, by the token's id
  std::size_t longest_indexed_bytes_ = 0;
};

}  // namespace effinfer::inline v0::text
