#pragma once
// How a product is cut into pieces: rows of weights are dealt to threads. For one token a thread runs down its rows. For
// several it takes 32 tokens at a time, four rows at a time, one panel of columns at a time; a panel is
// unpacked once and multiplied with all 32.

#include <effinfer/quantization/cpu/activations.hpp>
#include <effinfer/quantization/cpu/row_product.hpp>
#include <effinfer/quantization/formats.hpp>

#include <algorithm>
#include <string>

namespace effinfer::inline v0::quantization::detail {

/// One part of a product of several tokens: rows [begin, end) of w.
template <class Format>
struct product_part {
  const execution::instruction_set set;
  const prepared_activations& p;
  const weight_matrix& w;
  const matrix_view<float> y;
  const float* const bias;

  void operator()(std::ptrdiff_t begin, std::ptrdiff_t end) const {
    alignas(64) float sums[panel_rows * panel_tokens * 16];
    const std::ptrdiff_t columns = w.columns;
    constexpr int panel_columns = Format::is_float ? float_panel_columns : integer_panel_columns;
    for (std::ptrdiff_t token = 0; token < y.rows; token += panel_tokens) {
      const int tokens = static_cast<int>(std::min<std::ptrdiff_t>(panel_tokens, y.rows - token));
      for (std::ptrdiff_t row = begin; row < end; row += panel_rows) {
        const int rows = static_cast<int>(std::min<std::ptrdiff_t>(panel_rows, end - row));
        for (std::ptrdiff_t first = 0; first == 0 || first < columns; first += panel_columns) {
          const int count = static_cast<int>(std::min<std::ptrdiff_t>(panel_columns, columns - first));
          product_output out{};
          out.y = y.row(token) + row;
          out.y_stride = y.stride;
          out.bias = bias != nullptr ? bias + row : nullptr;
          out.sums = sums;
          out.first = first == 0;
          out.last = first + panel_columns >= columns;
          if constexpr (Format::is_float) {
            float_panel(token, tokens, row, rows, static_cast<int>(first), count, out);
          } else {
            integer_panel(token, tokens, row, rows, static_cast<int>(first), count, out);
          }
        }
      }
    }
  }

 private:
  void float_panel(std::ptrdiff_t token, int tokens, std::ptrdiff_t row, int rows, int first, int count,
                   const product_output& out) const {
    alignas(64) float panel[panel_rows * float_panel_columns];
    float_product::args a{};
    if constexpr (Format::name == weight_format::f32) {  // already floats: read in place
      a.w = w.row(row) + std::ptrdiff_t{first} * 4;
      a.w_stride = w.row_bytes;
    } else {
      const typename unpack_floats<Format>::args u{&w, row, rows, first, count, panel};
      execution::dispatch<unpack_floats<Format>>(set, u);
      a.w = reinterpret_cast<const std::byte*>(panel);
      a.w_stride = float_panel_columns * 4;
    }
    a.x = p.values.row(token) + first;
    a.x_stride = p.values.stride;
    a.rows = rows, a.tokens = tokens, a.columns = count;
    a.out = out;
    execution::dispatch<float_product>(set, a);
  }

