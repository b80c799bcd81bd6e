#pragma once
// The steps of a tokenizer.json: its fields "normalizer", "pre_tokenizer", "post_processor" and "decoder", which name
// structs of Hugging Face's tokenizers library by "type". What has no counterpart here is refused by name.
// Source: https://huggingface.co/docs/tokenizers (components), and the files that the library writes.

#include <effinfer/core/json.hpp>
#include <effinfer/text/tokenizer_parts.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text {

/// Reads the four fields of one tokenizer.json into parts. Errors, naming file and field: missing, mismatch (a field
/// of another type), malformed, limit, unsupported.
class tokenizer_step_reader {
 public:
  explicit tokenizer_step_reader(tokenizer_parts& parts) : parts_(parts) {}

  void read(const json::value& root) {
    if (const auto v = root.find_set("normalizer")) read_normalizer(*v);
    if (const auto v = root.find_set("pre_tokenizer")) read_pre_tokenizer(*v);
    if (const auto v = root.find_set("post_processor")) read_post_processor(*v);
    if (const auto v = root.find_set("decoder")) read_decoder(*v);
    if (!root.find_set("decoder")) parts_.decoding_steps.steps.emplace_back(decoders::join_by_space{});
  }

 private:
  // Every step costs a stack frame while text runs through; real files have at most a dozen.
  static constexpr std::size_t max_steps = 64;

  template <class Steps>
  static void add(const json::value& v, Steps& steps, typename Steps::value_type step) {
    if (steps.size() >= max_steps) v.fail("more than " + std::to_string(max_steps) + " steps", error_code::limit);
    steps.push_back(std::move(step));
  }
  [[noreturn]] static void refuse(const json::value& v, const std::string& what) {
    v.at("type").fail("a " + what + " of type \"" + std::string(v.at("type").string()) + "\" isn't computed here",
                      error_code::unsupported);
  }
  static bool flag(const json::value& v, std::string_view key, bool otherwise) {
    const auto found = v.find_set(key);
    return found ? found->boolean() : otherwise;
  }
  static std::string text_of(const json::value& v) { return std::string(v.string()); }

  /// {"String": "..."} or {"Regex": "..."}: calls one of the two with the text.
  template <class UseText, class UseRegex>
  static void with_pattern(const json::value& pattern, UseText use_text, UseRegex use_regex) {
    if (const auto literal = pattern.find("String")) {
      if (literal->string().empty()) literal->fail("an empty text matches everywhere", error_code::unsupported);
      use_text(text_of(*literal));
    } else {
      const json::value expression = pattern.at("Regex");
      use_regex(regex(expression.string(), expression.where()));
    }
  }

  /// The one character of a string field.
  static char32_t character_of(const json::value& v) {
    const std::string_view text = v.string();
    if (text.empty() || static_cast<std::size_t>(utf8_length(text[0])) != text.size()) v.fail("it isn't one character");
    return first_code_point(text).value;
  }

  void read_normalizer(const json::value& v) {
    auto& steps = parts_.normalizing.steps;
    const std::string_view type = v.at("type").string();
    if (type == "Sequence") {
      for (const json::value& step : v.at("normalizers").elements()) read_normalizer(step);
    } else if (type == "NFC") {
      add(v, steps, normalizers::unicode_form{normal_form::nfc});
    } else if (type == "NFD") {
      add(v, steps, normalizers::unicode_form{normal_form::nfd});
    } else if (type == "NFKC") {
      add(v, steps, normalizers::unicode_form{normal_form::nfkc});
    } else if (type == "NFKD") {
      add(v, steps, normalizers::unicode_form{normal_form::nfkd});
    } else if (type == "Lowercase") {
      add(v, steps, normalizers::lower_case{});
    } else if (type == "StripAccents") {
      add(v, steps, normalizers::strip_accents{});
    } else if (type == "Strip") {
      add(v, steps, normalizers::strip{flag(v, "strip_left", true), flag(v, "strip_right", true)});
    } else if (type == "Prepend") {
      add(v, steps, normalizers::prepend{text_of(v.at("prepend"))});
    } else if (type == "Replace") {
      std::string content = text_of(v.at("content"));
      with_pattern(
          v.at("pattern"),
          [&](std::string text) {
            add(v, steps, normalizers::replace_text{std::move(text), content});
          },
          [&](regex pattern) {
            add(v, steps, normalizers::replace_regex{std::move(pattern), content});
          });
    } else if (type == "ByteLevel") {
      add(v, steps, normalizers::byte_level{});
    } else {
      refuse(v, "normalizer");
    }
  }

  static split_behavior behavior_of(const json::value& v) {
    const std::string_view name = v.string();
    if (name == "Removed") return split_behavior::removed;
    if (name == "Isolated") return split_behavior::isolated;
    if (name == "MergedWithPrevious") return split_behavior::merged_with_previous;
    if (name == "MergedWithNext") return split_behavior::merged_with_next;
    if (name == "Contiguous") return split_behavior::contiguous;
    v.fail("\"" + std::string(name) + "\" is no behavior of a split");
  }

