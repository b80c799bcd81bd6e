#pragma once
// A paged cache on a device: blocks, copies and saved bytes as on the CPU (kv_cache/paged.hpp); the table that kernels read is a copy
// in device memory.

#include <effinfer/execution/simt/device.hpp>
#include <effinfer/kv_cache/held_blocks.hpp>
#include <effinfer/kv_cache/paged_view.hpp>
#include <effinfer/kv_cache/saved_bytes.hpp>
#include <effinfer/kv_cache/shape.hpp>
#include <effinfer/kv_cache/view.hpp>
#include <effinfer/layers/cuda/rotary_embedding.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace effinfer::inline v0::kv_cache::cuda {

/// See kv_cache::detail::counted_blocks; the memory is a device's.
template <element T, int Block, execution::simt::device Device>
class block_pool : public kv_cache::detail::counted_blocks<T, Block> {
  using counted = kv_cache::detail::counted_blocks<T, Block>;

 public:
  /// Errors: as `footprint`, `device`.
  block_pool(const shape& s, int blocks, const Device& where)
      : counted(s, blocks), memory_(where, static_cast<std::size_t>(counted::bytes())) {}
  [[nodiscard]] T* data() const { return reinterpret_cast<T*>(memory_.data()); }
  [[nodiscard]] const Device& device() const { return *memory_.device(); }

 private:
  execution::simt::memory<Device> memory_;
};

/// Keys and values of one sequence in blocks of a pool of its own or a common one. Caches of a common pool are used on one queue.
template <element T, int Block, execution::simt::device Device>
class pages : public kv_cache::detail::held_blocks<block_pool<T, Block, Device>> {
  using held = kv_cache::detail::held_blocks<block_pool<T, Block, Device>>;
  using saved_header = kv_cache::detail::saved_header;

 public:
  using pool = block_pool<T, Block, Device>;
  using held::model_shape;

  /// In a pool of its own; copies share none. Errors: `device`, those of the shape.
  pages(const shape& s, int capacity, const Device& where)
      : pages(std::make_shared<pool>(s, held::blocks_for(capacity), where), capacity, true) {}
  pages(std::shared_ptr<pool> common, int capacity) : pages(std::move(common), capacity, false) {}
  pages(const pages& other)
      : pages(other.owns() ? std::make_shared<pool>(other.model_shape(), held::blocks_for(other.capacity()),
                                                    other.held::blocks().device())
                           : other.common(),
              other.capacity(), other.owns()) {
    become(other, 0);
  }
  pages(pages&& other) noexcept { swap(other); }
  pages& operator=(pages other) noexcept {
    swap(other);
    return *this;
  }
  ~pages() = default;

  /// Bytes that one with a pool of its own takes: blocks, and the table on both sides. Errors: `invalid_argument`, `limit`.
  static std::uint64_t footprint(const shape& s, int capacity) {
    kv_cache::detail::check_positive(capacity, "kv_cache capacity");
    return pool::footprint(s, held::blocks_for(capacity)) + 2 * table_bytes(capacity);
  }

  /// As the CPU's. Errors: `context_overflow`.
  void become(const pages& other, int common) {
    if (this == &other) return;
    const int first = held::take_over(other, common);
    auto queue = device().queue();
    other.for_each_run(first, held::length(), [&](int layer, std::ptrdiff_t head, int position, std::size_t n) {
      queue.copy(row(layer, head, position), other.row(layer, head, position), n * sizeof(T));
    });
  }

