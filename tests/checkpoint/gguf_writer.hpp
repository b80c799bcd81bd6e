#pragma once
// GGUF files for tests, byte by byte (ggml's docs/gguf.md): every count, length and offset may be set to a wrong one.

#include "checkpoint/safetensors_writer.hpp"

#include <effinfer/checkpoint/gguf.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace test {

inline std::string gguf_string(std::string_view s) { return little_endian<8>(s.size()) + std::string(s); }

class gguf_writer {
 public:
  std::uint32_t version = 3;
  std::string magic = "GGUF";
  std::uint64_t alignment = 32;  ///< of the data; a key that says so is the caller's to add
  std::optional<std::uint64_t> value_count, tensor_count;

  /// A value whose bytes are given as they stand in the file.
  gguf_writer& add(std::string_view key, effinfer::checkpoint::gguf_type type, std::string_view bytes) {
    return add(key, static_cast<std::uint32_t>(type), bytes);
  }
  gguf_writer& add(std::string_view key, std::uint32_t type, std::string_view bytes) {
    values_ += gguf_string(key) + little_endian<4>(type) + std::string(bytes);
    ++values_added_;
    return *this;
  }
  gguf_writer& add(std::string_view key, std::uint32_t n) {
    return add(key, effinfer::checkpoint::gguf_type::uint32, little_endian<4>(n));
  }
  gguf_writer& add(std::string_view key, float n) {
    return add(key, effinfer::checkpoint::gguf_type::float32, little_endian<4>(std::bit_cast<std::uint32_t>(n)));
  }
  gguf_writer& add(std::string_view key, std::string_view s) {
    return add(key, effinfer::checkpoint::gguf_type::string, gguf_string(s));
  }
  /// An array of `count` values whose bytes are given.
  gguf_writer& add_array(std::string_view key, effinfer::checkpoint::gguf_type element, std::uint64_t count,
                         std::string_view bytes) {
    return add(key, effinfer::checkpoint::gguf_type::array,
               little_endian<4>(static_cast<std::uint32_t>(element)) + little_endian<8>(count) + std::string(bytes));
  }

  /// A tensor of ggml's `type` behind those before it; dimensions innermost first, as in the file.
  gguf_writer& add_tensor(std::string_view name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                          std::string_view bytes) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    add_info(name, dimensions, type, data_.size());
    data_ += bytes;
    return *this;
  }
  /// Only a tensor's info, with any offset.
  gguf_writer& add_info(std::string_view name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                        std::uint64_t offset) {
    infos_ += gguf_string(name) + little_endian<4>(dimensions.size());
    for (const std::uint64_t n : dimensions) infos_ += little_endian<8>(n);
    infos_ += little_endian<4>(type) + little_endian<8>(offset);
    ++tensors_added_;
    return *this;
  }
  gguf_writer& add_data(std::string_view bytes) {
    data_ += bytes;
    return *this;
  }

  [[nodiscard]] std::string file() const {
    std::string s = magic + little_endian<4>(version) + little_endian<8>(tensor_count.value_or(tensors_added_)) +
                    little_endian<8>(value_count.value_or(values_added_)) + values_ + infos_;
    if (!data_.empty()) s.resize((s.size() + alignment - 1) / alignment * alignment);
    return s + data_;
  }

 private:
  std::string values_, infos_, data_;
  std::uint64_t values_added_ = 0, tensors_added_ = 0;
};

}  // namespace test
