// The tokenizer that comes with a checkpoint, as a user loads it.

#include <effinfer/core/json.hpp>
#include <effinfer/text/tokenizer.hpp>

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace tokenizer_tests {

namespace text = effinfer::text;
namespace json = effinfer::json;

namespace {

const std::string data = EFFINFER_TEST_DATA;

std::vector<int> ids_of(const json::value& v) {
  std::vector<int> ids;
  for (const json::value& id : v.elements()) ids.push_back(static_cast<int>(id.integer()));
  return ids;
}

}  // namespace

TEST_CASE("a checkpoint folder brings its tokenizer, with its begin and end") {
  const std::string folder = data + "/models/llama3";
  const text::tokenizer t = text::tokenizer::load(effinfer::checkpoint::model_files::open(folder));
  REQUIRE(t.bos().has_value());
  REQUIRE(t.eos().has_value());
  CHECK(t.token_text(*t.bos()) == "<|begin_of_text|>");
  CHECK(t.token_text(*t.eos()) == "<|end_of_text|>");
  CHECK(t.is_special(*t.bos()));

  std::ifstream in(folder + "/tokenizer_reference.json", std::ios::binary);
  const json::document reference(std::string(std::istreambuf_iterator<char>(in), {}), "tokenizer_reference.json");
  int count = 0;
  for (const json::value& c : reference.root().elements()) {
    const std::string input(c.at("text").string());
    CAPTURE(input);
    CHECK(t.encode(input) == ids_of(c.at("ids")));
    CHECK(t.encode(input, {.add_special_tokens = false}) == ids_of(c.at("ids_without_special")));
    CHECK(t.decode(ids_of(c.at("ids_without_special")), {.skip_special = false}) == input);
    ++count;
  }
  CHECK(count > 3);
}

TEST_CASE("threads share a tokenizer") {
  const text::tokenizer t = text::tokenizer::from_json_file(data + "/tokenizers/hf_qwen2.json");
  const std::string input = "It's e\u0301 many-threaded text, \u6211\u60F3 \U0001F600, and 12345 more.\n";
  const std::vector<int> wanted = t.encode(input);
  std::vector<int> differences(4, 0);
  std::vector<std::thread> threads;
  for (int& different : differences) {
    threads.emplace_back([&different, &t, &input, &wanted] {
      for (int i = 0; i < 200; ++i) {
        different += t.encode(input) != wanted;
        different += t.decode(wanted) != t.decode(wanted);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(differences == std::vector<int>(4, 0));
}

TEST_CASE("a copy outlives the original") {
  std::optional<text::tokenizer> original(text::tokenizer::from_json_file(data + "/tokenizers/hf_gpt2.json"));
  const text::tokenizer copy = *original;
  const std::vector<int> ids = original->encode("hello");
  original.reset();
  CHECK(copy.encode("hello") == ids);
}

}  // namespace tokenizer_tests
