// Encoding on load: how close it comes, what it refuses, and what the policies choose.

#include "reference.hpp"

#include <effinfer/quantization/int4.hpp>
#include <effinfer/quantization/int8.hpp>
#include <effinfer/quantization/none.hpp>

#include <doctest/doctest.h>

namespace pack_tests {

using namespace reference;
using eq::matrix_use;

namespace {

double relative_error(const eq::owned_packed_matrix& q, const std::vector<float>& w) {
  const std::ptrdiff_t columns = q.view().columns;
  std::vector<float> row(static_cast<std::size_t>(columns));
  double error = 0, power = 0;
  for (std::ptrdiff_t r = 0; r < q.view().rows; ++r) {
    eq::decode_row(q.view(), r, row.data());
    for (std::ptrdiff_t c = 0; c < columns; ++c) {
      const auto v = static_cast<double>(w[static_cast<std::size_t>(r * columns + c)]);
      const double e = static_cast<double>(row[static_cast<std::size_t>(c)]) - v;
      error += e * e;
      power += v * v;
    }
  }
  return std::sqrt(error / power);
}

}  // namespace

TEST_CASE("codes come as close to normal weights as their bits allow") {
  const ei::execution::cpu::context exec;
  std::vector<float> w = random_floats(40 * 384, 11);
  for (float& v : w) v *= 0.02f;
  const ei::matrix_view<const float> view(w.data(), 40, 384);
  // Uniform rounding of n levels over the range of the values: range / levels / sqrt(12), over the deviation. A row of
  // 384 normal values spans 6 deviations, a group of 32 about 4.
  CHECK(relative_error(eq::pack(exec, {weight_format::int8, 0}, view), w) < 6.0 / 254 / std::sqrt(12.0) * 1.1);
  CHECK(relative_error(eq::pack(exec, {weight_format::int4, 32}, view), w) < 4.1 / 15 / std::sqrt(12.0));
  CHECK(relative_error(eq::pack(exec, {weight_format::int4, 64}, view), w) < 4.7 / 15 / std::sqrt(12.0));
  CHECK(relative_error(eq::pack(exec, {weight_format::int4, 128}, view), w) < 5.2 / 15 / std::sqrt(12.0));
}

TEST_CASE("what a format holds exactly, it keeps exactly") {
  const ei::execution::cpu::context exec;
  std::vector<float> w(3 * 96);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = 0.25f * static_cast<float>(i % 16) - 1.5f;
  CHECK(relative_error(eq::pack(exec, {weight_format::int4, 32}, ei::matrix_view<const float>(w.data(), 3, 96)), w) ==
        0.0);
  for (std::size_t i = 0; i < w.size(); ++i)
    w[i] = i % 96 == 0 ? 127.0f : static_cast<float>(static_cast<int>(i % 255) - 127);
  CHECK(relative_error(eq::pack(exec, {weight_format::int8, 0}, ei::matrix_view<const float>(w.data(), 3, 96)), w) ==
        0.0);
  // Constant and zero groups.
  w.assign(w.size(), 0.375f);
  CHECK(relative_error(eq::pack(exec, {weight_format::int4, 32}, ei::matrix_view<const float>(w.data(), 3, 96)), w) ==
        0.0);
  w.assign(w.size(), 0.0f);
  const auto zero = eq::pack(exec, {weight_format::int8, 0}, ei::matrix_view<const float>(w.data(), 3, 96));
  CHECK(relative_error(zero, std::vector<float>(w.size(), 1.0f)) == 1.0);
}

TEST_CASE("the bytes are the same on any number of threads, and on every instruction set but the portable") {
  const auto w = random_floats(70 * 192, 12);
  for (eq::storage to : {eq::storage{weight_format::int8, 0}, {weight_format::int4, 32}, {weight_format::int4, 64}}) {
    std::vector<std::vector<std::byte>> all;
    for (auto set : sets()) {
      if (set == ei::execution::instruction_set::portable) continue;
      for (int threads : {1, 2, 3}) {
        ei::execution::cpu policy;
        policy.set = set;
        policy.threads = threads;
        auto q = eq::pack(ei::execution::cpu::context(policy), to, ei::matrix_view<const float>(w.data(), 70, 192));
        all.emplace_back(q.view().data, q.view().data + q.view().bytes());
      }
    }
    for (const auto& bytes : all) CHECK(bytes == all.front());
  }
}

TEST_CASE("any format can be the source, and a strided view") {
  const ei::execution::cpu::context exec;
  for (eq::storage s : storages()) {
    const matrix m = random_matrix(s, 6, 512, 40);
    const auto q = eq::pack(exec, {weight_format::int8, 0}, m.view);
    std::vector<float> w(6 * 512);
    for (std::ptrdiff_t r = 0; r < 6; ++r) eq::decode_row(m.view, r, w.data() + r * 512);
    CHECK(relative_error(q, w) < 0.02);
  }
  const auto wide = random_floats(4 * 100, 5);
  std::vector<float> part;
  for (int r = 0; r < 4; ++r) part.insert(part.end(), wide.begin() + r * 100, wide.begin() + r * 100 + 64);
  CHECK(relative_error(eq::pack(exec, {weight_format::int8, 0}, ei::matrix_view<const float>(wide.data(), 4, 64, 100)),
                       part) < 0.02);
}

TEST_CASE("values that can't be encoded are named by row") {
  const ei::execution::cpu::context exec;
  for (eq::storage to : {eq::storage{weight_format::int8, 0}, {weight_format::int4, 32}}) {
    for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
      auto w = random_floats(90 * 64, 1);
      w[77 * 64 + 63] = bad;
      w[80 * 64] = bad;
      bool thrown = false;
      try {
        (void)eq::pack(exec, to, ei::matrix_view<const float>(w.data(), 90, 64), {"layers.3.up", {}});
      } catch (const ei::error& e) {
        thrown = true;
        CHECK(e.code() == ei::error_code::unsupported);
        CHECK(std::string(e.what()).find("layers.3.up: row 77 ") != std::string::npos);
      }
      CHECK(thrown);
    }
  }
  std::vector<float> huge(64, 1e20f);
  huge[3] = -1e20f;
  CHECK_THROWS_AS(eq::pack(exec, {weight_format::int4, 32}, ei::matrix_view<const float>(huge.data(), 1, 64)),
                  ei::error);
  CHECK(eq::pack(exec, {weight_format::int8, 0}, ei::matrix_view<const float>(huge.data(), 1, 64)).view().rows == 1);
}

