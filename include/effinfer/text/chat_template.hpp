#pragma once
// A conversation as the text that a model was trained on: the chat template that comes with a checkpoint, a program in the
// language Jinja, run by an interpreter of our own (jinja/). It can't touch anything but the conversation, and its depth, steps
// and memory are limited.

#include <effinfer/checkpoint/mapped_file.hpp>
#include <effinfer/checkpoint/model_files.hpp>
#include <effinfer/core/json.hpp>
#include <effinfer/text/jinja/interpreter.hpp>
#include <effinfer/text/jinja/json_value.hpp>
#include <effinfer/text/jinja/parser.hpp>
#include <effinfer/text/jinja/value.hpp>

#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text {

/// One turn of a conversation.
struct chat_message {
  std::string role;  ///< "system", "user", "assistant", "tool" ...
  jinja::value content =
      {};  ///< usually a string; None, or a list of parts, where the template knows what to do with it
  /// Other fields that the template may look for: tool_calls, reasoning_content, name ... See jinja::from_json.
  std::vector<std::pair<std::string, jinja::value>> extra = {};
};

struct render_options {
  bool add_generation_prompt = false;  ///< end with the beginning of the assistant's answer
  std::string bos_token = {};          ///< the text of the token; empty: the template sees none
  std::string eos_token = {};
  jinja::value tools = {};  ///< a list of JSON schemas of functions; None: no tools
  /// More that the template may ask for: enable_thinking, documents, date_string ... They come before all of the above.
  std::vector<std::pair<std::string, jinja::value>> variables = {};
  std::optional<std::tm> now = {};  ///< what strftime_now tells; without it a template that calls it gives an error
  jinja::limits limits = {};
};

/// A parsed template. Immutable, cheap to copy, shared among threads without locks.
///
/// Exact: the text of Jinja 3.1 with the settings and functions of transformers' apply_chat_template (trim_blocks,
/// lstrip_blocks, loop controls, immutable sandbox, tojson, raise_exception, strftime_now, `generation` blocks). Known
/// differences: integers have 64 bits; filters and methods that no chat template uses are refused as unknown or unsupported;
/// so are include, import, extends and block.
class chat_template {
 public:
  /// `name` stands in errors, with the line. Errors: `malformed`, `unsupported`, `limit`, `invalid_utf8`.
  explicit chat_template(std::string_view source, std::string name = "chat_template") {
    programs_.push_back(std::make_shared<const program>(source, std::move(name)));
  }

  /// Adds the template for conversations with tools, where there is one of its own.
  void set_tool_template(std::string_view source, std::string name) {
    programs_.resize(1);
    programs_.push_back(std::make_shared<const program>(source, std::move(name)));
  }

  /// The conversation as text, special tokens included: encode it without adding any (add_special_tokens = false).
  ///
  /// Errors: `invalid_argument` with the template's own words where it refuses the conversation (raise_exception), and for
  /// values nested too deep; `invalid_utf8`; `malformed` where the template fails, often as a field that it expects
  /// isn't there; `unsupported`; `limit`. All but the first two name template and line.
  [[nodiscard]] std::string render(std::span<const chat_message> messages, const render_options& options = {}) const {
    using jinja::value;
    jinja::dictionary variables;
    std::vector<value> turns;
    turns.reserve(messages.size());
    for (const chat_message& m : messages) turns.push_back(turn(m));
    variables.set("messages", value::list(std::move(turns)));
    variables.set("tools", options.tools);
    variables.set("documents", nullptr);
    variables.set("add_generation_prompt", options.add_generation_prompt);
    if (!options.bos_token.empty()) variables.set("bos_token", options.bos_token);
    if (!options.eos_token.empty()) variables.set("eos_token", options.eos_token);
    if (options.now) variables.set("strftime_now", std::make_shared<jinja::clock>(*options.now));
    for (const auto& [name, item] : options.variables) variables.set(name, item);
    for (const auto& [name, item] : variables.entries()) check(item, std::string(name.text()->view()));

    const program& chosen = *programs_[programs_.size() > 1 && !options.tools.is_none() ? 1 : 0];
    jinja::runtime run(chosen.name, options.limits);
    return jinja::interpreter(run, variables).render(chosen.body);
  }

 private:
  struct program {
    program(std::string_view source, std::string n) : name(std::move(n)), body(jinja::parser::parse(source, name)) {}
    std::string name;
    std::vector<jinja::statement> body;
  };

