// Any bytes as a GGUF file: they are refused with an effinfer::error, or each tensor lies inside the file, apart from the
// others, its metadata can be read, and a configuration made from it keeps its promises.

#include <effinfer/checkpoint/config_gguf.hpp>
#include <effinfer/checkpoint/gguf.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace checkpoint = effinfer::checkpoint;

namespace {

void check_tensors(const checkpoint::gguf& file, std::span<const std::byte> bytes) {
  std::vector<char> taken(bytes.size());
  for (const checkpoint::tensor& t : file.tensors()) {
    if (t.data.empty()) continue;
    if (t.data.data() < bytes.data() || t.data.data() + t.data.size() > bytes.data() + bytes.size()) __builtin_trap();
    const std::ptrdiff_t begin = t.data.data() - bytes.data();
    for (std::size_t i = 0; i < t.data.size(); ++i) {
      if (std::exchange(taken[static_cast<std::size_t>(begin) + i], 1) != 0) __builtin_trap();
    }
    std::uint64_t values = 1;
    for (const std::int64_t n : t.shape) values *= static_cast<std::uint64_t>(n);
    const auto block = static_cast<std::uint64_t>(effinfer::block_size(t.format));
    if (values / block * static_cast<std::uint64_t>(effinfer::block_bytes(t.format)) != t.data.size()) __builtin_trap();
  }
}

/// Asks for every type; all but one must be refused, and nothing may be read past its end.
std::size_t read_value(const checkpoint::gguf::value& v) {
  std::size_t sum = v.where().size();
  const auto attempt = [&](const auto& get) {
    try {
      sum += static_cast<std::size_t>(get());
    } catch (const effinfer::error& e) {
      if (e.code() != effinfer::error_code::mismatch) __builtin_trap();
    }
  };
  attempt([&] { return v.integer() & 1; });
  attempt([&] { return v.number() > 0.0 ? 1 : 0; });
  attempt([&] { return v.boolean() ? 1 : 0; });
  attempt([&] {
    std::size_t letters = 0;
    for (const char c : v.string()) letters += c == 'a' ? 1 : 0;
    return letters;
  });
  attempt([&] {
    std::size_t all = v.size();
    for (const auto& element : v.elements()) all += element.is_array() ? 0 : read_value(element);
    return all;
  });
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const checkpoint::gguf file(bytes, "m.gguf");
    check_tensors(file, bytes);
    for (const char* key : {"general.architecture", "general.alignment", "llama.block_count", "llama.rope.freq_base",
                            "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "split.count", "a", "b", "c"}) {
      if (const auto* v = file.find(key)) static_cast<void>(read_value(*v));
    }
    const checkpoint::model_config c = checkpoint::read_config_gguf(file);
    if (c.heads < 1 || c.kv_heads < 1 || c.heads % c.kv_heads != 0 || c.head_size < 1 || c.layers < 1 ||
        c.vocabulary_size < 1 || c.rope.rotary_size > c.head_size ||
        c.windows.size() != static_cast<std::size_t>(c.layers)) {
      __builtin_trap();
    }
  } catch (const effinfer::error&) {  // the promised way out
  }
  return 0;
}
