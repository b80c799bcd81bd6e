#pragma once
// The names of the layouts in which a tensor may be stored. What the bits mean stands in
// quantization/, one file a format; checkpoints need only names and sizes.

#include <effinfer/core/config.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace effinfer::inline v0 {

/// A row of a tensor is a whole number of blocks of `block_size(f)` values, `block_bytes(f)` bytes each.
enum class weight_format : std::uint8_t {
  f32,
  f16,
  bf16,
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q4_k,
  q5_k,
  q6_k,   ///< GGUF blocks
  int8,   ///< ours: int8 with one float scale a row
  int4,   ///< ours: int4 in groups, see quantization/int4.hpp
  other,  ///< known to the file format, computed by nobody here
  fp8_e4m3,  ///< a byte a value (core/dtype.hpp), scales apart: a float a row, or for blocks of 128 x 128; computed by GPUs
};

/// True for the formats whose values stand for themselves.
constexpr bool is_float(weight_format f) noexcept {
  return f == weight_format::f32 || f == weight_format::f16 || f == weight_format::bf16;
}

/// Values a block.
constexpr int block_size(weight_format f) noexcept {
  switch (f) {
    case weight_format::q8_0:
    case weight_format::q4_0:
    case weight_format::q4_1:
    case weight_format::q5_0:
    case weight_format::q5_1: return 32;
    case weight_format::q4_k:
    case weight_format::q5_k:
    case weight_format::q6_k: return 256;
    default: return 1;
  }
}

/// Bytes a block; 0 for the formats whose layout is not a run of equal blocks (int8, int4, other).
constexpr int block_bytes(weight_format f) noexcept {
  switch (f) {
    case weight_format::f32: return 4;
    case weight_format::f16:
    case weight_format::bf16: return 2;
    case weight_format::fp8_e4m3: return 1;
    case weight_format::q8_0: return 34;
    case weight_format::q4_0: return 18;
    case weight_format::q4_1: return 20;
    case weight_format::q5_0: return 22;
    case weight_format::q5_1: return 24;
    case weight_format::q4_k: return 144;
    case weight_format::q5_k: return 176;
    case weight_format::q6_k: return 210;
    default: return 0;
  }
}

constexpr std::string_view to_string(weight_format f) noexcept {
  switch (f) {
    case weight_format::f32: return "F32";
    case weight_format::f16: return "F16";
    case weight_format::bf16: return "BF16";
    case weight_format::q8_0: return "Q8_0";
    case weight_format::q4_0: return "Q4_0";
    case weight_format::q4_1: return "Q4_1";
    case weight_format::q5_0: return "Q5_0";
    case weight_format::q5_1: return "Q5_1";
    case weight_format::q4_k: return "Q4_K";
    case weight_format::q5_k: return "Q5_K";
    case weight_format::q6_k: return "Q6_K";
    case weight_format::int8: return "int8";
    case weight_format::int4: return "int4";
    case weight_format::other: return "other";
    case weight_format::fp8_e4m3: return "F8_E4M3";
  }
  return "unknown";
}

}  // namespace effinfer::inline v0
