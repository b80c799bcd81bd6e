#pragma once
// Products on AMX, of weights and activations as bf16: 32 rows of weights with up to 48 tokens at a time, in six tiles of sums, for
// each 32 columns. BF16 weights with any number of tokens: a panel's pairs of columns lie as a tile takes them. (One token
// occupies the tiles' unit as long as sixteen, 16 cycles for 1 KiB of weights: less than memory needs to deliver that.) Weights of
// integer formats with the many tokens of a prompt: a panel is decoded (slab_decoder.hpp) beside the products of the first tokens
// that meet it.
//
// What bounds it is not the tiles' unit: both operands come from the second-level cache by way of the sixteen lines that the
// first may await at a time. Six tiles of sums for five of operands ask for fewer lines than four for four, and a line from memory
// waits ten times as long as one from that cache: the next panel is fetched all along, by few lines at a time.
//
// An output is the same additions in the same order in whatever tile it falls: from zero, or from y where the product adds to
// it, columns in steps of 32, the last filled up with zeros; see execution/tile_registers.hpp for the order within a step.

#include <effinfer/execution/tile_registers.hpp>
#include <effinfer/quantization/cpu/panel.hpp>
#include <effinfer/quantization/cpu/slab_decoder.hpp>

#include <algorithm>
#include <utility>

namespace effinfer::inline v0::quantization::detail {

/// Tokens whose sums fit the tiles.
inline constexpr int most_tokens_together = 48;
/// What the activations of a turn may take of the second-level cache (2 MiB on all processors with AMX), and the slabs of
/// columns that a turn takes where an output can wait in memory for the next.
inline constexpr std::ptrdiff_t bytes_a_turn = 17 << 16, slabs_a_turn = 8, most_tokens_a_turn = 272;

/// Into how many tokens a turn `tokens` with so many columns are cut: turns of about one size, of whole tiles.
constexpr std::ptrdiff_t tokens_a_turn(std::ptrdiff_t tokens, std::ptrdiff_t columns) {
  const std::ptrdiff_t fit = bytes_a_turn / (2 * std::max<std::ptrdiff_t>(columns, 1));
  const std::ptrdiff_t most = std::clamp<std::ptrdiff_t>(fit, 96, most_tokens_a_turn);
  const std::ptrdiff_t turns = (tokens + most - 1) / most;
  return (tokens + 16 * turns - 1) / (16 * turns) * 16;
}

#if EFFINFER_X86
template <class Format>
struct tiled_product {
  using vector = f32x16<instruction_set::avx512>;
  static constexpr int columns_a_step = 32;
  static constexpr int bytes_a_step = columns_a_step / 2 * bytes_a_pair;
  static constexpr std::ptrdiff_t steps_a_slab = slab_columns / columns_a_step;

  struct args : panel_args {
    const bf16* x;  ///< see prepared_activations::halves
    std::ptrdiff_t first_slab, last_slab;
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    alignas(64) std::byte decoded[Format::is_float ? 64 : slabs_a_turn * bytes_a_bf16_slab];
    int shaped_for = 0;  // tokens
    args one = a;
    for (int i = 0; i < a.panels; ++i, ++one.panel, one.y += rows_a_panel) {
      one.first_slab = a.first_slab;
      do {  // once even where there are no columns: the outputs are the bias then
        // BF16 weights go on from memory as they are; others as many as are decoded at a time.
        one.last_slab = Format::is_float ? a.last_slab : std::min(one.first_slab + slabs_a_turn, a.last_slab);
        multiply_panel(one, &decoded[0], shaped_for);
        one.first_slab = one.last_slab;
      } while (one.first_slab < a.last_slab);
    }
    execution::tiles::release();
  }

 private:
  /// Of `left` tokens those that go together: 48 where there are enough, and no few left over if it can be helped.
  static EFFINFER_ALWAYS_INLINE int tokens_together(std::ptrdiff_t left) {
    if (left == most_tokens_together || left > 64) return most_tokens_together;
    return static_cast<int>(std::min<std::ptrdiff_t>(left, 32));
  }

