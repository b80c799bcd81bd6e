#pragma once
// BF16: bfloat16, the upper half of a float, as stored. w[i] = value[i].

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct bf16 : block_format<bf16, weight_format::bf16> {
  static constexpr bool is_float = true;

  static void decode(const std::byte* block, float* out) {
    *out = static_cast<float>(unpacking::load_as<effinfer::bf16>(block));
  }

  /// 16 columns of a row, or the first `count` of them and zeros.
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void load(const std::byte* p, std::ptrdiff_t count, execution::f32x16<Set>& v) {
    const auto* values = reinterpret_cast<const effinfer::bf16*>(p);
    v = count >= 16 ? execution::f32x16<Set>::load(values) : execution::f32x16<Set>::load_first(values, count);
  }
};

}  // namespace effinfer::inline v0::quantization::format
