#pragma once
// Linear attention on the CPU as a recurrence: each token moves a head's state on and reads it. The same mathematics in
// pieces and as one masked product: linear_chunked.hpp and linear_parallel.hpp.
//
// Source: Katharopoulos et al., "Transformers are RNNs" (2020), eqs. 16-20.

#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sequence.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/vector.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>

namespace effinfer::inline v0::attention {

namespace detail {

inline constexpr int largest_linear_head_size = 512;

/// y = phi(x), n values; y has room for whole vectors. Where phi has a form for vectors, that one.
template <execution::instruction_set Set, class FeatureMap>
EFFINFER_ALWAYS_INLINE void map_features(const FeatureMap& phi, const float* x, std::ptrdiff_t n, float* y) {
  using vector = execution::f32x16<Set>;
  if constexpr (requires(const vector& v) { phi.vector(v); }) {
    for (std::ptrdiff_t i = 0; i < n; i += 16) {
      const vector v = n - i >= 16 ? vector::load(x + i) : vector::load_first(x + i, n - i);
      phi.vector(v).store(y + i);
    }
  } else {
    for (std::ptrdiff_t i = 0; i < n; ++i) y[i] = phi(x[i]);
  }
}

/// All tokens of one sequence through one head.
template <class Mixer>
struct recurrent_head {
  struct args {
    const Mixer* mixer;
    const recurrent_sequence* sequence;
    int head, kv_head, size;
    std::ptrdiff_t first_token, tokens;  ///< at most `block` of them
    float* key;                          ///< scratch: phi(k) [block, padded D]
    float* query;                        ///< scratch: phi(q) [block, padded D]
    float* denominator;                  ///< scratch [block]
  };
  static constexpr int block = 16;

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = execution::f32x16<Set>;
    const recurrent_sequence& s = *a.sequence;
    const int d = a.size, stride = (d + 15) / 16 * 16;
    const float g = a.mixer->decay(a.head);
    float* state = s.state.matrices + std::ptrdiff_t{a.head} * d * d;
    float* z = s.state.vectors + std::ptrdiff_t{a.head} * d;

    for (std::ptrdiff_t t = 0; t < a.tokens; ++t) {
      float* key = a.key + t * stride;
      float* query = a.query + t * stride;
      map_features<Set>(a.mixer->feature, s.key.row(a.first_token + t) + std::ptrdiff_t{a.kv_head} * d, d, key);
      map_features<Set>(a.mixer->feature, s.query.row(a.first_token + t) + std::ptrdiff_t{a.head} * d, d, query);
      vector sum = vector::zero();
      for (int i = 0; i < d; i += 16) {
        const int left = d - i;
        const bool whole = left >= 16;
        const vector k = whole ? vector::load(key + i) : vector::load_first(key + i, left);
        const vector q = whole ? vector::load(query + i) : vector::load_first(query + i, left);
        const vector next = fma(vector::broadcast(g), whole ? vector::load(z + i) : vector::load_first(z + i, left), k);
        if (whole) {
          next.store(z + i);
        } else {
          next.store_first(z + i, left);
        }
        sum = fma(q, next, sum);
      }
      a.denominator[t] = sum.sum() + Mixer::epsilon;
    }
    // Columns of the state and of the values are independent: a few at a time stay in the first-level cache.
    int c = 0;
    for (; c + 64 <= d; c += 64) columns<Set, 4>(a, state + c, c, g, 16);
    for (; c < d; c += 16) columns<Set, 1>(a, state + c, c, g, std::min(16, d - c));
  }

