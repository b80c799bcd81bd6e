#pragma once
// Reads the vocabulary inside a .gguf file: byte-pair models with merges ("gpt2"), and SentencePiece's, where the token
// with the best score merges first ("llama"). Ids are those of llama.cpp, whose files these are; where Hugging Face
// differs (Qwen's normal form NFC), llama.cpp is followed.
// Source: ggml's docs/gguf.md, keys tokenizer.ggml.*

#include <effinfer/checkpoint/gguf.hpp>
#include <effinfer/text/gguf_splits.hpp>
#include <effinfer/text/tokenizer_parts.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text {

/// Reads one file's vocabulary into parts; see read_tokenizer_gguf for its errors.
class tokenizer_gguf_reader {
 public:
  explicit tokenizer_gguf_reader(const checkpoint::gguf& file) : file_(file) {}

  tokenizer_parts read() {
    const checkpoint::gguf::value& model = file_.at("tokenizer.ggml.model");
    const bool is_byte_level = model.string() == "gpt2";
    if (!is_byte_level && model.string() != "llama") {
      throw error(error_code::unsupported, model.where(),
                  "a vocabulary of model \"" + std::string(model.string()) + "\" isn't read here",
                  "\"gpt2\" and \"llama\" are");
    }
    read_tokens();
    if (is_byte_level) {
      read_byte_level();
    } else {
      read_sentencepiece();
    }
    read_added_tokens(is_byte_level);
    return std::move(parts_);
  }

 private:
  // tokenizer.ggml.token_type
  enum token_type : std::uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

  [[noreturn]] void refuse(error_code code, std::string_view key, const std::string& problem) const {
    throw error(code, file_.name() + ": " + std::string(key), problem);
  }

  void read_tokens() {
    const checkpoint::gguf::value& tokens = file_.at("tokenizer.ggml.tokens");
    if (tokens.size() > static_cast<std::size_t>(vocabulary::max_id)) {
      refuse(error_code::limit, "tokenizer.ggml.tokens", std::to_string(tokens.size()) + " tokens");
    }
    parts_.tokens.reserve(tokens.size());
    int id = 0;
    tokens.for_each([&](const checkpoint::gguf::value& token) {
      const std::string_view text = token.string();
      if (find_invalid_utf8(text) != std::string_view::npos) {
        refuse(error_code::malformed, "tokenizer.ggml.tokens", "token " + std::to_string(id) + " isn't UTF-8");
      }
      if (!parts_.tokens.add(text, id)) {
        refuse(error_code::malformed, "tokenizer.ggml.tokens",
               "token " + std::to_string(id) + " is token " + std::to_string(parts_.tokens.find(text)) + " again");
      }
      ++id;
    });
    types_.assign(tokens.size(), normal);
    if (file_.find("tokenizer.ggml.token_type")) {
      std::size_t i = 0;
      numbers("tokenizer.ggml.token_type").for_each([&](const checkpoint::gguf::value& v) {
        const std::int64_t type = v.integer();
        // Types beyond the six are taken as llama.cpp takes them: as normal.
        if (type >= normal && type <= byte) types_[i] = static_cast<token_type>(type);
        ++i;
      });
    }
  }

  /// An array with one element for each token.
  [[nodiscard]] const checkpoint::gguf::value& numbers(std::string_view key) const {
    const checkpoint::gguf::value& all = file_.at(key);
    if (all.size() != static_cast<std::size_t>(parts_.tokens.size())) {
      refuse(error_code::mismatch, key,
             std::to_string(all.size()) + " values for " + std::to_string(parts_.tokens.size()) + " tokens");
    }
    return all;
  }
  /// The token that a key names, if it names one: absent and -1 name none.
  [[nodiscard]] std::optional<int> token(std::string_view key) const {
    const checkpoint::gguf::value* v = file_.find(key);
    if (!v) return std::nullopt;
    const std::int64_t id = v->integer();
    if (id == -1 || id == 0xFFFFFFFF) return std::nullopt;
    return static_cast<int>(v->integer(0, parts_.tokens.size() - 1));
  }
  [[nodiscard]] bool flag(std::string_view key, bool otherwise) const {
    const checkpoint::gguf::value* v = file_.find(key);
    return v ? v->boolean() : otherwise;
  }
  [[nodiscard]] bool is_plain(int id) const {
    const token_type type = types_[static_cast<std::size_t>(id)];
    return type == normal || type == user_defined;
  }

