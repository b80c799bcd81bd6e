#pragma once
// How panels of weights meet their tokens. With more tokens than registers hold, a panel is taken in chunks of some slabs of
// columns that stay in the first-level cache while all tokens pass by; their sums wait in memory meanwhile. A few panels
// at a time go over some columns of the activations that fit the second-level cache. A sum is the same additions in
// the same order either way.

#include <effinfer/quantization/cpu/activations.hpp>
#include <effinfer/quantization/cpu/codes.hpp>
#include <effinfer/quantization/packed_matrix.hpp>

#include <algorithm>
#include <utility>

namespace effinfer::inline v0::quantization::detail {

using execution::f32x16;

/// Bytes that a stream of weights is fetched ahead: into the first-level cache, and into the second, which may await three times as
/// many lines (0: not into that).
struct fetch_distances {
  std::ptrdiff_t near, far;

  [[nodiscard]] EFFINFER_ALWAYS_INLINE fetch_distances longer_by(std::ptrdiff_t bytes) const {
    return {near + bytes, far == 0 ? 0 : far + bytes};
  }
  /// The same for a stream that after `left` more bytes leaves out the next `skipped`.
  [[nodiscard]] EFFINFER_ALWAYS_INLINE fetch_distances past(std::ptrdiff_t left, std::ptrdiff_t skipped) const {
    return {near < left ? near : near + skipped, far == 0 || far < left ? far : far + skipped};
  }
};

/// Whether fetch_distances::far can be other than 0 (see run_panels): on AMX's processors, whose other products are those of AVX-512.
template <instruction_set Set>
inline constexpr bool may_fetch_far = execution::base_of(Set) == instruction_set::avx512;

/// What every product of some panels is told.
struct panel_args {
  const packed_matrix* w;
  std::ptrdiff_t panel;                      ///< the first
  int panels;                                ///< at most panels_a_group
  std::ptrdiff_t tokens;                     ///< of the activations
  std::ptrdiff_t first_token, asked_tokens;  ///< those that are multiplied
  float* y;                                  ///< [asked_tokens, rows of the panels], y_stride apart
  std::ptrdiff_t y_stride;
  const float* bias;  ///< [rows of w], or null
  bool adds;          ///< to what stands in y
  fetch_distances ahead;
  /// Another panel, of the same format and shape, that goes along with this one where one token meets them (go_beside): two streams
  /// come from memory faster than one.
  const panel_args* beside;
};

/// Tokens that pass by a chunk of a panel: their sums take a quarter of the first-level cache.
inline constexpr std::ptrdiff_t tokens_a_block = 96;
inline constexpr int panels_a_group = 4;
/// What a chunk may take of the first-level cache.
inline constexpr std::ptrdiff_t bytes_a_chunk = 24 << 10;
/// What some panels, and the activations of a block of tokens that they meet, may each take of the second-level cache.
inline constexpr std::ptrdiff_t bytes_a_group = 256 << 10;

/// Weights on their way into the second-level cache, a few lines at each step of products of those before them. In each of
/// the lanes the processor's own prefetcher soon runs ahead, so that few lines are waited for.
struct coming_weights {
  const std::byte* line = nullptr;
  std::ptrdiff_t lanes = 0, bytes_a_lane = 0, steps = 0;

