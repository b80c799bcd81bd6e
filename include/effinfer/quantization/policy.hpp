#pragma once
// Quantization policies: how the weight matrices of a model are stored in memory. (How bits are laid out is a
// format's matter: format/, one file each.)
//
// What there is: none (as the checkpoint stores them; the default), int8, int4<Group>, at_load (one of these, chosen when the
// program runs); on a GPU also fp8.
//
// To add a policy: a struct with the members of `none` (none.hpp). To add a format: one file in format/ (README.md
// shows q8_0 in full) and its name in core/weight_format.hpp and formats.hpp; kernels need no change.

#include <effinfer/core/slot.hpp>
#include <effinfer/core/weight_format.hpp>

#include <concepts>
#include <cstddef>
#include <string_view>

namespace effinfer::inline v0::quantization {

/// What a matrix is used for.
enum class matrix_use {
  projection,  ///< inside a layer
  output,      ///< the output head, also where it is the embedding again
  embedding,   ///< rows are looked up, nothing is multiplied
};

/// How a matrix is to be kept in memory. The same format as stored: in place, memory-mapped.
struct storage {
  weight_format format = weight_format::f32;
  int group = 0;  ///< int4: columns a group
  friend bool operator==(const storage&, const storage&) = default;
};

/// A policy in the quantization slot with all of its members.
template <class T>
concept quantization_policy = policy_of<T, slot::quantization> &&
    requires(const T& t, matrix_use use, weight_format stored, std::ptrdiff_t columns) {
  std::string_view(T::name);
  typename T::formats;
  { t.target(use, stored, columns) } -> std::same_as<storage>;
};

/// True for a policy whose formats only devices compute: it says `static constexpr bool is_for_devices = true`.
template <class T>
inline constexpr bool for_devices = requires {
  requires T::is_for_devices;
};

/// The same, as sentences, one a missing member. `static_assert(check_policy<T>())`.
template <class T>
constexpr bool check_policy() {
  static_assert(policy_of<T, slot::quantization>,
                "effinfer: quantization policy needs  using slot = effinfer::slot::quantization;");
  static_assert(
      requires { std::string_view(T::name); },
      "effinfer: quantization policy needs  static constexpr std::string_view name = \"...\";");
  static_assert(
      requires { typename T::formats; },
      "effinfer: quantization policy needs  using formats = effinfer::quantization::formats<...>;  the formats "
      "that its products meet");
  static_assert(
      requires(const T& t, matrix_use u, weight_format f, std::ptrdiff_t c) {
        { t.target(u, f, c) } -> std::same_as<storage>;
      },
      "effinfer: quantization policy needs  storage target(matrix_use, weight_format stored, std::ptrdiff_t columns) "
      "const;");
  return quantization_policy<T>;
}

}  // namespace effinfer::inline v0::quantization
