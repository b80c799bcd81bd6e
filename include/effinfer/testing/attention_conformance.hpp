#pragma once
// What every attention policy must keep, yours too: its hooks must not contradict each other, and the kernels must
// compute what they say. Needs no test framework:
//
//   const auto report = effinfer::testing::check_attention(my_policy{});
//   assert(report.passed());                     // or print report.problems

#include <effinfer/attention/cpu/softmax.hpp>
#include <effinfer/testing/attention_oracle.hpp>

#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace effinfer::inline v0::testing {

struct attention_check {
  int tokens = 200;  ///< positions tried: more than any window of the policy, for its edge to be seen
  int heads = 6;     ///< query heads; a policy with a number a head needs as many
  int kv_heads = 2;
  double tolerance = 2e-5;  ///< of outputs that are averages of values in [-1, 1]
};

struct attention_report {
  std::vector<std::string> problems;  ///< sentences, at most a few of each kind
  double worst_difference = 0;        ///< of the kernel from double precision

  [[nodiscard]] bool passed() const { return problems.empty(); }
};

namespace detail {

/// Collects at most three problems of a kind.
class problem_list {
 public:
  problem_list(attention_report& report, std::string rule) : report_(report), rule_(std::move(rule)) {}
  void add(const std::string& where) {
    if (++count_ <= 3) report_.problems.push_back(rule_ + ": " + where);
  }

