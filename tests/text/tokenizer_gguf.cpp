// GGUF vocabularies against the cases that come with them (tests/data/tokenizers/ggml-vocab-*.gguf.inp and .out), and
// made ones for the rules that those don't touch.

#include <effinfer/checkpoint/mapped_file.hpp>
#include <effinfer/text/stream_decoder.hpp>
#include <effinfer/text/tokenizer.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

namespace tokenizer_gguf_tests {

namespace text = effinfer::text;

namespace {

const std::string folder = std::string(EFFINFER_TEST_DATA) + "/tokenizers/";

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE_MESSAGE(in.good(), path);
  return {std::istreambuf_iterator<char>(in), {}};
}

text::tokenizer read(const std::string& bytes) {
  return text::tokenizer::from_gguf({std::as_bytes(std::span(bytes.data(), bytes.size())), "made.gguf"});
}

using list = std::vector<int>;

// Writes GGUF metadata: what the format's specification says of a header and of values.
class gguf_writer {
 public:
  gguf_writer& strings(const std::string& key, const std::vector<std::string>& values) {
    array(key, 8, values.size());
    for (const std::string& v : values) string(v);
    return *this;
  }
  gguf_writer& floats(const std::string& key, const std::vector<float>& values) {
    array(key, 6, values.size());
    for (const float v : values) number(v);
    return *this;
  }
  gguf_writer& integers(const std::string& key, const std::vector<std::int32_t>& values) {
    array(key, 5, values.size());
    for (const std::int32_t v : values) number(v);
    return *this;
  }
  gguf_writer& text(const std::string& key, const std::string& value) {
    begin(key, 8);
    string(value);
    return *this;
  }
  gguf_writer& integer(const std::string& key, std::uint32_t value) {
    begin(key, 4);
    number(value);
    return *this;
  }
  gguf_writer& flag(const std::string& key, bool value) {
    begin(key, 7);
    number(std::uint8_t{value});
    return *this;
  }
  [[nodiscard]] std::string bytes() const {
    gguf_writer head;
    head.bytes_ = "GGUF";
    head.number(std::uint32_t{3});
    head.number(std::uint64_t{0});
    head.number(count_);
    return head.bytes_ + bytes_;
  }

 private:
  template <class T>
  void number(T v) {
    char raw[sizeof v];
    std::memcpy(raw, &v, sizeof v);
    bytes_.append(raw, sizeof v);
  }
  void string(const std::string& s) {
    number(static_cast<std::uint64_t>(s.size()));
    bytes_ += s;
  }
  void begin(const std::string& key, std::uint32_t type) {
    string("tokenizer.ggml." + key);
    number(type);
    ++count_;
  }
  void array(const std::string& key, std::uint32_t type, std::size_t count) {
    begin(key, 9);
    number(type);
    number(static_cast<std::uint64_t>(count));
  }
  std::string bytes_;
  std::uint64_t count_ = 0;
};

void check_refused(const gguf_writer& file, effinfer::error_code code, const std::string& key) {
  try {
    static_cast<void>(read(file.bytes()));
    FAIL_CHECK("it was read");
  } catch (const effinfer::error& e) {
    CHECK(e.code() == code);
    CHECK(e.where() == "made.gguf: tokenizer.ggml." + key);
  }
}

// A small SentencePiece vocabulary: <unk> <s> </s>, byte tokens for 0 to 255, then these.
gguf_writer sentencepiece(const std::vector<std::pair<std::string, float>>& pieces, std::int32_t type_of_last = 1) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<float> scores(3 + 256, 0.0f);
  std::vector<std::int32_t> types = {2, 3, 3};
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(b));
    tokens.emplace_back(name);
    types.push_back(6);
  }
  for (const auto& [piece, score] : pieces) {
    tokens.push_back(piece);
    scores.push_back(score);
    types.push_back(1);
  }
  types.back() = type_of_last;
  gguf_writer file;
  file.text("model", "llama").strings("tokens", tokens).floats("scores", scores).integers("token_type", types);
  return file;
}

}  // namespace

