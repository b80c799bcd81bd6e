#pragma once
// BF16: bfloat16, the upper half of a float, as stored. w[i] = value[i].

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct bf16 : block_format<bf16, weight_format::bf16> {
  static constexpr bool is_float = true;

  static void decode(const std::byte* block, float* out) {
    *out = static_cast<float>(unpacking::load_as<effinfer::bf16>(block));
  }

  /// Columns [first, first + columns) of a row, as floats.
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void unpack(const weight_matrix& w, std::ptrdiff_t row, int first, int columns,
                                            float* out) {
    const auto* p = reinterpret_cast<const effinfer::bf16*>(block(w, row, first));
    using vector = execution::f32x16<Set>;
    int i = 0;
    for (; i + 16 <= columns; i += 16) vector::load(p + i).store(out + i);
    if (i < columns) vector::load_first(p + i, columns - i).store_first(out + i, columns - i);
  }
};

}  // namespace effinfer::inline v0::quantization::format
