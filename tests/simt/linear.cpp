// Linear attention on the host context, both forms: against the recurrence in double precision, the CPU's, and themselves cut otherwise.

#include "simt/attention_runs.hpp"

#include <effinfer/attention/cpu/linear.hpp>
#include <effinfer/attention/cuda/linear.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/kv_cache/recurrent_state.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace linear_tests {

using namespace simt_host;
using ei::bf16;
using ei::f16;
using namespace ei::attention;
namespace cuda = ei::attention::cuda;

namespace {

using mixer_type = linear<elu_plus_one, decay_per_head>;
/// Made when a test first asks, as a GPU reads them too.
const std::vector<float>& rates() {
  static const std::vector<float> of_heads{1.0F, 0.97F, 0.5F, 0.999F};
  return of_heads;
}

/// A sequence that has read `before` tokens, as a state of any numbers, and then reads more.
template <class T>
struct problem {
  head_layout h;
  int tokens;
  std::vector<T> query, key, value, out;
  ei::kv_cache::recurrent_state state;

  problem(const head_layout& heads, int n, bool fresh, std::uint64_t seed)
      : h(heads), tokens(n), state(1, heads.heads, heads.head_size) {
    const auto t = static_cast<std::size_t>(n), d = static_cast<std::size_t>(h.head_size);
    const auto columns = static_cast<std::size_t>(h.heads) * d, kv_columns = static_cast<std::size_t>(h.kv_heads) * d;
    query = as<T>(ei::testing::numbers(t * columns, seed + 1, 3));
    key = as<T>(ei::testing::numbers(t * kv_columns, seed + 2, 3));
    value = as<T>(ei::testing::numbers(t * kv_columns, seed + 3));
    out.assign(query.size(), T(not_a_number));
    if (fresh) return;
    const auto view = state.view(0);
    const auto matrices = ei::testing::numbers(columns * d, seed + 4, 20);
    const auto vectors = ei::testing::numbers(columns, seed + 5, 10);
    std::copy(matrices.begin(), matrices.end(), view.matrices);
    for (std::size_t i = 0; i < vectors.size(); ++i) view.vectors[i] = 12 + vectors[i];
  }
  [[nodiscard]] std::size_t state_size() const {
    const auto d = static_cast<std::size_t>(h.head_size);
    return static_cast<std::size_t>(h.heads) * d * (d + 1);
  }
  /// The state's floats: matrices, then vectors.
  [[nodiscard]] std::vector<float> state_floats() {
    const float* const from = state.view(0).matrices;
    return {from, from + state_size()};
  }
  cuda::linear_sequence<T> rows(int first, int n) {
    const std::ptrdiff_t c = std::ptrdiff_t{h.heads} * h.head_size, kv = std::ptrdiff_t{h.kv_heads} * h.head_size;
    return {{query.data() + first * c, n, c},
            {key.data() + first * kv, n, kv},
            {value.data() + first * kv, n, kv},
            {out.data() + first * c, n, c},
            state.view(0)};
  }
};

/// Outputs and state in double precision, and of each the sum of the sizes of what is added: what roundings are relative to.
struct exact {
  std::vector<double> out, out_sizes, state, state_sizes;
};
template <class T>
exact recurrence(problem<T>& p) {
  const auto d = static_cast<std::size_t>(p.h.head_size), heads = static_cast<std::size_t>(p.h.heads);
  const auto group = static_cast<std::size_t>(p.h.heads / p.h.kv_heads),
             kv_heads = static_cast<std::size_t>(p.h.kv_heads);
  const auto phi = [](T x) {
    const auto v = static_cast<double>(static_cast<float>(x));
    return v > 0 ? v + 1 : std::exp(v);
  };
  exact e;
  for (const float v : p.state_floats()) e.state.push_back(static_cast<double>(v));
  for (const double v : e.state) e.state_sizes.push_back(std::abs(v));
  e.out.resize(p.out.size()), e.out_sizes.resize(p.out.size());
  for (std::size_t h = 0; h < heads; ++h) {
    double *const s = e.state.data() + h * d * d, *const sizes = e.state_sizes.data() + h * d * d;
    double *const z = e.state.data() + heads * d * d + h * d, *const z_sizes =
                                                                  e.state_sizes.data() + heads * d * d + h * d;
    const auto g = static_cast<double>(rates()[h]);
    for (std::size_t t = 0; t < static_cast<std::size_t>(p.tokens); ++t) {
      const T *const q = p.query.data() + (t * heads + h) * d, *const k = p.key.data() + (t * kv_heads + h / group) * d;
      const T* const v = p.value.data() + (t * kv_heads + h / group) * d;
      std::vector<double> sum(d), size(d);
      double norm = static_cast<double>(mixer_type::epsilon);
      for (std::size_t i = 0; i < d; ++i) {
        z[i] = z_sizes[i] = g * z[i] + phi(k[i]);
        norm += phi(q[i]) * z[i];
        for (std::size_t c = 0; c < d; ++c) {
          const double kv = phi(k[i]) * static_cast<double>(static_cast<float>(v[c]));
          s[i * d + c] = g * s[i * d + c] + kv;
          sizes[i * d + c] = g * sizes[i * d + c] + std::abs(kv);
          sum[c] += phi(q[i]) * s[i * d + c];
          size[c] += phi(q[i]) * sizes[i * d + c];
        }
      }
      for (std::size_t c = 0; c < d; ++c) {
        e.out[(t * heads + h) * d + c] = sum[c] / norm;
        e.out_sizes[(t * heads + h) * d + c] = size[c] / norm;
      }
    }
  }
  return e;
}

enum class form { recurrent, chunked };

template <int D, class T>
void run_form(form f, const head_layout& h, std::vector<cuda::linear_sequence<T>> sequences,
              thread_order order = thread_order::shuffled) {
  const auto plan = cuda::plan_linear(h, std::span<const cuda::linear_sequence<T>>(sequences));
  std::vector<float> workspace(plan.workspace_bytes / sizeof(float), not_a_number);
  mixer_type mixer;
  mixer.decay.rates = rates().data();
  const cuda::linear_args<mixer_type, T> args{mixer, h, sequences.data(), plan, workspace.data()};
  const auto begin = [order](auto kernel, const auto& a) { start<typename decltype(kernel)::type>(a, order); };
  if (f == form::recurrent) {
    cuda::start_recurrent<D>(args, begin);
  } else {
    cuda::start_chunked<D>(args, begin);
  }
}

/// `out_error`, `state_error`: relative to the sizes of what is added, beside the rounding of an output.
template <class T>
void check(problem<T>& p, const exact& e, double out_error, double state_error) {
  double worst = 0, worst_state = 0;
  for (std::size_t i = 0; i < p.out.size(); ++i) {
    const double allowed = rounding<T> * std::abs(e.out[i]) + out_error * e.out_sizes[i];
    const double share = std::abs(static_cast<double>(static_cast<float>(p.out[i])) - e.out[i]) / allowed;
    worst = share <= worst ? worst : share;
  }
  const auto now = p.state_floats();
  for (std::size_t i = 0; i < now.size(); ++i) {
    const double share = std::abs(static_cast<double>(now[i]) - e.state[i]) / (state_error * e.state_sizes[i] + 1e-30);
    worst_state = share <= worst_state ? worst_state : share;
  }
  CHECK(worst <= 1);
  CHECK(worst_state <= 1);
}

constexpr double float_error = 4e-6;
/// Half a unit of bf16. In the chunks q, k, the weights or the state, and v are rounded, the first three in the denominators too: seven
/// at worst, of which half is allowed, as they aren't all of one sign; in the state k and v.
constexpr double operand = 0x1p-8;

template <int D, class T>
void check_both(int heads, int kv_heads, const std::vector<int>& lengths) {
  const head_layout h{heads, kv_heads, D, 1};
  for (const form f : {form::recurrent, form::chunked}) {
    std::vector<problem<T>> all;
    std::vector<exact> wanted;
    for (const int n : lengths) {
      all.emplace_back(h, n, all.size() % 2 == 0, 10 * all.size() + 1);
      wanted.push_back(recurrence(all.back()));
    }
    std::vector<cuda::linear_sequence<T>> call;
    for (auto& p : all) call.push_back(p.rows(0, p.tokens));
    run_form<D>(f, h, call);
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool exactly = f == form::recurrent;
      check(all[i], wanted[i], exactly ? float_error : 3.5 * operand, exactly ? float_error : 2 * operand);
    }
  }
}

}  // namespace

