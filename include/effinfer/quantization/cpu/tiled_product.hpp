#pragma once
// Products on AMX, of weights and activations as bf16: 32 rows of weights with up to 32 tokens at a time, in four tiles of sums, for
// each 32 columns. BF16 weights with any number of tokens: a panel's pairs of columns lie as a tile takes them. (One token
// occupies the tiles' unit as long as sixteen, 16 cycles for 1 KiB of weights: less than memory needs to deliver that.) Weights of
// integer formats with the many tokens of a prompt: a slab of a panel is decoded (slab_decoder.hpp) beside the products of the
// slab before, and meets tokens_a_turn tokens before the next.
//
// An output is the same additions in the same order in whatever tile it falls: from zero, or from y where the product adds to
// it, columns in steps of 32, the last filled up with zeros; see execution/tile_registers.hpp for the order within a step.

#include <effinfer/execution/tile_registers.hpp>
#include <effinfer/quantization/cpu/panel.hpp>
#include <effinfer/quantization/cpu/slab_decoder.hpp>

#include <algorithm>

namespace effinfer::inline v0::quantization::detail {

/// Tokens that a panel meets at a time, and slabs of their columns: together less than half of the second-level cache (2 MiB on all
/// processors with AMX), past which the panels stream from further away.
inline constexpr std::ptrdiff_t tokens_a_turn = 192, slabs_a_turn = 8;

#if EFFINFER_X86
/// What is done beside the products of a chunk of slabs, a bit at each step, as they leave the vector unit free.
template <class Format, bool IsFloat = Format::is_float>
struct upcoming_weights {  // of BF16: the next chunk is fetched into the second-level cache
  static constexpr int lines_a_step = 6;
  const std::byte* lines;
  EFFINFER_ALWAYS_INLINE void step() {
    for (int i = 0; i < lines_a_step; ++i, lines += 64) __builtin_prefetch(lines, 0, 2);
  }
};
template <class Format>
struct upcoming_weights<Format, false> {  // the next slab is decoded, and the one after it fetched
  using decoder = slab_decoder<Format>;
  static constexpr int lines_a_step = 3;
  const packed_matrix* w;
  std::ptrdiff_t panel, slab;  ///< the slab to decode
  std::byte* decoded;
  int part, steps_done, steps;
  const std::byte* lines;
  EFFINFER_ALWAYS_INLINE void step() {
    for (int i = 0; i < lines_a_step; ++i, lines += 64) __builtin_prefetch(lines, 0, 2);
    decode_to(decoder::parts * ++steps_done / steps);
  }
  EFFINFER_ALWAYS_INLINE void decode_to(int end) {
    for (; part < end; ++part) decoder::decode(*w, panel, slab, part, decoded);
  }
};

template <class Format>
struct tiled_product {
  using vector = f32x16<instruction_set::avx512>;
  static constexpr int columns_a_step = 32;
  static constexpr int bytes_a_step = columns_a_step / 2 * bytes_a_pair;
  static constexpr int bytes_a_token = slab_columns * 2, sums_stride = rows_a_panel * 4;

  struct args : panel_args {
    const bf16* x;  ///< see prepared_activations::halves
    std::ptrdiff_t first_slab, last_slab;
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    int shaped_for = 0;  // tokens
    args one = a;
    for (int i = 0; i < a.panels; ++i, ++one.panel, one.y += rows_a_panel) {
      for (std::ptrdiff_t token = 0; token < a.asked_tokens; token += tokens_a_turn)
        multiply_panel(one, token, std::min(tokens_a_turn, a.asked_tokens - token), shaped_for);
    }
    execution::tiles::release();
  }

