#pragma once
// Products of integer formats: one panel of weights with up to six tokens at a time, from one row (decode) to prefill. Sixteen
// outputs lie in a register, so an output is summed alone, block by block in ascending columns: the same bits in
// whatever tile it falls.
//
//   y[t][n] = sum over blocks of scale[n] x_scale[t] (sum of codes' products) + minimum[n] x_sum[t]
//
// What bounds it: one token, memory (a panel is one ascending stream, fetched ahead); many tokens, the byte products,
// beside which a block's scales cost two multiplications for every eight of them.

#include <effinfer/quantization/cpu/integer_sums.hpp>
#include <effinfer/quantization/cpu/scales.hpp>
#include <effinfer/quantization/packed_matrix.hpp>

#include <utility>

namespace effinfer::inline v0::quantization::detail {

using execution::f32x16;

/// What every product of a panel is told.
struct panel_args {
  const packed_matrix* w;
  std::ptrdiff_t panel;
  std::ptrdiff_t tokens;
  float* y;  ///< [tokens, rows of w], y_stride apart
  std::ptrdiff_t y_stride;
  const float* bias;  ///< [rows of w], or null
};

/// Fetches what is to come of a stream: `Bytes` a step, some four kilobytes ahead, about what is on its way from memory
/// at full rate.
template <int Bytes>
EFFINFER_ALWAYS_INLINE void fetch_ahead(const std::byte* p) {
  constexpr int ahead = 4096;
  for (int i = 0; i < Bytes; i += 64) __builtin_prefetch(p + ahead + i);
}

/// Writes sixteen outputs of one token: those beyond the last row are left alone.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void write_rows(const panel_args& a, std::ptrdiff_t first_row, std::ptrdiff_t token,
                                       f32x16<Set> sum) {
  const std::ptrdiff_t left = a.w->rows - first_row;
  if (left <= 0) return;
  float* y = a.y + token * a.y_stride + first_row;
  if (left >= rows_a_half) {
    if (a.bias != nullptr) sum += f32x16<Set>::load(a.bias + first_row);
    sum.store(y);
  } else {
    if (a.bias != nullptr) sum += f32x16<Set>::load_first(a.bias + first_row, left);
    sum.store_first(y, left);
  }
}

template <class Format>
struct integer_product {
  static constexpr bool uses_avx_vnni = true;
  using codes = typename Format::codes;
  using scales = typename Format::scales;
  static constexpr int blocks_a_unit = scales::columns_a_unit / 32;

  struct args : panel_args {
    const std::int8_t* x;  ///< [tokens], x_stride apart; a multiple of 256, zeros beyond the columns
    std::ptrdiff_t x_stride;
    const float* x_scales;         ///< one for each 32 columns
    const float* x_sums;           ///< of a block's activations, likewise
    const std::int32_t* x_counts;  ///< of a block's codes, one for each scales::columns_a_scale columns
  };

  /// Halves x Tokens vectors of outputs. Index sequences and not loops: registers can't be indexed.
  template <instruction_set Set, int Halves, int Tokens>
  struct tile {
    static constexpr instruction_set base = execution::base_of(Set);
    using vector = f32x16<base>;
    static constexpr int parts = 32 / scales::columns_a_scale, groups_a_part = 8 / parts;
    static constexpr std::make_integer_sequence<int, Halves> halves{};
    static constexpr std::make_integer_sequence<int, Tokens> tokens{};
    static constexpr std::make_integer_sequence<int, Halves * Tokens> all{};
    vector sum[Halves * Tokens];
    integer_sums<Set> part[Halves * Tokens];

