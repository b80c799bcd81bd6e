// Linear attention for every combination that is supported; see instantiations.cu.

#include <effinfer/attention/cuda/linear.hpp>
#include <effinfer/execution/simt/launch.cuh>
#include <effinfer/kv_cache/cuda/recurrent_state.hpp>

namespace ei = effinfer;

template <class T, int D>
void use() {
  using mixer = ei::attention::linear<ei::attention::elu_plus_one, ei::attention::decay_per_head>;
  const ei::attention::cuda::linear_args<mixer, T> args{};
  const auto start = [](auto kernel, const auto& a) {
    ei::execution::simt::launch<typename decltype(kernel)::type>(a, nullptr);
  };
  ei::attention::cuda::start_recurrent<D>(args, start);
  if constexpr (D >= 64) ei::attention::cuda::start_chunked<D>(args, start);
}
template <class T>
void use_head_sizes() {
  use<T, 32>();
  use<T, 64>();
  use<T, 96>();
  use<T, 128>();
  use<T, 256>();
}

void use_all() {
  use_head_sizes<ei::bf16>();
  use_head_sizes<ei::f16>();
  use_head_sizes<float>();
  ei::execution::simt::launch<ei::kv_cache::cuda::clear_floats>({}, nullptr);
}
