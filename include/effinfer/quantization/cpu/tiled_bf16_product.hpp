#pragma once
// Products of BF16 weights on AMX, with any number of tokens: 32 rows of weights with up to 32 tokens at a time, in four tiles of
// sums, for each 32 columns. A panel's pairs of columns lie as a tile takes them. (One token occupies the tiles' unit as long
// as sixteen, 16 cycles for 1 KiB of weights: less than memory needs to deliver that.)
//
// An output is the same additions in the same order in whatever tile it falls. Columns go in steps of 32, the last filled up with
// zeros; see execution/tile_registers.hpp for the order within a step.

#include <effinfer/execution/tile_registers.hpp>
#include <effinfer/quantization/cpu/panel.hpp>

#if EFFINFER_X86
namespace effinfer::inline v0::quantization::detail {

struct tiled_bf16_product {
  using vector = f32x16<instruction_set::avx512>;
  static constexpr int columns_a_step = 32;
  static constexpr int bytes_a_pair = 2 * 64, bytes_a_step = columns_a_step / 2 * bytes_a_pair;
  static constexpr int bytes_a_token = slab_columns * 2, sums_stride = rows_a_panel * 4;

  struct args : panel_args {
    const bf16* x;  ///< see prepared_activations::halves
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    int shaped_for = 0;
    for_pieces(a, 32, slab_columns / 2 * bytes_a_pair, 2, panel{&shaped_for});
    execution::tiles::release();
  }

  struct panel {
    int* shaped_for;  ///< tokens
    EFFINFER_ALWAYS_INLINE void operator()(const args& a, const panel_piece& p) const {
      for (std::ptrdiff_t token = 0; token < p.tokens; token += 32) {
        const int tokens = static_cast<int>(std::min<std::ptrdiff_t>(p.tokens - token, 32));
        if (tokens != *shaped_for) shape(tokens), *shaped_for = tokens;
        float* sums = p.sums + token * rows_a_panel;
        if (tokens > 16) {
          multiply<2>(a, p, token, sums);
        } else {
          multiply<1>(a, p, token, sums);
        }
        if (!p.ends) continue;
        for (std::ptrdiff_t t = 0; t < tokens; ++t) {
          const float* of_token = sums + t * rows_a_panel;
          write_rows<instruction_set::avx512>(a, 0, p.first_token + token + t, vector::load(of_token));
          write_rows<instruction_set::avx512>(a, 1, p.first_token + token + t, vector::load(of_token + rows_a_half));
        }
      }
    }
  };

 private:
  /// Tiles 0 and 1 for the sums of the first sixteen tokens, 2 and 3 for those of the others; 4 and 5 for the tokens, 6 and
  /// 7 for weights.
  static EFFINFER_ALWAYS_INLINE void shape(int tokens) {
    execution::tiles::shapes shapes;
    for (int i = 0; i < 6; ++i) {
      const int rows = i == 2 || i == 3 || i == 5 ? tokens - 16 : tokens;
      shapes.set(i, std::clamp(rows, 1, 16), 64);
    }
    shapes.set(6, 16, 64), shapes.set(7, 16, 64);
    execution::tiles::configure(shapes);
  }

  /// `Sixteens` times sixteen tokens, the last maybe fewer.
  template <int Sixteens>
  static EFFINFER_ALWAYS_INLINE void multiply(const args& a, const panel_piece& p, std::ptrdiff_t token, float* sums) {
    namespace tiles = execution::tiles;
    float* second = sums + 16 * rows_a_panel;
    if (p.begins) {
      tiles::zero<0>(), tiles::zero<1>();
      if constexpr (Sixteens > 1) tiles::zero<2>(), tiles::zero<3>();
    } else {
      tiles::load<0, sums_stride>(sums), tiles::load<1, sums_stride>(sums + rows_a_half);
      if constexpr (Sixteens > 1)
        tiles::load<2, sums_stride>(second), tiles::load<3, sums_stride>(second + rows_a_half);
    }
    const std::ptrdiff_t first = p.first_slab * slab_columns;
    const std::byte* w = a.w->panel(a.panel) + first / 2 * bytes_a_pair;
    const bf16* x = a.x + (p.first_slab * a.tokens + p.first_token + token) * slab_columns;
    std::ptrdiff_t left = std::min(a.w->columns, p.last_slab * slab_columns) - first;
    for (; left > 0; left -= slab_columns, x += a.tokens * slab_columns) {
      const std::ptrdiff_t columns = std::min(left, slab_columns);
      std::ptrdiff_t c = 0;
      for (; c + columns_a_step <= columns; c += columns_a_step, w += bytes_a_step) {
        if (a.asked_tokens <= 32) fetch_ahead<bytes_a_step>(w);
        add_step<Sixteens>(w, x + c);
      }
      if (c == columns) continue;
      alignas(64) std::byte rest[bytes_a_step] = {};
      __builtin_memcpy(rest, w, static_cast<std::size_t>((columns - c + 1) / 2 * bytes_a_pair));
      add_step<Sixteens>(&rest[0], x + c);
    }
    tiles::store<0, sums_stride>(sums), tiles::store<1, sums_stride>(sums + rows_a_half);
    if constexpr (Sixteens > 1)
      tiles::store<2, sums_stride>(second), tiles::store<3, sums_stride>(second + rows_a_half);
  }

  template <int Sixteens>
  static EFFINFER_ALWAYS_INLINE void add_step(const std::byte* w, const bf16* x) {
    namespace tiles = execution::tiles;
    tiles::load<4, bytes_a_token>(x);
    tiles::load<6, bytes_a_pair>(w);
    tiles::add_bf16_products<0, 4, 6>();
    tiles::load<7, bytes_a_pair>(w + 64);
    tiles::add_bf16_products<1, 4, 7>();
    if constexpr (Sixteens > 1) {
      tiles::load<5, bytes_a_token>(x + 16 * slab_columns);
      tiles::add_bf16_products<2, 5, 6>();
      tiles::add_bf16_products<3, 5, 7>();
    }
  }
};

}  // namespace effinfer::inline v0::quantization::detail
#endif
