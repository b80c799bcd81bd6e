// What all memories of a sequence have in common (kv_cache/policy.hpp): one suite, run on each.

#include <effinfer/attention/cpu/linear.hpp>
#include <effinfer/attention/cpu/softmax.hpp>
#include <effinfer/kv_cache/contiguous.hpp>
#include <effinfer/kv_cache/paged.hpp>
#include <effinfer/kv_cache/recurrent_state.hpp>
#include <effinfer/kv_cache/ring.hpp>
#include <effinfer/testing/attention_oracle.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <memory_resource>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

using namespace effinfer;
using bytes = std::vector<std::byte>;

namespace {

const execution::cpu::context& exec() {
  static const execution::cpu::context one({.threads = 1});
  return one;
}

constexpr int layers = 2, heads = 2, head_size = 5, columns = heads * head_size;

/// `tokens` tokens with numbers that depend on the position, and on `text`: two texts are two continuations.
template <class Cache>
void read(Cache& cache, int tokens, int text = 0) {
  for (int t = 0; t < tokens; ++t) {
    const auto row = testing::numbers(2 * columns, static_cast<std::uint64_t>(cache.length() + 1000 * text));
    for (int layer = 0; layer < layers; ++layer) {
      cache.write(exec(), layer, {row.data(), 1, columns}, {row.data() + columns, 1, columns});
    }
    cache.commit(1);
  }
}
void read(kv_cache::recurrent_state& state, int tokens, int text = 0) {
  for (int t = 0; t < tokens; ++t) {
    const auto row = testing::numbers(columns, static_cast<std::uint64_t>(state.length() + 1000 * text));
    std::vector<float> out(columns);
    const matrix_view<const float> in(row.data(), 1, columns);
    for (int layer = 0; layer < layers; ++layer) {
      const attention::recurrent_sequence s{in, in, in, {out.data(), 1, columns}, state.view(layer)};
      attention::attend(exec(), attention::linear<>{}, {heads, heads, head_size, 1.0f}, std::span(&s, 1));
    }
    state.commit(1);
  }
}

template <class Memory>
bytes saved(const Memory& m) {
  bytes out;
  m.save(out);
  CHECK(out.size() == m.saved_bytes());
  return out;
}

template <class F>
error_code thrown(const F& f) {
  try {
    f();
  } catch (const error& e) {
    return e.code();
  }
  FAIL("nothing was thrown");
  return error_code::io;
}

template <class Memory>
void suite(const Memory& empty, const Memory& other_shape) {
  Memory m = empty;
  CHECK(m.length() == 0);
  read(m, 30);
  CHECK(m.length() == 30);
  const bytes at_30 = saved(m);

  SUBCASE("a copy goes on alone") {
    Memory fork = m;
    CHECK(saved(fork) == at_30);
    read(fork, 5, 1);
    CHECK(saved(m) == at_30);
    read(m, 5, 1);
    CHECK(saved(m) == saved(fork));
    const Memory moved = std::move(fork);
    CHECK(saved(moved) == saved(m));
  }
  SUBCASE("rollback: as if nothing had been read since the snapshot") {
    const auto point = m.snapshot();
    read(m, 7, 1);
    CHECK(saved(m) != at_30);
    CHECK(m.rollback(point));
    CHECK(m.length() == 30);
    read(m, 3, 2);
    Memory straight = empty;
    read(straight, 30);
    read(straight, 3, 2);
    // What a ring let go for the seven tokens stays gone, so its saved bytes may hold fewer positions.
    CHECK(m.length() == straight.length());
    if (m.truncation_limit() == straight.truncation_limit()) CHECK(saved(m) == saved(straight));
  }
  SUBCASE("truncate goes back as far as it says, and no further") {
    const int limit = m.truncation_limit();
    CHECK(m.truncate(30));
    if (limit > 1) {
      CHECK_FALSE(m.truncate(limit - 1));
      CHECK(saved(m) == at_30);
    }
    CHECK(m.truncate(limit));
    CHECK(m.length() == limit);
    CHECK(m.truncate(0));
    CHECK(saved(m) == saved(empty));
    CHECK(thrown([&] { m.truncate(1); }) == error_code::invalid_argument);
    CHECK(thrown([&] { m.truncate(-1); }) == error_code::invalid_argument);
  }
  SUBCASE("clear: as new") {
    m.clear();
    CHECK(saved(m) == saved(empty));
    read(m, 30);
    CHECK(saved(m) == at_30);
  }
  SUBCASE("load gives back what save wrote, and refuses anything else unchanged") {
    Memory back = empty;
    read(back, 3, 5);
    bytes longer = at_30;
    longer.resize(longer.size() + 9);
    CHECK(back.load(longer) == at_30.size());
    CHECK(saved(back) == at_30);

    const auto refuses = [&](const bytes& in, error_code code) {
      Memory target = empty;
      read(target, 4, 5);
      const bytes before = saved(target);
      CHECK(thrown([&] { target.load(in); }) == code);
      CHECK(saved(target) == before);
    };
    for (const std::size_t n : {std::size_t{0}, std::size_t{31}, std::size_t{32}, at_30.size() - 1}) {
      refuses(bytes(at_30.begin(), at_30.begin() + static_cast<std::ptrdiff_t>(n)), error_code::malformed);
    }
    const auto with = [&](std::size_t field, std::int32_t value) {
      bytes in = at_30;
      std::memcpy(in.data() + 4 * field, &value, 4);
      return in;
    };
    refuses(with(0, 77), error_code::malformed);
    refuses(with(7, 77), error_code::malformed);
    refuses(with(6, -1), error_code::malformed);
    for (const std::size_t field : {1u, 2u, 3u, 4u}) refuses(with(field, 77), error_code::mismatch);
    refuses(saved(other_shape), error_code::mismatch);
  }
}

}  // namespace

