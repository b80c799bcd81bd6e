#pragma once
// Products of integer formats: one panel of weights with up to six tokens at a time, from one row (decode) to prefill. Sixteen
// outputs lie in a register, so an output is summed alone, block by block in ascending columns: the same bits in
// whatever tile it falls.
//
//   y[t][n] = sum over blocks of scale[n] x_scale[t] (sum of codes' products) + minimum[n] x_sum[t]
//
// What bounds it: one token, memory (two panels, two ascending streams, fetched ahead); many tokens, the byte products,
// beside which a block's scales cost two multiplications for every eight of them.

#include <effinfer/quantization/cpu/integer_sums.hpp>
#include <effinfer/quantization/cpu/panel.hpp>
#include <effinfer/quantization/cpu/scales.hpp>

#include <algorithm>
#include <type_traits>
#include <utility>

namespace effinfer::inline v0::quantization::detail {

template <class Format>
struct integer_product {
  static constexpr bool uses_byte_dot_products = true;
  using codes = typename Format::codes;
  using scales = typename Format::scales;
  static constexpr int blocks_a_unit = scales::columns_a_unit / 32;
  static constexpr std::ptrdiff_t units_a_slab = slab_columns / scales::columns_a_unit;
  /// A block's share of its unit, scales included: what is fetched ahead at each.
  static constexpr int bytes_a_share = codes::bytes_a_block + scales::bytes_a_unit(32) / blocks_a_unit;

  struct args : panel_args {  // the activations: see prepared_activations
    const std::int8_t* x;
    const float* x_scales;
    const float* x_sums;
    const std::int32_t* x_counts;  ///< of scales::columns_a_scale columns each
  };

  /// Tokens that go over a panel once, fetching their own weights ahead.
  template <instruction_set Set>
  static constexpr int few = Set == instruction_set::avx512 ? 6 : 1;

  /// Whether many tokens meet a chunk's codes in bytes, which are taken apart once for all of them. (Under AVX-512, whose
  /// tiles have more tokens, it hasn't been measured.)
  template <instruction_set Set>
  static constexpr bool unpacks =
      !(Set == instruction_set::avx512 || Set == instruction_set::portable || std::is_same_v<codes, codes_8_bit>);

  /// Halves x Tokens vectors of outputs; halves 2 and 3 are those of a panel beside the first. Index sequences and not loops:
  /// registers can't be indexed. Codes are read from the panel, or (codes_in_bytes) from a copy.
  template <instruction_set Set, int Halves, int Tokens, class Codes = codes>
  struct tile {
    static constexpr bool from_copy = !std::is_same_v<Codes, codes>;
    static constexpr instruction_set base = execution::base_of(Set);
    using vector = f32x16<base>;
    static constexpr int halves_a_panel = std::min(Halves, 2);
    static constexpr int parts = 32 / scales::columns_a_scale, groups_a_part = 8 / parts;
    static constexpr std::make_integer_sequence<int, Halves> halves{};
    static constexpr std::make_integer_sequence<int, Tokens> tokens{};
    static constexpr std::make_integer_sequence<int, Halves * Tokens> all{};
    /// Groups that add up in 16 bits first (0: none do).
    static constexpr int together = std::min(steps_in_pair_sums<Set, codes>, groups_a_part);
    vector sum[Halves * Tokens];
    integer_sums<Set> part[Halves * Tokens];
    pair_sums pairs[together == 0 ? 1 : Halves * Tokens];
    bool streams;                       ///< its own weights are fetched ahead
    fetch_distances ahead;              ///< at a block: where the panel is about to end, of what its thread reads next
    const std::byte* share;             ///< those of a block, scales included
    std::ptrdiff_t unit_bytes, beside;  ///< from a half to the other, from a panel to the one beside it

