// core/error.hpp: what an error says.

#include <effinfer/core/error.hpp>

#include <doctest/doctest.h>

#include <string>

namespace error_tests {

using effinfer::error;
using effinfer::error_code;

TEST_CASE("an error says where, what and what to do") {
  const error e(error_code::missing, "file: field x", "it isn't there", "add it");
  CHECK(std::string(e.what()) == "file: field x: it isn't there (add it)");
  CHECK(e.code() == error_code::missing);
  CHECK(e.where() == "file: field x");
  CHECK(std::string(error(error_code::io, "file", "no").what()) == "file: no");
  CHECK(to_string(error_code::context_overflow) == "context_overflow");
}

TEST_CASE("control characters out of a file can neither end a message nor reach a terminal") {
  using namespace std::string_literals;
  const error e(error_code::malformed, "a\0b\x1b[2J\x7f"s, "caf\xc3\xa9\n\tline\r");
  CHECK(std::string(e.what()) == "a\\x00b\\x1b[2J\\x7f: caf\xc3\xa9\n\tline\\x0d");
  CHECK(e.where() == "a\0b\x1b[2J\x7f"s);
}

}  // namespace error_tests