TEST_CASE("contiguous") {
  const kv_cache::shape s{layers, heads, head_size}, other{layers, heads, head_size + 1};
  using f16_cache = kv_cache::contiguous<>::cache;
  using f32_cache = kv_cache::contiguous<float>::cache;
  suite(f16_cache(s, 40), f16_cache(other, 40));
  suite(f32_cache(s, 40), f32_cache(other, 40));
  using int8_cache = kv_cache::contiguous<kv_cache::int8>::cache;
  suite(int8_cache(s, 40), int8_cache(other, 40));
  using fp8_cache = kv_cache::contiguous<fp8_e4m3>::cache;
  suite(fp8_cache(s, 40), fp8_cache(other, 40));
}
TEST_CASE("a ring that has let nothing go") {
  const kv_cache::shape s{layers, heads, head_size}, other{layers + 1, heads, head_size};
  using cache = kv_cache::ring<bf16>::cache;
  suite(cache(s, 40, 8), cache(other, 40, 8));
}
TEST_CASE("a ring that goes round") {
  const kv_cache::shape s{layers, heads, head_size}, other{layers, heads + 1, head_size};
  using cache = kv_cache::ring<float>::cache;
  cache started(s, 20, 4);  // 64 positions
  read(started, 200);
  CHECK(started.first() == 200 - 64);
  CHECK(started.truncation_limit() == 200 - 64 + 19);
  CHECK_FALSE(started.truncate(154));
  CHECK(started.truncate(155));
  CHECK(started.first() == 136);
  const auto held = saved(started);
  cache back(s, 20, 4);
  back.load(held);
  CHECK(saved(back) == held);
  CHECK(back.first() == 136);
  // Another ring needs a longer window than was kept.
  cache longer(s, 60, 4);
  CHECK(thrown([&] { longer.load(held); }) == error_code::mismatch);
  suite(cache(s, 20, 4), cache(other, 20, 4));
}
TEST_CASE("pages") {
  const kv_cache::shape s{layers, heads, head_size}, other{layers, heads, head_size + 1};
  using f16_cache = kv_cache::paged<>::cache;
  suite(f16_cache(s, 140), f16_cache(other, 140));
  using int8_cache = kv_cache::paged<kv_cache::int8, 128>::cache;
  suite(int8_cache(s, 40), int8_cache(other, 40));
  using policy = kv_cache::paged<float>;
  const auto common = std::make_shared<policy::pool>(s, 7), of_another = std::make_shared<policy::pool>(other, 1);
  suite(policy::cache(common, 70), policy::cache(of_another, 40));
  CHECK(common->free_blocks() == 7);
  policy::cache long_one(common, 200);
  read(long_one, 100);
  // What contiguous caches save, these load, and the other way round.
  kv_cache::contiguous<float>::cache plain(s, 200);
  read(plain, 150);
  long_one.load(saved(plain));
  CHECK(saved(long_one) == saved(plain));
  plain.clear();
  plain.load(saved(long_one));
  CHECK(plain.length() == 150);
}
TEST_CASE("forks share blocks until they write") {
  const kv_cache::shape s{layers, heads, head_size};
  using policy = kv_cache::paged<f16>;
  const auto common = std::make_shared<policy::pool>(s, 5);
  policy::cache a(common, 500);
  read(a, 100);
  CHECK(common->free_blocks() == 3);
  {
    policy::cache b = a, c(common, 500);
    c.become(a, 0);
    CHECK(common->free_blocks() == 3);
    CHECK(b.room() == 2 * 64 + 64 - 36);  // a block for its copy of the last one
    const bytes before = saved(a);
    read(b, 1, 1);  // copies the block of 36 tokens
    CHECK(common->free_blocks() == 2);
    CHECK(b.table()[0] == a.table()[0]);
    CHECK(b.table()[1] != a.table()[1]);
    CHECK(saved(a) == before);
    CHECK(saved(c) == before);
    CHECK(b.bytes() == 2 * common->bytes() / 5);
    CHECK(c.truncate(64));
    read(a, 1, 2);  // alone in its last block now, and writes there
    CHECK(common->free_blocks() == 2);
    read(c, 1, 3);
    CHECK(common->free_blocks() == 1);
    // What there is no block for is refused, and nothing changes.
    CHECK(a.room() == 64 + 27);
    const bytes now = saved(a);
    const std::vector<float> rows(100 * columns);
    CHECK(thrown([&] {
            a.write(exec(), 0, {rows.data(), 100, columns}, {rows.data(), 100, columns});
          }) == error_code::context_overflow);
    policy::cache d(common, 500);
    CHECK(thrown([&] { d.load(now); }) == error_code::context_overflow);
    CHECK(d.length() == 0);
    CHECK(saved(a) == now);
    CHECK(common->free_blocks() == 1);
  }
  CHECK(common->free_blocks() == 3);
  CHECK(a.truncate(0));
  CHECK(common->free_blocks() == 5);
}
TEST_CASE("attention on pages is attention on a contiguous cache, bit for bit") {
  const kv_cache::shape s{1, 2, 24};
  const attention::head_layout h{4, 2, 24, 0.2F};
  const auto common = std::make_shared<kv_cache::paged<>::pool>(s, 30);
  std::vector<kv_cache::paged<>::cache> others(3, kv_cache::paged<>::cache(common, 400));
  kv_cache::contiguous<>::cache plain(s, 400);
  int first = 0;
  for (const int tokens : {1, 62, 3, 200, 1, 130}) {
    const auto size = static_cast<std::size_t>(tokens);
    const auto key = testing::numbers(size * 48, static_cast<std::uint64_t>(first) + 1),
               value = testing::numbers(size * 48, 3), query = testing::numbers(size * 96, 4, 2);
    const auto attend = [&](auto& cache) {
      std::vector<float> out(size * 96, -7);
      const auto view = cache.write(exec(), 0, {key.data(), tokens, 48}, {value.data(), tokens, 48});
      cache.commit(tokens);
      using sequence = attention::sequence<std::remove_const_t<decltype(view)>>;
      const sequence one{{query.data(), tokens, 96}, {out.data(), tokens, 96}, view, first};
      attention::attend(exec(), attention::full{}, h, std::span<const sequence>(&one, 1));
      return out;
    };
    const auto wanted = attend(plain);
    for (auto& cache : others) CHECK(attend(cache) == wanted);  // their blocks alternate
    first += tokens;
  }
  CHECK(others[0].table()[1] != others[0].table()[0] + 1);
}
TEST_CASE("recurrent state") {
  suite(kv_cache::recurrent_state(layers, heads, head_size), kv_cache::recurrent_state(layers, heads, head_size + 1));
  kv_cache::recurrent_state a(layers, heads, head_size);
  const kv_cache::recurrent_state b(layers, heads + 1, head_size);
  CHECK_FALSE(a.rollback(b.snapshot()));
}