  void read_byte_level() {
    const checkpoint::gguf::value* pre = file_.find("tokenizer.ggml.pre");
    const std::string_view name = pre ? pre->string() : "default";
    const gguf_split* split = find_gguf_split(name);
    if (!split) {
      refuse(error_code::unsupported, "tokenizer.ggml.pre",
             "no splitting of the name \"" + std::string(name) + "\" is known here");
    }
    for (const std::string_view pattern : split->patterns) {
      parts_.splitting.steps.emplace_back(pre_tokenizers::split_regex{
          regex(pattern, file_.name() + ": tokenizer.ggml.pre"), split_behavior::isolated, false});
    }
    const bool reads_bytes = has_byte_alphabet(parts_.tokens);
    parts_.splitting.steps.emplace_back(pre_tokenizers::byte_level{false, std::nullopt, reads_bytes});
    parts_.decoding_steps.steps.emplace_back(decoders::byte_level{});
    const bpe_options options{.byte_level = reads_bytes, .ignore_merges = split->ignore_merges};
    parts_.model = bpe(parts_.tokens, read_merges(), options, [this](int id) { return is_plain(id); });
    read_ends(split->adds_bos, {}, {});
  }

  /// "left right", in the order of their ranks.
  [[nodiscard]] merge_table read_merges() const {
    merge_table merges;
    const checkpoint::gguf::value& pairs = file_.at("tokenizer.ggml.merges");
    merges.reserve(pairs.size());
    std::uint32_t rank = 0;
    std::string merged;
    pairs.for_each([&](const checkpoint::gguf::value& element) {
      const std::string_view pair = element.string();
      const auto fail = [&](const std::string& problem) {
        refuse(error_code::malformed, "tokenizer.ggml.merges", "merge " + std::to_string(rank) + ": " + problem);
      };
      const std::size_t space = pair.empty() ? std::string_view::npos : pair.find(' ', 1);
      if (space == std::string_view::npos) fail("it is not two tokens with a space between");
      const std::string_view left = pair.substr(0, space);
      const std::string_view right = pair.substr(space + 1);
      const auto id_of = [&](std::string_view text) {
        const int id = parts_.tokens.find(text);
        if (id < 0) fail("\"" + std::string(text) + "\" is no token");
        return id;
      };
      merged.assign(left).append(right);
      merges.add(id_of(left), id_of(right), {rank, id_of(merged)}, false);
      ++rank;
    });
    return merges;
  }

  void read_sentencepiece() {
    const bool adds_space = flag("tokenizer.ggml.add_space_prefix", true);
    if (adds_space) parts_.normalizing.steps.emplace_back(normalizers::prepend{"\u2581"});
    parts_.normalizing.steps.emplace_back(normalizers::replace_text{" ", "\u2581"});
    auto& steps = parts_.decoding_steps.steps;
    steps.emplace_back(decoders::replace_text{"\u2581", " "});
    steps.emplace_back(decoders::byte_fallback{});
    steps.emplace_back(decoders::fuse{});
    if (adds_space) steps.emplace_back(decoders::strip{U' ', 1, 0});

    const auto by_default = [&](int id) { return id < parts_.tokens.size() ? std::optional<int>(id) : std::nullopt; };
    const std::optional<int> unknown_token =
        file_.find("tokenizer.ggml.unknown_token_id") ? token("tokenizer.ggml.unknown_token_id") : by_default(0);
    const bpe_options options{.byte_fallback = true, .unknown = unknown_token.value_or(-1)};
    std::vector<std::string> stand_ins;
    merge_table merges = merges_by_score(stand_ins);
    parts_.model = bpe(
        mergeable_, std::move(merges), options, [](int) { return true; }, std::move(stand_ins));
    read_ends(true, by_default(1), by_default(2));
  }

