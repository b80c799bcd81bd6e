// The attention kernels of the GPU on every cache: against the oracle, and one cache against another bit for bit.

#include "simt/attention_runs.hpp"

#include <effinfer/attention/cuda/prefill.hpp>
#include <effinfer/attention/cuda/softmax.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/kv_cache/cpu/write.hpp>
#include <effinfer/kv_cache/cuda/store.hpp>
#include <effinfer/kv_cache/paged_view.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <type_traits>
#include <vector>

namespace caches_tests {

using namespace simt_host;
using ei::bf16;
using ei::f16;
using namespace ei::attention;
namespace cuda = ei::attention::cuda;
namespace kv = ei::kv_cache;

namespace {

head_layout layout(int heads, int kv_heads, int d) {
  return {heads, kv_heads, d, 1 / std::sqrt(static_cast<float>(d))};
}

/// [rows, columns] as the CPU's caches store them, heads of d one after another.
template <class E>
std::vector<E> stored(const std::vector<float>& from, int d) {
  const auto per_row = static_cast<std::size_t>(kv::row_elements<E>(d)), size = static_cast<std::size_t>(d);
  std::vector<E> to(from.size() / size * per_row);
  for (std::size_t r = 0; r < from.size() / size; ++r) {
    ei::execution::dispatch<kv::convert_row<E>>(ei::execution::instruction_set::portable, from.data() + r * size,
                                                to.data() + r * per_row, static_cast<std::ptrdiff_t>(d));
  }
  return to;
}
/// And what stands there.
template <class E>
std::vector<float> read(const std::vector<E>& from, int d) {
  if constexpr (!std::is_same_v<E, kv::int8>) {
    return floats(from);
  } else {
    std::vector<float> to;
    for (std::size_t at = 0; at < from.size(); at += static_cast<std::size_t>(d) + 4) {
      float scale;
      std::memcpy(&scale, from.data() + at + d, sizeof scale);
      for (std::size_t i = 0; i < static_cast<std::size_t>(d); ++i)
        to.push_back(scale * static_cast<float>(from[at + i].byte - 128));
    }
    return to;
  }
}

/// Bytes that no kernel may take part in a result: NaN as any type, a scale among them.
template <class E>
std::vector<E> poisoned(std::size_t n) {
  std::vector<E> v(n);
  std::memset(static_cast<void*>(v.data()), 0xff, n * sizeof(E));
  return v;
}

template <class E>
bool same_bytes(const std::vector<E>& a, const std::vector<E>& b) {
  return a.size() == b.size() && std::memcmp(static_cast<const void*>(a.data()), b.data(), a.size() * sizeof(E)) == 0;
}

#if defined(__CUDACC__)
bool same_but_for_nan(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](float x, float y) { return x == y || (std::isnan(x) && std::isnan(y)); });
}
#endif

/// One sequence's keys and values as E, in every layout.
template <class E>
struct caches {
  int d, kv_heads, length, row;  // row: elements of a position
  std::vector<E> keys, values;
  std::vector<E> ring_keys, ring_values, pool;
  std::vector<int> table;

  caches(const std::vector<float>& k, const std::vector<float>& v, const head_layout& h)
      : d(h.head_size),
        kv_heads(h.kv_heads),
        length(static_cast<int>(k.size()) / (h.kv_heads * h.head_size)),
        row(h.kv_heads * kv::row_elements<E>(h.head_size)),
        keys(stored<E>(k, d)),
        values(stored<E>(v, d)) {}

  [[nodiscard]] kv::view<E> rows() const {
    return kv::view<E>::of_rows(keys.data(), values.data(), kv_heads, d, length);
  }
  kv::view<E> ring(int capacity) {
    kv::view<E> v = rows();
    v.first = std::max(0, length - capacity), v.capacity = capacity;
    ring_keys = ring_values = poisoned<E>(static_cast<std::size_t>(capacity) * static_cast<std::size_t>(row));
    for (int p = v.first; p < length; ++p) {
      std::copy_n(keys.begin() + p * row, row, ring_keys.begin() + p % capacity * row);
      std::copy_n(values.begin() + p * row, row, ring_values.begin() + p % capacity * row);
    }
    v.keys = ring_keys.data(), v.values = ring_values.data();
    return v;
  }
  /// In blocks [key or value][K][positions][row] of a pool, in random order; positions before `first` in none.
  kv::paged_view<E> paged(int block_shift, int first = 0) {
    const int block = 1 << block_shift, blocks = (length + block - 1) / block, row_size = row / kv_heads;
    kv::paged_view<E> v;
    v.block_shift = block_shift, v.first = first, v.length = length;
    v.row_stride = row_size, v.head_stride = std::ptrdiff_t{block} * row_size;
    v.block_stride = 2 * kv_heads * v.head_stride;
    pool = poisoned<E>(static_cast<std::size_t>((blocks + 3) * v.block_stride));
    std::vector<int> order(static_cast<std::size_t>(blocks) + 3);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(5));
    table.assign(order.begin(), order.begin() + blocks);
    for (int p = first; p < length; ++p) {
      for (int head = 0; head < kv_heads; ++head) {
        const std::ptrdiff_t at =
            table[static_cast<std::size_t>(p / block)] * v.block_stride + head * v.head_stride + p % block * row_size;
        std::copy_n(keys.begin() + p * row + head * row_size, row_size, pool.begin() + at);
        std::copy_n(values.begin() + p * row + head * row_size, row_size, pool.begin() + at + v.block_stride / 2);
      }
    }
    for (int b = 0; b < first / block; ++b) table[static_cast<std::size_t>(b)] = -1000000;
    v.keys = pool.data(), v.values = pool.data() + v.block_stride / 2, v.table = table.data();
    return v;
  }
};

