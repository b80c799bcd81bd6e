#pragma once
// Attention in double precision, one query at a time, straight from the formula: what kernels are held against.

#include <effinfer/attention/sequence.hpp>
#include <effinfer/attention/softmax.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace effinfer::inline v0::testing {

/// Uniform in [-scale, scale), the same for the same seed everywhere.
inline std::vector<float> numbers(std::size_t n, std::uint64_t seed, float scale = 1.0f) {
  std::vector<float> v(n);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;
  for (float& x : v) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    x = scale * (static_cast<float>(state >> 40) * 0x1p-23f - 1.0f);
  }
  return v;
}

/// softmax(mixer(scale q k^T)) v under the hooks `score`, `visible` and `start` alone.
///
/// Shapes: query [T, H*D]; key, value [S, K*D] with S = first_position + T; returns [T, H*D].
template <class Mixer>
std::vector<double> softmax_attention(const Mixer& mixer, const attention::head_layout& h,
                                      const std::vector<float>& query, const std::vector<float>& key,
                                      const std::vector<float>& value, int first_position = 0, int sequence = 0) {
  const auto d = static_cast<std::size_t>(h.head_size);
  const std::size_t columns = static_cast<std::size_t>(h.heads) * d,
                    kv_columns = static_cast<std::size_t>(h.kv_heads) * d;
  std::vector<double> out(query.size());
  for (std::size_t t = 0; t < query.size() / columns; ++t) {
    for (int head = 0; head < h.heads; ++head) {
      const int q = first_position + static_cast<int>(t), kv_head = head / (h.heads / h.kv_heads);
      const std::size_t at = t * columns + static_cast<std::size_t>(head) * d;
      const auto row = [&](const std::vector<float>& m, int k) {
        return m.data() + static_cast<std::size_t>(k) * kv_columns + static_cast<std::size_t>(kv_head) * d;
      };
      const attention::softmax_start start = mixer.start(head);
      auto max = static_cast<double>(start.max);
      std::vector<double> scores;
      for (int k = 0; k <= q; ++k) {
        const attention::position p{q, k, head, kv_head, sequence};
        double s = 0;
        for (std::size_t i = 0; i < d; ++i)
          s += static_cast<double>(query[at + i]) * static_cast<double>(row(key, k)[i]);
        s = static_cast<double>(mixer.score(static_cast<float>(s * static_cast<double>(h.scale)), p));
        if (!mixer.visible(p)) s = -std::numeric_limits<double>::infinity();
        scores.push_back(s);
        max = std::max(max, s);
      }
      if (max == -std::numeric_limits<double>::infinity()) continue;
      double sum = static_cast<double>(start.sum) * std::exp(static_cast<double>(start.max) - max);
      double* o = out.data() + at;
      for (int k = 0; k <= q; ++k) {
        const double p = std::exp(scores[static_cast<std::size_t>(k)] - max);
        sum += p;
        for (std::size_t i = 0; i < d; ++i) o[i] += p * static_cast<double>(row(value, k)[i]);
      }
      for (std::size_t i = 0; i < d; ++i) o[i] /= sum;
    }
  }
  return out;
}

}  // namespace effinfer::inline v0::testing
