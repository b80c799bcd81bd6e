// Hopper's instructions on the host context: it runs what is right, and finds what is not.

#include "simt/hopper.hpp"
#include "simt/prefill_runs.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace hopper_tests {

using namespace simt_host;
using effinfer::bf16;
using effinfer::f16;
namespace cuda = ei::attention::cuda;

namespace {

/// What a kernel is accused of, in any order of the threads; empty where it runs through in all.
template <class Kernel>
std::string accused_of(launch l, const Kernel& kernel) {
  std::string all;
  for (const thread_order order : {thread_order::forward, thread_order::reverse, thread_order::shuffled}) {
    l.order = order;
    std::string now;
    try {
      run(l, kernel);
    } catch (const simt_error& e) {
      now = e.what();
    }
    if (order != thread_order::forward && now.empty() != all.empty()) return "only in some orders: " + now + all;
    all = now;
  }
  return all;
}
bool says(const std::string& message, const std::string& part) { return message.find(part) != std::string::npos; }

template <class Simt>
using hopper = simt::hopper<Simt>;

/// Numbers whose sums of products are exact.
float number(int i) { return static_cast<float>(i * 7 % 23 - 11) / 8; }

}  // namespace

TEST_CASE("barriers in shared memory: a ring of two stages between two warps") {
  // What is wrong with it, where something is.
  enum class bug { none, no_wait_for_data, no_wait_for_room, wrong_parity, wrong_count, early_arrival };
  const auto ring = [](bug b) {
    return [b](auto& t) {
      const auto stage = t.template shared<int>(2 * 32);
      const auto barrier = t.template shared<simt::mbarrier>(4);  // full, empty
      hopper<std::remove_reference_t<decltype(t)>> h(t);
      if (t.thread() == 0) {
        for (int i = 0; i < 4; ++i) h.init(barrier, i, b == bug::wrong_count ? 33 : 32);
        h.publish();
      }
      t.barrier();
      for (int n = 0; n < 6; ++n) {
        const int s = n % 2, parity = n / 2 % 2;
        if (t.warp() == 0) {
          if (b != bug::no_wait_for_room) h.wait(barrier, 2 + s, parity ^ 1);
          if (b == bug::early_arrival) h.arrive(barrier, s);
          stage[s * 32 + t.lane()] = n * 32 + t.lane();
          if (b != bug::early_arrival) h.arrive(barrier, s);
        } else {
          if (b != bug::no_wait_for_data) h.wait(barrier, s, b == bug::wrong_parity ? parity ^ 1 : parity);
          const int other = stage[s * 32 + 31 - t.lane()];
          if (b == bug::none) CHECK(other == n * 32 + 31 - t.lane());
          h.arrive(barrier, 2 + s);
        }
      }
    };
  };
  const launch l{.threads = 64, .shared_bytes = 2 * 32 * 4 + 32};
  CHECK(accused_of(l, ring(bug::none)).empty());
  CHECK_FALSE(accused_of(l, ring(bug::no_wait_for_data)).empty());
  CHECK_FALSE(accused_of(l, ring(bug::no_wait_for_room)).empty());
  CHECK_FALSE(accused_of(l, ring(bug::wrong_parity)).empty());
  CHECK(says(accused_of(l, ring(bug::wrong_count)), "diverged"));
  CHECK_FALSE(accused_of(l, ring(bug::early_arrival)).empty());
}

TEST_CASE("barriers in shared memory: used without init, or right behind it") {
  const auto arrive = [](bool made, bool met) {
    return [=](auto& t) {
      const auto barrier = t.template shared<simt::mbarrier>(1);
      hopper<std::remove_reference_t<decltype(t)>> h(t);
      if (made && t.thread() == 0) h.init(barrier, 0, 32);
      if (met) t.barrier();
      h.arrive(barrier, 0);
      h.wait(barrier, 0, 0);
    };
  };
  const launch l{.threads = 32, .shared_bytes = 8};
  CHECK(accused_of(l, arrive(true, true)).empty());
  CHECK(says(accused_of(l, arrive(false, true)), "it isn't one"));
  CHECK_FALSE(accused_of(l, arrive(true, false)).empty());
}

