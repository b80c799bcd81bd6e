#pragma once
// Linear attention on a GPU: as a recurrence in float, token by token (decode), and in chunks of up to 64 tokens on matrix instructions
// (prefill). attention/linear.hpp has the mathematics.
//
//   std::vector<linear_sequence<bf16>> sequences = {{query, key, value, out, state}, ...};     // views of device memory
//   const linear_plan plan = plan_linear(heads, std::span(sequences));                         // on the host, may throw
//   const linear_args<Mixer, bf16> args{mixer, heads, on_device, plan, workspace};             // sequences in device memory
//   start_recurrent<128>(args, [&](auto kernel, const auto& a) {                               // or start_chunked<128>
//     execution::simt::launch<typename decltype(kernel)::type>(a, stream);
//   });
// Columns of a head's state are independent of each other and go to blocks of their own. All of these read the head's vector z, so the
// new one is left in the workspace, from where a second kernel takes it.
//
// Source: Katharopoulos et al., "Transformers are RNNs" (2020), eqs. 16-20; Sun et al., "RetNet" (2023), section 2.3 for the chunks.

#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sequence.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/number_pairs.hpp>
#include <effinfer/kv_cache/recurrent_state.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::attention::cuda {

/// T new tokens of one sequence in front of its recurrent state.
template <class T>
struct linear_sequence {
  matrix_view<const T> query;      ///< [T, H*D]
  matrix_view<const T> key;        ///< [T, K*D]
  matrix_view<const T> value;      ///< [T, K*D]
  matrix_view<T> out;              ///< [T, H*D], not the memory of the others
  kv_cache::recurrent_view state;  ///< of H heads, in device memory; moved on by T tokens

  /// For the recurrence alone: the tokens are these rows of the views, in this order (device memory). Null: all rows.
  const int* rows = nullptr;
  int count = 0;            ///< [count] rows, where they are named
  int first_out = 0;        ///< tokens before this one have no output
  bool moves_state = true;  ///< else the state stays as it is

  [[nodiscard]] EFFINFER_HOST_DEVICE int tokens() const {
    return rows == nullptr ? static_cast<int>(query.rows) : count;
  }
  [[nodiscard]] EFFINFER_HOST_DEVICE int row(int token) const { return rows == nullptr ? token : rows[token]; }
};

/// What a call needs, known on the host before anything runs.
struct linear_plan {
  int sequences = 0;
  std::size_t workspace_bytes = 0;  ///< of device memory
};

/// Head sizes D of the kernels: 32 (the recurrence alone), 64, 96, 128, 256. Errors: `invalid_argument` (heads), `unsupported` (a head size), `mismatch` (shapes),
/// `limit` (more than 65535 sequences times heads).
template <class T>
linear_plan plan_linear(const head_layout& h, std::span<const linear_sequence<T>> sequences) {
  const char* const who = "attention::cuda::plan_linear";
  if (h.heads < 1 || h.kv_heads < 1 || h.heads % h.kv_heads != 0) {
    throw error(error_code::invalid_argument, who,
                std::to_string(h.heads) + " heads, " + std::to_string(h.kv_heads) + " key heads");
  }
  if (h.head_size != 32 && h.head_size != 64 && h.head_size != 96 && h.head_size != 128 && h.head_size != 256) {
    throw error(error_code::unsupported, who,
                "head_size = " + std::to_string(h.head_size) + " is not compiled in; have {32, 64, 96, 128, 256}");
  }
  const std::ptrdiff_t columns = std::ptrdiff_t{h.heads} * h.head_size,
                       kv_columns = std::ptrdiff_t{h.kv_heads} * h.head_size;
  for (const linear_sequence<T>& s : sequences) {
    if (s.query.columns != columns || s.out.columns != columns || s.key.columns != kv_columns ||
        s.value.columns != kv_columns || s.key.rows != s.query.rows || s.value.rows != s.query.rows ||
        s.out.rows != s.query.rows || s.state.heads != h.heads || s.state.head_size != h.head_size) {
      throw error(
          error_code::mismatch, who,
          "the views of sequence " + std::to_string(&s - sequences.data()) + " don't fit each other or the head layout",
          "query and out are [T, H*D], key and value [T, K*D], the state is of H heads of D");
    }
  }
  if (sequences.size() * static_cast<std::size_t>(h.heads) > 65535) {
    throw error(error_code::limit, who,
                std::to_string(sequences.size()) + " sequences of " + std::to_string(h.heads) +
                    " heads are more than a grid holds",
                "call it in parts");
  }
  linear_plan plan;
  plan.sequences = static_cast<int>(sequences.size());
  plan.workspace_bytes = sequences.size() * static_cast<std::size_t>(columns) * sizeof(float);
  return plan;
}

