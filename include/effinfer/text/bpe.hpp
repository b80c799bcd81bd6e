#pragma once
// Byte-pair encoding: a piece of text begins as single symbols, and the adjacent pair with the best rank is merged
// into one symbol, leftmost first, until no pair has a rank.
// Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units" (ACL 2016), section
// 3.2; the merge order by score is Kudo, Richardson, "SentencePiece" (EMNLP 2018).

#include <effinfer/core/error.hpp>
#include <effinfer/text/bpe_tables.hpp>
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
    if (!options_.byte_level) {
      index_characters(tokens);
      index_neighbours(tokens);
    }
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
    if (!options_.byte_level && piece.size() > 32) return encode_in_parts(piece, scratch, ids);
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

  // Which characters stand side by side in the tokens that merges lead to.
  void index_neighbours(const vocabulary& tokens) {
    std::vector<bool> is_done(static_cast<std::size_t>(tokens.size()));
    merges_.for_each([&](const merge_table::merge& m) {
      const auto index = static_cast<std::size_t>(m.result);
      if (is_done[index]) return;
      is_done[index] = true;
      std::string_view rest = tokens.text(m.result);
      while (!rest.empty()) {
        const code_point c = first_code_point(rest);
        rest.remove_prefix(static_cast<std::size_t>(c.length));
        if (!rest.empty())
          neighbours_.add(static_cast<int>(c.value), static_cast<int>(first_code_point(rest).value), {0, 0}, true);
      }
    });
  }

  // SentencePiece's models merge over whole texts. But no merge crosses a place between two characters that stand side
  // by side in no token, so the text can be cut there without changing the result: mostly before each space.
  void encode_in_parts(std::string_view piece, bpe_scratch& scratch, std::vector<int>& ids) const {
    std::size_t begin = 0;
    const auto encode_part = [&](std::size_t end) {
      const std::string_view part = piece.substr(begin, end - begin);
      begin = end;
      if (!options_.ignore_merges && part.size() <= longest_indexed_bytes_) {
        const int whole = pieces_.find(part);
        if (whole >= 0) return ids.push_back(whole);
      }
      split_and_merge(part, scratch, ids);
    };
    // Characters that are no symbols may hold an unknown token back, or turn into bytes: no cut beside them.
    char32_t before = 0;
    bool is_known_before = false;
    for (std::size_t at = 0; at < piece.size();) {
      const code_point c = first_code_point(piece.substr(at));
      const bool is_known = characters_.find(c.value) >= 0;
      if (is_known && is_known_before &&
          neighbours_.find(static_cast<int>(before), static_cast<int>(c.value)).rank == merge_table::no_rank) {
        encode_part(at);
      }
      before = c.value;
      is_known_before = is_known;
      at += static_cast<std::size_t>(c.length);
    }
    encode_part(piece.size());
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
  merge_table neighbours_;  // pairs of code points, used as a set
  vocabulary pieces_;       // texts of pieces that are one token, by the token's id
  std::size_t longest_indexed_bytes_ = 0;
};

}  // namespace effinfer::inline v0::text
