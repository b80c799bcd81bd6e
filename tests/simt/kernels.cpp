// The CUDA kernels on the host context, against the CPU's functions and the attention oracle, on odd shapes.

#include "simt/attention_runs.hpp"
#include "simt/host.hpp"

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/cuda/softmax.hpp>
#include <effinfer/attention/sinks.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/attention/streaming_window.hpp>
#include <effinfer/decoding/cuda/greedy.hpp>
#include <effinfer/kv_cache/view.hpp>
#include <effinfer/layers/cuda/elementwise.hpp>
#include <effinfer/layers/cuda/rms_norm.hpp>
#include <effinfer/layers/cuda/rotary_embedding.hpp>
#include <effinfer/layers/rotary_embedding.hpp>
#include <effinfer/testing/attention_oracle.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace kernels_tests {

namespace ei = effinfer;
using namespace simt_host;
using ei::bf16;
using ei::f16;
using ei::testing::numbers;

namespace {

template <class T>
ei::matrix_view<T> view(std::vector<T>& v, std::ptrdiff_t rows) {
  return {v.data(), rows, static_cast<std::ptrdiff_t>(v.size()) / rows};
}
template <class T>
ei::matrix_view<const T> view(const std::vector<T>& v, std::ptrdiff_t rows) {
  return {v.data(), rows, static_cast<std::ptrdiff_t>(v.size()) / rows};
}

}  // namespace

TEST_CASE_TEMPLATE("rms_norm, with a residual and without", T, float, bf16, f16) {
  for (const std::ptrdiff_t size : {1, 31, 256, 515, 4104, 16400}) {  // the last is more than registers hold
    for (const bool with_residual : {false, true}) {
      const std::ptrdiff_t rows = 3;
      const auto count = static_cast<std::size_t>(rows * size);
      std::vector<T> x = as<T>(numbers(count, 1)), out(count, T(not_a_number));
      const std::vector<T> before = x, residual = as<T>(numbers(count, 2)),
                           weight = as<T>(numbers(static_cast<std::size_t>(size), 3));
      start<ei::layers::cuda::rms_norm<T>>({view(x, rows),
                                            with_residual ? view(residual, rows) : ei::matrix_view<const T>{},
                                            weight.data(), 1e-5F, view(out, rows)});
      for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
        const std::size_t at = r * static_cast<std::size_t>(size);
        double square = 0;
        for (std::size_t e = 0; e < static_cast<std::size_t>(size); ++e) {
          const float sum =
              static_cast<float>(before[at + e]) + (with_residual ? static_cast<float>(residual[at + e]) : 0);
          CHECK(static_cast<float>(x[at + e]) == static_cast<float>(T(sum)));
          square += std::pow(static_cast<double>(static_cast<float>(x[at + e])), 2);
        }
        const double scale = 1 / std::sqrt(square / static_cast<double>(size) + 1e-5);
        for (std::size_t e = 0; e < static_cast<std::size_t>(size); ++e) {
          const double wanted = static_cast<double>(static_cast<float>(x[at + e])) * scale *
                                static_cast<double>(static_cast<float>(weight[e]));
          CHECK(std::abs(static_cast<double>(static_cast<float>(out[at + e])) - wanted) <=
                std::abs(wanted) * (rounding<T> + 1e-6) + 1e-7);
        }
      }
    }
  }
}