/// What the kernels are told. `sequences` and `workspace` lie in device memory.
template <class Mixer, class T>
struct linear_args {
  Mixer mixer;
  head_layout heads;
  const linear_sequence<T>* sequences;
  linear_plan plan;
  float* workspace;  ///< [sequences, H, D]: the new vectors z
};

namespace detail {

/// Error: `mismatch`: a kernel compiled for another head size.
template <class Args>
execution::simt::grid linear_grid(const Args& a, int compiled, int columns, int threads, int shared_bytes) {
  if (a.heads.head_size != compiled) {
    throw error(error_code::mismatch, "attention::cuda: linear attention kernel",
                "compiled for head_size = " + std::to_string(compiled) + ", the plan is for " +
                    std::to_string(a.heads.head_size));
  }
  return {compiled / columns, a.plan.sequences * a.heads.heads, threads, shared_bytes};
}

}  // namespace detail

/// The recurrence: block x is 32 columns of the state, y the sequence and head. A thread keeps a quarter of a column in its registers.
/// Exact: outputs and state don't depend on how the tokens are cut into calls, nor on other sequences.
template <class Mixer, class T, int D>
struct linear_recurrent {
  using args = linear_args<Mixer, T>;
  static constexpr int columns = 32, warps = 4, threads = warps * 32;
  static constexpr int tokens = 8;  ///< between barriers
  static constexpr int shared_floats = 2 * tokens * D + tokens * columns + tokens * warps * columns + tokens * warps;

  /// Error: `mismatch` (a plan for another head size).
  static execution::simt::grid plan(const args& a) {
    return detail::linear_grid(a, D, columns, threads, shared_floats * static_cast<int>(sizeof(float)));
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int head = t.block_y() % a.heads.heads, kv_head = head / (a.heads.heads / a.heads.kv_heads);
    const int index = t.block_y() / a.heads.heads;
    const linear_sequence<T>& s = a.sequences[index];
    const int all = s.tokens(), column = t.block() * columns + t.lane();
    if (all == 0) return;
    const float g = a.mixer.decay(head);

    const auto query = t.template shared<float>(tokens * D), key = t.template shared<float>(tokens * D);
    const auto value = t.template shared<float>(tokens * columns);
    const auto part = t.template shared<float>(tokens * warps * columns);  // of outputs, a warp
    const auto norm_part = t.template shared<float>(tokens * warps);       // of denominators

    constexpr int rows = D / warps, mine = (D + threads - 1) / threads;
    float* const matrix =
        s.state.matrices + std::ptrdiff_t{head} * D * D + std::ptrdiff_t{t.warp()} * rows * D + column;
    float state[rows], z[mine];
    EFFINFER_UNROLL
    for (int i = 0; i < rows; ++i) state[i] = matrix[i * D];
    EFFINFER_UNROLL
    for (int i = 0; i < mine; ++i) {
      const int d = i * threads + t.thread();
      z[i] = d < D ? s.state.vectors[std::ptrdiff_t{head} * D + d] : 0.0F;
    }

    for (int first = 0; first < all; first += tokens) {
      const int count = all - first < tokens ? all - first : tokens;
      for (int i = t.thread(); i < count * D; i += threads) {
        const int n = i / D, d = i % D;
        query[i] = a.mixer.feature(static_cast<float>(s.query.row(s.row(first + n))[std::ptrdiff_t{head} * D + d]));
        key[i] = a.mixer.feature(static_cast<float>(s.key.row(s.row(first + n))[std::ptrdiff_t{kv_head} * D + d]));
      }
      for (int i = t.thread(); i < count * columns; i += threads) {
        value[i] = static_cast<float>(
            s.value.row(s.row(first + i / columns))[std::ptrdiff_t{kv_head} * D + t.block() * columns + i % columns]);
      }
      t.barrier();
      for (int n = 0; n < count; ++n) {
        float norm = 0, sum = 0;
        EFFINFER_UNROLL
        for (int i = 0; i < mine; ++i) {
          const int d = i * threads + t.thread();
          if (d >= D) continue;
          z[i] = std::fma(g, z[i], static_cast<float>(key[n * D + d]));
          norm = std::fma(static_cast<float>(query[n * D + d]), z[i], norm);
        }
        norm = execution::simt::warp_sum(t, norm);
        if (t.lane() == 0) norm_part[n * warps + t.warp()] = norm;
        const float v = value[n * columns + t.lane()];
        EFFINFER_UNROLL
        for (int i = 0; i < rows; ++i) {
          const int d = n * D + t.warp() * rows + i;
          state[i] = std::fma(static_cast<float>(key[d]), v, g * state[i]);
          sum = std::fma(static_cast<float>(query[d]), state[i], sum);
        }
        part[(n * warps + t.warp()) * columns + t.lane()] = sum;
      }
      t.barrier();
      for (int n = t.warp(); n < count; n += warps) {
        float norm = Mixer::epsilon, sum = 0;
        EFFINFER_UNROLL
        for (int w = 0; w < warps; ++w) {
          norm += norm_part[n * warps + w];
          sum += part[(n * warps + w) * columns + t.lane()];
        }
        if (first + n >= s.first_out) s.out.row(s.row(first + n))[std::ptrdiff_t{head} * D + column] = T(sum / norm);
      }
      // No third barrier: features were read before the last one, and parts are written after the next.
    }

    if (!s.moves_state) return;
    EFFINFER_UNROLL
    for (int i = 0; i < rows; ++i) matrix[i * D] = state[i];
    if (t.block() != 0) return;
    EFFINFER_UNROLL
    for (int i = 0; i < mine; ++i) {
      const int d = i * threads + t.thread();
      if (d < D) a.workspace[(std::ptrdiff_t{index} * a.heads.heads + head) * D + d] = z[i];
    }
  }
};

