#pragma once
// Strips, sixteen rows of a matrix, as tensors have them become strips in the order of the GPU's products, on the host.

#include <effinfer/checkpoint/tensor.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/execution/instruction_set.hpp>
#include <effinfer/models/cuda/device_matrix.hpp>
#include <effinfer/quantization/cuda/fp8_rows.hpp>
#include <effinfer/quantization/cuda/int4_groups.hpp>
#include <effinfer/quantization/cuda/pack.hpp>
#include <effinfer/quantization/cuda/pack_blocks.hpp>
#include <effinfer/quantization/pack.hpp>
#include <effinfer/quantization/weight_matrix.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace effinfer::inline v0::models::cuda {

/// Bytes that sixteen rows take, a part.
using strip_sizes = std::array<std::size_t, matrix_parts>;
inline strip_sizes strip_sizes_of(const device_matrix& m) {
  const auto columns = static_cast<std::size_t>(m.columns);
  strip_sizes s{};
  const auto set = [&](matrix_part p, std::size_t size) { s[static_cast<std::size_t>(p)] = size; };
  if (m.format == weight_format::int8 || m.format == weight_format::fp8_e4m3) {
    set(matrix_part::units, columns * 16), set(matrix_part::scales, m.group == 0 ? 64 : columns / 128 * sizeof(float));
  } else if (m.format == weight_format::int4) {
    const std::size_t groups = columns / static_cast<std::size_t>(m.group);
    set(matrix_part::units, columns * 8), set(matrix_part::scales, groups * 32), set(matrix_part::zeros, groups * 16);
  } else if (const auto blocks = quantization::cuda::block_layout_of(m.format); blocks.bits > 0) {
    const auto of = quantization::cuda::block_strip_sizes(m.format, m.columns);
    set(matrix_part::units, of.units), set(matrix_part::high, of.high), set(matrix_part::scales, of.scales);
    set(matrix_part::minimums, of.minimums), set(matrix_part::scale_codes, of.scale_codes);
    set(matrix_part::minimum_codes, of.minimum_codes);
  } else {
    set(matrix_part::units, columns * 32);
  }
  return s;
}

/// Encodes sixteen rows at a time, of tensors that stand one below the other, as a matrix is kept. Activation: the type of 16-bit weights.
template <class Activation>
class strip_encoder {
 public:
  strip_encoder(execution::instruction_set set, const device_matrix& m,
                const std::vector<const checkpoint::tensor*>& scales)
      : set_(set),
        m_(m),
        scales_(scales),
        parts_(m.columns),
        codes_(std::size_t{16} * static_cast<std::size_t>(m.columns)) {
    if (m.group > 0) groups_.resize(std::size_t{16} * static_cast<std::size_t>(m.columns / m.group));
  }