TEST_CASE_TEMPLATE("norms of the heads of queries and keys, and nothing behind them", T, float, bf16) {
  const int rows = 2, heads = 3, kv_heads = 2;
  for (const int d : {32, 96, 130, 256}) {
    const auto width = static_cast<std::size_t>(d), columns = 7 * width;  // values behind the keys
    std::vector<T> x = as<T>(numbers(rows * columns, 1));
    const std::vector<T> before = x;
    const std::vector<float> query = numbers(width, 2), key = numbers(width, 3);
    start<ei::layers::cuda::head_rms_norm<T>>({view(x, rows), query.data(), key.data(), 1e-5F, heads, kv_heads, d});
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t head = i % columns / width, first = i / width * width;
      if (head >= 5) {
        CHECK(static_cast<float>(x[i]) == static_cast<float>(before[i]));
        continue;
      }
      double square = 0;
      for (std::size_t e = first; e < first + width; ++e)
        square += std::pow(static_cast<double>(static_cast<float>(before[e])), 2);
      const double wanted = static_cast<double>(static_cast<float>(before[i])) / std::sqrt(square / d + 1e-5) *
                            static_cast<double>((head < 3 ? query : key)[i - first]);
      CHECK(std::abs(static_cast<double>(static_cast<float>(x[i])) - wanted) <=
            std::abs(wanted) * (rounding<T> + 1e-6) + 1e-7);
    }
  }
}

TEST_CASE_TEMPLATE("swiglu", T, float, bf16) {
  for (const std::ptrdiff_t size : {1, 255, 257, 1032}) {
    const auto count = static_cast<std::size_t>(2 * size);
    const std::vector<T> gate = as<T>(numbers(count, 4, 30)), up = as<T>(numbers(count, 5));
    std::vector<T> out(count, T(not_a_number));
    start<ei::layers::cuda::swiglu<T>>({view(gate, 2), view(up, 2), view(out, 2)});
    for (std::size_t i = 0; i < count; ++i) {
      const auto g = static_cast<double>(static_cast<float>(gate[i]));
      const double wanted = g / (1 + std::exp(-g)) * static_cast<double>(static_cast<float>(up[i]));
      CHECK(std::abs(static_cast<double>(static_cast<float>(out[i])) - wanted) <=
            std::abs(wanted) * (rounding<T> + 1e-6) + 1e-10);
    }
  }
}

TEST_CASE("rotary embedding into a ring, as the CPU's, bit for bit up to the order of an fma") {
  for (const bool interleaved : {false, true}) {
    for (const int rotary_size : {32, 16, 20}) {  // with 20, pairs don't come by eights
      const int d = 32, heads = 3, kv_heads = 2, tokens = 5, capacity = 64, first = 61;
      ei::rotary_settings settings;
      settings.rotary_size = rotary_size;
      settings.interleaved = interleaved;
      const ei::layers::rotary_embedding rotary(settings);
      std::vector<float> query = numbers(static_cast<std::size_t>(tokens * heads * d), 6), turned_query = query,
                         key = numbers(static_cast<std::size_t>(tokens * kv_heads * d), 7), turned_key = key;
      const std::vector<float> value = numbers(key.size(), 8);
      std::vector<float> turns(static_cast<std::size_t>(tokens * rotary_size));
      for (int t = 0; t < tokens; ++t) rotary.turns(first + t, first + tokens, turns.data() + t * rotary_size);
      const ei::execution::cpu::context exec(ei::execution::cpu{.threads = 1});
      ei::layers::rotate(exec, rotary, view(std::as_const(turns), tokens), d, view(turned_query, tokens));
      ei::layers::rotate(exec, rotary, view(std::as_const(turns), tokens), d, view(turned_key, tokens));

      std::vector<float> keys(static_cast<std::size_t>(capacity * kv_heads * d), not_a_number), values = keys;
      start<ei::layers::cuda::rotate_and_store<float, float>>({view(query, tokens), view(std::as_const(key), tokens),
                                                               view(value, tokens), view(std::as_const(turns), tokens),
                                                               keys.data(), values.data(), d, kv_heads * d, capacity,
                                                               first, d, rotary_size, interleaved});
      for (std::size_t i = 0; i < query.size(); ++i) CHECK(query[i] == doctest::Approx(turned_query[i]).epsilon(1e-6));
      for (int t = 0; t < tokens; ++t) {
        for (int i = 0; i < kv_heads * d; ++i) {
          const auto slot = static_cast<std::size_t>((first + t) % capacity * kv_heads * d + i);
          const auto from = static_cast<std::size_t>(t * kv_heads * d + i);
          CHECK(keys[slot] == doctest::Approx(turned_key[from]).epsilon(1e-6));
          CHECK(values[slot] == value[from]);
        }
      }
    }
  }
}

