// Any text as config.json, and behind a NUL byte as generation_config.json: it is refused with an effinfer::error, or the
// configuration keeps its promises.

#include <effinfer/checkpoint/config_json.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace checkpoint = effinfer::checkpoint;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t end = text.find('\0');
  const std::string_view generation = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  try {
    const checkpoint::model_config c = checkpoint::read_config_json(text.substr(0, end), generation, "folder");
    if (c.heads < 1 || c.kv_heads < 1 || c.heads % c.kv_heads != 0 || c.head_size < 1 || c.layers < 1 ||
        c.vocabulary_size < 1 || c.max_positions < 1 || c.rope.rotary_size < 2 || c.rope.rotary_size > c.head_size ||
        c.windows.size() != static_cast<std::size_t>(c.layers) || !(c.rope.base > 0.0) || !(c.rope.factor > 0.0)) {
      __builtin_trap();
    }
    for (const int id : c.eos_ids) {
      if (id < 0) __builtin_trap();
    }
    for (const int w : c.windows) {
      if (w < 0) __builtin_trap();
    }
  } catch (const effinfer::error&) {  // the promised way out
  }
  return 0;
}
