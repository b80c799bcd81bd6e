#pragma once
// int8, ours: 8-bit codes with one float scale an output row, symmetric. w[r][i] = scale[r] * q[r][i], q in [-127, 127],
// scale[r] = max_i |w[r][i]| / 127 (round to nearest).
// Layout: row r is `columns` int8, then padding up to row_bytes; the scales are an array of their own.

#include <effinfer/quantization/cpu/panel.hpp>

namespace effinfer::inline v0::quantization::format {

struct int8 {
  static constexpr weight_format name = weight_format::int8;
  static constexpr bool is_float = false;
  static constexpr bool has_minimum = false;
  static constexpr int columns_a_scale = 32;  // as products want it: all of a row's are equal
  static constexpr int code_offset = 128;
  static constexpr int columns_a_unit = 64;
  static constexpr int bytes_a_chunk = 64;  ///< 64 columns

  static void decode_row(const weight_matrix& w, std::ptrdiff_t row, float* out) {
    for (std::ptrdiff_t i = 0; i < w.columns; ++i) {
      out[i] = w.scales[row] * static_cast<float>(unpacking::load_as<std::int8_t>(w.row(row) + i));
    }
  }

  static constexpr EFFINFER_ALWAYS_INLINE std::ptrdiff_t unit_offset(std::ptrdiff_t column) { return column; }

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void load_scales(const weight_matrix& w, std::ptrdiff_t row, int /*first*/, int columns,
                                                 const scale_row& out) {
    const auto scale = execution::f32x16<Set>::broadcast(w.scales[row]);
    for (int i = 0; i < (columns + 31) / 32; i += 16) scale.store(out.scales + i);
  }

  template <execution::instruction_set Set, int Chunk>
  static EFFINFER_ALWAYS_INLINE void load_codes(const std::byte* unit, std::ptrdiff_t columns_left,
                                                code_vector<Set>& v) {
    if (columns_left >= 64) {
      unpacking::load_pair<Set>(v, unit, unit + 32);
    } else {  // the row's last columns, behind which nothing may be read
      std::byte rest[64] = {};
      for (std::ptrdiff_t i = 0; i < columns_left; ++i) rest[i] = unit[i];
      unpacking::load_pair<Set>(v, rest, rest + 32);
    }
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