TEST_CASE("rotary embedding into an int8 cache: each row's codes are the nearest to what a float cache gets") {
  const int d = 32, heads = 3, kv_heads = 2, tokens = 3, row = d + 4, layer = 1;
  for (const bool interleaved : {false, true}) {
    for (const int rotary_size : {32, 20}) {
      std::vector<bf16> qkv(static_cast<std::size_t>(tokens * (heads + 2 * kv_heads) * d)), same;
      const std::vector<float> random = numbers(qkv.size(), 6);
      for (std::size_t i = 0; i < qkv.size(); ++i) qkv[i] = bf16(random[i]);
      same = qkv;
      ei::rotary_settings settings;
      settings.rotary_size = rotary_size;
      settings.interleaved = interleaved;
      const ei::layers::rotary_embedding rotary(settings);
      std::vector<float> turns(static_cast<std::size_t>(tokens * rotary_size));
      for (int t = 0; t < tokens; ++t) rotary.turns(61 + t, 0, turns.data() + t * rotary_size);
      // [layers 2][keys or values][K][tokens][row]
      const std::size_t half = static_cast<std::size_t>(kv_heads * tokens);
      std::vector<float> floats(4 * half * static_cast<std::size_t>(d), not_a_number);
      std::vector<ei::kv_cache::int8> codes(4 * half * static_cast<std::size_t>(row), ei::kv_cache::int8{255});
      std::vector<ei::layers::cuda::cache_place<float>> float_places;
      std::vector<ei::layers::cuda::cache_place<ei::kv_cache::int8>> places;
      const auto h = static_cast<std::ptrdiff_t>(half);
      for (int t = 0; t < tokens; ++t) {
        float* const f = floats.data() + t * d;
        ei::kv_cache::int8* const c = codes.data() + t * row;
        float_places.push_back({f, f + h * d, 2 * h * d, tokens * d});
        places.push_back({c, c + h * row, 2 * h * row, tokens * row});
      }
      const auto turned = view(std::as_const(turns), tokens);
      start<ei::layers::cuda::rotate_and_store_tokens<bf16, float>>(
          {view(same, tokens), turned, float_places.data(), layer, heads, kv_heads, d, rotary_size, interleaved});
      start<ei::layers::cuda::rotate_and_store_tokens<bf16, ei::kv_cache::int8>>(
          {view(qkv, tokens), turned, places.data(), layer, heads, kv_heads, d, rotary_size, interleaved});
      CHECK(qkv == same);  // the queries too
      for (std::size_t r = 0; r < 4 * half; ++r) {
        const float* const wanted = floats.data() + r * static_cast<std::size_t>(d);
        const ei::kv_cache::int8* const got = codes.data() + r * static_cast<std::size_t>(row);
        if (r < 2 * half) {  // of layer 0, which isn't written
          CHECK(got[0].byte == 255);
          continue;
        }
        float scale = 0, greatest = 0;
        std::memcpy(&scale, got + d, sizeof scale);
        for (int i = 0; i < d; ++i) greatest = std::max(greatest, std::abs(wanted[i]));
        CHECK(scale == doctest::Approx(greatest / 127).epsilon(1e-6));
        for (int i = 0; i < d; ++i)
          CHECK(std::abs(scale * static_cast<float>(got[i].byte - 128) - wanted[i]) <= 0.5001F * scale);
      }
    }
  }
}

