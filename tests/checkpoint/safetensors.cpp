// checkpoint/safetensors.hpp: what a file says is read right, and whatever is wrong with it is told.

#include "checkpoint/allocated_bytes.hpp"
#include "checkpoint/expect_error.hpp"
#include "checkpoint/safetensors_writer.hpp"

#include <effinfer/checkpoint/safetensors.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace safetensors_tests {

using effinfer::error_code;
using effinfer::weight_format;
using namespace effinfer::checkpoint;
using test::bytes_of;
using test::expect_error;
using test::safetensors_file;

namespace {

std::vector<tensor> read(std::string_view file) { return read_safetensors(bytes_of(file), "m.safetensors"); }

/// A header of one tensor "w" with these fields.
std::string header(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w": {"dtype": )" + dtype + R"(, "shape": )" + shape + R"(, "data_offsets": )" + offsets + "}}";
}

/// The header with `bytes` bytes of data is refused with a message that holds the words.
void refuses(const std::string& text, std::size_t bytes, error_code code,
             std::initializer_list<std::string_view> words) {
  CAPTURE(text);
  const std::string file = safetensors_file(text, std::string(bytes, '\0'));
  expect_error(code, {"m.safetensors"}, [&] { return read(file); });
  expect_error(code, words, [&] { return read(file); });
  CHECK(test::bytes_allocated_by([&] { return read(file); }) < 100'000);
}

const std::string small = safetensors_file(
    {{"a", "F32", "[2, 2]", std::string(16, 'a')}, {"b", "BF16", "[3]", "bbbbbb"}, {"c", "U8", "[]", "c"}});

}  // namespace

TEST_CASE("safetensors: names, formats, shapes and bytes") {
  const auto tensors = read(small);
  REQUIRE(tensors.size() == 3);
  CHECK(tensors[0].name == "a");
  CHECK(tensors[0].format == weight_format::f32);
  CHECK(tensors[0].shape == std::vector<std::int64_t>{2, 2});
  CHECK(tensors[0].file == "m.safetensors");
  CHECK(tensors[1].format == weight_format::bf16);
  CHECK(tensors[1].data.size() == 6);
  CHECK(std::to_integer<char>(tensors[1].data[0]) == 'b');
  CHECK(tensors[1].data.data() + 6 == bytes_of(small).data() + small.size() - 1);
  CHECK(tensors[2].format == weight_format::other);
  CHECK(tensors[2].shape.empty());

  CHECK(read(safetensors_file(R"({"__metadata__": {"format": "pt"}})", "")).empty());
  CHECK(read(safetensors_file("{}   ", "")).empty());
  // Types that came later than this reader: their range is checked, their size is their own business.
  CHECK(read(safetensors_file(header("\"F4\"", "[4]", "[0, 2]"), "xy"))[0].format == weight_format::other);
  CHECK(read(safetensors_file(header("\"F16\"", "[0, 5]", "[0, 0]"), ""))[0].data.empty());
}

TEST_CASE("safetensors: a file cut short anywhere is an error") {
  for (std::size_t size = 0; size < small.size(); ++size) {
    CAPTURE(size);
    const std::string cut = small.substr(0, size);
    expect_error(error_code::malformed, {"m.safetensors"}, [&] { return read(cut); });
    CHECK(test::bytes_allocated_by([&] { return read(cut); }) < 100'000);
  }
}

TEST_CASE("safetensors: absurd header lengths") {
  for (const std::uint64_t length : {std::uint64_t{3}, std::uint64_t{1} << 32, std::uint64_t{1} << 62,
                                     std::uint64_t{1} << 63, ~std::uint64_t{0}, ~std::uint64_t{0} - 7}) {
    CAPTURE(length);
    const std::string file = test::little_endian<8>(length) + "{}";
    expect_error(error_code::malformed, {"m.safetensors: header length", std::to_string(length)},
                 [&] { return read(file); });
    CHECK(test::bytes_allocated_by([&] { return read(file); }) < 10'000);
  }
  const std::string large = safetensors_file(std::string(100'000'001, ' '), "");
  expect_error(error_code::limit, {"m.safetensors: header length", "100000001"}, [&] { return read(large); });
}

TEST_CASE("safetensors: headers that are no JSON of the right kind") {
  refuses("", 0, error_code::malformed, {"m.safetensors: header"});
  refuses("{", 0, error_code::malformed, {"m.safetensors: header", "byte 1"});
  refuses("{}x", 0, error_code::malformed, {"m.safetensors: header"});
  refuses("{\"\xff\": 1}", 0, error_code::malformed, {"m.safetensors: header"});
  refuses(std::string("{}\0 ", 4), 0, error_code::malformed, {"m.safetensors: header"});
  refuses("[]", 0, error_code::mismatch, {"m.safetensors: header", "an array, not an object"});
  refuses("{\"w\": 1}", 0, error_code::mismatch, {"m.safetensors: header: field w"});
  refuses("{\"w\": {}}", 0, error_code::missing, {"field w.dtype"});
  refuses("{\"w\": {\"dtype\": \"F32\"}}", 0, error_code::missing, {"field w.shape"});
  refuses("{\"w\": {\"dtype\": \"F32\", \"shape\": []}}", 0, error_code::missing, {"field w.data_offsets"});
  refuses("{\"w\": " + std::string(20, '[') + std::string(20, ']') + "}", 0, error_code::limit,
          {"header", "nested deeper"});
  refuses(std::string(1'000, '['), 0, error_code::limit, {"header", "nested deeper"});
  refuses(header("4", "[1]", "[0, 4]"), 4, error_code::mismatch, {"field w.dtype"});
  refuses(header("\"F32\"", "1", "[0, 4]"), 4, error_code::mismatch, {"field w.shape"});
  refuses(header("\"F32\"", "[1.0]", "[0, 4]"), 4, error_code::mismatch, {"field w.shape[0]"});
  refuses(header("\"F32\"", "[\"1\"]", "[0, 4]"), 4, error_code::mismatch, {"field w.shape[0]"});
  refuses(header("\"F32\"", "[1]", "[0, null]"), 4, error_code::mismatch, {"field w.data_offsets[1]"});
}

TEST_CASE("safetensors: shapes, sizes and offsets that can't be") {
  const auto f32 = [](const std::string& shape, const std::string& offsets) {
    return header("\"F32\"", shape, offsets);
  };
  refuses(f32("[-1]", "[0, 4]"), 4, error_code::mismatch, {"field w.shape[0]", "-1"});
  refuses(f32("[9223372036854775807]", "[0, 4]"), 4, error_code::mismatch, {"field w.shape[0]"});
  refuses(f32("[18446744073709551616]", "[0, 4]"), 4, error_code::mismatch, {"field w.shape[0]"});
  // Products that wrap around 64 bits to what would fit.
  refuses(f32("[281474976710656, 281474976710656]", "[0, 0]"), 4, error_code::malformed,
          {"tensor w", "absurdly large"});
  refuses(f32("[4294967296, 4294967296, 4]", "[0, 0]"), 4, error_code::malformed, {"tensor w", "absurdly large"});
  refuses(f32("[1,1,1,1,1,1,1,1,1]", "[0, 4]"), 4, error_code::malformed, {"tensor w", "9 dimensions"});
  refuses(f32("[1]", "[0, 2]"), 4, error_code::malformed, {"tensor w", "it has 2 bytes", "takes 4"});
  refuses(f32("[2]", "[0, 4]"), 4, error_code::malformed, {"tensor w", "takes 8"});
  refuses(header("\"F16\"", "[1]", "[0, 4]"), 4, error_code::malformed, {"tensor w", "F16", "takes 2"});
  refuses(header("\"I64\"", "[1]", "[0, 4]"), 4, error_code::malformed, {"tensor w", "I64", "takes 8"});
  refuses(f32("[1]", "[0]"), 4, error_code::malformed, {"tensor w", "data_offsets"});
  refuses(f32("[1]", "[0, 4, 8]"), 8, error_code::malformed, {"tensor w", "data_offsets"});
  refuses(f32("[1]", "[4, 0]"), 4, error_code::malformed, {"tensor w", "data_offsets [4, 0]"});
  refuses(f32("[1]", "[4, 8]"), 4, error_code::malformed, {"tensor w", "data_offsets [4, 8]", "4 bytes"});
  refuses(f32("[1]", "[-4, 0]"), 4, error_code::mismatch, {"field w.data_offsets[0]"});
  refuses(f32("[1]", "[0, 9223372036854775808]"), 4, error_code::mismatch, {"field w.data_offsets[1]"});
  refuses(f32("[1]", "[4611686018427387900, 4611686018427387904]"), 4, error_code::malformed,
          {"tensor w", "data_offsets"});
  refuses(header("\"F4\"", "[1]", "[0, 5]"), 4, error_code::malformed, {"tensor w", "data_offsets"});
}

TEST_CASE("safetensors: tensors that share bytes or a name") {
  const auto two = [](const char* second, const char* offsets) {
    return R"({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, ")" + std::string(second) +
           R"(": {"dtype": "U8", "shape": [4], "data_offsets": )" + offsets + "}}";
  };
  refuses(two("v", "[3, 7]"), 8, error_code::malformed, {"tensor v", "overlap", " w"});
  refuses(two("v", "[0, 4]"), 8, error_code::malformed, {"tensor ", "overlap"});
  refuses(two("w", "[4, 8]"), 8, error_code::malformed, {"tensor w", "twice"});
  CHECK(read(safetensors_file(two("v", "[4, 8]"), "12345678")).size() == 2);
}

}  // namespace safetensors_tests
