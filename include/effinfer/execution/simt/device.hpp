#pragma once
// Where SIMT kernels run, as the code that starts them sees it: memory of its own, and a queue that does one thing after the other. A
// GPU (execution/cuda.cuh), or in tests the host (tests/simt/device.hpp); models/cuda is written against this and runs on both.

#include <effinfer/core/slot.hpp>
#include <effinfer/execution/instruction_set.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/hopper.hpp>

#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace effinfer::inline v0::execution::simt {

/// Head sizes that attention is compiled for: those that a policy names, or where it names none, all that there are.
template <int... Sizes>
using head_sizes = std::conditional_t<sizeof...(Sizes) == 0, std::integer_sequence<int, 32, 64, 96, 128, 256>,
                                      std::integer_sequence<int, Sizes...>>;

/// A policy in the execution slot whose kernels are SIMT kernels: it says which 16-bit type activations have, and for which head_sizes it
/// is compiled. Its `context` is a `device`.
template <class P>
concept device_policy = policy_of<P, slot::execution> && requires {
  typename P::activation;
  typename P::head_sizes;
};

/// What a device's `queue()` returns, and what `record` gives to its argument: work in order. Nothing waits but `synchronize`.
///
///   q.launch<K>(args)            starts K::run over K::plan(args)
///   q.upload(to, from, bytes)    from memory of allocate_host, which stays as it is until the queue is synchronized
///   q.download(to, from, bytes)  to memory of allocate_host
///   q.copy(to, from, bytes)      within the device
///   q.synchronize()              waits for all of it. Error: `device`
template <class Q>
concept work_queue = requires(Q& q, void* to, const void* from, std::size_t bytes) {
  q.upload(to, from, bytes);
  q.download(to, from, bytes);
  q.copy(to, from, bytes);
  q.synchronize();
};

/// A place with memory. All members may be called from several threads.
///
///   allocate(bytes), release(p, bytes)             device memory, aligned to 256. Errors: `device` (there isn't so much)
///   allocate_host(bytes), release_host(p, bytes)   memory of the host that queues copy from and to
///   limits()                                       what plans must know
///   queue()                                        the queue of this device; as long as it lives, work is the device's
///   record(f)                                      f(queue) once, without running anything: a `graph`, which
///                                                  graph.start(queue) runs as often as one likes. An empty graph is false
///   map(m)                                         what the copying engine is told of a box_source, where limits().wgmma (hopper.hpp)
///   set()                                          for what rules and samplers do on the host
template <class D>
concept device = requires(const D& d, void* p, std::size_t bytes) {
  { d.allocate(bytes) } -> std::same_as<void*>;
  d.release(p, bytes);
  { d.allocate_host(bytes) } -> std::same_as<void*>;
  d.release_host(p, bytes);
  { d.limits() } -> std::convertible_to<device_limits>;
  { d.queue() } -> work_queue;
  { d.map(box_source()) } -> std::same_as<tensor_map>;
  { d.set() } -> std::same_as<instruction_set>;
  typename D::graph;
};

/// Owns memory of a device, which must outlive it; of the device itself, or with `Host` of the host for its queues.
template <class Device, bool Host = false>
class memory {
 public:
  memory() = default;
  /// Errors: `device`.
  memory(const Device& from, std::size_t bytes) : from_(&from), bytes_(bytes) {
    if (bytes > 0) data_ = static_cast<std::byte*>(Host ? from.allocate_host(bytes) : from.allocate(bytes));
  }
  memory(memory&& other) noexcept
      : from_(other.from_), bytes_(std::exchange(other.bytes_, 0)), data_(std::exchange(other.data_, nullptr)) {}
  memory& operator=(memory&& other) noexcept {
    std::swap(from_, other.from_);
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~memory() {
    if (data_ == nullptr) return;
    if constexpr (Host) {
      from_->release_host(data_, bytes_);
    } else {
      from_->release(data_, bytes_);
    }
  }

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return bytes_; }
  [[nodiscard]] const Device* device() const { return from_; }

 private:
  const Device* from_ = nullptr;
  std::size_t bytes_ = 0;
  std::byte* data_ = nullptr;
};

/// Places one behind the other in a block of memory, each aligned to 256 bytes. Over no block it only counts.
class layout {
 public:
  layout() = default;
  explicit layout(std::byte* block) : block_(block) {}

  /// Room for `count` elements.
  template <class T>
  T* take(std::size_t count) {
    T* const at = block_ == nullptr ? nullptr : reinterpret_cast<T*>(block_ + used_);
    used_ += (count * sizeof(T) + 255) / 256 * 256;
    return at;
  }
  [[nodiscard]] std::size_t used() const { return used_; }

 private:
  std::byte* block_ = nullptr;
  std::size_t used_ = 0;
};

}  // namespace effinfer::inline v0::execution::simt