TEST_CASE("the vocabularies of GPT-2, DeepSeek-Coder and Phi-3 give the ids that come with them") {
  const std::string separator = "\n__ggml_vocab_test__\n";
  for (const char* name : {"gpt-2", "deepseek-coder", "phi-3"}) {
    CAPTURE(name);
    const std::string path = folder + "ggml-vocab-" + name + ".gguf";
    const effinfer::checkpoint::mapped_file file(path);
    const text::tokenizer t = text::tokenizer::from_gguf({file.bytes(), path});
    std::string inputs = contents(path + ".inp");
    std::istringstream outputs(contents(path + ".out"));
    std::size_t count = 0;
    for (std::string line; std::getline(outputs, line); ++count) {
      const std::size_t end = inputs.find(separator);
      const std::string input = inputs.substr(0, end);
      inputs.erase(0, end == std::string::npos ? inputs.size() : end + separator.size());
      CAPTURE(input);
      list wanted;
      std::istringstream numbers(line);
      for (int id; numbers >> id;) wanted.push_back(id);
      const list ids = t.encode(input, {.add_special_tokens = false});
      CHECK(ids == wanted);
      CHECK(t.decode(ids) == input);
      text::stream_decoder stream(t);
      std::string streamed;
      for (const int id : ids) streamed += stream.push(id);
      CHECK(streamed + stream.finish() == input);
    }
    CHECK(count == 46);
    CHECK(inputs.empty());
  }
}

TEST_CASE("what begins and ends a sequence") {
  const auto load = [](const char* name) {
    const std::string path = folder + "ggml-vocab-" + name + ".gguf";
    const effinfer::checkpoint::mapped_file file(path);
    return text::tokenizer::from_gguf({file.bytes(), path});
  };
  const text::tokenizer phi = load("phi-3");
  CHECK(phi.size() == 32064);
  CHECK(phi.bos() == 1);
  CHECK(phi.eos() == 32000);
  CHECK(phi.encode("Hello world") == list{1, 15043, 3186});
  CHECK(phi.encode("<|user|>Hello<|end|>", {.add_special_tokens = false}) == list{32010, 15043, 32007});
  CHECK(phi.encode("<|end|>", {.add_special_tokens = false, .parse_special = false}).size() > 3);
  CHECK(phi.decode(list{1, 32010, 15043, 32007}) == "Hello");
  CHECK(phi.is_special(32007));
  CHECK_FALSE(phi.is_special(15043));
  CHECK(phi.token_bytes(15043) == " Hello");
  CHECK(phi.token_bytes(3 + 0xE4) == "\xE4");

  const text::tokenizer gpt2 = load("gpt-2");
  CHECK(gpt2.encode("Hello world") == list{15496, 995});  // no key says that a begin is added
  CHECK(gpt2.eos() == 50256);
  CHECK(gpt2.decode(list{15496, 50256, 995}, {.skip_special = false}) == "Hello<|endoftext|> world");
  CHECK(load("deepseek-coder").encode("").size() == 1);  // the begin alone
}

