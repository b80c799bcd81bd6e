#pragma once
// Products of float formats, panel by panel as in integer_product.hpp: y[t][n] = sum over columns of w[n][c] x[t][c], ascending.
// A step is one column of sixteen rows (F32, F16) or two (BF16).
//
// BF16 on AMX: tiled_product.hpp. AVX512-BF16 and NEON's BF16 multiply pairs of bf16 and add them in f32, at twice the rate of f32, so there activations are
// rounded to bf16 (relative error 2^-9 each); other sets widen the weights and compute in f32.

#include <effinfer/quantization/cpu/integer_sums.hpp>
#include <effinfer/quantization/cpu/panel.hpp>

#include <type_traits>

namespace effinfer::inline v0::quantization::detail {

#if EFFINFER_X86
inline EFFINFER_TARGET_AVX512_BF16 void add_pairs(f32x16<instruction_set::avx512>& sum,
                                                  const code_group<instruction_set::avx512_bf16>& w,
                                                  const activation_lanes<instruction_set::avx512_bf16>& x) {
  sum.lanes.v = _mm512_dpbf16_ps(sum.lanes.v, (__m512bh) reinterpret_cast<__m512i>(w.part[0]),
                                 (__m512bh) reinterpret_cast<__m512i>(x.v));
}
/// sum += w x as one instruction that changes `sum` where it is: of intrinsics g++ would begin columns ahead until it is out of
/// registers, or (at -O3) put sums where weights were and move them back, 208 instructions for 96 of these.
inline EFFINFER_TARGET_AVX2 void add_in_place(execution::detail::f32_register<instruction_set::avx2, 8>& sum,
                                              const execution::detail::f32_register<instruction_set::avx2, 8>& w,
                                              const execution::detail::f32_register<instruction_set::avx2, 8>& x) {
  __asm__("vfmadd231ps {%2, %1, %0|%0, %1, %2}" : "+x"(sum.v) : "x"(w.v), "x"(x.v));
}
template <class Half>
EFFINFER_ALWAYS_INLINE void add_in_place(execution::detail::f32_pair<Half>& sum,
                                         const execution::detail::f32_pair<Half>& w,
                                         const execution::detail::f32_pair<Half>& x) {
  add_in_place(sum.low, w.low, x.low), add_in_place(sum.high, w.high, x.high);
}
#elif EFFINFER_ARM64
// Volatile as in integer_sums.hpp.
inline EFFINFER_TARGET_NEON_BF16 void add_pairs(execution::detail::f32x4_memory& sum, const bytes_of<16>& w,
                                                const float& x) {
  __asm__ volatile("bfdot %0.4s, %1.8h, %2.2h[0]" : "+w"(sum) : "w"(w), "w"(x));
}
inline EFFINFER_TARGET_NEON_BF16 void add_pairs(f32x16<instruction_set::neon>& sum,
                                                const code_group<instruction_set::neon_bf16>& w,
                                                const activation_lanes<instruction_set::neon_bf16>& x) {
  add_pairs(sum.lanes.low.low.v, w.part[0], x.v), add_pairs(sum.lanes.low.high.v, w.part[1], x.v);
  add_pairs(sum.lanes.high.low.v, w.part[2], x.v), add_pairs(sum.lanes.high.high.v, w.part[3], x.v);
}
#endif

struct no_dot_products {};
struct bf16_dot_products {
  static constexpr bool uses_bf16_dot_products = true;
};

template <class Format>
struct float_product : std::conditional_t<Format::name == weight_format::bf16, bf16_dot_products, no_dot_products> {
  static constexpr bool is_bf16 = Format::name == weight_format::bf16;
  static constexpr int columns_a_step = is_bf16 ? 2 : 1;
  static constexpr int bytes_a_step = Format::bytes_a_column * columns_a_step * rows_a_half;

  struct args : panel_args {
    const float* x;  ///< [tokens, columns], x_stride apart
    std::ptrdiff_t x_stride;
    const bf16* x_halves;  ///< see prepared_activations
  };