 private:
  static EFFINFER_ALWAYS_INLINE void multiply_panel(const args& a, std::ptrdiff_t token, std::ptrdiff_t tokens,
                                                    int& shaped_for) {
    alignas(64) float sums[tokens_a_turn * rows_a_panel];
    alignas(64) std::byte decoded[Format::is_float ? 1 : 2][Format::is_float ? 64 : bytes_a_bf16_slab];
    const bool goes_on = a.first_slab > 0 || a.adds, ends = a.last_slab >= slabs_of(a.w->columns);
    // The weights of a chunk stay in the first-level cache while the tokens pass by.
    const std::ptrdiff_t chunk = !Format::is_float ? 1 : tokens > 32 ? 2 : std::max<std::ptrdiff_t>(a.last_slab, 1);
    std::ptrdiff_t slab = a.first_slab;
    if constexpr (!Format::is_float) {
      if (slab < a.last_slab) upcoming(a, slab, tokens, &decoded[slab % 2][0]).decode_to(slab_decoder<Format>::parts);
    }
    do {  // once even where there are no columns: the outputs are the bias then
      const std::ptrdiff_t stop = std::min(slab + chunk, a.last_slab);
      const std::byte* w = nullptr;
      if constexpr (Format::is_float) {
        w = a.w->panel(a.panel) + slab * bytes_a_bf16_slab;
      } else {
        w = &decoded[slab % 2][0];
      }
      auto next = upcoming(a, stop, tokens, &decoded[Format::is_float ? 0 : stop % 2][0]);
      for (std::ptrdiff_t t = 0; t < tokens; t += 32) {
        const int some = static_cast<int>(std::min<std::ptrdiff_t>(tokens - t, 32));
        if (some != shaped_for) shape(some), shaped_for = some;
        const piece p{w, a.x + (slab * a.tokens + a.first_token + token + t) * slab_columns,
                      std::min(a.w->columns, stop * slab_columns) - slab * slab_columns, &sums[t * rows_a_panel],
                      slab > a.first_slab || goes_on};
        for (int i = 0; goes_on && slab == a.first_slab && i < some; ++i)
          read_row(a, token + t + i, p.sums + i * rows_a_panel);
        if (tokens > 32) {
          some > 16 ? multiply<2, false>(a, p, next) : multiply<1, false>(a, p, next);
        } else {
          some > 16 ? multiply<2, true>(a, p, next) : multiply<1, true>(a, p, next);
        }
        // Not all tokens at once: what is stored here goes to memory beside the products of the next.
        for (int i = 0; stop == a.last_slab && i < some; ++i)
          write_row(a, token + t + i, ends, p.sums + i * rows_a_panel);
      }
      if constexpr (!Format::is_float) {
        if (stop < a.last_slab) next.decode_to(slab_decoder<Format>::parts);
      }
      slab = stop;
    } while (slab < a.last_slab);
  }

  /// What is to be done beside the products of the slabs before `slab`.
  static EFFINFER_ALWAYS_INLINE upcoming_weights<Format> upcoming(const args& a, std::ptrdiff_t slab,
                                                                  std::ptrdiff_t tokens, std::byte* decoded) {
    if constexpr (Format::is_float) {
      return {a.w->panel(a.panel) + slab * bytes_a_bf16_slab};
    } else {
      constexpr int steps = slab_columns / columns_a_step;
      const bool exists = slab < a.last_slab;
      return {a.w,
              a.panel,
              slab,
              decoded,
              exists ? 0 : slab_decoder<Format>::parts,
              0,
              static_cast<int>((tokens + 31) / 32) * steps,
              slab_decoder<Format>::packed(*a.w, a.panel, slab + 1)};
    }
  }

  static EFFINFER_ALWAYS_INLINE void read_row(const args& a, std::ptrdiff_t token, float* sums) {
    const std::ptrdiff_t left = a.w->rows - a.panel * rows_a_panel;
    const float* y = a.y + token * a.y_stride;
    for (int i = 0; i < rows_a_panel; i += rows_a_half) {
      const vector v = left - i >= rows_a_half ? vector::load(y + i)
                                               : vector::load_first(y + i, std::max<std::ptrdiff_t>(left - i, 0));
      v.store(sums + i);
    }
  }
  static EFFINFER_ALWAYS_INLINE void write_row(const args& a, std::ptrdiff_t token, bool ends, const float* sums) {
    const std::ptrdiff_t first_row = a.panel * rows_a_panel, left = a.w->rows - first_row;
    float* y = a.y + token * a.y_stride;
    for (int i = 0; i < rows_a_panel && i < left; i += rows_a_half) {
      vector v = vector::load(sums + i);
      if (left - i >= rows_a_half) {
        if (ends && a.bias != nullptr) v += vector::load(a.bias + first_row + i);
        v.store(y + i);
      } else {
        if (ends && a.bias != nullptr) v += vector::load_first(a.bias + first_row + i, left - i);
        v.store_first(y + i, left - i);
      }
    }
  }

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

