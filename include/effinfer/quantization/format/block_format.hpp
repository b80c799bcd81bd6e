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

}  // namespace effinfer::inline v0::quantization::format