  /// Column `Column` of a step of sixteen rows.
  template <instruction_set Base, int Column>
  static EFFINFER_ALWAYS_INLINE void load_column(const std::byte* p, f32x16<Base>& w) {
    if constexpr (Format::name == weight_format::f32) {
      w = f32x16<Base>::load(reinterpret_cast<const float*>(p));
    } else if constexpr (Format::name == weight_format::f16) {
      w = f32x16<Base>::load(reinterpret_cast<const f16*>(p));
    } else {
      load_bf16<Column>(p, w.lanes, rows_a_half);
    }
  }
  /// A pair lies in 32 bits, the first column in the low half: one column's bits to the upper half of a float.
  template <int Column, execution::instruction_set S, int Lanes>
  static EFFINFER_ALWAYS_INLINE void load_bf16(const std::byte* p, execution::detail::f32_register<S, Lanes>& v, int) {
    using words = typename execution::detail::lanes_of<std::uint32_t, Lanes>::type;
    words pairs = *reinterpret_cast<const typename execution::detail::lanes_of<std::uint32_t, Lanes>::unaligned*>(p);
    if constexpr (Column == 0) {
      pairs <<= 16;
    } else {
      pairs &= 0xffff0000u;
    }
    v.v = reinterpret_cast<typename execution::detail::lanes_of<float, Lanes>::type>(pairs);
  }
  template <int Column, class Half>
  static EFFINFER_ALWAYS_INLINE void load_bf16(const std::byte* p, execution::detail::f32_pair<Half>& v, int size) {
    load_bf16<Column>(p, v.low, size / 2);
    load_bf16<Column>(p + size * 2, v.high, size / 2);
  }

  /// Halves x Tokens vectors of outputs.
  template <instruction_set Set, int Halves, int Tokens>
  struct tile {
    static constexpr instruction_set base = execution::base_of(Set);
    using vector = f32x16<base>;
    static constexpr std::make_integer_sequence<int, Halves> halves{};
    static constexpr std::make_integer_sequence<int, Tokens> tokens{};
    static constexpr std::make_integer_sequence<int, Halves * Tokens> all{};
    vector sum[Halves * Tokens];

    /// Not defaulted: `tile()` would be zeros first, which g++ -O3 writes.
    EFFINFER_ALWAYS_INLINE tile() {}  // NOLINT(modernize-use-equals-default)
    EFFINFER_ALWAYS_INLINE void run(const args& a, panel_piece& piece, int first_half, std::ptrdiff_t token) {
      const std::ptrdiff_t first = piece.first_slab * slab_columns;
      std::ptrdiff_t left = std::min(a.w->columns, piece.last_slab * slab_columns) - first;
      const std::byte* w = a.w->panel(a.panel) + (first / columns_a_step * 2 + first_half) * bytes_a_step;
      coming_weights next = piece.next;
      begin(piece, first_half, token, all);
      if constexpr (execution::has_bf16_dot_products(Set)) {
        const auto* x = reinterpret_cast<const std::int8_t*>(a.x_halves) +
                        (piece.first_slab * a.tokens + token) * bytes_a_half_slab;
        for (; left > 0; left -= slab_columns) {
          const std::ptrdiff_t steps = (std::min(left, slab_columns) + 1) / 2;
          for (std::ptrdiff_t i = 0; i < steps; ++i, w += 2 * bytes_a_step) {
            next.lanes > 0 ? next.step() : fetch_ahead<Set, bytes_a_step * Halves>(a.ahead, w);
            pair_step(w, x + i * 4, halves, tokens);
          }
          x += a.tokens * bytes_a_half_slab;
        }
      } else {
        const float* x = a.x + token * a.x_stride + first;
        constexpr std::make_integer_sequence<int, columns_a_turn / columns_a_step> turn{};
        for (; left >= columns_a_turn; left -= columns_a_turn, x += columns_a_turn) {
          next.step();
          steps(w, x, a, next.lanes == 0, turn);
          w += turn.size() * 2 * bytes_a_step;
        }
        for (; left >= columns_a_step; left -= columns_a_step, w += 2 * bytes_a_step, x += columns_a_step)
          one_step(w, x, a.x_stride);
        if (left > 0) step<0>(w, x, a.x_stride, halves, tokens);
      }
      piece.next = next;
      end(a, piece, first_half, token, all);
    }
    /// Columns [first, first + columns) of both halves, from a copy of their weights in f32: [columns, 32].
    EFFINFER_ALWAYS_INLINE void run_copy(const args& a, panel_piece& piece, std::ptrdiff_t token, std::ptrdiff_t first,
                                         std::ptrdiff_t columns, const float* copy) {
      const float* x = a.x + token * a.x_stride + first;
      const std::ptrdiff_t coming = piece.coming_tokens * a.x_stride + piece.coming_columns;
      coming_weights next = piece.next;
      begin(piece, 0, token, all);
      for (; columns >= columns_a_copied_step; columns -= columns_a_copied_step) {
        next.step();
        fetch_activations(x + coming, a.x_stride, tokens);
        copied_columns(copy, x, a.x_stride, std::make_integer_sequence<int, columns_a_copied_step>());
        copy += columns_a_copied_step * rows_a_panel, x += columns_a_copied_step;
      }
      for (; columns > 0; --columns, copy += rows_a_panel, ++x) copied_column(copy, x, a.x_stride, tokens, halves);
      piece.next = next;
      end(a, piece, 0, token, all);
    }

