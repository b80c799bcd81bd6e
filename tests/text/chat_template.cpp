// Whole chat templates over conversations, against Jinja2 with transformers' settings, and where templates are found.

#include <effinfer/checkpoint/mapped_file.hpp>
#include <effinfer/checkpoint/model_files.hpp>
#include <effinfer/text/chat_template.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chat_template_tests {

namespace text = effinfer::text;
namespace jinja = effinfer::text::jinja;
namespace json = effinfer::json;
using effinfer::error;
using effinfer::error_code;

namespace {

struct conversation {
  std::vector<text::chat_message> messages;
  text::render_options options;
};

conversation read_conversation(const json::value& c) {
  conversation read;
  for (const auto& m : c.at("messages").elements()) {
    text::chat_message message;
    for (const auto& [key, v] : m.members()) {
      if (key == "role") {
        message.role = v.string();
      } else if (key == "content") {
        message.content = jinja::from_json(v);
      } else {
        message.extra.emplace_back(std::string(key), jinja::from_json(v));
      }
    }
    read.messages.push_back(std::move(message));
  }
  const auto prompt = c.find("add_generation_prompt");
  read.options.add_generation_prompt = !prompt || prompt->boolean();
  read.options.bos_token = "<s>";
  read.options.eos_token = "</s>";
  if (const auto tools = c.find("tools")) read.options.tools = jinja::from_json(*tools);
  if (const auto more = c.find("variables")) {
    for (const auto& [key, v] : more->members())
      read.options.variables.emplace_back(std::string(key), jinja::from_json(v));
  }
  std::tm now{};
  now.tm_year = 124, now.tm_mon = 6, now.tm_mday = 26, now.tm_wday = 5, now.tm_yday = 207;
  now.tm_hour = 15, now.tm_min = 4, now.tm_sec = 5;
  read.options.now = now;
  return read;
}

// A folder that is removed at the end.
class temporary_folder {
 public:
  temporary_folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "effinfer-chat-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~temporary_folder() { std::filesystem::remove_all(path_); }
  void write(const std::string& name, const std::string& contents) const {
    std::filesystem::create_directories(std::filesystem::path(path_ + "/" + name).parent_path());
    std::ofstream(path_ + "/" + name, std::ios::binary) << contents;
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

error_code code_of(const std::string& folder) {
  try {
    static_cast<void>(text::find_chat_template(folder));
  } catch (const error& e) {
    CHECK(std::string(e.what()).find(folder) == 0);
    return e.code();
  }
  FAIL("no error");
  return error_code::io;
}

// Metadata of a GGUF file without tensors.
std::string gguf_with(const std::vector<std::pair<std::string, std::string>>& strings) {
  std::string out = "GGUF";
  const auto number = [&](std::uint64_t n, int bytes) {
    for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>((n >> (8 * i)) & 0xFF));
  };
  number(3, 4);
  number(0, 8);
  number(strings.size(), 8);
  for (const auto& [key, v] : strings) {
    number(key.size(), 8);
    out += key;
    number(8, 4);
    number(v.size(), 8);
    out += v;
  }
  return out;
}

}  // namespace

TEST_CASE("chat template: the shapes of all families give what Jinja2 gives") {
  const effinfer::checkpoint::mapped_file file(std::string(EFFINFER_TEST_DATA) + "/chat_templates/cases.json");
  const json::document document(file.text(), "cases.json");
  std::map<std::string, conversation> conversations;
  for (const auto& [name, c] : document.root().at("conversations").members()) {
    conversations.emplace(std::string(name), read_conversation(c));
  }
  int texts = 0, refusals = 0;
  for (const auto& [name, t] : document.root().at("templates").members()) {
    const std::string family(name);
    const text::chat_template loaded(t.at("source").string(), family);
    for (const auto& [key, expected] : t.at("cases").members()) {
      const std::string talk(key);
      const conversation& c = conversations.at(talk);
      CAPTURE(family);
      CAPTURE(talk);
      if (expected.is_string()) {
        ++texts;
        std::string rendered;
        try {
          rendered = loaded.render(c.messages, c.options);
        } catch (const error& e) {
          rendered = e.what();
        }
        CHECK(rendered == std::string(expected.string()));
        continue;
      }
      ++refusals;
      try {
        const std::string rendered = loaded.render(c.messages, c.options);
        FAIL_CHECK("no error, but: " << rendered);
      } catch (const error& e) {
        CHECK(std::string(e.what()).find(family + ": line ") == 0);
        if (const auto raised = expected.find("raised")) {
          CHECK(e.code() == error_code::invalid_argument);
          CHECK(std::string(e.what()).find(std::string(raised->string())) != std::string::npos);
        } else {
          CHECK(e.code() == error_code::malformed);
        }
      }
    }
  }
  CHECK(texts > 280);
  CHECK(refusals > 50);
}

TEST_CASE("chat template: messages are built from strings, and one template serves many renderings") {
  const text::chat_template t(
      "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}\n{% endfor %}{{ name }}");
  std::vector<text::chat_message> messages = {{.role = "system", .content = "Be brief."}};
  const std::string line = "Hello";
  messages.push_back({.role = "user", .content = line});
  CHECK(t.render(messages) == "[system] Be brief.\n[user] Hello\n");
  CHECK(t.render(messages, {.eos_token = "</s>", .variables = {{"name", "x"}}}) ==
        "[system] Be brief.</s>\n[user] Hello</s>\nx");
  const text::chat_template copy = t;
  CHECK(copy.render(messages) == t.render(messages));
  CHECK(text::chat_template(
            "{{ bos_token is defined }}{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}")
            .render({}) == "FalseTrueTrueFalse");
}

TEST_CASE("chat template: text that isn't UTF-8, and values nested too deep, are refused") {
  const text::chat_template t("{{ messages | length }}");
  const auto code = [&](const text::chat_message& m) {
    try {
      static_cast<void>(t.render(std::vector<text::chat_message>{m}));
    } catch (const error& e) {
      return e.code();
    }
    return error_code::io;
  };
  CHECK(code({.role = "user", .content = "\xC3"}) == error_code::invalid_utf8);
  CHECK(code({.role = "\xFF", .content = ""}) == error_code::invalid_utf8);
  CHECK(code({.role = "user", .content = "", .extra = {{"x", jinja::value::list({"a", "\x80"})}}}) ==
        error_code::invalid_utf8);
  CHECK(code({.role = "user", .content = "", .extra = {{"\xC0", 1}}}) == error_code::invalid_utf8);
  jinja::value deep = 1;
  for (int i = 0; i < 70; ++i) deep = jinja::value::list({deep});
  CHECK(code({.role = "user", .content = deep}) == error_code::invalid_argument);
}

TEST_CASE("chat template: found in a folder") {
  const temporary_folder folder;
  const std::vector<text::chat_message> none;
  CHECK_FALSE(text::find_chat_template(folder.path()).has_value());
  folder.write("tokenizer_config.json", R"({"bos_token": "<s>"})");
  CHECK_FALSE(text::find_chat_template(folder.path()).has_value());
  folder.write("tokenizer_config.json", R"({"chat_template": null})");
  CHECK_FALSE(text::find_chat_template(folder.path()).has_value());
  folder.write("tokenizer_config.json", R"({"chat_template": "one {{ 1 }}"})");
  CHECK(text::find_chat_template(folder.path())->render(none) == "one 1");

  folder.write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]})");
  const auto named = text::find_chat_template(folder.path());
  CHECK(named->render(none) == "d");
  CHECK(named->render(none, {.tools = jinja::value::list({})}) == "t");

  folder.write("chat_template.jinja", "file\n");
  CHECK(text::find_chat_template(folder.path())->render(none, {.tools = jinja::value::list({})}) == "file");
  folder.write("additional_chat_templates/tool_use.jinja", "tools");
  CHECK(text::find_chat_template(folder.path())->render(none) == "file");
  CHECK(text::find_chat_template(folder.path())->render(none, {.tools = jinja::value::list({})}) == "tools");
  folder.write("chat_template.jinja", "{{");
  CHECK(code_of(folder.path()) == error_code::malformed);
}

