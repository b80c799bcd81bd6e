#pragma once
// Where products by wgmma look for the inputs of a row of x. A lane has the weights of eight inputs side by side of each 32 (weights.hpp), or of
// four of each 16, and two of them at a time meet two of each other lane's: so these lie side by side in x.

#include <effinfer/core/config.hpp>

#include <cstddef>

namespace effinfer::inline v0::quantization::cuda {

/// The order that weights want, which x has or hasn't.
enum class input_order : int { as_they_are, by_eights, by_fours };

/// Where input e of a row stands. Pairs stay together: of each 32 inputs pair i of the c-th eight comes as pair c of the i-th, or of each 16 pair i
/// of the c-th four as pair c of the i-th eight.
EFFINFER_HOST_DEVICE constexpr std::ptrdiff_t ordered_place(input_order order, std::ptrdiff_t e) {
  const int pair = static_cast<int>(e % 32) / 2;
  int place = pair;
  if (order == input_order::by_eights) place = pair % 4 * 4 + pair / 4;
  if (order == input_order::by_fours) place = pair / 8 * 8 + pair % 2 * 4 + pair % 8 / 2;
  return e + 2 * (place - pair);
}

}  // namespace effinfer::inline v0::quantization::cuda