  void integer_panel(std::ptrdiff_t token, int tokens, std::ptrdiff_t row, int rows, int first, int count,
                     const product_output& out) const {
    using product = integer_product<Format::columns_a_scale>;
    alignas(64) std::int8_t codes[panel_rows * product::code_stride];
    alignas(64) float scales[panel_rows * product::scale_stride];
    alignas(64) float minimums[panel_rows * product::minimum_stride];
    const typename unpack_integers<Format>::args u{&w, row, rows, first, count, codes, scales, minimums};
    execution::dispatch<unpack_integers<Format>>(set, u);
    typename product::args a{};
    a.codes = codes, a.scales = scales, a.minimums = Format::has_minimum ? minimums : nullptr;
    a.x = p.codes + token * p.padded + first;
    a.x_scales = p.scales + token * (p.padded / 32) + first / 32;
    a.x_sums = p.sums + token * (p.padded / 32) + first / 32;
    a.x_stride = p.padded;
    a.code_offset = Format::code_offset;
    a.rows = rows, a.tokens = tokens, a.columns = (count + 63) / 64 * 64;
    a.out = out;
    execution::dispatch<product>(set, a);
  }
};

/// One token: rows [begin, end) of w.
template <class Format>
void run_rows(execution::instruction_set set, const prepared_activations& p, const weight_matrix& w,
              matrix_view<float> y, const float* bias, std::ptrdiff_t begin, std::ptrdiff_t end) {
  const row_product_args a{&w, begin, end, p.values.data, p.codes, p.scales, p.sums, y.data, bias};
  if constexpr (Format::is_float) {
    execution::dispatch<float_rows<Format>>(set, a);
  } else {
    execution::dispatch<integer_rows<Format>>(set, a);
  }
}

template <class Format>
void run_product(const execution::cpu::context& exec, const prepared_activations& p, const weight_matrix& w,
                 matrix_view<float> y, const float* bias) {
  // Enough parts to go round, none below some ten microseconds of work. With several tokens, of at most 128 KiB of
  // weights, so that a part stays in the second-level cache while tokens pass by.
  const std::ptrdiff_t quads = (w.rows + panel_rows - 1) / panel_rows;
  std::ptrdiff_t grain = quads / (8 * exec.threads());
  if (y.rows > 1) grain = std::min(grain, (128 << 10) / std::max<std::ptrdiff_t>(panel_rows * w.row_bytes, 1));
  grain =
      std::max({grain, (1 << 16) / std::max<std::ptrdiff_t>(panel_rows * w.columns * y.rows, 1), std::ptrdiff_t{1}});
  const product_part<Format> part{exec.set(), p, w, y, bias};
  exec.parallel_for(quads, grain, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    begin *= panel_rows, end = std::min(end * panel_rows, w.rows);
    if (y.rows == 1) {
      run_rows<Format>(exec.set(), p, w, y, bias, begin, end);
    } else {
      part(begin, end);
    }
  });
}

template <class... Format>
void choose_product(formats<Format...>, const execution::cpu::context& exec, const prepared_activations& p,
                    const weight_matrix& w, matrix_view<float> y, const float* bias) {
  if (y.rows <= 0 || w.rows <= 0) return;
  (void)((w.format == Format::name ? (run_product<Format>(exec, p, w, y, bias), true) : false) || ...);
}

template <class Formats>
void check_product(Formats, const prepared_activations& p, const weight_matrix& w, matrix_view<float> y) {
  const auto fail = [](error_code code, const std::string& problem) {
    throw error(code, "quantization::matmul", problem);
  };
  const auto shape = [](std::ptrdiff_t r, std::ptrdiff_t c) {
    std::string s("[");  // += and not "[" + ...: g++ 12 sees an overlapping copy there (-Wrestrict)
    s += std::to_string(r) + ", " + std::to_string(c) + "]";
    return s;
  };
  if (!Formats::contains(w.format)) {
    fail(error_code::unsupported, "the format " + std::string(to_string(w.format)) + " isn't among those compiled in");
  }
  if (p.values.columns != w.columns || p.values.rows != y.rows || y.columns != w.rows) {
    fail(error_code::mismatch, "shapes x " + shape(p.values.rows, p.values.columns) + ", w " +
                                   shape(w.rows, w.columns) + ", y " + shape(y.rows, y.columns) +
                                   " don't make y = x w^T");
  }
  const bool is_float = block_bytes(w.format) != 0 && block_size(w.format) == 1;
  if (!is_float && p.codes == nullptr && p.values.rows > 0 && p.values.columns > 0) {
    fail(error_code::invalid_argument, "an integer format needs activations from quantization::prepare");
  }
}

}  // namespace effinfer::inline v0::quantization::detail
