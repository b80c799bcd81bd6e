#pragma once
// int4 weights as GPTQ and AWQ checkpoints hold them, put into the order of weights.hpp on the host.
//
// Both store 4-bit codes in 32-bit words, w[n][k] = scale[g][n] * (q[k][n] - zero[g][n]) with n the output, k the input.
// GPTQ packs eight inputs a word, the first lowest; AWQ eight outputs, in the order 0, 2, 4, 6, 1, 3, 5, 7 from the lowest.
// Sources: the tensors of AutoGPTQ's and AutoAWQ's linear layers; Frantar et al., "GPTQ" (2022); Lin et al., "AWQ" (2023).

#include <effinfer/core/error.hpp>
#include <effinfer/quantization/cuda/pack.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace effinfer::inline v0::quantization::cuda {

/// The tensors of one linear layer: `rows` outputs N, `columns` inputs K, groups of `group` inputs, G = K / group.
struct gptq_tensors {
  std::span<const std::uint32_t> codes;         ///< qweight [K / 8, N]
  std::span<const std::uint32_t> zeros;         ///< qzeros [G, N / 8]
  std::span<const f16> scales;                  ///< scales [G, N]
  std::span<const std::int32_t> group_of = {};  ///< g_idx [K]; empty: input k is in group k / group
  std::ptrdiff_t rows = 0, columns = 0;
  int group = 128;
  int zero_offset = 1;  ///< what is added to a stored zero: 1 in checkpoint_format gptq, 0 in gptq_v2
};

struct awq_tensors {
  std::span<const std::uint32_t> codes;  ///< qweight [K, N / 8]
  std::span<const std::uint32_t> zeros;  ///< qzeros [G, N / 8]
  std::span<const f16> scales;           ///< scales [G, N]
  std::ptrdiff_t rows = 0, columns = 0;
  int group = 128;
};

namespace detail {

template <class Tensors>
void check_tensors(const char* who, const Tensors& w) {
  (void)int4_sizes(w.rows, w.columns, w.group);
  if (w.rows % 8 != 0) {
    throw error(error_code::unsupported, who, std::to_string(w.rows) + " outputs are no multiple of 8");
  }
  const auto rows = static_cast<std::size_t>(w.rows), columns = static_cast<std::size_t>(w.columns);
  const std::size_t groups = columns / static_cast<std::size_t>(w.group);
  check_size(who, "qweight", w.codes.size(), rows * columns / 8);
  check_size(who, "qzeros", w.zeros.size(), groups * rows / 8);
  check_size(who, "scales", w.scales.size(), groups * rows);
}

}  // namespace detail

/// The order in which the inputs stand after packing: entry i is the input of packed column i. Groups rise; within one the inputs do. Where it
/// isn't 0, 1, 2 ..., the activations must be put into it before the product (reorder_columns).
/// Errors: of int4_sizes; `mismatch` (g_idx's size); `malformed` (a group that doesn't have exactly `group` inputs, or doesn't exist).
inline std::vector<std::int32_t> gptq_input_order(const gptq_tensors& w) {
  const char* const who = "quantization::cuda::gptq_input_order";
  (void)int4_sizes(w.rows, w.columns, w.group);
  std::vector<std::int32_t> order(static_cast<std::size_t>(w.columns));
  std::iota(order.begin(), order.end(), 0);
  if (w.group_of.empty()) return order;
  detail::check_size(who, "g_idx", w.group_of.size(), order.size());
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return w.group_of[static_cast<std::size_t>(a)] < w.group_of[static_cast<std::size_t>(b)];
  });
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto wanted = static_cast<std::int32_t>(i / static_cast<std::size_t>(w.group));
    if (w.group_of[static_cast<std::size_t>(order[i])] != wanted) {
      throw error(error_code::malformed, who,
                  "g_idx doesn't put " + std::to_string(w.group) + " inputs into group " + std::to_string(wanted));
    }
  }
  return order;
}

/// Packs a GPTQ layer; `order` as gptq_input_order gives it. Errors: as pack_int4's; `mismatch` (a tensor's size), `unsupported`
/// (outputs no multiple of 8), `malformed` (an order that isn't one).
inline void pack_gptq(const gptq_tensors& w, std::span<const std::int32_t> order, std::span<words> out,
                      std::span<f16> scales, std::span<std::uint8_t> zeros) {
  const char* const who = "quantization::cuda::pack_gptq";
  detail::check_tensors(who, w);
  detail::check_size(who, "the order of inputs", order.size(), static_cast<std::size_t>(w.columns));
  detail::check_size(who, "zeros", zeros.size(), int4_sizes(w.rows, w.columns, w.group).scales);
  for (const std::int32_t k : order) {
    if (k < 0 || k >= w.columns) throw error(error_code::malformed, who, "input " + std::to_string(k));
  }
  if (w.zero_offset != 0 && w.zero_offset != 1) {
    throw error(error_code::invalid_argument, who, "a zero offset of " + std::to_string(w.zero_offset));
  }
  const auto at = [&](std::ptrdiff_t row, std::ptrdiff_t column) {
    return static_cast<std::size_t>(row * w.rows + column);
  };
  pack_int4(
      [&](std::ptrdiff_t n, std::ptrdiff_t column) {
        const std::int32_t k = order[static_cast<std::size_t>(column)];
        return w.codes[at(k / 8, n)] >> (k % 8 * 4) & 15U;
      },
      [&](std::ptrdiff_t n, std::ptrdiff_t g) { return w.scales[at(g, n)]; },
      [&](std::ptrdiff_t n, std::ptrdiff_t g) {
        return static_cast<int>(w.zeros[at(g, n) / 8] >> (n % 8 * 4) & 15U) + w.zero_offset;
      },
      w.rows, w.columns, w.group, out, scales, zeros);
}

/// Packs an AWQ layer. Errors: as pack_int4's; `mismatch` (a tensor's size), `unsupported` (outputs no multiple of 8).
inline void pack_awq(const awq_tensors& w, std::span<words> out, std::span<f16> scales, std::span<std::uint8_t> zeros) {
  const char* const who = "quantization::cuda::pack_awq";
  detail::check_tensors(who, w);
  detail::check_size(who, "zeros", zeros.size(), int4_sizes(w.rows, w.columns, w.group).scales);
  const auto nibble = [&](std::span<const std::uint32_t> of, std::ptrdiff_t row, std::ptrdiff_t n) {
    const std::ptrdiff_t within = n % 2 * 4 + n % 8 / 2;  // even outputs stand in the lower half
    return of[static_cast<std::size_t>(row * w.rows + n) / 8] >> (within * 4) & 15U;
  };
  pack_int4([&](std::ptrdiff_t n, std::ptrdiff_t k) { return nibble(w.codes, k, n); },
            [&](std::ptrdiff_t n, std::ptrdiff_t g) { return w.scales[static_cast<std::size_t>(g * w.rows + n)]; },
            [&](std::ptrdiff_t n, std::ptrdiff_t g) { return static_cast<int>(nibble(w.zeros, g, n)); }, w.rows,
            w.columns, w.group, out, scales, zeros);
}

}  // namespace effinfer::inline v0::quantization::cuda
