#pragma once
// Linear attention as one masked product, all tokens at the same time and no state: what training computes.
//
//   o_t = sum_{s <= t} w(t, s) v_s / (sum_{s <= t} w(t, s) + 1e-6),    w(t, s) = g^(t-s) phi(q_t).phi(k_s)
//
// Source: Katharopoulos et al., "Transformers are RNNs" (2020), eqs. 8-9; the decay as in Sun et al., "RetNet"
// (2023), section 2.1 (the parallel representation).

#include <effinfer/attention/cpu/linear_chunked.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace effinfer::inline v0::attention {

namespace detail {

/// A tile of queries of one head against all keys up to them.
template <class Mixer>
class parallel_tile {
 public:
  static int tokens(int head_size) { return std::min(tile_rows, tile_floats / padded(head_size)); }

  void run(execution::instruction_set set, const Mixer& mixer, const head_layout& heads, const recurrent_sequence& s,
           int head, int first, int n) {
    using features = feature_rows<decltype(mixer.feature)>;
    const int d = heads.head_size, stride = padded(d), tile = std::min(tile_keys, tile_floats / stride);
    const std::ptrdiff_t column = std::ptrdiff_t{head} * d,
                         kv_column = std::ptrdiff_t{head / (heads.heads / heads.kv_heads)} * d;
    const float g = mixer.decay(head);
    execution::dispatch<features>(
        set, typename features::args{&mixer.feature, s.query.row(first) + column, s.query.stride, n, d, query_});
    std::fill(out_, out_ + n * stride, 0.0f);
    std::fill(denominator_, denominator_ + n, Mixer::epsilon);
    for (int key = 0; key < first + n; key += tile) {
      const int keys = std::min(tile, first + n - key);
      execution::dispatch<features>(
          set, typename features::args{&mixer.feature, s.key.row(key) + kv_column, s.key.stride, keys, d, key_});
      execution::dispatch<score_tile<float>>(
          set, score_tile<float>::args{query_, n, key_, stride, keys, d, scores_, score_row, copy_, {}});
      for (int t = 0; t < n; ++t) {
        begin_[t] = 0;
        end_[t] = std::clamp(first + t + 1 - key, 0, keys);
        if (end_[t] > 0) denominator_[t] += fade_scores(scores_ + t * score_row, end_[t], g, first + t - key);
      }
      execution::dispatch<mix_tile<float>>(
          set, mix_tile<float>::args{
                   scores_, score_row, n, begin_, end_, s.value.row(key) + kv_column, s.value.stride, d, out_, {}});
    }
    for (int t = 0; t < n; ++t) {
      for (int i = 0; i < d; ++i) s.out.row(first + t)[column + i] = out_[t * stride + i] / denominator_[t];
    }
  }

 private:
  static constexpr int score_row = tile_keys + 16;
  int begin_[tile_rows], end_[tile_rows];
  float denominator_[tile_rows];
  alignas(64) float query_[tile_floats];
  alignas(64) float key_[tile_floats];
  alignas(64) float out_[tile_floats];
  alignas(64) float scores_[tile_rows * score_row];
  alignas(64) float copy_[16 * largest_head_size];
};

}  // namespace detail

/// The same outputs as `attend` from an empty state, up to rounding; `state` is neither read nor written. `out` must
/// not be the memory of the inputs.
///
/// Shapes, errors: as `attend`. Cost a head: 2 D T^2 operations; nothing is allocated, a working thread needs 160 KiB
/// of stack.
/// Exact: independent of other sequences and of threads.
template <class FeatureMap, class Decay>
void attend_parallel(const execution::cpu::context& exec, const linear<FeatureMap, Decay>& mixer,
                     const head_layout& heads, std::span<const recurrent_sequence> sequences) {
  using work_tile = detail::parallel_tile<linear<FeatureMap, Decay>>;
  detail::check_recurrent(heads, sequences);
  const int step = work_tile::tokens(heads.head_size);
  for (const recurrent_sequence& s : sequences) {
    const std::ptrdiff_t tiles = (s.query.rows + step - 1) / step;
    exec.parallel_for(tiles * heads.heads, 1, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      work_tile work;
      for (std::ptrdiff_t task = begin; task < end; ++task) {
        const int first = static_cast<int>(task % tiles) * step;
        work.run(exec.set(), mixer, heads, s, static_cast<int>(task / tiles), first,
                 std::min(step, static_cast<int>(s.query.rows) - first));
      }
    });
  }
}

}  // namespace effinfer::inline v0::attention
