// Every CUDA kernel for every combination that is supported: compiled for each architecture by tests/simt/compile_kernels.cmake, which reads
// from the assembler's report what each takes.

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/cuda/softmax.hpp>
#include <effinfer/attention/sinks.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/decoding/cuda/greedy.hpp>
#include <effinfer/execution/simt/launch.cuh>
#include <effinfer/layers/cuda/elementwise.hpp>
#include <effinfer/layers/cuda/rms_norm.hpp>
#include <effinfer/layers/cuda/rotary_embedding.hpp>

namespace ei = effinfer;

template <class K>
void use() {
  ei::execution::simt::launch<K>(typename K::args{}, nullptr);
}

template <class T>
void use_layers() {
  use<ei::layers::cuda::rms_norm<T>>();
  use<ei::layers::cuda::rms_norm<T, float, float>>();
  use<ei::layers::cuda::head_rms_norm<T>>();
  use<ei::layers::cuda::swiglu<T>>();
  use<ei::decoding::cuda::greedy_parts<T>>();
  use<ei::layers::cuda::rotate_and_store<T, ei::bf16>>();
  use<ei::layers::cuda::rotate_and_store<T, ei::f16>>();
}

template <class Mixer, class T, class C, int D>
void use_decode() {
  using view = ei::kv_cache::view<C>;
  use<ei::attention::cuda::decode<Mixer, T, view, D>>();
}
template <class Mixer, int D>
void use_decode_types() {
  use_decode<Mixer, ei::bf16, ei::bf16, D>();
  use_decode<Mixer, ei::f16, ei::f16, D>();
}

void use_all() {
  using namespace ei::attention;
  use_layers<float>();
  use<ei::decoding::cuda::greedy>();
  use_layers<ei::bf16>();
  use_layers<ei::f16>();
  use_decode_types<full, 64>();
  use_decode_types<full, 96>();
  use_decode_types<full, 128>();
  use_decode_types<full, 256>();
  use_decode<softmax<sliding_window<>>, ei::bf16, ei::bf16, 128>();
  use_decode<softmax<sliding_window<>, soft_cap>, ei::bf16, ei::bf16, 128>();
  use_decode<softmax<alibi>, ei::bf16, ei::bf16, 128>();
  use_decode<softmax<sliding_window<>, sinks>, ei::bf16, ei::bf16, 64>();
}
