// checkpoint/tensor.hpp: bytes that two tensors share are found wherever they stand in the list.

#include "checkpoint/expect_error.hpp"

#include <effinfer/checkpoint/tensor.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

namespace tensor_tests {

using effinfer::checkpoint::check_disjoint;
using effinfer::checkpoint::tensor;

namespace {

std::byte storage[64];

tensor at(const char* name, std::size_t begin, std::size_t size) {
  return {.name = name,
          .format = effinfer::weight_format::f32,
          .shape = {},
          .data = std::span(storage).subspan(begin, size),
          .file = "file"};
}

}  // namespace

TEST_CASE("disjoint tensors") {
  CHECK_NOTHROW(check_disjoint({}));
  CHECK_NOTHROW(check_disjoint(std::vector{at("c", 32, 32), at("a", 0, 16), at("b", 16, 16), at("empty", 8, 0)}));
  const auto refused = [](const std::vector<tensor>& tensors) {
    test::expect_error(effinfer::error_code::malformed, {"file: tensor b", "overlap those of a"}, [&] {
      check_disjoint(tensors);
      return 0;
    });
  };
  refused({at("a", 0, 16), at("b", 15, 16)});
  refused({at("b", 15, 1), at("c", 32, 8), at("a", 0, 16)});
  refused({at("a", 0, 64), at("b", 1, 2), at("c", 63, 1)});
}

}  // namespace tensor_tests
