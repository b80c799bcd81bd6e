#pragma once
// The CPU as a place to run: a pool of threads and an instruction set.

#include <effinfer/core/slot.hpp>
#include <effinfer/execution/instruction_set.hpp>
#include <effinfer/execution/thread_pool.hpp>

namespace effinfer::inline v0::execution {

/// Policy: run on the CPU.
struct cpu {
  using slot = effinfer::slot::execution;
  int threads = 0;  ///< 0: one a core
  instruction_set set =
      best_instruction_set();  ///< may be pinned lower, for tests; one that the machine lacks is lowered
  bool pin = false;            ///< each worker stays on a core of its own, see thread_pool

  class context;
};

/// What the CPU kernels take as `exec`. Shared by any number of threads.
class cpu::context {
 public:
  explicit context(cpu policy = {}) : set_(best_instruction_set(policy.set)), pool_(policy.threads, policy.pin) {}

  [[nodiscard]] instruction_set set() const noexcept { return set_; }
  [[nodiscard]] int threads() const noexcept { return pool_.threads(); }

  /// See thread_pool::parallel_for.
  template <class Body>
  void parallel_for(std::ptrdiff_t count, std::ptrdiff_t grain, const Body& body) const {
    pool_.parallel_for(count, grain, body);
  }

 private:
  instruction_set set_;
  mutable thread_pool pool_;
};

static_assert(policy_of<cpu, slot::execution>);

}  // namespace effinfer::inline v0::execution
