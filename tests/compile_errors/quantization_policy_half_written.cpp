// expect: effinfer: quantization policy needs  storage target(matrix_use, weight_format stored, std::ptrdiff_t columns) const;
#include <effinfer/quantization/none.hpp>

namespace ei = effinfer;

struct halves {
  using slot = ei::slot::quantization;
  static constexpr std::string_view name = "halves";
  using formats = ei::quantization::float_formats;
#ifndef EFFINFER_BAD
  static constexpr ei::quantization::storage target(ei::quantization::matrix_use, ei::weight_format, std::ptrdiff_t) {
    return {ei::weight_format::f16, 0};
  }
#endif
};

static_assert(ei::quantization::check_policy<halves>());
