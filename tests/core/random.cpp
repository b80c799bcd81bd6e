// core/random.hpp: the generator against the known answers of its authors, and what the library builds on it.

#include <effinfer/core/random.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

namespace random_tests {

using namespace effinfer;

TEST_CASE("Philox4x32-10 gives the known answers of Random123") {
  using counter = std::array<std::uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  // Digits of pi.
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("uniform is the upper 24 bits of the first word, in [0, 1)") {
  for (std::uint64_t position = 0; position < 2000; ++position) {
    const float u = random_stream{7}.uniform(position, 3);
    const auto word = philox4x32({static_cast<std::uint32_t>(position), 0, 3, 0}, {7, 0})[0];
    CHECK(u == static_cast<float>(word / 256) / 16777216.0f);
    CHECK(u >= 0.0f);
    CHECK(u < 1.0f);
  }
}

TEST_CASE("every bit of seed, position and draw counts") {
  std::set<float> seen;
  int numbers = 0;
  const auto add = [&](float u) {
    seen.insert(u);
    ++numbers;
  };
  add(random_stream{0}.uniform(0, 0));
  for (int bit = 0; bit < 64; ++bit) {
    add(random_stream{std::uint64_t{1} << bit}.uniform(0, 0));
    add(random_stream{0}.uniform(std::uint64_t{1} << bit, 0));
    if (bit < 32) add(random_stream{0}.uniform(0, std::uint32_t{1} << bit));
  }
  CHECK(seen.size() == static_cast<std::size_t>(numbers));
}

TEST_CASE("consecutive positions, draws and seeds are uniform and uncorrelated") {
  const int n = 100000;
  for (const int axis : {0, 1, 2}) {
    CAPTURE(axis);
    const auto number = [&](int i) {
      const auto k = static_cast<std::uint64_t>(i);
      return axis == 0   ? random_stream{1}.uniform(k)
             : axis == 1 ? random_stream{1}.uniform(5, static_cast<std::uint32_t>(k))
                         : random_stream{k}.uniform(5);
    };
    std::vector<int> bins(100, 0);
    double sum = 0, product = 0;
    float previous = number(n);
    for (int i = 0; i < n; ++i) {
      const float u = number(i);
      ++bins[static_cast<std::size_t>(u * 100)];
      sum += double{u} - 0.5;
      product += (double{u} - 0.5) * (double{previous} - 0.5);
      previous = u;
    }
    double chi_square = 0;
    for (const int count : bins) chi_square += (count - n / 100) * (count - n / 100) / (n / 100.0);
    CHECK(chi_square < 180);                              // 99 degrees of freedom: exceeded once in 10^6
    CHECK(std::abs(sum) < 5 * std::sqrt(n / 12.0));       // 5 standard deviations
    CHECK(std::abs(product) < 5 * std::sqrt(n / 144.0));  // 5 standard deviations
  }
}

TEST_CASE("a stream is usable at compile time") {
  static_assert(random_stream{3}.uniform(4) >= 0.0f && random_stream{3}.uniform(4) < 1.0f);
  static_assert(random_stream{3}.uniform(4) != random_stream{3}.uniform(5));
  CHECK(random_stream{3}.uniform(4) == random_stream{3}.uniform(4));
}

}  // namespace random_tests
