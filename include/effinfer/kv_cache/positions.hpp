#pragma once
// The memory behind the caches that keep keys and values by position: all positions, or the last ones in a ring.
// contiguous.hpp and ring.hpp say which.

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/kv_cache/cpu/write.hpp>
#include <effinfer/kv_cache/held_positions.hpp>
#include <effinfer/kv_cache/saved_bytes.hpp>
#include <effinfer/kv_cache/shape.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <memory_resource>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::kv_cache::detail {

/// Keys and values of all layers of one sequence, `[layer][key or value][K][slots][row]`, position p in slot p % slots.
/// `window` positions before the next one are always held; 0: all of them, and then at most `slots` fit.
template <element T>
class positions : public held_positions {
 public:
  /// Memory comes from `from`, as does that of copies.
  positions(const shape& s, int slots, int window, std::pmr::memory_resource* from)
      : held_positions(slots, window),
        shape_(s),
        size_(cache_bytes<T>(s, slots) / sizeof(T)),
        data_(allocate(size_, from)) {}
  positions(const positions& other)
      : held_positions(other),
        shape_(other.shape_),
        size_(other.size_),
        data_(allocate(size_, other.data_.get_deleter().from)) {
    copy_rows(other, first_);
  }
  positions(positions&& other) noexcept : held_positions(0, 0) { swap(other); }
  positions& operator=(positions other) noexcept {
    swap(other);
    return *this;
  }
  ~positions() = default;

  /// Becomes a copy of `other`, a cache of the same shape and sizes, whose first `common` tokens were those of this one: what
  /// both hold of these isn't copied again.
  void become(const positions& other, int common) {
    const int held = first_ <= other.first_ ? std::min(common, length_) : 0;
    first_ = other.first_;
    length_ = other.length_;
    copy_rows(other, std::max(first_, held));
  }

  [[nodiscard]] const shape& model_shape() const { return shape_; }
  /// Bytes owned: keys and values.
  [[nodiscard]] std::uint64_t bytes() const { return size_ * sizeof(T); }

  /// Keys and values of `layer` as they stand.
  [[nodiscard]] kv_cache::view<T> view(int layer) const { return view_of(layer, length_); }