TEST_CASE("panels in files stay readable: where the bytes of a format change, packed_layout_version has to be raised") {
  // FNV-1a over the panels of 40 rows of 256 columns of bytes that a linear congruential generator makes.
  const std::vector<std::uint64_t> expected = {
      0xd9d2fa8d810aee40, 0x934d53bbd2d7afa0, 0x4e3bfd0214c59e4c, 0xd551d51c789bd5cc, 0xc3d4a37c4807e869,
      0x3d135877dbf6549b, 0x2f64814039beb33b, 0x7cbc448df7be2ef4, 0x38d07b1c43752367, 0xe7e0c610d2e5996e,
      0xee9353916db0e5b2, 0x3c5a460c56ad42b4, 0x7e54d3af7d85d8f7, 0xd578bc4fb4a6d788, 0xd0897b0e5e180060,
  };
  CHECK(eq::packed_layout_version == 1);
  std::vector<std::uint64_t> hashes;
  std::uint32_t state = 1;
  const auto next = [&state] { return (state = state * 1664525u + 1013904223u) >> 24; };
  for (const eq::storage s : storages()) {
    eq::weight_matrix w;
    w.format = s.format, w.group = s.group;
    w.rows = 40, w.columns = 256, w.row_bytes = eq::row_bytes(s.format, 256, s.group);
    std::vector<std::byte> bytes(static_cast<std::size_t>(w.rows * w.row_bytes));
    for (std::byte& b : bytes) b = static_cast<std::byte>(next());
    std::vector<float> scales(40);
    for (float& scale : scales) scale = static_cast<float>(next());
    w.data = bytes.data(), w.scales = scales.data();
    const auto packed = eq::pack(ei::execution::cpu::context(), w);
    std::uint64_t hash = 14695981039346656037U;
    for (std::size_t i = 0; i < packed.view().bytes(); ++i)
      hash = (hash ^ static_cast<std::uint64_t>(packed.view().data[i])) * 1099511628211U;
    hashes.push_back(hash);
  }
  CHECK(hashes == expected);
}

TEST_CASE("shapes and targets that make no sense are errors; progress is told and may cancel") {
  const ei::execution::cpu::context exec;
  const auto w = random_floats(100 * 96, 1);
  const ei::matrix_view<const float> view(w.data(), 100, 96);
  CHECK_THROWS_AS(eq::pack(exec, {weight_format::int4, 64}, view), ei::error);
  CHECK_THROWS_AS(eq::pack(exec, {weight_format::int4, 0}, view), ei::error);
  CHECK_THROWS_AS(eq::pack(exec, {weight_format::q4_0, 0}, view), ei::error);
  std::ptrdiff_t seen = 0;
  (void)eq::pack(exec, {weight_format::int8, 0}, view, {"w", [&](std::ptrdiff_t done, std::ptrdiff_t rows) {
                                                          CHECK(done > seen);
                                                          CHECK(rows == 100);
                                                          seen = done;
                                                        }});
  CHECK(seen == 100);
  struct stop {};
  CHECK_THROWS_AS(
      (void)eq::pack(exec, {weight_format::int8, 0}, view, {"w", [](std::ptrdiff_t, std::ptrdiff_t) { throw stop(); }}),
      stop);
}

TEST_CASE("what each policy does with a matrix") {
  using int4 = eq::int4<64>;
  CHECK(eq::none::target(matrix_use::projection, weight_format::q4_k, 512) == eq::storage{weight_format::q4_k, 0});
  CHECK(eq::int8::target(matrix_use::projection, weight_format::bf16, 100) == eq::storage{weight_format::int8, 0});
  CHECK(eq::int8::target(matrix_use::embedding, weight_format::bf16, 100) == eq::storage{weight_format::bf16, 0});
  CHECK(int4::target(matrix_use::projection, weight_format::f32, 128) == eq::storage{weight_format::int4, 64});
  CHECK(int4::target(matrix_use::projection, weight_format::f32, 96) == eq::storage{weight_format::int8, 0});
  CHECK(int4::target(matrix_use::output, weight_format::f32, 128) == eq::storage{weight_format::int8, 0});
  CHECK(int4::target(matrix_use::embedding, weight_format::f16, 128) == eq::storage{weight_format::f16, 0});
  CHECK(eq::none::formats::contains(weight_format::q5_k));
  CHECK(!eq::int8::formats::contains(weight_format::q5_k));
  static_assert(eq::quantization_policy<eq::none> && eq::quantization_policy<eq::int8> &&
                eq::quantization_policy<int4>);
  static_assert(!eq::quantization_policy<int>);
}

}  // namespace pack_tests
