// The products of quantization/cuda on the host context, against sums in double of the numbers that the weights stand for.

#include "simt/product_matrices.hpp"

#include <effinfer/layers/cuda/elementwise.hpp>
#include <effinfer/layers/cuda/embedding.hpp>
#include <effinfer/quantization/cuda/activations.hpp>
#include <effinfer/quantization/cuda/block_weights.hpp>
#include <effinfer/quantization/cuda/checkpoint_layouts.hpp>
#include <effinfer/quantization/cuda/gated_product.hpp>
#include <effinfer/quantization/cuda/matmul.hpp>
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
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace products_tests {

using namespace product_matrices;

namespace {

/// All kernels of a product.
template <class Args>
void start_all(const Args& a, thread_order order) {
  cuda::start_matmul(a,
                     [order](auto kernel, const Args& args) { start<typename decltype(kernel)::type>(args, order); });
}

template <class Weights, class T>
std::vector<T> skinny(const Weights& w, const std::vector<T>& x, int tokens, int multiprocessors = 132,
                      thread_order order = thread_order::shuffled) {
  std::vector<T> out(static_cast<std::size_t>(tokens * w.rows), T(not_a_number));
  cuda::product_args<Weights, T> a{{x.data(), tokens, w.columns}, w, {out.data(), tokens, w.rows}, {}, nullptr};
  a.plan = cuda::plan_skinny(a.x, w, a.out, {multiprocessors, 227 * 1024});
  start_all(a, order);
  return out;
}

/// Of the matrices that make_matrix(rows, columns) makes, in columns a multiple of `multiple`.
template <class T, class Make>
void check_skinny_of(const Make& make_matrix, int multiple = 128) {
  for (const auto& [tokens, rows, least] :
       {std::array<int, 3>{1, 16, 128}, std::array<int, 3>{3, 40, 640}, std::array<int, 3>{8, 17, 2176},
        std::array<int, 3>{13, 33, 256}, std::array<int, 3>{2, 24, 704}}) {
    const int columns = (least + multiple - 1) / multiple * multiple;
    const auto m = make_matrix(rows, columns);
    const std::vector<T> x = as<T>(numbers(static_cast<std::size_t>(tokens * columns), 3));
    const std::vector<T> out = skinny(m.view, x, tokens);
    check_product(out, x, m.values, tokens, rows, columns);
    for (const thread_order order : orders) CHECK(same_bits(out, skinny(m.view, x, tokens, 1, order)));
    const std::vector<T> last(x.end() - columns, x.end());
    const std::vector<T> alone = skinny(m.view, last, 1);
    CHECK(same_bits(alone, std::vector<T>(out.end() - rows, out.end())));  // whatever else is in the batch
  }
}

template <class Weights, class T>
void check_skinny(bool with_zeros = false) {
  check_skinny_of<T>([&](int rows, int columns) { return make<Weights>(rows, columns, 7, with_zeros); },
                     std::max(64, Weights::group));
}

template <class Weights, class T>
std::vector<T> product(const Weights& w, const std::vector<T>& x, int tokens, const cuda::device_limits& device,
                       int tiles, thread_order order = thread_order::shuffled) {
  std::vector<T> out(static_cast<std::size_t>(tokens * w.rows), T(not_a_number));
  cuda::product_args<Weights, T> a{{x.data(), tokens, w.columns}, w, {out.data(), tokens, w.rows}, {}, nullptr};
  a.plan = cuda::plan_matmul(a.x, w, a.out, device);
  CHECK(a.plan.tiles == tiles);
  std::vector<float> workspace(a.plan.workspace_bytes / sizeof(float), not_a_number);
  a.workspace = workspace.data();
  start_all(a, order);
  return out;
}

template <class T, class Make>
void check_tiled_of(const Make& make_matrix, int multiple = 128) {
  struct shape {
    int tokens, rows, columns, tiles;
  };
  for (const auto& [tokens, rows, least, tiles] :
       {shape{17, 16, 128, 4}, shape{33, 150, 640, 8}, shape{67, 17, 2176, 16}, shape{130, 40, 128, 16}}) {
    const int columns = (least + multiple - 1) / multiple * multiple;
    const auto m = make_matrix(rows, columns);
    const std::vector<T> x = as<T>(numbers(static_cast<std::size_t>(tokens * columns), 3));
    const cuda::device_limits one{1, 1 << 18}, many{132, 1 << 18};
    const std::vector<T> out = product(m.view, x, tokens, one, tiles);
    check_product(out, x, m.values, tokens, rows, columns);
    if (tokens == 33) {
      for (const thread_order order : orders) CHECK(same_bits(out, product(m.view, x, tokens, one, tiles, order)));
    }
    CHECK(same_bits(out, product(m.view, x, tokens, many, tiles)));                          // split
    if (tokens == 67) CHECK(same_bits(out, product(m.view, x, tokens, {2, 99 * 1024}, 8)));  // no room for a tile
    const std::vector<T> last(x.end() - 3 * columns, x.end());
    const std::vector<T> alone = skinny(m.view, last, 3);
    CHECK(same_bits(alone, std::vector<T>(out.end() - 3 * rows, out.end())));  // whatever else is in the batch
  }
}

template <class Weights, class T>
void check_tiled(bool with_zeros = false) {
  check_tiled_of<T>([&](int rows, int columns) { return make<Weights>(rows, columns, 7, with_zeros); });
}

}  // namespace

TEST_CASE_TEMPLATE("skinny products: 16-bit weights", T, bf16, f16) { check_skinny<cuda::float_weights<T>, T>(); }

TEST_CASE_TEMPLATE("skinny products: int8 a channel", T, bf16, f16) { check_skinny<cuda::int8_weights, T>(); }

TEST_CASE_TEMPLATE("products of FP8, with scales of rows and of blocks", T, bf16, f16) {
  check_skinny<cuda::fp8_weights<0>, T>();
  check_skinny<cuda::fp8_weights<128>, T>();
  check_tiled<cuda::fp8_weights<0>, T>();
  if (std::is_same_v<T, bf16>) check_tiled<cuda::fp8_weights<128>, T>();
}

TEST_CASE_TEMPLATE("skinny products: int4 in groups, with zeros and without", T, bf16, f16) {
  for (const bool with_zeros : {false, true}) {
    check_skinny<cuda::int4_weights<32>, T>(with_zeros);
    check_skinny<cuda::int4_weights<64>, T>(with_zeros);
    check_skinny<cuda::int4_weights<128>, T>(with_zeros);
  }
}

TEST_CASE_TEMPLATE("all int8, int4 and FP8 codes are unpacked exactly", T, bf16, f16) {
  for (int code = -128; code < 128; ++code) {
    const auto byte = static_cast<std::uint32_t>(code) & 255U;
    const std::uint32_t pair = cuda::int8_weights::pair<T>(byte | byte << 16 | 0x5a00a500U);
    CHECK(static_cast<float>(T::from_bits(static_cast<std::uint16_t>(pair))) == static_cast<float>(code));
    CHECK((pair >> 16) == (pair & 0xffffU));
  }
  for (std::uint32_t code = 0; code < 256; ++code) {
    if ((code & 127U) == 127) continue;  // a NaN
    const std::uint32_t pair = cuda::fp8_weights<0>::pair<T>(code | code << 16 | 0x5a00a500U);
    CHECK(static_cast<float>(T::from_bits(static_cast<std::uint16_t>(pair))) ==
          static_cast<float>(ei::fp8_e4m3::from_bits(static_cast<std::uint8_t>(code))));
    CHECK((pair >> 16) == (pair & 0xffffU));
  }
  for (int zero = 0; zero <= 16; ++zero) {
    const f16 scale(1);
    const auto zero_code = static_cast<std::uint8_t>(zero);
    const cuda::int4_weights<32> w{nullptr, &scale, &zero_code, 1, 64};
    const std::uint32_t centers[2] = {w.center<T>(w.zero(0, 0, 0)), w.center<T>(zero)};
    for (std::uint32_t code = 0; code < 16; ++code) {
      const cuda::words raw{{code * 0x11111111U, code * 0x11111111U, 0, 0}};
      std::uint32_t a[4];
      cuda::int4_weights<32>::unpack<T>(&raw, nullptr, 1, centers, a);
      for (const std::uint32_t pair : a) {
        CHECK(static_cast<float>(T::from_bits(static_cast<std::uint16_t>(pair))) ==
              static_cast<float>(static_cast<int>(code) - zero));
        CHECK((pair >> 16) == (pair & 0xffffU));
      }
    }
  }
}

TEST_CASE("what a skinny product can't do is said by its plan") {
  std::vector<cuda::words> units(4096);
  std::vector<float> scales(64);
  std::vector<bf16> x(32 * 256), out(32 * 64);
  const auto refused = [&](int tokens, int rows, int columns, int x_columns, int shift, ei::error_code code) {
    const cuda::int8_weights w{units.data(), scales.data(), rows, columns};
    try {
      (void)cuda::plan_skinny(ei::matrix_view<const bf16>(x.data() + shift, tokens, x_columns), w,
                              ei::matrix_view<bf16>(out.data(), tokens, rows), {132, 227 * 1024});
      return false;
    } catch (const ei::error& e) {
      return e.code() == code;
    }
  };
  using enum ei::error_code;
  CHECK(!refused(4, 64, 128, 128, 0, unsupported));
  CHECK(refused(17, 64, 128, 128, 0, invalid_argument));
  CHECK(refused(4, 0, 128, 128, 0, invalid_argument));
  CHECK(refused(4, 64, 128, 192, 0, mismatch));
  CHECK(refused(4, 64, 96, 96, 0, unsupported));
  CHECK(refused(4, 64, 128, 128, 1, unsupported));
  const cuda::int8_weights far{units.data(), scales.data(), 64, 128};
  CHECK_THROWS_AS((void)cuda::plan_skinny(ei::matrix_view<const bf16>(x.data(), 2, 128, 1 << 27), far,
                                          ei::matrix_view<bf16>(out.data(), 2, 64), {132, 227 * 1024}),
                  ei::error);
  const cuda::int4_weights<128> w{units.data(), nullptr, nullptr, 16, 192};
  CHECK_THROWS_AS((void)cuda::plan_skinny(ei::matrix_view<const bf16>(x.data(), 1, 192), w,
                                          ei::matrix_view<bf16>(out.data(), 1, 16), {132, 227 * 1024}),
                  ei::error);
  CHECK_THROWS_AS((void)cuda::int4_sizes(16, 128, 16), ei::error);
  CHECK_THROWS_AS((void)cuda::int4_sizes(16, 192, 128), ei::error);
  CHECK_THROWS_AS((void)cuda::int8_sizes(16, 100), ei::error);
  CHECK_THROWS_AS(cuda::pack_int8({}, 16, 64, units), ei::error);
}

TEST_CASE_TEMPLATE("tiled products: 16-bit weights", T, bf16, f16) { check_tiled<cuda::float_weights<T>, T>(); }

TEST_CASE_TEMPLATE("tiled products: int8 a channel", T, bf16, f16) { check_tiled<cuda::int8_weights, T>(); }

TEST_CASE("tiled products: int4 in groups, with zeros and without") {
  for (const bool with_zeros : {false, true}) {
    check_tiled<cuda::int4_weights<32>, bf16>(with_zeros);
    check_tiled<cuda::int4_weights<128>, bf16>(with_zeros);
  }
  check_tiled<cuda::int4_weights<64>, bf16>(true);
  check_tiled<cuda::int4_weights<128>, f16>(true);
}

TEST_CASE("GGUF blocks keep every bit on their way to a GPU") {
  for (const ei::weight_format format : block_formats) {
    with_bits(format, [&](auto bits) {
      const int rows = 21, columns = 512;
      const auto m = make_blocks<decltype(bits)::value>(format, rows, columns, 3);
      std::vector<float> decoded(columns);
      for (int r = 0; r < rows; ++r) {
        ei::quantization::decode_row(m.stored.view, r, decoded.data());
        int same = 0;
        for (int c = 0; c < columns; ++c) same += m.view.value(r, c) == decoded[static_cast<std::size_t>(c)] ? 1 : 0;
        CHECK_MESSAGE(same == columns, std::string(to_string(format)), ", row ", r);
      }
      const std::vector<int> tokens{20, 0, 13, 7};
      std::vector<float> out(4 * columns, not_a_number);
      start<ei::layers::cuda::packed_embedding<decltype(m.view)>>({tokens.data(), m.view, {out.data(), 4, columns}});
      for (std::size_t i = 0; i < out.size(); ++i)
        CHECK(out[i] == m.view.value(tokens[i / columns], static_cast<int>(i % columns)));
    });
  }
}

TEST_CASE_TEMPLATE("products of GGUF blocks, few rows and many", T, bf16, f16) {
  using format_name = ei::weight_format;
  for (const ei::weight_format format : block_formats) {
    // Each number of bits, with minimums and without, scales of 32 inputs and of 256, is among these; types of activations differ in
    // unpacking alone.
    const bool is_one_of_its_kind = format == format_name::q8_0 || format == format_name::q5_1 ||
                                    format == format_name::q4_k || format == format_name::q6_k;
    if (!std::is_same_v<T, bf16> && !is_one_of_its_kind) continue;
    CAPTURE(std::string(to_string(format)));
    with_bits(format, [&](auto bits) {
      const auto make_matrix = [&](int rows, int columns) {
        return make_blocks<decltype(bits)::value>(format, rows, columns, 7);
      };
      const int multiple = std::max(64, ei::block_size(format));
      check_skinny_of<T>(make_matrix, multiple);
      if (std::is_same_v<T, bf16> && is_one_of_its_kind) check_tiled_of<T>(make_matrix, multiple);
    });
  }
}

TEST_CASE_TEMPLATE("a gated product has the bits of two products and what joins them", Weights, cuda::int8_weights,
                   cuda::int4_weights<64>, cuda::block_weights<4>) {
  for (const auto& [tokens, half, columns] :
       {std::array<int, 3>{1, 16, 256}, std::array<int, 3>{8, 48, 2304}, std::array<int, 3>{13, 32, 512}}) {
    const auto m = [&, rows = 2 * half, inputs = columns] {
      if constexpr (std::is_same_v<Weights, cuda::block_weights<4>>) {
        return make_blocks<4>(ei::weight_format::q4_k, rows, inputs, 7);
      } else {
        return make<Weights>(rows, inputs, 7, true);
      }
    }();
    const std::vector<bf16> x = as<bf16>(numbers(static_cast<std::size_t>(tokens * columns), 3));
    const std::vector<bf16> both = skinny(m.view, x, tokens);
    const auto outputs = static_cast<std::size_t>(tokens * half);
    std::vector<bf16> wanted(outputs, bf16(not_a_number));
    const ei::matrix_view<const bf16> of_both(both.data(), tokens, 2 * half);
    start<ei::layers::cuda::swiglu<bf16>>(
        {of_both.middle_columns(0, half), of_both.middle_columns(half, half), {wanted.data(), tokens, half}});
    for (const thread_order order : orders) {
      std::vector<bf16> out(outputs, bf16(not_a_number));
      cuda::gated_args<Weights, bf16> a{{x.data(), tokens, columns}, m.view, {out.data(), tokens, half}, {}};
      a.plan = cuda::plan_gated(a.x, a.weights, a.out, {tokens == 8 ? 1 : 132, 227 * 1024});
      if (tokens <= 8) {
        start<cuda::gated_product<Weights, bf16, 1>>(a, order);
      } else {
        start<cuda::gated_product<Weights, bf16, 2>>(a, order);
      }
      CHECK(same_bits(out, wanted));
    }
  }
  const cuda::device_limits device{132, 227 * 1024};
  CHECK(cuda::has_gated_form<Weights, bf16>(16, 64, device));
  CHECK(!cuda::has_gated_form<Weights, bf16>(17, 64, device));
  CHECK(!cuda::has_gated_form<Weights, bf16>(1, 48, device));
  CHECK(!cuda::has_gated_form<cuda::float_weights<bf16>, bf16>(1, 64, device));
}

TEST_CASE("few rows go to the skinny kernels, batches and many rows to others") {
  std::vector<bf16> w(64 * 64), x(17 * 64), out(17 * 64);
  const cuda::float_weights<bf16> weights{w.data(), 64, 64, 64};
  for (const auto& [rows, tiles] :
       {std::array<int, 2>{1, 1}, std::array<int, 2>{8, 1}, std::array<int, 2>{16, 2}, std::array<int, 2>{17, 4}}) {
    const cuda::product_plan plan = cuda::plan_matmul(ei::matrix_view<const bf16>(x.data(), rows, 64), weights,
                                                      ei::matrix_view<bf16>(out.data(), rows, 64), {132, 227 * 1024});
    CHECK(plan.tiles == tiles);
  }
}

TEST_CASE("what a tiled product can't do is said by its plan, and what a device can't hold is made smaller") {
  using weights = cuda::float_weights<bf16>;
  std::vector<bf16> w(64 * 64), x(200 * 64), out(200 * 64);
  const cuda::product_args<weights, bf16> a{
      {x.data(), 200, 64}, {w.data(), 64, 64, 64}, {out.data(), 200, 64}, {}, nullptr};
  const auto tiles = [&](int shared_bytes) {
    return cuda::plan_matmul(a.x, a.weights, a.out, {132, shared_bytes}).tiles;
  };
  CHECK(tiles(227 * 1024) == 16);  // sm_90
  CHECK(tiles(163 * 1024) == 16);  // sm_80
  CHECK(tiles(99 * 1024) == 8);    // sm_86, sm_89
  CHECK_THROWS_AS((void)tiles(48 * 1024), ei::error);
  auto other = a;
  other.plan.tiles = 8;
  CHECK_THROWS_AS((cuda::tiled_product<weights, bf16>::plan(other)), ei::error);
  other.plan.tiles = 3;
  CHECK_THROWS_AS(start_all(other, thread_order::forward), ei::error);
  other.x.rows = 40'000'000, other.out.rows = 40'000'000;
  CHECK_THROWS_AS((void)cuda::plan_matmul(other.x, other.weights, other.out, {132, 227 * 1024}), ei::error);
  other.x.rows = 0, other.out.rows = 0;
  other.plan = cuda::plan_matmul(other.x, other.weights, other.out, {132, 227 * 1024});
  CHECK(other.plan.workspace_bytes == 0);
  CHECK((cuda::skinny_product<weights, bf16, 1>::plan(other).blocks == 0));
}

TEST_CASE_TEMPLATE("few rows have the same bits where shared memory is small, and no plan asks for more than there is",
                   Weights, cuda::int4_weights<32>, cuda::fp8_weights<128>, cuda::block_weights<4>,
                   cuda::block_weights<5>, cuda::block_weights<6>, cuda::block_weights<8>) {
  const int rows = 40, columns = 768;
  const auto m = [&] {
    if constexpr (std::is_same_v<Weights, cuda::block_weights<4>>) {
      return make_blocks<4>(ei::weight_format::q4_k, rows, columns, 7);
    } else if constexpr (std::is_same_v<Weights, cuda::block_weights<5>>) {
      return make_blocks<5>(ei::weight_format::q5_1, rows, columns, 7);
    } else if constexpr (std::is_same_v<Weights, cuda::block_weights<6>>) {
      return make_blocks<6>(ei::weight_format::q6_k, rows, columns, 7);
    } else if constexpr (std::is_same_v<Weights, cuda::block_weights<8>>) {
      return make_blocks<8>(ei::weight_format::q8_0, rows, columns, 7);
    } else {
      return make<Weights>(rows, columns, 7, true);
    }
  }();
  for (const int tokens : {1, 8, 9, 16}) {
    const std::vector<bf16> x = as<bf16>(numbers(static_cast<std::size_t>(tokens * columns), 3));
    const std::vector<bf16> wanted = skinny(m.view, x, tokens);
    std::vector<bf16> out(wanted.size());
    for (const int shared_bytes : {163 * 1024, 99 * 1024}) {  // sm_80; sm_86, sm_89
      for (const int multiprocessors : {1, 132}) {
        cuda::product_args<Weights, bf16> a{
            {x.data(), tokens, columns}, m.view, {out.data(), tokens, rows}, {}, nullptr};
        a.plan = cuda::plan_matmul(a.x, a.weights, a.out, {multiprocessors, shared_bytes});
        std::vector<float> workspace(a.plan.workspace_bytes / sizeof(float), not_a_number);
        a.workspace = workspace.data();
        std::fill(out.begin(), out.end(), bf16(not_a_number));
        cuda::start_matmul(a, [shared_bytes](auto kernel, const auto& args) {
          using K = typename decltype(kernel)::type;
          CHECK(K::plan(args).shared_bytes <= shared_bytes);
          start<K>(args, thread_order::shuffled);
        });
        CHECK(same_bits(out, wanted));
      }
      const cuda::device_limits device{132, shared_bytes};
      const ei::matrix_view<const bf16> in(x.data(), tokens, columns);
      const ei::matrix_view<bf16> half(out.data(), tokens, 16);
      auto two_strips = m.view;
      two_strips.rows = 32;
      const bool fits = cuda::has_gated_form<Weights, bf16>(tokens, 32, device);
      CHECK(fits == (cuda::detail::skinny_bytes<Weights, bf16, 2>(tokens) <= shared_bytes));
      if (fits) {
        CHECK(cuda::plan_gated(in, two_strips, half, device).blocks > 0);
      } else {
        CHECK_THROWS_AS((void)cuda::plan_gated(in, two_strips, half, device), ei::error);
      }
    }
  }
  std::vector<bf16> x(columns), out(rows);
  const ei::matrix_view<const bf16> in(x.data(), 1, columns);
  const ei::matrix_view<bf16> to(out.data(), 1, rows);
  for (const bool any_kernel : {true, false}) {
    std::string said;
    try {
      const cuda::device_limits device{132, 48 * 1024};
      (void)(any_kernel ? cuda::plan_matmul(in, m.view, to, device) : cuda::plan_skinny(in, m.view, to, device));
    } catch (const ei::error& e) {
      CHECK(e.code() == ei::error_code::unsupported);
      said = e.what();
    }
    const int needed = any_kernel ? cuda::batch_product<Weights, bf16, 4>::shared_bytes
                                  : cuda::detail::skinny_bytes<Weights, bf16, 1>(1);
    for (const std::string& part : {std::to_string(needed), std::string("the device has 49152")})
      CHECK_MESSAGE(said.find(part) != std::string::npos, said);
  }
  CHECK(cuda::plan_matmul(ei::matrix_view<const bf16>(x.data(), 0, columns), m.view,
                          ei::matrix_view<bf16>(out.data(), 0, rows), {132, 99 * 1024})
            .workspace_bytes == 0);
}

TEST_CASE("GPTQ and AWQ tensors, with zeros of both GPTQ formats and inputs in any order") {
  const int rows = 40, columns = 192, group = 64, groups = 3, tokens = 3;
  const auto n = [](std::ptrdiff_t i) { return static_cast<std::size_t>(i); };
  const std::vector<float> random = numbers(n(rows * columns), 21);
  std::vector<int> q(n(rows * columns)), zero(n(groups * rows));  // [K, N], [G, N]
  for (std::size_t i = 0; i < q.size(); ++i) q[i] = static_cast<int>((random[i] + 1) * 8);
  const std::vector<f16> scales = as<f16>(numbers(n(groups * rows), 22));
  const std::vector<bf16> x = as<bf16>(numbers(n(tokens * columns), 23));
  std::vector<std::int32_t> group_of(n(columns));
  for (int k = 0; k < columns; ++k) group_of[n(k)] = k * 5 % columns / group;  // a permutation of the inputs

  const cuda::packed_sizes sizes = cuda::int4_sizes(rows, columns, group);
  std::vector<cuda::words> units(sizes.words);
  std::vector<f16> packed_scales(sizes.scales);
  std::vector<std::uint8_t> packed_zeros(sizes.scales);
  const cuda::int4_weights<group> w{units.data(), packed_scales.data(), packed_zeros.data(), rows, columns};
  const auto check = [&](const std::vector<bf16>& input, bool permuted) {
    std::vector<double> values(n(rows * columns));
    for (int k = 0; k < columns; ++k) {
      const int g = permuted ? group_of[n(k)] : k / group;
      for (int r = 0; r < rows; ++r)
        values[n(r * columns + k)] = static_cast<double>(static_cast<float>(scales[n(g * rows + r)])) *
                                     (q[n(k * rows + r)] - zero[n(g * rows + r)]);
    }
    check_product(skinny(w, input, tokens), x, values, tokens, rows, columns);
  };

  std::vector<std::uint32_t> codes(n(rows * columns / 8)), zeros(n(groups * rows / 8));
  for (const int offset : {0, 1}) {
    for (std::size_t i = 0; i < zero.size(); ++i) zero[i] = static_cast<int>(i * 7 % 16) + offset;
    std::fill(codes.begin(), codes.end(), 0U), std::fill(zeros.begin(), zeros.end(), 0U);
    for (int k = 0; k < columns; ++k) {
      for (int r = 0; r < rows; ++r)
        codes[n(k / 8 * rows + r)] |= static_cast<std::uint32_t>(q[n(k * rows + r)]) << (k % 8 * 4);
    }
    for (int i = 0; i < groups * rows; ++i)
      zeros[n(i / 8)] |= static_cast<std::uint32_t>(zero[n(i)] - offset) << (i % 8 * 4);
    for (const bool permuted : {false, true}) {
      cuda::gptq_tensors tensors{codes, zeros, scales, {}, rows, columns, group, offset};
      if (permuted) tensors.group_of = group_of;
      const std::vector<std::int32_t> order = cuda::gptq_input_order(tensors);
      cuda::pack_gptq(tensors, order, units, packed_scales, packed_zeros);
      std::vector<bf16> input(x.size(), bf16(not_a_number));
      start<cuda::reorder_columns<bf16>>({{x.data(), tokens, columns}, order.data(), {input.data(), tokens, columns}});
      CHECK(same_bits(input, x) == !permuted);
      check(input, permuted);
    }
  }

  for (std::size_t i = 0; i < zero.size(); ++i) zero[i] = static_cast<int>(i * 7 % 16);
  constexpr int order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  std::fill(codes.begin(), codes.end(), 0U), std::fill(zeros.begin(), zeros.end(), 0U);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    for (int p = 0; p < 8; ++p) codes[i] |= static_cast<std::uint32_t>(q[i * 8 + n(order[p])]) << (p * 4);
  }
  for (std::size_t i = 0; i < zeros.size(); ++i) {
    for (int p = 0; p < 8; ++p) zeros[i] |= static_cast<std::uint32_t>(zero[i * 8 + n(order[p])]) << (p * 4);
  }
  cuda::pack_awq({codes, zeros, scales, rows, columns, group}, units, packed_scales, packed_zeros);
  check(x, false);

  group_of[0] = group_of[1] + 1;
  const cuda::gptq_tensors bad{codes, zeros, scales, group_of, rows, columns, group, 1};
  CHECK_THROWS_AS((void)cuda::gptq_input_order(bad), ei::error);
  CHECK_THROWS_AS(cuda::pack_awq({std::span(codes).first(3), zeros, scales, rows, columns, group}, units, packed_scales,
                                 packed_zeros),
                  ei::error);
}