TEST_CASE("linear attention, recurrent and in chunks: head sizes, types, groups, odd lengths, states to go on from") {
  check_both<64, bf16>(2, 1, {1, 67, 0, 64});
  check_both<64, float>(1, 1, {3, 130});
  check_both<96, f16>(3, 1, {5, 65});
  check_both<128, bf16>(1, 1, {33});
  check_both<256, f16>(1, 1, {2, 17});
}

TEST_CASE("the recurrence is the CPU's, and the same bits however its tokens are cut and batched") {
  constexpr int d = 64, tokens = 37;
  const head_layout h{2, 1, d, 1};
  problem<float> whole(h, tokens, false, 3), on_cpu = whole, cut = whole, other(h, 4, true, 9);
  run_form<d>(form::recurrent, h, std::vector{whole.rows(0, tokens)}, thread_order::forward);
  int first = 0;
  for (const int n : {1, 8, 9, 0, 19}) {
    run_form<d>(form::recurrent, h, std::vector{other.rows(0, 2), cut.rows(first, n)}, thread_order::reverse);
    first += n;
  }
  CHECK(cut.out == whole.out);
  CHECK(cut.state_floats() == whole.state_floats());

  mixer_type mixer;
  mixer.decay.rates = rates().data();
  const auto rows = on_cpu.rows(0, tokens);
  const recurrent_sequence s{rows.query, rows.key, rows.value, rows.out, rows.state};
  const ei::execution::cpu::context exec(ei::execution::cpu{.threads = 1});
  attend(exec, mixer, h, std::span(&s, 1));
  const auto a = whole.state_floats(), b = on_cpu.state_floats();
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == doctest::Approx(b[i]).epsilon(2e-6));
  for (std::size_t i = 0; i < whole.out.size(); ++i)
    CHECK(std::abs(whole.out[i] - on_cpu.out[i]) <= 4e-6F * (1 + std::abs(on_cpu.out[i])));
}