TEST_CASE("greedy: the lower of equals, never a NaN") {
  for (const std::size_t v :
       {std::size_t{1}, std::size_t{100}, std::size_t{257}, std::size_t{1024}, std::size_t{40007}}) {
    std::vector<float> logits = numbers(3 * v, 9);
    logits[v / 2] = 5, logits[v - 1] = v > 2 ? 5.0F : logits[v - 1];
    for (std::size_t i = 0; i < v; ++i) logits[v + i] = i + 1 < v ? not_a_number : -7.0F;
    for (std::size_t i = 0; i < v; ++i) logits[2 * v + i] = not_a_number;
    for (const thread_order order : {thread_order::forward, thread_order::reverse, thread_order::shuffled}) {
      std::vector<int> token(3, -9);
      using parts = ei::decoding::cuda::greedy_parts<float>;
      const int count = parts::count(static_cast<std::ptrdiff_t>(v));
      std::vector<ei::decoding::cuda::candidate> candidates(static_cast<std::size_t>(3 * count));
      for (auto& c : candidates) c = {std::numeric_limits<float>::infinity(), 0};
      start<parts>({view(std::as_const(logits), 3), candidates.data()}, order);
      start<ei::decoding::cuda::greedy>({candidates.data(), count, 3, token.data()}, order);
      CHECK(token[0] == static_cast<int>(v / 2));
      CHECK(token[1] == static_cast<int>(v) - 1);
      CHECK(token[2] == -1);
    }
  }
}

namespace {

/// Sequences of a decode call with caches of all tokens, or rings of `ring`.
template <int D, class T, class C, class Mixer>
struct decode_call {
  using cache = ei::kv_cache::view<C>;
  Mixer mixer;
  ei::attention::head_layout h;
  std::vector<int> lengths;
  std::vector<std::vector<C>> keys, values, ring_keys, ring_values;
  std::vector<std::vector<T>> queries;
  std::vector<cache> views;

  decode_call(const Mixer& m, int heads, int kv_heads, std::vector<int> all, int ring)
      : mixer(m), h{heads, kv_heads, D, 1 / std::sqrt(static_cast<float>(D))}, lengths(std::move(all)) {
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      const auto rows = static_cast<std::size_t>(lengths[i]), columns = static_cast<std::size_t>(kv_heads * D);
      keys.push_back(as<C>(numbers(rows * columns, 10 + i)));
      values.push_back(as<C>(numbers(rows * columns, 20 + i)));
      queries.push_back(as<T>(numbers(static_cast<std::size_t>(heads * D), 30 + i, 3)));
      cache view = cache::of_rows(keys[i].data(), values[i].data(), kv_heads, D, lengths[i]);
      if (ring > 0) {
        view.first = std::max(0, lengths[i] - ring), view.capacity = ring;
        for (auto* of : {&ring_keys, &ring_values})
          of->emplace_back(static_cast<std::size_t>(ring) * columns, C(not_a_number));
        const int row = kv_heads * D;
        for (int p = view.first; p < lengths[i]; ++p) {
          std::copy_n(keys[i].begin() + p * row, row, ring_keys[i].begin() + p % ring * row);
          std::copy_n(values[i].begin() + p * row, row, ring_values[i].begin() + p % ring * row);
        }
        view.keys = ring_keys[i].data(), view.values = ring_values[i].data();
      }
      views.push_back(view);
    }
  }

  /// The outputs of these of the sequences, in one call; with more splits than it has, as a graph may start it.
  [[nodiscard]] std::vector<std::vector<T>> run(const std::vector<std::size_t>& which, int more_splits = 0) const {
    namespace cuda = ei::attention::cuda;
    std::vector<std::vector<T>> outs(which.size(), std::vector<T>(queries[0].size(), T(not_a_number)));
    std::vector<cuda::decode_sequence<T, cache>> sequences;
    for (std::size_t i = 0; i < which.size(); ++i) {
      sequences.push_back({queries[which[i]].data(), outs[i].data(), views[which[i]]});
      sequences.back().index = static_cast<int>(which[i]);
    }
    cuda::decode_plan plan = cuda::plan_decode(mixer, h, std::span(sequences));
    plan.most_splits += more_splits;
    decode_workspace space(plan);
    start<cuda::decode<Mixer, T, cache, D>>({mixer, h, sequences.data(), plan, space.data()});
    CHECK(space.is_ready());
    return outs;
  }
};

