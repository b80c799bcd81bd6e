#pragma once
// quantization::int8: every matrix that is multiplied in 8-bit codes with one scale an output row (format/int8.hpp),
// encoded on load; embeddings that are only looked up stay as stored.
// Memory: 1 byte a weight and 4 a row.

#include <effinfer/quantization/formats.hpp>
#include <effinfer/quantization/policy.hpp>

namespace effinfer::inline v0::quantization {

struct int8 {
  using slot = effinfer::slot::quantization;
  static constexpr std::string_view name = "quantization::int8";
  using formats = quantization::formats<format::f32, format::f16, format::bf16, format::int8>;
  static constexpr storage target(matrix_use use, weight_format stored, std::ptrdiff_t /*columns*/) {
    return {use == matrix_use::embedding ? stored : weight_format::int8, 0};
  }
};

static_assert(check_policy<int8>());

}  // namespace effinfer::inline v0::quantization