TEST_CASE("sizes are known before anything is allocated, and absurd ones are refused") {
  const kv_cache::shape s{32, 8, 128};
  CHECK(kv_cache::contiguous<>::cache::footprint(s, 8192) == 2ull * 32 * 8 * 8192 * 128 * 2);
  CHECK(kv_cache::contiguous<float>::cache::footprint({1, 1, 1}, 1) == 8);
  CHECK(kv_cache::contiguous<kv_cache::int8>::cache::footprint(s, 8192) == 2ull * 32 * 8 * 8192 * (128 + 4));
  CHECK(kv_cache::ring<>::cache::positions_held(4096, 512) == 4608);
  CHECK(kv_cache::ring<>::cache::positions_held(64, 1) == 64);
  CHECK(kv_cache::ring<>::cache::positions_held(65, 1) == 128);
  CHECK(kv_cache::ring<>::cache::footprint(s, 4096, 512) == 2ull * 32 * 8 * 4608 * 128 * 2);
  CHECK(kv_cache::paged<>::cache::footprint(s, 8192) == kv_cache::contiguous<>::cache::footprint(s, 8192));
  CHECK(kv_cache::paged<f16, 256>::cache::footprint(s, 257) == kv_cache::contiguous<>::cache::footprint(s, 512));
  CHECK(kv_cache::recurrent_state::footprint(4, 8, 32) == 4ull * 4 * 8 * (32 * 32 + 32));
  const kv_cache::contiguous<bf16>::cache cache({2, 3, 5}, 7);
  CHECK(cache.bytes() == kv_cache::contiguous<bf16>::cache::footprint({2, 3, 5}, 7));
  CHECK(kv_cache::recurrent_state(4, 8, 32).bytes() == kv_cache::recurrent_state::footprint(4, 8, 32));

  const int huge = 2147483647;
  CHECK(thrown([&] { (void)kv_cache::contiguous<>::cache::footprint({huge, huge, huge}, huge); }) == error_code::limit);
  CHECK(thrown([&] { kv_cache::contiguous<>::cache({huge, huge, huge}, huge); }) == error_code::limit);
  CHECK(thrown([&] { kv_cache::paged<>::cache({huge, huge, huge}, huge); }) == error_code::limit);
  CHECK(thrown([&] { kv_cache::paged<>::pool({1, 1, 1}, 0); }) == error_code::invalid_argument);
  CHECK(thrown([&] { (void)kv_cache::ring<>::cache::positions_held(huge, huge); }) == error_code::limit);
  CHECK(thrown([&] { kv_cache::recurrent_state(huge, huge, huge); }) == error_code::limit);
  for (const kv_cache::shape bad : {kv_cache::shape{0, 1, 1}, {1, -1, 1}, {1, 1, 0}}) {
    CHECK(thrown([&] { kv_cache::paged<>::cache(bad, 5); }) == error_code::invalid_argument);
    CHECK(thrown([&] { kv_cache::contiguous<>::cache(bad, 5); }) == error_code::invalid_argument);
  }
  CHECK(thrown([&] { kv_cache::contiguous<>::cache({1, 1, 1}, 0); }) == error_code::invalid_argument);
  CHECK(thrown([&] { kv_cache::paged<>::cache({1, 1, 1}, -5); }) == error_code::invalid_argument);
  CHECK(thrown([&] { kv_cache::ring<>::cache({1, 1, 1}, 0, 1); }) == error_code::invalid_argument);
  CHECK(thrown([&] { kv_cache::ring<>::cache({1, 1, 1}, 1, 0); }) == error_code::invalid_argument);
}