template <int D, class T, class View, class Mixer>
std::vector<T> prefill(const Mixer& mixer, const head_layout& h, random_sequence<T> s, const View& cache) {
  const std::ptrdiff_t columns = std::ptrdiff_t{h.heads} * h.head_size;
  s.poison();
  cuda::prefill_sequence<T, View> one{
      {s.query.data(), s.tokens, columns}, {s.out.data(), s.tokens, columns}, cache, s.first_position};
  const cuda::prefill_plan plan = cuda::plan_prefill(mixer, h, std::span(&one, 1));
  start<cuda::prefill<Mixer, T, View, D>>({mixer, h, &one, plan});
  return s.out;
}

/// Of the last token.
template <int D, class T, class View, class Mixer>
std::vector<T> decode(const Mixer& mixer, const head_layout& h, const random_sequence<T>& s, const View& cache) {
  const auto columns = static_cast<std::size_t>(h.heads) * static_cast<std::size_t>(D);
  std::vector<T> out(columns, T(not_a_number));
  cuda::decode_sequence<T, View> one{s.query.data() + s.query.size() - columns, out.data(), cache};
  const cuda::decode_plan plan = cuda::plan_decode(mixer, h, std::span(&one, 1));
  decode_workspace space(plan);
  start<cuda::decode<Mixer, T, View, D>>({mixer, h, &one, plan, space.data()});
  return out;
}

/// Prefill of `tokens` behind `before` and decode of the last one, keys and values stored as E.
template <int D, class T, class E, class Mixer>
void check(const Mixer& mixer, int heads, int kv_heads, int tokens, int before, int window = 0) {
  const head_layout h = layout(heads, kv_heads, D);
  random_sequence<T> s(h, tokens, before, static_cast<std::uint64_t>(tokens));
  caches<E> c(floats(s.keys), floats(s.values), h);
  const std::vector<float> keys = read(c.keys, D), values = read(c.values, D);
  // Values stored as another type than T are rounded to T before the weights, rounded as well, meet them.
  const double rounded = std::is_same_v<T, E> ? rounding<T> : 2 * rounding<T>;
  s.out = prefill<D>(mixer, h, s, c.rows());
  check_against_oracle(mixer, h, s, keys, values, 0, rounded);
  random_sequence<T> last = s;
  last.query.erase(last.query.begin(), last.query.end() - heads * D);
  last.first_position = s.length() - 1, last.tokens = 1;
  last.out = decode<D>(mixer, h, s, c.rows());
  check_against_oracle(mixer, h, last, keys, values, 0, rounded);

  for (const int shift : {6, 7}) {
    const int first = window > 0 ? std::max(0, before - window + 1) : 0;
    const auto view = c.paged(shift, first);
    CHECK(prefill<D>(mixer, h, s, view) == s.out);
    CHECK(decode<D>(mixer, h, s, view) == last.out);
  }
  if (window > 0) {
    const auto view = c.ring((window + tokens + 62) / 64 * 64);
    CHECK(prefill<D>(mixer, h, s, view) == s.out);
    CHECK(decode<D>(mixer, h, s, view) == last.out);
  }
}

}  // namespace

TEST_CASE("caches of int8 and in pages: prefill and decode") {
  check<64, bf16, bf16>(full{}, 2, 2, 5, 129);
  check<128, f16, f16>(full{}, 3, 1, 40, 31);
  check<64, bf16, kv::int8>(full{}, 4, 2, 70, 0);
  check<64, f16, kv::int8>(full{}, 3, 1, 3, 200);
  check<96, bf16, kv::int8>(full{}, 2, 1, 33, 40);
  check<128, bf16, kv::int8>(softmax<soft_cap>{soft_cap{.cap = 2}}, 2, 1, 40, 35);
  check<256, f16, kv::int8>(full{}, 2, 1, 10, 60);
}

TEST_CASE("caches of fp8: prefill and decode") {
  check<64, bf16, ei::fp8_e4m3>(full{}, 4, 2, 70, 0);
  check<96, f16, ei::fp8_e4m3>(full{}, 1, 1, 10, 60);
  check<128, f16, ei::fp8_e4m3>(full{}, 3, 1, 9, 70);
  check<256, bf16, ei::fp8_e4m3>(softmax<sliding_window<50>>{}, 2, 1, 9, 100, 50);
}

