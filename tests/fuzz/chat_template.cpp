// Any bytes as a chat template: they are refused with an effinfer::error, or the rendering ends within its limits with
// text that is UTF-8, the same every time.

#include <effinfer/text/chat_template.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace text = effinfer::text;
namespace jinja = effinfer::text::jinja;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<text::chat_message> messages = {
      {.role = "system", .content = "Be \u00e9."},
      {.role = "user", .content = "Hi <b> 12"},
      {.role = "assistant",
       .content = nullptr,
       .extra = {{"tool_calls",
                  jinja::from_json(
                      R"([{"id": "a1", "function": {"name": "f", "arguments": {"x": [1, 2.5, null]}}}])")}}},
  };
  text::render_options options;
  options.add_generation_prompt = true;
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  options.tools =
      jinja::from_json(R"([{"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {}}}}}])");
  options.now = std::tm{};
  options.limits.steps = 100'000;
  options.limits.made_bytes = std::size_t{16} << 20;
  options.limits.string_bytes = std::size_t{1} << 20;
  try {
    const text::chat_template t(std::string_view(reinterpret_cast<const char*>(data), size));
    const std::string rendered = t.render(messages, options);
    if (rendered.size() > options.limits.string_bytes || text::find_invalid_utf8(rendered) != std::string::npos)
      __builtin_trap();
    if (rendered.find(" object") == std::string::npos && t.render(messages, options) != rendered) __builtin_trap();
  } catch (const effinfer::error&) {  // the promised way out
  }
  return 0;
}
