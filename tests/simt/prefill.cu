// Prefill attention for every combination that is supported; see instantiations.cu.

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/cuda/prefill.hpp>
#include <effinfer/attention/sinks.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/attention/streaming_window.hpp>
#include <effinfer/execution/simt/launch.cuh>

namespace ei = effinfer;

template <class Mixer, class T, int D>
void use() {
  using kernel = ei::attention::cuda::prefill<Mixer, T, ei::kv_cache::view<T>, D>;
  ei::execution::simt::launch<kernel>(typename kernel::args{}, nullptr);
}
template <class Mixer>
void use_head_sizes() {
  use<Mixer, ei::bf16, 64>();
  use<Mixer, ei::bf16, 96>();
  use<Mixer, ei::bf16, 128>();
  use<Mixer, ei::bf16, 256>();
}

void use_all() {
  using namespace ei::attention;
  use_head_sizes<full>();
  use<full, ei::f16, 64>();
  use<full, ei::f16, 96>();
  use<full, ei::f16, 128>();
  use<full, ei::f16, 256>();
  use_head_sizes<softmax<sliding_window<>>>();
  use_head_sizes<softmax<sliding_window<>, soft_cap>>();
  use_head_sizes<softmax<sliding_window<>, sinks>>();
  use_head_sizes<softmax<streaming_window>>();
  use_head_sizes<softmax<alibi>>();
}