TEST_CASE("SentencePiece merges by score, from the left, and through characters that are no tokens") {
  const text::tokenizer t = read(sentencepiece({{"a", -9.0f},
                                                {"b", -9.0f},
                                                {"\u2581", -9.0f},
                                                {"ab", -2.0f},
                                                {"ba", -1.0f},
                                                {"\u2581a", -3.0f},
                                                {"aa", -5.0f},
                                                {"\u00E9b", -4.0f}})
                                     .bytes());
  const auto id = [&](const char* piece) { return t.token_id(piece).value_or(-1); };
  const auto plain = [&](const char* input) { return t.encode(input, {.add_special_tokens = false}); };
  CHECK(plain("bab") == list{id("\u2581"), id("ba"), id("b")});
  CHECK(plain("aaa") == list{id("\u2581a"), id("aa")});
  CHECK(plain("") == list{});
  CHECK(plain("\u00E9b") == list{id("\u2581"), id("\u00E9b")});
  CHECK(plain("\u00E9a") == list{id("\u2581"), 3 + 0xC3, 3 + 0xA9, id("a")});
  CHECK(plain("\n") == list{id("\u2581"), 3 + 10});
  CHECK(t.encode("a") == list{1, id("\u2581a")});
  CHECK(t.decode(list{1, id("\u2581a"), id("b")}) == "ab");
  CHECK(plain("<s>a</s>") == list{1, id("\u2581a"), 2});
  // Text that spells a control or byte token is text.
  CHECK(t.encode("<s>", {.add_special_tokens = false, .parse_special = false}) ==
        list{id("\u2581"), 3 + '<', 3 + 's', 3 + '>'});

  const text::tokenizer bare = read(sentencepiece({{"a", 0.0f}, {"\u2581", 0.0f}, {"x y", 0.0f}}, 4)
                                        .flag("add_space_prefix", false)
                                        .flag("add_bos_token", false)
                                        .flag("add_eos_token", true)
                                        .bytes());
  CHECK(bare.encode("a a") == list{259, 260, 259, 2});
  CHECK(bare.encode("ax ya", {.parse_special = false}) == list{259, 261, 259, 2});  // user-defined: always found
  CHECK(bare.decode(list{260, 259}) == " a");
}

TEST_CASE("damaged and unknown vocabularies end in typed errors that name the key") {
  using enum effinfer::error_code;
  check_refused(gguf_writer().text("model", "bert"), unsupported, "model");
  check_refused(gguf_writer(), missing, "model");
  check_refused(gguf_writer().text("model", "gpt2"), missing, "tokens");
  const auto gpt2 = [] { return gguf_writer().text("model", "gpt2").strings("tokens", {"a", "b", "ab"}); };
  CHECK(read(gpt2().strings("merges", {"a b"}).text("pre", "gpt-2").bytes()).encode("abb") == list{2, 1});
  check_refused(gpt2(), missing, "merges");
  check_refused(gpt2().strings("merges", {"a c"}), malformed, "merges");
  check_refused(gpt2().strings("merges", {"b a"}), malformed, "merges");
  check_refused(gpt2().strings("merges", {"ab"}), malformed, "merges");
  check_refused(gpt2().strings("merges", {""}), malformed, "merges");
  check_refused(gpt2().strings("merges", {}).text("pre", "of tomorrow"), unsupported, "pre");
  check_refused(gpt2().strings("merges", {}).integer("bos_token_id", 3), mismatch, "bos_token_id");
  check_refused(gpt2().strings("merges", {}).flag("add_bos_token", true), missing, "add_bos_token");
  check_refused(gpt2().integers("token_type", {1, 1}), mismatch, "token_type");
  check_refused(gguf_writer().text("model", "gpt2").strings("tokens", {"a", "a"}), malformed, "tokens");
  check_refused(gguf_writer().text("model", "gpt2").strings("tokens", {"a", "\xFF"}), malformed, "tokens");
  check_refused(gguf_writer().text("model", "llama").strings("tokens", {"a"}), missing, "scores");
  check_refused(gguf_writer().text("model", "llama").strings("tokens", {"a"}).floats("scores", {NAN}), malformed,
                "scores");
  check_refused(gguf_writer().text("model", "llama").strings("tokens", {"a"}).integer("model_of_file", 0), missing,
                "scores");
}

TEST_CASE("every splitting that is known compiles") {
  for (const text::gguf_split& split : text::gguf_splits) {
    CAPTURE(split.name);
    for (const std::string_view pattern : split.patterns) CHECK_NOTHROW(text::regex(pattern, "table"));
  }
}

}  // namespace tokenizer_gguf_tests
