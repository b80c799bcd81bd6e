// core/dtype.hpp: every 16-bit pattern decodes, and every float rounds, as the definition of the format says.
//
// Rounding is monotone and constant between the midpoints of neighbouring 16-bit values, so it is right everywhere when
// it is right at each value, at each midpoint, and at the two floats beside it. All of these are tried.

#include <effinfer/core/dtype.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <effinfer/core/random.hpp>

namespace dtype_tests {

using namespace effinfer;

namespace {

struct layout {
  int exponent_bits, fraction_bits;
};
constexpr layout half{5, 10}, brain{8, 7};

constexpr int bias(layout l) { return (1 << (l.exponent_bits - 1)) - 1; }
constexpr std::uint32_t infinity_bits(layout l) { return ((1u << l.exponent_bits) - 1) << l.fraction_bits; }

/// IEEE 754, section 3.4: the value of a bit pattern that is not NaN.
double value_of(layout l, std::uint32_t bits) {
  const std::uint32_t magnitude = bits & 0x7fffu;
  const double sign = bits & 0x8000u ? -1 : 1;
  if (magnitude == infinity_bits(l)) return sign * std::numeric_limits<double>::infinity();
  const int exponent = static_cast<int>(magnitude >> l.fraction_bits);
  const double fraction = static_cast<double>(magnitude & ((1u << l.fraction_bits) - 1));
  const int shift = std::max(exponent, 1) - bias(l) - l.fraction_bits;
  return sign * std::ldexp(exponent == 0 ? fraction : fraction + (1 << l.fraction_bits), shift);
}

/// IEEE 754, section 4.3.1, roundTiesToEven: the pattern nearest to x, which is not NaN.
std::uint32_t nearest(layout l, float x) {
  const std::uint32_t sign = std::signbit(x) ? 0x8000u : 0;
  const double magnitude = std::abs(double{x});
  if (std::isinf(magnitude)) return sign | infinity_bits(l);
  const int exponent = std::max(magnitude > 0 ? std::ilogb(magnitude) : -1000, 1 - bias(l));
  const double unit = std::ldexp(1, exponent - l.fraction_bits);  // the spacing of the format at x
  const double rounded = std::nearbyint(magnitude / unit) * unit;
  const double greatest = value_of(l, infinity_bits(l) - 1);
  if (rounded > greatest) return sign | infinity_bits(l);
  const int of = std::max(rounded > 0 ? std::ilogb(rounded) : -1000, 1 - bias(l));
  const auto steps = static_cast<std::uint32_t>(std::ldexp(rounded, l.fraction_bits - of));  // with the hidden bit
  const bool normal = steps >> l.fraction_bits;
  const auto field = static_cast<std::uint32_t>(normal ? of + bias(l) : 0);
  return sign | (field << l.fraction_bits) | (steps & ((1u << l.fraction_bits) - 1));
}

template <class T>
void check_all(layout l) {
  long wrong = 0;
  for (std::uint32_t bits = 0; bits <= 0xffffu; ++bits) {
    const auto stored = T::from_bits(static_cast<std::uint16_t>(bits));
    const auto decoded = static_cast<float>(stored);
    if ((bits & 0x7fffu) > infinity_bits(l)) {
      wrong += !std::isnan(decoded);
      const T back(decoded);
      wrong += (back.bits & 0x7fffu) <= infinity_bits(l);  // still NaN
      wrong += (back.bits & 0x8000u) != (bits & 0x8000u);
      continue;
    }
    wrong += double{decoded} != value_of(l, bits) || std::signbit(decoded) != (bits >> 15 != 0);
    wrong += T(decoded).bits != bits;
    if ((bits & 0x7fffu) == infinity_bits(l)) continue;
    // The midpoint to the next pattern away from zero (the greatest value's "next" is what infinity would be); 12 or 16 further
    // fraction bits of a float hold it, and its neighbours.
    const double next = (bits & 0x7fffu) + 1 == infinity_bits(l) ? std::copysign(std::ldexp(1, bias(l) + 1), decoded)
                                                                 : value_of(l, bits + 1);
    const auto midpoint = static_cast<float>((double{decoded} + next) / 2);
    for (const float x : {midpoint, std::nextafterf(midpoint, 0), std::nextafterf(midpoint, 2 * midpoint),
                          std::nextafterf(decoded, 0), std::nextafterf(decoded, midpoint)}) {
      wrong += T(x).bits != nearest(l, x);
    }
  }
  CHECK(wrong == 0);
}

template <class T>
void check_random(layout l) {
  long wrong = 0;
  for (std::uint32_t i = 0; i < 2000000; ++i) {
    const auto x = std::bit_cast<float>(philox4x32({i, 0, 0, 0}, {1, 2})[0]);
    if (std::isnan(x)) {
      wrong += !std::isnan(static_cast<float>(T(x)));
    } else {
      wrong += T(x).bits != nearest(l, x);
    }
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("f16: all patterns, all midpoints") { check_all<f16>(half); }
TEST_CASE("bf16: all patterns, all midpoints") { check_all<bf16>(brain); }
TEST_CASE("f16: floats of all kinds") { check_random<f16>(half); }
TEST_CASE("bf16: floats of all kinds") { check_random<bf16>(brain); }

TEST_CASE("fp8: all patterns, all midpoints, what is beyond") {
  const auto value = [](int code) {  // Micikevicius et al. 2022, table 1
    const int exponent = code >> 3 & 15, fraction = code & 7;
    const double size = exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
    return static_cast<float>(code < 128 ? size : -size);
  };
  for (int code = 0; code < 256; ++code) {
    const float v = static_cast<float>(fp8_e4m3::from_bits(static_cast<std::uint8_t>(code)));
    if ((code & 127) == 127) {
      CHECK(std::isnan(v));
      continue;
    }
    CHECK(v == value(code));
    CHECK(fp8_e4m3(v).bits == code);
    if ((code & 127) == 126) continue;
    const float middle = (v + value(code + 1)) / 2, above = value(code + 1);
    CHECK(fp8_e4m3(middle).bits == (code % 2 == 0 ? code : code + 1));
    CHECK(fp8_e4m3(std::nextafter(middle, v)).bits == code);
    CHECK(fp8_e4m3(std::nextafter(middle, above)).bits == code + 1);
    CHECK(fp8_e4m3(std::nextafter(v, above)).bits == code);
  }
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float beyond : {448.0f, 449.0f, 464.0f, 480.0f, 1e30f, infinity}) {
    CHECK(fp8_e4m3(beyond).bits == 0x7e);
    CHECK(fp8_e4m3(-beyond).bits == 0xfe);
  }
  CHECK(fp8_e4m3(std::numeric_limits<float>::quiet_NaN()).bits == 0x7f);
  CHECK(fp8_e4m3(std::numeric_limits<float>::denorm_min()).bits == 0);
}

TEST_CASE("numbers worked out by hand") {
  CHECK(f16(1.0f).bits == 0x3c00);
  CHECK(f16(-2.0f).bits == 0xc000);
  CHECK(f16(65504.0f).bits == 0x7bff);
  CHECK(f16(65519.99f).bits == 0x7bff);
  CHECK(f16(65520.0f).bits == 0x7c00);
  CHECK(f16(0x1p-14f).bits == 0x0400);
  CHECK(f16(0x1p-24f).bits == 0x0001);
  CHECK(f16(0x1p-25f).bits == 0x0000);    // a tie, to even
  CHECK(f16(0x1.8p-24f).bits == 0x0002);  // a tie, to even
  CHECK(f16(0x1.000002p-25f).bits == 0x0001);
  CHECK(bf16(1.0f).bits == 0x3f80);
  CHECK(bf16(0x1.01p0f).bits == 0x3f80);      // a tie, to even
  CHECK(bf16(0x1.03p0f).bits == 0x3f82);      // a tie, to even
  CHECK(bf16(3.3961775e38f).bits == 0x7f80);  // beyond the greatest
  CHECK(static_cast<float>(bf16::from_bits(0x0001)) == 0x1p-133f);
  CHECK(f16(-0.0f).bits == 0x8000);
  CHECK(bf16(-0.0f).bits == 0x8000);
}

}  // namespace dtype_tests
