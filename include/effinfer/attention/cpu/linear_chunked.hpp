#pragma once
// Linear attention in chunks of C tokens: inside a chunk one masked product, between chunks the state. For long
// inputs it does the same work with matrix products in place of C steps:
//
//   o_t = sum_{s <= t in chunk} g^(t-s) (phi(q_t).phi(k_s)) v_s + g^(t-t0+1) phi(q_t)^T S
//   S' = g^C S + sum_s g^(t0+C-1-s) phi(k_s) v_s^T
//
// Source: Sun et al., "RetNet" (2023), section 2.3 (the chunkwise representation). Rounds otherwise than the
// recurrence, and so its result depends on where chunks begin: models use cpu/linear.hpp.

#include <effinfer/attention/cpu/linear.hpp>
#include <effinfer/attention/cpu/tile_products.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

namespace effinfer::inline v0::attention {

namespace detail {

/// y[r] = phi(x[r]) for some rows, zeros behind D.
template <class FeatureMap>
struct feature_rows {
  struct args {
    const FeatureMap* phi;
    const float* x;
    std::ptrdiff_t x_stride;
    int rows, size;
    float* y;  ///< [rows, padded D]
  };
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    const int stride = padded(a.size);
    for (int r = 0; r < a.rows; ++r) {
      float* y = a.y + std::ptrdiff_t{r} * stride;
      map_features<Set>(*a.phi, a.x + r * a.x_stride, a.size, y);
      for (int i = a.size; i < stride; ++i) y[i] = 0.0f;
    }
  }
};

/// s[n] *= g^(distance - n) for n in [0, count), and returns their sum; distance >= count - 1.
inline float fade_scores(float* s, int count, float g, int distance) {
  float weight = std::pow(g, static_cast<float>(distance - count + 1)), sum = 0.0f;
  for (int n = count - 1; n >= 0; --n, weight *= g) sum += s[n] *= weight;
  return sum;
}

/// One head of one sequence, chunk after chunk.
template <class Mixer>
class chunked_head {
 public:
  chunked_head(execution::instruction_set set, const Mixer& mixer, const head_layout& heads,
               const recurrent_sequence& s, int head)
      : set_(set),
        mixer_(mixer),
        sequence_(s),
        d_(heads.head_size),
        column_(std::ptrdiff_t{head} * d_),
        kv_column_(std::ptrdiff_t{head / (heads.heads / heads.kv_heads)} * d_),
        g_(mixer.decay(head)),
        state_(s.state.matrices + std::ptrdiff_t{head} * d_ * d_),
        z_(s.state.vectors + std::ptrdiff_t{head} * d_) {}

  void run() {
    const int chunk = std::min(tile_keys, tile_floats / padded(d_));
    for (std::ptrdiff_t t = 0; t < sequence_.query.rows; t += chunk) {
      run_chunk(t, static_cast<int>(std::min<std::ptrdiff_t>(chunk, sequence_.query.rows - t)));
    }
  }

 private:
  void run_chunk(std::ptrdiff_t first, int n) {
    using features = feature_rows<decltype(mixer_.feature)>;
    const int stride = padded(d_);
    const auto query = sequence_.query.middle_rows(first, n), key = sequence_.key.middle_rows(first, n);
    const auto value = sequence_.value.middle_rows(first, n);
    execution::dispatch<features>(
        set_, typename features::args{&mixer_.feature, query.data + column_, query.stride, n, d_, query_});
    execution::dispatch<features>(
        set_, typename features::args{&mixer_.feature, key.data + kv_column_, key.stride, n, d_, key_});
    std::fill(out_, out_ + n * stride, 0.0f);

    // Inside the chunk.
    execution::dispatch<score_tile<float>>(
        set_, score_tile<float>::args{query_, n, key_, stride, n, d_, scores_, score_row, copy_, {}});
    for (int t = 0; t < n; ++t) {
      denominator_[t] = fade_scores(scores_ + t * score_row, t + 1, g_, t) + Mixer::epsilon;
      begin_[t] = 0, end_[t] = t + 1;
    }
    mix(scores_, score_row, n, value.data + kv_column_, value.stride, out_);

    // What the state holds of before it.
    float fade = 1.0f;
    for (int t = 0; t < n; ++t) {
      fade *= g_;
      float* q = query_ + t * stride;
      float seen = 0.0f;
      for (int i = 0; i < d_; ++i) {
        q[i] *= fade;
        seen += q[i] * z_[i];
      }
      denominator_[t] += seen;
    }
    std::fill(begin_, begin_ + n, 0);
    std::fill(end_, end_ + n, d_);
    mix(query_, stride, n, state_, d_, out_);
    const auto out = sequence_.out.middle_rows(first, n);
    for (int t = 0; t < n; ++t) {
      const float share = 1.0f / denominator_[t];
      float* to = out.row(t) + column_;
      for (int i = 0; i < d_; ++i) to[i] = out_[t * stride + i] * share;
    }

    move_state(value, n, fade);
  }