 private:
  attention_report& report_;
  std::string rule_;
  int count_ = 0;
};

inline std::string text(const char* name, int value) { return std::string(name) + " " + std::to_string(value) + " "; }

template <class Mixer>
void check_keys(const Mixer& mixer, const attention_check& options, attention_report& report) {
  problem_list outside(report, "a visible key lies outside keys()"), falling(report, "keys() falls as the query rises");
  for (const bool exact : {true, false}) {
    attention::key_range before{0, 0};
    for (int q = 0; q < options.tokens; ++q) {
      const int cached = exact ? q + 1 : options.tokens;
      const attention::key_range k = mixer.keys(q, cached);
      const std::string at = text("query", q) + text("cached", cached);
      if (k.begin < before.begin || k.end < before.end) falling.add(at);
      before = k;
      for (int head = 0; head < options.heads; ++head) {
        for (int key = 0; key <= q; ++key) {
          const attention::position p{q, key, head, head / (options.heads / options.kv_heads), 0};
          if (mixer.visible(p) && (key < k.begin || key >= k.end))
            outside.add(at + text("key", key) + text("head", head));
        }
      }
    }
  }
}

template <class Mixer>
void check_tiles(const Mixer& mixer, const attention_check& options, attention_report& report) {
  problem_list all(report, "all_visible() is true of a tile with a hidden key"),
      any(report, "any_visible() is false of a tile with a visible key"),
      next(report, "next_key() leaves out a visible key, or goes back");
  for (const int queries : {1, 3, 16}) {
    for (int q = 0; q + queries <= options.tokens; q += queries == 16 ? 5 : 1) {
      for (int key = 0; key <= q; key += 7) {
        for (const int keys : {1, 20, 64}) {
          const attention::tile t{q, q + queries, key, std::min(key + keys, q + queries)};
          bool hidden = false, visible = false;
          for (int head = 0; head < options.heads; ++head) {
            for (int i = t.query_begin; i < t.query_end; ++i) {
              for (int k = t.key_begin; k < t.key_end && k <= i; ++k) {
                const bool v = mixer.visible({i, k, head, head / (options.heads / options.kv_heads), 0});
                visible = visible || v;
                hidden = hidden || !v;
              }
            }
          }
          const std::string at =
              text("query", t.query_begin) + text("to", t.query_end) + text("key", t.key_begin) + text("to", t.key_end);
          if (hidden && mixer.all_visible(t)) all.add(at);
          if (visible && !mixer.any_visible(t)) any.add(at);
          const int to = mixer.next_key(t);
          bool left_out = to < t.key_begin;
          for (int i = t.query_begin; i < t.query_end; ++i) {
            for (int k = t.key_begin; k < to && k <= i; ++k) {
              for (int head = 0; head < options.heads; ++head)
                left_out = left_out || mixer.visible({i, k, head, head / (options.heads / options.kv_heads), 0});
            }
          }
          if (left_out) next.add(at);
        }
      }
    }
  }
}

template <class Mixer>
std::vector<float> run_attention(const execution::cpu::context& exec, const Mixer& mixer,
                                 const attention::head_layout& heads, const std::vector<float>& query,
                                 const std::vector<float>& key, const std::vector<float>& value, int tokens,
                                 int chunk) {
  using view = kv_cache::view<float>;
  std::vector<float> out(query.size());
  const std::ptrdiff_t columns = std::ptrdiff_t{heads.heads} * heads.head_size;
  for (int first = 0; first < tokens; first += chunk) {
    const int n = std::min(chunk, tokens - first);
    const attention::sequence<view> s{
        {query.data() + first * columns, n, columns},
        {out.data() + first * columns, n, columns},
        view::of_rows(key.data(), value.data(), heads.kv_heads, heads.head_size, first + n),
        first,
        0};
    attention::attend(exec, mixer, heads, std::span(&s, 1));
  }
  return out;
}

template <class Mixer>
void check_kernel(const Mixer& mixer, const attention_check& options, attention_report& report) {
  problem_list wrong(report, "the CPU kernel differs from double precision"),
      cut(report, "a prefill cut in two gives other bits");
  for (const auto set : execution::all_instruction_sets) {
    if (!execution::is_supported(set) || execution::base_of(set) != set) continue;  // attention has no use for the rest
    const execution::cpu::context exec({.threads = 1, .set = set});
    for (const int head_size : {5, 16, 40}) {
      attention::head_layout heads{options.heads, options.kv_heads, head_size,
                                   1.0f / std::sqrt(static_cast<float>(head_size))};
      const auto rows = static_cast<std::size_t>(options.tokens) * static_cast<std::size_t>(head_size);
      const auto query = numbers(rows * static_cast<std::size_t>(heads.heads), 1, 4.0f);
      const auto key = numbers(rows * static_cast<std::size_t>(heads.kv_heads), 2, 2.0f);
      const auto value = numbers(rows * static_cast<std::size_t>(heads.kv_heads), 3);
      const auto want = softmax_attention(mixer, heads, query, key, value);
      const auto got = run_attention(exec, mixer, heads, query, key, value, options.tokens, options.tokens);
      const auto parts = run_attention(exec, mixer, heads, query, key, value, options.tokens, 37);
      double worst = 0;
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double e = std::abs(static_cast<double>(got[i]) - want[i]);
        worst = e <= worst ? worst : e;  // a NaN stays
      }
      const std::string at = text("head size", head_size) + std::string(to_string(set)) + " ";
      if (!(worst <= options.tolerance)) wrong.add(at + "by " + std::to_string(worst));
      if (std::memcmp(got.data(), parts.data(), got.size() * sizeof(float)) != 0) cut.add(at);
      report.worst_difference = worst <= report.worst_difference ? report.worst_difference : worst;
    }
  }
}

}  // namespace detail

/// Tries `policy`, a modifier, inside softmax<Policy>, or a whole softmax<...>: a visible key lies in keys(), keys()
/// never falls, all_visible(), any_visible() and next_key() tell the truth, and the CPU kernel on each instruction set of this
/// machine agrees with double precision and with itself in pieces. Takes about a second.
template <class Policy>
attention_report check_attention(const Policy& policy, const attention_check& options = {}) {
  if constexpr (!attention::is_softmax<Policy>) {
    return check_attention(attention::softmax<Policy>(policy), options);
  } else {
    attention_report report;
    detail::check_keys(policy, options, report);
    detail::check_tiles(policy, options, report);
    detail::check_kernel(policy, options, report);
    return report;
  }
}

}  // namespace effinfer::inline v0::testing