TEST_CASE("chunks go on where other calls ended, bit for bit between whole chunks") {
  constexpr int d = 64, tokens = 150;
  const head_layout h{2, 2, d, 1};
  problem<bf16> whole(h, tokens, false, 3), cut = whole;
  run_form<d>(form::chunked, h, std::vector{whole.rows(0, tokens)}, thread_order::forward);
  run_form<d>(form::chunked, h, std::vector{cut.rows(0, 64)}, thread_order::reverse);
  run_form<d>(form::chunked, h, std::vector{cut.rows(64, 86)});
  CHECK(cut.out == whole.out);
  CHECK(cut.state_floats() == whole.state_floats());
}

TEST_CASE("what linear attention can't do is said by its plan") {
  problem<bf16> p({2, 1, 64, 1}, 3, true, 1);
  const auto refused = [&](const head_layout& h, ei::error_code code, auto change) {
    auto s = p.rows(0, 3);
    change(s);
    try {
      (void)cuda::plan_linear(h, std::span<const cuda::linear_sequence<bf16>>(&s, 1));
      return false;
    } catch (const ei::error& e) {
      return e.code() == code;
    }
  };
  const auto nothing = [](auto&) {};
  CHECK(!refused({2, 1, 64, 1}, ei::error_code::mismatch, nothing));
  CHECK(refused({3, 2, 64, 1}, ei::error_code::invalid_argument, nothing));
  CHECK(refused({2, 1, 80, 1}, ei::error_code::unsupported, nothing));
  CHECK(refused({2, 2, 64, 1}, ei::error_code::mismatch, nothing));
  CHECK(refused({2, 1, 64, 1}, ei::error_code::mismatch, [](auto& s) { s.key.rows = 2; }));
  CHECK(refused({2, 1, 64, 1}, ei::error_code::mismatch, [](auto& s) { s.state.heads = 1; }));
  const std::vector<cuda::linear_sequence<bf16>> many(40000, p.rows(0, 3));
  CHECK_THROWS_AS((void)cuda::plan_linear({2, 1, 64, 1}, std::span(many)), ei::error);
  using kernel = cuda::linear_recurrent<mixer_type, bf16, 128>;
  CHECK_THROWS_AS(kernel::plan({{}, {2, 1, 64, 1}, nullptr, {1, 0}, nullptr}), ei::error);
}

}  // namespace linear_tests