  /// `bytes` from p on, within so many steps.
  static EFFINFER_ALWAYS_INLINE coming_weights within(std::ptrdiff_t steps, const std::byte* p, std::ptrdiff_t bytes) {
    const std::ptrdiff_t lines = (bytes + 63) / 64, lanes = (lines + steps - 1) / std::max<std::ptrdiff_t>(steps, 1);
    const std::ptrdiff_t of_a_lane = lanes > 0 ? (lines + lanes - 1) / lanes : 0;
    return {p, lanes, of_a_lane * 64, of_a_lane};
  }
  EFFINFER_ALWAYS_INLINE void step() {
    if (--steps < 0) return;
    const std::byte* p = line;
    for (std::ptrdiff_t i = 0; i < lanes; ++i, p += bytes_a_lane) __builtin_prefetch(p, 0, 2);
    line += 64;
  }
};

/// Some tokens and some slabs of a panel: what a product does in one go.
struct panel_piece {
  std::ptrdiff_t first_token, tokens;
  std::ptrdiff_t first_slab, last_slab;
  float* sums;  ///< [tokens, 32]: unfinished, unless these slabs are the first, and again unless they are the last
  bool begins, ends;
  coming_weights next;  ///< where the piece is gone over several times; else its own weights are fetched ahead
  /// To the activations that come behind all panels' turn, in the last panel's; before that 0, to themselves.
  std::ptrdiff_t coming_tokens, coming_columns;
};

/// Fetches lines of what is to come of a stream that is at p.
template <instruction_set Set, int... Line>
EFFINFER_ALWAYS_INLINE void fetch_lines(fetch_distances ahead, const std::byte* p,
                                        std::integer_sequence<int, Line...>) {
  (__builtin_prefetch(p + ahead.near + Line * 64), ...);  // no loop: at -O2 it would stay one, a tenth of a step's time
  if constexpr (may_fetch_far<Set>) {
    if (ahead.far > 0) (__builtin_prefetch(p + ahead.far + Line * 64, 0, 2), ...);
  }
}
/// Part `Part` of `Parts` of the lines of a step that takes `Bytes` at p. (Measured: all at once, between two steps, makes one token up to
/// 10 % slower, sixteen of BF16 15 %.)
template <instruction_set Set, int Bytes, int Part = 0, int Parts = 1>
EFFINFER_ALWAYS_INLINE void fetch_ahead(fetch_distances ahead, const std::byte* p) {
  constexpr int lines = (Bytes + 63) / 64, first = lines * Part / Parts, past = lines * (Part + 1) / Parts;
  fetch_lines<Set>(ahead, p + first * 64, std::make_integer_sequence<int, past - first>());
}

/// `run(panel, piece)` for all of some panels, whose slabs take `bytes_a_slab`; `bytes_a_column` is what an activation
/// takes. Up to `few` tokens go over a panel once (one where `run.pairs_panels` over two at a time); more go over each chunk
/// several times, by `run.steps(tokens)` steps for each of its slabs, of which `run.bytes_in_cache(a, bytes_a_slab)` stay in the
/// cache.
template <class Args, class Run>
EFFINFER_ALWAYS_INLINE void for_pieces(const Args& a, std::ptrdiff_t few, std::ptrdiff_t bytes_a_slab,
                                       std::ptrdiff_t bytes_a_column, const Run& run) {
  alignas(64) float sums[panels_a_group * tokens_a_block * rows_a_panel];
  const std::ptrdiff_t slabs = slabs_of(a.w->columns), last = a.first_token + a.asked_tokens;
  const bool at_once = a.asked_tokens <= few;
  const int together = run.pairs_panels && a.asked_tokens == 1 && a.beside == nullptr ? 2 : 1;
  const std::ptrdiff_t chunk =
      at_once ? slabs : std::max<std::ptrdiff_t>(bytes_a_chunk / run.bytes_in_cache(a, bytes_a_slab), 1);
  const std::ptrdiff_t chunks = bytes_a_group / (tokens_a_block * slab_columns * bytes_a_column * chunk);
  const std::ptrdiff_t turn = at_once || a.panels == 1 ? slabs : std::max<std::ptrdiff_t>(chunks, 1) * chunk;
  for (std::ptrdiff_t token = a.first_token; token < last; token += tokens_a_block) {
    const std::ptrdiff_t tokens = std::min(tokens_a_block, last - token);
    std::ptrdiff_t first = 0;
    do {  // once even where there are no columns: the outputs are the bias then
      const std::ptrdiff_t end = std::min(first + turn, slabs);
      Args one = a;
      for (int i = 0; i < a.panels; i += together, one.panel += together, one.y += together * rows_a_panel) {
        panel_args following = one;
        ++following.panel, following.y += rows_a_panel;
        if (together > 1) one.beside = i + together <= a.panels ? &following : nullptr;
        std::ptrdiff_t slab = first;
        do {
          const std::ptrdiff_t stop = std::min(slab + chunk, end);
          panel_piece piece{token,     tokens,        slab, stop, sums + i * tokens_a_block * rows_a_panel,
                            slab == 0, stop == slabs, {},   0,    0};
          if (i + together >= a.panels) {
            piece.coming_tokens = end < slabs                     ? 0
                                  : token + tokens_a_block < last ? tokens_a_block
                                                                  : a.first_token - token;
            piece.coming_columns = (end < slabs ? end - first : -first) * slab_columns;
          }
          if (!at_once) {
            // Where this turn of the panel ends, the next panel's begins.
            const std::byte* const coming = a.w->panel(one.panel + (stop < end ? 0 : 1)) + a.w->panel_head +
                                            (stop < end ? stop : first) * bytes_a_slab;
            piece.next = coming_weights::within(run.steps(tokens) * (stop - slab), coming, chunk * bytes_a_slab);
          }
          run(one, piece);
          slab = stop;
        } while (slab < end);
      }
      first = end;
    } while (first < slabs);
  }
}

/// Sixteen sums of one token at the beginning of a piece.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void begin_rows(const panel_piece& piece, int half, std::ptrdiff_t token, f32x16<Set>& sum) {
  if (piece.begins) {
    sum = f32x16<Set>::zero();
  } else {
    sum = f32x16<Set>::load(piece.sums + (token - piece.first_token) * rows_a_panel + half * rows_a_half);
  }
}

/// ... and at its end, if the panel isn't done.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void keep_rows(const panel_piece& piece, int half, std::ptrdiff_t token,
                                      const f32x16<Set>& sum) {
  sum.store(piece.sums + (token - piece.first_token) * rows_a_panel + half * rows_a_half);
}

/// Writes sixteen outputs of one token: those beyond the last row are left alone.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void write_rows(const panel_args& a, int half, std::ptrdiff_t token, f32x16<Set> sum) {
  const std::ptrdiff_t first_row = a.panel * rows_a_panel + half * rows_a_half, left = a.w->rows - first_row;
  if (left <= 0) return;
  float* y = a.y + (token - a.first_token) * a.y_stride + half * rows_a_half;
  if (left >= rows_a_half) {
    if (a.bias != nullptr) sum += f32x16<Set>::load(a.bias + first_row);
    if (a.adds) sum = f32x16<Set>::load(y) + sum;
    sum.store(y);
  } else {
    if (a.bias != nullptr) sum += f32x16<Set>::load_first(a.bias + first_row, left);
    if (a.adds) sum = f32x16<Set>::load_first(y, left) + sum;
    sum.store_first(y, left);
  }
}

}  // namespace effinfer::inline v0::quantization::detail
