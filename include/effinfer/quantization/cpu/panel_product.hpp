#pragma once
// Products of many tokens: a panel of up to four weight rows, unpacked once, with up to 32 tokens. No format is known here.
//
// Exact: each output is summed in sixteen lanes over ascending columns and its lanes are added in a fixed order, the same
// in whatever tile of rows and tokens it falls, and the same as in cpu/row_product.hpp.

#include <effinfer/quantization/cpu/byte_dot.hpp>
#include <effinfer/quantization/cpu/panel.hpp>

#include <utility>

namespace effinfer::inline v0::quantization::detail {

inline constexpr int panel_rows = 4;
inline constexpr int panel_tokens = 32;

/// What both products write. A sum that spans several panels waits in `sums` between them.
struct product_output {
  float* y;  ///< [tokens, rows], first row and token of this panel
  std::ptrdiff_t y_stride;
  const float* bias;  ///< [rows], or null
  float* sums;        ///< [panel_rows, panel_tokens, 16]
  bool first, last;   ///< of the panels that make up a row
};

template <instruction_set Set>
EFFINFER_ALWAYS_INLINE float finish(const f32x16<Set>& lanes, const float* bias, std::ptrdiff_t row) {
  return lanes.sum() + (bias != nullptr ? bias[row] : 0.0f);
}

/// Sums of Rows x Tokens outputs in registers. Index sequences and not loops: registers can't be indexed.
template <instruction_set Set, int Rows, int Tokens>
struct sum_tile {
  using vector = f32x16<Set>;
  vector sum[Rows][Tokens];

  template <int... I>
  EFFINFER_ALWAYS_INLINE void begin(const product_output& out, int row, int token, std::integer_sequence<int, I...>) {
    if (out.first) {
      ((sum[I / Tokens][I % Tokens] = vector::zero()), ...);
    } else {
      ((sum[I / Tokens][I % Tokens] = vector::load(place(out, row + I / Tokens, token + I % Tokens))), ...);
    }
  }
  template <int... I>
  EFFINFER_ALWAYS_INLINE void end(const product_output& out, int row, int token,
                                  std::integer_sequence<int, I...>) const {
    if (out.last) {
      ((out.y[(token + I % Tokens) * out.y_stride + row + I / Tokens] =
            finish<Set>(sum[I / Tokens][I % Tokens], out.bias, row + I / Tokens)),
       ...);
    } else {
      (sum[I / Tokens][I % Tokens].store(place(out, row + I / Tokens, token + I % Tokens)), ...);
    }
  }

 private:
  static EFFINFER_ALWAYS_INLINE float* place(const product_output& out, int row, int token) {
    return out.sums + (row * panel_tokens + token) * 16;
  }
};

/// Covers rows x tokens with tiles of Rows x Tokens, the rest with thinner ones. Tiles by the number of registers: 32
/// under AVX-512, sixteen half as wide under AVX2.
template <template <instruction_set, int, int> class Tile, instruction_set Set, class Args>
EFFINFER_ALWAYS_INLINE void cover(const Args& a) {
  constexpr int side = Set == instruction_set::avx512 ? 4 : 2;
  int row = 0;
  for (; row + side <= a.rows; row += side) {
    int token = 0;
    for (; token + side <= a.tokens; token += side) Tile<Set, side, side>().run(a, row, token);
    for (; token < a.tokens; ++token) Tile<Set, side, 1>().run(a, row, token);
  }
  for (; row < a.rows; ++row) {
    for (int token = 0; token < a.tokens; ++token) Tile<Set, 1, 1>().run(a, row, token);
  }
}

struct float_product {
  struct args {
    const std::byte* w;  ///< float rows, `w_stride` bytes apart, at any alignment
    std::ptrdiff_t w_stride;
    const float* x;  ///< [tokens, columns], x_stride apart
    std::ptrdiff_t x_stride;
    int rows, tokens, columns;
    product_output out;
  };

  template <instruction_set Set, int Rows, int Tokens>
  struct tile : sum_tile<Set, Rows, Tokens> {
    using vector = f32x16<Set>;
    vector weight[Rows];