  /// S = fade S + sum_s g^(n-1-s) phi(k_s) v_s^T, sixteen rows of S at a time.
  void move_state(const matrix_view<const float>& value, int n, float fade) {
    const int stride = padded(d_);
    float weight[tile_keys];
    float last = 1.0f;
    for (int s = n - 1; s >= 0; --s, last *= g_) weight[s] = last;
    for (int i = 0; i < d_; ++i) {
      float sum = z_[i] * fade;
      for (int s = 0; s < n; ++s) sum += key_[s * stride + i] *= weight[s];
      z_[i] = sum;
    }
    std::fill(begin_, begin_ + 16, 0);
    std::fill(end_, end_ + 16, n);
    for (int i = 0; i < d_; i += 16) {
      const int rows = std::min(16, d_ - i);
      for (int r = 0; r < rows; ++r) {
        for (int s = 0; s < n; ++s) scores_[r * score_row + s] = key_[s * stride + i + r];
        for (int c = 0; c < d_; ++c) out_[r * stride + c] = state_[(i + r) * d_ + c] * fade;
      }
      mix(scores_, score_row, rows, value.data + kv_column_, value.stride, out_);
      for (int r = 0; r < rows; ++r) std::copy_n(out_ + r * stride, d_, state_ + (i + r) * d_);
    }
  }

  void mix(const float* p, std::ptrdiff_t p_stride, int rows, const float* v, std::ptrdiff_t v_stride, float* out) {
    execution::dispatch<mix_tile<float>>(
        set_, mix_tile<float>::args{p, p_stride, rows, begin_, end_, v, v_stride, d_, out, {}});
  }

  static constexpr int score_row = tile_keys + 16;

  execution::instruction_set set_;
  const Mixer& mixer_;
  const recurrent_sequence& sequence_;
  const int d_;
  const std::ptrdiff_t column_, kv_column_;
  const float g_;
  float* state_;
  float* z_;
  int begin_[tile_keys], end_[tile_keys];
  float denominator_[tile_keys];
  alignas(64) float query_[tile_floats];
  alignas(64) float key_[tile_floats];
  alignas(64) float out_[tile_floats];
  alignas(64) float scores_[tile_keys * score_row];
  alignas(64) float copy_[16 * largest_head_size];
};

}  // namespace detail

/// The same outputs and states as `attend` up to rounding, for T of some hundreds and more.
///
/// Shapes, errors: as `attend`. Cost a token and head: 4 D^2 + 2 C D operations with C = min(64, 8192 / D); nothing
/// is allocated, a working thread needs 160 KiB of stack. Exact: independent of other sequences and of threads.
template <class FeatureMap, class Decay>
void attend_chunked(const execution::cpu::context& exec, const linear<FeatureMap, Decay>& mixer,
                    const head_layout& heads, std::span<const recurrent_sequence> sequences) {
  detail::check_recurrent(heads, sequences);
  exec.parallel_for(static_cast<std::ptrdiff_t>(sequences.size()) * heads.heads, 1,
                    [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
                      for (std::ptrdiff_t task = begin; task < end; ++task) {
                        const recurrent_sequence& s = sequences[static_cast<std::size_t>(task / heads.heads)];
                        detail::chunked_head(exec.set(), mixer, heads, s, static_cast<int>(task % heads.heads)).run();
                      }
                    });
}

}  // namespace effinfer::inline v0::attention