    /// Not defaulted: `tile()` would be zeros first, which g++ -O3 writes, up to a tenth of a chunk's time.
    EFFINFER_ALWAYS_INLINE tile() {}  // NOLINT(modernize-use-equals-default)
    /// `copy`: of the piece's codes, block after block of a half, unit after unit of halves.
    EFFINFER_ALWAYS_INLINE void run(const args& a, panel_piece& piece, int first_half, std::ptrdiff_t token,
                                    const std::byte* copy = nullptr) {
      const packed_matrix& w = *a.w;
      const int group = Format::scale_columns(w);
      unit_bytes = w.unit_bytes;
      beside = Halves > 2 ? a.beside->w->panel(a.beside->panel) - w.panel(a.panel) : 0;
      const std::ptrdiff_t first_unit = piece.first_slab * units_a_slab;
      const int scale_bytes = scales::bytes_a_unit(group);
      const std::byte* unit = w.panel(a.panel) + w.panel_head + (2 * first_unit + first_half) * unit_bytes;
      const std::ptrdiff_t start = piece.first_slab * a.tokens + token;
      const std::int8_t* x = a.x + start * slab_columns;
      const float *x_scales = a.x_scales + start * 8, *x_sums = a.x_sums + start * 8;
      const std::int32_t* x_counts = a.x_counts + start * 8 * parts;
      alignas(32) std::int32_t starts[Tokens * 8 * parts];  // no member: members would follow it into memory
      coming_weights next = piece.next;
      // The second half of a long unit is met sooner than bytes in order would be.
      const fetch_distances distances = a.ahead.longer_by(blocks_a_unit > 2 ? unit_bytes : 0);
      streams = next.lanes == 0, ahead = distances;
      // Two panels of one matrix are followed by the two behind them: each stream goes on behind the other's panel.
      const std::byte* const end_of_panel = w.panel(a.panel) + w.panel_bytes;
      const std::ptrdiff_t skipped = Halves > 2 && a.beside->w == a.w ? beside : 0;
      begin(piece, first_half, token, all);
      if constexpr (from_copy) copy += first_half * bytes_a_half_unit;
      for (std::ptrdiff_t left = std::min(w.units, piece.last_slab * units_a_slab) - first_unit; left > 0;
           left -= units_a_slab) {
        const std::ptrdiff_t some = std::min(left, units_a_slab);
        begin_slab(&starts[0], x_counts, std::make_integer_sequence<int, Tokens * parts>());
        const std::int32_t* from = &starts[0];
        for (std::ptrdiff_t u = 0; u < some; ++u, unit += 2 * unit_bytes) {
          for (int b = 0; b < blocks_a_unit; ++b) {
            const std::byte* block = (from_copy ? copy : unit + scale_bytes) + b * Codes::bytes_a_block;
            if (!streams) next.step();
            share = unit + b * bytes_a_share * halves_a_panel;
            if constexpr (Halves > 2) ahead = distances.past(end_of_panel - share, skipped);
            if constexpr (parts == 1) {
              add_part<0>(unit, block, b, group, x, x_scales, x_sums, from);
            } else {
              add_part<0>(unit, block, 2 * b, group, x, x_scales, x_sums, from);
              add_part<1>(unit, block, 2 * b + 1, group, x, x_scales, x_sums, from + 1);
            }
            x += 32, ++x_scales, ++x_sums, from += parts;
          }
          if constexpr (from_copy) copy += 2 * bytes_a_half_unit;
        }
        // On to this token's part of the next slab.
        x += (a.tokens - 1) * slab_columns, x_scales += (a.tokens - 1) * 8, x_sums += (a.tokens - 1) * 8;
        x_counts += a.tokens * 8 * parts;
      }
      piece.next = next;
      end(a, piece, first_half, token, all);
    }

   private:
    static constexpr std::ptrdiff_t bytes_a_half_unit = blocks_a_unit * Codes::bytes_a_block;  // of a copy

