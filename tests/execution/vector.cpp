// execution/vector.hpp against scalar arithmetic, on every instruction set of this machine.

#include "execution/instruction_sets.hpp"

#include <effinfer/execution/vector.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace vector_tests {

using namespace effinfer;
using execution::f32x16;
using execution::instruction_set;

namespace {

template <class T>
struct widen_kernel {
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const T* in, float* out) {
    f32x16<Set>::load(in).store(out);
  }
};

template <class T>
struct narrow_kernel {
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* in, T* out) {
    f32x16<Set>::load(in).store(out);
  }
};

struct exp_kernel {
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* in, float* out) {
    exp(f32x16<Set>::load(in)).store(out);
  }
};

struct dot_kernel {
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* x, const float* y, std::ptrdiff_t n, float* out) {
    using vector = f32x16<Set>;
    vector s = vector::zero();
    std::ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16) s = fma(vector::load(x + i), vector::load(y + i), s);
    if (i < n) s = fma(vector::load_first(x + i, n - i), vector::load_first(y + i, n - i), s);
    *out = s.sum();
  }
};

struct lanes_kernel {
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* x, const float* y, float* out) {
    using vector = f32x16<Set>;
    const vector a = vector::load(x), b = vector::load(y);
    (a + b).store(out);
    (a - b).store(out + 16);
    (a * b).store(out + 32);
    (a / b).store(out + 48);
    max(a, b).store(out + 64);
    abs(a).store(out + 80);
    out[96] = a.sum();
    out[97] = a.max_lane();
    min(a, b).store(out + 98);
    where_less(a, b, a + a, b).store(out + 114);
  }
};

struct bytes_kernel {
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* in, std::uint8_t* out) {
    f32x16<Set>::load(in).store(out);
  }
};

struct partial_kernel {
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* x, std::ptrdiff_t n, float* loaded, float* stored) {
    const auto v = f32x16<Set>::load_first(x, n, -7.0f);
    v.store(loaded);
    v.store_first(stored, n);
  }
};

bool same_bits(float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }
bool same_float(float a, float b) { return same_bits(a, b) || (std::isnan(a) && std::isnan(b)); }

template <class T>
void check_all_16_bit_patterns() {
  for (auto set : instruction_sets::supported_bases()) {
    int wrong = 0;
    for (std::uint32_t base = 0; base < 65536; base += 16) {
      unsigned char unaligned[33];
      T in[16];
      float out[16];
      for (std::uint32_t i = 0; i < 16; ++i) in[i] = T::from_bits(static_cast<std::uint16_t>(base + i));
      std::memcpy(unaligned + 1, in, sizeof in);
      execution::dispatch<widen_kernel<T>>(set, reinterpret_cast<const T*>(unaligned + 1), &out[0]);
      for (int i = 0; i < 16; ++i) wrong += same_float(out[i], static_cast<float>(in[i])) ? 0 : 1;
    }
    CHECK(wrong == 0);
  }
}

template <class T>
void check_narrowing() {
  for (auto set : instruction_sets::supported_bases()) {
    int wrong = 0;
    std::uint32_t state = 12345;
    for (int repeat = 0; repeat < 20000; ++repeat) {
      float in[16];
      T out[16];
      for (float& value : in) {
        state = state * 1664525u + 1013904223u;
        // All exponents that f16 holds, and some beyond.
        value = std::bit_cast<float>((state & 0x807fffffu) | ((100u + (state >> 9) % 48u) << 23));
      }
      in[repeat % 16] = repeat % 3 == 0 ? std::numeric_limits<float>::infinity() : in[repeat % 16];
      execution::dispatch<narrow_kernel<T>>(set, &in[0], &out[0]);
      for (int i = 0; i < 16; ++i) wrong += out[i] == T(in[i]) ? 0 : 1;
    }
    CHECK(wrong == 0);
  }
}

}  // namespace

