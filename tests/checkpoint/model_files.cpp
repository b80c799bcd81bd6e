// checkpoint/model_files.hpp: every way in which people have checkpoints opens, and every broken one says what is wrong.

#include "checkpoint/allocated_bytes.hpp"
#include "checkpoint/expect_error.hpp"
#include "checkpoint/gguf_writer.hpp"
#include "checkpoint/safetensors_writer.hpp"
#include "checkpoint/scratch_folder.hpp"

#include <effinfer/checkpoint/model_files.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace model_files_tests {

using effinfer::error_code;
using effinfer::checkpoint::model_files;
using test::expect_error;
using test::safetensors_file;
using test::scratch_folder;

namespace {

const std::string data = std::string(EFFINFER_TEST_DATA) + "/models/";

constexpr std::string_view config =
    R"({"model_type": "llama", "vocab_size": 4, "hidden_size": 8, "intermediate_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 2})";

std::string one(const std::string& name, const std::string& bytes = "1234") {
  return safetensors_file({{name, "F32", "[1]", bytes}});
}

/// Opening `path` is refused with a message that holds the words.
void refuses(const std::string& path, error_code code, std::initializer_list<std::string_view> words) {
  expect_error(code, words, [&] { return model_files::open(path); });
}

/// A folder of two shards, "a" and "b" in the first, "c" in the second.
struct sharded : scratch_folder {
  sharded() {
    write("config.json", config);
    write("one.safetensors", safetensors_file({{"a", "F32", "[1]", "aaaa"}, {"b", "F32", "[1]", "bbbb"}}));
    write("two.safetensors", one("c", "cccc"));
    index(R"("a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors")");
  }
  void index(const std::string& map) const { write("model.safetensors.index.json", "{\"weight_map\": {" + map + "}}"); }
};

}  // namespace

TEST_CASE("every checkpoint of the tests opens with the architecture that its name tells") {
  int opened = 0;
  for (const auto& entry : std::filesystem::directory_iterator(data)) {
    const std::string name = entry.path().filename().string();
    const std::string architecture = name.substr(0, name.find('-')) == "llama2" || name == "llama3" ? "llama"
                                     : name == "linear"                                             ? "effinfer_linear"
                                                        : name.substr(0, name.find('-'));
    CAPTURE(name);
    if (std::filesystem::exists(entry.path() / "config.json")) {
      const model_files folder = model_files::open(entry.path().string());
      CHECK(folder.config().architecture == architecture);
      CHECK(!folder.is_gguf());
      CHECK(folder.gguf_file() == nullptr);
      CHECK(folder.folder() == entry.path().string());
      CHECK(folder.at("model.embed_tokens.weight").shape ==
            std::vector<std::int64_t>{folder.config().vocabulary_size, folder.config().width});
      ++opened;
      const auto weights = entry.path() / "model.safetensors";
      if (std::filesystem::exists(weights)) {
        const model_files file = model_files::open(weights.string());
        CHECK(file.config().architecture == architecture);
        CHECK(file.tensors().size() == folder.tensors().size());
        CHECK(file.mapped_bytes() == std::filesystem::file_size(weights));
      }
    }
    const auto gguf = entry.path() / "model.gguf";
    if (std::filesystem::exists(gguf)) {
      const model_files file = model_files::open(gguf.string());
      // The converter calls a Mistral model a llama: it differs in nothing but its window.
      CHECK(file.config().architecture == (architecture == "mistral" ? "llama" : architecture));
      CHECK(file.is_gguf());
      CHECK(file.gguf_file()->name() == gguf.string());
      CHECK(file.folder().empty());
      CHECK(file.mapped_bytes() == std::filesystem::file_size(gguf));
      CHECK(file.find("token_embd.weight") != nullptr);
      ++opened;
    }
  }
  CHECK(opened >= 20);
}

TEST_CASE("tensors are found by name, also when the files have moved") {
  model_files files = model_files::open(data + "llama-sharded///");
  CHECK(files.path() == data + "llama-sharded");
  CHECK(files.tensors().size() == 12);
  const auto* tensor = files.find("model.norm.weight");
  REQUIRE(tensor != nullptr);
  CHECK(tensor->file == data + "llama-sharded/model-00003-of-00003.safetensors");
  model_files moved(std::move(files));
  CHECK(moved.find("model.norm.weight") == tensor);
  moved = model_files::open(data + "llama-q8_0/model.gguf");
  const model_files again(std::move(moved));
  CHECK(again.at("output_norm.weight").name == "output_norm.weight");
  CHECK(again.gguf_file()->at("general.architecture").string() == "llama");
  CHECK(again.find("model.norm.weight") == nullptr);
  expect_error(error_code::missing, {data + "llama-q8_0/model.gguf: tensor model.norm.weight"},
               [&] { return again.at("model.norm.weight"); });
}

