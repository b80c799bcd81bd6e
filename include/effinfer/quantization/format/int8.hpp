#pragma once
// int8, ours: 8-bit codes with one float scale an output row, symmetric. w[r][i] = scale[r] * q[r][i], q in [-127, 127],
// scale[r] = max_i |w[r][i]| / 127 (round to nearest).
// Layout: row r is `columns` int8, then padding up to row_bytes; the scales are an array of their own.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct int8 {
  static constexpr weight_format name = weight_format::int8;
  static constexpr bool is_float = false;
  using codes = codes_8_bit;
  using scales = scale_a_row;
  static constexpr int code_offset = 128;
  static int scale_columns(const packed_matrix&) { return 32; }

  static void decode_row(const weight_matrix& w, std::ptrdiff_t row, float* out) {
    for (std::ptrdiff_t i = 0; i < w.columns; ++i) {
      out[i] = w.scales[row] * static_cast<float>(unpacking::load_as<std::int8_t>(w.row(row) + i));
    }
  }

  static void unpack_row(const weight_matrix& w, std::ptrdiff_t row, unpacked_row& r) {
    for (std::ptrdiff_t i = 0; i < w.columns; ++i) r.codes[i] = unpacking::load_as<std::uint8_t>(w.row(row) + i) ^ 0x80;
    r.row_scale = w.scales[row];
  }

  /// Encodes one row of finite values, which zeros fill up to a multiple of 16, into its codes and its scale.
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void encode(const float* values, std::ptrdiff_t columns, unpacked_row& row) {
    using vector = execution::f32x16<Set>;
    vector magnitudes = vector::zero();
    for (std::ptrdiff_t i = 0; i < columns; i += 16) magnitudes = max(abs(vector::load(values + i)), magnitudes);
    const float greatest = magnitudes.max_lane();
    // A row of subnormals: 127 / greatest would be infinite.
    const float inverse = greatest > 0x1p-120f ? 127.0f / greatest : 0.0f;
    row.row_scale = inverse == 0.0f ? 0.0f : greatest / 127.0f;
    const vector offset = vector::broadcast(static_cast<float>(code_offset));
    std::ptrdiff_t i = 0;
    for (; i < columns; i += 16)
      (nearest(vector::load(values + i) * vector::broadcast(inverse)) + offset).store(row.codes + i);
    for (std::ptrdiff_t j = columns; j < i; ++j) row.codes[j] = 0;
  }
};

}  // namespace effinfer::inline v0::quantization::format
