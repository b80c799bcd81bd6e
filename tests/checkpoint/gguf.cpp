// checkpoint/gguf.hpp: metadata of every type and tensors are read right, and whatever is wrong with a file is told.

#include "checkpoint/allocated_bytes.hpp"
#include "checkpoint/expect_error.hpp"
#include "checkpoint/gguf_writer.hpp"

#include <effinfer/checkpoint/gguf.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace gguf_tests {

using effinfer::error_code;
using effinfer::weight_format;
using namespace effinfer::checkpoint;
using test::bytes_of;
using test::expect_error;
using test::gguf_string;
using test::gguf_writer;
using test::little_endian;

namespace {

constexpr std::uint32_t f32 = 0, f16 = 1, q8_0 = 8, q4_k = 12, unknown_type = 39;

/// The file is refused with a message that holds its name and the words, before anything of size is allocated.
void refuses(const std::string& file, error_code code, std::initializer_list<std::string_view> words) {
  const auto read = [&] {
    gguf(bytes_of(file), "m.gguf");
    return 0;
  };
  expect_error(code, {"m.gguf: "}, read);
  expect_error(code, words, read);
  CHECK(test::bytes_allocated_by(read) < 20'000 + 2 * file.size());
}
void refuses(const gguf_writer& w, error_code code, std::initializer_list<std::string_view> words) {
  refuses(w.file(), code, words);
}

gguf_writer every_type() {
  gguf_writer w;
  w.add("u8", gguf_type::uint8, "\xff").add("i8", gguf_type::int8, "\xff");
  w.add("u16", gguf_type::uint16, "\xfe\xff").add("i16", gguf_type::int16, "\xfe\xff");
  w.add("u32", gguf_type::uint32, "\xfd\xff\xff\xff").add("i32", gguf_type::int32, "\xfd\xff\xff\xff");
  w.add("f32", -1.5F).add("yes", gguf_type::boolean, "\x01").add("no", gguf_type::boolean, std::string(1, '\0'));
  w.add("text", "caf\xc3\xa9").add("u64", gguf_type::uint64, little_endian<8>(std::uint64_t{1} << 40));
  w.add("i64", gguf_type::int64, little_endian<8>(~std::uint64_t{0}));
  w.add("u64 of 64 bits", gguf_type::uint64, little_endian<8>(~std::uint64_t{0}));
  w.add("f64", gguf_type::float64, little_endian<8>(std::bit_cast<std::uint64_t>(0.1)));
  w.add_array("numbers", gguf_type::int16, 3, std::string("\x01\x00\xff\xff\x02\x00", 6));
  w.add_array("words", gguf_type::string, 2, gguf_string("one") + gguf_string(""));
  w.add_array("nothing", gguf_type::string, 0, "");
  w.add_array("arrays", gguf_type::array, 2,
              little_endian<4>(4) + little_endian<8>(1) + little_endian<4>(7) + little_endian<4>(8) +
                  little_endian<8>(1) + gguf_string("deep"));
  return w;
}

gguf_writer small() {
  gguf_writer w;
  w.add("general.architecture", "llama").add("n", 7U);
  w.add_array("words", gguf_type::string, 2, gguf_string("one") + gguf_string("three"));
  w.add_tensor("a", {2, 3}, f32, std::string(24, 'a')).add_tensor("b", {32, 2}, q8_0, std::string(68, 'b'));
  return w;
}

}  // namespace

TEST_CASE("gguf: metadata of every type") {
  const std::string bytes = every_type().file();
  const gguf file(bytes_of(bytes), "m.gguf");
  CHECK(file.name() == "m.gguf");
  CHECK(file.tensors().empty());
  CHECK(file.at("u8").integer() == 255);
  CHECK(file.at("i8").integer() == -1);
  CHECK(file.at("u16").integer() == 65534);
  CHECK(file.at("i16").integer() == -2);
  CHECK(file.at("u32").integer() == 4294967293);
  CHECK(file.at("i32").integer() == -3);
  CHECK(file.at("u64").integer() == std::int64_t{1} << 40);
  CHECK(file.at("i64").integer() == -1);
  CHECK(file.at("f32").number() == -1.5);
  CHECK(file.at("f64").number() == 0.1);
  CHECK(file.at("u32").number() == 4294967293.0);
  CHECK(file.at("yes").boolean());
  CHECK(!file.at("no").boolean());
  CHECK(file.at("text").string() == "caf\xc3\xa9");
  CHECK(file.at("text").type() == gguf_type::string);
  CHECK(file.find("absent") == nullptr);

  const auto numbers = file.at("numbers").elements();
  REQUIRE(numbers.size() == 3);
  CHECK(numbers[1].integer() == -1);
  CHECK(numbers[2].integer() == 2);
  const auto words = file.at("words").elements();
  REQUIRE(words.size() == 2);
  CHECK(words[0].string() == "one");
  CHECK(words[1].string().empty());
  CHECK(file.at("nothing").elements().empty());
  CHECK(file.at("arrays").size() == 2);

  // Getters of another type name file and key.
  expect_error(error_code::missing, {"m.gguf: absent"}, [&] { return file.at("absent").integer(); });
  expect_error(error_code::mismatch, {"m.gguf: text", "no integer"}, [&] { return file.at("text").integer(); });
  expect_error(error_code::mismatch, {"m.gguf: f32", "no integer"}, [&] { return file.at("f32").integer(); });
  expect_error(error_code::mismatch, {"m.gguf: yes", "no integer"}, [&] { return file.at("yes").number(); });
  expect_error(error_code::mismatch, {"m.gguf: u64 of 64 bits"}, [&] { return file.at("u64 of 64 bits").integer(); });
  expect_error(error_code::mismatch, {"m.gguf: u8", "255", "[0, 254]"}, [&] { return file.at("u8").integer(0, 254); });
  expect_error(error_code::mismatch, {"m.gguf: u8", "no string"}, [&] { return file.at("u8").string(); });
  expect_error(error_code::mismatch, {"m.gguf: u8", "no boolean"}, [&] { return file.at("u8").boolean(); });
  expect_error(error_code::mismatch, {"m.gguf: text", "no array"}, [&] { return file.at("text").size(); });
  expect_error(error_code::mismatch, {"m.gguf: text", "no array"}, [&] { return file.at("text").elements(); });
  expect_error(error_code::mismatch, {"m.gguf: arrays"}, [&] { return file.at("arrays").elements(); });
  expect_error(error_code::mismatch, {"m.gguf: numbers", "no integer"}, [&] { return file.at("numbers").integer(); });
  expect_error(error_code::mismatch, {"m.gguf: words", "no integer"}, [&] { return words[0].integer(); });
}

TEST_CASE("gguf: tensors, outermost dimension first, in versions 2 and 3") {
  for (const std::uint32_t version : {2U, 3U}) {
    gguf_writer w = small();
    w.version = version;
    w.add_tensor("c", {5}, unknown_type, "?????");
    const std::string bytes = w.file();
    const gguf file(bytes_of(bytes), "m.gguf");
    REQUIRE(file.tensors().size() == 3);
    const auto t = file.tensors();
    CHECK(t[0].name == "a");
    CHECK(t[0].shape == std::vector<std::int64_t>{3, 2});
    CHECK(t[0].format == weight_format::f32);
    CHECK(t[0].file == "m.gguf");
    CHECK(t[0].data.size() == 24);
    CHECK(std::to_integer<char>(t[0].data[0]) == 'a');
    CHECK(t[1].format == weight_format::q8_0);
    CHECK(t[1].data.size() == 68);
    CHECK(std::to_integer<char>(t[1].data[67]) == 'b');
    CHECK((t[1].data.data() - bytes_of(bytes).data()) % 32 == 0);
    CHECK(t[2].format == weight_format::other);
  }
}

TEST_CASE("gguf: alignment as the file says") {
  for (const std::uint32_t alignment : {1U, 8U, 64U, 4096U}) {
    gguf_writer w;
    w.alignment = alignment;
    w.add("general.alignment", alignment).add_tensor("a", {1}, f32, "abcd").add_tensor("b", {1}, f32, "efgh");
    const std::string bytes = w.file();
    const gguf file(bytes_of(bytes), "m.gguf");
    CHECK(std::to_integer<char>(file.tensors()[1].data[3]) == 'h');
  }
  for (const std::uint32_t alignment : {0U, 3U, 48U, 1U << 21, 0xffffffffU}) {
    CAPTURE(alignment);
    refuses(gguf_writer().add("general.alignment", alignment), error_code::malformed,
            {"general.alignment: " + std::to_string(alignment), "power of two"});
  }
  refuses(gguf_writer().add("general.alignment", "32"), error_code::mismatch, {"general.alignment", "no integer"});
}

TEST_CASE("gguf: a file cut short anywhere is an error") {
  const std::string whole = small().file(), types = every_type().file();
  CHECK_NOTHROW(gguf(bytes_of(whole), "m.gguf"));
  for (const std::string& bytes : {whole, types}) {
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      CAPTURE(size);
      refuses(bytes.substr(0, size), error_code::malformed, {"m.gguf: "});
    }
  }
}