TEST_CASE("boxes of a matrix come swizzled, zeros where it ends") {
  // 70 x 100, rows 104 apart; a box of 16 rows from row 60, column 64: 10 rows and 36 columns are there.
  std::vector<std::uint16_t> matrix(70 * 104 + 8);
  std::iota(matrix.begin(), matrix.end(), std::uint16_t{1});
  const auto aligned = reinterpret_cast<std::uintptr_t>(matrix.data()) % 16 / 2;
  const std::uint16_t* const first = matrix.data() + (8 - aligned) % 8;
  const simt::tensor_map map = make_tensor_map({first, 70, 100, 104, 16});
  enum class bug { none, no_wait, wrong_parity, short_count, overwritten, unaligned, left };
  const auto copy = [&](bug b) {
    return [&, b](auto& t) {
      const auto box = t.template shared<std::uint16_t>(16 * 64 + 8);
      const auto barrier = t.template shared<simt::mbarrier>(1);
      hopper<std::remove_reference_t<decltype(t)>> h(t);
      if (t.thread() == 0) h.init(barrier, 0, 1);
      t.barrier();
      if (t.thread() == 0) {
        h.arrive_expect(barrier, 0, b == bug::short_count ? 1024 : 2048);
        h.copy_box(box, b == bug::unaligned ? 8 : 0, &map, 64, 60, barrier, 0);
      }
      if (b == bug::left) return;
      if (b == bug::overwritten && t.thread() == 7) box[5] = std::uint16_t{3};
      if (b != bug::no_wait) h.wait(barrier, 0, b == bug::wrong_parity ? 1 : 0);
      for (int i = t.thread(); i < 16 * 64; i += 32) {
        const int r = i / 64, c = i % 64;
        // Piece c / 8 of row r is where c / 8 xor r % 8 would be.
        const std::uint16_t now = box[r * 64 + (c / 8 ^ r % 8) * 8 + c % 8];
        const int wanted = r < 10 && c < 36 ? first[(60 + r) * 104 + 64 + c] : 0;
        if (b == bug::none) CHECK(now == wanted);
      }
    };
  };
  const launch l{.threads = 32, .shared_bytes = 16 * 64 * 2 + 24};
  CHECK(accused_of(l, copy(bug::none)).empty());
  CHECK_FALSE(accused_of(l, copy(bug::no_wait)).empty());
  CHECK_FALSE(accused_of(l, copy(bug::wrong_parity)).empty());
  CHECK(says(accused_of(l, copy(bug::short_count)), "diverged"));
  CHECK_FALSE(accused_of(l, copy(bug::overwritten)).empty());
  CHECK(says(accused_of(l, copy(bug::unaligned)), "multiple of 1024"));
  CHECK(says(accused_of(l, copy(bug::left)), "on their way"));
}

