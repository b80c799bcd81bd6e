// Any bytes as a grammar, a pattern or a schema (the first byte says which): they are refused with an effinfer::error, or what is
// compiled writes texts that its own matcher takes byte by byte, masks agreeing with it.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/grammar/compiled_grammar.hpp>
#include <effinfer/decoding/grammar/gbnf.hpp>
#include <effinfer/decoding/grammar/json_schema.hpp>
#include <effinfer/decoding/grammar/matcher.hpp>
#include <effinfer/decoding/grammar/regular_expression.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace grammar = effinfer::decoding::grammar;

namespace {

std::shared_ptr<const grammar::token_vocabulary> vocabulary() {
  std::vector<std::string> tokens;
  for (int b = 0; b < 256; ++b) tokens.emplace_back(1, static_cast<char>(b));
  for (const char* text : {"{\"", "\":", "\",\"", "\"}", "],[", "aa", "ab", "true", "10", "\xC3\xA9", "\\u00", "null,"})
    tokens.emplace_back(text);
  tokens.emplace_back();
  return std::make_shared<const grammar::token_vocabulary>(tokens,
                                                           std::vector<int>{static_cast<int>(tokens.size()) - 1});
}

grammar::rule_set read(unsigned kind, std::string_view text) {
  switch (kind % 4) {
    case 0: return grammar::read_gbnf(std::string(text));
    case 1: return grammar::read_regular_expression(std::string(text));
    case 2: return grammar::read_json_schema(text);
    default: return grammar::read_json_schema(text, {.white_space = grammar::json_white_space::limited});
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto tokens = vocabulary();
  if (size == 0) return 0;
  try {
    const auto compiled = std::make_shared<const grammar::compiled_grammar>(
        read(data[0], {reinterpret_cast<const char*>(data) + 1, size - 1}), tokens);
    grammar::matcher m(compiled), by_bytes(compiled);
    std::vector<grammar::mask_word> mask(grammar::mask_words(tokens->size()));
    std::uint32_t state = 12345;
    for (int step = 0; step < 24 && m.allowed(mask); ++step) {
      state = state * 1664525U + 1013904223U;
      std::size_t id = (state >> 8) % tokens->size();
      while ((mask[id / 64] >> (id % 64) & 1) == 0) id = (id + 1) % tokens->size();
      const bool ends = tokens->is_end(static_cast<int>(id));
      if (ends != (m.may_end() && ends) || !m.advance(static_cast<int>(id))) __builtin_trap();
      if (ends) break;
      for (const char c : tokens->bytes(static_cast<int>(id))) {
        if (!by_bytes.advance_text({&c, 1})) __builtin_trap();
      }
      if (m.may_end() != by_bytes.may_end()) __builtin_trap();
    }
  } catch (const effinfer::error&) {  // the promised way out
  }
  return 0;
}
