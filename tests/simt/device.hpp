#pragma once
// The host as a device (execution/simt/device.hpp): its kernels run on the context of host.hpp, one after the other, and its memory is the
// machine's, which it counts. What was allocated is poison until it is written; graphs keep the arguments that they were recorded with,
// as a GPU's do.

#include "simt/hopper.hpp"

#include <effinfer/core/error.hpp>
#include <effinfer/core/slot.hpp>
#include <effinfer/execution/instruction_set.hpp>
#include <effinfer/execution/simt/device.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <new>
#include <string>
#include <vector>

namespace simt_host {

/// What a device counts, for tests to read.
struct device_counts {
  std::size_t bytes = 0, host_bytes = 0;  ///< allocated now
  std::size_t allocations = 0;            ///< so far, of both
  std::size_t kernels = 0, graphs = 0;    ///< started so far; a graph's kernels count too
  std::size_t wgmma_kernels = 0;          ///< of them, those for Hopper
  std::size_t downloaded = 0;             ///< bytes
};

/// Policy: SIMT kernels on the host.
template <class Activation, int... HeadSizes>
struct on_host {
  using slot = effinfer::slot::execution;
  using activation = Activation;
  using head_sizes = simt::head_sizes<HeadSizes...>;
  int multiprocessors = 1;
  int shared_bytes = 160 * 1024;
  bool wgmma = false;
  std::size_t memory = std::size_t{1} << 32;  ///< bytes that there are
  device_counts* counts = nullptr;
  thread_order order = thread_order::forward;

  class context;
};

template <class Activation, int... HeadSizes>
class on_host<Activation, HeadSizes...>::context {
 public:
  class queue_type;
  class graph {
   public:
    graph() = default;
    explicit operator bool() const { return !started_.empty(); }
    void start(queue_type& q) const {
      ++q.of_->counts().graphs;
      for (const auto& one : started_) one(q);
    }

   private:
    friend context;
    std::vector<std::function<void(queue_type&)>> started_;
  };

  class queue_type {
   public:
    template <class K>
    void launch(const typename K::args& a) {
      if (into_ != nullptr) {
        (void)K::plan(a);
        into_->push_back([a](queue_type& q) { q.launch<K>(a); });
        return;
      }
      const auto g = K::plan(a);
      if (g.shared_bytes > of_->policy_.shared_bytes) throw simt_error("more shared memory than the device has");
      ++of_->counts().kernels;
      if constexpr (requires { K::for_hopper; }) ++of_->counts().wgmma_kernels;
      simt_host::start<K>(a, of_->policy_.order);
    }
    void upload(void* to, const void* from, std::size_t bytes) { copy(to, from, bytes); }
    void download(void* to, const void* from, std::size_t bytes) {
      of_->counts().downloaded += bytes;
      copy(to, from, bytes);
    }
    void copy(void* to, const void* from, std::size_t bytes) {
      if (into_ != nullptr) {
        into_->push_back([=](queue_type& q) { q.copy(to, from, bytes); });
      } else if (bytes > 0) {
        std::memcpy(to, from, bytes);
      }
    }
    void synchronize() {
      if (into_ != nullptr) throw simt_error("a graph can't wait");
    }

   private:
    friend context;
    friend graph;
    explicit queue_type(const context& of, std::vector<std::function<void(queue_type&)>>* into = nullptr)
        : of_(&of), into_(into) {}
    const context* of_;
    std::vector<std::function<void(queue_type&)>>* into_;
  };

  explicit context(const on_host& policy = {}) : policy_(policy) {}

  [[nodiscard]] void* allocate(std::size_t bytes) const { return take(bytes, counts().bytes); }
  void release(void* p, std::size_t bytes) const { give(p, bytes, counts().bytes); }
  [[nodiscard]] void* allocate_host(std::size_t bytes) const { return take(bytes, counts().host_bytes); }
  void release_host(void* p, std::size_t bytes) const { give(p, bytes, counts().host_bytes); }
  [[nodiscard]] simt::device_limits limits() const {
    return {policy_.multiprocessors, policy_.shared_bytes, policy_.wgmma};
  }
  [[nodiscard]] simt::tensor_map map(const simt::box_source& m) const { return make_tensor_map(m); }
  [[nodiscard]] queue_type queue() const { return queue_type(*this); }
  template <class F>
  [[nodiscard]] graph record(const F& f) const {
    graph g;
    queue_type q(*this, &g.started_);
    f(q);
    return g;
  }
  [[nodiscard]] effinfer::execution::instruction_set set() const { return effinfer::execution::best_instruction_set(); }

 private:
  device_counts& counts() const { return policy_.counts != nullptr ? *policy_.counts : own_; }
  void* take(std::size_t bytes, std::size_t& count) const {
    if (counts().bytes + bytes > policy_.memory) {
      throw effinfer::error(effinfer::error_code::device, "simt_host::on_host", std::to_string(bytes) + " bytes");
    }
    count += bytes;
    ++counts().allocations;
    void* const p = ::operator new (bytes, std::align_val_t{256});
    std::memset(p, 0xff, bytes);  // NaN in every type
    return p;
  }
  static void give(void* p, std::size_t bytes, std::size_t& count) {
    count -= bytes;
    ::operator delete (p, std::align_val_t{256});
  }

  on_host policy_;
  mutable device_counts own_;
};

static_assert(simt::device_policy<on_host<effinfer::bf16>> && simt::device<on_host<effinfer::bf16>::context>);

}  // namespace simt_host
