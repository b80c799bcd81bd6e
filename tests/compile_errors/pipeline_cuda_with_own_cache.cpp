// expect: effinfer: execution::cuda keeps keys and values in kv_cache::contiguous<T>, ring<T> or paged<T, Block>
#include <effinfer/pipeline/composition.hpp>

namespace ei = effinfer;

/// As execution::cuda is under nvcc.
struct device {
  using slot = ei::slot::execution;
  using activation = ei::bf16;
  using head_sizes = ei::execution::simt::head_sizes<64>;
  class context {};
};

struct own : ei::kv_cache::contiguous<float> {};

#ifdef EFFINFER_BAD
template struct ei::detail::check_composition<device, own>;
#else
template struct ei::detail::check_composition<device, ei::kv_cache::paged<float>>;
template struct ei::detail::check_composition<ei::execution::cpu, own>;
#endif
