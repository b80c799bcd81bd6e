// Paged caches on a device: blocks of a common pool, copies of them, and the bytes that the CPU's caches save.

#include "simt/device.hpp"

#include <effinfer/execution/cpu.hpp>
#include <effinfer/kv_cache/cuda/pages.hpp>
#include <effinfer/kv_cache/paged.hpp>
#include <effinfer/testing/attention_oracle.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace pages_tests {

namespace ei = effinfer;
namespace kv = ei::kv_cache;

namespace {

using device = simt_host::on_host<ei::bf16>::context;
using pages = kv::cuda::pages<float, 64, device>;
using on_cpu = kv::paged<float, 64>;
constexpr kv::shape shape{2, 3, 4};
constexpr int columns = shape.kv_heads * shape.head_size;

/// Beside each other: a cache of the host's device and one of the CPU, of common pools. What is written to one is written to both.
struct pair {
  pages there;
  on_cpu::cache here;

  /// Tokens whose numbers follow from `seed`.
  void write(int tokens, std::uint64_t seed) {
    static const ei::execution::cpu::context exec(ei::execution::cpu{.threads = 1});
    const std::vector<float> key = ei::testing::numbers(static_cast<std::size_t>(tokens * columns), seed);
    const std::vector<float> value = ei::testing::numbers(key.size(), seed + 1);
    there.prepare(tokens);
    for (int t = 0; t < tokens; ++t) {
      const auto place = there.place(there.length() + t);
      for (int layer = 0; layer < shape.layers; ++layer) {
        for (int head = 0; head < shape.kv_heads; ++head) {
          const std::ptrdiff_t to = layer * place.layer_stride + head * place.head_stride;
          const std::ptrdiff_t from = std::ptrdiff_t{t} * columns + head * shape.head_size;
          std::copy_n(key.data() + from, shape.head_size, place.keys + to);
          std::copy_n(value.data() + from, shape.head_size, place.values + to);
        }
      }
    }
    for (int layer = 0; layer < shape.layers; ++layer)
      here.write(exec, layer, {key.data(), tokens, columns}, {value.data(), tokens, columns});
    there.commit(tokens);
    here.commit(tokens);
  }
  [[nodiscard]] bool agrees() {
    there.prepare(0);  // as every pass begins
    std::vector<std::byte> a, b;
    there.save(a);
    here.save(b);
    const auto view = there.view(1, there.length());  // the table that kernels read
    const bool same_table = std::equal(there.table().begin(), there.table().end(), view.table);
    return a == b && same_table && std::equal(there.table().begin(), there.table().end(), here.table().begin());
  }
};

ei::error_code code_of(const auto& f) {
  try {
    f();
  } catch (const ei::error& e) {
    return e.code();
  }
  return ei::error_code::io;
}

}  // namespace

TEST_CASE("copies share the blocks of a common pool until one of them writes, as on the CPU") {
  const device where;
  const auto pool = std::make_shared<pages::pool>(shape, 5, where);
  const auto cpu_pool = std::make_shared<on_cpu::pool>(shape, 5);
  pair first{pages(pool, 300), on_cpu::cache(cpu_pool, 300)};
  first.write(100, 1);
  CHECK(first.agrees());
  pair second = first;  // no block more
  CHECK(pool->free_blocks() == 3);
  CHECK(second.there.room() == first.here.room());
  second.write(5, 7);  // the half-filled block becomes its own
  CHECK(pool->free_blocks() == 2);
  CHECK(cpu_pool->free_blocks() == 2);
  CHECK(first.agrees());
  CHECK(second.agrees());
  first.write(90, 11);  // the last one holds it alone now, and takes another
  CHECK(first.agrees());
  CHECK(second.agrees());
  CHECK(code_of([&] { second.there.prepare(150); }) == ei::error_code::context_overflow);
  CHECK(second.there.room() == second.here.room());
  CHECK(second.agrees());
  // Back, and on with other blocks: the table follows.
  first.there.truncate(70), first.here.truncate(70);
  second.write(40, 13);
  first.write(1, 15);
  CHECK(first.agrees());
  CHECK(second.agrees());
  first.there.become(second.there, 0), first.here.become(second.here, 0);
  CHECK(first.agrees());
  CHECK(first.there.length() == 145);
  std::vector<std::byte> saved;
  second.here.save(saved);
  first.there.clear(), first.here.clear();
  second.there.clear(), second.here.clear();
  CHECK(pool->free_blocks() == 5);
  CHECK(first.there.load(saved) == saved.size());
  CHECK(first.here.load(saved) == saved.size());
  CHECK(first.agrees());
  saved.pop_back();
  CHECK(code_of([&] { second.there.load(saved); }) == ei::error_code::malformed);
  CHECK(code_of([&] { pages(pool, 100).load(saved); }) == ei::error_code::mismatch);
}

}  // namespace pages_tests