TEST_CASE_TEMPLATE("activations in 8 bits", T, bf16, f16, float) {
  const int tokens = 5, columns = 320;
  std::vector<T> x = as<T>(numbers(tokens * columns, 31, 3));
  std::fill(x.begin() + columns, x.begin() + 2 * columns, T(0.0F));
  x[2 * columns + 7] = T(not_a_number);
  x[3 * columns + 9] = T(std::numeric_limits<float>::infinity());
  std::vector<std::int8_t> codes(x.size(), 99);
  for (const thread_order order : orders) {
    std::vector<float> scales(tokens, not_a_number);
    start<cuda::quantize_rows<T>>({{x.data(), tokens, columns}, {codes.data(), tokens, columns}, scales.data()}, order);
    CHECK(scales[1] == 0);
    CHECK(std::isinf(scales[2]));
    CHECK(std::isinf(scales[3]));
    for (const int t : {0, 1, 4}) {
      float greatest = 0;
      for (int i = 0; i < columns; ++i)
        greatest = std::max(greatest, std::abs(static_cast<float>(x[static_cast<std::size_t>(t * columns + i)])));
      CHECK(scales[static_cast<std::size_t>(t)] == greatest / 127);
      for (int i = 0; i < columns; ++i) {
        const float code = codes[static_cast<std::size_t>(t * columns + cuda::code_place(i))];
        const float off = code * scales[static_cast<std::size_t>(t)] -
                          static_cast<float>(x[static_cast<std::size_t>(t * columns + i)]);
        CHECK(std::abs(off) <= scales[static_cast<std::size_t>(t)] * 0.5001F);
      }
    }
  }
}

