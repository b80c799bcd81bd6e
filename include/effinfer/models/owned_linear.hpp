#pragma once
// A linear layer or a norm that stands alone, with the memory of its weights: what drafters and exits are made of.

#include <effinfer/checkpoint/drafter_files.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/models/weights.hpp>
#include <effinfer/quantization/at_load.hpp>
#include <effinfer/quantization/pack.hpp>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models {

namespace detail {

/// The tensor's numbers. Errors: `unsupported` (not F32, F16 or BF16).
inline std::vector<float> float_values(const checkpoint::tensor& t) {
  if (!is_float(t.format)) {
    throw error(error_code::unsupported, t.file + ": tensor " + t.name, "it must be F32, F16 or BF16");
  }
  std::ptrdiff_t size = 1;
  for (const std::int64_t n : t.shape) size *= n;
  std::vector<float> values(static_cast<std::size_t>(size));
  if (size > 0) quantization::decode_row(quantization::packed_rows(t.format, t.data.data(), 1, size), 0, values.data());
  return values;
}

}  // namespace detail

/// y = x w^T + bias with the packed weights' memory. Movable.
struct owned_linear {
  quantization::weight_storage memory;
  linear_layer layer;

  owned_linear() = default;
  /// Tensor `name`.weight [rows, columns], and `name`.bias [rows] with `bias`; stored as `policy` says.
  /// Errors: `missing`, `mismatch` (shapes), `unsupported` (a format).
  owned_linear(const execution::cpu::context& exec, const checkpoint::drafter_files& files, const std::string& name,
               std::int64_t rows, std::int64_t columns, bool bias, const quantization::at_load& policy,
               quantization::matrix_use use = quantization::matrix_use::projection) {
    const checkpoint::tensor& t = files.at(name + ".weight", {rows, columns});
    if (!is_float(t.format))
      throw error(error_code::unsupported, t.file + ": tensor " + t.name, "it must be F32, F16 or BF16");
    if (bias) layer.bias = detail::float_values(files.at(name + ".bias", {rows}));
    const quantization::storage to = policy.target(use, t.format, t.shape[1]);
    memory = quantization::weight_storage(quantization::packed_layout(to, rows, columns).bytes());
    quantization::pack_options options;
    options.name = t.file + ": tensor " + t.name;
    layer.weight = quantization::pack(exec, to, quantization::packed_rows(t.format, t.data.data(), rows, columns),
                                      memory.data(), options);
  }
};

}  // namespace effinfer::inline v0::models