  /// Blocks for `tokens` new tokens, and the table to the device. Errors: `context_overflow`, `device`.
  void prepare(int tokens) {
    held::check_room(0, tokens);
    auto queue = device().queue();
    held::grow(held::length() + tokens, [&](int from, int to) {
      const std::ptrdiff_t n = held::blocks().block_elements();
      for (int layer = 0; layer < model_shape().layers; ++layer) {
        T* const first = held::blocks().data() + layer * held::blocks().layer_elements();
        queue.copy(first + to * n, first + from * n, static_cast<std::size_t>(n) * sizeof(T));
      }
    });
    const std::span<const int> table = held::table();
    const int *const begin = table.data(), *const both = begin + std::min(table.size(), uploaded_);
    const int* const differs = std::mismatch(begin, both, staged()).first;
    if (differs != both) uploaded_ = static_cast<std::size_t>(differs - begin);
    if (table.size() <= uploaded_) return;
    queue.synchronize();  // what was uploaded before may still be read
    const std::size_t fresh = table.size() - uploaded_;
    std::copy_n(begin + uploaded_, fresh, staged() + uploaded_);
    queue.upload(on_device() + uploaded_, staged() + uploaded_, fresh * sizeof(int));
    uploaded_ = table.size();
  }
  /// Where a position goes.
  [[nodiscard]] layers::cuda::cache_place<T> place(int position) const {
    T* const keys = row(0, 0, position);
    return {keys, keys + held::blocks().block_elements() / 2, held::blocks().layer_elements(),
            std::ptrdiff_t{Block} * row_elements<T>(model_shape().head_size)};
  }
  /// Keys and values of `layer` as a token sees them that is the last of `length`.
  [[nodiscard]] paged_view<T> view(int layer, int length) const {
    return held::view_at(held::blocks().data() + layer * held::blocks().layer_elements(), on_device(), length);
  }

  /// The bytes that the CPU's `save` appends.
  void save(std::vector<std::byte>& out) const {
    const shape& s = model_shape();
    const saved_header h{saved_header::of_positions,
                         kv_cache::detail::element_code<T>,
                         s.layers,
                         s.kv_heads,
                         s.head_size,
                         0,
                         held::length()};
    kv_cache::detail::append_bytes(out, &h, sizeof h);
    const auto bytes = static_cast<std::size_t>(held::held_bytes(held::length()));
    const execution::simt::memory<Device, true> staged(device(), bytes);
    auto queue = device().queue();
    std::byte* to = staged.data();
    held::for_each_run(0, held::length(), [&](int layer, std::ptrdiff_t head, int position, std::size_t n) {
      queue.download(to, row(layer, head, position), n * sizeof(T));
      to += n * sizeof(T);
    });
    queue.synchronize();
    kv_cache::detail::append_bytes(out, staged.data(), bytes);
  }
  /// As the CPU's. Errors: as there, `device`.
  std::size_t load(std::span<const std::byte> in) {
    const auto h = kv_cache::detail::read_header(in, saved_header::of_positions);
    held::take_saved(h, in.size());
    const auto bytes = static_cast<std::size_t>(held::held_bytes(held::length()));
    const execution::simt::memory<Device, true> staged(device(), bytes);
    if (bytes > 0) std::memcpy(staged.data(), in.data() + sizeof h, bytes);
    auto queue = device().queue();
    const std::byte* from = staged.data();
    held::for_each_run(0, held::length(), [&](int layer, std::ptrdiff_t head, int position, std::size_t n) {
      queue.upload(row(layer, head, position), from, n * sizeof(T));
      from += n * sizeof(T);
    });
    queue.synchronize();
    return sizeof h + bytes;
  }

 private:
  pages(std::shared_ptr<pool> of, int capacity, bool owns)
      : held(std::move(of), capacity, owns),
        table_(device(), static_cast<std::size_t>(table_bytes(capacity))),
        staged_(device(), static_cast<std::size_t>(table_bytes(capacity))) {}

  static std::uint64_t table_bytes(int capacity) {
    return static_cast<std::uint64_t>(held::blocks_for(capacity)) * sizeof(int);
  }
  void swap(pages& other) noexcept {
    held::swap(other);
    std::swap(table_, other.table_);
    std::swap(staged_, other.staged_);
    std::swap(uploaded_, other.uploaded_);
  }
  [[nodiscard]] const Device& device() const { return held::blocks().device(); }
  [[nodiscard]] int* on_device() const { return reinterpret_cast<int*>(table_.data()); }
  [[nodiscard]] int* staged() const { return reinterpret_cast<int*>(staged_.data()); }
  [[nodiscard]] T* row(int layer, std::ptrdiff_t head, int position) const {
    return held::blocks().data() + held::place_of(layer, head, position);
  }

  execution::simt::memory<Device> table_;         // the first uploaded_ of it are staged_'s
  execution::simt::memory<Device, true> staged_;  // of the host
  std::size_t uploaded_ = 0;
};

}  // namespace effinfer::inline v0::kv_cache::cuda