/// The chunks: block x is some columns of the state, 16 a warp, y the sequence and head. A warp keeps its columns of the state, transposed,
/// in registers, where they lie as the sum of one product and the operand of the next.
///
/// Operands are rounded to bf16, whatever T is (sums over a long sequence leave the range of f16); sums, denominators and the state are
/// float. Where chunks begin shows in the roundings.
template <class Mixer, class T, int D>
struct linear_chunked {
  using args = linear_args<Mixer, T>;
  static_assert(D >= 64);
  static constexpr int columns = D % 64 == 0 ? 64 : 96, warps = columns / 16, threads = warps * 32;
  static constexpr int chunk = D > 128 ? 16 : 64, strips = chunk / 16;  ///< tokens, as the registers allow
  /// Rows in shared memory, in elements: 16 bytes more, so that rows below each other begin in other banks.
  static constexpr int row = D + 8, value_row = columns + 8, weight_row = chunk + 8;
  static constexpr int shared_bytes =
      2 * chunk * (2 * row + 2 * value_row + weight_row) + 4 * (D + chunk + chunk + chunk + 1) + 6 * 16;
  static_assert(shared_bytes <= execution::simt::least_shared_bytes);

  /// Error: `mismatch` (a plan for another head size).
  static execution::simt::grid plan(const args& a) { return detail::linear_grid(a, D, columns, threads, shared_bytes); }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int head = t.block_y() % a.heads.heads, kv_head = head / (a.heads.heads / a.heads.kv_heads);
    const int index = t.block_y() / a.heads.heads, lane = t.lane();
    const linear_sequence<T>& s = a.sequences[index];
    const int all = static_cast<int>(s.query.rows);
    if (all == 0) return;
    const float g = a.mixer.decay(head);

    const auto query = t.template shared<bf16>(chunk * row), key = t.template shared<bf16>(chunk * row);
    const auto value = t.template shared<bf16>(chunk * value_row);
    const auto faded_value =
        t.template shared<bf16>(chunk * value_row);  // as it stands in the state at the chunk's end
    const auto weight = t.template shared<bf16>(chunk * weight_row);
    const auto z = t.template shared<float>(D);
    const auto near_norm = t.template shared<float>(chunk), far_norm = t.template shared<float>(chunk);
    const auto power = t.template shared<float>(chunk + 1);  // of g