namespace {
/// Counts what is out, and gives no more than `most` bytes.
class counting : public std::pmr::memory_resource {
 public:
  std::size_t out = 0, most = std::size_t(-1);

 private:
  void* do_allocate(std::size_t size, std::size_t alignment) override {
    if (size > most - out) throw std::bad_alloc();
    void* p = std::pmr::new_delete_resource()->allocate(size, alignment);
    out += size;
    return p;
  }
  void do_deallocate(void* p, std::size_t size, std::size_t alignment) override {
    out -= size;
    std::pmr::new_delete_resource()->deallocate(p, size, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

template <class Make>
void uses_only(std::uint64_t size, const Make& make) {
  counting memory;
  {
    auto first = make(&memory);
    CHECK(memory.out == size);
    CHECK(first.bytes() == size);
    auto second = first;
    CHECK(memory.out == 2 * size);
    const auto third = std::move(second);
    CHECK(memory.out == 2 * size);
    first = third;
    CHECK(memory.out == 2 * size);
    memory.most = memory.out;
    CHECK_THROWS_AS(auto fourth = third, std::bad_alloc);
    CHECK_THROWS_AS(make(&memory), std::bad_alloc);
    CHECK(memory.out == 2 * size);
  }
  CHECK(memory.out == 0);
}
}  // namespace

TEST_CASE("memory comes from the caller's resource, as many bytes as announced, and goes back to it") {
  const kv_cache::shape s{layers, heads, head_size};
  using small = kv_cache::contiguous<kv_cache::int8>::cache;
  uses_only(small::footprint(s, 40), [&](auto* from) { return small(s, 40, from); });
  using paged = kv_cache::paged<f16>::cache;
  uses_only(paged::footprint(s, 70), [&](auto* from) { return paged(s, 70, from); });
  using ring = kv_cache::ring<f16>::cache;
  uses_only(ring::footprint(s, 100, 20), [&](auto* from) { return ring(s, 100, 20, from); });
  using state = kv_cache::recurrent_state;
  uses_only(state::footprint(layers, heads, head_size),
            [](auto* from) { return state(layers, heads, head_size, from); });
  counting memory;
  {
    const state first(layers, heads, head_size, &memory);
    auto mark = first.snapshot();
    const auto again = mark;
    first.snapshot(mark);
    CHECK(memory.out == 3 * first.bytes());
  }
  CHECK(memory.out == 0);
}

TEST_CASE("what is written can be read at its position; what isn't committed never was") {
  kv_cache::ring<float>::cache ring({1, 2, 5}, 30, 20);  // 64 positions
  for (int first = 0; first < 300; first += 20) {
    const auto key = testing::numbers(20 * columns, static_cast<std::uint64_t>(first)),
               value = testing::numbers(20 * columns, 7);
    const auto view = ring.write(exec(), 0, {key.data(), 20, columns}, {value.data(), 20, columns});
    CHECK(view.length == first + 20);
    CHECK(ring.length() == first);
    ring.commit(20);
    for (int p = first; p < first + 20; ++p) {
      const auto at = static_cast<std::size_t>(p - first) * columns;
      CHECK(std::memcmp(view.key(1, p), key.data() + at + head_size, head_size * sizeof(float)) == 0);
      CHECK(std::memcmp(view.value(0, p), value.data() + at, head_size * sizeof(float)) == 0);
    }
  }
  const std::vector<float> rows(64 * columns);
  CHECK(ring.room() == 35);
  CHECK(thrown([&] {
          ring.write(exec(), 0, {rows.data(), 36, columns}, {rows.data(), 36, columns});
        }) == error_code::context_overflow);
  CHECK(thrown([&] {
          ring.write(exec(), 0, {rows.data(), 2, columns}, {rows.data(), 3, columns});
        }) == error_code::mismatch);
  CHECK(thrown([&] { ring.write(exec(), 0, {rows.data(), 2, 9}, {rows.data(), 2, 9}); }) == error_code::mismatch);
  CHECK(thrown([&] {
          ring.write(exec(), 1, {rows.data(), 2, columns}, {rows.data(), 2, columns});
        }) == error_code::mismatch);

  kv_cache::contiguous<f16>::cache full({1, 2, 5}, 10);
  CHECK(full.room() == 10);
  full.write(exec(), 0, {rows.data(), 10, columns}, {rows.data(), 10, columns});
  full.commit(10);
  CHECK(thrown([&] {
          full.write(exec(), 0, {rows.data(), 1, columns}, {rows.data(), 1, columns});
        }) == error_code::context_overflow);
}