TEST_CASE_TEMPLATE("products of 8-bit codes with 8-bit codes are exact, whatever the splits", T, bf16, f16) {
  for (const auto& [tokens, rows, columns] : {std::array<int, 3>{1, 16, 64}, std::array<int, 3>{5, 40, 640},
                                              std::array<int, 3>{35, 130, 1152}, std::array<int, 3>{67, 17, 256}}) {
    const matrix<cuda::int8_weights> m = make<cuda::int8_weights>(rows, columns, 7);
    const std::vector<T> x = as<T>(numbers(static_cast<std::size_t>(tokens * columns), 3));
    std::vector<std::int8_t> codes(x.size());
    std::vector<float> scales(static_cast<std::size_t>(tokens));
    start<cuda::quantize_rows<T>>({{x.data(), tokens, columns}, {codes.data(), tokens, columns}, scales.data()});
    std::vector<T> first;
    for (const int multiprocessors : {1, 132}) {
      std::vector<T> out(static_cast<std::size_t>(tokens * rows), T(not_a_number));
      cuda::integer_product_args<T> a{
          {codes.data(), tokens, columns}, scales.data(), m.view, {out.data(), tokens, rows}, {}, nullptr};
      a.plan = cuda::plan_integer(a.x, a.weights, a.out, {multiprocessors, 1 << 18});
      CHECK((a.plan.splits > 1) == (multiprocessors > 1 && columns > 512));
      std::vector<std::int32_t> workspace(a.plan.workspace_bytes / 4, 1 << 30);
      a.workspace = workspace.data();
      start_all(a, thread_order::shuffled);
      if (first.empty()) first = out;
      CHECK(same_bits(out, first));
      for (int t = 0; t < tokens; ++t) {
        for (int r = 0; r < rows; ++r) {
          double wanted = 0;
          for (int c = 0; c < columns; ++c)
            wanted += codes[static_cast<std::size_t>(t * columns + cuda::code_place(c))] *
                      m.values[static_cast<std::size_t>(r * columns + c)];
          wanted *= double{scales[static_cast<std::size_t>(t)]};
          const auto got = static_cast<double>(static_cast<float>(out[static_cast<std::size_t>(t * rows + r)]));
          CHECK(std::abs(got - wanted) <=
                std::abs(wanted) * (rounding<T> + 0x1p-21) + (std::is_same_v<T, f16> ? 0x1p-25 : 0));
        }
      }
    }
  }
}

