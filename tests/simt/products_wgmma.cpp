// quantization/cuda/wgmma_product.hpp on the host context, against sums in double of the numbers that the weights stand for.

#include "simt/hopper.hpp"
#include "simt/product_matrices.hpp"

#include <effinfer/layers/cuda/elementwise.hpp>
#include <effinfer/layers/cuda/rms_norm.hpp>
#include <effinfer/quantization/cuda/wgmma_product.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

namespace products_wgmma_tests {

using namespace product_matrices;

namespace {

constexpr simt::device_limits hopper_with(int multiprocessors) { return {multiprocessors, 227 * 1024, true}; }

/// In tiles of `tile_rows`, or as planned.
template <class Weights, class T>
std::vector<T> product(const Weights& w, const std::vector<T>& x, int tokens, int multiprocessors, int tile_rows = 0,
                       thread_order order = thread_order::shuffled) {
  std::vector<T> out(static_cast<std::size_t>(tokens * w.rows), T(not_a_number));
  std::vector<cuda::words> memory(x.size() * sizeof(T) / sizeof(cuda::words), cuda::words{{~0U, ~0U, ~0U, ~0U}});
  const ei::matrix_view<T> ordered(reinterpret_cast<T*>(memory.data()), tokens, w.columns);
  start<cuda::order_inputs<T>>({{x.data(), tokens, w.columns}, ordered, cuda::order_of<Weights>}, order);
  cuda::wgmma_args<Weights, T> a{ordered, w, {out.data(), tokens, w.rows}, {}, {}};
  a.plan = cuda::plan_wgmma(a.x, w, a.out, hopper_with(multiprocessors));
  if (tile_rows > 0) a.plan.tile_rows = tile_rows;
  cuda::start_wgmma(a, make_tensor_map,
                    [order](auto kernel, const auto& args) { start<typename decltype(kernel)::type>(args, order); });
  return out;
}

/// What is multiplied: weights in groups are scaled by numbers of T and rounded to T.
template <class T, class Weights>
std::vector<double> operands(const Weights& w, std::vector<double> values) {
  if constexpr (Weights::group > 0) {
    const auto round = [](double v) { return static_cast<double>(static_cast<float>(T(static_cast<float>(v)))); };
    for (int i = 0; i < w.rows * w.columns; ++i) {
      const int row = i / w.columns, strip = row / 16, g = i % w.columns / Weights::group;
      const double scale = w.scale(strip, g, row % 16);
      double minimum = 0, middle = 0;
      if constexpr (Weights::may_have_minimum) {
        if (w.minimums != nullptr) minimum = w.minimum(strip, g, row % 16), middle = double{Weights::middle} - w.offset;
      }
      double& value = values[static_cast<std::size_t>(i)];
      const double code = scale == 0 ? 0 : std::round((value - minimum) / scale * 512) / 512;  // of FP8 too
      value = round(round(scale) * (code - middle) + round(minimum + scale * middle));
    }
  }
  return values;
}

template <class Weights, class T, class Make>
void check_of(const Make& make_matrix, int multiple, std::size_t shapes = 4) {
  struct shape {
    int tokens, rows, least;
  };
  constexpr std::array<shape, 4> all{shape{63, 150, 192}, shape{130, 40, 128}, shape{65, 17, 576}, shape{1, 16, 64}};
  for (const auto& [tokens, rows, least] : std::span(all).first(shapes)) {
    const int columns = (least + multiple - 1) / multiple * multiple;
    const auto m = make_matrix(rows, columns);
    const std::vector<T> x = as<T>(numbers(static_cast<std::size_t>(tokens * columns), 3));
    const std::vector<T> out = product(m.view, x, tokens, 1);
    check_product(out, x, operands<T>(m.view, m.values), tokens, rows, columns);
    for (const int tile_rows : {64, 128, 256}) {
      if (tile_rows / 2 < tokens) CHECK(same_bits(out, product(m.view, x, tokens, 2, tile_rows)));
    }
    const int some = (tokens + 2) / 3;  // the read in two passes
    const std::vector<T> last(x.end() - some * columns, x.end());
    CHECK(same_bits(product(m.view, last, some, 3), std::vector<T>(out.end() - some * rows, out.end())));
  }
}

template <class Weights, class T>
void check(bool with_zeros = false) {
  check_of<Weights, T>([&](int rows, int columns) { return make<Weights>(rows, columns, 7, with_zeros); },
                       Weights::group > 64 ? Weights::group : 64);
}

}  // namespace

TEST_CASE_TEMPLATE("norms and SwiGLU write in order what products by wgmma read", T, bf16, f16) {
  const int rows = 3, columns = 224;
  const std::size_t count = rows * columns;
  const std::vector<T> x = as<T>(numbers(count, 1)), up = as<T>(numbers(count, 2));
  const std::vector<float> weight = numbers(columns, 3);
  const ei::matrix_view<const T> from(x.data(), rows, columns), other(up.data(), rows, columns);
  for (const auto order : {cuda::input_order::by_eights, cuda::input_order::by_fours}) {
    const auto check_order = [&](const auto& write) {
      std::vector<T> plain(count, T(not_a_number)), ordered = plain, wanted = plain;
      write(ei::matrix_view<T>(plain.data(), rows, columns), cuda::input_order::as_they_are);
      write(ei::matrix_view<T>(ordered.data(), rows, columns), order);
      start<cuda::order_inputs<T>>(
          {ei::matrix_view<const T>(plain.data(), rows, columns), {wanted.data(), rows, columns}, order});
      CHECK(same_bits(ordered, wanted));
      CHECK_FALSE(same_bits(ordered, plain));
    };
    check_order([&](const ei::matrix_view<T>& to, cuda::input_order in) {
      std::vector<float> states(x.size());
      for (std::size_t i = 0; i < count; ++i) states[i] = static_cast<float>(x[i]);
      start<ei::layers::cuda::rms_norm<T, float, float>>(
          {{states.data(), rows, columns}, other, weight.data(), 1e-5F, to, in});
    });
    check_order([&](const ei::matrix_view<T>& to, cuda::input_order in) {
      start<ei::layers::cuda::swiglu<T>>({from, other, to, in});
    });
  }
}

TEST_CASE_TEMPLATE("products by wgmma: 16-bit weights", T, bf16, f16) { check<cuda::float_weights<T>, T>(); }

TEST_CASE_TEMPLATE("products by wgmma: 8-bit weights", T, bf16, f16) {
  check<cuda::int8_weights, T>();
  check<cuda::fp8_weights<0>, T>();
  check<cuda::fp8_weights<128>, T>();
}

TEST_CASE_TEMPLATE("products by wgmma: int4 in groups, with zeros and without", T, bf16, f16) {
  check<cuda::int4_weights<32>, T>(true);
  check<cuda::int4_weights<64>, T>(false);
  check<cuda::int4_weights<128>, T>(true);
  check<cuda::int4_weights<128>, T>(false);
}

TEST_CASE_TEMPLATE("products by wgmma: GGUF blocks", T, bf16, f16) {
  for (const ei::weight_format format : block_formats) {
    with_bits(format, [&](auto bits) {
      check_of<cuda::block_weights<decltype(bits)::value>, T>(
          [&](int rows, int columns) { return make_blocks<decltype(bits)::value>(format, rows, columns, 5); },
          cuda::block_layout_of(format).is_wide ? 256 : 64, std::is_same_v<T, bf16> ? 4 : 1);
    });
  }
}

}  // namespace products_wgmma_tests
