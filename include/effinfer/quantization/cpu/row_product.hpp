#pragma once
// Products of one token: weights come straight from memory, are unpacked in registers, four rows side by side, and met with
// the same activations. What bounds it is memory, so the next four rows are fetched while these are computed.
//
// Exact: the same sequence of operations for each output as in cpu/panel_product.hpp.

#include <effinfer/quantization/cpu/panel_product.hpp>

namespace effinfer::inline v0::quantization::detail {

/// What a product of one token reads and writes: rows [begin, end) of w.
struct row_product_args {
  const weight_matrix* w;
  std::ptrdiff_t begin, end;
  const float* x;            ///< float formats
  const std::int8_t* codes;  ///< integer formats, with their scales and sums
  const float* x_scales;
  const float* x_sums;
  float* y;           ///< [rows of w]
  const float* bias;  ///< [rows of w], or null
};

/// Fetches rows to come, line by line, as the ones in work are read: they lie next in memory. A whole number of tiles
/// ahead, and at least 24 KiB: about what is on its way from memory at any time at full rate, and half of a first-level
/// cache. (Measured, for rows of 2 to 8 KB: 0.8 of the read bandwidth with one tile ahead, 0.9 so, 0.6 with 4 KiB.)
struct rows_ahead {
  const std::byte* p;

  EFFINFER_ALWAYS_INLINE rows_ahead(const std::byte* tile, std::ptrdiff_t tile_bytes)
      : p(tile + (tile_bytes > 0 ? ((24 << 10) + tile_bytes - 1) / tile_bytes * tile_bytes : 0)) {}

  template <int Bytes>
  EFFINFER_ALWAYS_INLINE void fetch() {
    __builtin_prefetch(p);
    if constexpr (Bytes > 64) __builtin_prefetch(p + 64);
    if constexpr (Bytes > 128) __builtin_prefetch(p + 128);
    if constexpr (Bytes > 192) __builtin_prefetch(p + 192);
    if constexpr (Bytes > 256) __builtin_prefetch(p + 256);
    p += Bytes;
  }
};

template <class Format>
struct float_rows {
  template <instruction_set Set, int Rows>
  struct tile {
    using vector = f32x16<Set>;
    vector sum[Rows];

    EFFINFER_ALWAYS_INLINE void run(const row_product_args& a, std::ptrdiff_t row) {
      constexpr std::make_integer_sequence<int, Rows> rows{};
      constexpr int step_bytes = static_cast<int>(Format::unit_offset(16));
      const std::ptrdiff_t stride = a.w->row_bytes;
      const std::byte* w = a.w->row(row);
      const float* x = a.x;
      rows_ahead next(w, Rows * stride);
      begin(rows);
      std::ptrdiff_t left = a.w->columns;
      for (; left >= 16; left -= 16, w += step_bytes, x += 16) {
        next.fetch<Rows * step_bytes>();
        step<true>(w, stride, x, 16, rows);
      }
      if (left > 0) step<false>(w, stride, x, left, rows);
      end(a, row, rows);
    }

   private:
    template <int... Row>
    EFFINFER_ALWAYS_INLINE void begin(std::integer_sequence<int, Row...>) {
      ((sum[Row] = vector::zero()), ...);
    }
    template <bool Whole, int... Row>
    EFFINFER_ALWAYS_INLINE void step(const std::byte* w, std::ptrdiff_t stride, const float* p, std::ptrdiff_t count,
                                     std::integer_sequence<int, Row...>) {
      const vector x = Whole ? vector::load(p) : vector::load_first(p, count);
      (add<Row>(w + Row * stride, count, x), ...);
    }
    template <int Row>
    EFFINFER_ALWAYS_INLINE void add(const std::byte* w, std::ptrdiff_t count, const vector& x) {
      vector v;
      Format::template load<Set>(w, count, v);
      sum[Row] = fma(v, x, sum[Row]);
    }
    template <int... Row>
    EFFINFER_ALWAYS_INLINE void end(const row_product_args& a, std::ptrdiff_t row,
                                    std::integer_sequence<int, Row...>) const {
      ((a.y[row + Row] = finish<Set>(sum[Row], a.bias, row + Row)), ...);
    }
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const row_product_args& a) {
    std::ptrdiff_t row = a.begin;
    for (; row + 4 <= a.end; row += 4) tile<Set, 4>().run(a, row);
    for (; row < a.end; ++row) tile<Set, 1>().run(a, row);
  }
};

template <class Format>
struct integer_rows {
  static constexpr int scale_stride = integer_panel_columns / Format::columns_a_scale;
  static constexpr int minimum_stride = integer_panel_columns / 32;
  static constexpr bool scales_in_units = requires(const std::byte* p, f32x16<instruction_set::portable>& v) {
    Format::load_scale_lanes(p, 0, v);
  };
  static constexpr int chunk_bytes = Format::bytes_a_chunk;

  template <instruction_set Set, int Rows>
  struct tile {
    using vector = f32x16<Set>;
    vector sum[Rows];

