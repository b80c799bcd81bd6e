#pragma once
// quantization::none: every matrix as the checkpoint stores it, float or GGUF blocks, in place.

#include <effinfer/quantization/formats.hpp>
#include <effinfer/quantization/policy.hpp>

namespace effinfer::inline v0::quantization {

struct none {
  using slot = effinfer::slot::quantization;
  static constexpr std::string_view name = "quantization::none";
  /// What `matmul` is compiled for.
  using formats = all_formats;
  /// How to keep a matrix that the checkpoint stores as `stored`.
  static constexpr storage target(matrix_use, weight_format stored, std::ptrdiff_t /*columns*/) { return {stored, 0}; }
};

static_assert(check_policy<none>());

}  // namespace effinfer::inline v0::quantization
