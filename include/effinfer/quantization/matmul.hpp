#pragma once
// y = x w^T + bias, for weights in any format.

#include <effinfer/quantization/cpu/matmul.hpp>

namespace effinfer::inline v0::quantization {

/// The workspace that `matmul` (and `prepare`) needs for T rows of M columns; 0 where the list has float formats only.
template <class Formats = all_formats>
constexpr std::size_t matmul_workspace_bytes(std::ptrdiff_t tokens, std::ptrdiff_t columns) {
  return Formats::has_integers ? activation_bytes(tokens, columns) : 0;
}

/// y[t][n] = sum_m x[t][m] w[n][m] + bias[n], from activations that `prepare` has made ready (several products may share
/// them); for a float format `p.values` alone is enough.
///
/// Shapes: x [T, M], w [N, M], y [T, N], bias [N] or null. y must not overlap the inputs.
/// Math: float formats in f32; integer formats with the activations rounded to 8 bits in blocks of 32
/// (cpu/activations.hpp), integer sums and f32 scales.
/// Cost: reads N rows of w once for every 32 tokens, of which all but the first find them in the cache.
/// Exact: an output depends on its row of x and of w alone, not on T, the number of threads or the other rows; AVX2 and
/// AVX-512 give the same bits.
/// Errors, before anything is written: mismatch of shapes; unsupported, for a format outside of `Formats`;
/// invalid_argument, where an integer format meets unprepared activations.
template <class Formats = all_formats>
void matmul(const execution::cpu::context& exec, const prepared_activations& p, const weight_matrix& w,
            matrix_view<float> y, const float* bias = nullptr) {
  detail::check_product(Formats(), p, w, y);
  detail::choose_product(Formats(), exec, p, w, y, bias);
}

/// The same in one step. `workspace` holds matmul_workspace_bytes<Formats>(T, M) bytes.
template <class Formats = all_formats>
void matmul(const execution::cpu::context& exec, matrix_view<const float> x, const weight_matrix& w,
            matrix_view<float> y, std::span<std::byte> workspace, const float* bias = nullptr) {
  prepared_activations p;
  p.values = x;
  const bool is_float = block_bytes(w.format) != 0 && block_size(w.format) == 1;
  if (!is_float && x.columns == w.columns) p = prepare(exec, x, workspace);
  matmul<Formats>(exec, p, w, y, bias);
}

}  // namespace effinfer::inline v0::quantization