   private:
    static constexpr std::ptrdiff_t bytes_a_half_slab = slab_columns * 2;

    template <int... I>
    EFFINFER_ALWAYS_INLINE void begin(const panel_piece& piece, int first_half, std::ptrdiff_t token,
                                      std::integer_sequence<int, I...>) {
      (begin_rows<base>(piece, first_half + I / Tokens, token + I % Tokens, sum[I]), ...);
    }
    template <int... Half, int... Token>
    EFFINFER_ALWAYS_INLINE void pair_step(const std::byte* p, const std::int8_t* x, std::integer_sequence<int, Half...>,
                                          std::integer_sequence<int, Token...>) {
      code_group<Set> w[Halves];
      (w[Half].load(p + Half * bytes_a_step, as_they_are()), ...);
      (multiply_pairs<Token>(x + Token * bytes_a_half_slab, w, halves), ...);
    }
    template <int Token, int... Half>
    EFFINFER_ALWAYS_INLINE void multiply_pairs(const std::int8_t* p, const code_group<Set> (&w)[Halves],
                                               std::integer_sequence<int, Half...>) {
      activation_lanes<Set> x;
      x.load(p);
      (add_pairs(sum[Half * Tokens + Token], w[Half], x), ...);
    }
    template <int... Step>
    EFFINFER_ALWAYS_INLINE void steps(const std::byte* w, const float* x, const args& a, bool fetches,
                                      std::integer_sequence<int, Step...>) {
      (a_step(w + Step * 2 * bytes_a_step, x + Step * columns_a_step, a, fetches), ...);
    }
    EFFINFER_ALWAYS_INLINE void a_step(const std::byte* w, const float* x, const args& a, bool fetches) {
      if constexpr (Tokens <= few<Set>) {
        if (fetches) fetch_ahead<Set, bytes_a_step * Halves>(a.ahead, w);
      }
      one_step(w, x, a.x_stride);
    }
    EFFINFER_ALWAYS_INLINE void one_step(const std::byte* w, const float* x, std::ptrdiff_t stride) {
      step<0>(w, x, stride, halves, tokens);
      if constexpr (is_bf16) step<1>(w, x + 1, stride, halves, tokens);
    }
    /// Column `Column` of a step.
    template <int Column, int... Half, int... Token>
    EFFINFER_ALWAYS_INLINE void step(const std::byte* p, const float* x, std::ptrdiff_t stride,
                                     std::integer_sequence<int, Half...>, std::integer_sequence<int, Token...>) {
      vector w[Halves];
      (load_column<base, Column>(p + Half * bytes_a_step, w[Half]), ...);
      (multiply<Token>(x[Token * stride], w, halves), ...);
    }
    template <int... Token>
    static EFFINFER_ALWAYS_INLINE void fetch_activations(const float* x, std::ptrdiff_t stride,
                                                         std::integer_sequence<int, Token...>) {
      (__builtin_prefetch(x + Token * stride, 0, 2), ...);
    }
    template <int... Column>
    EFFINFER_ALWAYS_INLINE void copied_columns(const float* copy, const float* x, std::ptrdiff_t stride,
                                               std::integer_sequence<int, Column...>) {
      (copied_column(copy + Column * rows_a_panel, x + Column, stride, tokens, halves), ...);
    }
    /// Register by register: the sums and the values of three tokens leave one for weights.
    using eight_lanes = execution::detail::f32_register<base, 8>;
    template <int... Token, int... Half>
    EFFINFER_ALWAYS_INLINE void copied_column(const float* copy, const float* x, std::ptrdiff_t stride,
                                              std::integer_sequence<int, Token...>,
                                              std::integer_sequence<int, Half...>) {
      eight_lanes values[Tokens];
      (values[Token].set(x[Token * stride]), ...);
      (multiply_copied<Half>(copy + Half * rows_a_half, values, tokens), ...);
    }
    template <int Half, int... Token>
    EFFINFER_ALWAYS_INLINE void multiply_copied(const float* copy, const eight_lanes (&x)[Tokens],
                                                std::integer_sequence<int, Token...>) {
      eight_lanes w;
      w.load(copy);
      (add_product(sum[Half * Tokens + Token].lanes.low, w, x[Token]), ...);
      w.load(copy + eight_lanes::size);
      (add_product(sum[Half * Tokens + Token].lanes.high, w, x[Token]), ...);
    }
    template <int Token, int... Half>
    EFFINFER_ALWAYS_INLINE void multiply(float value, const vector (&w)[Halves], std::integer_sequence<int, Half...>) {
      const vector x = vector::broadcast(value);
      (add_product(sum[Half * Tokens + Token].lanes, w[Half].lanes, x.lanes), ...);
    }
    template <class Register>
    static EFFINFER_ALWAYS_INLINE void add_product(Register& to, const Register& w, const Register& x) {
#if EFFINFER_X86
      if constexpr (Set == instruction_set::avx2) return add_in_place(to, w, x);
#endif
      to.fma(w, x);
    }
    template <int... I>
    EFFINFER_ALWAYS_INLINE void end(const args& a, const panel_piece& piece, int first_half, std::ptrdiff_t token,
                                    std::integer_sequence<int, I...>) const {
      if (piece.ends) {
        (write_rows<base>(a, first_half + I / Tokens, token + I % Tokens, sum[I]), ...);
      } else {
        (keep_rows<base>(piece, first_half + I / Tokens, token + I % Tokens, sum[I]), ...);
      }
    }
  };

