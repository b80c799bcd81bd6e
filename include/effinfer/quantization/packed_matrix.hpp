#pragma once
// A matrix of weights as the products stream it: panels of 32 rows, each one ascending run of bytes.
//
// A panel is two halves of 16 rows whose units alternate: unit 0 of the first half, unit 0 of the second, unit 1 of the
// first ... An integer unit is 64, 128 or 256 columns: scales (cpu/scales.hpp), then codes (cpu/codes.hpp); int8 has its 32
// scales at the head of the panel. A float unit is one column (F32, F16) or two (BF16) of 16 rows. Rows and columns that
// fill up the last panel and unit are zero.

#include <effinfer/core/error.hpp>
#include <effinfer/core/weight_format.hpp>

#include <cstddef>
#include <cstdint>

namespace effinfer::inline v0::quantization {

/// Counts the ways in which panels have been laid out so far: packed weights in files are used only by a library that says the
/// same. A test holds the bytes of each format and fails where they change without this.
inline constexpr int packed_layout_version = 1;

/// Non-owning. `data` is aligned to 64 bytes.
struct packed_matrix {
  weight_format format = weight_format::f32;
  const std::byte* data = nullptr;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  int group = 0;                   ///< int4: columns a group, 32, 64 or 128
  std::ptrdiff_t panel_head = 0;   ///< bytes before the first unit
  std::ptrdiff_t unit_bytes = 0;   ///< of one half
  std::ptrdiff_t units = 0;        ///< a half
  std::ptrdiff_t panel_bytes = 0;  ///< head, and both halves

  [[nodiscard]] std::ptrdiff_t panels() const { return (rows + 31) / 32; }
  [[nodiscard]] const std::byte* panel(std::ptrdiff_t i) const { return data + i * panel_bytes; }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(panels() * panel_bytes); }
};

}  // namespace effinfer::inline v0::quantization
