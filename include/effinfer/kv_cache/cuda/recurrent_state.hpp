#pragma once
// The state of linear attention on a device: of the form, saved and let go of as on the CPU (kv_cache/recurrent_state.hpp).

#include <effinfer/core/error.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/device.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/kv_cache/recurrent_state.hpp>
#include <effinfer/kv_cache/saved_bytes.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::kv_cache::cuda {

/// Zeros.
struct clear_floats {
  struct args {
    float* to;
    std::ptrdiff_t count;
  };
  static constexpr int threads = 256;
  static execution::simt::grid plan(const args& a) {
    return {static_cast<int>(std::min<std::ptrdiff_t>((a.count + threads - 1) / threads, 1024)), 1, threads, 0};
  }
  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    for (std::ptrdiff_t i = std::ptrdiff_t{t.block()} * threads + t.thread(); i < a.count;
         i += std::ptrdiff_t{t.blocks()} * threads)
      a.to[i] = 0.0F;
  }
};

/// The states of all layers of one sequence, and a copy of them to go back to. Copying it forks the sequence.
template <execution::simt::device Device>
class recurrent_state {
 public:
  /// Bytes of device memory, the copy's too. Errors: `invalid_argument`, `limit`.
  static std::uint64_t footprint(int layers, int heads, int head_size) {
    return 2 * kv_cache::recurrent_state::footprint(layers, heads, head_size);
  }
  /// The empty state. Errors: as `footprint`, `device`.
  recurrent_state(int layers, int heads, int head_size, const Device& where)
      : layers_(layers),
        heads_(heads),
        head_size_(head_size),
        bytes_(static_cast<std::size_t>(footprint(layers, heads, head_size) / 2)),
        now_(where, bytes_),
        marked_(where, bytes_) {
    clear();
    mark();
  }
  recurrent_state(const recurrent_state& other)
      : layers_(other.layers_),
        heads_(other.heads_),
        head_size_(other.head_size_),
        bytes_(other.bytes_),
        now_(*other.now_.device(), bytes_),
        marked_(*other.now_.device(), bytes_) {
    become(other);
    now_.device()->queue().copy(marked_.data(), other.marked_.data(), bytes_);
    marked_length_ = other.marked_length_;
  }
  recurrent_state(recurrent_state&&) noexcept = default;
  recurrent_state& operator=(const recurrent_state& other) { return *this = recurrent_state(other); }
  recurrent_state& operator=(recurrent_state&&) noexcept = default;
  ~recurrent_state() = default;

  /// Becomes a copy of `other`, but for what is marked.
  void become(const recurrent_state& other) {
    now_.device()->queue().copy(now_.data(), other.now_.data(), bytes_);
    length_ = other.length_;
  }

  [[nodiscard]] int length() const { return length_; }
  [[nodiscard]] recurrent_view view(int layer) const {
    const auto d = std::ptrdiff_t{head_size_}, h = std::ptrdiff_t{heads_};
    float* const matrices = data() + layer * h * d * (d + 1);
    return {matrices, matrices + h * d * d, heads_, head_size_};
  }
  void commit(int tokens) { length_ += tokens; }

  /// This point is the one that `rollback` comes back to.
  void mark() {
    now_.device()->queue().copy(marked_.data(), now_.data(), bytes_);
    marked_length_ = length_;
  }
  bool rollback() {
    now_.device()->queue().copy(now_.data(), marked_.data(), bytes_);
    length_ = marked_length_;
    return true;
  }
  /// As the CPU's. Errors: as there.
  bool truncate(int n) {
    if (n < 0 || n > length_) {
      throw error(error_code::invalid_argument, "kv_cache::recurrent_state.truncate",
                  std::to_string(n) + " is not in [0, " + std::to_string(length_) + "]");
    }
    if (n == 0) clear();
    return n == length_;
  }
  void clear() {
    auto queue = now_.device()->queue();
    queue.template launch<clear_floats>({data(), static_cast<std::ptrdiff_t>(bytes_ / sizeof(float))});
    length_ = 0;
  }

  /// The bytes that the CPU's `save` appends.
  void save(std::vector<std::byte>& out) const {
    using kv_cache::detail::saved_header;
    const saved_header h{saved_header::of_recurrent_state,
                         kv_cache::detail::element_code<float>,
                         layers_,
                         heads_,
                         head_size_,
                         0,
                         length_};
    kv_cache::detail::append_bytes(out, &h, sizeof h);
    const execution::simt::memory<Device, true> staged(*now_.device(), bytes_);
    auto queue = now_.device()->queue();
    queue.download(staged.data(), now_.data(), bytes_);
    queue.synchronize();
    kv_cache::detail::append_bytes(out, staged.data(), bytes_);
  }
  /// As the CPU's. Errors: as there, `device`.
  std::size_t load(std::span<const std::byte> in) {
    const auto h = kv_cache::detail::read_header(in, kv_cache::detail::saved_header::of_recurrent_state);
    kv_cache::detail::check_recurrent(h, layers_, heads_, head_size_);
    if (in.size() - sizeof h < bytes_)
      throw error(error_code::malformed, "kv_cache.load", "the bytes end inside the state");
    const execution::simt::memory<Device, true> staged(*now_.device(), bytes_);
    std::memcpy(staged.data(), in.data() + sizeof h, bytes_);
    auto queue = now_.device()->queue();
    queue.upload(now_.data(), staged.data(), bytes_);
    queue.synchronize();
    length_ = h.length;
    return sizeof h + bytes_;
  }

 private:
  [[nodiscard]] float* data() const { return reinterpret_cast<float*>(now_.data()); }

  int layers_, heads_, head_size_;
  int length_ = 0, marked_length_ = 0;
  std::size_t bytes_;
  execution::simt::memory<Device> now_, marked_;
};

}  // namespace effinfer::inline v0::kv_cache::cuda
