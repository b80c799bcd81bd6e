#pragma once
// The memory of keys and values on a device: laid out, saved and let go of as on the CPU (kv_cache/positions.hpp).

#include <effinfer/core/error.hpp>
#include <effinfer/execution/simt/device.hpp>
#include <effinfer/kv_cache/held_positions.hpp>
#include <effinfer/kv_cache/saved_bytes.hpp>
#include <effinfer/kv_cache/shape.hpp>
#include <effinfer/kv_cache/view.hpp>
#include <effinfer/layers/cuda/rotary_embedding.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::kv_cache::cuda {

/// Keys and values of all layers of one sequence, `[layer][key or value][K][slots][row]`, position p in slot p % slots.
template <element T, execution::simt::device Device>
class positions : public kv_cache::detail::held_positions {
 public:
  /// Errors: `device`, those of the shape.
  positions(const shape& s, int slots, int window, const Device& where)
      : held_positions(slots, window), shape_(s), memory_(where, static_cast<std::size_t>(footprint(s, slots))) {}
  positions(const positions& other)
      : held_positions(other), shape_(other.shape_), memory_(*other.memory_.device(), other.memory_.size()) {
    copy_rows(other, first_);
  }
  positions(positions&& other) noexcept = default;
  positions& operator=(positions other) noexcept {
    std::swap(static_cast<held_positions&>(*this), static_cast<held_positions&>(other));
    std::swap(shape_, other.shape_);
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~positions() = default;

  /// Bytes of device memory. Errors: `invalid_argument`, `limit`.
  static std::uint64_t footprint(const shape& s, int slots) { return kv_cache::detail::cache_bytes<T>(s, slots); }

  /// As the CPU's.
  void become(const positions& other, int common) {
    const int held = first_ <= other.first_ ? std::min(common, length_) : 0;
    first_ = other.first_;
    length_ = other.length_;
    copy_rows(other, std::max(first_, held));
  }

  /// Lets go of what `tokens` new tokens take the place of. Errors: `context_overflow`.
  void prepare(int tokens) {
    if (tokens > room() || length_ > (1 << 30)) {
      throw error(error_code::context_overflow, "kv_cache.write",
                  std::to_string(tokens) + " tokens, room for " + std::to_string(room()),
                  window_ == 0 ? "make the cache with a larger capacity" : "make the ring with more slack");
    }
    make_room(tokens);
  }
  /// Where a position goes.
  [[nodiscard]] layers::cuda::cache_place<T> place(int position) const {
    T* const keys = data() + static_cast<std::ptrdiff_t>(position % slots_) * row();
    return {keys, keys + half(), 2 * half(), head_stride()};
  }
  /// Keys and values of `layer` as a token sees them that is the last of `length`.
  [[nodiscard]] kv_cache::view<T> view(int layer, int length) const {
    kv_cache::view<T> v;
    v.keys = data() + 2 * half() * layer;
    v.values = v.keys + half();
    v.head_stride = head_stride();
    v.row_stride = row();
    v.capacity = slots_;
    v.first = first_;
    v.length = length;
    return v;
  }

  /// The bytes that the CPU's `save` appends.
  void save(std::vector<std::byte>& out) const {
    const kv_cache::detail::saved_header h{kv_cache::detail::saved_header::of_positions,
                                           kv_cache::detail::element_code<T>,
                                           shape_.layers,
                                           shape_.kv_heads,
                                           shape_.head_size,
                                           first_,
                                           length_};
    kv_cache::detail::append_bytes(out, &h, sizeof h);
    const std::size_t bytes = held_bytes(first_, length_);
    const execution::simt::memory<Device, true> staged(*memory_.device(), bytes);
    auto queue = memory_.device()->queue();
    std::byte* to = staged.data();
    for_each_run(shape_, row(), first_, length_, [&](std::uint64_t at, std::uint64_t n) {
      queue.download(to, data() + at, n * sizeof(T));
      to += n * sizeof(T);
    });
    queue.synchronize();
    kv_cache::detail::append_bytes(out, staged.data(), bytes);
  }
  /// As the CPU's. Errors: as there, `device`.
  std::size_t load(std::span<const std::byte> in) {
    const auto h = kv_cache::detail::read_header(in, kv_cache::detail::saved_header::of_positions);
    check_saved(h, shape_, kv_cache::detail::element_code<T>);
    const std::size_t bytes = held_bytes(h.first, h.length);
    if (in.size() - sizeof h < bytes)
      throw error(error_code::malformed, "kv_cache.load", "the bytes end inside the positions");
    const execution::simt::memory<Device, true> staged(*memory_.device(), bytes);
    if (bytes > 0) std::memcpy(staged.data(), in.data() + sizeof h, bytes);
    auto queue = memory_.device()->queue();
    const std::byte* from = staged.data();
    for_each_run(shape_, row(), h.first, h.length, [&](std::uint64_t at, std::uint64_t n) {
      queue.upload(data() + at, from, n * sizeof(T));
      from += n * sizeof(T);
    });
    queue.synchronize();
    first_ = h.first;
    length_ = h.length;
    return sizeof h + bytes;
  }

 private:
  [[nodiscard]] T* data() const { return reinterpret_cast<T*>(memory_.data()); }
  [[nodiscard]] int row() const { return row_elements<T>(shape_.head_size); }
  [[nodiscard]] std::ptrdiff_t head_stride() const { return std::ptrdiff_t{slots_} * row(); }
  [[nodiscard]] std::ptrdiff_t half() const { return head_stride() * shape_.kv_heads; }
  [[nodiscard]] std::size_t held_bytes(int first, int length) const {
    return static_cast<std::size_t>(footprint(shape_, 1)) * static_cast<std::size_t>(length - first);
  }
  void copy_rows(const positions& other, int first) {
    auto queue = memory_.device()->queue();
    for_each_run(shape_, row(), first, length_,
                 [&](std::uint64_t at, std::uint64_t n) { queue.copy(data() + at, other.data() + at, n * sizeof(T)); });
  }

  shape shape_;
  execution::simt::memory<Device> memory_;
};

}  // namespace effinfer::inline v0::kv_cache::cuda