    EFFINFER_ALWAYS_INLINE void run(const args& a, int row, int token) {
      constexpr std::make_integer_sequence<int, Rows * Tokens> all{};
      constexpr std::make_integer_sequence<int, Rows> rows{};
      constexpr std::make_integer_sequence<int, Tokens> tokens{};
      this->begin(a.out, row, token, all);
      const std::ptrdiff_t w_stride = a.w_stride, x_stride = a.x_stride;
      const std::byte* w = a.w + row * w_stride;
      const float* x = a.x + token * x_stride;
      int left = a.columns;
      for (; left >= 16; left -= 16, w += 64, x += 16) step<true>(w, w_stride, x, x_stride, 16, rows, tokens);
      if (left > 0) step<false>(w, w_stride, x, x_stride, left, rows, tokens);
      this->end(a.out, row, token, all);
    }

   private:
    template <bool Whole, int... Row, int... Token>
    EFFINFER_ALWAYS_INLINE void step(const std::byte* w, std::ptrdiff_t w_stride, const float* x,
                                     std::ptrdiff_t x_stride, int count, std::integer_sequence<int, Row...> rows,
                                     std::integer_sequence<int, Token...>) {
      (load<Whole>(weight[Row], reinterpret_cast<const float*>(w + Row * w_stride), count), ...);
      (multiply<Whole, Token>(x + Token * x_stride, count, rows), ...);
    }
    template <bool Whole, int Token, int... Row>
    EFFINFER_ALWAYS_INLINE void multiply(const float* p, int count, std::integer_sequence<int, Row...>) {
      vector x;
      load<Whole>(x, p, count);
      ((this->sum[Row][Token] = fma(weight[Row], x, this->sum[Row][Token])), ...);
    }
    template <bool Whole>
    static EFFINFER_ALWAYS_INLINE void load(vector& v, const float* p, int count) {
      v = Whole ? vector::load(p) : vector::load_first(p, count);
    }
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    cover<tile, Set>(a);
  }
};

/// The sum gains code products times both scales: one rounding for the scales' product, one for the addition.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void add_product(f32x16<Set>& sum, const code_vector<Set>& w, const f32x16<Set>& w_scale,
                                        const activation_codes<Set>& x, const f32x16<Set>& x_scale) {
  f32x16<Set> product;
  dot<Set>(product, w, x);
  sum = fma(product, w_scale * x_scale, sum);
}

template <int ColumnsAScale>
struct integer_product {
  static constexpr std::ptrdiff_t code_stride = integer_panel_columns;
  static constexpr std::ptrdiff_t scale_stride = integer_panel_columns / ColumnsAScale;
  static constexpr std::ptrdiff_t minimum_stride = integer_panel_columns / 32;

  struct args {
    const std::int8_t* codes;  ///< panel rows, ready (byte_dot.hpp)
    const float* scales;
    const float* minimums;  ///< null where the format has none
    const std::int8_t* x;   ///< [tokens], x_stride apart
    const float* x_scales;  ///< x_stride / 32 apart
    const float* x_sums;
    std::ptrdiff_t x_stride;
    int code_offset;
    int rows, tokens;
    int columns;  ///< a multiple of 64; minimums and x_sums go on with zeros to the next multiple of 512
    product_output out;
  };

  template <instruction_set Set, int Rows, int Tokens>
  struct tile : sum_tile<Set, Rows, Tokens> {
    using vector = f32x16<Set>;
    code_vector<Set> weight[Rows];
    vector scale[Rows];

    EFFINFER_ALWAYS_INLINE void run(const args& a, int row, int token) {
      constexpr std::make_integer_sequence<int, Rows * Tokens> all{};
      constexpr std::make_integer_sequence<int, Rows> rows{};
      constexpr std::make_integer_sequence<int, Tokens> tokens{};
      this->begin(a.out, row, token, all);
      const std::ptrdiff_t stride = a.x_stride, scale_step = a.x_stride / 32;
      const int offset = a.code_offset;
      const std::int8_t *w = a.codes + row * code_stride, *x = a.x + token * stride;
      const float *w_scale = a.scales + row * scale_stride, *x_scale = a.x_scales + token * scale_step;
      for (int left = a.columns; left > 0; left -= 64, w += 64, x += 64, w_scale += 64 / ColumnsAScale, x_scale += 2) {
        step(w, w_scale, x, stride, x_scale, scale_step, offset, rows, tokens);
      }
      if (a.minimums != nullptr) {
        const float *m = a.minimums + row * minimum_stride, *x_sum = a.x_sums + token * scale_step;
        for (int left = a.columns; left > 0; left -= 512, m += 16, x_sum += 16) {
          add_minimums(m, x_sum, scale_step, rows, tokens);
        }
      }
      this->end(a.out, row, token, all);
    }

