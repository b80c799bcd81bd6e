#pragma once
// Checks that something is refused with the right code, and that the message says where and what.

#include <effinfer/core/error.hpp>

#include <doctest/doctest.h>

#include <initializer_list>
#include <string>
#include <string_view>

namespace test {

/// Calls `f`, which must throw effinfer::error with `code` and a message that holds each of `words`.
template <class F>
void expect_error(effinfer::error_code code, std::initializer_list<std::string_view> words, const F& f) {
  try {
    static_cast<void>(f());
  } catch (const effinfer::error& e) {
    const std::string message = e.what();
    CAPTURE(message);
    CHECK(std::string(effinfer::to_string(e.code())) == std::string(effinfer::to_string(code)));
    for (const std::string_view word : words) {
      const std::string wanted(word);
      CAPTURE(wanted);
      CHECK(message.find(wanted) != std::string::npos);
    }
    return;
  }
  std::string wanted;
  for (const std::string_view word : words) wanted += std::string(word) + " ";
  CAPTURE(wanted);
  CHECK_MESSAGE(false, "nothing was thrown");
}

}  // namespace test
