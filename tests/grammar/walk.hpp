#pragma once
// What the tests of grammars share: the shipped model's vocabulary, matching a text byte by byte, and a "model" that chooses at random.

#include <effinfer/core/json.hpp>
#include <effinfer/core/random.hpp>
#include <effinfer/decoding/grammar/matcher.hpp>
#include <effinfer/text/byte_level.hpp>

#include <bit>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace grammar_tests {

namespace ei = effinfer;
namespace grammar = effinfer::decoding::grammar;
using vocabulary_pointer = std::shared_ptr<const grammar::token_vocabulary>;
using compiled_pointer = std::shared_ptr<const grammar::compiled_grammar>;

/// The 1,019 tokens of the shipped models (all bytes and merges), some of JSON that they lack, and an end token.
inline const vocabulary_pointer& shipped_vocabulary() {
  static const vocabulary_pointer v = [] {
    std::ifstream file(std::string(EFFINFER_SHIPPED_MODELS) + "/shakespeare-llama/tokenizer.json");
    std::stringstream text;
    text << file.rdbuf();
    const ei::json::document document(text.str(), "tokenizer.json");
    const auto entries = document.root().at("model").at("vocab").members();
    std::vector<std::string> bytes(entries.size());
    for (const auto& [token, id] : entries) {
      bytes[static_cast<std::size_t>(id.integer())] = *ei::text::bytes_of_byte_level(token);
    }
    for (const char* extra :
         {"\",",    "\"}",   "\":",   "\":\"", "\",\"",   "\"]",      "}}",         "]]",  "],[", "[[", "[]",  "{}",
          ", \"",   "\": ",  "},{\"", "e\"",   "th\",\"", "10",       "100",        "-1",  ".5",  "1,", "23]", "true",
          "false,", "null}", "\\n",   "\\\"",  "\\u00",   "\xC3\xA9", "\xC3\xA9\"", ")).", " (",  "cc", "ee\n"}) {
      bytes.emplace_back(extra);
    }
    bytes.emplace_back();
    return std::make_shared<const grammar::token_vocabulary>(bytes,
                                                             std::vector<int>{static_cast<int>(bytes.size()) - 1});
  }();
  return v;
}

inline compiled_pointer compile(const grammar::rule_set& rules, vocabulary_pointer v = shipped_vocabulary()) {
  return std::make_shared<const grammar::compiled_grammar>(rules, std::move(v));
}

/// True where the whole text is one of the grammar's.
inline bool matches(const compiled_pointer& g, std::string_view text) {
  grammar::matcher m(g);
  for (const char c : text) {
    if (!m.advance_text({&c, 1})) return false;
  }
  return m.may_end();
}

inline std::vector<int> ids_of(const std::vector<grammar::mask_word>& mask) {
  std::vector<int> ids;
  for (std::size_t w = 0; w < mask.size(); ++w) {
    for (grammar::mask_word bits = mask[w]; bits != 0; bits &= bits - 1) {
      ids.push_back(static_cast<int>(64 * w) + std::countr_zero(bits));
    }
  }
  return ids;
}

/// What a random choice among the allowed tokens writes until it ends; from `patience` tokens on, it closes what it can. Calls
/// `each(matcher, mask)` before every token. Fails by returning a text without end mark in `ended`.
template <class Each>
std::string random_text(const compiled_pointer& g, std::uint64_t seed, int patience, bool& ended, Each&& each) {
  const ei::random_stream random{seed};
  grammar::matcher m(g);
  const grammar::token_vocabulary& v = g->vocabulary();
  std::vector<grammar::mask_word> mask(grammar::mask_words(v.size()));
  std::string text;
  ended = false;
  for (int step = 0; step < 6 * patience; ++step) {
    if (!m.allowed(mask)) return text;
    each(m, mask);
    const std::vector<int> ids = ids_of(mask);
    const auto position = static_cast<std::uint64_t>(step);
    int chosen = ids[static_cast<std::size_t>(random.uniform(position, 0) * static_cast<float>(ids.size()))];
    if (m.may_end() && (step >= patience || random.uniform(position, 1) < 0.5f)) {
      chosen = v.end_tokens()[0];
    } else if (step >= patience || random.uniform(position, 2) < 0.15f) {
      for (const char* closing : {"]", "}", "\""}) {  // the last that is allowed wins
        for (const int id : ids) {
          if (v.bytes(id) == closing) chosen = id;
        }
      }
    }
    if (!m.advance(chosen)) return text;
    text += v.bytes(chosen);
    if (m.has_ended()) {
      ended = true;
      return text;
    }
  }
  return text;
}
inline std::string random_text(const compiled_pointer& g, std::uint64_t seed, int patience, bool& ended) {
  return random_text(g, seed, patience, ended, [](grammar::matcher&, const std::vector<grammar::mask_word>&) {});
}

}  // namespace grammar_tests