TEST_CASE("f16 and bf16 load exactly: every bit pattern, unaligned") {
  check_all_16_bit_patterns<f16>();
  check_all_16_bit_patterns<bf16>();
}

TEST_CASE("f16 and bf16 stores round to nearest even") {
  check_narrowing<f16>();
  check_narrowing<bf16>();
}

TEST_CASE("exp is accurate to 1.5 units in the last place over its whole range") {
  for (auto set : instruction_sets::supported_bases()) {
    double worst = 0;
    float in[16], out[16];
    for (double x = -103.9; x < 88.72; x += 16 * 0.00037) {
      for (int i = 0; i < 16; ++i) in[i] = static_cast<float>(x + i * 0.00037);
      execution::dispatch<exp_kernel>(set, &in[0], &out[0]);
      for (int i = 0; i < 16; ++i) {
        const double exact = std::exp(static_cast<double>(in[i]));
        if (exact > 3.4028234e38) continue;
        const float nearest = static_cast<float>(exact);
        const double unit = static_cast<double>(std::nextafter(nearest, INFINITY)) - static_cast<double>(nearest);
        worst = std::max(worst, std::abs(static_cast<double>(out[i]) - exact) / unit);
      }
    }
    INFO("worst error, units in the last place: ", worst);
    CHECK(worst <= 1.5);
    CHECK(worst > 0.0);
  }
}

TEST_CASE("exp at its ends") {
  const float inf = std::numeric_limits<float>::infinity();
  for (auto set : instruction_sets::supported_bases()) {
    const float in[16] = {-inf,    inf,   std::nanf(""), 0.0f,  -0.0f,  1000.0f, -1000.0f, 88.8f,
                          -104.5f, 1e38f, -1e38f,        88.0f, 1e-30f, -1e-30f, 89.0f,    -150.0f};
    float out[16];
    execution::dispatch<exp_kernel>(set, &in[0], &out[0]);
    CHECK(out[0] == 0.0f);
    CHECK(out[1] == inf);
    CHECK(std::isnan(out[2]));
    CHECK(out[3] == 1.0f);
    CHECK(out[4] == 1.0f);
    CHECK(out[5] == inf);
    CHECK(out[6] == 0.0f);
    CHECK(out[7] == inf);
    CHECK(out[8] == 0.0f);
    CHECK(out[9] == inf);
    CHECK(out[10] == 0.0f);
    CHECK(std::isfinite(out[11]));
    CHECK(out[12] == 1.0f);
    CHECK(out[13] == 1.0f);
  }
}

TEST_CASE("lane-wise operations and the fixed order of the sum") {
  float x[16], y[16];
  for (int i = 0; i < 16; ++i) {
    x[i] = (i % 3 == 0 ? -1.0f : 1.0f) * std::exp2(static_cast<float>(i - 4)) * 1.2345678f;
    y[i] = static_cast<float>(7 - i) * 0.3f + 0.01f;
  }
  float eight[8], four[4];
  for (int i = 0; i < 8; ++i) eight[i] = x[i] + x[i + 8];
  for (int i = 0; i < 4; ++i) four[i] = eight[i] + eight[i + 4];
  const float sum = (four[0] + four[2]) + (four[1] + four[3]);
  for (auto set : instruction_sets::supported_bases()) {
    float out[130];
    execution::dispatch<lanes_kernel>(set, &x[0], &y[0], &out[0]);
    for (int i = 0; i < 16; ++i) {
      CHECK(same_bits(out[i], x[i] + y[i]));
      CHECK(same_bits(out[16 + i], x[i] - y[i]));
      CHECK(same_bits(out[32 + i], x[i] * y[i]));
      CHECK(same_bits(out[48 + i], x[i] / y[i]));
      CHECK(same_bits(out[64 + i], std::max(x[i], y[i])));
      CHECK(same_bits(out[80 + i], std::abs(x[i])));
      CHECK(same_bits(out[98 + i], std::min(x[i], y[i])));
      CHECK(same_bits(out[114 + i], x[i] < y[i] ? x[i] + x[i] : y[i]));
    }
    CHECK(same_bits(out[96], sum));
    CHECK(same_bits(out[97], *std::max_element(x, x + 16)));
  }
}