  /// A message as the dict that templates expect. What a model thought stands under several names, as in transformers.
  static jinja::value turn(const chat_message& m) {
    auto fields = std::make_shared<jinja::dictionary>();
    const jinja::value* reasoning = nullptr;
    for (const std::string_view name : {"reasoning", "thinking", "reasoning_content"}) {
      for (const auto& [key, item] : m.extra) {
        if (key == name && !item.is_none()) reasoning = &item;
      }
    }
    if (reasoning) fields->set("thinking", *reasoning);
    fields->set("role", m.role);
    fields->set("content", m.content);
    for (const auto& [key, item] : m.extra) fields->set(key, item);
    if (reasoning) fields->set("reasoning_content", *reasoning);
    return std::shared_ptr<const jinja::dictionary>(std::move(fields));
  }

  static void check(const jinja::value& v, const std::string& name) {
    const std::string where = "text::chat_template::render, " + name;
    if (v.depth() > 64) throw error(error_code::invalid_argument, where, "values nest deeper than 64");
    check_texts(v, where);
  }
  static void check_texts(const jinja::value& v, const std::string& where) {
    if (const jinja::text_value* t = v.text()) {
      const std::size_t invalid = find_invalid_utf8(t->view());
      if (invalid != std::string_view::npos) {
        throw error(error_code::invalid_utf8, where, "a text isn't UTF-8 at byte " + std::to_string(invalid));
      }
    } else if (const jinja::sequence* s = v.elements()) {
      for (const jinja::value& element : s->elements) check_texts(element, where);
    } else if (const jinja::dictionary* d = v.mapping()) {
      for (const auto& [key, item] : d->entries()) {
        check_texts(key, where);
        check_texts(item, where);
      }
    }
  }

  std::vector<std::shared_ptr<const program>> programs_;  // for all conversations, and for those with tools
};

/// The chat template in a Hugging Face folder: chat_template.jinja, or `chat_template` in tokenizer_config.json (one, or a list
/// of named ones, of which `default` and `tool_use` count). Nothing, if there is none.
/// Errors, naming file and field: `io`, `malformed`, `mismatch`, `unsupported`, `limit`.
inline std::optional<chat_template> find_chat_template(const std::string& folder) {
  const auto file_text = [](const std::string& path) { return std::string(checkpoint::mapped_file(path).text()); };
  std::optional<chat_template> found;
  const std::string file = folder + "/chat_template.jinja", config = folder + "/tokenizer_config.json";
  const std::string with_tools = folder + "/additional_chat_templates/tool_use.jinja";
  if (checkpoint::is_file(file)) {
    found.emplace(file_text(file), file);
    if (checkpoint::is_file(with_tools)) found->set_tool_template(file_text(with_tools), with_tools);
    return found;
  }
  if (!checkpoint::is_file(config)) return found;
  const checkpoint::mapped_file mapped(config);
  const json::document document(mapped.text(), config);
  const auto field = document.root().find_set("chat_template");
  if (!field) return found;
  if (field->is_string()) {
    found.emplace(field->string(), field->where());
    return found;
  }
  std::optional<json::value> one, tools;
  for (const json::value& entry : field->elements()) {
    const std::string_view name = entry.at("name").string();
    if (name == "default") one = entry.at("template");
    if (name == "tool_use") tools = entry.at("template");
  }
  if (!one) {
    if (field->size() != 1) field->fail("there is no template named default", error_code::unsupported);
    one = (*field)[0].at("template");
  }
  found.emplace(one->string(), one->where());
  if (tools) found->set_tool_template(tools->string(), tools->where());
  return found;
}

/// The chat template in the metadata of a .gguf file: tokenizer.chat_template. Nothing, if there is none.
/// Errors, naming file and key: `mismatch`, `malformed`, `unsupported`, `limit`.
inline std::optional<chat_template> find_chat_template(const checkpoint::gguf& file) {
  const auto* one = file.find("tokenizer.chat_template");
  if (!one) return std::nullopt;
  std::optional<chat_template> found(std::in_place, one->string(), one->where());
  const auto* tools = file.find("tokenizer.chat_template.tool_use");
  if (tools) found->set_tool_template(tools->string(), tools->where());
  return found;
}

/// The chat template that comes with a checkpoint, if one does.
inline std::optional<chat_template> find_chat_template(const checkpoint::model_files& files) {
  return files.gguf_file() ? find_chat_template(*files.gguf_file()) : find_chat_template(files.folder());
}

}  // namespace effinfer::inline v0::text
