// layers/elementwise.hpp against double precision, on every instruction set.

#include "execution/instruction_sets.hpp"

#include <effinfer/layers/elementwise.hpp>
#include <effinfer/testing/attention_oracle.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace elementwise_tests {

using namespace effinfer;
using floats = std::vector<float>;

TEST_CASE("swiglu, add and add_bias agree with double precision at every width") {
  for (const auto set : instruction_sets::supported_bases()) {
    const execution::cpu::context exec({.threads = 2, .set = set});
    for (const int n : {1, 7, 16, 20, 32, 100}) {
      const int rows = 5;
      const auto size = static_cast<std::size_t>(rows * n);
      floats gate = testing::numbers(size, 1, 20.0f);
      const floats up = testing::numbers(size, 2, 3.0f);
      floats out(size);
      layers::swiglu(exec, {gate.data(), rows, n}, {up.data(), rows, n}, {out.data(), rows, n});
      for (std::size_t i = 0; i < size; ++i) {
        const double g = static_cast<double>(gate[i]);
        const double want = g / (1 + std::exp(-g)) * static_cast<double>(up[i]);
        CHECK(std::abs(static_cast<double>(out[i]) - want) <= 4 * 0x1p-23 * std::abs(want));
      }
      floats sum = up;
      layers::add(exec, {sum.data(), rows, n}, {gate.data(), rows, n});
      for (std::size_t i = 0; i < size; ++i) CHECK(sum[i] == up[i] + gate[i]);
      layers::swiglu(exec, {gate.data(), rows, n}, {up.data(), rows, n}, {gate.data(), rows, n});
      CHECK(gate == out);
    }
  }
}

TEST_CASE("a gate far below zero closes, far above lets through") {
  const execution::cpu::context exec({.threads = 1});
  const floats gate{-1000.0f, -100.0f, 0.0f, 100.0f, 1000.0f}, up(5, 2.0f);
  floats out(5);
  layers::swiglu(exec, {gate.data(), 1, 5}, {up.data(), 1, 5}, {out.data(), 1, 5});
  CHECK(out[0] == 0.0f);
  CHECK(std::abs(out[1]) < 1e-30f);
  CHECK(out[2] == 0.0f);
  CHECK(out[3] == 200.0f);
  CHECK(out[4] == 2000.0f);
}

}  // namespace elementwise_tests
