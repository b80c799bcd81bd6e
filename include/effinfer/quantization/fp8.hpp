#pragma once
// quantization::fp8: every matrix that is multiplied in FP8 E4M3 with one scale an output row, encoded on load, for execution::cuda;
// activations stay in 16 bits (W8A16), so that it runs on devices without FP8 too. Embeddings that are only looked up stay as stored.
// Memory: 1 byte a weight and 4 a row, as int8; values near a row's greatest are rounded more coarsely than int8's, small ones finer.
// Checkpoints that are in FP8 already are none's: they keep the bits and scales that they have.

#include <effinfer/quantization/formats.hpp>
#include <effinfer/quantization/policy.hpp>

namespace effinfer::inline v0::quantization {

struct fp8 {
  using slot = effinfer::slot::quantization;
  static constexpr std::string_view name = "quantization::fp8";
  static constexpr bool is_for_devices = true;
  using formats = float_formats;
  static constexpr storage target(matrix_use use, weight_format stored, std::ptrdiff_t /*columns*/) {
    return {use == matrix_use::embedding ? stored : weight_format::fp8_e4m3, 0};
  }
};

static_assert(check_policy<fp8>());

}  // namespace effinfer::inline v0::quantization
