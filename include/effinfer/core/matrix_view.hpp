#pragma once
// A non-owning view of a row-major matrix whose rows may be strided.

#include <effinfer/core/config.hpp>

#include <cstddef>
#include <type_traits>

namespace effinfer::inline v0 {

/// `rows` x `columns` values; row r begins at `data + r * stride`. Copied by value; owns nothing.
template <class T>
struct matrix_view {
  T* data = nullptr;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t stride = 0;  ///< in elements, >= columns

  matrix_view() = default;
  EFFINFER_HOST_DEVICE constexpr matrix_view(T* d, std::ptrdiff_t r, std::ptrdiff_t c, std::ptrdiff_t s)
      : data(d), rows(r), columns(c), stride(s) {}
  EFFINFER_HOST_DEVICE constexpr matrix_view(T* d, std::ptrdiff_t r, std::ptrdiff_t c) : matrix_view(d, r, c, c) {}
  /// A view of T converts to a view of const T.
  template <class U>
    requires(std::is_same_v<const U, T> && !std::is_same_v<U, T>)
  EFFINFER_HOST_DEVICE constexpr matrix_view(matrix_view<U> other)
      : matrix_view(other.data, other.rows, other.columns, other.stride) {}

  [[nodiscard]] EFFINFER_HOST_DEVICE constexpr T* row(std::ptrdiff_t r) const { return data + r * stride; }
  [[nodiscard]] EFFINFER_HOST_DEVICE constexpr matrix_view middle_rows(std::ptrdiff_t first,
                                                                       std::ptrdiff_t count) const {
    return {row(first), count, columns, stride};
  }
  /// Columns [first, first + count) of every row.
  [[nodiscard]] EFFINFER_HOST_DEVICE constexpr matrix_view middle_columns(std::ptrdiff_t first,
                                                                          std::ptrdiff_t count) const {
    return {data + first, rows, count, stride};
  }
};

}  // namespace effinfer::inline v0
