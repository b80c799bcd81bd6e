#pragma once
// What linear attention remembers instead of keys and values: a matrix S [D, D] and a vector z [D] a head (see
// attention/linear.hpp), of the same size however long the sequence.

#include <effinfer/core/resource_allocator.hpp>
#include <effinfer/kv_cache/policy.hpp>
#include <effinfer/kv_cache/saved_bytes.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace effinfer::inline v0::kv_cache {

/// One layer's state, owned by somebody else: head h's matrix begins at `matrices + h * head_size * head_size` (row i
/// belongs to feature i of the key), its vector at `vectors + h * head_size`.
struct recurrent_view {
  float* matrices = nullptr;  ///< [H, D, D]
  float* vectors = nullptr;   ///< [H, D]
  int heads = 0;
  int head_size = 0;
};

/// The states of all layers of one sequence. Copying it forks the sequence.
class recurrent_state {
 public:
  /// Bytes that a state takes: 4 layers H (D D + D). Errors: `invalid_argument`, `limit`.
  static std::uint64_t footprint(int layers, int heads, int head_size) {
    detail::check_positive(layers, "kv_cache::recurrent_state layers");
    detail::check_positive(heads, "kv_cache::recurrent_state heads");
    detail::check_positive(head_size, "kv_cache::recurrent_state head_size");
    const auto d = static_cast<std::uint64_t>(head_size);
    std::uint64_t bytes = sizeof(float) * d * (d + 1);
    for (const int factor : {layers, heads}) {
      bytes = detail::product(bytes, static_cast<std::uint64_t>(factor), "kv_cache::recurrent_state");
    }
    return bytes;
  }

  /// The empty state of a sequence without tokens, in memory of `from`, which must outlive it and its copies and marks. Errors: as
  /// `footprint`, std::bad_alloc.
  recurrent_state(int layers, int heads, int head_size,
                  std::pmr::memory_resource* from = std::pmr::get_default_resource())
      : layers_(layers),
        heads_(heads),
        head_size_(head_size),
        data_(static_cast<std::size_t>(footprint(layers, heads, head_size) / sizeof(float)), from) {}

  [[nodiscard]] int length() const { return length_; }
  [[nodiscard]] std::uint64_t bytes() const { return data_.size() * sizeof(float); }

  /// The state of `layer`, which `attend` reads and moves on in place.
  [[nodiscard]] recurrent_view view(int layer) {
    const std::size_t d = static_cast<std::size_t>(head_size_), h = static_cast<std::size_t>(heads_);
    float* matrices = data_.data() + static_cast<std::size_t>(layer) * h * d * (d + 1);
    return {matrices, matrices + h * d * d, heads_, head_size_};
  }

  /// Every layer has gone on by `tokens` tokens.
  void commit(int tokens) { length_ += tokens; }

  /// A copy to come back to. Cost: bytes(). Snapshots may be kept in any number and used in any order.
  struct mark {
    std::vector<float, resource_allocator<float>> data;
    int length = 0;
  };
  [[nodiscard]] mark snapshot() const { return {data_, length_}; }
  /// The same into memory that is there already.
  void snapshot(mark& m) const {
    m.data = data_;
    m.length = length_;
  }
  /// As if nothing had been read since; false, and nothing changes, if the snapshot is of another model.
  bool rollback(const mark& m) {
    if (m.data.size() != data_.size()) return false;
    std::copy(m.data.begin(), m.data.end(), data_.begin());
    length_ = m.length;
    return true;
  }

  /// What was added to a state can't be taken out: only 0 and length() are in reach without a snapshot.
  [[nodiscard]] int truncation_limit() const { return length_; }
  /// True for n = length() and n = 0; false, and nothing changes, between. Errors: `invalid_argument` (n outside [0,
  /// length()]).
  bool truncate(int n) {
    if (n < 0 || n > length_) {
      throw error(error_code::invalid_argument, "kv_cache::recurrent_state.truncate",
                  std::to_string(n) + " is not in [0, " + std::to_string(length_) + "]");
    }
    if (n == 0) clear();
    return n == length_;
  }

  /// The empty state; also after a pass that was broken off between layers.
  void clear() {
    std::fill(data_.begin(), data_.end(), 0.0f);
    length_ = 0;
  }

  /// Bytes that `save` appends.
  [[nodiscard]] std::uint64_t saved_bytes() const { return sizeof(detail::saved_header) + bytes(); }
  /// Appends the state to `out`, little-endian.
  void save(std::vector<std::byte>& out) const {
    const detail::saved_header h{
        detail::saved_header::of_recurrent_state, detail::element_code<float>, layers_, heads_, head_size_, 0, length_};
    detail::append_bytes(out, &h, sizeof h);
    detail::append_bytes(out, data_.data(), bytes());
  }
  /// Becomes what `save` wrote; `in` may go on behind it. Returns how many bytes that were.
  /// Errors, with nothing changed: `malformed` (not such bytes, or cut short), `mismatch` (another shape).
  std::size_t load(std::span<const std::byte> in) {
    const detail::saved_header h = detail::read_header(in, detail::saved_header::of_recurrent_state);
    detail::check_recurrent(h, layers_, heads_, head_size_);
    if (in.size() - sizeof h < bytes())
      throw error(error_code::malformed, "kv_cache.load", "the bytes end inside the state");
    std::memcpy(data_.data(), in.data() + sizeof h, data_.size() * sizeof(float));
    length_ = h.length;
    return sizeof h + data_.size() * sizeof(float);
  }

 private:
  int layers_, heads_, head_size_;
  int length_ = 0;
  std::vector<float, resource_allocator<float>> data_;
};

static_assert(sequence_memory<recurrent_state>);

}  // namespace effinfer::inline v0::kv_cache