  /// Puts the next T tokens' keys and values of one layer behind those held, and returns what `attend` reads, these
  /// tokens included. Every layer writes the same T; `commit(T)` then makes them part of the sequence, else they are
  /// as if never written (a ring may have let its oldest positions go for them). With `behind` they are put behind the first so
  /// many of those written before and not committed, in place of what stood there: the branches of a tree, one after the other.
  ///
  /// Shapes: key, value [T, K*D]. Errors: `mismatch` (shapes), `context_overflow` (behind + T > room()).
  kv_cache::view<T> write(const execution::cpu::context& exec, int layer, matrix_view<const float> key,
                          matrix_view<const float> value, int behind = 0) {
    check_write(layer, key, value, behind);
    const int tokens = static_cast<int>(key.rows);
    const int d = shape_.head_size, start = length_ + behind;
    first_ = std::max(first_, start + tokens - slots_);
    const kv_cache::view<T> v = view_of(layer, start + tokens);
    const auto set = exec.set();
    const std::ptrdiff_t rows_a_part = std::max(1, (1 << 14) / (d * shape_.kv_heads));
    T* const memory_start = data_.get();
    exec.parallel_for(tokens, rows_a_part, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      for (auto t = begin; t < end; ++t) {
        for (int head = 0; head < shape_.kv_heads; ++head) {
          const int p = start + static_cast<int>(t);
          T* const to_key = memory_start + (v.key(head, p) - memory_start);
          T* const to_value = memory_start + (v.value(head, p) - memory_start);
          execution::dispatch<convert_row<T>>(set, key.row(t) + std::ptrdiff_t{head} * d, to_key, std::ptrdiff_t{d});
          execution::dispatch<convert_row<T>>(set, value.row(t) + std::ptrdiff_t{head} * d, to_value,
                                              std::ptrdiff_t{d});
        }
      }
    });
    return v;
  }

  /// Bytes that `save` appends.
  [[nodiscard]] std::uint64_t saved_bytes() const { return sizeof(saved_header) + held_bytes(first_, length_); }
  /// Appends the positions held to `out`, little-endian, for `load` of a cache of the same shape and number type.
  void save(std::vector<std::byte>& out) const {
    const saved_header h{saved_header::of_positions, element_code<T>, shape_.layers, shape_.kv_heads,
                         shape_.head_size,           first_,          length_};
    append_bytes(out, &h, sizeof h);
    for_each_run(shape_, row_elements<T>(shape_.head_size), first_, length_,
                 [&](std::uint64_t at, std::uint64_t n) { append_bytes(out, data_.get() + at, n * sizeof(T)); });
  }
  /// Becomes what `save` wrote; `in` may go on behind it. Returns how many bytes that were.
  ///
  /// Errors, with nothing changed: `malformed` (not such bytes, or cut short), `mismatch` (another shape or number
  /// type, more positions than fit, or a shorter window than this ring's).
  std::size_t load(std::span<const std::byte> in) {
    const saved_header h = read_header(in, saved_header::of_positions);
    check_saved(h, shape_, element_code<T>);
    const std::uint64_t payload = held_bytes(h.first, h.length);
    if (in.size() - sizeof h < payload)
      throw error(error_code::malformed, "kv_cache.load", "the bytes end inside the positions");
    const std::byte* from = in.data() + sizeof h;
    for_each_run(shape_, row_elements<T>(shape_.head_size), h.first, h.length, [&](std::uint64_t at, std::uint64_t n) {
      std::memcpy(data_.get() + at, from, n * sizeof(T));
      from += n * sizeof(T);
    });
    first_ = h.first;
    length_ = h.length;
    return static_cast<std::size_t>(sizeof h + payload);
  }

 private:
  struct release {
    std::pmr::memory_resource* from = nullptr;
    std::size_t bytes = 0;
    void operator()(T* p) const { from->deallocate(p, bytes, 64); }
  };
  using memory = std::unique_ptr<T[], release>;

  // Not zeroed: no kernel reads a position that was not written, and untouched pages cost nothing.
  static memory allocate(std::uint64_t size, std::pmr::memory_resource* from) {
    const auto bytes = static_cast<std::size_t>(size * sizeof(T));
    return memory(static_cast<T*>(from->allocate(bytes, 64)), release{from, bytes});
  }

  void swap(positions& other) noexcept {
    std::swap(shape_, other.shape_);
    std::swap(static_cast<held_positions&>(*this), static_cast<held_positions&>(other));
    std::swap(size_, other.size_);
    std::swap(data_, other.data_);
  }

  [[nodiscard]] std::uint64_t head_elements() const {
    return static_cast<std::uint64_t>(slots_) * static_cast<std::uint64_t>(row_elements<T>(shape_.head_size));
  }

  [[nodiscard]] kv_cache::view<T> view_of(int layer, int length) const {
    const std::uint64_t half = head_elements() * static_cast<std::uint64_t>(shape_.kv_heads);
    kv_cache::view<T> v;
    v.keys = data_.get() + 2 * half * static_cast<std::uint64_t>(layer);
    v.values = v.keys + half;
    v.head_stride = static_cast<std::ptrdiff_t>(head_elements());
    v.row_stride = row_elements<T>(shape_.head_size);
    v.capacity = slots_;
    v.first = first_;
    v.length = length;
    return v;
  }

  void check_write(int layer, const matrix_view<const float>& key, const matrix_view<const float>& value,
                   int behind) const {
    const std::ptrdiff_t columns = std::ptrdiff_t{shape_.kv_heads} * shape_.head_size;
    if (layer < 0 || layer >= shape_.layers || key.columns != columns || value.columns != columns ||
        key.rows != value.rows) {
      throw error(error_code::mismatch, "kv_cache.write",
                  "layer " + std::to_string(layer) + ", key [" + std::to_string(key.rows) + ", " +
                      std::to_string(key.columns) + "], value [" + std::to_string(value.rows) + ", " +
                      std::to_string(value.columns) + "] for " + std::to_string(shape_.layers) + " layers of [T, " +
                      std::to_string(columns) + "]");
    }
    if (behind < 0 || behind + key.rows > room() || length_ > (1 << 30)) {
      throw error(error_code::context_overflow, "kv_cache.write",
                  std::to_string(behind + key.rows) + " tokens, room for " + std::to_string(room()),
                  window_ == 0 ? "make the cache with a larger capacity" : "make the ring with more slack");
    }
  }

  [[nodiscard]] std::uint64_t held_bytes(int first, int length) const {
    return cache_bytes<T>(shape_, 1) * static_cast<std::uint64_t>(length - first);
  }

  void copy_rows(const positions& other, int first) {
    for_each_run(shape_, row_elements<T>(shape_.head_size), first, length_, [&](std::uint64_t at, std::uint64_t n) {
      std::memcpy(data_.get() + at, other.data_.get() + at, n * sizeof(T));
    });
  }

  shape shape_;
  std::uint64_t size_ = 0;
  memory data_;
};

}  // namespace effinfer::inline v0::kv_cache::detail