  /// Any two symbols whose texts together are a token merge into it; the higher its score, the sooner, and equal scores
  /// from the left. `stand_ins` become the characters inside tokens that are no tokens themselves.
  merge_table merges_by_score(std::vector<std::string>& stand_ins) {
    // Bytes of a token that merges lead to. Each place to split it costs a look-up; SentencePiece stops at 16 characters.
    constexpr std::size_t max_bytes = 256;
    std::vector<double> scores;
    numbers("tokenizer.ggml.scores").for_each([&](const checkpoint::gguf::value& v) {
      scores.push_back(v.number());
      if (std::isnan(scores.back())) {
        refuse(error_code::malformed, "tokenizer.ggml.scores",
               "the score of token " + std::to_string(scores.size() - 1) + " is not a number");
      }
    });
    std::vector<double> order = scores;
    std::sort(order.begin(), order.end(), std::greater<>{});
    order.erase(std::unique(order.begin(), order.end()), order.end());

    mergeable_.reserve(scores.size());
    for (int id = 0; id < parts_.tokens.size(); ++id) {
      if (is_plain(id) || types_[static_cast<std::size_t>(id)] == byte) mergeable_.add(parts_.tokens.text(id), id);
    }
    const int first_stand_in = mergeable_.size();
    vocabulary characters;
    const auto symbol_of = [&](std::string_view text) {
      const int id = mergeable_.find(text);
      if (id >= 0) return types_[static_cast<std::size_t>(id)] == byte ? -1 : id;
      if (static_cast<std::size_t>(utf8_length(text[0])) != text.size()) return -1;
      int index = characters.find(text);
      if (index < 0) {
        index = characters.size();
        characters.add(text, index);
        stand_ins.emplace_back(text);
      }
      return first_stand_in + index;
    };
    merge_table merges;
    for (int id = 0; id < parts_.tokens.size(); ++id) {
      const std::string_view text = parts_.tokens.text(id);
      if (!is_plain(id) || text.size() > max_bytes) continue;
      const auto rank = static_cast<std::uint32_t>(
          std::lower_bound(order.begin(), order.end(), scores[static_cast<std::size_t>(id)], std::greater<>{}) -
          order.begin());
      for (std::size_t cut = 0; cut < text.size();) {
        cut += static_cast<std::size_t>(utf8_length(text[cut]));
        if (cut == text.size()) break;
        const int left = symbol_of(text.substr(0, cut));
        const int right = symbol_of(text.substr(cut));
        if (left >= 0 && right >= 0) merges.add(left, right, {rank, id}, false);
      }
    }
    return merges;
  }

  /// What begins and ends a sequence.
  void read_ends(bool adds_bos, std::optional<int> bos, std::optional<int> eos) {
    parts_.bos = file_.find("tokenizer.ggml.bos_token_id") ? token("tokenizer.ggml.bos_token_id") : bos;
    parts_.eos = file_.find("tokenizer.ggml.eos_token_id") ? token("tokenizer.ggml.eos_token_id") : eos;
    const auto add = [&](std::string_view key, bool otherwise, std::optional<int> id, std::vector<int>& side) {
      if (!flag(key, otherwise)) return;
      if (!id) refuse(error_code::missing, key, "there is no such token to add");
      side.push_back(*id);
    };
    add("tokenizer.ggml.add_bos_token", adds_bos, parts_.bos, parts_.prefix);
    add("tokenizer.ggml.add_eos_token", false, parts_.eos, parts_.suffix);
  }

  /// Control, unknown and user-defined tokens are found in the text as they stand, user-defined ones always.
  void read_added_tokens(bool is_byte_level) {
    std::vector<added_token> added;
    parts_.is_special.assign(types_.size(), false);
    parts_.is_literal.assign(types_.size(), false);
    for (int id = 0; id < parts_.tokens.size(); ++id) {
      const auto index = static_cast<std::size_t>(id);
      const token_type type = types_[index];
      const bool is_special = type == control || type == unknown;
      parts_.is_special[index] = is_special;
      parts_.is_literal[index] = is_special || (is_byte_level && type == user_defined);
      if (!is_special && type != user_defined) continue;
      added.push_back({.content = std::string(parts_.tokens.text(id)), .id = id, .special = is_special});
    }
    parts_.raw_added = added_token_set(std::move(added));
  }

  const checkpoint::gguf& file_;
  tokenizer_parts parts_;
  std::vector<token_type> types_;
  vocabulary mergeable_;  // "llama": the tokens that merges may lead to, and the byte tokens
};

/// Reads the vocabulary of a GGUF file. Errors, naming file and key: missing, mismatch, malformed (tokens twice, merges
/// of unknown tokens ...), limit, unsupported (another model, or a splitting that has no row in gguf_splits.hpp).
inline tokenizer_parts read_tokenizer_gguf(const checkpoint::gguf& file) { return tokenizer_gguf_reader(file).read(); }

}  // namespace effinfer::inline v0::text
