#pragma once
// What the formats of files share: a row is a run of equal blocks (core/weight_format.hpp has their sizes).

#include <effinfer/quantization/cpu/panel.hpp>

#include <cstddef>
#include <cstdint>

namespace effinfer::inline v0::quantization::format {

/// Base of a format `Format` that has `name` and `decode(const std::byte* block, float* out)`, which
/// writes block_size(name) values.
template <class Format, weight_format Name>
struct block_format {
  static constexpr weight_format name = Name;
  static constexpr int columns_a_block = block_size(Name);
  static constexpr int bytes_a_block = block_bytes(Name);
  static constexpr int bytes_a_chunk = bytes_a_block * 64 / columns_a_block;  ///< 64 columns, scales included

  /// Where the codes of a unit of columns (format's `columns_a_unit`) begin, and the bytes that a unit takes.
  static constexpr EFFINFER_ALWAYS_INLINE std::ptrdiff_t unit_offset(std::ptrdiff_t column) {
    return column / columns_a_block * bytes_a_block;
  }
  /// The block that holds column `first`, a multiple of the block size.
  static EFFINFER_ALWAYS_INLINE const std::byte* block(const weight_matrix& w, std::ptrdiff_t row,
                                                       std::ptrdiff_t first) {
    return w.row(row) + first / columns_a_block * bytes_a_block;
  }
  /// All values of a row.
  static void decode_row(const weight_matrix& w, std::ptrdiff_t row, float* out) {
    for (std::ptrdiff_t c = 0; c < w.columns; c += columns_a_block) Format::decode(block(w, row, c), out + c);
  }
};

/// Base of the formats with blocks of 32 columns, f16 d first, then f16 m where they have a minimum.
template <class Format, weight_format Name, bool HasMinimum>
struct block_of_32 : block_format<Format, Name> {
  static constexpr bool is_float = false;
  static constexpr bool has_minimum = HasMinimum;
  static constexpr int columns_a_scale = 32;
  static constexpr int columns_a_unit = 64;
  static constexpr int bytes_a_block = block_bytes(Name);

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void load_scales(const weight_matrix& w, std::ptrdiff_t row, int first, int columns,
                                                 const scale_row& out) {
    unpacking::gather_halves<Set, bytes_a_block>(Format::block(w, row, first), columns / 32, out.scales);
    load_minimums<Set>(w, row, first, columns, out.minimums);
  }
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void load_minimums(const weight_matrix& w, std::ptrdiff_t row, int first, int columns,
                                                   float* out) {
    if constexpr (HasMinimum) {
      unpacking::gather_halves<Set, bytes_a_block>(Format::block(w, row, first) + 2, columns / 32, out);
    }
  }
  /// The scales of a unit straight to the lanes of a product, which is cheaper where they are used once.
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void load_scale_lanes(const std::byte* unit, std::ptrdiff_t columns_left,
                                                      execution::f32x16<Set>& v) {
    unpacking::halves_to_lanes<Set>(v, unit, second_block(unit, columns_left));
  }
  /// The second block of a unit, or the first again where the row has no more.
  static EFFINFER_ALWAYS_INLINE const std::byte* second_block(const std::byte* unit, std::ptrdiff_t columns_left) {
    return unit + (columns_left > 32 ? bytes_a_block : 0);
  }
};

}  // namespace effinfer::inline v0::quantization::format