TEST_CASE("folders of links, as caches have them, open") {
  const scratch_folder folder;
  const std::string real = std::filesystem::canonical(data + "llama3").string();
  for (const char* name : {"config.json", "model.safetensors"}) folder.link(name, real + "/" + name);
  CHECK(model_files::open(folder.path()).config().architecture == "llama");
  CHECK(model_files::open(folder.link("link", real)).config().architecture == "llama");
}

TEST_CASE("what is no checkpoint") {
  const scratch_folder folder;
  refuses("", error_code::io, {"can't be opened"});
  refuses(folder.path("absent"), error_code::io, {folder.path("absent"), "can't be opened"});
  refuses(folder.path("absent.gguf"), error_code::io, {folder.path("absent.gguf"), "can't be opened"});
  refuses(folder.path(), error_code::missing, {folder.path("config.json"), "isn't there"});
  refuses(folder.write("model.bin", "PK\x03\x04 a torch file"), error_code::malformed, {"model.bin"});
  refuses(folder.write("empty.gguf", ""), error_code::malformed, {"empty.gguf: magic"});
  refuses(folder.write("empty.safetensors", ""), error_code::malformed, {"empty.safetensors", "0 bytes"});
  refuses(folder.write("alone.safetensors", one("a")), error_code::missing,
          {folder.path("config.json"), "isn't there"});

  folder.write("config.json", config);
  refuses(folder.path(), error_code::missing, {folder.path("model.safetensors"), "model.safetensors.index.json"});
  folder.write("model.safetensors", one("a").substr(0, 40));
  refuses(folder.path(), error_code::malformed, {folder.path("model.safetensors"), "header length", "cut short"});
  folder.write("model.safetensors", one("a"));
  CHECK(model_files::open(folder.path()).at("a").data.size() == 4);
  folder.write("config.json", "{");
  refuses(folder.path(), error_code::malformed, {folder.path("config.json"), "invalid JSON"});
  folder.write("config.json", "");
  refuses(folder.path(), error_code::malformed, {folder.path("config.json"), "invalid JSON"});
  folder.write("config.json", config);
  folder.write("generation_config.json", "\xff");
  refuses(folder.path(), error_code::malformed, {folder.path("generation_config.json")});
}

TEST_CASE("links in circles, pipes and folders in the place of files") {
  const scratch_folder folder;
  folder.write("config.json", config);
  refuses(folder.link("itself", "itself"), error_code::io, {folder.path("itself"), "can't be opened"});
  refuses(folder.link("itself.gguf", "itself.gguf"), error_code::io, {folder.path("itself.gguf"), "can't be opened"});
  folder.link("model.safetensors", "model.safetensors");
  refuses(folder.path(), error_code::missing, {folder.path("model.safetensors"), "isn't there"});
  // A folder that holds itself is as good as any.
  std::filesystem::remove(folder.path("model.safetensors"));
  folder.write("model.safetensors", one("a"));
  folder.link("inside", ".");
  CHECK(model_files::open(folder.path("inside/inside/inside")).tensors().size() == 1);

  std::filesystem::create_directory(folder.path("folder.gguf"));
  refuses(folder.path("folder.gguf"), error_code::missing, {"folder.gguf/config.json"});
  std::filesystem::remove(folder.path("config.json"));
  folder.link("config.json", "config.json");
  refuses(folder.path(), error_code::missing, {folder.path("config.json"), "isn't there"});
}

TEST_CASE("shards") {
  const sharded folder;
  const model_files files = model_files::open(folder.path());
  CHECK(files.tensors().size() == 3);
  CHECK(std::to_integer<char>(files.at("c").data[0]) == 'c');
  CHECK(files.at("c").file == folder.path("two.safetensors"));
  CHECK(files.mapped_bytes() == std::filesystem::file_size(folder.path("one.safetensors")) +
                                    std::filesystem::file_size(folder.path("two.safetensors")));
}

