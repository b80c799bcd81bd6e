#pragma once

#include <effinfer/quantization/int4.hpp>
#include <effinfer/quantization/matmul.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

// That every sum of one row of ones and of several is `wanted`. Static, as is what follows: each file compiles its own.
template <class Formats>
static bool sums_are(float wanted, float margin, const effinfer::quantization::packed_matrix& weights) {
  namespace ei = effinfer;
  constexpr std::ptrdiff_t tokens = 7;
  const ei::execution::cpu::context exec;
  const std::vector<float> ones(static_cast<std::size_t>(tokens * weights.columns), 1.0F);
  std::vector<std::byte> workspace(ei::quantization::matmul_workspace_bytes(tokens, weights.columns));
  for (const std::ptrdiff_t rows : {std::ptrdiff_t{1}, tokens}) {
    std::vector<float> y(static_cast<std::size_t>(rows * weights.rows), std::numeric_limits<float>::quiet_NaN());
    ei::quantization::matmul<Formats>(exec, ei::matrix_view<const float>(ones.data(), rows, weights.columns), weights,
                                      ei::matrix_view<float>(y.data(), rows, weights.rows), workspace);
    for (const float sum : y) {
      if (!(std::abs(sum - wanted) <= margin)) return false;
    }
  }
  return true;
}

// Weights of 1 in int4.
static inline bool sums_ones() {
  namespace ei = effinfer;
  constexpr int outputs = 3, inputs = 64;
  const std::vector<float> ones(outputs * inputs, 1.0F);
  const auto weights = ei::quantization::pack(ei::execution::cpu::context(), {ei::weight_format::int4, 32},
                                              ei::matrix_view<const float>(ones.data(), outputs, inputs));
  return sums_are<ei::quantization::formats<ei::quantization::format::int4>>(inputs, 0.99F, weights.view());
}