  static EFFINFER_ALWAYS_INLINE void multiply_panel(const args& a, std::byte* decoded, int& shaped_for) {
    const std::ptrdiff_t tokens = a.asked_tokens, first_column = a.first_slab * slab_columns;
    const std::ptrdiff_t columns = std::min(a.w->columns, a.last_slab * slab_columns) - first_column;
    const std::ptrdiff_t steps = (columns + columns_a_step - 1) / columns_a_step;
    const bool goes_on = a.first_slab > 0 || a.adds, ends = a.last_slab >= slabs_of(a.w->columns);
    // Sums go from tiles to y and back. Where a bias comes on top, or y has fewer than 32 columns left, they are put down in between.
    const bool at_once = a.w->rows - a.panel * rows_a_panel >= rows_a_panel && !(ends && a.bias != nullptr);
    alignas(64) float kept[most_tokens_together * rows_a_panel];
    piece p{Format::is_float ? packed(a, a.panel) : decoded, decoded, columns, goes_on};
    const bool streams = tokens_together(tokens) == tokens;
    const std::ptrdiff_t passes = (tokens + most_tokens_together - 1) / most_tokens_together;
    coming_weights next = coming_weights::within(passes * steps, packed(a, a.panel + 1), packed_bytes(a));
    for (std::ptrdiff_t t = 0; t < tokens;) {
      const int some = tokens_together(tokens - t);
      if (some != shaped_for) shape(some), shaped_for = some;
      p.x = a.x + (a.first_token + t) * slabs_of(a.w->columns) * slab_columns;
      p.tokens_left = a.tokens - a.first_token - t;
      p.sums = at_once ? a.y + t * a.y_stride : &kept[0];
      p.stride = at_once ? a.y_stride * 4 : rows_a_panel * 4;
      for (int i = 0; !at_once && goes_on && i < some; ++i) read_row(a, t + i, p.sums + i * rows_a_panel);
      if constexpr (Format::is_float) {
        streams ? multiply_some<with::weights_from_memory>(a, p, some, next)
                : multiply_some<with::weights_at_hand>(a, p, some, next);
      } else {
        t == 0 ? multiply_some<with::decoding>(a, p, some, next)
               : multiply_some<with::weights_at_hand>(a, p, some, next);
      }
      for (int i = 0; !at_once && i < some; ++i) write_row(a, t + i, ends, p.sums + i * rows_a_panel);
      t += some;
    }
  }

  /// The packed slabs [first_slab, last_slab) of a panel.
  static EFFINFER_ALWAYS_INLINE const std::byte* packed(const args& a, std::ptrdiff_t panel) {
    if constexpr (Format::is_float) {
      return a.w->panel(panel) + a.first_slab * bytes_a_bf16_slab;
    } else {
      return slab_decoder<Format>::packed(*a.w, panel, a.first_slab);
    }
  }
  static EFFINFER_ALWAYS_INLINE std::ptrdiff_t packed_bytes(const args& a) {
    return a.w->panel_bytes * (a.last_slab - a.first_slab) / std::max<std::ptrdiff_t>(slabs_of(a.w->columns), 1);
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
    panel_args to = a;
    to.adds = false;  // the tiles began with what stood in y
    if (!ends) to.bias = nullptr;
    for (int half = 0; half < 2; ++half) {
      write_rows<instruction_set::avx512>(to, half, a.first_token + token, vector::load(sums + half * rows_a_half));
    }
  }

  /// Of 48 tokens: tiles 0 to 5 for the sums, two for each sixteen tokens; 6 for weights, 7 for tokens. Of up to 32: tiles 0 and 1 for
  /// the sums of the first sixteen, 2 and 3 for those of the others; 4 and 5 for the tokens, 6 and 7 for weights.
  static EFFINFER_ALWAYS_INLINE void shape(int tokens) {
    execution::tiles::shapes shapes;
    for (int i = 0; i < 6; ++i) {
      const int rows = tokens == most_tokens_together ? 16 : i == 2 || i == 3 || i == 5 ? tokens - 16 : tokens;
      shapes.set(i, std::clamp(rows, 1, 16), 64);
    }
    shapes.set(6, 16, 64), shapes.set(7, 16, 64);
    execution::tiles::configure(shapes);
  }

  /// Some columns of a panel, and the tokens that they meet.
  struct piece {
    const std::byte* w;
    std::byte* decoded;  ///< w, where that isn't as it is packed
    std::ptrdiff_t columns;
    bool goes_on;
    const bf16* x = nullptr;         ///< the first sixteen tokens, all their columns
    std::ptrdiff_t tokens_left = 0;  ///< from x on
    float* sums = nullptr;
    std::ptrdiff_t stride = 0;  ///< bytes
  };
  /// What is done beside the products.
  enum class with { weights_from_memory, weights_at_hand, decoding };

  template <with Beside>
  static EFFINFER_ALWAYS_INLINE void multiply_some(const args& a, const piece& p, int tokens, coming_weights& next) {
    if (tokens == most_tokens_together) {
      multiply<3, Beside>(a, p, next);
    } else if (tokens > 16) {
      multiply<2, Beside>(a, p, next);
    } else {
      multiply<1, Beside>(a, p, next);
    }
  }