    EFFINFER_ALWAYS_INLINE void run(const row_product_args& a, std::ptrdiff_t row) {
      constexpr std::make_integer_sequence<int, Rows> rows{};
      constexpr std::make_integer_sequence<int, Format::columns_a_unit / 64> chunks{};
      constexpr std::ptrdiff_t unit_bytes = Format::unit_offset(Format::columns_a_unit);
      alignas(64) float scales[Rows * scale_stride];
      alignas(64) float minimums[Rows * minimum_stride];
      const std::ptrdiff_t stride = a.w->row_bytes;
      const std::byte* unit = a.w->row(row);
      rows_ahead next(unit, Rows * stride);
      const std::int8_t* x = a.codes;
      const float* x_scale = a.x_scales;
      begin(rows);
      for (std::ptrdiff_t first = 0; first < a.w->columns; first += integer_panel_columns) {
        const std::ptrdiff_t rest = a.w->columns - first;
        const int count = static_cast<int>(rest < integer_panel_columns ? rest : integer_panel_columns);
        load_scales(*a.w, row, static_cast<int>(first), count, scales, minimums, rows);
        const float* w_scale = scales;
        for (int left = count; left > 0; left -= Format::columns_a_unit) {
          unit_step(unit, stride, left, w_scale, x, x_scale, next, rows, chunks);
          unit += unit_bytes;
          w_scale += Format::columns_a_unit / Format::columns_a_scale;
          x += Format::columns_a_unit;
          x_scale += Format::columns_a_unit / 32;
        }
        if constexpr (Format::has_minimum) {
          const float* x_sum = a.x_sums + first / 32;
          for (int i = 0; i * 32 < count; i += 16) add_minimums(minimums + i, x_sum + i, rows);
        }
      }
      end(a, row, rows);
    }

   private:
    template <int... Row>
    EFFINFER_ALWAYS_INLINE void begin(std::integer_sequence<int, Row...>) {
      ((sum[Row] = vector::zero()), ...);
    }
    template <int... Row>
    static EFFINFER_ALWAYS_INLINE void load_scales(const weight_matrix& w, std::ptrdiff_t row, int first, int count,
                                                   float* scales, float* minimums, std::integer_sequence<int, Row...>) {
      if constexpr (scales_in_units) {
        (Format::template load_minimums<Set>(w, row + Row, first, count, minimums + Row * minimum_stride), ...);
      } else {
        (Format::template load_scales<Set>(w, row + Row, first, count,
                                           {scales + Row * scale_stride, minimums + Row * minimum_stride}),
         ...);
      }
    }
    template <int... Row, int... Chunk>
    EFFINFER_ALWAYS_INLINE void unit_step(const std::byte* unit, std::ptrdiff_t stride, int left, const float* w_scale,
                                          const std::int8_t* x, const float* x_scale, rows_ahead& next,
                                          std::integer_sequence<int, Row...> rows,
                                          std::integer_sequence<int, Chunk...>) {
      (chunk_step<Chunk>(unit, stride, left, w_scale + Chunk * (64 / Format::columns_a_scale), x + Chunk * 64,
                         x_scale + Chunk * 2, next, rows),
       ...);
    }
    template <int Chunk, int... Row>
    EFFINFER_ALWAYS_INLINE void chunk_step(const std::byte* unit, std::ptrdiff_t stride, int left, const float* w_scale,
                                           const std::int8_t* p, const float* p_scale, rows_ahead& next,
                                           std::integer_sequence<int, Row...>) {
      next.fetch<Rows * chunk_bytes>();
      activation_codes<Set> x;
      if constexpr (Format::code_offset == 0) {
        x.load(p);
      } else {
        x.load(p, Format::code_offset);
      }
      vector x_scale;
      spread_scales<Set, 32>(x_scale, p_scale);
      (add<Chunk, Row>(unit + Row * stride, left, w_scale + Row * scale_stride, x, x_scale), ...);
    }
    template <int Chunk, int Row>
    EFFINFER_ALWAYS_INLINE void add(const std::byte* unit, int left, const float* p_scale,
                                    const activation_codes<Set>& x, const vector& x_scale) {
      code_vector<Set> w;
      Format::template load_codes<Set, Chunk>(unit, left, w);
      make_ready<Set, Format::code_offset>(w);
      vector w_scale;
      if constexpr (scales_in_units) {
        Format::template load_scale_lanes<Set>(unit, left, w_scale);
      } else {
        spread_scales<Set, Format::columns_a_scale>(w_scale, p_scale);
      }
      add_product<Set>(sum[Row], w, w_scale, x, x_scale);
    }
    template <int... Row>
    EFFINFER_ALWAYS_INLINE void add_minimums(const float* m, const float* p, std::integer_sequence<int, Row...>) {
      const vector x_sum = vector::load(p);
      ((sum[Row] = fma(vector::load(m + Row * minimum_stride), x_sum, sum[Row])), ...);
    }
    template <int... Row>
    EFFINFER_ALWAYS_INLINE void end(const row_product_args& a, std::ptrdiff_t row,
                                    std::integer_sequence<int, Row...>) const {
      ((a.y[row + Row] = finish<Set>(sum[Row], a.bias, row + Row)), ...);
    }
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const row_product_args& a) {
    std::ptrdiff_t row = a.begin;
    for (; row + 4 <= a.end; row += 4) tile<Set, 4>().run(a, row);
    for (; row < a.end; ++row) tile<Set, 1>().run(a, row);
  }
};

}  // namespace effinfer::inline v0::quantization::detail