    EFFINFER_ALWAYS_INLINE void run(const args& a, int first_half, std::ptrdiff_t token) {
      const packed_matrix& w = *a.w;
      const int group = Format::scale_columns(w);
      const std::ptrdiff_t unit_bytes = w.unit_bytes, blocks = a.x_stride / 32, units = w.units;
      const int scale_bytes = scales::bytes_a_unit(group);
      const std::byte* unit = w.panel(a.panel) + w.panel_head + first_half * unit_bytes;
      const std::int8_t* x = a.x + token * a.x_stride;
      const float *x_scales = a.x_scales + token * blocks, *x_sums = a.x_sums + token * blocks;
      const std::int32_t* x_counts = a.x_counts + token * blocks * parts;
      begin(all);
      for (std::ptrdiff_t u = 0; u < units; ++u) {
        for (int b = 0; b < blocks_a_unit; ++b) {
          const std::byte* block = unit + scale_bytes + b * codes::bytes_a_block;
          fetch_ahead<codes::bytes_a_block * Halves>(block);
          if constexpr (parts == 1) {
            add_part<0>(unit, unit_bytes, block, b, group, x, a.x_stride, x_scales, x_sums, x_counts, blocks);
          } else {
            add_part<0>(unit, unit_bytes, block, 2 * b, group, x, a.x_stride, x_scales, x_sums, x_counts, 2 * blocks);
            add_part<1>(unit, unit_bytes, block, 2 * b + 1, group, x, a.x_stride, x_scales, x_sums, x_counts + 1,
                        2 * blocks);
          }
          x += 32, ++x_scales, ++x_sums, x_counts += parts;
        }
        unit += 2 * unit_bytes;
      }
      end(a, first_half, token, all);
    }

