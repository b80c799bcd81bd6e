#pragma once
// GGUF blocks put into the order of block_weights.hpp on the host, sixteen rows at a time.

#include <effinfer/core/error.hpp>
#include <effinfer/core/weight_format.hpp>
#include <effinfer/quantization/cuda/block_weights.hpp>
#include <effinfer/quantization/formats.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace effinfer::inline v0::quantization::cuda {

/// How the blocks of a format become block_weights.
struct block_layout {
  int bits = 0;  ///< 0: these aren't blocks
  int offset = 0;
  bool has_minimum = false;
  bool is_wide = false;  ///< a scale is 256 inputs', and codes say what a group's is of it
};

constexpr block_layout block_layout_of(weight_format f) {
  switch (f) {
    case weight_format::q8_0: return {8, 0, false, false};
    case weight_format::q4_0: return {4, 8, false, false};
    case weight_format::q4_1: return {4, 0, true, false};
    case weight_format::q5_0: return {5, 16, false, false};
    case weight_format::q5_1: return {5, 0, true, false};
    case weight_format::q4_k: return {4, 0, true, true};
    case weight_format::q5_k: return {5, 0, true, true};
    case weight_format::q6_k: return {6, 32, false, true};
    default: return {};
  }
}

/// Bytes that the parts of sixteen rows take.
struct block_sizes {
  std::size_t units = 0, high = 0, scales = 0, minimums = 0, scale_codes = 0, minimum_codes = 0;
};

/// Of rows of `columns` inputs, whole blocks and a multiple of 64.
constexpr block_sizes block_strip_sizes(weight_format f, int columns) {
  const block_layout l = block_layout_of(f);
  const auto n = static_cast<std::size_t>(columns);
  const std::size_t scales = n / (l.is_wide ? 256 : 32) * strip_rows * sizeof(f16),
                    codes = l.is_wide ? n / (l.bits == 6 ? 16 : 32) * strip_rows : 0;
  block_sizes s;
  s.units = l.bits == 8 ? n * strip_rows : n * strip_rows / 2;
  s.high = l.bits == 8 ? 0 : n * strip_rows / 8 * static_cast<std::size_t>(l.bits - 4);
  s.scales = scales, s.scale_codes = codes;
  if (l.has_minimum) s.minimums = scales, s.minimum_codes = codes;
  return s;
}

/// Where the parts of a strip go; those of no bytes may be null.
struct block_strip {
  std::byte *units, *high, *scales, *minimums, *scale_codes, *minimum_codes;
};

/// The codes and scales of a matrix of one row. Error: `unsupported` (no format of blocks).
inline void unpack_block_row(const weight_matrix& w, unpacked_row& to) {
  const auto one = [&]<class Format>(Format) {
    if constexpr (block_layout_of(Format::name).bits > 0) {
      if (w.format == Format::name) return Format::unpack_row(w, 0, to), true;
    }
    return false;
  };
  const bool found = [&]<class... Format>(formats<Format...>) { return (one(Format()) || ...); }(all_formats());
  if (!found) {
    throw error(error_code::unsupported, "quantization::cuda::unpack_block_row",
                std::string(to_string(w.format)) + " has no blocks");
  }
}

namespace detail {

template <int Bits>
void pack_block_codes(const unpacked_row* row, int rows, int columns, std::byte* units, std::byte* high) {
  using weights = block_weights<Bits>;
  for (int unit = 0; unit < columns / unit_inputs; ++unit) {
    std::uint32_t low[weights::pieces * 128] = {}, upper[32 * (weights::high_words + 1)] = {};
    for (int r = 0; r < rows; ++r) {
      const std::uint8_t* const codes = row[r].codes + unit * unit_inputs;
      for (int c = 0; c < unit_inputs; ++c) {
        const auto at = weights::place(r, c);
        const std::uint32_t code = Bits == 8 ? codes[c] ^ 0x80U : codes[c];
        low[(at.piece * 32 + at.lane) * 4 + at.word] |= (Bits == 8 ? code : code & 15U) << at.shift;
        if constexpr (weights::high_words > 0)
          upper[at.lane * weights::high_words + at.high_word] |= code >> 4 << at.high_shift;
      }
    }
    std::memcpy(units + sizeof low * static_cast<std::size_t>(unit), low, sizeof low);
    constexpr std::size_t high_bytes = std::size_t{128} * weights::high_words;
    if (high_bytes > 0) std::memcpy(high + high_bytes * static_cast<std::size_t>(unit), upper, high_bytes);
  }
}

}  // namespace detail

/// Packs up to sixteen rows as unpack_block_row leaves them; rows that aren't there get scales of zero. Writes block_strip_sizes.
inline void pack_block_strip(weight_format f, const unpacked_row* row, int rows, int columns, const block_strip& to) {
  const block_layout l = block_layout_of(f);
  switch (l.bits) {
    case 4: detail::pack_block_codes<4>(row, rows, columns, to.units, to.high); break;
    case 5: detail::pack_block_codes<5>(row, rows, columns, to.units, to.high); break;
    case 6: detail::pack_block_codes<6>(row, rows, columns, to.units, to.high); break;
    case 8: detail::pack_block_codes<8>(row, rows, columns, to.units, to.high); break;
    default:
      throw error(error_code::unsupported, "quantization::cuda::pack_block_strip",
                  std::string(to_string(f)) + " has no blocks");
  }
  const int scales = columns / (l.is_wide ? 256 : 32), codes = l.is_wide ? columns / (l.bits == 6 ? 16 : 32) : 0;
  for (int r = 0; r < strip_rows; ++r) {
    const bool is_there = r < rows;
    for (int i = 0; i < scales; ++i) {
      const std::uint16_t scale = is_there ? row[r].scales[i] : std::uint16_t{0};
      std::memcpy(to.scales + (i * strip_rows + r) * 2, &scale, 2);
      if (!l.has_minimum) continue;
      // The K formats subtract theirs.
      std::uint16_t minimum = is_there ? row[r].minimums[i] : std::uint16_t{0};
      if (l.is_wide) minimum ^= 0x8000U;
      std::memcpy(to.minimums + (i * strip_rows + r) * 2, &minimum, 2);
    }
    for (int i = 0; i < codes; ++i) {
      to.scale_codes[i * strip_rows + r] = static_cast<std::byte>(is_there ? row[r].block_scales[i] : 0);
      if (l.has_minimum)
        to.minimum_codes[i * strip_rows + r] = static_cast<std::byte>(is_there ? row[r].block_minimums[i] : 0);
    }
  }
}

}  // namespace effinfer::inline v0::quantization::cuda
