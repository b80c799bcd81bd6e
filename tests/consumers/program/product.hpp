#pragma once

#include <effinfer/quantization/int4.hpp>
#include <effinfer/quantization/matmul.hpp>

#include <cstddef>
#include <limits>
#include <vector>

// Weights of bytes of 0 are weights of 0 in every format: for one row of ones and for several, in each file that includes this.
template <class Format, class Formats>
static bool gives_zeros(Formats) {
  namespace ei = effinfer;
  constexpr int outputs = 43, inputs = 512, tokens = 7;
  const ei::execution::cpu::context exec;
  const int group = Format::name == ei::weight_format::int4 ? 32 : 0;
  const std::ptrdiff_t row_bytes = ei::quantization::row_bytes(Format::name, inputs, group);
  const std::vector<std::byte> bytes(static_cast<std::size_t>(outputs * row_bytes));
  const std::vector<float> ones(tokens * inputs, 1.0F);
  const auto weights = ei::quantization::pack(
      exec,
      ei::quantization::weight_matrix{Format::name, bytes.data(), outputs, inputs, ones.data(), group, row_bytes});
  std::vector<std::byte> workspace(ei::quantization::matmul_workspace_bytes(tokens, inputs));
  for (const int rows : {1, tokens}) {
    std::vector<float> y(static_cast<std::size_t>(rows * outputs), std::numeric_limits<float>::quiet_NaN());
    ei::quantization::matmul<Formats>(exec, ei::matrix_view<const float>(ones.data(), rows, inputs), weights,
                                      ei::matrix_view<float>(y.data(), rows, outputs), workspace);
    for (const float sum : y) {
      if (!(sum >= 0.0F && sum <= 0.0F)) return false;
    }
  }
  return true;
}

template <class... Format>
static bool give_zeros(effinfer::quantization::formats<Format...> all) {
  return (gives_zeros<Format>(all) && ...);
}

// Weights of 1 in int4.
static inline bool sums_ones() {
  namespace ei = effinfer;
  constexpr int outputs = 3, inputs = 64;
  const ei::execution::cpu::context exec;
  const std::vector<float> ones(outputs * inputs, 1.0F);
  const auto weights = ei::quantization::pack(exec, {ei::weight_format::int4, 32},
                                              ei::matrix_view<const float>(ones.data(), outputs, inputs));
  std::vector<std::byte> workspace(ei::quantization::matmul_workspace_bytes(1, inputs));
  std::vector<float> y(outputs);
  ei::quantization::matmul<ei::quantization::formats<ei::quantization::format::int4>>(
      exec, ei::matrix_view<const float>(ones.data(), 1, inputs), weights, ei::matrix_view<float>(y.data(), 1, outputs),
      workspace);
  for (const float sum : y) {
    if (!(sum > 63.0F && sum < 65.0F)) return false;
  }
  return true;
}
