#pragma once
// Counter-based random numbers: the number for (seed, position, draw) is a pure function, so the same
// seed gives the same text on any thread count, in any batch, and after a rollback.
// Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), Philox4x32-10.

#include <effinfer/core/config.hpp>

#include <array>
#include <cstdint>

namespace effinfer::inline v0 {

/// Philox4x32-10: 128 random bits for a 128-bit counter under a 64-bit key.
EFFINFER_HOST_DEVICE constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                                       std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// The random numbers of one sequence: `uniform(position, draw)` in [0, 1), 24 bits, no state.
struct random_stream {
  std::uint64_t seed = 0;

  EFFINFER_HOST_DEVICE constexpr float uniform(std::uint64_t position, std::uint32_t draw = 0) const {
    const auto r =
        philox4x32({static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(position >> 32), draw, 0},
                   {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
    return static_cast<float>(r[0] >> 8) * 0x1p-24f;
  }
};

// Known answer from the authors' Random123 distribution (kat_vectors: philox4x32 10, all zero).
static_assert(philox4x32({0, 0, 0, 0}, {0, 0}) ==
              std::array<std::uint32_t, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});

}  // namespace effinfer::inline v0
