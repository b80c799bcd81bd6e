// The host context itself: it runs what is right, and finds what is not.

#include "simt/host.hpp"

#include <effinfer/execution/simt/transpose.hpp>
#include <effinfer/layers/cuda/rms_norm.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

namespace host_tests {

using namespace simt_host;
using effinfer::bf16;
using effinfer::f16;

namespace {

/// What a kernel is accused of; empty where it runs through.
template <class Kernel>
std::string accused_of(const launch& l, const Kernel& kernel) {
  try {
    run(l, kernel);
  } catch (const simt_error& e) {
    return e.what();
  }
  return {};
}
bool says(const std::string& message, const std::string& part) { return message.find(part) != std::string::npos; }

constexpr thread_order orders[] = {thread_order::forward, thread_order::reverse, thread_order::shuffled};

}  // namespace

TEST_CASE("sums over a warp and a block, in every order of the threads") {
  std::vector<float> sums(2 * 96);
  run_in_all_orders(
      {.blocks = 2, .threads = 96, .shared_bytes = 12}, [&] { sums.assign(sums.size(), -1); },
      [&](auto& t) {
        const auto scratch = t.template shared<float>(3);
        const float own = static_cast<float>(t.thread() + 1000 * t.block());
        const float sum = simt::block_sum(t, own, scratch);
        const float again = simt::block_sum(t, 1.0F, scratch);  // in the same scratch
        CHECK(again == 96);
        const float greatest = simt::warp_max(t, own);
        CHECK(greatest == static_cast<float>(t.warp() * 32 + 31 + 1000 * t.block()));
        sums[static_cast<std::size_t>(t.block() * 96 + t.thread())] = sum;
      },
      [&] {
        for (std::size_t i = 0; i < sums.size(); ++i) CHECK(sums[i] == (i < 96 ? 96 * 95 / 2 : 96 * 95 / 2 + 96000));
      });
}

TEST_CASE("what a kernel does before it awaits those before it, and one that doesn't await them") {
  for (const thread_order order : orders) {
    int value = 1;
    std::vector<int> early(64), late(64);
    run({.threads = 64, .order = order, .predecessors = [&] { value = 2; }}, [&](auto& t) {
      const auto i = static_cast<std::size_t>(t.thread());
      early[i] = value;
      t.await_predecessors();
      late[i] = value;
    });
    CHECK(early == std::vector<int>(64, 1));
    CHECK(late == std::vector<int>(64, 2));
  }
  const auto forgets = accused_of({.threads = 32, .predecessors = [] {}}, [](auto& t) {
    if (t.lane() != 5) t.await_predecessors();
  });
  CHECK_MESSAGE(says(forgets, "thread 5 ends without having awaited the kernels before"), forgets);
}

TEST_CASE("shuffles, votes and atomics") {
  float total = 0;
  run({.threads = 64}, [&](auto& t) {
    CHECK(t.shuffle(t.thread(), 5) == t.warp() * 32 + 5);
    CHECK(t.shuffle_xor(t.lane(), 3) == (t.lane() ^ 3));
    CHECK(t.shuffle_down(t.lane(), 4) == (t.lane() < 28 ? t.lane() + 4 : t.lane()));
    CHECK(t.ballot(t.lane() % 2 == 0) == 0x55555555U);
    CHECK(t.any(t.lane() == 7));
    CHECK(!t.any(false));
    t.atomic_add(&total, 1.0F);
  });
  CHECK(total == 64);
}

TEST_CASE("a missing barrier is found in every order") {
  for (const thread_order order : orders) {
    const launch l{.threads = 64, .shared_bytes = 256, .order = order};
    const auto turn = [](bool with_barrier) {
      return [with_barrier](auto& t) {
        const auto s = t.template shared<float>(64);
        s[t.thread()] = 1;
        if (with_barrier) t.barrier();
        const float other = s[63 - t.thread()];
        CHECK(other == 1);
      };
    };
    CHECK(accused_of(l, turn(true)).empty());
    const std::string found = accused_of(l, turn(false));
    CHECK((says(found, "without a barrier") || says(found, "nobody has written")));
    // The second write of a loop meets the reads of the first round.
    const auto twice = [](bool with_barrier) {
      return [with_barrier](auto& t) {
        const auto s = t.template shared<float>(64);
        for (int i = 0; i < 2; ++i) {
          s[t.thread()] = static_cast<float>(i);
          t.barrier();
          const float other = s[(t.thread() + 32) % 64];
          CHECK(other == static_cast<float>(i));
          if (with_barrier) t.barrier();
        }
      };
    };
    CHECK(accused_of(l, twice(true)).empty());
    CHECK(says(accused_of(l, twice(false)), "without a barrier"));
  }
}

TEST_CASE("a warp barrier orders its warp and no other") {
  const auto pass_on = [](int by, bool with_barrier) {
    return [=](auto& t) {
      const auto s = t.template shared<int>(64);
      s[t.thread()] = t.thread();
      if (with_barrier) t.warp_barrier();
      const int other = s[(t.thread() + by) % 64];
      CHECK(other == (t.thread() + by) % 64);
      t.barrier();
    };
  };
  const launch l{.threads = 64, .shared_bytes = 256};
  const auto within = [](auto& t) {
    const auto s = t.template shared<int>(64);
    s[t.thread()] = t.thread();
    t.warp_barrier();
    const int other = s[t.thread() ^ 1];
    CHECK(other == (t.thread() ^ 1));
  };
  CHECK(accused_of(l, within).empty());
  CHECK(!accused_of(l, pass_on(32, true)).empty());
  CHECK(!accused_of(l, pass_on(1, false)).empty());
}

TEST_CASE("shared memory out of bounds, unwritten, or more than there is") {
  const launch l{.threads = 32, .shared_bytes = 160};
  const auto at = [](int i) {
    return [i](auto& t) {
      const auto s = t.template shared<float>(32);
      s[t.thread()] = 1;
      t.barrier();
      if (t.thread() == 3) {
        const float v = s[i];
        CHECK(v == 1);
      }
    };
  };
  CHECK(accused_of(l, at(31)).empty());
  CHECK(says(accused_of(l, at(32)), "thread 3: shared element 32 is outside an array of 32"));
  CHECK(says(accused_of(l, at(-1)), "outside"));
  CHECK(says(accused_of(l,
                        [](auto& t) {
                          const auto s = t.template shared<float>(32);
                          if (t.thread() > 0) s[t.thread()] = 1;
                          t.barrier();
                          const float v = s[0];
                          (void)v;
                        }),
             "nobody has written"));
  CHECK(says(accused_of(l, [](auto& t) { (void)t.template shared<float>(41); }), "asks for 164 bytes"));
}

TEST_CASE("shared memory as elements of another type") {
  const launch l{.threads = 32, .shared_bytes = 128};
  const auto at = [](int i) {
    return [i](auto& t) {
      const auto floats = t.kept(t.template shared<float>(32));
      floats[t.thread()] = 1;
      t.barrier();
      const auto halves = t.template as<std::uint16_t>(floats + 16);
      if (t.thread() == 3) {
        const std::uint16_t v = halves[i];
        CHECK(v == (i % 2 == 0 ? 0 : 0x3f80));
      }
    };
  };
  for (const int i : {-32, -1, 0, 31}) CHECK(accused_of(l, at(i)).empty());
  CHECK(says(accused_of(l, at(32)), "thread 3: shared element 64 is outside an array of 64"));
  CHECK(says(accused_of(l, at(-33)), "outside"));
}

TEST_CASE("divergence around a barrier and inside a warp") {
  const launch l{.threads = 64};
  CHECK(says(accused_of(l,
                        [](auto& t) {
                          if (t.warp() == 0) t.barrier();
                        }),
             "from thread 0 on at barrier, from thread 32 on ended"));
  CHECK(says(accused_of(l,
                        [](auto& t) {
                          if (t.lane() < 16) (void)t.shuffle(1, 0);
                        }),
             "diverged"));
  CHECK(says(accused_of(l,
                        [](auto& t) {
                          if (t.thread() == 9) {
                            t.barrier();
                          } else {
                            (void)t.shuffle(1, 0);
                            t.barrier();
                          }
                        }),
             "diverged"));
}

TEST_CASE("copies in the background") {
  alignas(16) std::vector<float> from(256);
  std::iota(from.begin(), from.end(), 0.0F);
  const launch l{.threads = 32, .shared_bytes = 1024};
  const auto copy = [&](bool with_wait, bool with_barrier) {
    return [&, with_wait, with_barrier](auto& t) {
      const auto s = t.template shared<float>(256);
      t.copy_async(s, 4 * t.thread(), from.data() + 4 * t.thread());
      t.commit();
      t.copy_async(s + 128, 4 * t.thread(), from.data() + 128 + 4 * t.thread());
      t.commit();
      if (with_wait) t.template wait<1>();
      if (with_barrier) t.barrier();
      const float first = s[127 - t.thread()];
      CHECK(first == static_cast<float>(127 - t.thread()));
      t.template wait<0>();
      const float own = s[128 + 4 * t.thread()];
      CHECK(own == static_cast<float>(128 + 4 * t.thread()));
    };
  };
  CHECK(accused_of(l, copy(true, true)).empty());
  CHECK(says(accused_of(l, copy(false, true)), "before its wait"));
  CHECK(!accused_of(l, copy(true, false)).empty());
  CHECK(says(accused_of(l,
                        [&](auto& t) {
                          const auto s = t.template shared<float>(128);
                          t.copy_async(s, 4 * t.thread(), from.data() + 4 * t.thread());
                          t.commit();
                        }),
             "didn't wait"));
  CHECK(says(accused_of(l,
                        [&](auto& t) {
                          const auto s = t.template shared<float>(128);
                          t.copy_async(s, 4 * t.thread() + 1, from.data());
                        }),
             "aligned"));
}

TEST_CASE_TEMPLATE("a product of fragments is the product of the matrices", T, bf16, f16) {
  std::vector<float> a(16 * 16), b(16 * 8), d(16 * 8);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>((static_cast<int>(i) * 7 % 23) - 11) / 8;
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>((static_cast<int>(i) * 5 % 19) - 9) / 4;
  run({.threads = 32}, [&](auto& t) {
    const auto pack = [](float low, float high) {
      return static_cast<std::uint32_t>(T(low).bits) | static_cast<std::uint32_t>(T(high).bits) << 16;
    };
    std::uint32_t fa[4], fb[2];
    float fd[4] = {1, 1, 1, 1};
    const auto a_at = [&](int i) {
      const auto e = simt::a_element(t.lane(), i);
      return a[static_cast<std::size_t>(e.row * 16 + e.column)];
    };
    const auto b_at = [&](int i) {
      const auto e = simt::b_element(t.lane(), i);
      return b[static_cast<std::size_t>(e.row * 8 + e.column)];
    };
    for (int r = 0; r < 4; ++r) fa[r] = pack(a_at(2 * r), a_at(2 * r + 1));
    for (int r = 0; r < 2; ++r) fb[r] = pack(b_at(2 * r), b_at(2 * r + 1));
    t.mma(fd, fa, fb, T{});
    for (int i = 0; i < 4; ++i) {
      const auto e = simt::d_element(t.lane(), i);
      d[static_cast<std::size_t>(e.row * 8 + e.column)] = fd[i];
    }
  });
  for (std::size_t row = 0; row < 16; ++row) {
    for (std::size_t column = 0; column < 8; ++column) {
      float sum = 1;
      for (std::size_t k = 0; k < 16; ++k) sum += a[row * 16 + k] * b[k * 8 + column];
      CHECK(d[row * 8 + column] == doctest::Approx(sum));
    }
  }
}

TEST_CASE("matrices from shared memory lie as mma's operands") {
  const launch l{.threads = 32, .shared_bytes = 16 * 16 * 2};
  const auto fill = [](auto& t) {
    const auto m = t.template shared<std::uint16_t>(256);  // [16, 16]
    for (int i = t.lane(); i < 256; i += 32) m[i] = static_cast<std::uint16_t>(i);
    t.warp_barrier();
    return m;
  };
  const auto element = [](const std::uint32_t* r, int i) {
    return static_cast<int>(r[i / 2] >> (i % 2 * 16) & 0xffffU);
  };
  run(l, [&](auto& t) {
    const auto m = fill(t);
    std::uint32_t r[4];
    t.load_matrices(m, t.lane() % 16 * 16 + t.lane() / 16 * 8, r);  // left above, left below, right above, right below
    for (int i = 0; i < 8; ++i) {
      const auto [row, k] = simt::a_element(t.lane(), i);
      CHECK(element(r, i) == row * 16 + k);
    }
    t.load_matrices_transposed(m, t.lane() % 16 * 16 + t.lane() / 16 * 8,
                               r);  // rows are k: columns [0, 8), then [8, 16)
    for (int i = 0; i < 8; ++i) {
      const auto [k, column] = simt::b_element(t.lane(), i % 4);
      CHECK(element(r, i) == k * 16 + column + i / 4 * 8);
    }
  });
  const auto load_from = [&](int by, bool written) {
    return [=](auto& t) {
      const auto m = written ? fill(t) : t.template shared<std::uint16_t>(256);
      std::uint32_t r[4];
      t.load_matrices(m, by + t.lane() % 16 * 8, r);
    };
  };
  CHECK(accused_of(l, load_from(0, true)).empty());
  CHECK(says(accused_of(l, load_from(4, true)), "16-byte aligned"));
  CHECK(says(accused_of(l, load_from(200, true)), "outside"));
  CHECK(says(accused_of(l, load_from(0, false)), "nobody has written"));
}

TEST_CASE("what a block wrote to shared memory isn't there for the next") {
  const launch l{.blocks = 2, .threads = 32, .shared_bytes = 128};
  const std::string accused = accused_of(l, [](auto& t) {
    const auto a = t.template shared<float>(32);
    if (t.block() == 0) a[t.lane()] = 1;
    (void)static_cast<float>(a[t.lane()]);
  });
  CHECK(says(accused, "block 1"));
  CHECK(says(accused, "nobody has written"));
}

TEST_CASE_TEMPLATE("words transposed among four lanes", Apart, std::integral_constant<int, 1>,
                   std::integral_constant<int, 8>) {
  constexpr int apart = Apart::value;
  run({.threads = 32}, [](auto& t) {
    const auto lane = static_cast<std::uint32_t>(t.lane()), c = lane / apart % 4, first = lane - c * apart;
    std::uint32_t w[4] = {lane * 4, lane * 4 + 1, lane * 4 + 2, lane * 4 + 3};
    simt::transpose_words<apart>(t, w);
    for (std::uint32_t i = 0; i < 4; ++i) CHECK(w[i] == (first + i * apart) * 4 + c);
  });
}

TEST_CASE("rms_norm awaits the kernels before it before it reads or writes what is theirs") {
  std::vector<float> x(515, 7), residual(515, 7), out(515, 7);
  const std::vector<float> weight(515, 2);
  start<effinfer::layers::cuda::rms_norm<float>>(
      {{x.data(), 1, 515}, {residual.data(), 1, 515}, weight.data(), 0, {out.data(), 1, 515}}, thread_order::shuffled,
      [&] {
        CHECK(out == std::vector<float>(515, 7));
        std::fill(x.begin(), x.end(), 1.0F);
        std::fill(residual.begin(), residual.end(), 3.0F);
      });
  CHECK(x == std::vector<float>(515, 4));
  CHECK(out == std::vector<float>(515, 2));
}

}  // namespace host_tests
