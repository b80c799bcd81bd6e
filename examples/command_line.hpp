#pragma once
// What the command-line examples share: a progress bar on a terminal, peak memory, JSON strings.

#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

namespace command_line {

/// Draws "quantizing [#####     ] 50 %" on stderr, only where that is a terminal.
inline void progress_bar(std::string_view stage, double done) {
  static const bool terminal = isatty(STDERR_FILENO) == 1;
  if (!terminal) return;
  constexpr int width = 30;
  const int filled = static_cast<int>(done * width);
  std::fprintf(stderr, "\r%-12.*s [%s%s] %3d %%", static_cast<int>(stage.size()), stage.data(),
               std::string(static_cast<std::size_t>(filled), '#').c_str(),
               std::string(static_cast<std::size_t>(width - filled), ' ').c_str(), static_cast<int>(done * 100));
  if (done >= 1.0) std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
}

/// The most memory this process has had resident so far.
inline std::uint64_t peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

/// A file's whole text, or stdin's for "-".
inline std::string read_text(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": can't be opened");
  return {std::istreambuf_iterator<char>(file), {}};
}

/// `text` as a JSON string, quotes included.
inline std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          char escaped[8];
          std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
          out += escaped;
        } else {
          out += c;
        }
    }
  }
  return out + '"';
}

}  // namespace command_line