    const float log_g = std::log2(g);
    for (int i = t.thread(); i <= chunk; i += threads) power[i] = i == 0 ? 1.0F : t.exp2(static_cast<float>(i) * log_g);
    for (int d = t.thread(); d < D; d += threads) z[d] = s.state.vectors[std::ptrdiff_t{head} * D + d];

    const int first_column = t.block() * columns + t.warp() * 16;
    float* const matrix = s.state.matrices + std::ptrdiff_t{head} * D * D;
    float state[D / 8][4];  // [features / 8], of columns x features
    EFFINFER_UNROLL
    for (int f = 0; f < D / 8; ++f) {
      EFFINFER_UNROLL
      for (int e = 0; e < 4; ++e) state[f][e] = matrix[state_place(first_column, f, lane, e)];
    }

    for (int first = 0; first < all; first += chunk) {
      const int count = all - first < chunk ? all - first : chunk;
      t.barrier();  // all are done with the chunk before, and see the powers
      for_each<chunk * D>(t, [&](int i) {
        const int n = i / D, d = i % D;
        float q = 0, k = 0;
        if (n < count) {
          q = a.mixer.feature(static_cast<float>(s.query.row(first + n)[std::ptrdiff_t{head} * D + d]));
          k = a.mixer.feature(static_cast<float>(s.key.row(first + n)[std::ptrdiff_t{kv_head} * D + d]));
        }
        query[n * row + d] = bf16(q);
        key[n * row + d] = bf16(k);
      });
      for_each<chunk * columns>(t, [&](int i) {
        const int n = i / columns, c = i % columns;
        float v = 0, fade = 0;
        if (n < count) {
          v = static_cast<float>(s.value.row(first + n)[std::ptrdiff_t{kv_head} * D + t.block() * columns + c]);
          fade = power[count - 1 - n];
        }
        value[n * value_row + c] = bf16(v);
        faded_value[n * value_row + c] = bf16(v * fade);
      });
      t.barrier();

      EFFINFER_KEEP_ROLLED
      for (int strip = t.warp(); strip < strips; strip += warps)
        weigh_strip(t, strip, query, key, power, weight, near_norm);
      EFFINFER_KEEP_ROLLED
      for (int n = t.warp(); n < count; n += warps) {
        float sum = 0;
        EFFINFER_UNROLL
        for (int d = 0; d < D / 32; ++d) {
          sum = std::fma(static_cast<float>(static_cast<bf16>(query[n * row + d * 32 + lane])),
                         static_cast<float>(z[d * 32 + lane]), sum);
        }
        sum = execution::simt::warp_sum(t, sum);
        if (lane == 0) far_norm[n] = sum * power[n + 1];
      }
      t.barrier();

      float out[strips][2][4] = {};
      multiply_state(t, query, state, out);
      EFFINFER_UNROLL
      for (int i = 0; i < strips * 8; ++i)
        out[i / 8][i / 4 % 2][i % 4] *= power[i / 8 * 16 + lane / 4 + i % 4 / 2 * 8 + 1];
      multiply_values(t, weight, value, out);
      EFFINFER_UNROLL
      for (int i = 0; i < strips * 2; ++i) {
        const int n = i * 8 + lane / 4;
        if (n >= count) continue;
        const float share = 1.0F / (near_norm[n] + far_norm[n] + Mixer::epsilon);
        T* const to = s.out.row(first + n) + std::ptrdiff_t{head} * D + first_column + lane % 4 * 2;
        EFFINFER_UNROLL
        for (int e = 0; e < 4; ++e) to[e / 2 * 8 + e % 2] = T(out[i / 2][e / 2][i % 2 * 2 + e % 2] * share);
      }
      const float fade = power[count];
      EFFINFER_UNROLL
      for (int i = 0; i < D / 2; ++i) state[i / 4][i % 4] *= fade;
      add_keys(t, faded_value, key, state);
      for (int d = t.thread(); d < D; d += threads) {
        float sum = fade * z[d];
        EFFINFER_KEEP_ROLLED
        for (int n = 0; n < count; ++n)
          sum = std::fma(static_cast<float>(power[count - 1 - n]),
                         static_cast<float>(static_cast<bf16>(key[n * row + d])), sum);
        z[d] = sum;
      }
    }

