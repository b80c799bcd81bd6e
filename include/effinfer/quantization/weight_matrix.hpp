#pragma once
// A matrix of weights in any format: the view that kernels take, and storage for the ones quantized on load.

#include <effinfer/core/error.hpp>
#include <effinfer/core/weight_format.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>

namespace effinfer::inline v0::quantization {

/// Non-owning: `rows` outputs by `columns` inputs. Row r begins at data + r * row_bytes; no alignment is asked
/// for, and nothing outside [data, data + rows * row_bytes) is read. Rows are whole blocks (core/weight_format.hpp).
struct weight_matrix {
  weight_format format = weight_format::f32;
  const std::byte* data = nullptr;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  const float* scales = nullptr;  ///< int8: [rows]
  int group = 0;                  ///< int4: columns a group, 32, 64 or 128
  std::ptrdiff_t row_bytes = 0;

  [[nodiscard]] const std::byte* row(std::ptrdiff_t r) const { return data + r * row_bytes; }
};

/// The bytes that one row takes: whole blocks for the formats of files; for int8 the columns rounded up to 64; for int4
/// see quantization/format/int4.hpp. Errors: mismatch, where `columns` is no whole number of blocks or groups;
/// unsupported for `other`; invalid_argument for negative sizes or a bad group.
inline std::ptrdiff_t row_bytes(weight_format format, std::ptrdiff_t columns, int group = 0) {
  const auto fail = [&](error_code code, const std::string& problem) {
    throw error(code, "quantization::row_bytes", problem);
  };
  if (columns < 0 || columns > std::numeric_limits<std::int32_t>::max()) {
    fail(error_code::invalid_argument, "columns = " + std::to_string(columns) + " is out of range");
  }
  switch (format) {
    case weight_format::other:
      fail(error_code::unsupported, "the format of this tensor is computed by nobody here");
      break;
    case weight_format::int8: return (columns + 63) / 64 * 64;
    case weight_format::int4:
      if (group != 32 && group != 64 && group != 128) {
        fail(error_code::invalid_argument, "int4 group = " + std::to_string(group) + "; have 32, 64, 128");
      }
      if (columns % group != 0) {
        fail(error_code::mismatch,
             std::to_string(columns) + " columns are no whole number of groups of " + std::to_string(group));
      }
      return (columns + 63) / 64 * 32 + columns / group * 4;
    default: break;
  }
  if (columns % block_size(format) != 0) {
    fail(error_code::mismatch, std::to_string(columns) + " columns are no whole number of " +
                                   std::string(to_string(format)) + " blocks of " + std::to_string(block_size(format)));
  }
  return columns / block_size(format) * block_bytes(format);
}

/// A view of rows that lie one after the other, as in a checkpoint. Errors: those of `row_bytes`.
inline weight_matrix packed_rows(weight_format format, const void* data, std::ptrdiff_t rows, std::ptrdiff_t columns) {
  weight_matrix w;
  w.format = format;
  w.data = static_cast<const std::byte*>(data);
  w.rows = rows;
  w.columns = columns;
  w.row_bytes = row_bytes(format, columns);
  return w;
}

/// Owns the bytes of a matrix: what `quantize` returns. Movable; the view stays valid across moves.
class owned_weight_matrix {
 public:
  owned_weight_matrix() = default;
  /// Uninitialised rows. Errors: those of `row_bytes`; limit, where the size overflows; std::bad_alloc.
  owned_weight_matrix(weight_format format, std::ptrdiff_t rows, std::ptrdiff_t columns, int group = 0) {
    const std::size_t total = bytes(format, rows, columns, group);
    storage_.reset(static_cast<std::byte*>(::operator new (total, std::align_val_t{64})));
    bytes_ = total;
    view_.format = format;
    view_.rows = rows;
    view_.columns = columns;
    view_.group = group;
    view_.row_bytes = row_bytes(format, columns, group);
    view_.data = storage_.get();
    if (format == weight_format::int8) view_.scales = scales();
  }

  /// What a matrix of this size takes, before it is made.
  static std::size_t bytes(weight_format format, std::ptrdiff_t rows, std::ptrdiff_t columns, int group = 0) {
    const std::ptrdiff_t a_row = row_bytes(format, columns, group) + (format == weight_format::int8 ? 4 : 0);
    if (rows < 0 || (a_row > 0 && rows > std::numeric_limits<std::ptrdiff_t>::max() / 2 / a_row)) {
      throw error(error_code::limit, "quantization::owned_weight_matrix",
                  "rows = " + std::to_string(rows) + " is out of range");
    }
    return static_cast<std::size_t>(rows * a_row);
  }

  [[nodiscard]] const weight_matrix& view() const noexcept { return view_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::byte* row(std::ptrdiff_t r) noexcept { return storage_.get() + r * view_.row_bytes; }
  /// int8 only: [rows], behind the last row.
  [[nodiscard]] float* scales() noexcept {
    return reinterpret_cast<float*>(storage_.get() + view_.rows * view_.row_bytes);  // 64 divides row_bytes
  }

 private:
  struct free_aligned {
    void operator()(std::byte* p) const noexcept { ::operator delete (p, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte, free_aligned> storage_;
  std::size_t bytes_ = 0;
  weight_matrix view_;
};

}  // namespace effinfer::inline v0::quantization
