#pragma once
// silu(x g^T) * (x u^T) for up to 16 rows of x, where g and u are the halves of one matrix: the first two products of a gated feed-forward layer
// and what joins them, in one kernel. Same bits as apart: skinny_product, then layers::cuda::swiglu.

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/layers/cuda/elementwise.hpp>
#include <effinfer/quantization/cuda/product.hpp>
#include <effinfer/quantization/cuda/strip_units.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <cstddef>
#include <string>

namespace effinfer::inline v0::quantization::cuda {

/// Shapes: x [T, K], weights [2 F, K], first the gates', F a multiple of 16; out [T, F].
template <class Weights, class T>
struct gated_args {
  matrix_view<const T> x;
  Weights weights;
  matrix_view<T> out;
  product_plan plan;
};

namespace detail {

/// Blocks that a multiprocessor holds at once, by the registers that formats take.
template <class Weights, int Tiles>
inline constexpr int gated_blocks = Tiles == 1 && Weights::unit_bytes <= 2 ? 2 : 1;

}  // namespace detail

/// True where the kernel takes these shapes, and the device two strips of so many rows. Not for weights of 16 bits: what the kernel saves is little
/// beside reading them.
template <class Weights, class T>
bool has_gated_form(std::ptrdiff_t tokens, int weight_rows, const device_limits& device) {
  return Weights::pieces < 4 && tokens <= most_skinny_rows && weight_rows % (2 * strip_rows) == 0 &&
         detail::skinny_bytes<Weights, T, 2>(tokens) <= device.shared_bytes;
}

/// A plan. Errors: as plan_skinny's; `unsupported` (what has_gated_form refuses).
template <class Weights, class T>
product_plan plan_gated(const matrix_view<const T>& x, const Weights& w, const matrix_view<T>& out,
                        const device_limits& device) {
  const char* const who = "quantization::cuda::plan_gated";
  execution::simt::check_shared(who, detail::skinny_bytes<Weights, T, 2>(x.rows), device);
  if (!has_gated_form<Weights, T>(x.rows, w.rows, device)) {
    throw error(error_code::unsupported, who,
                std::to_string(x.rows) + " rows of x, weights of " + std::to_string(w.rows) + " rows");
  }
  auto half = w;
  half.rows /= 2;
  product_plan plan = plan_skinny(x, half, out, device);
  plan.blocks =
      device.multiprocessors * (plan.tiles == 1 ? detail::gated_blocks<Weights, 1> : detail::gated_blocks<Weights, 2>);
  return plan;
}

/// The kernel for 8 * Tiles rows: a block has a strip of gates and the strip of what they let pass.
template <class Weights, class T, int Tiles>
struct gated_product {
  using args = gated_args<Weights, T>;
  using sums = detail::skinny_sums<Weights, T, Tiles, 2>;
  static constexpr int threads = sums::most_threads, blocks_at_once = detail::gated_blocks<Weights, Tiles>;
  static constexpr bool awaits_predecessors = true;

  /// Error: `unsupported`, where the plan is for other Tiles.
  static execution::simt::grid plan(const args& a) {
    return sums::plan("quantization::cuda::gated_product", a.plan, a.x, a.weights, a.weights.rows / (2 * strip_rows));
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int half = a.weights.rows / 2, strips = half / strip_rows;
    const auto strip = [strips](int i, int s) { return i + s * strips; };
    const auto store = [&](int i, auto of) {
      sums::for_outputs(t, a.x.rows, [&](int r, int token) {
        const int row = i * strip_rows + r;
        const T gate(sums::total(t, of, 0, r, token) * a.weights.row_scale(row));
        const T up(sums::total(t, of, 1, r, token) * a.weights.row_scale(half + row));
        a.out.row(token)[row] = layers::cuda::swiglu<T>::of(gate, up);
      });
    };
    sums::run(t, a.x, a.weights, strips, strip, store);
  }
};

}  // namespace effinfer::inline v0::quantization::cuda
