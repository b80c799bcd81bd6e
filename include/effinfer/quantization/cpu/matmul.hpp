#pragma once
// How products are cut into pieces: panels of weights are dealt to threads, and a thread takes a panel with all tokens, which
// find it in the second-level cache. Several products of the same activations go as one loop.

#include <effinfer/quantization/cpu/activations.hpp>
#include <effinfer/quantization/cpu/float_product.hpp>
#include <effinfer/quantization/cpu/integer_product.hpp>
#include <effinfer/quantization/formats.hpp>

#include <algorithm>
#include <span>
#include <string>

namespace effinfer::inline v0::quantization {

/// One product of prepared activations: y = x w^T + bias.
struct product {
  const packed_matrix* w;
  matrix_view<float> y;         ///< [T, N]
  const float* bias = nullptr;  ///< [N], or null
};

namespace detail {

template <class Format>
void run_panel(execution::instruction_set set, const prepared_activations& p, const product& out,
               std::ptrdiff_t panel) {
  const auto fill = [&](auto& a) {
    a.w = out.w;
    a.panel = panel;
    a.tokens = out.y.rows;
    a.y = out.y.data;
    a.y_stride = out.y.stride;
    a.bias = out.bias;
  };
  if constexpr (Format::is_float) {
    typename float_product<Format>::args a{};
    fill(a);
    a.x = p.values.data, a.x_stride = p.values.stride;
    a.x_halves = p.halves;
    execution::dispatch<float_product<Format>>(set, a);
  } else {
    typename integer_product<Format>::args a{};
    fill(a);
    a.x = p.codes;
    a.x_scales = p.scales, a.x_sums = p.sums;
    a.x_counts = Format::scales::columns_a_scale == 16 ? p.counts_16 : p.counts;
    execution::dispatch<integer_product<Format>>(set, a);
  }
}

template <class... Format>
void run_products(formats<Format...>, const execution::cpu::context& exec, const prepared_activations& p,
                  std::span<const product> products) {
  std::ptrdiff_t panels = 0;
  std::size_t bytes = 0;
  for (const product& out : products) panels += out.w->panels(), bytes += out.w->bytes();
  if (p.values.rows <= 0 || panels == 0) return;
  // Enough parts for threads of uneven speed, none below some ten microseconds of work.
  const auto panel_work = static_cast<std::ptrdiff_t>(bytes) / panels * std::max<std::ptrdiff_t>(p.values.rows / 4, 1);
  const std::ptrdiff_t grain = std::max(
      {panels / (16 * exec.threads()), (1 << 17) / std::max<std::ptrdiff_t>(panel_work, 1), std::ptrdiff_t{1}});
  exec.parallel_for(panels, grain, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (const product& out : products) {
      const std::ptrdiff_t count = out.w->panels();
      for (std::ptrdiff_t i = std::max<std::ptrdiff_t>(begin, 0); i < std::min(end, count); ++i) {
        (void)((out.w->format == Format::name ? (run_panel<Format>(exec.set(), p, out, i), true) : false) || ...);
      }
      begin -= count, end -= count;
    }
  });
}

template <class Formats>
void check_product(Formats, const execution::cpu::context& exec, const prepared_activations& p, const product& out) {
  const auto fail = [](error_code code, const std::string& problem) {
    throw error(code, "quantization::matmul", problem);
  };
  const auto shape = [](std::ptrdiff_t r, std::ptrdiff_t c) {
    std::string s("[");  // += and not "[" + ...: g++ 12 sees an overlapping copy there (-Wrestrict)
    s += std::to_string(r) + ", " + std::to_string(c) + "]";
    return s;
  };
  const packed_matrix& w = *out.w;
  if (!Formats::contains(w.format)) {
    fail(error_code::unsupported, "the format " + std::string(to_string(w.format)) + " isn't among those compiled in");
  }
  if (p.values.columns != w.columns || p.values.rows != out.y.rows || out.y.columns != w.rows) {
    fail(error_code::mismatch, "shapes x " + shape(p.values.rows, p.values.columns) + ", w " +
                                   shape(w.rows, w.columns) + ", y " + shape(out.y.rows, out.y.columns) +
                                   " don't make y = x w^T");
  }
  activation_kinds kinds;
  kinds.add(w.format, exec.set());
  if (p.values.rows > 0 && p.values.columns > 0 &&
      ((kinds.codes && p.codes == nullptr) || (kinds.halves && p.halves == nullptr))) {
    fail(error_code::invalid_argument,
         "weights in " + std::string(to_string(w.format)) + " need activations from quantization::prepare");
  }
}

}  // namespace detail
}  // namespace effinfer::inline v0::quantization