    template <int... I>
    EFFINFER_ALWAYS_INLINE void begin(const panel_piece& piece, int first_half, std::ptrdiff_t token,
                                      std::integer_sequence<int, I...>) {
      (begin_rows<base>(piece, first_half + I / Tokens, token + I % Tokens, sum[I]), ...);
    }
    /// Part `Part` of a block: the columns of one scale.
    template <int Part>
    EFFINFER_ALWAYS_INLINE void add_part(const std::byte* unit, const std::byte* block, int part_of_unit, int group,
                                         const std::int8_t* x, const float* x_scales, const float* x_sums,
                                         const std::int32_t* from) {
      if constexpr (together == 0) start(from, tokens);
      groups<Part * groups_a_part>(block, x, from, std::make_integer_sequence<int, groups_a_part>());
      scale(unit, part_of_unit, group, x_scales, x_sums, halves);
    }
    /// What the sums of a slab's parts begin with: the offset's share taken off.
    template <int... I>
    static EFFINFER_ALWAYS_INLINE void begin_slab(std::int32_t* starts, const std::int32_t* counts,
                                                  std::integer_sequence<int, I...>) {
      (begin_eight(starts + I * 8, counts + I * 8), ...);
    }
    static EFFINFER_ALWAYS_INLINE void begin_eight(std::int32_t* to, const std::int32_t* counts) {
      using eight = typename execution::detail::lanes_of<std::int32_t, 8>::unaligned;
      constexpr std::int32_t offset = unsigned_codes<Set, codes> ? Format::code_offset : 0;
      *reinterpret_cast<eight*>(to) = integer_sums<Set>::zero - *reinterpret_cast<const eight*>(counts) * offset;
    }
    template <int... Token>
    EFFINFER_ALWAYS_INLINE void start(const std::int32_t* from, std::integer_sequence<int, Token...>) {
      (start_token<Token>(from[Token * 8 * parts], halves), ...);
    }
    template <int Token, int... Half>
    EFFINFER_ALWAYS_INLINE void start_token(const std::int32_t& from, std::integer_sequence<int, Half...>) {
      part[Token].set(from);
      ((Half > 0 ? (void)(part[Half * Tokens + Token] = part[Token]) : (void)0), ...);
    }
    template <int First, int... Group>
    EFFINFER_ALWAYS_INLINE void groups(const std::byte* block, const std::int8_t* x, const std::int32_t* from,
                                       std::integer_sequence<int, Group...>) {
      (group_step<First + Group>(block, x + (First + Group) * 4, from, halves, tokens), ...);
    }
    template <int Group, int... Half, int... Token>
    EFFINFER_ALWAYS_INLINE void group_step(const std::byte* block, const std::int8_t* x, const std::int32_t* from,
                                           std::integer_sequence<int, Half...>, std::integer_sequence<int, Token...>) {
      if constexpr (Tokens <= few<Set>) {
        if (streams) {
          fetch_ahead<Set, bytes_a_share * halves_a_panel, Group, 8>(ahead, share);
          if constexpr (Halves > 2) fetch_ahead<Set, bytes_a_share * halves_a_panel, Group, 8>(ahead, share + beside);
        }
      }
      code_group<Set> w[Halves];
      (load_group<Group>(block + (from_copy ? Half * bytes_a_half_unit : offset<Half>()), w[Half]), ...);
      (multiply<Token, Group>(x + Token * slab_columns, w, halves), ...);
      if constexpr (together > 0) {
        // Not before: what the sums start with would hold registers.
        if constexpr (Group % groups_a_part + 1 == together) start(from, tokens);
        if constexpr ((Group + 1) % together == 0) widen(all);
      }
    }
    template <int... I>
    EFFINFER_ALWAYS_INLINE void widen(std::integer_sequence<int, I...>) {
      (part[I].add(pairs[I]), ...);
    }
    /// Of a half's units from the first half's.
    template <int Half>
    EFFINFER_ALWAYS_INLINE std::ptrdiff_t offset() const {
      return Half % 2 * unit_bytes + (Half > 1 ? beside : 0);
    }
    template <int Group>
    static EFFINFER_ALWAYS_INLINE void load_group(const std::byte* block, code_group<Set>& w) {
      Codes::template load<Set, Group>(block, w);
      if constexpr (!unsigned_codes<Set, codes> && Format::code_offset != 0) {
        constexpr auto offset = static_cast<std::uint8_t>(Format::code_offset);
        w.subtract(offset);
      }
    }
    template <int Token, int Group, int... Half>
    EFFINFER_ALWAYS_INLINE void multiply(const std::int8_t* p, const code_group<Set> (&w)[Halves],
                                         std::integer_sequence<int, Half...>) {
      activation_lanes<Set> x;
      x.load(p);
      if constexpr (together > 0) {
        (pairs[Half * Tokens + Token].template add<Group % together == 0>(w[Half], x), ...);
      } else {
        (part[Half * Tokens + Token].add(w[Half], x), ...);
      }
    }
    template <int... Half>
    EFFINFER_ALWAYS_INLINE void scale(const std::byte* unit, int part_of_unit, int group, const float* x_scales,
                                      const float* x_sums, std::integer_sequence<int, Half...>) {
      (scale_half<Half>(unit + offset<Half>(), part_of_unit, group, x_scales, x_sums, tokens), ...);
    }
    template <int Half, int... Token>
    EFFINFER_ALWAYS_INLINE void scale_half(const std::byte* unit, int part_of_unit, int group, const float* x_scales,
                                           const float* x_sums, std::integer_sequence<int, Token...>) {
      vector w_scale, minimum;
      if constexpr (!scales::in_row) scales::template load<base>(unit, part_of_unit, group, w_scale, minimum);
      (scale_one<Half * Tokens + Token>(w_scale, minimum, x_scales[Token * 8], x_sums + Token * 8), ...);
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
    EFFINFER_ALWAYS_INLINE void end(const args& a, const panel_piece& piece, int first_half, std::ptrdiff_t token,
                                    std::integer_sequence<int, I...>) {
      (end_one(I / Tokens < 2 ? a : *a.beside, piece, first_half + I / Tokens % 2, token + I % Tokens, sum[I]), ...);
    }
    static EFFINFER_ALWAYS_INLINE void end_one(const panel_args& a, const panel_piece& piece, int half,
                                               std::ptrdiff_t token, const vector& sum) {
      if (!piece.ends) {
        keep_rows<base>(piece, half, token, sum);
      } else if constexpr (scales::in_row) {
        const auto* head = reinterpret_cast<const float*>(a.w->panel(a.panel));
        write_rows<base>(a, half, token, sum * vector::load(head + half * rows_a_half));
      } else {
        write_rows<base>(a, half, token, sum);
      }
    }
  };

