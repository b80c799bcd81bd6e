#pragma once
// How much memory operator new was asked for: nothing may be allocated because a bad file says so.

#include <cstddef>

namespace test {

/// Bytes asked for since the program began, freed ones too. The counting operator new is in allocated_bytes.cpp.
std::size_t allocated_bytes();

/// What `f` asks for; `f` may throw.
template <class F>
std::size_t bytes_allocated_by(const F& f) {
  const std::size_t before = allocated_bytes();
  try {
    static_cast<void>(f());
  } catch (...) {
  }
  return allocated_bytes() - before;
}

}  // namespace test