TEST_CASE("caches of int8 and in pages: a window, in rings and in tables that have let go what is behind it") {
  check<64, bf16, bf16>(softmax<sliding_window<50>>{}, 2, 1, 20, 300, 50);
  check<64, f16, kv::int8>(softmax<sliding_window<50>>{}, 2, 2, 20, 300, 50);
  check<128, f16, kv::int8>(softmax<sliding_window<70>>{}, 2, 1, 9, 260, 70);
}

TEST_CASE_TEMPLATE("rows are stored as the CPU stores them, bit for bit, in every cache", E, float, bf16, f16,
                   ei::fp8_e4m3, kv::int8) {
  using T = float;
  for (const int d : {64, 5}) {
    const head_layout h = layout(2, 2, d);
    const int tokens = 70, columns = 2 * d;
    std::vector<T> key = ei::testing::numbers(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(columns), 1,
                                              30),
                   value = ei::testing::numbers(key.size(), 2);
    std::fill_n(value.begin(), d, 0.0F);
    key[3] = std::numeric_limits<float>::infinity(), value[static_cast<std::size_t>(columns)] = not_a_number;
    caches<E> wanted(key, value, h);
    caches<E> target = wanted;
    // One sequence in pages and ring of the same numbers, all tokens in one call, in falling order.
    std::vector<kv::paged_view<E>> paged = {wanted.paged(6), target.paged(6)};
    const std::vector<E> expected = wanted.pool;
    target.pool = poisoned<E>(target.pool.size());
    paged[1].keys = target.pool.data(), paged[1].values = target.pool.data() + paged[1].block_stride / 2;
    paged[1].table = target.table.data();
    std::vector<int> positions, sequences(static_cast<std::size_t>(tokens), 1);
    for (int p = tokens; p > 0; --p) positions.push_back(p - 1);
    std::vector<T> falling_key, falling_value;
    for (const int p : positions) {
      falling_key.insert(falling_key.end(), key.begin() + p * columns, key.begin() + (p + 1) * columns);
      falling_value.insert(falling_value.end(), value.begin() + p * columns, value.begin() + (p + 1) * columns);
    }
    start<kv::cuda::store_rows<T, kv::paged_view<E>>>({{falling_key.data(), tokens, columns},
                                                       {falling_value.data(), tokens, columns},
                                                       paged.data(),
                                                       sequences.data(),
                                                       positions.data(),
                                                       d});
#if defined(__CUDACC__)
    CHECK(same_but_for_nan(read(target.pool, d), read(expected, d)));  // a GPU has one NaN
#else
    CHECK(same_bytes(target.pool, expected));
#endif
    const kv::view<E> view = wanted.ring(64);
    const std::vector<E> ring_keys = wanted.ring_keys, ring_values = wanted.ring_values;
    wanted.ring_keys = wanted.ring_values = poisoned<E>(ring_keys.size());
    kv::view<E> empty = view;
    empty.keys = wanted.ring_keys.data(), empty.values = wanted.ring_values.data();
    std::fill(sequences.begin(), sequences.end(), 0);
    const ei::matrix_view<const T> keys(falling_key.data(), 64, columns), values(falling_value.data(), 64, columns);
    start<kv::cuda::store_rows<T, kv::view<E>>>({keys, values, &empty, sequences.data(), positions.data(), d});
#if defined(__CUDACC__)
    CHECK(same_but_for_nan(read(wanted.ring_keys, d), read(ring_keys, d)));
    CHECK(same_but_for_nan(read(wanted.ring_values, d), read(ring_values, d)));
#else
    CHECK(same_bytes(wanted.ring_keys, ring_keys));
    CHECK(same_bytes(wanted.ring_values, ring_values));
#endif
    using kernel = kv::cuda::store_rows<T, kv::view<E>>;
    CHECK_THROWS_AS(kernel::plan({keys, {values.data, 63, columns}, &empty, nullptr, nullptr, d}), ei::error);
    CHECK_THROWS_AS(kernel::plan({keys, values, &empty, nullptr, nullptr, 0}), ei::error);
  }
}

TEST_CASE("decode of more sequences than a grid holds is refused") {
  using view = kv::view<bf16>;
  cuda::decode_args<full, bf16, view> a{full{}, layout(8, 4, 64), nullptr, {20000}, nullptr};
  CHECK((cuda::decode<full, bf16, view, 64>::plan(a)).blocks_y == 20000);
  a.plan.sequences = 70000;
  CHECK_THROWS_AS((cuda::decode<full, bf16, view, 64>::plan(a)), ei::error);
}

TEST_CASE("rows of int8 may begin at any multiple of four bytes, and of pages at what their strides allow") {
  kv::paged_view<kv::int8> p;
  p.row_stride = 68, p.head_stride = 68 * 64, p.block_stride = 2 * 68 * 64;
  CHECK(p.has_aligned_rows(1, 4));
  CHECK(!p.has_aligned_rows(1, 16));
  p.row_stride = 66;
  CHECK(!p.has_aligned_rows(1, 4));
  p.row_stride = 80, p.head_stride = 2;
  CHECK(p.has_aligned_rows(1, 16));
  CHECK(!p.has_aligned_rows(2, 16));
}

}  // namespace caches_tests
