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

  /// Encodes one row of finite values: `codes` gets row_bytes, padding included.
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void encode(const float* values, std::ptrdiff_t columns, std::ptrdiff_t row_bytes,
                                            std::byte* codes, float* scale) {
    float greatest = 0;
    for (std::ptrdiff_t i = 0; i < columns; ++i) {
      const float magnitude = values[i] < 0 ? -values[i] : values[i];
      greatest = magnitude > greatest ? magnitude : greatest;
    }
    *scale = greatest / 127.0f;
    // A row of subnormals: 127 / greatest would be infinite.
    const float inverse = greatest > 0x1p-120f ? 127.0f / greatest : 0.0f;
    if (inverse == 0.0f) *scale = 0.0f;
    using vector = execution::f32x16<Set>;
    float rounded[16];
    for (std::ptrdiff_t i = 0; i < row_bytes; i += 16) {
      const std::ptrdiff_t left = columns - i;
      const vector v = left >= 16 ? vector::load(values + i) : vector::load_first(values + i, left > 0 ? left : 0);
      nearest(v * vector::broadcast(inverse)).store(rounded);
      for (int j = 0; j < 16; ++j) codes[i + j] = static_cast<std::byte>(static_cast<std::int8_t>(rounded[j]));
    }
  }
};

}  // namespace effinfer::inline v0::quantization::format
