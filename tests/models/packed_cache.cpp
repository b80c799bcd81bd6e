// Packed weights kept in a file: later starts map them and compute the same; what doesn't fit to the letter is made anew, and
// what isn't ours is left alone.

#include "checkpoint/expect_error.hpp"
#include "checkpoint/scratch_folder.hpp"

#include <effinfer/model.hpp>

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace packed_cache_tests {

namespace ei = effinfer;
namespace fs = std::filesystem;
using ei::error_code;
using test::expect_error;
using test::read_file;
using test::scratch_folder;

namespace {

const std::string models = std::string(EFFINFER_TEST_DATA) + "/models/";

template <class... Policies>
ei::model<Policies...> load(const std::string& path, const std::string& packed_cache) {
  return ei::model<Policies...>::load(path, {.packed_cache = packed_cache});
}
template <class Model>
bool is_mapped(const Model& m) {
  return !m.decoder_model().weights().packed_file.bytes().empty();
}
template <class Model>
std::vector<float> logits(const Model& m) {
  auto session = m.start({.context_tokens = 16});
  const auto row = session.append(std::vector<int>{1, 5, 17, 60, 3});
  return {row.begin(), row.end()};
}
std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

template <class... Policies>
void is_the_same_mapped(const std::string& name) {
  CAPTURE(name);
  const scratch_folder folder;
  const std::string file = folder.path("packed");
  const auto expected = logits(ei::model<Policies...>::load(models + name));
  const auto first = load<Policies...>(models + name, file), second = load<Policies...>(models + name, file);
  CHECK(!is_mapped(first));
  CHECK(is_mapped(second));
  CHECK(logits(first) == expected);
  CHECK(logits(second) == expected);
  CHECK(names_in(folder.path()) == std::vector<std::string>{"packed"});
}

/// A packed file of a small checkpoint of its own, both in a folder.
struct kept : scratch_folder {
  std::string model = path("model"), file = path("packed");
  std::string bytes;

  kept() {
    fs::copy(models + "llama-f16", model, fs::copy_options::recursive);
    static_cast<void>(load<>(model, file));
    bytes = read_file(file);
    REQUIRE(is_mapped(load<>(model, file)));
  }
  [[nodiscard]] std::string weights() const { return model + "/model.safetensors"; }
  [[nodiscard]] std::size_t head_bytes() const { return (bytes.find('\0') + 4095) / 4096 * 4096; }

  /// Packed anew, and whole again.
  void is_made_anew() const {
    CHECK(!is_mapped(load<>(model, file)));
    CHECK(read_file(file) == bytes);
  }
};

}  // namespace

TEST_CASE("weights that are mapped compute as those that are packed") {
  for (const char* name :
       {"llama-f16", "llama-bf16", "llama-sharded", "llama-q8_0/model.gguf", "llama-q4_k/model.gguf", "qwen2-untied"})
    is_the_same_mapped<>(name);
  is_the_same_mapped<ei::quantization::int8>("llama-bf16");
  is_the_same_mapped<ei::quantization::int4<32>>("llama-f16");
}

TEST_CASE("a folder holds one file for each checkpoint and policy") {
  const scratch_folder folder;
  for (int i = 0; i < 2; ++i) {
    CHECK(is_mapped(load<>(models + "llama-f16", folder.path())) == (i == 1));
    CHECK(is_mapped(load<>(models + "llama-f16/", folder.path() + "/")));
    CHECK(is_mapped(load<ei::quantization::int8>(models + "llama-f16", folder.path())) == (i == 1));
    CHECK(is_mapped(load<>(models + "llama-q8_0/model.gguf", folder.path())) == (i == 1));
  }
  const auto names = names_in(folder.path());
  REQUIRE(names.size() == 3);
  CHECK(names[0].starts_with("llama-f16-"));
  CHECK(names[2].starts_with("model.gguf-"));
  for (const std::string& name : names) CHECK(name.ends_with(".packed"));
}

TEST_CASE("one file asked for with two policies holds the last one's weights") {
  const scratch_folder folder;
  const std::string path = models + "llama-f16", file = folder.path("packed");
  const auto expected = logits(ei::model<ei::quantization::int8>::load(path));
  const auto mapped = (static_cast<void>(load<>(path, file)), load<>(path, file));
  const auto before = logits(mapped);
  CHECK(!is_mapped(load<ei::quantization::int8>(path, file)));
  CHECK(logits(load<ei::quantization::int8>(path, file)) == expected);
  CHECK(logits(mapped) == before);  // a file that is replaced stays what it was for those who have mapped it
}

TEST_CASE("a file that is cut short or has bytes behind its end is made anew") {
  const kept k;
  const std::size_t head = k.head_bytes(), size = k.bytes.size();
  for (const std::size_t length : {std::size_t{24}, std::size_t{25}, std::size_t{60}, std::size_t{400}, head - 1, head,
                                   head + 1, head + 64, head + (size - head) / 2, size - 64, size - 1}) {
    CAPTURE(length);
    k.write("packed", std::string_view(k.bytes).substr(0, length));
    k.is_made_anew();
  }
  k.write("packed", k.bytes + '\0');
  k.is_made_anew();
}

TEST_CASE("a file with another byte in its head or in a sample of its data is made anew") {
  const kept k;
  const std::size_t text = k.bytes.find('\0'), head = k.head_bytes();
  REQUIRE(text < head);
  std::vector<std::size_t> places{text, head - 1, head, head + 63, k.bytes.size() - 1};
  for (std::size_t at = 24; at < text; at += 5) places.push_back(at);
  for (const std::size_t at : places) {
    CAPTURE(at);
    std::string changed = k.bytes;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    k.write("packed", changed);
    k.is_made_anew();
  }
}

TEST_CASE("a checkpoint that has changed is packed anew") {
  const kept k;
  struct stat before {};
  REQUIRE(::stat(k.weights().c_str(), &before) == 0);
  const auto set_time = [&](std::int64_t seconds) {
    const timespec times[2] = {{before.st_mtime + seconds, 0}, {before.st_mtime + seconds, 0}};
    REQUIRE(::utimensat(AT_FDCWD, k.weights().c_str(), &times[0], 0) == 0);
  };
  set_time(1);
  CHECK(!is_mapped(load<>(k.model, k.file)));
  CHECK(is_mapped(load<>(k.model, k.file)));

  // The same size and the same time, other weights.
  std::string weights = read_file(k.weights());
  for (std::size_t i = weights.size() / 2; i < weights.size(); i += 2) weights[i] = static_cast<char>(weights[i] ^ 1);
  k.write("model/model.safetensors", weights);
  set_time(1);
  const auto changed = load<>(k.model, k.file);
  CHECK(!is_mapped(changed));
  CHECK(logits(changed) == logits(ei::model<>::load(k.model)));
  CHECK(logits(changed) == logits(load<>(k.model, k.file)));
}

TEST_CASE("a file of something else is refused and left alone") {
  const scratch_folder folder;
  for (const std::string_view bytes : {"", "x", "GGUF....", "effinfer packed weight", "effinfer packed weights"}) {
    const std::string file = folder.write("notes", bytes);
    expect_error(error_code::mismatch, {file, "is not a file of packed weights", "packed_cache"},
                 [&] { return load<>(models + "llama-f16", file); });
    CHECK(read_file(file) == bytes);
  }
  const std::string model = models + "llama-q8_0/model.gguf", before = read_file(model);
  expect_error(error_code::mismatch, {model}, [&] { return load<>(model, model); });
  CHECK(read_file(model) == before);
}

TEST_CASE("what can't be written is an error before anything is packed, and leaves nothing behind") {
  const scratch_folder folder;
  int reports = 0;
  const std::string file = folder.path("absent/packed");
  expect_error(error_code::io, {file, "can't be created"}, [&] {
    return ei::model<>::load(models + "llama-f16",
                             {.progress = [&](std::string_view, double) { ++reports; }, .packed_cache = file});
  });
  CHECK(reports == 0);

  struct stop {};
  const ei::load_options stopped{.progress = [](std::string_view, double) { throw stop(); },
                                 .packed_cache = folder.path("packed")};
  CHECK_THROWS_AS(ei::model<>::load(models + "llama-f16", stopped), stop);
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("the loading stages are told, and each ends") {
  const scratch_folder folder;
  std::vector<std::string> ended;
  const ei::load_options options{.progress =
                                     [&](std::string_view stage, double done) {
                                       if (done == 1.0) ended.emplace_back(stage);
                                     },
                                 .packed_cache = folder.path()};
  static_cast<void>(ei::model<>::load(models + "llama-f16", options));
  static_cast<void>(ei::model<>::load(models + "llama-f16", options));
  CHECK(ended.size() >= 3);
  ended.erase(std::unique(ended.begin(), ended.end()), ended.end());
  CHECK(ended == std::vector<std::string>{"packing", "writing", "mapping"});
}

}  // namespace packed_cache_tests