   private:
    template <int... I>
    EFFINFER_ALWAYS_INLINE void begin(std::integer_sequence<int, I...>) {
      ((sum[I] = vector::zero()), ...);
    }
    /// Part `Part` of a block: the columns of one scale.
    template <int Part>
    EFFINFER_ALWAYS_INLINE void add_part(const std::byte* unit, std::ptrdiff_t unit_bytes, const std::byte* block,
                                         int part_of_unit, int group, const std::int8_t* x, std::ptrdiff_t x_stride,
                                         const float* x_scales, const float* x_sums, const std::int32_t* x_counts,
                                         std::ptrdiff_t counts_stride) {
      const std::ptrdiff_t blocks = x_stride / 32;
      start(x_counts, counts_stride, tokens);
      groups<Part * groups_a_part>(block, unit_bytes, x, x_stride, std::make_integer_sequence<int, groups_a_part>());
      scale(unit, unit_bytes, part_of_unit, group, x_scales, x_sums, blocks, halves);
    }
    template <int... Token>
    EFFINFER_ALWAYS_INLINE void start(const std::int32_t* counts, std::ptrdiff_t stride,
                                      std::integer_sequence<int, Token...>) {
      (start_token<Token>(counts + Token * stride, halves), ...);
    }
    template <int Token, int... Half>
    EFFINFER_ALWAYS_INLINE void start_token(const std::int32_t* count, std::integer_sequence<int, Half...>) {
      const std::int32_t first = unsigned_codes<Set> ? -Format::code_offset * *count : 0;
      part[Token].set(first);
      ((Half > 0 ? (void)(part[Half * Tokens + Token] = part[Token]) : (void)0), ...);
    }
    template <int First, int... Group>
    EFFINFER_ALWAYS_INLINE void groups(const std::byte* block, std::ptrdiff_t unit_bytes, const std::int8_t* x,
                                       std::ptrdiff_t x_stride, std::integer_sequence<int, Group...>) {
      (group_step<First + Group>(block, unit_bytes, x + (First + Group) * 4, x_stride, halves, tokens), ...);
    }
    template <int Group, int... Half, int... Token>
    EFFINFER_ALWAYS_INLINE void group_step(const std::byte* block, std::ptrdiff_t unit_bytes, const std::int8_t* x,
                                           std::ptrdiff_t x_stride, std::integer_sequence<int, Half...>,
                                           std::integer_sequence<int, Token...>) {
      code_group<Set> w[Halves];
      (load_group<Group>(block + Half * unit_bytes, w[Half]), ...);
      (multiply<Token>(x + Token * x_stride, w, halves), ...);
    }
    template <int Group>
    static EFFINFER_ALWAYS_INLINE void load_group(const std::byte* block, code_group<Set>& w) {
      codes::template load<Set, Group>(block, w);
      if constexpr (!unsigned_codes<Set> && Format::code_offset != 0) {
        constexpr auto offset = static_cast<std::uint8_t>(Format::code_offset);
        for (int r = 0; r < code_group<Set>::registers; ++r) w.part[r] -= offset;
      }
    }
    template <int Token, int... Half>
    EFFINFER_ALWAYS_INLINE void multiply(const std::int8_t* p, const code_group<Set> (&w)[Halves],
                                         std::integer_sequence<int, Half...>) {
      activation_lanes<Set> x;
      x.load(p);
      (part[Half * Tokens + Token].add(w[Half], x), ...);
    }
    template <int... Half>
    EFFINFER_ALWAYS_INLINE void scale(const std::byte* unit, std::ptrdiff_t unit_bytes, int part_of_unit, int group,
                                      const float* x_scales, const float* x_sums, std::ptrdiff_t blocks,
                                      std::integer_sequence<int, Half...>) {
      (scale_half<Half>(unit + Half * unit_bytes, part_of_unit, group, x_scales, x_sums, blocks, tokens), ...);
    }
    template <int Half, int... Token>
    EFFINFER_ALWAYS_INLINE void scale_half(const std::byte* unit, int part_of_unit, int group, const float* x_scales,
                                           const float* x_sums, std::ptrdiff_t blocks,
                                           std::integer_sequence<int, Token...>) {
      vector w_scale, minimum;
      if constexpr (!scales::in_row) scales::template load<base>(unit, part_of_unit, group, w_scale, minimum);
      (scale_one<Half * Tokens + Token>(w_scale, minimum, x_scales[Token * blocks], x_sums + Token * blocks), ...);
    }
    template <int I>
    EFFINFER_ALWAYS_INLINE void scale_one(const vector& w_scale, const vector& minimum, float x_scale,
                                          const float* x_sum) {
      vector product;
      part[I].to_floats(product);
      if constexpr (scales::in_row) {
        sum[I] = fma(product, vector::broadcast(x_scale), sum[I]);
      } else {
        sum[I] = fma(product, w_scale * vector::broadcast(x_scale), sum[I]);
      }
      if constexpr (scales::has_minimum) sum[I] = fma(minimum, vector::broadcast(*x_sum), sum[I]);
    }
    template <int... I>
    EFFINFER_ALWAYS_INLINE void end(const args& a, int first_half, std::ptrdiff_t token,
                                    std::integer_sequence<int, I...>) {
      const auto* head = reinterpret_cast<const float*>(a.w->panel(a.panel));
      (end_one(a, head, first_half + I / Tokens, token + I % Tokens, sum[I]), ...);
    }
    static EFFINFER_ALWAYS_INLINE void end_one(const args& a, const float* head, int half, std::ptrdiff_t token,
                                               const vector& sum) {
      const std::ptrdiff_t row = a.panel * rows_a_panel + half * rows_a_half;
      if constexpr (scales::in_row) {
        write_rows<base>(a, row, token, sum * vector::load(head + half * rows_a_half));
      } else {
        write_rows<base>(a, row, token, sum);
      }
    }
  };

  // Tiles by the number of registers: 32 under AVX-512; sixteen half as wide under AVX2.
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    std::ptrdiff_t token = 0;
    if constexpr (Set == instruction_set::avx512) {
      for (; token + 6 <= a.tokens; token += 6) tile<Set, 2, 6>().run(a, 0, token);
      if (token + 4 <= a.tokens) tile<Set, 2, 4>().run(a, 0, token), token += 4;
      if (token + 2 <= a.tokens) tile<Set, 2, 2>().run(a, 0, token), token += 2;
      if (token < a.tokens) tile<Set, 2, 1>().run(a, 0, token);
    } else if constexpr (execution::base_of(Set) == instruction_set::avx2) {
      for (int half = 0; half < 2; ++half) {
        for (token = 0; token + 2 <= a.tokens; token += 2) tile<Set, 1, 2>().run(a, half, token);
      }
      if (token < a.tokens) tile<Set, 2, 1>().run(a, 0, token);
    } else {
      for (; token < a.tokens; ++token) {
        for (int half = 0; half < 2; ++half) tile<Set, 1, 1>().run(a, half, token);
      }
    }
  }
};

}  // namespace effinfer::inline v0::quantization::detail
