// Kernels only, on raw pointers: attention with a window and a product with int4 weights, no model, nothing to link.

#include <effinfer/attention/cpu/softmax.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/quantization/int4.hpp>
#include <effinfer/quantization/matmul.hpp>

#include <cmath>
#include <iostream>
#include <vector>

namespace ei = effinfer;

int main() {
  const ei::execution::cpu::context exec({.threads = 2});
  constexpr int tokens = 100, heads = 8, kv_heads = 2, head_size = 64;
  const auto waves = [](std::size_t count, double step) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(std::sin(step * static_cast<double>(i)));
    return values;
  };

  // Attention over plain row-major arrays: query [T, H*D], keys and values [T, K*D].
  const auto query = waves(tokens * heads * head_size, 0.1);
  auto keys = waves(tokens * kv_heads * head_size, 0.2), values = waves(tokens * kv_heads * head_size, 0.3);
  std::vector<float> out(query.size());
  using view = ei::kv_cache::view<float>;
  const ei::attention::sequence<view> sequence{{query.data(), tokens, heads * head_size},
                                               {out.data(), tokens, heads * head_size},
                                               view::of_rows(keys.data(), values.data(), kv_heads, head_size, tokens),
                                               /*first_position=*/0,
                                               /*index=*/0};
  ei::attention::attend(exec, ei::attention::softmax<ei::attention::sliding_window<32>>{},
                        {.heads = heads, .kv_heads = kv_heads, .head_size = head_size, .scale = 0.125F},
                        std::span(&sequence, 1));

  // A product with weights quantized to int4 in groups of 32: y [T, N] = x [T, M] w [N, M]^T.
  constexpr int outputs = 256, inputs = heads * head_size;
  const auto weights = waves(outputs * inputs, 0.7);
  const auto packed = ei::quantization::pack(exec, {ei::weight_format::int4, 32},
                                             ei::matrix_view<const float>(weights.data(), outputs, inputs));
  std::vector<std::byte> workspace(ei::quantization::matmul_workspace_bytes(tokens, inputs));
  std::vector<float> y(tokens * outputs);
  ei::quantization::matmul(exec, ei::matrix_view<const float>(out.data(), tokens, inputs), packed,
                           ei::matrix_view<float>(y.data(), tokens, outputs), workspace);
  std::cout << "out[0] = " << out[0] << ", y[0] = " << y[0] << ", weights in " << packed.view().bytes()
            << " bytes instead of " << weights.size() * sizeof(float) << "\n";
}
