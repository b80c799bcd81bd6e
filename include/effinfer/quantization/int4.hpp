#pragma once
// quantization::int4<Group>: 4-bit codes in groups of 32, 64 or 128 input columns (format/int4.hpp), encoded on load.
// The output head is kept in int8, as its errors go straight into the logits; so is a matrix whose columns
// are no whole number of groups; embeddings that are only looked up stay as stored.
// Memory: 4 + 32 / Group bits a weight.

#include <effinfer/quantization/formats.hpp>
#include <effinfer/quantization/policy.hpp>

namespace effinfer::inline v0::quantization {

template <int Group = 128>
struct int4 {
  static_assert(Group == 32 || Group == 64 || Group == 128,
                "effinfer: quantization::int4<Group> takes a Group of 32, 64 or 128 input columns");

  using slot = effinfer::slot::quantization;
  static constexpr std::string_view name = "quantization::int4";
  static constexpr int group = Group;
  using formats = quantization::formats<format::f32, format::f16, format::bf16, format::int8, format::int4>;
  static constexpr storage target(matrix_use use, weight_format stored, std::ptrdiff_t columns) {
    if (use == matrix_use::embedding) return {stored, 0};
    if (use == matrix_use::output || columns % Group != 0) return {weight_format::int8, 0};
    return {weight_format::int4, Group};
  }
};

static_assert(check_policy<int4<>>() && check_policy<int4<32>>());

}  // namespace effinfer::inline v0::quantization
