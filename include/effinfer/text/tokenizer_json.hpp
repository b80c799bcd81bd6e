#pragma once
// Reads Hugging Face's tokenizer.json: a byte-pair model ("model"), tokens that are found in the text itself
// ("added_tokens"), and the steps round them (tokenizer_json_steps.hpp).

#include <effinfer/core/json.hpp>
#include <effinfer/text/tokenizer_json_steps.hpp>
#include <effinfer/text/tokenizer_parts.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace effinfer::inline v0::text {

/// Reads one tokenizer.json into parts; see read_tokenizer_json for its errors.
class tokenizer_json_reader {
 public:
  tokenizer_json_reader(std::string_view text, const std::string& name) : document_(text, name) {}

  tokenizer_parts read() {
    const json::value root = document_.root();
    if (const auto version = root.find_set("version"); version && version->string() != "1.0") {
      version->fail("\"" + std::string(version->string()) + "\" isn't read here, only \"1.0\"",
                    error_code::unsupported);
    }
    tokenizer_step_reader(parts_).read(root);
    const json::value model = root.at("model");
    check_model(model);
    read_vocabulary(model.at("vocab"));
    read_model(model);
    if (const auto added = root.find_set("added_tokens")) read_added_tokens(*added);
    check_template(root);
    return std::move(parts_);
  }

 private:
  static void check_model(const json::value& model) {
    const auto type = model.find_set("type");  // files of before 2020 leave it out
    if (type && type->string() != "BPE") {
      type->fail("a model of type \"" + std::string(type->string()) + "\" isn't computed here, only \"BPE\"",
                 error_code::unsupported);
    }
    for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const auto v = model.find_set(affix);
      if (v && !v->string().empty())
        v->fail("tokens that are marked inside a word aren't read here", error_code::unsupported);
    }
    if (const auto dropout = model.find_set("dropout"); dropout && dropout->number() != 0) {
      dropout->fail("merges that are left out at random aren't computed here", error_code::unsupported);
    }
  }

  void read_vocabulary(const json::value& vocab) {
    const auto members = vocab.members();
    // Holes between ids are allowed, but not so many that a small file asks for much memory.
    const auto max_id = std::min(vocabulary::max_id, 16 * static_cast<std::int64_t>(members.size()) + 65536);
    parts_.tokens.reserve(members.size());
    for (const auto& [text, v] : members) {
      const std::int64_t id = v.integer();
      if (id < 0 || id > max_id) {
        v.fail("the id " + std::to_string(id) + " is not in [0, " + std::to_string(max_id) + "]",
               id < 0 ? error_code::malformed : error_code::limit);
      }
      if (!parts_.tokens.add(text, static_cast<int>(id))) {
        v.fail("this token or its id " + std::to_string(id) + " is there already", error_code::malformed);
      }
    }
  }

  void read_model(const json::value& model) {
    const auto flag = [&](const char* key) {
      const auto v = model.find_set(key);
      return v && v->boolean();
    };
    bpe_options options{.byte_level = reads_bytes(),
                        .byte_fallback = flag("byte_fallback"),
                        .fuse_unknown = flag("fuse_unk"),
                        .ignore_merges = flag("ignore_merges")};
    if (const auto unknown = model.find_set("unk_token")) {
      options.unknown = parts_.tokens.find(unknown->string());
      if (options.unknown < 0 && !options.byte_level) {
        unknown->fail("\"" + std::string(unknown->string()) + "\" is not in model.vocab", error_code::malformed);
      }
    }
    merge_table merges = read_merges(model.at("merges"));
    if (options.byte_level) std::get<pre_tokenizers::byte_level>(parts_.splitting.steps.back()).keeps_bytes = true;
    // A special token comes out for its text only where the text is searched for special tokens.
    std::vector<bool> is_special(static_cast<std::size_t>(parts_.tokens.size()));
    if (const auto added = document_.root().find_set("added_tokens")) {
      for (const json::value& token : added->elements()) {
        const int id = parts_.tokens.find(token.at("content").string());
        const auto special = token.find_set("special");
        if (id >= 0 && special && special->boolean()) is_special[static_cast<std::size_t>(id)] = true;
      }
    }
    parts_.model = bpe(parts_.tokens, std::move(merges), options,
                       [&](int id) { return !is_special[static_cast<std::size_t>(id)]; });
  }

  /// True if the last step before the model writes bytes in the byte alphabet and the model knows all of them: then
  /// the model can read the bytes themselves, with the same result.
  [[nodiscard]] bool reads_bytes() const {
    const auto& steps = parts_.splitting.steps;
    if (steps.empty() || !std::holds_alternative<pre_tokenizers::byte_level>(steps.back())) return false;
    return has_byte_alphabet(parts_.tokens);
  }

  /// "left right" or ["left", "right"], in the order of their ranks.
  [[nodiscard]] merge_table read_merges(const json::value& v) const {
    merge_table merges;
    const auto elements = v.elements();
    merges.reserve(elements.size());
    std::uint32_t rank = 0;
    std::string merged;
    for (const json::value& element : elements) {
      std::string_view left;
      std::string_view right;
      if (element.is_array()) {
        if (element.size() != 2) element.fail("a merge is a pair of tokens", error_code::malformed);
        left = element[0].string();
        right = element[1].string();
      } else {
        const std::string_view pair = element.string();
        if (pair.starts_with("#version")) continue;
        const std::size_t space = pair.find(' ');
        if (space == std::string_view::npos || pair.find(' ', space + 1) != std::string_view::npos) {
          element.fail("a merge is two tokens with a space between", error_code::malformed);
        }
        left = pair.substr(0, space);
        right = pair.substr(space + 1);
      }
      merged.assign(left).append(right);
      const auto id_of = [&](std::string_view text) {
        const int id = parts_.tokens.find(text);
        if (id < 0) element.fail("\"" + std::string(text) + "\" is not in model.vocab", error_code::malformed);
        return id;
      };
      merges.add(id_of(left), id_of(right), {rank++, id_of(merged)}, true);
    }
    return merges;
  }

  void read_added_tokens(const json::value& v) {
    std::vector<added_token> raw;
    std::vector<added_token> normalized;
    vocabulary seen;
    const auto elements = v.elements();
    const auto max_id =
        std::min(vocabulary::max_id, 16 * static_cast<std::int64_t>(parts_.tokens.count() + elements.size()) + 65536);
    for (const json::value& element : elements) {
      const auto flag = [&](const char* key) {
        const auto f = element.find_set(key);
        return f && f->boolean();
      };
      added_token token{.content = std::string(element.at("content").string()),
                        .special = flag("special"),
                        .single_word = flag("single_word"),
                        .left_strip = flag("lstrip"),
                        .right_strip = flag("rstrip")};
      if (token.content.empty()) continue;
      // The vocabulary's id holds, as with Hugging Face, where a token is also there.
      const std::int64_t written = element.at("id").integer();
      token.id = parts_.tokens.find(token.content);
      if (token.id < 0) {
        if (written < 0 || written > max_id) {
          element.at("id").fail("the id " + std::to_string(written) + " is not in [0, " + std::to_string(max_id) + "]",
                                written < 0 ? error_code::malformed : error_code::limit);
        }
        token.id = static_cast<int>(written);
        if (!parts_.tokens.add(token.content, token.id)) {
          element.at("id").fail("another token has the id " + std::to_string(written), error_code::malformed);
        }
      }
      if (!seen.add(token.content, token.id)) element.fail("this token is there already", error_code::malformed);
      if (static_cast<std::size_t>(token.id) >= parts_.is_special.size()) {
        parts_.is_special.resize(static_cast<std::size_t>(parts_.tokens.size()));
      }
      parts_.is_special[static_cast<std::size_t>(token.id)] = token.special;
      if (flag("normalized")) {
        aligned_text content{token.content};
        parts_.normalizing.apply(content);
        if (content.text != token.content) parts_.decoded_as.emplace(token.id, content.text);
        token.content = std::move(content.text);
        normalized.push_back(std::move(token));
      } else {
        raw.push_back(std::move(token));
      }
    }
    parts_.raw_added = added_token_set(std::move(raw));
    parts_.normalized_added = added_token_set(std::move(normalized));
  }

  /// The ids of a template stand in the file a second time; they must name tokens.
  void check_template(const json::value& root) const {
    for (const std::vector<int>* side : {&parts_.prefix, &parts_.suffix}) {
      for (const int id : *side) {
        if (!parts_.tokens.has(id)) {
          root.at("post_processor")
              .fail("its template uses the id " + std::to_string(id) + ", which is no token", error_code::malformed);
        }
      }
    }
  }

  json::document document_;
  tokenizer_parts parts_;
};

