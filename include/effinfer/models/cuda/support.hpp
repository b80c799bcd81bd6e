#pragma once
// What of a checkpoint the GPU computes, and how: one rule, which loading, tests and tables read.

#include <effinfer/core/dtype.hpp>
#include <effinfer/core/weight_format.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <string_view>
#include <type_traits>

namespace effinfer::inline v0::models::cuda {

/// What becomes of a matrix on its way to the device.
enum class treatment {
  as_stored,  ///< every bit is kept
  rounded,    ///< F32 to the type of the activations
  encoded,  ///< by quantization::int8 or int4: int8 has the CPU's codes and scales, int4 whole zeros (quantization/cuda/int4_groups.hpp)
  refused,  ///< an error when the model is loaded
};

/// Of a matrix stored as `stored` that the quantization policy wants as `target`, with activations of type `activation` (bf16 or f16).
constexpr treatment treatment_of(weight_format stored, weight_format target, weight_format activation) {
  if (block_size(stored) != 1 || block_bytes(stored) == 0) return treatment::refused;  // GGUF blocks: on the CPU
  if (target == weight_format::int8 || target == weight_format::int4) return treatment::encoded;
  if (stored == activation) return treatment::as_stored;
  return stored == weight_format::f32 ? treatment::rounded : treatment::refused;
}

constexpr std::string_view to_string(treatment t) noexcept {
  switch (t) {
    case treatment::as_stored: return "as stored";
    case treatment::rounded: return "rounded";
    case treatment::encoded: return "encoded";
    case treatment::refused: return "refused";
  }
  return "unknown";
}

static_assert(treatment_of(weight_format::bf16, weight_format::bf16, weight_format::bf16) == treatment::as_stored);
static_assert(treatment_of(weight_format::f16, weight_format::f16, weight_format::bf16) == treatment::refused);
static_assert(treatment_of(weight_format::f16, weight_format::int4, weight_format::bf16) == treatment::encoded);
static_assert(treatment_of(weight_format::q4_k, weight_format::q4_k, weight_format::bf16) == treatment::refused);

/// True where attention reads many tokens on matrix instructions, with keys and values stored as `Element`. Else each token is a decode
/// step to it: slower, and the same in what is computed.
template <class Activation, class Element>
inline constexpr bool has_long_reads =
    std::is_same_v<Activation, Element> || std::is_same_v<Element, kv_cache::int8> || std::is_same_v<Element, fp8_e4m3>;

}  // namespace effinfer::inline v0::models::cuda
