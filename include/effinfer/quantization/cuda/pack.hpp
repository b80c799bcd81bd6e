#pragma once
// Codes put into the order of weights.hpp, on the host, once: from plain rows, from GPTQ's and from AWQ's layout.
//
// Sizes are asked for first (packed_sizes), so that memory can come from anywhere; packing then writes all of it.

#include <effinfer/core/error.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

namespace effinfer::inline v0::quantization::cuda {

/// Elements that packed weights take.
struct packed_sizes {
  std::size_t words = 0;   ///< of 16 bytes
  std::size_t scales = 0;  ///< and as many zeros, where there are some
};

namespace detail {

inline void check_shape(const char* who, std::ptrdiff_t rows, std::ptrdiff_t columns) {
  constexpr std::ptrdiff_t most = std::numeric_limits<std::int32_t>::max() - 127;
  if (rows < 1 || columns < 1 || rows > most || columns > most) {
    throw error(error_code::invalid_argument, who,
                std::to_string(rows) + " rows, " + std::to_string(columns) + " columns");
  }
  if (columns % unit_inputs != 0) {
    throw error(error_code::unsupported, who,
                std::to_string(columns) + " columns are no multiple of " + std::to_string(unit_inputs));
  }
}
inline void check_group(const char* who, std::ptrdiff_t columns, int group) {
  if (group != 32 && group != 64 && group != 128) {
    throw error(error_code::unsupported, who,
                "groups of " + std::to_string(group) + " inputs are not compiled in; have {32, 64, 128}");
  }
  if (columns % group != 0) {
    throw error(error_code::mismatch, who,
                std::to_string(columns) + " columns are no whole number of groups of " + std::to_string(group));
  }
}
inline void check_size(const char* who, const char* what, std::size_t has, std::size_t needs) {
  if (has != needs) {
    throw error(error_code::mismatch, who,
                std::string(what) + ": " + std::to_string(has) + " elements, needs " + std::to_string(needs));
  }
}
inline std::size_t strips(std::ptrdiff_t rows) {
  return static_cast<std::size_t>((rows + strip_rows - 1) / strip_rows);
}

}  // namespace detail

/// Of int8 weights. Errors: `invalid_argument` (sizes), `unsupported` (columns no multiple of 64).
inline packed_sizes int8_sizes(std::ptrdiff_t rows, std::ptrdiff_t columns) {
  detail::check_shape("quantization::cuda::int8_sizes", rows, columns);
  return {detail::strips(rows) * static_cast<std::size_t>(columns), static_cast<std::size_t>(rows)};
}

/// Of int4 weights. Errors: as int8_sizes; `unsupported` (a group other than 32, 64, 128), `mismatch` (no whole groups).
inline packed_sizes int4_sizes(std::ptrdiff_t rows, std::ptrdiff_t columns, int group) {
  detail::check_shape("quantization::cuda::int4_sizes", rows, columns);
  detail::check_group("quantization::cuda::int4_sizes", columns, group);
  const std::size_t strips = detail::strips(rows);
  return {strips * static_cast<std::size_t>(columns / 2),
          strips * static_cast<std::size_t>(columns / group) * strip_rows};
}

/// Packs int8 codes [rows, columns], row-major, in two's complement. Errors: as int8_sizes; `mismatch` (a span's size).
inline void pack_int8(std::span<const std::int8_t> codes, std::ptrdiff_t rows, std::ptrdiff_t columns,
                      std::span<words> out) {
  const char* const who = "quantization::cuda::pack_int8";
  const packed_sizes sizes = int8_sizes(rows, columns);
  detail::check_size(who, "codes", codes.size(), static_cast<std::size_t>(rows * columns));
  detail::check_size(who, "words", out.size(), sizes.words);
  std::size_t at = 0;
  for (std::ptrdiff_t first = 0; first < rows; first += strip_rows) {
    for (std::ptrdiff_t block = 0; block < columns; block += 32) {
      for (int lane = 0; lane < 32; ++lane, ++at) {
        for (int w = 0; w < 4; ++w) {
          const std::ptrdiff_t row = first + lane / 4 + w / 2 * 8;
          std::uint32_t word = 0;
          for (int i = 0; i < 4 && row < rows; ++i) {
            const std::ptrdiff_t column = block + lane % 4 * 8 + w % 2 * 4 + i;
            constexpr int shift[4] = {0, 16, 8, 24};  // pairs of neighbours in the two halves of a word
            word |= static_cast<std::uint32_t>(
                        static_cast<std::uint8_t>(codes[static_cast<std::size_t>(row * columns + column)]))
                    << shift[i];
          }
          out[at].w[w] = word;
        }
      }
    }
  }
}

/// Packs int4 weights; code(row, column) in [0, 15], scale(row, g) as f16, zero(row, g) in [0, 16] (not called where `zeros` is empty: all are 8).
/// Errors: as int4_sizes; `mismatch` (a span's size).
template <class Code, class Scale, class Zero>
void pack_int4(const Code& code, const Scale& scale, const Zero& zero, std::ptrdiff_t rows, std::ptrdiff_t columns,
               int group, std::span<words> out, std::span<f16> scales, std::span<std::uint8_t> zeros) {
  const char* const who = "quantization::cuda::pack_int4";
  const packed_sizes sizes = int4_sizes(rows, columns, group);
  detail::check_size(who, "words", out.size(), sizes.words);
  detail::check_size(who, "scales", scales.size(), sizes.scales);
  if (!zeros.empty()) detail::check_size(who, "zeros", zeros.size(), sizes.scales);
  std::size_t at = 0;
  for (std::ptrdiff_t first = 0; first < rows; first += strip_rows) {
    for (std::ptrdiff_t unit = 0; unit < columns; unit += unit_inputs) {
      for (int lane = 0; lane < 32; ++lane, ++at) {
        for (int w = 0; w < 4; ++w) {
          const std::ptrdiff_t row = first + lane / 4 + w % 2 * 8;
          std::uint32_t word = 0;
          for (int i = 0; i < 8 && row < rows; ++i) {
            const std::ptrdiff_t column = unit + w / 2 * 32 + lane % 4 * 8 + i;
            word |= (static_cast<std::uint32_t>(code(row, column)) & 15U) << (i / 2 * 4 + i % 2 * 16);
          }
          out[at].w[w] = word;
        }
      }
    }
  }
  at = 0;
  for (std::ptrdiff_t first = 0; first < rows; first += strip_rows) {
    for (std::ptrdiff_t g = 0; g < columns / group; ++g) {
      for (int r = 0; r < strip_rows; ++r, ++at) {
        const bool there = first + r < rows;
        scales[at] = there ? scale(first + r, g) : f16(0.0F);
        if (!zeros.empty()) zeros[at] = there ? static_cast<std::uint8_t>(zero(first + r, g)) : std::uint8_t{8};
      }
    }
  }
}

}  // namespace effinfer::inline v0::quantization::cuda