/// Reads the text of a tokenizer.json; `name` stands for the file in errors. Errors, naming file and field:
/// malformed (invalid JSON, ids twice, merges of unknown tokens ...), missing, mismatch, limit, unsupported.
inline tokenizer_parts read_tokenizer_json(std::string_view text, const std::string& name) {
  return tokenizer_json_reader(text, name).read();
}

/// Reads a tokenizer.json, and bos and eos from the tokenizer_config.json beside it if there is one. Errors: also io.
inline tokenizer_parts read_tokenizer_json_file(const std::string& path) {
  const auto contents = [](const std::string& file) -> std::optional<std::string> {
    std::ifstream in(file, std::ios::binary);
    if (!in) return std::nullopt;
    std::ostringstream out;
    out << in.rdbuf();
    if (in.bad() || !out) throw error(error_code::io, file, "reading failed");
    return std::move(out).str();
  };
  const std::optional<std::string> text = contents(path);
  if (!text) throw error(error_code::io, path, "the file can't be opened");
  tokenizer_parts parts = read_tokenizer_json(*text, path);

  const std::size_t slash = path.rfind('/');
  const std::string config_path =
      (slash == std::string::npos ? "" : path.substr(0, slash + 1)) + "tokenizer_config.json";
  const std::optional<std::string> config_text = contents(config_path);
  if (!config_text) return parts;
  const json::document config(*config_text, config_path);
  // "bos_token" is a text, or an added token with its text in "content".
  const auto token = [&](const char* key) -> std::optional<int> {
    const auto v = config.root().find_set(key);
    if (!v) return std::nullopt;
    const int id = parts.tokens.find(v->is_object() ? v->at("content").string() : v->string());
    return id < 0 ? std::nullopt : std::optional<int>(id);
  };
  parts.bos = token("bos_token");
  parts.eos = token("eos_token");
  return parts;
}

}  // namespace effinfer::inline v0::text
