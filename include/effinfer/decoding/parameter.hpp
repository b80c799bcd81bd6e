#pragma once
// How a decoding policy refuses a parameter: one wording for all of them.

#include <effinfer/core/error.hpp>

#include <cmath>
#include <string>
#include <string_view>

namespace effinfer::inline v0::decoding {

/// Throws `invalid_argument` "decoding::top_p.p: 1.500000 is not in (0, 1]" unless `allowed`.
template <class Value>
void check_parameter(bool allowed, std::string_view field, Value value, std::string_view range) {
  if (allowed) return;
  throw error(error_code::invalid_argument, "decoding::" + std::string(field),
              std::to_string(value) + " is not in " + std::string(range));
}

/// Temperatures are finite and not negative; 0 means the likeliest token.
inline void check_temperature(float temperature, std::string_view field) {
  check_parameter(std::isfinite(temperature) && temperature >= 0.0f, field, temperature, "[0, infinity)");
}

}  // namespace effinfer::inline v0::decoding
