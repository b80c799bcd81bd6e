#pragma once
// A number that tells models and policies apart whose saved sessions can't be exchanged.

#include <effinfer/checkpoint/model_config.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace effinfer::inline v0::models {

/// FNV-1a (Fowler, Noll and Vo) over the bytes of what a saved state depends on.
class fingerprint {
 public:
  explicit fingerprint(const checkpoint::model_config& c) {
    const int shape[] = {c.layers, c.width, c.heads, c.kv_heads, c.head_size, c.vocabulary_size, c.feed_forward_width};
    for (const int value : shape) mix(static_cast<std::uint64_t>(value));
  }
  void mix(std::uint64_t value) {
    for (int i = 0; i < 8; ++i) value_ = (value_ ^ ((value >> (8 * i)) & 0xff)) * 1099511628211ULL;
  }
  void mix(std::span<const std::byte> sample) {
    for (const std::byte b : sample) mix(std::to_integer<std::uint64_t>(b));
  }
  [[nodiscard]] std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 14695981039346656037ULL;
};

}  // namespace effinfer::inline v0::models