TEST_CASE("shards that aren't there, aren't whole, or don't hold what the index says") {
  const sharded folder;
  const std::string index = folder.path("model.safetensors.index.json");
  folder.index(R"("a": "one.safetensors", "c": "three.safetensors")");
  refuses(folder.path(), error_code::missing, {folder.path("three.safetensors"), index});
  folder.link("three.safetensors", "three.safetensors");
  refuses(folder.path(), error_code::missing, {folder.path("three.safetensors"), index});
  folder.index(R"("a": "one.safetensors", "c": "one.safetensors")");
  refuses(folder.path(), error_code::missing, {folder.path("one.safetensors"), "tensor c", "index"});
  folder.index(R"("a": "two.safetensors", "c": "two.safetensors", "b": "one.safetensors")");
  refuses(folder.path(), error_code::missing, {folder.path("two.safetensors"), "tensor a", "index"});
  folder.index(R"("a": "one.safetensors", "a": "two.safetensors")");
  refuses(folder.path(), error_code::missing, {folder.path("two.safetensors"), "tensor a", "index"});

  const std::string right = R"("a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors")";
  folder.index(right);
  folder.write("two.safetensors", safetensors_file({{"c", "F32", "[1]", "cccc"}, {"a", "F32", "[1]", "aaaa"}}));
  refuses(folder.path(), error_code::malformed, {folder.path("two.safetensors"), "tensor a", "another shard"});
  const std::string whole = one("c");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    folder.write("two.safetensors", whole.substr(0, size));
    refuses(folder.path(), error_code::malformed, {folder.path("two.safetensors")});
  }
  folder.write("two.safetensors", whole);
  CHECK_NOTHROW(model_files::open(folder.path()));
}

TEST_CASE("shards out of the folder are not opened") {
  const sharded folder;
  const std::string secret = folder.write("secret", one("a"));
  for (const std::string name : {"../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", "",
                                 "./one.safetensors", "one.safetensors\\u0000.txt", "sub\\/..\\/one.safetensors"}) {
    CAPTURE(name);
    folder.index("\"a\": \"" + name + "\"");
    refuses(folder.path(), error_code::malformed, {"model.safetensors.index.json: field weight_map.a", "no file name"});
  }
  folder.index("\"a\": \"" + secret + "\"");
  refuses(folder.path(), error_code::malformed, {"field weight_map.a", "no file name"});
  folder.index("\"a\": \"" + std::string(256, 'x') + "\"");
  refuses(folder.path(), error_code::malformed, {"field weight_map.a", "no file name"});
}

TEST_CASE("indexes that are none") {
  const sharded folder;
  const std::string name = "model.safetensors.index.json";
  const auto refused = [&](std::string_view text, error_code code, std::initializer_list<std::string_view> words) {
    folder.write(name, text);
    refuses(folder.path(), code, {folder.path(name)});
    refuses(folder.path(), code, words);
  };
  refused("", error_code::malformed, {"invalid JSON"});
  refused("{\"weight_map\": {", error_code::malformed, {"invalid JSON"});
  refused("[]", error_code::mismatch, {"not an object"});
  refused("{}", error_code::missing, {"field weight_map"});
  refused(R"({"weight_map": []})", error_code::mismatch, {"field weight_map", "not an object"});
  refused(R"({"weight_map": {"a": 1}})", error_code::mismatch, {"field weight_map.a", "not a string"});
  refused(R"({"weight_map": {"a": null}})", error_code::mismatch, {"field weight_map.a", "not a string"});
  refused("{\"weight_map\": " + std::string(50, '[') + std::string(50, ']') + "}", error_code::limit,
          {"nested deeper"});
}

TEST_CASE("a .gguf that is one of several") {
  const scratch_folder folder;
  const auto with_count = [&](test::gguf_writer w) { return folder.write("model-00001-of-00002.gguf", w.file()); };
  using effinfer::checkpoint::gguf_type;
  refuses(with_count(test::gguf_writer().add("split.count", gguf_type::uint16, std::string("\x02\0", 2))),
          error_code::unsupported, {"model-00001-of-00002.gguf: split.count", "merge"});
  refuses(with_count(test::gguf_writer().add("split.count", "2")), error_code::mismatch, {"split.count"});
  // One of one is a whole model; this one has no architecture.
  refuses(with_count(test::gguf_writer().add("split.count", gguf_type::uint16, std::string("\x01\0", 2))),
          error_code::missing, {"general.architecture"});
}

TEST_CASE("sizes that a bad checkpoint tells are not allocated") {
  const sharded folder;
  std::string text(config);
  text.replace(text.find("\"num_hidden_layers\": 1"), 22,
               "\"num_hidden_layers\": 4096, \"max_position_embeddings\": 268435456");
  folder.write("config.json", text);
  CHECK(test::bytes_allocated_by([&] { return model_files::open(folder.path()); }) < 200'000);
}

}  // namespace model_files_tests
