#pragma once
// The rows of a table that tokens are looked up in.

#include <effinfer/core/dtype.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/core/weight_format.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>

#include <cstddef>

namespace effinfer::inline v0::layers::cuda {

/// out[t] = table[token[t]]. Shapes: token [T], table [V, E] as `format` says, F32, F16 or BF16, out [T, E]. Nothing is rounded.
struct embedding {
  struct args {
    const int* token;
    const void* table;
    weight_format format;
    matrix_view<float> out;
  };

  static execution::simt::grid plan(const args& a) { return {static_cast<int>(a.out.rows), 1, threads, 0}; }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const std::ptrdiff_t first = a.token[t.block()] * a.out.columns;
    float* const out = a.out.row(t.block());
    for (int e = t.thread(); e < static_cast<int>(a.out.columns); e += threads) {
      if (a.format == weight_format::f32) {
        out[e] = static_cast<const float*>(a.table)[first + e];
      } else if (a.format == weight_format::f16) {
        out[e] = static_cast<float>(static_cast<const f16*>(a.table)[first + e]);
      } else {
        out[e] = static_cast<float>(static_cast<const bf16*>(a.table)[first + e]);
      }
    }
  }

 private:
  static constexpr int threads = 256;
};

/// The same of a table in the order of products, weights with value(row, column) (quantization/cuda/block_weights.hpp).
template <class Weights>
struct packed_embedding {
  struct args {
    const int* token;
    Weights table;
    matrix_view<float> out;
  };
  static constexpr int threads = 256;

  static execution::simt::grid plan(const args& a) { return {static_cast<int>(a.out.rows), 1, threads, 0}; }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int row = a.token[t.block()];
    float* const out = a.out.row(t.block());
    for (int e = t.thread(); e < static_cast<int>(a.out.columns); e += threads) out[e] = a.table.value(row, e);
  }
};

}  // namespace effinfer::inline v0::layers::cuda
