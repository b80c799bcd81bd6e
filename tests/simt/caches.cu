// Attention on caches of int8 or fp8 and in pages, for the head sizes and policies that take the most registers; see instantiations.cu.

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/cuda/branch_view.hpp>
#include <effinfer/attention/cuda/prefill.hpp>
#include <effinfer/attention/cuda/softmax.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/execution/simt/launch.cuh>
#include <effinfer/kv_cache/cuda/copy_tokens.hpp>
#include <effinfer/kv_cache/cuda/store.hpp>
#include <effinfer/kv_cache/paged_view.hpp>
#include <effinfer/layers/cuda/rotary_embedding.hpp>

namespace ei = effinfer;

template <class K>
void use() {
  ei::execution::simt::launch<K>(typename K::args{}, nullptr);
}
template <class Mixer, class T, class View, int D>
void use_both() {
  use<ei::attention::cuda::prefill<Mixer, T, View, D>>();
  use<ei::attention::cuda::decode<Mixer, T, View, D>>();
}
template <class View>
void use_head_sizes() {
  using namespace ei::attention;
  use_both<full, ei::f16, View, 64>();
  use_both<full, ei::bf16, View, 96>();
  use_both<full, ei::bf16, View, 128>();
  use_both<full, ei::bf16, View, 256>();
}

void use_all() {
  using namespace ei::attention;
  using ei::kv_cache::int8;
  use_head_sizes<ei::kv_cache::view<int8>>();
  use_head_sizes<ei::kv_cache::paged_view<int8>>();
  use_head_sizes<ei::kv_cache::view<ei::fp8_e4m3>>();
  use_both<softmax<sliding_window<>, soft_cap>, ei::f16, ei::kv_cache::paged_view<ei::fp8_e4m3>, 128>();
  use_both<full, ei::bf16, ei::kv_cache::paged_view<ei::bf16>, 128>();
  use_both<softmax<sliding_window<>>, ei::bf16, ei::kv_cache::paged_view<ei::bf16>, 128>();
  use_both<softmax<sliding_window<>, soft_cap>, ei::bf16, ei::kv_cache::paged_view<int8>, 128>();
  use<ei::kv_cache::cuda::store_rows<ei::bf16, ei::kv_cache::view<int8>>>();
  use<ei::kv_cache::cuda::store_rows<ei::f16, ei::kv_cache::paged_view<ei::f16>>>();
  use<ei::kv_cache::cuda::store_rows<ei::bf16, ei::kv_cache::paged_view<ei::fp8_e4m3>>>();
  use_both<softmax<alibi>, ei::bf16, ei::kv_cache::paged_view<int8>, 256>();
  // Trees.
  using ei::attention::cuda::branch_view;
  use<ei::attention::cuda::decode<full, ei::bf16, branch_view<ei::kv_cache::view<ei::bf16>>, 128>>();
  use<ei::attention::cuda::decode<full, ei::f16, branch_view<ei::kv_cache::paged_view<ei::f16>>, 256>>();
  use<ei::attention::cuda::decode<softmax<sliding_window<>>, ei::bf16, branch_view<ei::kv_cache::paged_view<int8>>,
                                  96>>();
  use<ei::kv_cache::cuda::copy_tokens<ei::bf16>>();
  use<ei::kv_cache::cuda::copy_tokens<int8>>();
  use<ei::layers::cuda::rotate_and_store_tokens<ei::bf16, int8>>();
  use<ei::layers::cuda::rotate_and_store_tokens<ei::f16, ei::fp8_e4m3>>();
}