  /// Tokens that go over a panel once, fetching their own weights ahead.
  template <instruction_set Set>
  static constexpr std::ptrdiff_t few = execution::base_of(Set) == instruction_set::avx512 ? 12
                                        : execution::base_of(Set) == instruction_set::neon ? 6
                                                                                           : 2;
  /// Whether so many tokens meet a copy of the weights in f32, made for all of them, of some columns of both halves at a time. g++ takes
  /// 1.7 instructions a multiplication for three tokens with that, 2.1 for six with one half of BF16 that is widened for them.
  template <instruction_set Set>
  static constexpr bool copies_for(std::ptrdiff_t tokens) {
    return Set == instruction_set::avx2 && tokens >= 24;
  }
  static constexpr std::ptrdiff_t columns_a_copy = 128, columns_a_copied_step = 16;
  /// Of columns multiplied in f32 from the panel: what the loop takes is a quarter of its instructions with one.
  static constexpr int columns_a_turn = 4;

  template <instruction_set Set>
  struct panel {
    static constexpr bool pairs_panels = false;
    static std::ptrdiff_t bytes_in_cache(const args&, std::ptrdiff_t bytes_a_slab) { return bytes_a_slab; }
    static constexpr std::ptrdiff_t steps(std::ptrdiff_t tokens) {
      constexpr std::ptrdiff_t a_pass =
          slab_columns / (execution::has_bf16_dot_products(Set) ? columns_a_step : columns_a_turn);
      if (copies_for<Set>(tokens)) return (tokens / 3 + (tokens % 3 + 1) / 2) * (slab_columns / columns_a_copied_step);
      if (execution::base_of(Set) == instruction_set::avx512) return (tokens + 11) / 12 * a_pass;
      if (Set == instruction_set::portable) return (tokens + tokens % 2) * a_pass;
      return (tokens / 6 * 2 + (tokens % 6 + 1) / 2) * a_pass;
    }
    EFFINFER_ALWAYS_INLINE void operator()(const args& a, panel_piece& p) const {
      std::ptrdiff_t token = p.first_token;
      const std::ptrdiff_t last = token + p.tokens;
      if constexpr (execution::has_bf16_dot_products(Set) && execution::base_of(Set) == instruction_set::avx512) {
        // Up to six tokens wait for the same latency of the sums as one: a tile for each number costs one pass, not two or three.
        for (; token + 12 <= last; token += 12) tile<Set, 2, 12>().run(a, p, 0, token);
        rest(a, p, token, last - token, std::integer_sequence<int, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11>());
      } else if constexpr (execution::base_of(Set) == instruction_set::avx512) {
        for (; token + 12 <= last; token += 12) tile<Set, 2, 12>().run(a, p, 0, token);
        for (; token + 4 <= last; token += 4) tile<Set, 2, 4>().run(a, p, 0, token);
        if (token + 2 <= last) tile<Set, 2, 2>().run(a, p, 0, token), token += 2;
        if (token < last) tile<Set, 2, 1>().run(a, p, 0, token);
      } else if constexpr (Set == instruction_set::avx2) {
        if (copies_for<Set>(p.tokens)) return meet_copy(a, p);
        for (; token + 6 <= last; token += 6) {
          for (int half = 0; half < 2; ++half) tile<Set, 1, 6>().run(a, p, half, token);
        }
        for (; token + 2 <= last; token += 2) tile<Set, 2, 2>().run(a, p, 0, token);
        if (token < last) tile<Set, 2, 1>().run(a, p, 0, token);
      } else if constexpr (execution::base_of(Set) == instruction_set::neon) {
        constexpr int most = is_bf16 && Set == instruction_set::neon ? 5 : 6;  // widening takes registers
        for (; token + most <= last; token += most) {
          for (int half = 0; half < 2; ++half) tile<Set, 1, most>().run(a, p, half, token);
        }
        for (; token + 2 <= last; token += 2) tile<Set, 2, 2>().run(a, p, 0, token);
        if (token < last) tile<Set, 2, 1>().run(a, p, 0, token);
      } else {
        for (; token + 2 <= last; token += 2) {
          for (int half = 0; half < 2; ++half) tile<Set, 1, 2>().run(a, p, half, token);
        }
        if (token < last) {
          for (int half = 0; half < 2; ++half) tile<Set, 1, 1>().run(a, p, half, token);
        }
      }
    }
    /// All tokens, of which there are more than one.
    EFFINFER_ALWAYS_INLINE void meet_copy(const args& a, panel_piece& p) const {
      alignas(64) float copy[columns_a_copy * rows_a_panel];
      const std::ptrdiff_t past = std::min(a.w->columns, p.last_slab * slab_columns);
      const bool ends = p.ends;
      std::ptrdiff_t first = p.first_slab * slab_columns;
      do {
        const std::ptrdiff_t columns = std::min(past - first, columns_a_copy);
        widen(a.w->panel(a.panel) + first / columns_a_step * 2 * bytes_a_step, columns, &copy[0]);
        p.ends = ends && first + columns == past;
        std::ptrdiff_t token = p.first_token, left = p.tokens;
        for (; left > 4 || left == 3; token += 3, left -= 3)
          tile<Set, 2, 3>().run_copy(a, p, token, first, columns, &copy[0]);
        for (; left > 0; token += 2, left -= 2) tile<Set, 2, 2>().run_copy(a, p, token, first, columns, &copy[0]);
        p.begins = false;
        first += columns;
      } while (first < past);
    }
    EFFINFER_ALWAYS_INLINE static void widen(const std::byte* from, std::ptrdiff_t columns, float* to) {
      for (; columns > 0; columns -= columns_a_step, from += 2 * bytes_a_step) {
        widen_column<0>(from, to), to += rows_a_panel;
        if constexpr (is_bf16) widen_column<1>(from, to), to += rows_a_panel;
      }
    }
    template <int Column>
    EFFINFER_ALWAYS_INLINE static void widen_column(const std::byte* from, float* to) {
      f32x16<Set> first_half, second_half;
      load_column<Set, Column>(from, first_half);
      load_column<Set, Column>(from + bytes_a_step, second_half);
      first_half.store(to), second_half.store(to + rows_a_half);
    }
    template <int... Tokens>
    EFFINFER_ALWAYS_INLINE void rest(const args& a, panel_piece& p, std::ptrdiff_t token, std::ptrdiff_t count,
                                     std::integer_sequence<int, Tokens...>) const {
      ((count == Tokens ? tile<Set, 2, Tokens>().run(a, p, 0, token) : void()), ...);
    }
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    for_pieces(a, few<Set>, slab_columns / columns_a_step * 2 * bytes_a_step,
               execution::has_bf16_dot_products(Set) ? 2 : 4, panel<Set>());
  }
};

}  // namespace effinfer::inline v0::quantization::detail
