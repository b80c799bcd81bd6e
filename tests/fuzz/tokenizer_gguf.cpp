// Any bytes as a GGUF file with a vocabulary: they are refused with an effinfer::error, or there is a tokenizer whose texts
// are UTF-8. (tokenizer.cpp tries tokenizer.json, gguf.cpp the file itself.)

#include <effinfer/text/tokenizer.hpp>
#include <effinfer/text/utf8.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace text = effinfer::text;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const effinfer::checkpoint::gguf file(std::as_bytes(std::span(data, size)), "m.gguf");
    const text::tokenizer t = text::tokenizer::from_gguf(file);
    if (t.size() < 0) __builtin_trap();
    for (const char* input :
         {"Hello world's  <s>foo</s>\r\n\t 123 x\u00E9e\u0301 \u2581\u0120 \u6211\U0001F600", "aaaaaaaab"}) {
      const std::vector<int> ids = t.encode(input);
      for (const int id : ids) {
        if (id < 0 || id >= t.size()) __builtin_trap();
      }
      if (text::find_invalid_utf8(t.decode(ids)) != std::string::npos) __builtin_trap();
    }
  } catch (const effinfer::error&) {  // the promised way out
  }
  return 0;
}