TEST_CASE("the greater and the lesser of a NaN and a number are the second") {
  const float nan = std::nanf("");
  for (auto set : instruction_sets::supported_bases()) {
    float x[16] = {nan, 1.0f}, y[16] = {1.0f, nan}, out[130];
    execution::dispatch<lanes_kernel>(set, &x[0], &y[0], &out[0]);
    for (const int at : {64, 98, 114}) CHECK((out[at] == 1.0f && std::isnan(out[at + 1])));
  }
}

TEST_CASE("whole numbers are stored as bytes") {
  for (auto set : instruction_sets::supported_bases()) {
    for (int first = 0; first < 256; first += 16) {
      float in[16];
      std::uint8_t out[17] = {};
      for (int i = 0; i < 16; ++i) in[i] = static_cast<float>(first + i);
      execution::dispatch<bytes_kernel>(set, &in[0], &out[0]);
      for (int i = 0; i < 16; ++i) CHECK(out[i] == first + i);
      CHECK(out[16] == 0);
    }
  }
}

TEST_CASE("partial loads and stores touch n values and no more") {
  for (auto set : instruction_sets::supported_bases()) {
    for (std::ptrdiff_t n = 0; n < 16; ++n) {
      // Exactly n floats on the heap: the address sanitizer sees one too many.
      std::vector<float> in(static_cast<std::size_t>(n)), stored(static_cast<std::size_t>(n) + 1, 99.0f);
      for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i) + 0.5f;
      float loaded[16];
      execution::dispatch<partial_kernel>(set, in.data(), n, &loaded[0], stored.data());
      for (std::ptrdiff_t i = 0; i < 16; ++i) CHECK(loaded[i] == (i < n ? static_cast<float>(i) + 0.5f : -7.0f));
      for (std::ptrdiff_t i = 0; i < n; ++i) CHECK(stored[static_cast<std::size_t>(i)] == static_cast<float>(i) + 0.5f);
      CHECK(stored[static_cast<std::size_t>(n)] == 99.0f);
    }
  }
}

TEST_CASE("all sets but the portable agree bit for bit; that within rounding") {
  std::vector<float> x(1003), y(1003);
  std::uint32_t state = 7;
  double exact = 0, magnitude = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    state = state * 1664525u + 1013904223u;
    x[i] = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
    state = state * 1664525u + 1013904223u;
    y[i] = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
    exact += static_cast<double>(x[i]) * static_cast<double>(y[i]);
    magnitude += std::abs(static_cast<double>(x[i]) * static_cast<double>(y[i]));
  }
  std::vector<float> results;
  for (auto set : instruction_sets::supported_bases()) {
    float r = 0;
    execution::dispatch<dot_kernel>(set, x.data(), y.data(), std::ptrdiff_t{1003}, &r);
    // 63 additions a lane, 4 across: 67 roundings of 2^-24 at most.
    CHECK(std::abs(static_cast<double>(r) - exact) <= 67 * 0x1p-24 * magnitude);
    results.push_back(r);
  }
  const auto all = instruction_sets::supported_bases();
  for (std::size_t s = 2; s < all.size(); ++s) {
    CHECK(same_bits(results[1], results[s]));
    float in[16], a[16], b[16];
    for (float base = -100.0f; base < 88.0f; base += 0.37f) {
      for (int i = 0; i < 16; ++i) in[i] = base + 0.02f * static_cast<float>(i);
      execution::dispatch<exp_kernel>(all[1], &in[0], &a[0]);
      execution::dispatch<exp_kernel>(all[s], &in[0], &b[0]);
      CHECK(std::memcmp(a, b, sizeof a) == 0);
    }
  }
}

}  // namespace vector_tests
