#pragma once
// Random matrices of weights in each layout of quantization/cuda, what they stand for, and how far a product may be off.

#include "quantization/reference.hpp"
#include "simt/host.hpp"
#include "simt/numbers.hpp"

#include <effinfer/quantization/cuda/block_weights.hpp>
#include <effinfer/quantization/cuda/pack.hpp>
#include <effinfer/quantization/cuda/pack_blocks.hpp>
#include <effinfer/testing/attention_oracle.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace product_matrices {

namespace ei = effinfer;
namespace cuda = ei::quantization::cuda;
using namespace simt_host;
using ei::bf16;
using ei::f16;
using ei::testing::numbers;

constexpr thread_order orders[] = {thread_order::forward, thread_order::reverse, thread_order::shuffled};

/// A matrix in one of the layouts, and what it stands for [rows, columns].
template <class Weights>
struct matrix {
  Weights view;
  std::vector<double> values;
  std::vector<cuda::words> units;
  std::vector<float> scales;
  std::vector<f16> group_scales;
  std::vector<std::uint8_t> zeros;
  std::vector<bf16> as_bf16;
  std::vector<f16> as_f16;
};

template <class Weights>
matrix<Weights> make(int rows, int columns, std::uint64_t seed, bool with_zeros = false) {
  matrix<Weights> m;
  const auto count = static_cast<std::size_t>(rows * columns);
  const std::vector<float> random = numbers(count, seed);
  if constexpr (std::is_same_v<Weights, cuda::float_weights<bf16>> ||
                std::is_same_v<Weights, cuda::float_weights<f16>>) {
    const auto fill = [&](auto& to) {
      using T = typename std::remove_reference_t<decltype(to)>::value_type;
      to = as<T>(random);
      to.insert(to.end(), 8, T(not_a_number));
      for (std::size_t i = 0; i < count; ++i) m.values.push_back(static_cast<double>(static_cast<float>(to[i])));
      m.view = {reinterpret_cast<decltype(m.view.data)>(to.data()), columns, rows, columns};
    };
    if constexpr (std::is_same_v<Weights, cuda::float_weights<bf16>>) {
      fill(m.as_bf16);
    } else {
      fill(m.as_f16);
    }
  } else if constexpr (std::is_same_v<Weights, cuda::int8_weights>) {
    std::vector<std::int8_t> codes;
    for (const float v : random) codes.push_back(static_cast<std::int8_t>(std::floor(v * 128)));
    m.scales = numbers(static_cast<std::size_t>(rows), seed + 1);
    for (std::size_t i = 0; i < count; ++i)
      m.values.push_back(double{m.scales[i / static_cast<std::size_t>(columns)]} * codes[i]);
    m.units.resize(cuda::int8_sizes(rows, columns).words);
    cuda::pack_int8(codes, rows, columns, m.units);
    m.view = {m.units.data(), m.scales.data(), rows, columns};
  } else if constexpr (requires { Weights::is_fp8; }) {
    // With a scale for 128 inputs also one a strip.
    const int strip = Weights::group == 0 ? 1 : 16, across = Weights::group == 0 ? 1 : columns / 128;
    std::vector<std::int8_t> codes;
    for (const float v : random) {
      const auto code = static_cast<std::uint8_t>(std::floor((v + 1) * 127.9F));
      codes.push_back(static_cast<std::int8_t>((code & 127) == 127 ? code - 1 : code));
    }
    m.scales = numbers(static_cast<std::size_t>((rows + strip - 1) / strip * across), seed + 1, 0.01F);
    for (int i = 0; i < rows * columns; ++i) {
      const int row = i / columns / strip, g = i % columns / (columns / across);
      const auto code = ei::fp8_e4m3::from_bits(static_cast<std::uint8_t>(codes[static_cast<std::size_t>(i)]));
      m.values.push_back(double{m.scales[static_cast<std::size_t>(row * across + g)]} *
                         static_cast<double>(static_cast<float>(code)));
    }
    m.units.resize(cuda::int8_sizes(rows, columns).words);
    cuda::pack_int8(codes, rows, columns, m.units);
    m.view = {m.units.data(), m.scales.data(), rows, columns};
  } else {
    constexpr int group = Weights::group;
    const cuda::packed_sizes sizes = cuda::int4_sizes(rows, columns, group);
    m.units.resize(sizes.words);
    m.group_scales.resize(sizes.scales);
    if (with_zeros) m.zeros.resize(sizes.scales);
    const auto groups = columns / group;
    const std::vector<f16> scales = as<f16>(numbers(static_cast<std::size_t>(rows * groups), seed + 1));
    const auto code = [&](std::ptrdiff_t r, std::ptrdiff_t c) {
      return static_cast<int>((random[static_cast<std::size_t>(r * columns + c)] + 1) * 8);
    };
    const auto scale = [&](std::ptrdiff_t r, std::ptrdiff_t g) {
      return scales[static_cast<std::size_t>(r * groups + g)];
    };
    const auto zero = [&](std::ptrdiff_t r, std::ptrdiff_t g) {
      return with_zeros ? static_cast<int>((r * 5 + g * 3) % 17) : 8;
    };
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c)
        m.values.push_back(static_cast<double>(static_cast<float>(scale(r, c / group))) *
                           (code(r, c) - zero(r, c / group)));
    }
    cuda::pack_int4(code, scale, zero, rows, columns, group, std::span(m.units), std::span(m.group_scales),
                    std::span(m.zeros));
    m.view = {m.units.data(), m.group_scales.data(), with_zeros ? m.zeros.data() : nullptr, rows, columns};
  }
  return m;
}