  /// `Sixteens` times sixteen tokens, the last of up to two maybe fewer.
  template <int Sixteens, with Beside>
  static EFFINFER_ALWAYS_INLINE void multiply(const args& a, const piece& p, coming_weights& next) {
    start(p, std::make_integer_sequence<int, 2 * Sixteens>());
    const std::byte* w = p.w;
    const auto* x = reinterpret_cast<const std::byte*>(p.x);
    // The tiles of sixteen tokens lie one behind the other; those of the last tokens have fewer rows.
    const std::ptrdiff_t to_next = 16 * slabs_of(a.w->columns) * slab_columns * 2;
    const std::ptrdiff_t tile = std::min<std::ptrdiff_t>(p.tokens_left, 16) * 64;
    const std::ptrdiff_t second = std::clamp<std::ptrdiff_t>(p.tokens_left - 16, 0, 16) * 64;
    const std::ptrdiff_t first = a.first_slab * steps_a_slab;
    const std::byte *x1 = x + to_next + first * second, *x2 = x + 2 * to_next + first * tile;
    x += first * tile;
    decode<Beside>(a, 0, p);
    std::ptrdiff_t step = 0, columns = p.columns;
    // What is decoded is whole steps; a panel of BF16 ends with its last pair.
    for (; columns >= (Format::is_float ? columns_a_step : 1); columns -= columns_a_step, w += bytes_a_step) {
      if constexpr (Beside != with::weights_from_memory) next.step();
      decode<Beside>(a, ++step, p);
      add_step<Sixteens, Beside>(a, w, x, x1, x2);
      x += tile, x1 += second, x2 += tile;
    }
    if (Format::is_float && columns > 0) {
      alignas(64) std::byte rest[bytes_a_step] = {};
      __builtin_memcpy(rest, w, static_cast<std::size_t>((columns + 1) / 2 * bytes_a_pair));
      add_step<Sixteens, with::weights_at_hand>(a, &rest[0], x, x1, x2);
    }
    finish(p, std::make_integer_sequence<int, 2 * Sixteens>());
  }

  /// Decodes the weights of step `step` of a piece, if there is one.
  template <with Beside>
  static EFFINFER_ALWAYS_INLINE void decode(const args& a, std::ptrdiff_t step, const piece& p) {
    if constexpr (Beside == with::decoding) {
      if (step * columns_a_step >= p.columns) return;
      const std::ptrdiff_t slab = step / steps_a_slab;
      slab_decoder<Format>::decode(*a.w, a.panel, a.first_slab + slab, static_cast<int>(step % steps_a_slab),
                                   p.decoded + slab * bytes_a_bf16_slab);
    }
  }

  template <int Sixteens, with Beside>
  static EFFINFER_ALWAYS_INLINE void add_step(const args& a, const std::byte* w, const std::byte* x,
                                              const std::byte* x1, const std::byte* x2) {
    namespace tiles = execution::tiles;
    if constexpr (Sixteens == 3) {
      fetch<Beside, 0>(a, w), tiles::load<6, bytes_a_pair>(w);
      tiles::load<7, 64>(x), tiles::add_bf16_products<0, 7, 6>();
      tiles::load<7, 64>(x1), tiles::add_bf16_products<2, 7, 6>();
      tiles::load<7, 64>(x2), tiles::add_bf16_products<4, 7, 6>();
      fetch<Beside, 1>(a, w), tiles::load<6, bytes_a_pair>(w + 64);
      tiles::add_bf16_products<5, 7, 6>();
      tiles::load<7, 64>(x1), tiles::add_bf16_products<3, 7, 6>();
      tiles::load<7, 64>(x), tiles::add_bf16_products<1, 7, 6>();
    } else {
      tiles::load<4, 64>(x);
      fetch<Beside, 0>(a, w), tiles::load<6, bytes_a_pair>(w), tiles::add_bf16_products<0, 4, 6>();
      fetch<Beside, 1>(a, w), tiles::load<7, bytes_a_pair>(w + 64), tiles::add_bf16_products<1, 4, 7>();
      if constexpr (Sixteens == 2) {
        tiles::load<5, 64>(x1), tiles::add_bf16_products<2, 5, 6>();
        tiles::add_bf16_products<3, 5, 7>();
      }
    }
  }
  /// Half of a step's share of what is to come.
  template <with Beside, int Half>
  static EFFINFER_ALWAYS_INLINE void fetch(const args& a, const std::byte* w) {
    if constexpr (Beside == with::weights_from_memory)
      fetch_ahead<instruction_set::amx, bytes_a_step, Half, 2>(a.ahead, w);
  }

  /// Where tile `Tile` of the sums lies: two for each sixteen tokens.
  template <int Tile>
  static EFFINFER_ALWAYS_INLINE float* sums(const piece& p) {
    return p.sums + Tile / 2 * 4 * p.stride + Tile % 2 * rows_a_half;
  }
  template <int... Tile>
  static EFFINFER_ALWAYS_INLINE void start(const piece& p, std::integer_sequence<int, Tile...>) {
    if (p.goes_on) {
      (execution::tiles::load<Tile>(sums<Tile>(p), p.stride), ...);
    } else {
      (execution::tiles::zero<Tile>(), ...);
    }
  }
  template <int... Tile>
  static EFFINFER_ALWAYS_INLINE void finish(const piece& p, std::integer_sequence<int, Tile...>) {
    (execution::tiles::store<Tile>(sums<Tile>(p), p.stride), ...);
  }
};
#endif

}  // namespace effinfer::inline v0::quantization::detail