  /// Some columns of a panel, and the tokens of a tile or two.
  struct piece {
    const std::byte* w;
    const bf16* x;
    std::ptrdiff_t columns;
    float* sums;
    bool goes_on;
  };

  /// `Sixteens` times sixteen tokens, the last maybe fewer. `Streams`: the weights come from memory and are read once.
  template <int Sixteens, bool Streams>
  static EFFINFER_ALWAYS_INLINE void multiply(const args& a, const piece& p, upcoming_weights<Format>& next) {
    namespace tiles = execution::tiles;
    float* second = p.sums + 16 * rows_a_panel;
    if (!p.goes_on) {
      tiles::zero<0>(), tiles::zero<1>();
      if constexpr (Sixteens > 1) tiles::zero<2>(), tiles::zero<3>();
    } else {
      tiles::load<0, sums_stride>(p.sums), tiles::load<1, sums_stride>(p.sums + rows_a_half);
      if constexpr (Sixteens > 1)
        tiles::load<2, sums_stride>(second), tiles::load<3, sums_stride>(second + rows_a_half);
    }
    const std::byte* w = p.w;
    const bf16* x = p.x;
    for (std::ptrdiff_t left = p.columns; left > 0; left -= slab_columns, x += a.tokens * slab_columns) {
      const std::ptrdiff_t columns = std::min(left, slab_columns);
      std::ptrdiff_t c = 0;
      // A decoded slab holds whole steps; a panel of BF16 ends with its last pair.
      for (; c + (Format::is_float ? columns_a_step : 1) <= columns; c += columns_a_step, w += bytes_a_step) {
        if constexpr (Streams && Format::is_float) {
          fetch_ahead<bytes_a_step>(a, w);
        } else {
          next.step();
        }
        add_step<Sixteens, Streams>(w, x + c);
      }
      if (!Format::is_float || c == columns) continue;
      alignas(64) std::byte rest[bytes_a_step] = {};
      __builtin_memcpy(rest, w, static_cast<std::size_t>((columns - c + 1) / 2 * bytes_a_pair));
      add_step<Sixteens, Streams>(&rest[0], x + c);
    }
    tiles::store<0, sums_stride>(p.sums), tiles::store<1, sums_stride>(p.sums + rows_a_half);
    if constexpr (Sixteens > 1)
      tiles::store<2, sums_stride>(second), tiles::store<3, sums_stride>(second + rows_a_half);
  }

  template <int Sixteens, bool Streams>
  static EFFINFER_ALWAYS_INLINE void add_step(const std::byte* w, const bf16* x) {
    namespace tiles = execution::tiles;
    load_tokens<4, Streams>(x);
    tiles::load<6, bytes_a_pair>(w);
    tiles::add_bf16_products<0, 4, 6>();
    tiles::load<7, bytes_a_pair>(w + 64);
    tiles::add_bf16_products<1, 4, 7>();
    if constexpr (Sixteens > 1) {
      load_tokens<5, Streams>(x + 16 * slab_columns);
      tiles::add_bf16_products<2, 5, 6>();
      tiles::add_bf16_products<3, 5, 7>();
    }
  }
  template <int Tile, bool Streams>
  static EFFINFER_ALWAYS_INLINE void load_tokens(const bf16* x) {
    if constexpr (Streams) {
      execution::tiles::load<Tile, bytes_a_token>(x);
    } else {
      execution::tiles::load_once<Tile, bytes_a_token>(x);
    }
  }
};
#endif

}  // namespace effinfer::inline v0::quantization::detail