namespace {

enum class product_bug { none, no_wait, no_fence, no_async_fence, wrong_swizzle, wrong_stride, written, ended };

/// A [64, 64] b [64, N], b from rows of n or of k; a from shared memory or registers.
template <class T, int N, bool Transposed, bool Registers>
std::string multiply(product_bug bug, std::vector<float>& out) {
  constexpr int k_all = 64, rows_of_b = Transposed ? k_all : N;
  constexpr int bytes_of_b = N * k_all * 2, bytes_of_a = 64 * k_all * 2;
  out.assign(64 * N, -1);
  return accused_of({.threads = 128, .shared_bytes = bytes_of_a + bytes_of_b}, [&](auto& t) {
    const auto memory = t.template shared<std::uint16_t>((bytes_of_a + bytes_of_b) / 2);
    hopper<std::remove_reference_t<decltype(t)>> h(t);
    const auto put = [&](int base, int row, int column, int rows, float x) {
      const int panel = base + column / 64 * rows * 128, at = row * 128 + column % 64 * 2;
      memory[(panel + (bug == product_bug::wrong_swizzle ? at : simt::swizzled(at))) / 2] = T(x).bits;
    };
    for (int i = t.thread(); i < 64 * k_all; i += 128) put(0, i / k_all, i % k_all, 64, number(i));
    for (int i = t.thread(); i < N * k_all; i += 128) {
      const int k = i / N, n = i % N;
      put(bytes_of_a, Transposed ? k : n, Transposed ? n : k, rows_of_b, number(3 * i + 1));
    }
    if (bug != product_bug::no_async_fence) h.fence_async();
    t.barrier();
    float d[N / 8][4] = {};
    const auto a = h.describe(memory, 0, 16, 1024);
    const auto b = h.describe(memory, bytes_of_a / 2, rows_of_b * 128, bug == product_bug::wrong_stride ? 512 : 1024);
    if (bug != product_bug::no_fence) h.begin();
    for (int k = 0; k < k_all / 16; ++k) {
      const auto part = b + (Transposed ? k * 16 * 128 : k * 32);
      if constexpr (Registers) {
        std::uint32_t own[4];
        for (int r = 0; r < 4; ++r) {
          own[r] = 0;
          for (int e = 0; e < 2; ++e) {
            const auto at = simt::a_element(t.lane(), 2 * r + e);
            const int row = t.warp() * 16 + at.row, column = k * 16 + at.column;
            own[r] |= static_cast<std::uint32_t>(T(number(row * k_all + column)).bits) << (16 * e);
          }
        }
        h.template multiply<Transposed>(d, own, part, T{}, true);
      } else {
        h.template multiply<Transposed>(d, a + k * 32, part, T{}, k > 0);
      }
    }
    h.commit();
    if (bug == product_bug::ended) return;
    CHECK(std::isnan(d[0][0]));
    if (bug == product_bug::written && t.thread() == 5) memory[bytes_of_a / 2 + 9] = std::uint16_t{0};
    if (bug != product_bug::no_wait) h.template finish<0>(d);
    for (int i = 0; i < N / 2; ++i) {
      const auto at = simt::d_element(t.lane(), i % 4);
      out[static_cast<std::size_t>(t.warp() * 16 + at.row) * N + static_cast<std::size_t>(i / 4 * 8 + at.column)] =
          d[i / 4][i % 4];
    }
    if (bug == product_bug::no_wait) h.template finish<0>(d);
  });
}

template <class T, int N, bool Transposed, bool Registers>
bool product_is_right() {
  std::vector<float> out;
  if (!multiply<T, N, Transposed, Registers>(product_bug::none, out).empty()) return false;
  for (int row = 0; row < 64; ++row) {
    for (int n = 0; n < N; ++n) {
      float sum = 0;
      for (int k = 0; k < 64; ++k) sum += number(row * 64 + k) * number(3 * (k * N + n) + 1);
      if (out[static_cast<std::size_t>(row) * N + static_cast<std::size_t>(n)] != sum) return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("products of a warpgroup are those of the matrices") {
  CHECK(product_is_right<bf16, 64, false, false>());
  CHECK(product_is_right<f16, 128, false, false>());
  CHECK(product_is_right<bf16, 128, true, true>());
  CHECK(product_is_right<f16, 64, true, false>());
  CHECK(product_is_right<f16, 256, true, true>());
  CHECK(product_is_right<bf16, 64, false, true>());
}

TEST_CASE("what a product needs, and what it must be left alone with") {
  std::vector<float> out;
  const auto wrong = [&](product_bug b) { return multiply<bf16, 64, false, false>(b, out); };
  CHECK(says(wrong(product_bug::no_fence), "without a fence"));
  CHECK(says(wrong(product_bug::no_async_fence), "without fence_async"));
  CHECK(says(wrong(product_bug::written), "a product in the background reads"));
  CHECK(says(wrong(product_bug::ended), "didn't wait for"));
  CHECK(wrong(product_bug::no_wait).empty());
  CHECK(std::isnan(out[100]));  // whoever doesn't wait gets nothing
  CHECK(wrong(product_bug::none).empty());
  const std::vector<float> right = out;
  CHECK(wrong(product_bug::wrong_swizzle).empty());
  CHECK(out != right);
  CHECK(wrong(product_bug::wrong_stride).empty());
  CHECK(out != right);
}

TEST_CASE("a group that isn't waited for may go on, and what it reads stays its own until all four warps have told") {
  const auto overlap = [](bool told_by_all) {
    return [=](auto& t) {
      const auto memory = t.template shared<std::uint32_t>(64 * 64);  // a, then b
      const auto barrier = t.template shared<simt::mbarrier>(1);
      hopper<std::remove_reference_t<decltype(t)>> h(t);
      if (t.thread() == 0) h.init(barrier, 0, told_by_all ? 4 : 1);
      for (int i = t.thread(); i < 64 * 64; i += t.threads()) memory[i] = bf16(1.0F).bits * 0x10001U;
      h.fence_async();
      t.barrier();
      if (t.warp() == 4) {
        h.wait(barrier, 0, 0);
        memory[64 * 32 + t.lane()] = 0U;
        return;
      }
      const auto a = h.describe(memory, 0, 16, 1024), b = h.describe(memory, 64 * 32, 16, 1024);
      float first[8][4] = {}, second[8][4] = {};
      h.begin();
      h.template multiply<false>(first, a, b, bf16{}, false);
      h.commit();
      h.template multiply<false>(second, a, a, bf16{}, false);
      h.commit();
      h.template finish<1>(first);
      CHECK(first[3][1] == 16);
      CHECK(std::isnan(second[3][1]));
      if (t.lane() == 0 && (told_by_all || t.warp() == 0)) h.arrive(barrier, 0);
      h.template finish<0>(second);
      CHECK(second[3][1] == 16);
    };
  };
  const launch l{.threads = 160, .shared_bytes = 64 * 64 * 4 + 8};
  CHECK(accused_of(l, overlap(true)).empty());
  CHECK_FALSE(accused_of(l, overlap(false)).empty());
}

TEST_CASE("named barriers: turns, and threads that only arrive") {
  const auto turns = [](bool waits, int count) {
    return [=](auto& t) {
      const auto s = t.template shared<int>(32);
      hopper<std::remove_reference_t<decltype(t)>> h(t);
      for (int n = 0; n < 3; ++n) {  // warp 0 writes, warp 1 reads
        if (t.warp() == 0) {
          if (n > 0) h.sync(2, 64);
          s[t.lane()] = n;
          h.arrive(1, 64);
        } else {
          if (waits) h.sync(1, count);
          const int other = s[31 - t.lane()];
          if (waits && count == 64) CHECK(other == n);
          if (n < 2) h.arrive(2, 64);
        }
      }
    };
  };
  const launch l{.threads = 64, .shared_bytes = 128};
  CHECK(accused_of(l, turns(true, 64)).empty());
  CHECK_FALSE(accused_of(l, turns(false, 64)).empty());
  CHECK_FALSE(accused_of(l, turns(true, 32)).empty());
}

namespace {

/// The host context with a fault in one instruction, as if the kernel had forgotten or mistaken something.
enum class fault { none, keys, values, room, parity, products, fewer_products, async_fence, arrival };
template <fault F>
struct faulty : context {
  explicit faulty(const context& t) : context(t) {}
};

}  // namespace

}  // namespace hopper_tests

namespace effinfer::inline v0::execution::simt {

/// Barriers of prefill_wgmma: 0, 1 say that keys are there, 2, 3 values, 4 to 7 that there is room.
template <hopper_tests::fault F>
class hopper<hopper_tests::faulty<F>> : public hopper<simt_host::context> {
  using fault = hopper_tests::fault;
  using right = hopper<simt_host::context>;

 public:
  explicit hopper(hopper_tests::faulty<F>& t) : right(t) {}
  void wait(const simt_host::shared_array<mbarrier>& b, int i, int parity) {
    const fault of = i < 2 ? fault::keys : i < 4 ? fault::values : fault::room;
    if (F != of) right::wait(b, i, F == fault::parity && i < 4 ? parity ^ 1 : parity);
  }
  template <int N, int... Columns>
  void finish(float (&... d)[Columns][4]) {
    if constexpr (F == fault::products) {
      (void)std::initializer_list<const void*>{&d...};
    } else {
      right::template finish<F == fault::fewer_products && N == 0 ? 1 : N>(d...);
    }
  }
  void fence_async() {
    if constexpr (F != fault::async_fence) right::fence_async();
  }
  using right::arrive;
  void arrive(const simt_host::shared_array<mbarrier>& b, int i) {
    // Room is told of twice as early: by warps that other warps' products still read for.
    right::arrive(b, i);
    if (F == fault::arrival && i >= 4) right::arrive(b, i);
  }
};

}  // namespace effinfer::inline v0::execution::simt

namespace hopper_tests {

namespace {

/// What the kernel with the fault is accused of, or "wrong" where it only gives wrong numbers.
template <fault F>
std::string accused_prefill(bool with_maps) {
  using namespace ei::attention;
  using T = bf16;
  constexpr int d = 64;
  const head_layout h = layout(1, 1, d);
  random_sequence<T> s(h, 100, 540, 1);  // five tiles of two stages, the last one not whole
  std::vector call = {in_call(s, h, rows_of(s, h))};
  const std::vector maps = {maps_of(call[0].cache, 1)};
  if (with_maps) call[0].maps = maps.data();
  const auto plan = cuda::plan_prefill(full{}, h, std::span(call), {.shared_bytes = 227 * 1024, .wgmma = true});
  using kernel = cuda::prefill_wgmma<full, T, cache_of<T>, d>;
  const kernel::args args{full{}, h, call.data(), plan};
  const auto g = kernel::plan(args);
  std::string found =
      accused_of({.blocks = g.blocks, .threads = g.threads, .shared_bytes = g.shared_bytes}, [&](auto& t) {
        faulty<F> own(t);
        kernel::run(own, args);
      });
  if (!found.empty()) return found;
  return is_near_oracle(full{}, h, s, floats(s.keys), floats(s.values), 0, rounding<T>) ? "" : "wrong";
}

}  // namespace

TEST_CASE("what prefill_wgmma could forget is found") {
  for (const bool with_maps : {true, false}) {
    CHECK(accused_prefill<fault::none>(with_maps) == "");
    CHECK_FALSE(accused_prefill<fault::keys>(with_maps).empty());
    CHECK_FALSE(accused_prefill<fault::values>(with_maps).empty());
    CHECK_FALSE(accused_prefill<fault::room>(with_maps).empty());
    CHECK_FALSE(accused_prefill<fault::parity>(with_maps).empty());
    CHECK_FALSE(accused_prefill<fault::products>(with_maps).empty());
    CHECK_FALSE(accused_prefill<fault::fewer_products>(with_maps).empty());
    CHECK(says(accused_prefill<fault::async_fence>(with_maps), "without fence_async"));
    CHECK_FALSE(accused_prefill<fault::arrival>(with_maps).empty());
  }
}

}  // namespace hopper_tests