    EFFINFER_UNROLL
    for (int f = 0; f < D / 8; ++f) {
      EFFINFER_UNROLL
      for (int e = 0; e < 4; ++e) matrix[state_place(first_column, f, lane, e)] = state[f][e];
    }
    if (t.block() != 0) return;
    for (int d = t.thread(); d < D; d += threads)  // the thread's own
      a.workspace[(std::ptrdiff_t{index} * a.heads.heads + head) * D + d] = z[d];
  }

 private:
  /// f of the thread's share of [0, Count), four at a time: so many loads on their way, and no more registers than these take.
  template <int Count, class Simt, class F>
  EFFINFER_HOST_DEVICE static void for_each(Simt& t, const F& f) {
    static_assert(Count % (4 * threads) == 0);
    EFFINFER_KEEP_ROLLED
    for (int i = 0; i < Count; i += 4 * threads) {
      EFFINFER_UNROLL
      for (int j = 0; j < 4; ++j) f(i + j * threads + t.thread());
    }
  }

  EFFINFER_HOST_DEVICE static std::ptrdiff_t state_place(int first_column, int f, int lane, int e) {
    return std::ptrdiff_t{f * 8 + lane % 4 * 2 + e % 2} * D + first_column + lane / 4 + e / 2 * 8;
  }

  /// The weights g^(t-s) phi(q_t).phi(k_s) of 16 tokens, s <= t, and their sums. Sums are of the rounded weights, as the values meet these.
  template <class Simt, class Shared, class Floats>
  EFFINFER_HOST_DEVICE static void weigh_strip(Simt& t, int strip, Shared query, Shared key, Floats power,
                                               Shared weight, Floats norm) {
    const int lane = t.lane();
    float product[chunk / 8][4] = {};
    EFFINFER_KEEP_ROLLED
    for (int k = 0; k < D / 16; ++k) {
      std::uint32_t q[4];
      t.load_matrices(query, (strip * 16 + lane % 16) * row + k * 16 + lane / 16 * 8, q);
      EFFINFER_UNROLL
      for (int n = 0; n < chunk / 16; ++n) {
        std::uint32_t r[4];
        t.load_matrices(key, (n * 16 + lane / 16 * 8 + lane % 8) * row + k * 16 + lane / 8 % 2 * 8, r);
        const std::uint32_t low[2] = {r[0], r[1]}, high[2] = {r[2], r[3]};
        t.mma(product[n * 2], q, low, bf16{});
        t.mma(product[n * 2 + 1], q, high, bf16{});
      }
    }
    float sum[2] = {};
    EFFINFER_UNROLL
    for (int i = 0; i < chunk / 2; ++i) {
      const int n = i / 4, e = i % 4;
      const int token = strip * 16 + lane / 4 + e / 2 * 8, other = n * 8 + lane % 4 * 2 + e % 2;
      const bf16 w(other <= token ? product[n][e] * power[token - other] : 0.0F);
      sum[e / 2] += static_cast<float>(w);
      weight[token * weight_row + other] = w;
    }
    EFFINFER_UNROLL
    for (int half = 0; half < 2; ++half) {
      sum[half] += t.shuffle_xor(sum[half], 1);
      sum[half] += t.shuffle_xor(sum[half], 2);
      if (lane % 4 == 0) norm[strip * 16 + lane / 4 + half * 8] = sum[half];
    }
  }

  /// out += phi(q) S for the warp's 16 columns.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void multiply_state(Simt& t, Shared query, const float (&state)[D / 8][4],
                                                  float (&out)[strips][2][4]) {
    const int lane = t.lane();
    EFFINFER_UNROLL
    for (int k = 0; k < D / 16; ++k) {
      const std::uint32_t low[2] = {execution::simt::round_pair<bf16>(state[k * 2][0], state[k * 2][1]),
                                    execution::simt::round_pair<bf16>(state[k * 2 + 1][0], state[k * 2 + 1][1])};
      const std::uint32_t high[2] = {execution::simt::round_pair<bf16>(state[k * 2][2], state[k * 2][3]),
                                     execution::simt::round_pair<bf16>(state[k * 2 + 1][2], state[k * 2 + 1][3])};
      EFFINFER_UNROLL
      for (int strip = 0; strip < strips; ++strip) {
        std::uint32_t q[4];
        t.load_matrices(query, (strip * 16 + lane % 16) * row + k * 16 + lane / 16 * 8, q);
        t.mma(out[strip][0], q, low, bf16{});
        t.mma(out[strip][1], q, high, bf16{});
      }
    }
  }

  /// out += weights values.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void multiply_values(Simt& t, Shared weight, Shared value, float (&out)[strips][2][4]) {
    const int lane = t.lane();
    EFFINFER_UNROLL
    for (int k = 0; k < chunk / 16; ++k) {
      std::uint32_t v[4];
      t.load_matrices_transposed(value, (k * 16 + lane % 16) * value_row + t.warp() * 16 + lane / 16 * 8, v);
      const std::uint32_t low[2] = {v[0], v[1]}, high[2] = {v[2], v[3]};
      EFFINFER_UNROLL
      for (int strip = k; strip < strips; ++strip) {  // the weights of tokens behind are zero
        std::uint32_t w[4];
        t.load_matrices(weight, (strip * 16 + lane % 16) * weight_row + k * 16 + lane / 16 * 8, w);
        t.mma(out[strip][0], w, low, bf16{});
        t.mma(out[strip][1], w, high, bf16{});
      }
    }
  }

  /// S^T += v^T phi(k).
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void add_keys(Simt& t, Shared value, Shared key, float (&state)[D / 8][4]) {
    const int lane = t.lane();
    EFFINFER_UNROLL
    for (int k = 0; k < chunk / 16; ++k) {
      // Rows of v are tokens: matrices (tokens 0-7, columns 0-7), (0-7, 8-15), (8-15, 0-7), (8-15, 8-15), each transposed.
      std::uint32_t v[4];
      t.load_matrices_transposed(value,
                                 (k * 16 + lane / 16 * 8 + lane % 8) * value_row + t.warp() * 16 + lane / 8 % 2 * 8, v);
      EFFINFER_UNROLL
      for (int f = 0; f < D / 16; ++f) {
        std::uint32_t r[4];
        t.load_matrices_transposed(key, (k * 16 + lane % 16) * row + f * 16 + lane / 16 * 8, r);
        const std::uint32_t low[2] = {r[0], r[1]}, high[2] = {r[2], r[3]};
        t.mma(state[f * 2], v, low, bf16{});
        t.mma(state[f * 2 + 1], v, high, bf16{});
      }
    }
  }
};

