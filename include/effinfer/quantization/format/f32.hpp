#pragma once
// F32: IEEE binary32, as stored. w[i] = value[i].

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct f32 : block_format<f32, weight_format::f32> {
  static constexpr bool is_float = true;

  static void decode(const std::byte* block, float* out) {
    *out = static_cast<float>(unpacking::load_as<float>(block));
  }

  /// Columns [first, first + columns) of a row, as floats.
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void unpack(const weight_matrix& w, std::ptrdiff_t row, int first, int columns,
                                            float* out) {
    const auto* p = reinterpret_cast<const float*>(block(w, row, first));
    using vector = execution::f32x16<Set>;
    int i = 0;
    for (; i + 16 <= columns; i += 16) vector::load(p + i).store(out + i);
    if (i < columns) vector::load_first(p + i, columns - i).store_first(out + i, columns - i);
  }
};

}  // namespace effinfer::inline v0::quantization::format