 private:
  template <execution::instruction_set Set, int Vectors>
  static EFFINFER_ALWAYS_INLINE void columns(const args& a, float* state, int c, float g, int left) {
    using vector = execution::f32x16<Set>;
    const recurrent_sequence& s = *a.sequence;
    const int d = a.size, stride = (d + 15) / 16 * 16;
    const vector decay = vector::broadcast(g);
    for (std::ptrdiff_t t = 0; t < a.tokens; ++t) {
      const float* from = s.value.row(a.first_token + t) + std::ptrdiff_t{a.kv_head} * d + c;
      const float* key = a.key + t * stride;
      const float* query = a.query + t * stride;
      vector value[Vectors], sum[Vectors];
      for (int v = 0; v < Vectors; ++v) {
        value[v] = left == 16 ? vector::load(from + 16 * v) : vector::load_first(from, left);
        sum[v] = vector::zero();
      }
      for (int i = 0; i < d; ++i) {
        float* row = state + std::ptrdiff_t{i} * d;
        const vector k = vector::broadcast(key[i]), q = vector::broadcast(query[i]);
        for (int v = 0; v < Vectors; ++v) {
          const vector old = left == 16 ? vector::load(row + 16 * v) : vector::load_first(row, left);
          const vector next = fma(k, value[v], old * decay);
          if (left == 16) {
            next.store(row + 16 * v);
          } else {
            next.store_first(row, left);
          }
          sum[v] = fma(q, next, sum[v]);
        }
      }
      const vector share = vector::broadcast(1.0f / a.denominator[t]);
      float* to = s.out.row(a.first_token + t) + std::ptrdiff_t{a.head} * d + c;
      for (int v = 0; v < Vectors; ++v) {
        if (left == 16) {
          (sum[v] * share).store(to + 16 * v);
        } else {
          (sum[v] * share).store_first(to, left);
        }
      }
    }
  }
};

inline void check_recurrent(const head_layout& h, std::span<const recurrent_sequence> sequences) {
  if (h.heads < 1 || h.kv_heads < 1 || h.heads % h.kv_heads != 0 || h.head_size < 1 ||
      h.head_size > largest_linear_head_size) {
    throw error(error_code::invalid_argument, "attention::attend",
                std::to_string(h.heads) + " heads, " + std::to_string(h.kv_heads) + " key heads, head size " +
                    std::to_string(h.head_size),
                "kv_heads divides heads, and head sizes go up to " + std::to_string(largest_linear_head_size));
  }
  const std::ptrdiff_t columns = std::ptrdiff_t{h.heads} * h.head_size,
                       kv_columns = std::ptrdiff_t{h.kv_heads} * h.head_size;
  for (const recurrent_sequence& s : sequences) {
    if (s.query.columns != columns || s.out.columns != columns || s.key.columns != kv_columns ||
        s.value.columns != kv_columns || s.key.rows != s.query.rows || s.value.rows != s.query.rows ||
        s.out.rows != s.query.rows || s.state.heads != h.heads || s.state.head_size != h.head_size) {
      throw error(error_code::mismatch, "attention::attend",
                  "the views of a recurrent_sequence don't fit each other or the head layout",
                  "query and out are [T, H*D], key and value [T, K*D], the state is of H heads of D");
    }
  }
}

}  // namespace detail

/// The recurrence of attention/linear.hpp over the new tokens of some sequences, each moving its own state on.
///
/// Shapes: as in `recurrent_sequence`; head sizes 1 to 512. Cost a token and head: 4 D^2 operations (state read and
/// written once). Nothing is allocated. Errors: `invalid_argument` (head layout), `mismatch` (shapes), before
/// anything is computed.
/// Exact: outputs and state don't depend on how the tokens are cut into calls, on other sequences, or on threads.
template <class FeatureMap, class Decay>
void attend(const execution::cpu::context& exec, const linear<FeatureMap, Decay>& mixer, const head_layout& heads,
            std::span<const recurrent_sequence> sequences) {
  using kernel = detail::recurrent_head<linear<FeatureMap, Decay>>;
  detail::check_recurrent(heads, sequences);
  const int group = heads.heads / heads.kv_heads;
  const auto tasks = static_cast<std::ptrdiff_t>(sequences.size()) * heads.heads;
  exec.parallel_for(tasks, 1, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    alignas(64) float key[kernel::block * detail::largest_linear_head_size];
    alignas(64) float query[kernel::block * detail::largest_linear_head_size];
    float denominator[kernel::block];
    for (std::ptrdiff_t task = begin; task < end; ++task) {
      const recurrent_sequence& s = sequences[static_cast<std::size_t>(task / heads.heads)];
      const int head = static_cast<int>(task % heads.heads);
      for (std::ptrdiff_t t = 0; t < s.query.rows; t += kernel::block) {
        const typename kernel::args a{&mixer,
                                      &s,
                                      head,
                                      head / group,
                                      heads.head_size,
                                      t,
                                      std::min<std::ptrdiff_t>(kernel::block, s.query.rows - t),
                                      key,
                                      query,
                                      denominator};
        execution::dispatch<kernel>(exec.set(), a);
      }
    }
  });
}

}  // namespace effinfer::inline v0::attention
