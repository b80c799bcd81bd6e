#pragma once
// Numbers of the types that kernels compute with.

#include <effinfer/core/dtype.hpp>

#include <limits>
#include <type_traits>
#include <vector>

namespace simt_host {

namespace ei = effinfer;

inline constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

/// Half a unit in the last place of T, relative.
template <class T>
inline constexpr double rounding = std::is_same_v<T, ei::bf16>  ? 0x1p-8
                                   : std::is_same_v<T, ei::f16> ? 0x1p-11
                                                                : 0x1p-23;

template <class T>
std::vector<T> as(const std::vector<float>& from) {
  std::vector<T> to;
  for (const float x : from) to.push_back(T(x));
  return to;
}
template <class T>
std::vector<float> floats(const std::vector<T>& from) {
  std::vector<float> to;
  for (const T x : from) to.push_back(static_cast<float>(x));
  return to;
}

}  // namespace simt_host