#if !defined(__CUDACC__)
TEST_CASE("a skinny product reads weights only before it awaits the kernels before it") {
  using weights = cuda::int4_weights<64>;
  const int tokens = 3, columns = 1152;
  const auto m = make<weights>(16, columns, 7, true);  // one block
  const std::vector<bf16> wanted_x = as<bf16>(numbers(static_cast<std::size_t>(tokens * columns), 3));
  const std::vector<bf16> wanted = skinny(m.view, wanted_x, tokens);
  for (const thread_order order : orders) {
    std::vector<bf16> x(wanted_x.size(), bf16(not_a_number)), out(wanted.size(), bf16(7.0F));
    cuda::product_args<weights, bf16> a{{x.data(), tokens, columns}, m.view, {out.data(), tokens, 16}, {}, nullptr};
    a.plan = cuda::plan_skinny(a.x, a.weights, a.out, {132, 227 * 1024});
    start<cuda::skinny_product<weights, bf16, 1>>(a, order, [&] {
      CHECK(same_bits(out, std::vector<bf16>(wanted.size(), bf16(7.0F))));
      x = wanted_x;
    });
    CHECK(same_bits(out, wanted));
  }
}

TEST_CASE("a product of 8-bit fragments is the product of the matrices") {
  const auto a_of = [](int row, int k) { return static_cast<std::int8_t>((row * 37 + k * 11) % 256 - 128); };
  const auto b_of = [](int k, int column) { return static_cast<std::int8_t>((k * 29 + column * 53) % 256 - 128); };
  run({.threads = 32}, [&](auto& t) {
    std::uint32_t a[4] = {}, b[2] = {};
    std::int32_t d[4] = {5, 5, 5, 5};
    for (int i = 0; i < 16; ++i) {
      const auto e = simt::a_element_8_bit(t.lane(), i);
      a[i / 4] |= static_cast<std::uint32_t>(static_cast<std::uint8_t>(a_of(e.row, e.column))) << (i % 4 * 8);
    }
    for (int i = 0; i < 8; ++i) {
      const auto e = simt::b_element_8_bit(t.lane(), i);
      b[i / 4] |= static_cast<std::uint32_t>(static_cast<std::uint8_t>(b_of(e.row, e.column))) << (i % 4 * 8);
    }
    t.mma(d, a, b, std::int8_t{});
    for (int i = 0; i < 4; ++i) {
      const auto e = simt::d_element(t.lane(), i);
      std::int32_t sum = 5;
      for (int k = 0; k < 32; ++k) sum += a_of(e.row, k) * b_of(k, e.column);
      CHECK(d[i] == sum);
    }
  });
}
#endif

}  // namespace products_tests
