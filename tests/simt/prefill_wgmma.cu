// Prefill attention in its form for Hopper, for every combination that is supported; see instantiations.cu.

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/cuda/prefill_wgmma.hpp>
#include <effinfer/attention/sinks.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/attention/streaming_window.hpp>
#include <effinfer/execution/simt/launch.cuh>

namespace ei = effinfer;

template <class Mixer, class T, int D>
void use() {
  using kernel = ei::attention::cuda::prefill_wgmma<Mixer, T, ei::kv_cache::view<T>, D>;
  ei::execution::simt::launch<kernel>(typename kernel::args{}, nullptr);
}
template <class Mixer, class T>
void use_head_sizes() {
  use<Mixer, T, 64>();
  use<Mixer, T, 128>();
  use<Mixer, T, 256>();
}

void use_all() {
  using namespace ei::attention;
  use_head_sizes<full, ei::bf16>();
  use_head_sizes<full, ei::f16>();
  use_head_sizes<softmax<sliding_window<>>, ei::bf16>();
  use_head_sizes<softmax<sliding_window<>, soft_cap>, ei::bf16>();
  use_head_sizes<softmax<sliding_window<>, sinks>, ei::bf16>();
  use_head_sizes<softmax<streaming_window>, ei::bf16>();
  use_head_sizes<softmax<alibi>, ei::bf16>();
}
