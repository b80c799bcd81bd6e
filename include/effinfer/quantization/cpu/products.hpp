#pragma once
// The two products: a panel of up to four weight rows with a few tokens, one for float panels and one for
// integer panels (cpu/panel.hpp). No format is known here.
//
// Exact: each output is summed in sixteen lanes over ascending columns and its lanes are added in a fixed order, the same
// in whatever tile of rows and tokens it falls.

#include <effinfer/quantization/cpu/byte_dot.hpp>

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

/// Where the weights of the panel after this one lie: they are on their way from memory while this one is computed.
struct prefetch_plan {
  const std::byte* start = nullptr;
  std::ptrdiff_t row_bytes = 0;
  std::ptrdiff_t step_bytes = 0;  ///< what a step of this panel fetches of each row

  EFFINFER_ALWAYS_INLINE void fetch(int row, std::ptrdiff_t step) const {
    __builtin_prefetch(start + row * row_bytes + step * step_bytes);
  }
};

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
      (write(out, row + I / Tokens, token + I % Tokens, sum[I / Tokens][I % Tokens]), ...);
    } else {
      (sum[I / Tokens][I % Tokens].store(place(out, row + I / Tokens, token + I % Tokens)), ...);
    }
  }

 private:
  static EFFINFER_ALWAYS_INLINE float* place(const product_output& out, int row, int token) {
    return out.sums + (row * panel_tokens + token) * 16;
  }
  static EFFINFER_ALWAYS_INLINE void write(const product_output& out, int row, int token, const vector& v) {
    out.y[token * out.y_stride + row] = v.sum() + (out.bias != nullptr ? out.bias[row] : 0.0f);
  }
};

struct float_product {
  struct args {
    const std::byte* w;  ///< float rows, `w_stride` bytes apart, at any alignment
    std::ptrdiff_t w_stride;
    const float* x;
    std::ptrdiff_t x_stride;
    int rows, tokens, columns;
    product_output out;
    prefetch_plan next;
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a);
};

struct integer_product {
  struct args {
    const std::int8_t* codes;  ///< rows of the panel, integer_panel_columns apart
    const float* scales;
    const float* minimums;  ///< null where the format has none
    const std::int8_t* x;   ///< [tokens], x_stride apart
    const float* x_scales;  ///< x_stride / 32 apart
    const float* x_sums;
    std::ptrdiff_t x_stride;
    int rows, tokens;
    int columns;  ///< a multiple of 64; `minimums` and x_sums are zero up to the next multiple of 512
    product_output out;
    prefetch_plan next;
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a);
};

template <instruction_set Set, int Rows, int Tokens>
struct float_tile : sum_tile<Set, Rows, Tokens> {
  using vector = f32x16<Set>;
  using all_rows = std::make_integer_sequence<int, Rows>;
  using all_tokens = std::make_integer_sequence<int, Tokens>;
  using all = std::make_integer_sequence<int, Rows * Tokens>;
  vector weight[Rows];

  EFFINFER_ALWAYS_INLINE void run(const float_product::args& a, int row, int token) {
    this->begin(a.out, row, token, all{});
    int k = 0;
    for (; k + 16 <= a.columns; k += 16) step(a, row, token, k, 16, all_rows{}, all_tokens{});
    if (k < a.columns) step(a, row, token, k, a.columns - k, all_rows{}, all_tokens{});
    this->end(a.out, row, token, all{});
  }

 private:
  template <int... Row, int... Token>
  EFFINFER_ALWAYS_INLINE void step(const float_product::args& a, int row, int token, int k, int count,
                                   std::integer_sequence<int, Row...> rows, std::integer_sequence<int, Token...>) {
    if (token == 0) (a.next.fetch(row + Row, k / 16), ...);
    (load(weight[Row], reinterpret_cast<const float*>(a.w + (row + Row) * a.w_stride) + k, count), ...);
    (multiply<Token>(a.x + (token + Token) * a.x_stride + k, count, rows), ...);
  }
  template <int Token, int... Row>
  EFFINFER_ALWAYS_INLINE void multiply(const float* p, int count, std::integer_sequence<int, Row...>) {
    vector x;
    load(x, p, count);
    ((this->sum[Row][Token] = fma(weight[Row], x, this->sum[Row][Token])), ...);
  }
  static EFFINFER_ALWAYS_INLINE void load(vector& v, const float* p, int count) {
    v = count == 16 ? vector::load(p) : vector::load_first(p, count);
  }
};

