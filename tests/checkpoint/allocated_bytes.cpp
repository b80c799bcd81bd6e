// Counts what operator new is asked for, in this test program only.

#include "checkpoint/allocated_bytes.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

namespace {
std::atomic<std::size_t> total{0};

void* counted(std::size_t bytes) {
  total += bytes;
  if (void* p = std::malloc(bytes == 0 ? 1 : bytes)) return p;
  throw std::bad_alloc();
}
}  // namespace

std::size_t test::allocated_bytes() { return total; }

void* operator new(std::size_t bytes) { return counted(bytes); }
void* operator new[](std::size_t bytes) { return counted(bytes); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

TEST_CASE("allocations are counted") {
  CHECK(test::bytes_allocated_by([] { return std::make_unique<char[]>(12345); }) >= 12345);
  CHECK(test::bytes_allocated_by([] { return 0; }) == 0);
}
