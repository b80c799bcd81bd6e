#pragma once
// A matrix of weights in device memory, in any of the orders of quantization/cuda, and which of these products are compiled for.

#include <effinfer/core/weight_format.hpp>
#include <effinfer/quantization/at_load.hpp>
#include <effinfer/quantization/cuda/block_weights.hpp>
#include <effinfer/quantization/cuda/pack_blocks.hpp>
#include <effinfer/quantization/cuda/weights.hpp>
#include <effinfer/quantization/fp8.hpp>
#include <effinfer/quantization/int4.hpp>
#include <effinfer/quantization/int8.hpp>
#include <effinfer/quantization/none.hpp>

#include <array>
#include <cstddef>
#include <type_traits>

namespace effinfer::inline v0::models::cuda {

/// What a matrix in device memory consists of, in one of the orders of quantization/cuda; most have some of it only.
enum class matrix_part { units, high, scales, minimums, scale_codes, minimum_codes, zeros };
inline constexpr std::size_t matrix_parts = 7;

/// A matrix in device memory.
struct device_matrix {
  weight_format format = weight_format::bf16;  ///< bf16 or f16 (as the activations), int8, int4, FP8, or a GGUF block's
  int group = 0;                               ///< of int4; of FP8 in blocks 128
  int rows = 0, columns = 0;
  std::array<const void*, matrix_parts> parts = {};  ///< null: it has no such part

  template <class U>
  void get(matrix_part of, const U*& to) const {
    to = static_cast<const U*>(parts[static_cast<std::size_t>(of)]);
  }
};

/// The orders that products are compiled for.
template <class... Weights>
struct weight_list {};

template <class... Lists>
struct joined;
template <class... Weights>
struct joined<weight_list<Weights...>> {
  using type = weight_list<Weights...>;
};
template <class... A, class... B, class... Rest>
struct joined<weight_list<A...>, weight_list<B...>, Rest...> : joined<weight_list<A..., B...>, Rest...> {};

/// The orders of GGUF blocks among `Formats`.
template <class Formats>
struct block_weights_of {
  template <int Bits, weight_format... Names>
  using if_any = std::conditional_t<(Formats::contains(Names) || ...),
                                    weight_list<quantization::cuda::block_weights<Bits>>, weight_list<>>;
  using type = typename joined<if_any<4, weight_format::q4_0, weight_format::q4_1, weight_format::q4_k>,
                               if_any<5, weight_format::q5_0, weight_format::q5_1, weight_format::q5_k>,
                               if_any<6, weight_format::q6_k>, if_any<8, weight_format::q8_0>>::type;
};

/// Those that a quantization policy needs: what isn't listed isn't compiled.
template <class Quantization, class T>
struct weights_of {
  using formats = typename Quantization::formats;
  using type = typename joined<
      weight_list<quantization::cuda::float_weights<T>>, typename block_weights_of<formats>::type,
      std::conditional_t<formats::contains(weight_format::int8), weight_list<quantization::cuda::int8_weights>,
                         weight_list<>>,
      std::conditional_t<formats::contains(weight_format::int4),
                         weight_list<quantization::cuda::int4_weights<32>, quantization::cuda::int4_weights<64>,
                                     quantization::cuda::int4_weights<128>>,
                         weight_list<>>>::type;
};
/// All that checkpoints may have.
template <class T>
struct weights_of<quantization::none, T> {
  using type =
      typename joined<weight_list<quantization::cuda::float_weights<T>>,
                      typename block_weights_of<quantization::all_formats>::type,
                      weight_list<quantization::cuda::fp8_weights<0>, quantization::cuda::fp8_weights<128>>>::type;
};
template <class T>
struct weights_of<quantization::at_load, T> {
  using type =
      typename joined<typename weights_of<quantization::none, T>::type,
                      weight_list<quantization::cuda::int8_weights, quantization::cuda::int4_weights<32>,
                                  quantization::cuda::int4_weights<64>, quantization::cuda::int4_weights<128>>>::type;
};
template <class T>
struct weights_of<quantization::fp8, T> {
  using type = weight_list<quantization::cuda::fp8_weights<0>>;
};
template <class T>
struct weights_of<quantization::int8, T> {
  using type = weight_list<quantization::cuda::int8_weights>;
};
template <class T, int Group>
struct weights_of<quantization::int4<Group>, T> {
  using type = weight_list<quantization::cuda::int8_weights, quantization::cuda::int4_weights<Group>>;
};

/// f(weights) with m as the one of the list that it is; false, where it is none of them.
template <class... Weights, class F>
bool with_weights(weight_list<Weights...>, const device_matrix& m, const F& f) {
  const auto one = [&](auto type) {
    using weights = typename decltype(type)::type;
    weights w;
    w.rows = m.rows, w.columns = m.columns;
    const auto blocks = quantization::cuda::block_layout_of(m.format);
    if constexpr (requires { w.stride; }) {
      if (!is_float(m.format)) return false;
      m.get(matrix_part::units, w.data), w.stride = m.columns;
    } else if constexpr (requires { weights::bits; }) {
      if (blocks.bits != weights::bits) return false;
      m.get(matrix_part::units, w.units), m.get(matrix_part::high, w.high), m.get(matrix_part::scales, w.scales);
      m.get(matrix_part::minimums, w.minimums), m.get(matrix_part::scale_codes, w.scale_codes);
      m.get(matrix_part::minimum_codes, w.minimum_codes);
      w.offset = blocks.offset, w.wide = blocks.is_wide;
    } else if constexpr (requires { weights::is_fp8; }) {
      if (m.format != weight_format::fp8_e4m3 || m.group != weights::group) return false;
      m.get(matrix_part::units, w.units), m.get(matrix_part::scales, w.scales);
    } else if constexpr (weights::group == 0) {
      if (m.format != weight_format::int8) return false;
      m.get(matrix_part::units, w.units), m.get(matrix_part::scales, w.scales);
    } else {
      if (m.format != weight_format::int4 || m.group != weights::group) return false;
      m.get(matrix_part::units, w.units), m.get(matrix_part::scales, w.scales), m.get(matrix_part::zeros, w.zeros);
    }
    f(w);
    return true;
  };
  return (one(std::type_identity<Weights>{}) || ...);
}

}  // namespace effinfer::inline v0::models::cuda