template <instruction_set Set, int Rows, int Tokens>
struct integer_tile : sum_tile<Set, Rows, Tokens> {
  using vector = f32x16<Set>;
  using all_rows = std::make_integer_sequence<int, Rows>;
  using all_tokens = std::make_integer_sequence<int, Tokens>;
  using all = std::make_integer_sequence<int, Rows * Tokens>;
  weight_codes<Set> weight[Rows];
  vector scale[Rows];

  EFFINFER_ALWAYS_INLINE void run(const integer_product::args& a, int row, int token) {
    this->begin(a.out, row, token, all{});
    for (int k = 0; k < a.columns; k += 64) step(a, row, token, k, all_rows{}, all_tokens{});
    if (a.minimums != nullptr) {
      for (int k = 0; k < a.columns; k += 512) add_minimums(a, row, token, k / 32, all_rows{}, all_tokens{});
    }
    this->end(a.out, row, token, all{});
  }

 private:
  template <int... Row, int... Token>
  EFFINFER_ALWAYS_INLINE void step(const integer_product::args& a, int row, int token, int k,
                                   std::integer_sequence<int, Row...> rows, std::integer_sequence<int, Token...>) {
    if (token == 0) (a.next.fetch(row + Row, k / 64), ...);
    (weight[Row].load(a.codes + (row + Row) * integer_panel_columns + k), ...);
    (spread_4<Set>(scale[Row], a.scales + (row + Row) * (integer_panel_columns / 16) + k / 16), ...);
    (multiply<Token>(a.x + (token + Token) * a.x_stride + k, a.x_scales + (token + Token) * (a.x_stride / 32) + k / 32,
                     rows),
     ...);
  }
  template <int Token, int... Row>
  EFFINFER_ALWAYS_INLINE void multiply(const std::int8_t* p, const float* p_scale, std::integer_sequence<int, Row...>) {
    activation_codes<Set> x;
    x.load(p);
    vector x_scale;
    spread_2<Set>(x_scale, p_scale);
    (add_product(this->sum[Row][Token], weight[Row], scale[Row], x, x_scale), ...);
  }
  static EFFINFER_ALWAYS_INLINE void add_product(vector& sum, const weight_codes<Set>& w, const vector& w_scale,
                                                 const activation_codes<Set>& x, const vector& x_scale) {
    vector product;
    dot<Set>(product, w, x);
    sum = fma(product, w_scale * x_scale, sum);
  }

  template <int... Row, int... Token>
  EFFINFER_ALWAYS_INLINE void add_minimums(const integer_product::args& a, int row, int token, int block,
                                           std::integer_sequence<int, Row...> rows,
                                           std::integer_sequence<int, Token...>) {
    ((scale[Row] = vector::load(a.minimums + (row + Row) * (integer_panel_columns / 32) + block)), ...);
    (add_minimum<Token>(a.x_sums + (token + Token) * (a.x_stride / 32) + block, rows), ...);
  }
  template <int Token, int... Row>
  EFFINFER_ALWAYS_INLINE void add_minimum(const float* p, std::integer_sequence<int, Row...>) {
    const vector x = vector::load(p);
    ((this->sum[Row][Token] = fma(scale[Row], x, this->sum[Row][Token])), ...);
  }
};

/// Covers rows x tokens with tiles of Rows x Tokens, the rest with thinner ones.
template <template <instruction_set, int, int> class Tile, instruction_set Set, int Rows, int Tokens, class Args>
EFFINFER_ALWAYS_INLINE void cover(const Args& a) {
  int row = 0;
  for (; row + Rows <= a.rows; row += Rows) {
    int token = 0;
    for (; token + Tokens <= a.tokens; token += Tokens) Tile<Set, Rows, Tokens>().run(a, row, token);
    for (; token < a.tokens; ++token) Tile<Set, Rows, 1>().run(a, row, token);
  }
  for (; row < a.rows; ++row) {
    for (int token = 0; token < a.tokens; ++token) Tile<Set, 1, 1>().run(a, row, token);
  }
}

// Tiles by the number of registers: 32 under AVX-512, sixteen half as wide under AVX2.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void float_product::run(const args& a) {
  if constexpr (Set == instruction_set::avx512) {
    cover<float_tile, Set, 4, 4>(a);
  } else {
    cover<float_tile, Set, 2, 2>(a);
  }
}
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void integer_product::run(const args& a) {
  if constexpr (Set == instruction_set::avx512) {
    cover<integer_tile, Set, 4, 4>(a);
  } else {
    cover<integer_tile, Set, 2, 2>(a);
  }
}

}  // namespace effinfer::inline v0::quantization::detail
