#pragma once
// y = x w^T + bias, for weights in any format.

#include <effinfer/quantization/cpu/compiled_products.hpp>
#include <effinfer/quantization/cpu/matmul.hpp>
#include <effinfer/quantization/pack.hpp>

namespace effinfer::inline v0::quantization {

/// The workspace that `matmul` (and `prepare`) needs for T rows of M columns; 0 where the list has F32 and F16 only.
template <class Formats = all_formats>
constexpr std::size_t matmul_workspace_bytes(std::ptrdiff_t tokens, std::ptrdiff_t columns) {
  return Formats::has_integers || Formats::contains(weight_format::bf16) ? activation_bytes(tokens, columns) : 0;
}

/// y[t][n] = sum_m x[t][m] w[n][m] + bias[n] for each of `products`, from activations that `prepare` has made ready for
/// their formats. Several products of the same activations (query, key and value) cost one fork. A product
/// that `adds` gives y += ... instead.
///
/// Shapes: x [T, M], w [N, M], y [T, N], bias [N] or null. No y may overlap an input or another y.
/// Math: F32, F16 and BF16 in f32, the last with activations rounded to bf16 where the machine has AVX512-BF16 or AMX; integer
/// formats with the activations rounded to 8 bits in blocks of 32 (cpu/activations.hpp), integer sums and f32 scales. On AMX they also
/// take activations prepared for a prompt (activation_kinds::add): weights and activations rounded to bf16, sums in f32.
/// Cost: reads w once for every 6 tokens (12: floats; 48: BF16 on AMX), of which all but the first find it in the cache.
/// Exact: an output depends on its row of x and of w alone, not on T, the number of threads or the other rows; all
/// instruction sets but the portable give the same bits, but for BF16 weights on AVX512-BF16, AMX and NEON's BF16.
/// Errors, before anything is written: mismatch of shapes; unsupported, for a format outside of `Formats`;
/// invalid_argument, where a format meets activations that aren't prepared for it.
template <class Formats = all_formats>
void matmul(const execution::cpu::context& exec, const prepared_activations& p, std::span<const product> products) {
  for (const product& out : products) detail::check_product(Formats(), exec, p, out);
  detail::run_products(Formats(), exec, p, products);
}

/// The same for one product.
template <class Formats = all_formats>
void matmul(const execution::cpu::context& exec, const prepared_activations& p, const packed_matrix& w,
            matrix_view<float> y, const float* bias = nullptr) {
  const product one{&w, y, bias};
  matmul<Formats>(exec, p, std::span(&one, 1));
}

/// y = combine(x a.w^T + a.bias, x b.w^T + b.bias), combined and made ready for the next product while both are in the cache: a
/// gated feed-forward needs none of them in memory. `combine(of_a, of_b, out)` makes a piece of y, of at most 32 columns; `out` is
/// the memory of `of_a`; it is called from any thread.
///
/// Returns y prepared in `workspace`, which holds activation_bytes(T, N), as `kinds` asks for. If that is for values (so it is
/// without a workspace), y is written to a.y; else a.y's memory isn't touched. b.y never is.
/// Shapes: both products have the same. Errors and exactness: as above; limit, where the workspace is too small.
template <class Formats = all_formats, class Combine>
prepared_activations matmul(const execution::cpu::context& exec, const prepared_activations& p, const product& a,
                            const product& b, const Combine& combine, std::span<std::byte> workspace = {},
                            activation_kinds kinds = {.values = true}) {
  for (const product* one : {&a, &b}) detail::check_product(Formats(), exec, p, *one);
  return detail::run_combined(Formats(), exec, p, a, b, combine, workspace, kinds);
}

/// One product in one step. `workspace` holds matmul_workspace_bytes<Formats>(T, M) bytes.
template <class Formats = all_formats>
void matmul(const execution::cpu::context& exec, matrix_view<const float> x, const packed_matrix& w,
            matrix_view<float> y, std::span<std::byte> workspace, const float* bias = nullptr) {
  activation_kinds kinds;
  kinds.add(w.format, exec.set());
  if (x.columns != w.columns) kinds = {};  // the check below says so
  matmul<Formats>(exec, prepare(exec, x, workspace, kinds), w, y, bias);
}

}  // namespace effinfer::inline v0::quantization
