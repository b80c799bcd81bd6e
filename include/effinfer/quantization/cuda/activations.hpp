#pragma once
// Activations made ready for products: put into the order of act-order weights, or encoded in 8 bits with one scale a row.

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

namespace effinfer::inline v0::quantization::cuda {

/// out[t][i] = x[t][order[i]], for weights whose inputs were reordered (gptq_input_order). Shapes: x, out [T, K], order [K]; out isn't x.
template <class T>
struct reorder_columns {
  struct args {
    matrix_view<const T> x;
    const std::int32_t* order;
    matrix_view<T> out;
  };

  static execution::simt::grid plan(const args& a) {
    return {static_cast<int>(a.x.rows), static_cast<int>((a.x.columns + threads - 1) / threads), threads, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const std::ptrdiff_t i = std::ptrdiff_t{t.block_y()} * threads + t.thread();
    if (i < a.x.columns) a.out.row(t.block())[i] = a.x.row(t.block())[a.order[i]];
  }

 private:
  static constexpr int threads = 256;
};

/// Where the code of an input stands in a row of 8-bit activations: of each 64 inputs lane c's sixteen come together, in the order in
/// which int8_weights have their bytes.
EFFINFER_HOST_DEVICE constexpr int code_place(int input) {
  const int block = input % 64 / 32, c = input % 32 / 8, i = input % 8;
  constexpr int within[4] = {0, 2, 1, 3};
  return input / 64 * 64 + c * 16 + block * 8 + i / 4 * 4 + within[i % 4];
}

/// codes[t][code_place(i)] = nearest(x[t][i] / scale[t]), scale[t] = max_i |x[t][i]| / 127: symmetric, a block a row.
///
/// Shapes: x [T, K], codes [T, K] with 16-byte aligned rows, scales [T]; K a multiple of 64. A NaN or infinity makes the row's scale, and so all
/// products with it, NaN or infinite. Source: Yao et al., "ZeroQuant" (2022), section 4.1 (token-wise quantization).
template <class T>
struct quantize_rows {
  struct args {
    matrix_view<const T> x;
    matrix_view<std::int8_t> codes;
    float* scales;
  };

  /// Errors: `mismatch` (shapes), `unsupported` (K no multiple of 64).
  static execution::simt::grid plan(const args& a) {
    const char* const who = "quantization::cuda::quantize_rows";
    if (a.codes.rows != a.x.rows || a.codes.columns != a.x.columns) {
      throw error(error_code::mismatch, who, "codes of another shape than x");
    }
    if (a.x.columns % unit_inputs != 0) {
      throw error(error_code::unsupported, who,
                  std::to_string(a.x.columns) + " inputs are no multiple of " + std::to_string(unit_inputs));
    }
    return {static_cast<int>(a.x.rows), 1, threads, static_cast<int>(sizeof(float)) * (threads / 32)};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto scratch = t.template shared<float>(threads / 32);
    const T* const x = a.x.row(t.block());
    const int columns = static_cast<int>(a.x.columns);
    float greatest = 0;
    for (int i = t.thread(); i < columns; i += threads) {
      const float magnitude = std::fabs(static_cast<float>(x[i]));
      if (!(magnitude <= std::numeric_limits<float>::max())) {
        greatest = std::numeric_limits<float>::infinity();
      } else if (magnitude > greatest) {
        greatest = magnitude;
      }
    }
    greatest = execution::simt::warp_max(t, greatest);
    if (t.lane() == 0) scratch[t.warp()] = greatest;
    t.barrier();
    for (int w = 0; w < threads / 32; ++w) {
      const float other = scratch[w];
      if (other > greatest) greatest = other;
    }
    // A row of subnormals: 127 / greatest would be infinite.
    const bool usable = greatest > 0x1p-120F && greatest <= std::numeric_limits<float>::max();
    const float inverse = usable ? 127.0F / greatest : 0.0F;
    if (t.thread() == 0) a.scales[t.block()] = greatest > 0x1p-120F ? greatest / 127.0F : 0.0F;
    std::int8_t* const codes = a.codes.row(t.block());
    for (int i = t.thread(); i < columns; i += threads) {
      const float code = usable ? std::rint(static_cast<float>(x[i]) * inverse) : 0.0F;
      codes[code_place(i)] = static_cast<std::int8_t>(code);
    }
  }

 private:
  static constexpr int threads = 256;
};

}  // namespace effinfer::inline v0::quantization::cuda