  /// Returns the first row that can't be encoded, else the number of rows of the matrix. `to`: the strip's place in each part.
  int encode(const std::vector<const checkpoint::tensor*>& tensors, int first,
             const std::array<std::byte*, matrix_parts>& to) {
    namespace packing = quantization::cuda;
    const int rows = std::min(16, m_.rows - first);
    const auto columns = static_cast<std::size_t>(m_.columns);
    const auto at = [&](matrix_part p) { return to[static_cast<std::size_t>(p)]; };
    std::byte* const units = at(matrix_part::units);
    if (packing::block_layout_of(m_.format).bits > 0) {
      for (int r = 0; r < rows; ++r) packing::unpack_block_row(row_of(tensors, first + r), parts_.row[r]);
      packing::pack_block_strip(m_.format, parts_.row, rows, m_.columns,
                                {units, at(matrix_part::high), at(matrix_part::scales), at(matrix_part::minimums),
                                 at(matrix_part::scale_codes), at(matrix_part::minimum_codes)});
      return m_.rows;
    }
    for (int r = 0; r < rows; ++r) {
      const quantization::weight_matrix source = row_of(tensors, first + r);
      if (m_.format == weight_format::fp8_e4m3) {
        std::uint8_t* const codes = codes_.data() + static_cast<std::size_t>(r) * columns;
        auto* const row_scales = reinterpret_cast<float*>(at(matrix_part::scales));
        if (source.format == weight_format::fp8_e4m3) {
          std::memcpy(codes, source.data, columns);
          for (std::size_t c = 0; c < columns; ++c) {
            if ((codes[c] & 0x7fU) == packing::fp8_nan) return first + r;
          }
          copy_scales(tensors, first + r, m_.group == 0 ? row_scales + r : row_scales);
        } else {
          quantization::decode_row(quantization::float_formats(), source, 0, parts_.values.data());
          if (!packing::encode_fp8_row(parts_.values.data(), m_.columns, codes, row_scales[r])) return first + r;
        }
        continue;
      }
      if (m_.format == weight_format::int8) {
        bool fits = true;
        const quantization::detail::encode_row::args args{
            {weight_format::int8, 0}, source.format,  source.data, source.columns,
            parts_.values.data(),     &parts_.row[r], &fits};
        execution::dispatch<quantization::detail::encode_row>(set_, args);
        if (!fits) return first + r;
        for (std::size_t c = 0; c < columns; ++c)
          codes_[static_cast<std::size_t>(r) * columns + c] = static_cast<std::uint8_t>(parts_.row[r].codes[c] ^ 0x80U);
        std::memcpy(at(matrix_part::scales) + r * 4, &parts_.row[r].row_scale, sizeof(float));
        continue;
      }
      quantization::decode_row(quantization::float_formats(), source, 0, parts_.values.data());
      if (m_.format == weight_format::int4) {
        for (int g = 0; g < m_.columns / m_.group; ++g) {
          const std::size_t of = static_cast<std::size_t>(r) * columns + static_cast<std::size_t>(g * m_.group);
          if (!packing::encode_int4_group(parts_.values.data() + g * m_.group, m_.group, codes_.data() + of,
                                          groups_[group_index(r, g)]))
            return first + r;
        }
      } else {
        auto* const row = reinterpret_cast<Activation*>(units) + static_cast<std::size_t>(r) * columns;
        if (source.format == m_.format) {
          std::memcpy(row, source.data, columns * sizeof(Activation));
        } else {
          for (std::size_t c = 0; c < columns; ++c) row[c] = Activation(parts_.values[c]);
        }
      }
    }
    const std::span<packing::words> packed(
        reinterpret_cast<packing::words*>(units),
        strip_sizes_of(m_)[static_cast<std::size_t>(matrix_part::units)] / sizeof(packing::words));
    if (m_.format == weight_format::int8 || m_.format == weight_format::fp8_e4m3) {
      packing::pack_int8(
          {reinterpret_cast<const std::int8_t*>(codes_.data()), static_cast<std::size_t>(rows) * columns}, rows,
          m_.columns, packed);
    } else if (m_.format == weight_format::int4) {
      const auto count = static_cast<std::size_t>(16 * (m_.columns / m_.group));
      packing::pack_int4(
          [&](std::ptrdiff_t r, std::ptrdiff_t c) {
            return codes_[static_cast<std::size_t>(r) * columns + static_cast<std::size_t>(c)];
          },
          [&](std::ptrdiff_t r, std::ptrdiff_t g) { return groups_[group_index(r, g)].scale; },
          [&](std::ptrdiff_t r, std::ptrdiff_t g) { return groups_[group_index(r, g)].zero; }, rows, m_.columns,
          m_.group, packed, {reinterpret_cast<f16*>(at(matrix_part::scales)), count},
          {reinterpret_cast<std::uint8_t*>(at(matrix_part::zeros)), count});
    }
    return m_.rows;
  }

 private:
  /// The scales of a row of FP8 codes: one, or with blocks those along the row.
  void copy_scales(const std::vector<const checkpoint::tensor*>& tensors, int row, float* to) {
    std::size_t i = 0;
    while (row >= tensors[i]->shape[0]) row -= static_cast<int>(tensors[i++]->shape[0]);
    const checkpoint::tensor& s = *scales_[i];
    const std::ptrdiff_t blocks = m_.group == 0 ? 1 : m_.columns / 128;
    const bool for_all = s.data.size() == static_cast<std::size_t>(block_bytes(s.format));
    const std::ptrdiff_t from = for_all ? 0 : m_.group == 0 ? row : row / 128;
    auto w = quantization::packed_rows(s.format, s.data.data(), 1, blocks);
    w.data += from * w.row_bytes;
    quantization::decode_row(quantization::float_formats(), w, 0, to);
  }
  static quantization::weight_matrix row_of(const std::vector<const checkpoint::tensor*>& tensors, int row) {
    for (const checkpoint::tensor* t : tensors) {
      if (row < t->shape[0]) {
        auto w = quantization::packed_rows(t->format, t->data.data(), t->shape[0], t->shape[1]);
        w.data += row * w.row_bytes, w.rows = 1;
        return w;
      }
      row -= static_cast<int>(t->shape[0]);
    }
    return {};
  }
  [[nodiscard]] std::size_t group_index(std::ptrdiff_t row, std::ptrdiff_t g) const {
    return static_cast<std::size_t>(row * (m_.columns / m_.group) + g);
  }

  execution::instruction_set set_;
  const device_matrix& m_;
  const std::vector<const checkpoint::tensor*>& scales_;
  quantization::detail::unpacked_rows parts_;
  std::vector<std::uint8_t> codes_;
  std::vector<quantization::cuda::int4_group> groups_;
};

}  // namespace effinfer::inline v0::models::cuda
