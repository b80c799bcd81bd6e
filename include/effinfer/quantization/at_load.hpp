#pragma once
// quantization::at_load: the choice between none, int8 and int4 made when the program runs, for programs that take it from their
// own user. Compiles the products of every format; a pipeline that knows what it wants names it in the type.

#include <effinfer/quantization/formats.hpp>
#include <effinfer/quantization/int4.hpp>
#include <effinfer/quantization/int8.hpp>
#include <effinfer/quantization/none.hpp>
#include <effinfer/quantization/policy.hpp>

namespace effinfer::inline v0::quantization {

struct at_load {
  using slot = effinfer::slot::quantization;
  static constexpr std::string_view name = "quantization::at_load";
  using formats = all_formats;
  /// The policy whose `target` decides.
  enum class choice { none, int8, int4_32, int4_64, int4_128 };
  choice weights = choice::none;

  [[nodiscard]] constexpr storage target(matrix_use use, weight_format stored, std::ptrdiff_t columns) const {
    switch (weights) {
      case choice::int8: return int8::target(use, stored, columns);
      case choice::int4_32: return int4<32>::target(use, stored, columns);
      case choice::int4_64: return int4<64>::target(use, stored, columns);
      case choice::int4_128: return int4<128>::target(use, stored, columns);
      case choice::none: break;
    }
    return none::target(use, stored, columns);
  }
};

static_assert(check_policy<at_load>());

}  // namespace effinfer::inline v0::quantization
