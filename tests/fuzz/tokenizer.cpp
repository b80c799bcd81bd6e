// Any bytes as a tokenizer.json: they are refused with an effinfer::error, or there is a tokenizer whose streams equal
// its decoding and whose texts are UTF-8.

#include <effinfer/text/stream_decoder.hpp>
#include <effinfer/text/tokenizer.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace text = effinfer::text;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  try {
    const text::tokenizer t = text::tokenizer::from_json(json);
    for (const char* input :
         {"Hello world's  <s>foo</s>\r\n\t 123 x\u00E9e\u0301 \u2581\u0120 \u6211\u60F3 \U0001F600\u0085",
          "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"}) {
      for (const bool special : {true, false}) {
        std::vector<int> ids = t.encode(input, {.add_special_tokens = special, .parse_special = special});
        for (int id = -1; id < 300; id += 7) ids.push_back(id);
        const std::string whole = t.decode(ids, {.skip_special = special});
        text::stream_decoder stream(t, {.skip_special = special});
        std::string streamed;
        for (const int id : ids) {
          streamed += stream.push(id);
          if (t.token_bytes(id).size() > 8 * size + 64) __builtin_trap();
        }
        streamed += stream.finish();
        if (streamed != whole || text::find_invalid_utf8(whole) != std::string::npos) __builtin_trap();
      }
    }
  } catch (const effinfer::error&) {  // the promised way out
  }
  // As text, the same bytes must be taken or refused by one rule.
  static const text::tokenizer letters =
      text::tokenizer::from_json(R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})");
  bool is_taken = true;
  try {
    static_cast<void>(letters.encode(json));
  } catch (const effinfer::error&) {
    is_taken = false;
  }
  if (is_taken != (text::find_invalid_utf8(json) == std::string_view::npos)) __builtin_trap();
  return 0;
}