TEST_CASE("gguf: files of another kind") {
  gguf_writer w;
  w.magic = "GGML";
  refuses(w, error_code::malformed, {"magic"});
  refuses("", error_code::malformed, {"magic"});
  for (const auto& [version, word] : std::vector<std::pair<std::uint32_t, std::string>>{
           {0, "version 0"}, {1, "version 1"}, {4, "version 4"}, {3U << 24, "big endian"}, {2U << 24, "big endian"}}) {
    w = gguf_writer();
    w.version = version;
    refuses(w, error_code::unsupported, {"m.gguf: version", word, "convert it"});
  }
}

TEST_CASE("gguf: counts and lengths that can't be") {
  for (const std::uint64_t n : {std::uint64_t{200}, std::uint64_t{1} << 32, std::uint64_t{1} << 60,
                                std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    CAPTURE(n);
    const std::string length = little_endian<8>(n);
    gguf_writer w;
    w.value_count = n;
    refuses(w.add("k", 1U), error_code::malformed, {"m.gguf: "});
    w = gguf_writer();
    w.tensor_count = n;
    refuses(w.add("k", 1U), error_code::malformed, {"m.gguf: tensor count"});
    refuses(gguf_writer().add("k", gguf_type::string, length + "ab"), error_code::malformed, {"m.gguf: k"});
    for (const gguf_type type : {gguf_type::uint8, gguf_type::int16, gguf_type::float32, gguf_type::float64,
                                 gguf_type::string, gguf_type::array, gguf_type::boolean}) {
      refuses(gguf_writer().add_array("k", type, n, "ab"), error_code::malformed, {"m.gguf: k"});
    }
    refuses(gguf_writer().add_array("k", gguf_type::string, 1, length + "ab"), error_code::malformed, {"m.gguf: k"});
    refuses("GGUF" + little_endian<4>(3) + little_endian<8>(0) + little_endian<8>(1) + length + "key and so on....",
            error_code::malformed, {"m.gguf: key 0"});
    refuses("GGUF" + little_endian<4>(3) + little_endian<8>(1) + little_endian<8>(0) + length + std::string(24, 'x'),
            error_code::malformed, {"m.gguf: tensor 0"});
  }
  refuses(gguf_writer().add(std::string(65536, 'k'), 1U), error_code::malformed, {"key 0", "65536"});
  CHECK_NOTHROW(gguf(bytes_of(gguf_writer().add(std::string(65535, 'k'), 1U).file()), "m.gguf"));
}

TEST_CASE("gguf: values that can't be") {
  for (const std::uint32_t type : {13U, 255U, 0xffffffffU}) {
    refuses(gguf_writer().add("k", type, "12345678"), error_code::malformed,
            {"m.gguf: k", "type " + std::to_string(type)});
    refuses(gguf_writer().add_array("k", static_cast<gguf_type>(type), 1, "12345678"), error_code::malformed,
            {"m.gguf: k", "type " + std::to_string(type)});
  }
  refuses(gguf_writer().add("k", gguf_type::boolean, "\x02"), error_code::malformed, {"m.gguf: k", "boolean"});
  refuses(gguf_writer().add("k", 1U).add("k", 1U), error_code::malformed, {"m.gguf: k", "twice"});
  std::string nested = little_endian<4>(0) + little_endian<8>(0);
  for (int i = 0; i < 3; ++i) nested = little_endian<4>(9) + little_endian<8>(1) + nested;
  CHECK_NOTHROW(gguf(bytes_of(gguf_writer().add("k", gguf_type::array, nested).file()), "m.gguf"));
  for (int i = 0; i < 1000; ++i) nested = little_endian<4>(9) + little_endian<8>(1) + nested;
  refuses(gguf_writer().add("k", gguf_type::array, nested), error_code::limit, {"m.gguf: k", "nested"});
}

TEST_CASE("gguf: tensors that can't be") {
  const std::string data(64, 'x');
  const auto with = [&](const std::vector<std::uint64_t>& dimensions, std::uint32_t type, std::uint64_t offset) {
    return gguf_writer().add_info("w", dimensions, type, offset).add_data(data);
  };
  const std::uint64_t large = std::uint64_t{1} << 32;
  CHECK_NOTHROW(gguf(bytes_of(with({8}, f32, 32).file()), "m.gguf"));
  refuses(with({9}, f32, 32), error_code::malformed, {"tensor w", "36 bytes", "offset 32", "64 bytes of data"});
  refuses(with({1}, f32, 64), error_code::malformed, {"tensor w", "offset 64"});
  refuses(with({1}, f32, std::uint64_t{1} << 63), error_code::malformed, {"tensor w", "offset"});
  refuses(with({1}, f32, ~std::uint64_t{31}), error_code::malformed, {"tensor w", "offset"});
  refuses(with({1}, unknown_type, 96), error_code::malformed, {"tensor w", "offset 96"});
  refuses(with({1}, f32, 4), error_code::malformed, {"tensor w", "aligned to 32"});
  // Products that wrap around 64 bits to what would fit.
  refuses(with({large, large}, f32, 0), error_code::malformed, {"tensor w", "absurdly large"});
  refuses(with({large, large, 16}, f32, 0), error_code::malformed, {"tensor w", "absurdly large"});
  refuses(with({large, large / 4}, f16, 0), error_code::malformed, {"tensor w", "absurdly large"});
  refuses(with({~std::uint64_t{0}}, f32, 0), error_code::malformed, {"tensor w", "absurdly large"});
  refuses(with({std::uint64_t{1} << 63}, q8_0, 0), error_code::malformed, {"tensor w", "absurdly large"});
  refuses(with({std::uint64_t{1} << 48}, f32, 0), error_code::malformed, {"tensor w", "not in the"});
  refuses(with({1, 1, 1, 1, 1, 1, 1, 1, 1}, f32, 0), error_code::malformed, {"tensor w", "9 dimensions"});
  refuses(with({33}, q8_0, 0), error_code::malformed, {"tensor w", "Q8_0 blocks"});
  refuses(with({16, 2}, q8_0, 0), error_code::malformed, {"tensor w", "Q8_0 blocks"});
  refuses(with({32}, q4_k, 0), error_code::malformed, {"tensor w", "Q4_K blocks"});
  refuses(with({}, f32, 0), error_code::malformed, {"tensor w"});
  refuses(with({8}, f32, 0).add_info("w", {8}, f32, 32), error_code::malformed, {"tensor w", "twice"});
  refuses(with({16}, f32, 0).add_info("v", {8}, f32, 32), error_code::malformed, {"tensor v", "overlap", "of w"});
  refuses(gguf_writer().add_info(std::string(65536, 'w'), {1}, f32, 0).add_data(data), error_code::malformed,
          {"tensor 0", "65536"});
  // A count of dimensions that no file has room for.
  refuses("GGUF" + little_endian<4>(3) + little_endian<8>(1) + little_endian<8>(0) + gguf_string("w") +
              little_endian<4>(0xffffffff) + std::string(24, '\0'),
          error_code::malformed, {"tensor w", "4294967295 dimensions"});
}

}  // namespace gguf_tests
