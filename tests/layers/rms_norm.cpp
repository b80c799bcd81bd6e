// layers/rms_norm.hpp against double precision, on every instruction set.

#include "execution/instruction_sets.hpp"

#include <effinfer/layers/rms_norm.hpp>
#include <effinfer/testing/attention_oracle.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

namespace rms_norm_tests {

using namespace effinfer;
using floats = std::vector<float>;

namespace {

/// Relative: about twenty roundings on the way, each of half a unit in the last place.
constexpr double tolerance = 20 * 0x1p-24;

void check_row(const float* x, const float* weight, const float* y, int n, double epsilon) {
  double squares = 0;
  for (int i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const double scale = 1 / std::sqrt(squares / n + epsilon);
  for (int i = 0; i < n; ++i) {
    const double want = static_cast<double>(x[i]) * scale * static_cast<double>(weight[i]);
    CHECK(std::abs(static_cast<double>(y[i]) - want) <= tolerance * std::abs(want));
  }
}

}  // namespace

TEST_CASE("rows, heads and the fused sum agree with double precision at every width") {
  for (const auto set : instruction_sets::supported_bases()) {
    const execution::cpu::context exec({.threads = 2, .set = set});
    for (const int n : {1, 2, 15, 16, 17, 31, 33, 64, 100, 1000}) {
      const int rows = 3;
      const auto size = static_cast<std::size_t>(rows * n);
      const floats x = testing::numbers(size, 1, 3.0f), weight = testing::numbers(static_cast<std::size_t>(n), 2);
      floats y(size);
      layers::rms_norm(exec, {x.data(), rows, n}, weight.data(), 1e-5f, {y.data(), rows, n});
      for (int r = 0; r < rows; ++r) check_row(x.data() + r * n, weight.data(), y.data() + r * n, n, 1e-5);

      floats in_place = x;
      layers::rms_norm(exec, {in_place.data(), rows, n}, weight.data(), 1e-5f, {in_place.data(), rows, n});
      CHECK(in_place == y);
      floats heads = x;  // the rows as heads of one token
      layers::head_rms_norm(exec, {heads.data(), 1, rows * n}, n, weight.data(), 1e-5f);
      CHECK(heads == y);
    }
  }
}

TEST_CASE("a row's bits don't depend on the rows beside it or on threads, and its stride is kept") {
  const execution::cpu::context one({.threads = 1}), three({.threads = 3});
  const int rows = 70, n = 48, stride = 50;
  floats x = testing::numbers(rows * stride, 5), weight = testing::numbers(n, 6), all(rows * stride, -7.0f), single(n);
  layers::rms_norm(three, {x.data(), rows, n, stride}, weight.data(), 1e-6f, {all.data(), rows, n, stride});
  for (int r = 0; r < rows; ++r) {
    layers::rms_norm(one, {x.data() + r * stride, 1, n}, weight.data(), 1e-6f, {single.data(), 1, n});
    CHECK(std::memcmp(single.data(), all.data() + r * stride, n * sizeof(float)) == 0);
    CHECK(all[static_cast<std::size_t>(r * stride + n)] == -7.0f);
  }
}

TEST_CASE("epsilon stands inside the root: a row of zeros gives zeros, a tiny one is not blown up") {
  const execution::cpu::context exec({.threads = 1});
  floats x(20, 0.0f), weight(20, 1.0f), y(20, -7.0f);
  layers::rms_norm(exec, {x.data(), 1, 20}, weight.data(), 1e-5f, {y.data(), 1, 20});
  for (const float v : y) CHECK(v == 0.0f);
  for (float& v : x) v = 1e-6f;
  layers::rms_norm(exec, {x.data(), 1, 20}, weight.data(), 1e-5f, {y.data(), 1, 20});
  for (const float v : y) CHECK(v == doctest::Approx(1e-6 / std::sqrt(1e-12 + 1e-5)).epsilon(1e-5));
}

}  // namespace rms_norm_tests