  // Tiles by the number of registers: 32 under AVX-512; sixteen half as wide under AVX2; 32 a quarter as wide under NEON.
  template <instruction_set Set>
  struct panel {
    static constexpr bool pairs_panels = Set == instruction_set::avx512;
    /// Of a slab, in the first-level cache, where tokens pass by.
    static std::ptrdiff_t bytes_in_cache(const args& a, std::ptrdiff_t bytes_a_slab) {
      const std::ptrdiff_t scales_of_all = 2 * units_a_slab * scales::bytes_a_unit(Format::scale_columns(*a.w));
      return unpacks<Set> ? scales_of_all + slab_columns * rows_a_panel : bytes_a_slab;
    }
    /// A block a step.
    static constexpr std::ptrdiff_t steps(std::ptrdiff_t tokens) {
      const std::ptrdiff_t passes = Set == instruction_set::avx512     ? (tokens + 5) / 6
                                    : Set != instruction_set::portable ? (tokens / 4 + tokens % 4 / 2) * 2 + tokens % 2
                                                                       : tokens * 2;
      return passes * (slab_columns / 32);
    }
    EFFINFER_ALWAYS_INLINE void operator()(const args& a, panel_piece& p) const {
      std::ptrdiff_t token = p.first_token;
      const std::ptrdiff_t last = token + p.tokens;
      if constexpr (Set == instruction_set::avx512) {
        if (a.beside != nullptr) return tile<Set, 4, 1>().run(a, p, 0, token);
        for (; token + 6 <= last; token += 6) tile<Set, 2, 6>().run(a, p, 0, token);
        rest(a, p, token, last - token, std::integer_sequence<int, 1, 2, 3, 4, 5>());
      } else if constexpr (Set != instruction_set::portable) {
        // Four tokens' sums don't fit AVX2's registers: those of floats wait in memory, which a block uses once.
        if constexpr (unpacks<Set>) {
          if (p.tokens >= 8) token = meet_unpacked(a, p);
        }
        for (; token + 4 <= last; token += 4) {
          for (int half = 0; half < 2; ++half) tile<Set, 1, 4>().run(a, p, half, token);
        }
        if (token + 2 <= last) {
          for (int half = 0; half < 2; ++half) tile<Set, 1, 2>().run(a, p, half, token);
          token += 2;
        }
        if (token < last) tile<Set, 2, 1>().run(a, p, 0, token);
      } else {
        for (; token < last; ++token) {
          for (int half = 0; half < 2; ++half) tile<Set, 1, 1>().run(a, p, half, token);
        }
      }
    }
    /// All whole fours of the tokens; returns the first of those left.
    EFFINFER_ALWAYS_INLINE std::ptrdiff_t meet_unpacked(const args& a, panel_piece& p) const {
      using in_bytes = codes_in_bytes<codes>;
      static_assert(slab_columns * rows_a_panel <= bytes_a_chunk);
      alignas(64) std::byte copy[bytes_a_chunk];
      const std::ptrdiff_t first = 2 * p.first_slab * units_a_slab,
                           past = std::min(2 * a.w->units, 2 * p.last_slab * units_a_slab);
      const std::byte* from = a.w->panel(a.panel) + a.w->panel_head + first * a.w->unit_bytes +
                              scales::bytes_a_unit(Format::scale_columns(*a.w));
      std::byte* to = &copy[0];
      for (std::ptrdiff_t u = first; u < past; ++u, from += a.w->unit_bytes) {
        for (int b = 0; b < blocks_a_unit; ++b, to += in_bytes::bytes_a_block)
          in_bytes::template unpack<Set>(from + b * codes::bytes_a_block, to);
      }
      std::ptrdiff_t token = p.first_token;
      for (; token + 4 <= p.first_token + p.tokens; token += 4) {
        for (int half = 0; half < 2; ++half) tile<Set, 1, 4, in_bytes>().run(a, p, half, token, &copy[0]);
      }
      return token;
    }
    template <int... Tokens>
    EFFINFER_ALWAYS_INLINE void rest(const args& a, panel_piece& p, std::ptrdiff_t token, std::ptrdiff_t count,
                                     std::integer_sequence<int, Tokens...>) const {
      ((count == Tokens ? tile<Set, 2, Tokens>().run(a, p, 0, token) : void()), ...);
    }
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    for_pieces(a, few<Set>, 2 * units_a_slab * a.w->unit_bytes, 1, panel<Set>());
  }
};

}  // namespace effinfer::inline v0::quantization::detail