/// The last kernel of either form: the new vectors z go from the workspace to the states. Block x is the head, y the sequence.
template <class Mixer, class T, int D>
struct linear_vectors {
  using args = linear_args<Mixer, T>;
  static constexpr int threads = 64;

  static execution::simt::grid plan(const args& a) { return {a.heads.heads, a.plan.sequences, threads, 0}; }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const linear_sequence<T>& s = a.sequences[t.block_y()];
    if (s.tokens() == 0 || !s.moves_state) return;
    const float* const from = a.workspace + (std::ptrdiff_t{t.block_y()} * a.heads.heads + t.block()) * D;
    for (int d = t.thread(); d < D; d += threads) s.state.vectors[std::ptrdiff_t{t.block()} * D + d] = from[d];
  }
};

/// Calls start(std::type_identity<Kernel>{}, args) for each kernel of the recurrence. Errors: those of the kernels' plans.
template <int D, class Mixer, class T, class Start>
void start_recurrent(const linear_args<Mixer, T>& a, const Start& start) {
  start(std::type_identity<linear_recurrent<Mixer, T, D>>{}, a);
  start(std::type_identity<linear_vectors<Mixer, T, D>>{}, a);
}
/// The same for the form in chunks.
template <int D, class Mixer, class T, class Start>
void start_chunked(const linear_args<Mixer, T>& a, const Start& start) {
  start(std::type_identity<linear_chunked<Mixer, T, D>>{}, a);
  start(std::type_identity<linear_vectors<Mixer, T, D>>{}, a);
}

}  // namespace effinfer::inline v0::attention::cuda
