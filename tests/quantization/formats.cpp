// Every format's decoder against the reference of this folder, and against blocks made by the gguf Python package.

#include "reference.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>

namespace formats_tests {

using namespace reference;

namespace {

std::vector<char> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("a row decodes to the reference's values") {
  for (eq::storage s : storages()) {
    INFO("format ", std::string(ei::to_string(s.format)), " group ", s.group);
    const std::ptrdiff_t columns = 3 * columns_multiple(s);
    const matrix m = random_matrix(s, 5, columns, 17);
    std::vector<float> out(static_cast<std::size_t>(columns));
    for (std::ptrdiff_t r = 0; r < 5; ++r) {
      eq::decode_row(m.view, r, out.data());
      for (std::ptrdiff_t c = 0; c < columns; ++c) {
        const double expected = value_at(m.view, r, c);
        // Two roundings of products and one of a sum, whose terms are below 64 * 64 * 0.02 * 64.
        CHECK(std::abs(static_cast<double>(out[static_cast<std::size_t>(c)]) - expected) <=
              3 * 0x1p-24 * (std::abs(expected) + 6));
      }
    }
    CHECK_THROWS_AS(eq::decode_row(m.view, 5, out.data()), ei::error);
    CHECK_THROWS_AS(eq::decode_row(m.view, -1, out.data()), ei::error);
  }
}

TEST_CASE("a packed row decodes to the reference's values, whatever its place in a panel") {
  const auto exec = ei::execution::cpu::context({.threads = 2});
  for (eq::storage s : storages()) {
    INFO("format ", std::string(ei::to_string(s.format)), " group ", s.group);
    const std::ptrdiff_t columns = columns_multiple(s) == 1 ? 67 : 3 * columns_multiple(s);
    const matrix m = random_matrix(s, 37, columns, 18);
    const auto packed = eq::pack(exec, m.view);
    std::vector<float> out(static_cast<std::size_t>(columns));
    int wrong = 0;
    for (std::ptrdiff_t r = 0; r < 37; ++r) {
      eq::decode_row(packed.view(), r, out.data());
      for (std::ptrdiff_t c = 0; c < columns; ++c) {
        const double expected = value_at(m.view, r, c);
        if (!(std::abs(static_cast<double>(out[static_cast<std::size_t>(c)]) - expected) <=
              3 * 0x1p-24 * (std::abs(expected) + 6)))
          ++wrong;
      }
    }
    CHECK(wrong == 0);
    CHECK_THROWS_AS(eq::decode_row(packed.view(), 37, out.data()), ei::error);
    CHECK_THROWS_AS(eq::decode_row(packed.view(), -1, out.data()), ei::error);
  }
}

TEST_CASE("GGUF blocks decode as the gguf package decodes them") {
  const std::string folder = std::string(EFFINFER_TEST_DATA) + "/quantization/";
  for (auto format : {weight_format::q8_0, weight_format::q4_0, weight_format::q4_1, weight_format::q5_0,
                      weight_format::q5_1, weight_format::q4_k, weight_format::q5_k, weight_format::q6_k}) {
    const std::string name(ei::to_string(format));
    INFO("format ", name);
    const auto bytes = read_file(folder + name + ".bin"), floats = read_file(folder + name + ".f32");
    const auto columns = static_cast<std::ptrdiff_t>(floats.size() / 4);
    REQUIRE(columns > 0);
    const auto w = eq::packed_rows(format, bytes.data(), 1, columns);
    REQUIRE(w.row_bytes == static_cast<std::ptrdiff_t>(bytes.size()));
    std::vector<float> out(static_cast<std::size_t>(columns)), expected(out);
    std::memcpy(expected.data(), floats.data(), floats.size());
    eq::decode_row(w, 0, out.data());
    for (std::size_t i = 0; i < out.size(); ++i) {
      CHECK(out[i] == doctest::Approx(expected[i]).epsilon(1e-6));
      CHECK(value_at(w, 0, static_cast<std::ptrdiff_t>(i)) == doctest::Approx(expected[i]).epsilon(1e-6));
    }
  }
}

TEST_CASE("sizes that make no whole blocks are errors") {
  CHECK_THROWS_AS(eq::row_bytes(weight_format::q4_k, 128), ei::error);
  CHECK_THROWS_AS(eq::row_bytes(weight_format::q8_0, 33), ei::error);
  CHECK_THROWS_AS(eq::row_bytes(weight_format::int4, 96, 64), ei::error);
  CHECK_THROWS_AS(eq::row_bytes(weight_format::int4, 96, 16), ei::error);
  CHECK_THROWS_AS(eq::row_bytes(weight_format::other, 32), ei::error);
  CHECK_THROWS_AS(eq::row_bytes(weight_format::f32, -1), ei::error);
  CHECK_THROWS_AS(eq::packed_layout({weight_format::int8}, std::numeric_limits<std::ptrdiff_t>::max() / 128, 64),
                  ei::error);
  CHECK(eq::row_bytes(weight_format::q6_k, 512) == 420);
  CHECK(eq::row_bytes(weight_format::int4, 96, 32) == 64 + 3 * 4);
  // One panel: 32 scales, and 2 units of 64 columns of 32 rows.
  CHECK(eq::packed_layout({weight_format::int8}, 3, 65).bytes() == 128 + 2 * 64 * 32);
}

}  // namespace formats_tests
