#pragma once
// Weights of integer formats as a tile of AMX takes them: a slab of a panel (256 columns of 32 rows) with each weight rounded to bf16, in
// the layout of a panel of BF16: pairs of columns of 2 x 16 rows, 128 bytes a pair.

#include <effinfer/quantization/cpu/activations.hpp>
#include <effinfer/quantization/cpu/codes.hpp>
#include <effinfer/quantization/cpu/scales.hpp>
#include <effinfer/quantization/packed_matrix.hpp>

#include <cstddef>
#include <utility>

#if EFFINFER_X86
namespace effinfer::inline v0::quantization::detail {

/// Of a panel of BF16: two columns of its rows, and a slab.
inline constexpr int bytes_a_pair = rows_a_panel * 2 * static_cast<int>(sizeof(bf16));
inline constexpr std::ptrdiff_t bytes_a_bf16_slab = slab_columns / 2 * bytes_a_pair;

/// Sixteen rows of two columns, rounded to bf16: half a pair.
inline EFFINFER_TARGET_AVX512_BF16 void store_pairs(std::byte* to, const execution::detail::f32x16_memory& even,
                                                    const execution::detail::f32x16_memory& odd) {
  const __m512i in_pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                            21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const auto apart = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
  _mm512_store_si512(to, _mm512_maskz_permutexvar_epi16(0xffffffff, in_pairs, apart));
}
/// Column `Column` of four of sixteen rows: scale * code + shift.
template <int Column>
inline EFFINFER_TARGET_AVX512_BF16 void decode_column(const bytes_of<64>& codes,
                                                      const execution::detail::f32x16_memory& scale,
                                                      const execution::detail::f32x16_memory& shift,
                                                      execution::detail::f32x16_memory& value) {
  const auto all = reinterpret_cast<__m512i>(codes);
  __m512i code;
  if constexpr (Column == 0) {
    code = _mm512_and_si512(all, _mm512_set1_epi32(255));
  } else if constexpr (Column == 3) {
    code = _mm512_maskz_srli_epi32(0xffff, all, 24);
  } else {
    constexpr int none = static_cast<int>(0x80808000);
    const __m512i from = _mm512_set4_epi32(none + 12 + Column, none + 8 + Column, none + 4 + Column, none + Column);
    code = _mm512_maskz_shuffle_epi8(~__mmask64{}, all, from);
  }
  value = _mm512_fmadd_ps(_mm512_maskz_cvtepi32_ps(0xffff, code), scale, shift);
}

template <class Format>
struct slab_decoder {
  using vector = execution::f32x16<instruction_set::avx512>;
  using scales = typename Format::scales;
  using codes = typename Format::codes;
  static constexpr std::ptrdiff_t units = slab_columns / scales::columns_a_unit;
  /// Where a slab of a panel begins.
  static const std::byte* packed(const packed_matrix& w, std::ptrdiff_t panel, std::ptrdiff_t slab) {
    return w.panel(panel) + w.panel_head + 2 * slab * units * w.unit_bytes;
  }

  /// Columns [32 block, 32 block + 32) of a slab to their place in `to` [bytes_a_bf16_slab]. Those beyond the panel's last unit are left
  /// alone. Not inlined: it stands beside products that want the registers.
  static __attribute__((noinline)) EFFINFER_TARGET_AVX512_BF16 void decode(const packed_matrix& w, std::ptrdiff_t panel,
                                                                           std::ptrdiff_t slab, int block,
                                                                           std::byte* to) {
    constexpr int blocks_a_unit = scales::columns_a_unit / 32;
    const std::ptrdiff_t unit_of_panel = slab * units + block / blocks_a_unit;
    if (unit_of_panel >= w.units) return;
    for (int half = 0; half < 2; ++half) {
      const source from{w.panel(panel), w.panel(panel) + w.panel_head + (2 * unit_of_panel + half) * w.unit_bytes, half,
                        block % blocks_a_unit, Format::scale_columns(w)};
      std::byte* const out = to + block * (16 * bytes_a_pair) + half * 64;
      decode_groups<0>(from, out);
      decode_groups<4>(from, out);
    }
  }

 private:
  struct source {
    const std::byte *panel, *unit;
    int half, block, group;
  };

  /// Groups [First, First + 4) of a block, which have one scale a row.
  template <int First>
  static EFFINFER_ALWAYS_INLINE void decode_groups(const source& from, std::byte* out) {
    vector scale, shift = vector::zero();
    if constexpr (scales::in_row) {
      scale = vector::load(reinterpret_cast<const float*>(from.panel) + from.half * rows_a_half);
    } else if constexpr (scales::columns_a_scale == 16) {
      scales::template load<instruction_set::avx512>(from.unit, 2 * from.block + First / 4, from.group, scale, shift);
    } else {
      scales::template load<instruction_set::avx512>(from.unit, from.block, from.group, scale, shift);
    }
    if constexpr (!scales::has_minimum) {
      shift = vector::broadcast(-static_cast<float>(Format::code_offset)) * scale;  // a power of two: exact
    }
    const std::byte* const block = from.unit + scales::bytes_a_unit(from.group) + from.block * codes::bytes_a_block;
    decode_group<First>(block, scale, shift, out), decode_group<First + 1>(block, scale, shift, out);
    decode_group<First + 2>(block, scale, shift, out), decode_group<First + 3>(block, scale, shift, out);
  }
  template <int Group>
  static EFFINFER_ALWAYS_INLINE void decode_group(const std::byte* block, const vector& scale, const vector& shift,
                                                  std::byte* out) {
    code_group<instruction_set::avx512> group;
    codes::template load<instruction_set::avx512, Group>(block, group);
    execution::detail::f32x16_memory column[4];
    decode_column<0>(group.part[0], scale.lanes.v, shift.lanes.v, column[0]);
    decode_column<1>(group.part[0], scale.lanes.v, shift.lanes.v, column[1]);
    decode_column<2>(group.part[0], scale.lanes.v, shift.lanes.v, column[2]);
    decode_column<3>(group.part[0], scale.lanes.v, shift.lanes.v, column[3]);
    store_pairs(out + 2 * Group * bytes_a_pair, column[0], column[1]);
    store_pairs(out + (2 * Group + 1) * bytes_a_pair, column[2], column[3]);
  }
};

}  // namespace effinfer::inline v0::quantization::detail
#endif