TEST_CASE("chat template: what is wrong in a folder is named") {
  const temporary_folder folder;
  folder.write("tokenizer_config.json", R"({"chat_template": 3})");
  CHECK(code_of(folder.path()) == error_code::mismatch);
  folder.write("tokenizer_config.json",
               R"({"chat_template": [{"name": "a", "template": "x"}, {"name": "b", "template": "x"}]})");
  CHECK(code_of(folder.path()) == error_code::unsupported);
  folder.write("tokenizer_config.json", R"({"chat_template": [{"name": "default"}]})");
  CHECK(code_of(folder.path()) == error_code::missing);
  folder.write("tokenizer_config.json", R"({"chat_template": []})");
  CHECK(code_of(folder.path()) == error_code::unsupported);
  folder.write("tokenizer_config.json", R"({"chat_template": "{% if %}"})");
  CHECK(code_of(folder.path()) == error_code::malformed);
  folder.write("tokenizer_config.json", R"({"chat_template": )");
  CHECK(code_of(folder.path()) == error_code::malformed);
}

TEST_CASE("chat template: found in GGUF metadata") {
  const auto read = [](const std::string& bytes) {
    const effinfer::checkpoint::gguf file(std::as_bytes(std::span(bytes.data(), bytes.size())), "made.gguf");
    return text::find_chat_template(file);
  };
  CHECK_FALSE(read(gguf_with({{"general.name", "x"}})).has_value());
  const auto found =
      read(gguf_with({{"tokenizer.chat_template", "a{{ 1 }}"}, {"tokenizer.chat_template.tool_use", "b"}}));
  CHECK(found->render({}) == "a1");
  CHECK(found->render({}, {.tools = jinja::value::list({})}) == "b");
  try {
    static_cast<void>(read(gguf_with({{"tokenizer.chat_template", "\n{% x %}"}})));
    FAIL("no error");
  } catch (const error& e) {
    CHECK(std::string(e.what()) == "made.gguf: tokenizer.chat_template: line 2: unknown tag 'x'");
  }
}

TEST_CASE("chat template: the shipped models have one") {
  const std::vector<text::chat_message> messages = {{.role = "user", .content = " Who art thou? "}};
  const auto found = text::find_chat_template(std::string(EFFINFER_SHIPPED_MODELS) + "/shakespeare-llama");
  REQUIRE(found.has_value());
  CHECK(found->render(messages, {.add_generation_prompt = true, .bos_token = "<|begin_of_text|>"}) ==
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWho art thou?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

}  // namespace chat_template_tests
