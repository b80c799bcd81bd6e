#pragma once
// The list of formats that a program computes with, chosen at compile time; which one a tensor has is known at run time.

#include <effinfer/quantization/format/bf16.hpp>
#include <effinfer/quantization/format/f16.hpp>
#include <effinfer/quantization/format/f32.hpp>
#include <effinfer/quantization/format/int4.hpp>
#include <effinfer/quantization/format/int8.hpp>
#include <effinfer/quantization/format/q4_0.hpp>
#include <effinfer/quantization/format/q4_1.hpp>
#include <effinfer/quantization/format/q4_k.hpp>
#include <effinfer/quantization/format/q5_0.hpp>
#include <effinfer/quantization/format/q5_1.hpp>
#include <effinfer/quantization/format/q5_k.hpp>
#include <effinfer/quantization/format/q6_k.hpp>
#include <effinfer/quantization/format/q8_0.hpp>

namespace effinfer::inline v0::quantization {

template <class... Format>
struct formats {
  static constexpr bool contains(weight_format f) { return ((f == Format::name) || ...); }
  static constexpr bool has_integers = (!Format::is_float || ...);
};

using float_formats = formats<format::f32, format::f16, format::bf16>;
using all_formats =
    formats<format::f32, format::f16, format::bf16, format::q8_0, format::q4_0, format::q4_1, format::q5_0,
            format::q5_1, format::q4_k, format::q5_k, format::q6_k, format::int8, format::int4>;

/// The values of one row, whatever its format: an embedding lookup. `out` has w.columns floats.
/// Errors: unsupported, for a format outside of the list; invalid_argument, for a row outside of the matrix.
template <class... Format>
void decode_row(formats<Format...>, const weight_matrix& w, std::ptrdiff_t row, float* out) {
  if (row < 0 || row >= w.rows) {
    throw error(error_code::invalid_argument, "quantization::decode_row",
                "row " + std::to_string(row) + " of a matrix of " + std::to_string(w.rows) + " rows");
  }
  const bool found = ((w.format == Format::name ? (Format::decode_row(w, row, out), true) : false) || ...);
  if (!found) {
    throw error(error_code::unsupported, "quantization::decode_row",
                "the format " + std::string(to_string(w.format)) + " isn't among those compiled in");
  }
}
inline void decode_row(const weight_matrix& w, std::ptrdiff_t row, float* out) {
  decode_row(all_formats(), w, row, out);
}

}  // namespace effinfer::inline v0::quantization