/// Decode of sequences of different lengths against the oracle's last row; and each alone, bit for bit.
template <int D, class T, class C, class Mixer>
void check_decode(const Mixer& mixer, int heads, int kv_heads, std::vector<int> lengths, int ring = 0) {
  const decode_call<D, T, C, Mixer> call(mixer, heads, kv_heads, std::move(lengths), ring);
  std::vector<std::size_t> all(call.lengths.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  const auto outs = call.run(all);
  // Weights are rounded where they meet the values on matrix instructions.
  const double weights = ei::attention::cuda::on_matrix_instructions<T, C> ? rounding<T> : 0;
  for (const std::size_t i : all) {
    CHECK(outs[i] == call.run({i}, 1)[0]);
    const std::vector<float> query = floats(call.queries[i]), values = floats(call.values[i]);
    std::vector<float> sizes = values;
    for (float& v : sizes) v = std::abs(v);
    const int position = call.lengths[i] - 1, index = static_cast<int>(i);
    const auto wanted =
        ei::testing::softmax_attention(mixer, call.h, query, floats(call.keys[i]), values, position, index);
    const auto spread =
        ei::testing::softmax_attention(mixer, call.h, query, floats(call.keys[i]), sizes, position, index);
    double worst = 0;  // of the error allowed
    for (std::size_t e = 0; e < wanted.size(); ++e) {
      const double got = static_cast<double>(static_cast<float>(outs[i][e]));
      const double share =
          std::abs(got - wanted[e]) / (rounding<T> * std::abs(wanted[e]) + (weights + 4e-6) * spread[e] + 1e-7);
      worst = share <= worst ? worst : share;  // NaN becomes the worst
    }
    CHECK(worst <= 1);
  }
}

}  // namespace

TEST_CASE("decode attention: variants, head sizes, groups, odd lengths, more than one split") {
  using namespace ei::attention;
  check_decode<64, float, float>(full{}, 2, 2, {1, 63, 64, 65, 131});
  check_decode<64, bf16, bf16>(full{}, 6, 2, {130});
  check_decode<64, f16, f16>(full{}, 5, 1, {67});
  check_decode<128, bf16, bf16>(full{}, 4, 1, {100});
  check_decode<96, float, f16>(full{}, 2, 1, {70});
  check_decode<96, f16, f16>(full{}, 2, 1, {70});
  check_decode<32, bf16, bf16>(full{}, 2, 1, {33});
  check_decode<256, bf16, bf16>(full{}, 2, 1, {33});
  check_decode<128, float, float>(full{}, 3, 1, {75, 31});
  check_decode<64, float, float>(full{}, 1, 1, {1025, 7});
  check_decode<64, float, float>(softmax<sliding_window<50>>{}, 2, 1, {120, 30, 1030});
  check_decode<64, float, float>(softmax<sliding_window<50>>{}, 4, 2, {1100, 300, 40}, 128);  // rings
  check_decode<64, bf16, bf16>(softmax<sliding_window<50>>{}, 5, 1, {90}, 64);
  check_decode<64, float, float>(softmax<soft_cap>{soft_cap{.cap = 2}}, 2, 1, {66});
  const std::vector<float> slopes = {0.5F, 0.1F}, sink = {1.5F, -2};
  check_decode<64, float, float>(softmax<alibi>{alibi{slopes.data()}}, 2, 1, {66});
  check_decode<64, float, float>(softmax<sinks>{sinks{sink.data()}}, 2, 1, {66, 1});
  check_decode<64, bf16, bf16>(softmax<alibi>{alibi{slopes.data()}}, 2, 1, {66});
  check_decode<64, f16, f16>(softmax<sinks, soft_cap>{sinks{sink.data()}, soft_cap{.cap = 2}}, 2, 1, {66, 1, 300});
}

