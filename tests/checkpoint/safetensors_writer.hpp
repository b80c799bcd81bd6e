#pragma once
// Safetensors files for tests, byte by byte: right ones, and any header at all.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace test {

/// A number in `Bytes` bytes, little endian.
template <int Bytes>
std::string little_endian(std::uint64_t n) {
  std::string s;
  for (int i = 0; i < Bytes; ++i) s += static_cast<char>(n >> (8 * i) & 0xff);
  return s;
}

inline std::span<const std::byte> bytes_of(std::string_view s) { return std::as_bytes(std::span(s.data(), s.size())); }

/// A file with this header and these bytes of data.
inline std::string safetensors_file(std::string_view header, std::string_view data) {
  return little_endian<8>(header.size()) + std::string(header) + std::string(data);
}

struct safetensors_entry {
  std::string name, dtype, shape;  ///< shape as in the header: "[2, 3]"
  std::string data;
};

/// A file of these tensors, one behind the other. `padding` spaces end the header.
inline std::string safetensors_file(const std::vector<safetensors_entry>& entries, std::size_t padding = 0) {
  std::string header = "{", data;
  for (const auto& e : entries) {
    if (header.size() > 1) header += ", ";
    header += '"' + e.name + "\": {\"dtype\": \"" + e.dtype + "\", \"shape\": " + e.shape + ", \"data_offsets\": [" +
              std::to_string(data.size()) + ", " + std::to_string(data.size() + e.data.size()) + "]}";
    data += e.data;
  }
  return safetensors_file(header + "}" + std::string(padding, ' '), data);
}

}  // namespace test
