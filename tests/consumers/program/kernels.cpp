// A program of somebody else's that uses the kernels alone: nothing to link but threads.
#include <effinfer/core/dtype.hpp>
#include <effinfer/core/random.hpp>
#include <effinfer/execution/cpu.hpp>

#include <atomic>
#include <cstddef>

int main() {
  const effinfer::execution::cpu::context exec;
  std::atomic<std::ptrdiff_t> sum{0};
  exec.parallel_for(1000, 10, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (std::ptrdiff_t i = begin; i < end; ++i) sum += i;
  });
  return sum == 499500 ? 0 : 1;
}
