#pragma once
// A matrix of weights in any format, row by row, as checkpoints store it. Products take it packed (pack.hpp).

#include <effinfer/core/error.hpp>
#include <effinfer/core/weight_format.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

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

}  // namespace effinfer::inline v0::quantization
