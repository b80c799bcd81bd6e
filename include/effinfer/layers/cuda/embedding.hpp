#pragma once
// The rows of a table that tokens are looked up in.

#include <effinfer/core/dtype.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/core/weight_format.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/pack.hpp>

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

  /// A thread has 8 numbers, as one token's should go to several multiprocessors.
  static execution::simt::grid plan(const args& a) {
    return {static_cast<int>(a.out.rows), static_cast<int>((a.out.columns + threads * 8 - 1) / (threads * 8)), threads,
            0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const std::ptrdiff_t first = (std::ptrdiff_t{t.block_y()} * threads + t.thread()) * 8;
    const std::ptrdiff_t from = a.token[t.block()] * a.out.columns + first;
    const int left = static_cast<int>(a.out.columns - first);
    if (left <= 0) return;
    float* const out = a.out.row(t.block()) + first;
    const auto copy = [&](const auto* table) {
      const auto read = execution::simt::load_pack(table + from, left, execution::simt::takes_packs(table + from));
      execution::simt::pack<float> floats;
      EFFINFER_UNROLL
      for (int i = 0; i < 8; ++i) floats.v[i] = static_cast<float>(read.v[i]);
      execution::simt::store_pack(out, floats, left, execution::simt::takes_packs(out));
    };
    if (a.format == weight_format::f32) {
      copy(static_cast<const float*>(a.table));
    } else if (a.format == weight_format::f16) {
      copy(static_cast<const f16*>(a.table));
    } else {
      copy(static_cast<const bf16*>(a.table));
    }
  }

 private:
  static constexpr int threads = 128;
};

/// The same of a table in the order of products, weights with value(row, column) (quantization/cuda/block_weights.hpp).
template <class Weights>
struct packed_embedding {
  struct args {
    const int* token;
    Weights table;
    matrix_view<float> out;
  };
  static constexpr int threads = 128;

  static execution::simt::grid plan(const args& a) {
    return {static_cast<int>(a.out.rows), static_cast<int>((a.out.columns + threads - 1) / threads), threads, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int row = a.token[t.block()];
    float* const out = a.out.row(t.block());
    const int e = t.block_y() * threads + t.thread();
    if (e < static_cast<int>(a.out.columns)) out[e] = a.table.value(row, e);
  }
};

}  // namespace effinfer::inline v0::layers::cuda
