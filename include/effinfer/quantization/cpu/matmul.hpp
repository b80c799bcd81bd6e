#pragma once
// How a product is cut into pieces: rows of weights are dealt to threads; a thread takes its rows for 32 tokens at a time,
// four rows at a time, one panel of columns at a time; a panel is unpacked once and multiplied with all 32.

#include <effinfer/quantization/cpu/activations.hpp>
#include <effinfer/quantization/cpu/products.hpp>
#include <effinfer/quantization/formats.hpp>

#include <algorithm>
#include <string>

namespace effinfer::inline v0::quantization::detail {

template <class Format>
struct unpack_integers {
  struct args {
    const weight_matrix* w;
    std::ptrdiff_t row;
    int rows, first, columns;
    integer_row panel;
  };
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    for (int r = 0; r < a.rows; ++r) {
      Format::template unpack<Set>(
          *a.w, a.row + r, a.first, a.columns,
          integer_row{a.panel.codes + r * integer_panel_columns, a.panel.scales + r * (integer_panel_columns / 16),
                      a.panel.minimums + r * (integer_panel_columns / 32)});
    }
  }
};

template <class Format>
struct unpack_floats {
  struct args {
    const weight_matrix* w;
    std::ptrdiff_t row;
    int rows, first, columns;
    float* panel;
  };
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    for (int r = 0; r < a.rows; ++r) {
      Format::template unpack<Set>(*a.w, a.row + r, a.first, a.columns, a.panel + r * float_panel_columns);
    }
  }
};

/// One part of a product: rows [begin, end) of w, all tokens.
template <class Format>
struct product_part {
  const execution::instruction_set set;
  const prepared_activations& p;
  const weight_matrix& w;
  const matrix_view<float> y;
  const float* const bias;

  void operator()(std::ptrdiff_t begin, std::ptrdiff_t end) const {
    alignas(64) float sums[panel_rows * panel_tokens * 16];
    const std::ptrdiff_t tokens = y.rows, columns = w.columns;
    constexpr int panel_columns = Format::is_float ? float_panel_columns : integer_panel_columns;
    for (std::ptrdiff_t token = 0; token < tokens; token += panel_tokens) {
      const int some_tokens = static_cast<int>(std::min<std::ptrdiff_t>(panel_tokens, tokens - token));
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
          run_panel(token, some_tokens, row, rows, static_cast<int>(first), count, out);
        }
      }
    }
  }

 private:
  /// The bytes that come next in memory: of these rows, or of the next four.
  prefetch_plan plan(std::ptrdiff_t row, int first, int count, int columns_a_step) const {
    prefetch_plan next;
    const std::ptrdiff_t bytes = w.row_bytes * count / std::max<std::ptrdiff_t>(w.columns, 1);
    next.start =
        w.row(row) + (first + count < w.columns ? w.row_bytes * (first + count) / w.columns : panel_rows * w.row_bytes);
    next.row_bytes = w.row_bytes;
    next.step_bytes = bytes * columns_a_step / std::max(count, 1);
    return next;
  }

  void run_panel(std::ptrdiff_t token, int tokens, std::ptrdiff_t row, int rows, int first, int count,
                 const product_output& out) const {
    if constexpr (Format::is_float) {
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
      a.next = plan(row, first, count, 16);
      execution::dispatch<float_product>(set, a);
    } else {
      alignas(64) std::int8_t codes[panel_rows * integer_panel_columns];
      alignas(64) float scales[panel_rows * (integer_panel_columns / 16)];
      alignas(64) float minimums[panel_rows * (integer_panel_columns / 32)];
      const typename unpack_integers<Format>::args u{&w, row, rows, first, count, {codes, scales, minimums}};
      execution::dispatch<unpack_integers<Format>>(set, u);
      if (const int padded = (count + 511) / 512 * 512; padded != count) {
        for (int r = 0; r < rows; ++r) {
          std::fill(codes + r * integer_panel_columns + count, codes + r * integer_panel_columns + padded,
                    std::int8_t{0});
          float* s = scales + r * (integer_panel_columns / 16);
          std::fill(s + (count + 15) / 16, s + padded / 16, 0.0f);
          float* m = minimums + r * (integer_panel_columns / 32);
          if (Format::has_minimum) std::fill(m + count / 32, m + padded / 32, 0.0f);
        }
      }
      integer_product::args a{};
      a.codes = codes, a.scales = scales, a.minimums = Format::has_minimum ? minimums : nullptr;
      a.x = p.codes + token * p.padded + first;
      a.x_scales = p.scales + token * (p.padded / 32) + first / 32;
      a.x_sums = p.sums + token * (p.padded / 32) + first / 32;
      a.x_stride = p.padded;
      a.rows = rows, a.tokens = tokens, a.columns = (count + 63) / 64 * 64;
      a.out = out;
      a.next = plan(row, first, count, 64);
      execution::dispatch<integer_product>(set, a);
    }
  }
};

template <class Format>
void run_product(const execution::cpu::context& exec, const prepared_activations& p, const weight_matrix& w,
                 matrix_view<float> y, const float* bias) {
  // Parts of about 128 KiB of weights, so that a part stays in the second-level cache while tokens pass by, but enough of
  // them to go round, and none below some ten microseconds of work.
  const std::ptrdiff_t quads = (w.rows + panel_rows - 1) / panel_rows;
  const std::ptrdiff_t by_cache = (128 << 10) / std::max<std::ptrdiff_t>(panel_rows * w.row_bytes, 1);
  const std::ptrdiff_t by_threads = quads / (4 * exec.threads());
  const std::ptrdiff_t by_work = (1 << 16) / std::max<std::ptrdiff_t>(panel_rows * w.columns * y.rows, 1);
  const std::ptrdiff_t grain = std::max({std::min(by_cache, by_threads), by_work, std::ptrdiff_t{1}});
  const product_part<Format> part{exec.set(), p, w, y, bias};
  exec.parallel_for(quads, grain, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    part(begin * panel_rows, std::min(end * panel_rows, w.rows));
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