  static pre_tokenizers::prepend_scheme scheme_of(const json::value& v) {
    const auto scheme = v.find_set("prepend_scheme");
    if (!scheme) {  // files from before the schemes
      return flag(v, "add_prefix_space", true) ? pre_tokenizers::prepend_scheme::always
                                               : pre_tokenizers::prepend_scheme::never;
    }
    if (scheme->string() == "always") return pre_tokenizers::prepend_scheme::always;
    if (scheme->string() == "first") return pre_tokenizers::prepend_scheme::first;
    if (scheme->string() == "never") return pre_tokenizers::prepend_scheme::never;
    scheme->fail("\"" + std::string(scheme->string()) + "\" is no scheme");
  }

  void read_pre_tokenizer(const json::value& v) {
    auto& steps = parts_.splitting.steps;
    const std::string_view type = v.at("type").string();
    if (type == "Sequence") {
      for (const json::value& step : v.at("pretokenizers").elements()) read_pre_tokenizer(step);
    } else if (type == "ByteLevel") {
      pre_tokenizers::byte_level step{flag(v, "add_prefix_space", true), std::nullopt, false};
      if (flag(v, "use_regex", true)) step.pattern.emplace(gpt2_pattern, v.where());
      add(v, steps, std::move(step));
    } else if (type == "Split") {
      const split_behavior behavior = behavior_of(v.at("behavior"));
      const bool invert = flag(v, "invert", false);
      with_pattern(
          v.at("pattern"),
          [&](std::string text) {
            add(v, steps, pre_tokenizers::split_text{std::move(text), behavior, invert});
          },
          [&](regex pattern) {
            add(v, steps, pre_tokenizers::split_regex{std::move(pattern), behavior, invert});
          });
    } else if (type == "Digits") {
      add(v, steps,
          pre_tokenizers::split_class{
              is_number, flag(v, "individual_digits", false) ? split_behavior::isolated : split_behavior::contiguous});
    } else if (type == "Punctuation") {
      const auto behavior = v.find_set("behavior");
      add(v, steps,
          pre_tokenizers::split_class{is_punctuation, behavior ? behavior_of(*behavior) : split_behavior::isolated});
    } else if (type == "Whitespace") {
      add(v, steps, pre_tokenizers::words{});
    } else if (type == "WhitespaceSplit") {
      add(v, steps, pre_tokenizers::split_class{is_white_space, split_behavior::removed});
    } else if (type == "Metaspace") {
      character_of(v.at("replacement"));
      add(v, steps, pre_tokenizers::metaspace{text_of(v.at("replacement")), scheme_of(v), flag(v, "split", true)});
    } else {
      refuse(v, "pre-tokenizer");
    }
  }

  void read_post_processor(const json::value& v) {
    const std::string_view type = v.at("type").string();
    if (type == "Sequence") {
      for (const json::value& step : v.at("processors").elements()) read_post_processor(step);
    } else if (type == "TemplateProcessing") {
      read_template(v);
    } else if (type != "ByteLevel") {  // which trims offsets only
      refuse(v, "post-processor");
    }
  }

  /// "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, ...]; the ids stand in "special_tokens".
  void read_template(const json::value& v) {
    if (!parts_.prefix.empty() || !parts_.suffix.empty()) v.fail("a second template", error_code::unsupported);
    std::vector<int>* side = &parts_.prefix;
    for (const json::value& piece : v.at("single").elements()) {
      if (const auto token = piece.find("SpecialToken")) {
        const json::value ids = v.at("special_tokens").at(token->at("id").string()).at("ids");
        for (const json::value& id : ids.elements())
          side->push_back(static_cast<int>(id.integer(0, vocabulary::max_id)));
      } else if (side == &parts_.prefix && piece.at("Sequence").at("id").string() == "A") {
        side = &parts_.suffix;
      } else {
        piece.fail("a template that isn't: tokens, the text once, tokens", error_code::unsupported);
      }
    }
    if (side == &parts_.prefix) v.at("single").fail("a template without the text", error_code::unsupported);
  }

  void read_decoder(const json::value& v) {
    auto& steps = parts_.decoding_steps.steps;
    const std::string_view type = v.at("type").string();
    if (type == "Sequence") {
      for (const json::value& step : v.at("decoders").elements()) read_decoder(step);
    } else if (type == "ByteLevel") {
      add(v, steps, decoders::byte_level{});
    } else if (type == "ByteFallback") {
      add(v, steps, decoders::byte_fallback{});
    } else if (type == "Fuse") {
      add(v, steps, decoders::fuse{});
    } else if (type == "Replace") {
      std::string content = text_of(v.at("content"));
      with_pattern(
          v.at("pattern"),
          [&](std::string text) {
            add(v, steps, decoders::replace_text{std::move(text), content});
          },
          [&](regex pattern) {
            add(v, steps, decoders::replace_regex{std::move(pattern), content});
          });
    } else if (type == "Strip") {
      const auto count = [&](std::string_view key) { return static_cast<std::size_t>(v.at(key).integer(0, 1 << 20)); };
      add(v, steps, decoders::strip{character_of(v.at("content")), count("start"), count("stop")});
    } else if (type == "Metaspace") {
      character_of(v.at("replacement"));
      add(v, steps,
          decoders::metaspace{text_of(v.at("replacement")), scheme_of(v) == pre_tokenizers::prepend_scheme::never});
    } else {
      refuse(v, "decoder");
    }
  }

  /// What "use_regex" of a ByteLevel stands for; the one pattern that a tokenizer.json may leave unsaid.
  static constexpr std::string_view gpt2_pattern =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

  tokenizer_parts& parts_;
};

}  // namespace effinfer::inline v0::text
