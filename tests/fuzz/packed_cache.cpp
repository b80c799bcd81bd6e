// Any change to a file of packed weights: it is refused with an effinfer::error where it isn't one any more, or what comes
// of loading runs; and unless the change lies in the data, it is what the checkpoint gives.
//
// The input is the change: a length to cut the file to, if it is shorter, then bytes for places: 4 bytes of offset, 1 of value.

#include <effinfer/model.hpp>

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace ei = effinfer;

namespace {

const std::string model = std::string(EFFINFER_TEST_DATA) + "/models/llama-f16";
const std::string file =
    (std::filesystem::temp_directory_path() / ("effinfer-fuzz-" + std::to_string(::getpid()) + ".packed")).string();

std::vector<float> logits() {
  auto session = ei::model<>::load(model, {.packed_cache = file}).start({.context_tokens = 8});
  const auto row = session.append(std::vector<int>{1, 5, 17});
  return {row.begin(), row.end()};
}

const std::vector<float> expected = logits();
const std::string whole = [] {
  std::ifstream in(file, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}();

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t head_bytes = 4096;
  const auto number = [&](std::size_t at) {
    std::uint32_t n = 0;
    std::memcpy(&n, data + at, sizeof n);
    return n;
  };
  std::string changed = whole;
  bool is_data_changed = false;
  if (size >= 4) changed.resize(std::min<std::size_t>(changed.size(), number(0)));
  for (std::size_t at = 4; at + 5 <= size && !changed.empty(); at += 5) {
    const std::size_t place = number(at) % changed.size();
    changed[place] = static_cast<char>(data[at + 4]);
    is_data_changed |= place >= head_bytes;
  }
  std::filesystem::remove(file);
  std::ofstream(file, std::ios::binary).write(changed.data(), static_cast<std::streamsize>(changed.size()));
  try {
    const auto found = logits();
    if (!is_data_changed && found != expected) __builtin_trap();
  } catch (const ei::error& e) {
    if (e.code() != ei::error_code::mismatch) __builtin_trap();
  }
  return 0;
}