/// Random GGUF blocks, packed.
template <int Bits>
struct block_matrix {
  reference::matrix stored;
  cuda::block_weights<Bits> view;
  std::vector<double> values;
  std::array<std::vector<cuda::words>, 6> parts;
};

template <int Bits>
block_matrix<Bits> make_blocks(ei::weight_format format, int rows, int columns, unsigned seed) {
  block_matrix<Bits> m;
  m.stored = reference::random_matrix({format}, rows, columns, seed);
  const cuda::block_sizes sizes = cuda::block_strip_sizes(format, columns);
  const int strips = (rows + 15) / 16;
  const std::array<std::size_t, 6> a_strip{sizes.units,    sizes.high,        sizes.scales,
                                           sizes.minimums, sizes.scale_codes, sizes.minimum_codes};
  for (std::size_t p = 0; p < 6; ++p) m.parts[p].resize(a_strip[p] * static_cast<std::size_t>(strips) / 16);
  ei::quantization::detail::unpacked_rows unpacked(columns);
  for (int s = 0; s < strips; ++s) {
    const int count = std::min(16, rows - s * 16);
    for (int r = 0; r < count; ++r) {
      auto one = m.stored.view;
      one.data += (s * 16 + r) * one.row_bytes, one.rows = 1;
      cuda::unpack_block_row(one, unpacked.row[r]);
    }
    std::array<std::byte*, 6> to{};
    for (std::size_t p = 0; p < 6; ++p)
      to[p] = reinterpret_cast<std::byte*>(m.parts[p].data()) + static_cast<std::size_t>(s) * a_strip[p];
    cuda::pack_block_strip(format, unpacked.row, count, columns, {to[0], to[1], to[2], to[3], to[4], to[5]});
  }
  const auto at = [&]<class T>(std::size_t part, const T*& to) {
    if (!m.parts[part].empty()) to = reinterpret_cast<const T*>(m.parts[part].data());
  };
  at(0, m.view.units), at(1, m.view.high), at(2, m.view.scales), at(3, m.view.minimums);
  at(4, m.view.scale_codes), at(5, m.view.minimum_codes);
  const cuda::block_layout layout = cuda::block_layout_of(format);
  m.view.offset = layout.offset, m.view.wide = layout.is_wide, m.view.rows = rows, m.view.columns = columns;
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) m.values.push_back(reference::value_at(m.stored.view, r, c));
  }
  return m;
}

/// f(std::integral_constant<int, bits>) of a format of blocks.
template <class F>
void with_bits(ei::weight_format format, const F& f) {
  switch (cuda::block_layout_of(format).bits) {
    case 4: return f(std::integral_constant<int, 4>());
    case 5: return f(std::integral_constant<int, 5>());
    case 6: return f(std::integral_constant<int, 6>());
    default: return f(std::integral_constant<int, 8>());
  }
}

constexpr ei::weight_format block_formats[] = {
    ei::weight_format::q8_0, ei::weight_format::q4_0, ei::weight_format::q4_1, ei::weight_format::q5_0,
    ei::weight_format::q5_1, ei::weight_format::q4_k, ei::weight_format::q5_k, ei::weight_format::q6_k};

/// |got - wanted| <= half a unit of T and twice what a sum in float, input by input, is off at worst in this matrix.
template <class T>
void check_product(const std::vector<T>& out, const std::vector<T>& x, const std::vector<double>& w, int tokens,
                   int rows, int columns) {
  std::vector<double> wanted(out.size());
  double float_error = 0;
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < rows; ++r) {
      double exact = 0;
      float sum = 0;
      for (int c = 0; c < columns; ++c) {
        const auto input = static_cast<float>(x[static_cast<std::size_t>(t * columns + c)]);
        const double weight = w[static_cast<std::size_t>(r * columns + c)];
        exact += double{input} * weight;
        sum += input * static_cast<float>(weight);
      }
      wanted[static_cast<std::size_t>(t * rows + r)] = exact;
      float_error = std::max(float_error, std::abs(exact - double{sum}));
    }
  }
  const double smallest = std::is_same_v<T, f16> ? 0x1p-25 : 0;  // half the unit of subnormals
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto got = static_cast<double>(static_cast<float>(out[i]));
    const double allowed = (std::abs(wanted[i]) + 2 * float_error) * rounding<T> + 2 * float_error + smallest;
    CHECK_MESSAGE(std::abs(got - wanted[i]) <= allowed, "element ", i, ": ", got, " for ", wanted[i]);
  }
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace product_matrices
