#pragma once
// How GGUF's byte-pair vocabularies are split. A .gguf file names its splitting ("tokenizer.ggml.pre") but does not hold
// the patterns; here they stand as the models' own tokenizer.json files have them. To add one: a row in the table.

#include <array>
#include <span>
#include <string_view>

namespace effinfer::inline v0::text {

/// One way of splitting: patterns applied one after another, each to the pieces of the one before it.
struct gguf_split {
  std::string_view name;                       ///< the value of tokenizer.ggml.pre
  std::span<const std::string_view> patterns;  ///< in Oniguruma's syntax
  bool ignore_merges = false;                  ///< a piece that is a token stays whole
  bool adds_bos = false;                       ///< unless the file says otherwise
};

namespace gguf_patterns {

inline constexpr std::string_view gpt2_words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))";

/// llama.cpp's fallback for files that name none.
inline constexpr std::array<std::string_view, 4> fallback = {R"([\p{P}\$\+<=>\^~\|]+)", gpt2_words, R"(\p{N}+)",
                                                             R"([0-9][0-9][0-9])"};
inline constexpr std::array<std::string_view, 1> gpt2 = {gpt2_words};
inline constexpr std::array<std::string_view, 2> digits_then_gpt2 = {R"(\p{N})", gpt2_words};
inline constexpr std::array<std::string_view, 3> falcon = {R"([\p{P}\$\+<=>\^~\|`]+)", gpt2_words,
                                                           R"([0-9][0-9][0-9])"};
inline constexpr std::array<std::string_view, 1> llama3 = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
inline constexpr std::array<std::string_view, 1> qwen2 = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
inline constexpr std::array<std::string_view, 1> qwen35 = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
inline constexpr std::array<std::string_view, 1> tekken = {
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
inline constexpr std::array<std::string_view, 1> o200k = {
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
inline constexpr std::array<std::string_view, 5> deepseek_coder = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)",
                                                                   "[一-龥ࠀ-一가-퟿]+", R"(\p{N})"};
inline constexpr std::array<std::string_view, 6> deepseek_llm = {
    R"([\r\n])",
    R"(\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-)"
    R"(\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-)"
    R"(\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-)"
    R"(\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77})"
    R"(\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-)"
    R"(\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-)"
    R"(\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4})"
    R"(\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128})"
    R"(\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184})"
    R"(\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-)"
    R"(\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06})"
    R"(\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-)"
    R"(\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+)",
    "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
    R"(\s+$)",
    "[一-龥ࠀ-一가-퟿]+",
    R"(\p{N}+)"};
inline constexpr std::array<std::string_view, 3> deepseek_v3 = {
    R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)"};

}  // namespace gguf_patterns

inline constexpr std::array<gguf_split, 31> gguf_splits = {{
    {"default", gguf_patterns::fallback},
    {"gpt-2", gguf_patterns::gpt2},
    {"phi-2", gguf_patterns::gpt2},
    {"gigachat", gguf_patterns::gpt2},
    {"mpt", gguf_patterns::gpt2},
    {"olmo", gguf_patterns::gpt2},
    {"exaone4", gguf_patterns::gpt2},
    {"trillion", gguf_patterns::gpt2},
    {"starcoder", gguf_patterns::digits_then_gpt2},
    {"refact", gguf_patterns::digits_then_gpt2},
    {"command-r", gguf_patterns::digits_then_gpt2},
    {"smollm", gguf_patterns::digits_then_gpt2},
    {"codeshell", gguf_patterns::digits_then_gpt2},
    {"exaone", gguf_patterns::digits_then_gpt2},
    {"minerva-7b", gguf_patterns::digits_then_gpt2},
    {"falcon", gguf_patterns::falcon},
    {"llama-bpe", gguf_patterns::llama3, true, true},
    {"llama3", gguf_patterns::llama3, true, true},
    {"llama-v3", gguf_patterns::llama3, true, true},
    {"dbrx", gguf_patterns::llama3},
    {"smaug-bpe", gguf_patterns::llama3},
    {"qwen2", gguf_patterns::qwen2},
    {"deepseek-r1-qwen", gguf_patterns::qwen2},
    {"stablelm2", gguf_patterns::qwen2},
    {"qwen35", gguf_patterns::qwen35},
    {"tekken", gguf_patterns::tekken, true, true},
    {"gpt-4o", gguf_patterns::o200k},
    {"llama4", gguf_patterns::o200k},
    {"deepseek-coder", gguf_patterns::deepseek_coder},
    {"deepseek-llm", gguf_patterns::deepseek_llm},
    {"deepseek-v3", gguf_patterns::deepseek_v3},
}};

/// The splitting of that name, or null.
constexpr const gguf_split* find_gguf_split(std::string_view name) {
  for (const gguf_split& split : gguf_splits) {
    if (split.name == name) return &split;
  }
  return nullptr;
}

static_assert(find_gguf_split("qwen2")->patterns.size() == 1 && find_gguf_split("nobody") == nullptr);

}  // namespace effinfer::inline v0::text
