#pragma once
// Words that change places among the lanes of a warp, so that each has together what it stores at once.

#include <effinfer/core/config.hpp>

#include <cstdint>

namespace effinfer::inline v0::execution::simt {

/// Among four lanes `Apart` from each other, lane l being the l / Apart % 4-th: word i of the c-th becomes word c of the i-th. So
/// lanes that had 4 bytes of each of four pieces of 16 have a whole piece each. All lanes call it.
template <int Apart, class Simt>
EFFINFER_HOST_DEVICE void transpose_words(Simt& t, std::uint32_t (&w)[4]) {
  const int c = t.lane() / Apart;
  const bool odd = c % 2 == 1, high = c % 4 >= 2;
  EFFINFER_UNROLL
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t got = t.shuffle_xor(odd ? w[i] : w[i + 1], Apart);
    w[i] = odd ? got : w[i];
    w[i + 1] = odd ? w[i + 1] : got;
  }
  EFFINFER_UNROLL
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t got = t.shuffle_xor(high ? w[i] : w[i + 2], 2 * Apart);
    w[i] = high ? got : w[i];
    w[i + 2] = high ? w[i + 2] : got;
  }
}

}  // namespace effinfer::inline v0::execution::simt