   private:
    template <int... Row, int... Token>
    EFFINFER_ALWAYS_INLINE void step(const std::int8_t* w, const float* w_scale, const std::int8_t* x,
                                     std::ptrdiff_t stride, const float* x_scale, std::ptrdiff_t scale_step, int offset,
                                     std::integer_sequence<int, Row...> rows, std::integer_sequence<int, Token...>) {
      (load_ready<Set>(weight[Row], w + Row * code_stride), ...);
      (spread_scales<Set, ColumnsAScale>(scale[Row], w_scale + Row * scale_stride), ...);
      (multiply<Token>(x + Token * stride, x_scale + Token * scale_step, offset, rows), ...);
    }
    template <int Token, int... Row>
    EFFINFER_ALWAYS_INLINE void multiply(const std::int8_t* p, const float* p_scale, int offset,
                                         std::integer_sequence<int, Row...>) {
      activation_codes<Set> x;
      x.load(p, offset);
      vector x_scale;
      spread_scales<Set, 32>(x_scale, p_scale);
      (add_product<Set>(this->sum[Row][Token], weight[Row], scale[Row], x, x_scale), ...);
    }
    template <int... Row, int... Token>
    EFFINFER_ALWAYS_INLINE void add_minimums(const float* m, const float* x_sum, std::ptrdiff_t scale_step,
                                             std::integer_sequence<int, Row...> rows,
                                             std::integer_sequence<int, Token...>) {
      ((scale[Row] = vector::load(m + Row * minimum_stride)), ...);
      (add_minimum<Token>(x_sum + Token * scale_step, rows), ...);
    }
    template <int Token, int... Row>
    EFFINFER_ALWAYS_INLINE void add_minimum(const float* p, std::integer_sequence<int, Row...>) {
      const vector x = vector::load(p);
      ((this->sum[Row][Token] = fma(scale[Row], x, this->sum[Row][Token])), ...);
    }
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    cover<tile, Set>(a);
  }
};

/// Rows of w into a panel of codes.
template <class Format>
struct unpack_integers {
  struct args {
    const weight_matrix* w;
    std::ptrdiff_t row;
    int rows, first, columns;
    std::int8_t* codes;
    float* scales;
    float* minimums;
  };
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using product = integer_product<Format::columns_a_scale>;
    constexpr std::make_integer_sequence<int, Format::columns_a_unit / 64> chunks{};
    for (int r = 0; r < a.rows; ++r) {
      Format::template load_scales<Set>(
          *a.w, a.row + r, a.first, a.columns,
          {a.scales + r * product::scale_stride, a.minimums + r * product::minimum_stride});
      const std::byte* unit = a.w->row(a.row + r) + Format::unit_offset(a.first);
      std::int8_t* codes = a.codes + r * product::code_stride;
      for (int left = a.columns; left > 0; left -= Format::columns_a_unit, codes += Format::columns_a_unit) {
        unpack_unit<Set>(unit, left, codes, chunks);
        unit += Format::unit_offset(Format::columns_a_unit);
      }
    }
  }

 private:
  template <instruction_set Set, int... Chunk>
  static EFFINFER_ALWAYS_INLINE void unpack_unit(const std::byte* unit, int left, std::int8_t* codes,
                                                 std::integer_sequence<int, Chunk...>) {
    (unpack_chunk<Set, Chunk>(unit, left, codes + Chunk * 64), ...);
  }
  template <instruction_set Set, int Chunk>
  static EFFINFER_ALWAYS_INLINE void unpack_chunk(const std::byte* unit, int left, std::int8_t* codes) {
    code_vector<Set> v;
    Format::template load_codes<Set, Chunk>(unit, left, v);
    make_ready<Set, Format::code_offset>(v);
    store_ready<Set>(codes, v);
  }
};

/// Rows of w into a panel of floats.
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
      const std::byte* p = a.w->row(a.row + r) + Format::unit_offset(a.first);
      float* out = a.panel + r * float_panel_columns;
      for (int left = a.columns; left > 0; left -= 16, p += Format::unit_offset(16), out += 16) {
        f32x16<Set> v;
        Format::template load<Set>(p, left, v);
        v.store(out);
      }
    }
  }
};

}  // namespace effinfer::inline v0::quantization::detail