TEST_CASE("decode attention: lengths about a split's, each alone as in any company") {
  using namespace ei::attention;
  check_decode<64, bf16, bf16>(full{}, 2, 1, {1, 255, 256, 257, 1023, 1024, 1025, 1536, 1537, 16, 17});
  check_decode<64, bf16, bf16>(softmax<sliding_window<300>>{}, 1, 1, {255, 299, 556, 557, 900, 1});
  check_decode<64, f16, f16>(softmax<sliding_window<200>>{}, 2, 1, {700, 200, 456, 457}, 256);  // rings
  check_decode<64, bf16, bf16>(softmax<streaming_window>{streaming_window{.first = 5, .window = 40}}, 2, 1,
                               {30, 600, 1030});
}

TEST_CASE("decode attention: no query has more parts than its memory may hold") {
  namespace cuda = ei::attention::cuda;
  int most = 0;
  for (int visible = 1; visible < 70000; ++visible) {
    const int keys = cuda::split_keys<bf16, bf16>(visible);
    for (const int first : {0, keys - 1})  // of them, in a split
      most = std::max(most, cuda::parts_of(cuda::splits_of(first, first + visible, keys)));
    if (most > cuda::parts_at_most<bf16, bf16>(visible)) FAIL("of ", visible, " positions: ", most, " parts");
  }
  CHECK(most == cuda::parts_at_most<bf16, bf16>(70000));
}

TEST_CASE(
    "decode attention: more parts than are merged at once, and more positions than splits of the least size hold") {
  using namespace ei::attention;
  check_decode<32, bf16, bf16>(full{}, 1, 1, {8192, 8193, 1537});
  check_decode<32, bf16, bf16>(softmax<sliding_window<8192>>{}, 1, 1, {8400, 8704});
  check_decode<32, bf16, bf16>(full{}, 1, 1, {65537, 70});
}

TEST_CASE("decode attention: any number of query heads to a key head") {
  for (const int group : {1, 3, 4, 8, 9, 12, 16, 17, 20, 33}) {
    CAPTURE(group);
    check_decode<64, bf16, bf16>(ei::attention::full{}, 2 * group, 2, {70, 20});
    if (group == 9 || group == 20) check_decode<64, float, float>(ei::attention::full{}, 2 * group, 2, {70, 20});
  }
}

TEST_CASE("what decode can't do is said by its plan") {
  using other = ei::attention::cuda::decode_args<ei::attention::full, float, ei::kv_cache::view<float>>;
  const other for_64{{}, {1, 1, 64, 1}, nullptr, {}, nullptr};
  CHECK_THROWS_AS(
      (ei::attention::cuda::decode<ei::attention::full, float, ei::kv_cache::view<float>, 128>::plan(for_64)),
      ei::error);
  using cache = ei::kv_cache::view<float>;
  std::vector<float> rows(1024);
  ei::attention::cuda::decode_sequence<float, cache> s{nullptr, nullptr,
                                                       cache::of_rows(rows.data(), rows.data(), 1, 64, 8)};
  const auto refused = [&](const ei::attention::head_layout& h, ei::error_code code) {
    try {
      (void)ei::attention::cuda::plan_decode(ei::attention::full{}, h, std::span(&s, 1));
      return false;
    } catch (const ei::error& e) {
      return e.code() == code;
    }
  };
  CHECK(refused({3, 2, 64, 1}, ei::error_code::invalid_argument));
  CHECK(refused({2, 2, 80, 1}, ei::error_code::unsupported));
  s.cache.keys += 1;
  CHECK(refused({1, 1, 64, 1}, ei::error_code::unsupported));
  s.cache.keys -= 1;
  CHECK(!refused({1, 1, 64, 1}, ei::error_code::unsupported));
  s.cache.head_stride = 65;
  CHECK(refused({2, 2, 64, 1}, ei::error_code::unsupported));
  s.cache = cache::of_rows(rows.data(), rows.data(), 1, 64, 0);
  CHECK(refused({1, 1, 64, 1}, ei::error_code::invalid_argument));
}

}  // namespace kernels_tests
