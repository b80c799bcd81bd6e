#pragma once
// F16: IEEE binary16, as stored. w[i] = value[i].

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct f16 : block_format<f16, weight_format::f16> {
  static constexpr bool is_float = true;

  static void decode(const std::byte* block, float* out) {
    *out = static_cast<float>(unpacking::load_as<effinfer::f16>(block));
  }

  /// 16 columns of a row, or the first `count` of them and zeros.
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void load(const std::byte* p, std::ptrdiff_t count, execution::f32x16<Set>& v) {
    const auto* values = reinterpret_cast<const effinfer::f16*>(p);
    v = count >= 16 ? execution::f32x16<Set>::load(values) : execution::f32x16<Set>::load_first(values, count);
  }
};

}  // namespace effinfer::inline v0::quantization::format
