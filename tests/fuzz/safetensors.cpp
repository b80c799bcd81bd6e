// Any bytes as a safetensors file: they are refused with an effinfer::error, or each tensor lies inside the file, apart
// from the others, and has the size that its format and shape say.

#include <effinfer/checkpoint/safetensors.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace checkpoint = effinfer::checkpoint;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  std::vector<checkpoint::tensor> tensors;
  try {
    tensors = checkpoint::read_safetensors(file, "m.safetensors");
  } catch (const effinfer::error&) {  // the promised way out
    return 0;
  }
  std::vector<char> taken(size);
  for (const checkpoint::tensor& t : tensors) {
    if (t.data.empty()) continue;
    if (t.data.data() < file.data() || t.data.data() + t.data.size() > file.data() + size) __builtin_trap();
    const std::ptrdiff_t begin = t.data.data() - file.data();
    for (std::size_t i = 0; i < t.data.size(); ++i) {
      if (std::exchange(taken[static_cast<std::size_t>(begin) + i], 1) != 0) __builtin_trap();
    }
    if (t.format == effinfer::weight_format::other) continue;
    std::uint64_t bytes = static_cast<std::uint64_t>(effinfer::block_bytes(t.format));
    for (const std::int64_t n : t.shape) bytes *= static_cast<std::uint64_t>(n);
    if (bytes != t.data.size()) __builtin_trap();
  }
  return 0;
}
