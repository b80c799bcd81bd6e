#pragma once
// What the tests of attention kernels share: random sequences, kernels started on the host context, results against the oracle.

#include "simt/host.hpp"
#include "simt/numbers.hpp"

#include <effinfer/attention/cuda/softmax.hpp>
#include <effinfer/attention/policy.hpp>
#include <effinfer/attention/sequence.hpp>
#include <effinfer/testing/attention_oracle.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace simt_host {

namespace ei = effinfer;

/// One sequence: S keys and values [S, K*D], and queries [T, H*D] and outputs of its last T tokens.
template <class T>
struct random_sequence {
  int tokens, first_position;
  std::vector<T> query, out, keys, values;

  random_sequence(const ei::attention::head_layout& h, int new_tokens, int first, std::uint64_t seed)
      : tokens(new_tokens), first_position(first) {
    const auto rows = static_cast<std::size_t>(first + new_tokens), t = static_cast<std::size_t>(new_tokens);
    const auto columns = static_cast<std::size_t>(h.heads * h.head_size),
               kv_columns = static_cast<std::size_t>(h.kv_heads * h.head_size);
    query = as<T>(ei::testing::numbers(t * columns, seed * 3 + 1, 3));
    keys = as<T>(ei::testing::numbers(rows * kv_columns, seed * 3 + 2));
    values = as<T>(ei::testing::numbers(rows * kv_columns, seed * 3 + 3));
    poison();
  }
  void poison() { out.assign(query.size(), T(not_a_number)); }
  [[nodiscard]] int length() const { return first_position + tokens; }
};

/// A decode call's workspace, poisoned where it may be.
class decode_workspace {
 public:
  explicit decode_workspace(const ei::attention::cuda::decode_plan& plan)
      : arrival_bytes_(plan.arrival_bytes), bytes_(plan.workspace_bytes, std::byte{0xff}) {
    std::fill_n(bytes_.begin(), arrival_bytes_, std::byte{0});
  }
  [[nodiscard]] std::byte* data() { return bytes_.data(); }
  /// For another call.
  [[nodiscard]] bool is_ready() const {
    return std::all_of(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(arrival_bytes_),
                       [](std::byte b) { return b == std::byte{0}; });
  }

 private:
  std::size_t arrival_bytes_;
  std::vector<std::byte> bytes_;
};

/// Are the outputs within what T's roundings allow of the oracle's for these keys and values? `weight_rounding`: relative, of the products of weights
/// and values before they are summed; then that of the output, and the float sums' share.
template <class T, class Mixer>
bool is_near_oracle(const Mixer& mixer, const ei::attention::head_layout& h, const random_sequence<T>& s,
                    const std::vector<float>& keys, const std::vector<float>& values, int index,
                    double weight_rounding) {
  const std::vector<float> query = floats(s.query);
  std::vector<float> sizes = values;
  for (float& v : sizes) v = std::abs(v);
  const auto wanted = ei::testing::softmax_attention(mixer, h, query, keys, values, s.first_position, index);
  const auto spread = ei::testing::softmax_attention(mixer, h, query, keys, sizes, s.first_position, index);
  double worst = 0;  // of the error allowed
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto got = static_cast<double>(static_cast<float>(s.out[i]));
    const double allowed = rounding<T> * std::abs(wanted[i]) + (weight_rounding + 2e-5) * spread[i] + 1e-9;
    const double share = std::abs(got - wanted[i]) / allowed;
    worst = share <= worst ? worst : share;  // NaN becomes the worst
  }
  return worst <= 1;
}
template <class T, class Mixer>
void check_against_oracle(const Mixer& mixer, const ei::attention::head_layout& h, const random_sequence<T>& s,
                          const std::vector<float>& keys, const std::vector<float>& values, int index,
                          double weight_rounding) {
  CHECK(is_near_oracle(mixer, h, s, keys, values, index, weight_rounding));
}
template <class T, class Mixer>
void check_against_oracle(const Mixer& mixer, const ei::attention::head_layout& h, const random_sequence<T>& s,
                          int index, double weight_rounding) {
  check_against_oracle(mixer, h, s, floats(s.keys), floats(s.values), index, weight_rounding);
}

}  // namespace simt_host
