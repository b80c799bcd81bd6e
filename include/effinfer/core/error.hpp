#pragma once
// The one error channel of the library.

#include <effinfer/core/config.hpp>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace effinfer::inline v0 {

/// What kind of thing went wrong; stable, for programs. People read `error::what()`.
enum class error_code {
  io,                ///< a file can't be opened, read or mapped
  malformed,         ///< a file breaks its own format (bad header, bad JSON, offsets out of range)
  missing,           ///< a tensor, key, shard or file that is needed isn't there
  mismatch,          ///< two values that must agree do not (a pinned policy and the checkpoint, two shapes)
  unsupported,       ///< well-formed, but nothing here computes it
  invalid_argument,  ///< the caller's own value is out of its documented range
  invalid_utf8,      ///< text that isn't UTF-8
  context_overflow,  ///< more tokens than the context holds
  limit,             ///< an input that asks for more than a stated limit (depth, size, steps)
  cancelled,         ///< the caller asked to stop
  device,            ///< the GPU or its driver refused
};

/// The name of a code, as in the enumeration.
constexpr std::string_view to_string(error_code code) noexcept {
  switch (code) {
    case error_code::io: return "io";
    case error_code::malformed: return "malformed";
    case error_code::missing: return "missing";
    case error_code::mismatch: return "mismatch";
    case error_code::unsupported: return "unsupported";
    case error_code::invalid_argument: return "invalid_argument";
    case error_code::invalid_utf8: return "invalid_utf8";
    case error_code::context_overflow: return "context_overflow";
    case error_code::limit: return "limit";
    case error_code::cancelled: return "cancelled";
    case error_code::device: return "device";
  }
  return "unknown";
}

namespace detail {
/// Names come from files that may hold anything: a NUL would end the message, an escape could change a terminal.
inline std::string printable(const std::string& text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f) {
      out += "\\x";
      out += digits[byte >> 4];
      out += digits[byte & 15];
    } else {
      out += c;
    }
  }
  return out;
}
}  // namespace detail

/// Everything that the library throws. `what()` reads "where: what went wrong (what to do about it)"; control
/// characters in it, but for new lines and tabs, stand as \xNN.
///
/// `where` names the file and the field in it ("model.safetensors: tensor model.norm.weight"), or the
/// function and the argument.
class error : public std::runtime_error {
 public:
  error(error_code code, std::string where, const std::string& problem, const std::string& advice = {})
      : std::runtime_error(detail::printable(where + ": " + problem + (advice.empty() ? "" : " (" + advice + ")"))),
        code_(code),
        where_(std::move(where)) {}

  [[nodiscard]] error_code code() const noexcept { return code_; }
  [[nodiscard]] const std::string& where() const noexcept { return where_; }

 private:
  error_code code_;
  std::string where_;
};

}  // namespace effinfer::inline v0
