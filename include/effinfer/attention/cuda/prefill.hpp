#pragma once
// Softmax attention of several new tokens a sequence (prefill, chunked prefill, a draft that is checked) on a GPU's matrix
// instructions: the form of FlashAttention-2, where a block of query rows stays while tiles of keys and values pass through shared
// memory, two stages deep, and scores, weights and outputs never leave the registers.
//
//   std::vector<prefill_sequence<bf16, view>> sequences = {{query, out, cache, first_position}, ...};    // views of device memory
//   const prefill_plan plan = plan_prefill(mixer, heads, std::span(sequences));                      // on the host, may throw
//   // copy `sequences` to device memory `on_device`, then
//   execution::simt::launch<prefill<Mixer, bf16, view, 128>>({mixer, heads, on_device, plan}, stream);   // of simt/launch.cuh
// All query heads of a key head are rows of one block, so few tokens of a grouped-query model fill a tile as well.
//
// Exact: a row's result depends on the sequence's keys, values and that query alone: chunked is whole, batched is alone.
//
// Source: Dao, "FlashAttention-2" (2023), algorithm 1 and section 3.3; Milakov and Gimelshein (2018) for the online softmax.

#include <effinfer/attention/cuda/cache_rows.hpp>
#include <effinfer/attention/policy.hpp>
#include <effinfer/attention/sequence.hpp>
#include <effinfer/attention/softmax.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::attention::cuda {

/// One sequence of a prefill call: T new tokens in front of its keys and values.
template <class T, kv_cache::cache_view View>
struct prefill_sequence {
  matrix_view<const T> query;  ///< [T, H*D], position embedding applied
  matrix_view<T> out;          ///< [T, H*D], may be the memory of `query`
  View cache;  ///< keys and values of all tokens, the T new ones included: cache.length = first_position + T
  int first_position = 0;  ///< of the first new token
  int index = 0;           ///< what policies get as position::sequence
  int first_tile = 0;      ///< filled in by the plan: where its blocks begin
};

/// Query rows (tokens times heads of a group) that a block works on, and keys of a tile: as much as the registers hold. A policy of
/// its own for scores needs some of them.
template <class Mixer>
constexpr int prefill_rows(int head_size) {
  return head_size > 128 || Mixer::changes_scores ? 64 : 128;
}
template <class Mixer>
constexpr int prefill_keys(int head_size) {
  return head_size > 128 || (head_size > 64 && !Mixer::changes_scores) ? 32 : 64;
}

/// What a prefill call needs, known on the host before anything runs.
struct prefill_plan {
  int sequences = 0;
  int tiles = 0;                    ///< blocks of query rows of all sequences, for each key head
  std::size_t workspace_bytes = 0;  ///< of device memory: none
};

/// Fills in what prefill_sequence says that the plan does. Sequences without new tokens are allowed. Head sizes D of the kernels: 32,
/// 64, 96, 128, 256. Errors: `invalid_argument` (heads, a scale that isn't above 0), `mismatch` (shapes, a cache that doesn't end with the new
/// tokens), `unsupported` (a head size, rows that aren't 16-byte aligned), `limit` (2^31 rows or blocks).
template <class Mixer, class T, class View>
prefill_plan plan_prefill(const Mixer&, const head_layout& h, std::span<prefill_sequence<T, View>> sequences) {
  const char* const who = "attention::cuda::plan_prefill";
  detail::check_heads(who, h);
  if (!(h.scale > 0.0F) || h.scale > std::numeric_limits<float>::max()) {
    throw error(error_code::invalid_argument, who, "scale = " + std::to_string(h.scale) + " is not above 0");
  }
  const std::ptrdiff_t columns = std::ptrdiff_t{h.heads} * h.head_size, group = h.heads / h.kv_heads;
  const int rows = prefill_rows<Mixer>(h.head_size);
  constexpr std::ptrdiff_t most = std::numeric_limits<int>::max();
  std::ptrdiff_t tiles = 0;
  prefill_plan plan;
  for (prefill_sequence<T, View>& s : sequences) {
    const std::string which = "sequence " + std::to_string(&s - sequences.data()) + ": ";
    s.first_tile = static_cast<int>(tiles);
    if (s.query.rows != s.out.rows || s.query.columns != columns || s.out.columns != columns) {
      throw error(error_code::mismatch, who,
                  which + "query is " + std::to_string(s.query.rows) + " x " + std::to_string(s.query.columns) +
                      ", out " + std::to_string(s.out.rows) + " x " + std::to_string(s.out.columns) +
                      ", heads ask for " + std::to_string(columns) + " columns");
    }
    if (s.query.rows == 0) continue;
    if (s.query.rows > (most - rows) / group) {
      throw error(error_code::limit, who, which + std::to_string(s.query.rows) + " tokens are more than a call takes");
    }
    if (s.first_position < 0 || s.cache.length != s.first_position + s.query.rows || s.cache.first > s.first_position) {
      throw error(error_code::mismatch, who,
                  which + "the cache holds positions [" + std::to_string(s.cache.first) + ", " +
                      std::to_string(s.cache.length) + "), the new tokens are [" + std::to_string(s.first_position) +
                      ", " + std::to_string(s.first_position + s.query.rows) + ")");
    }
    if (!detail::is_aligned(s.query.data, 16) || !detail::is_aligned(s.out.data, 16) || s.query.stride % 8 != 0 ||
        s.out.stride % 8 != 0) {
      throw error(error_code::unsupported, who, which + "rows of queries or outputs are not 16-byte aligned");
    }
    detail::check_rows(who, which, s.cache, h.kv_heads);
    tiles += (s.query.rows * group + rows - 1) / rows;
    if (tiles > most) throw error(error_code::limit, who, "the tokens of all sequences are more than a grid holds");
  }
  plan.sequences = static_cast<int>(sequences.size());
  plan.tiles = static_cast<int>(tiles);
  return plan;
}

/// What the kernel is told. `sequences` lie in device memory.
template <class Mixer, class T, class View>
struct prefill_args {
  Mixer mixer;
  head_layout heads;
  const prefill_sequence<T, View>* sequences;
  prefill_plan plan;
};

/// Block x is a tile of query rows of one sequence, the last first, as they see the most keys; y the key head. D: the head size.
/// A query that sees no key gets zeros.
template <class Mixer, class T, class View, int D>
struct prefill {
  using args = prefill_args<Mixer, T, View>;
  using element = typename View::element_type;
  static_assert(
      std::is_same_v<T, bf16> || std::is_same_v<T, f16>,
      "effinfer: attention::cuda::prefill runs on matrix instructions of bf16 or f16: activations must be one of them");
  static_assert(
      std::is_same_v<element, T> || std::is_same_v<element, kv_cache::int8> || std::is_same_v<element, fp8_e4m3>,
      "effinfer: attention::cuda::prefill needs keys and values in the type of the activations, int8 or fp8_e4m3");
  static_assert(D == 32 || D == 64 || D == 96 || D == 128 || D == 256);

  static constexpr int rows = prefill_rows<Mixer>(D), keys = prefill_keys<Mixer>(D);
  static constexpr int warps = 4, threads = warps * 32;
  static constexpr int strips = rows / warps / 16;  ///< of 16 rows, a warp
  static constexpr int pieces = D / 8;              ///< of 16 bytes, a row
  static constexpr int row_words = D / 2 + 4;  ///< 16 bytes more, so that rows below each other begin in other banks
  static constexpr int tile_words = 2 * keys * row_words;  ///< keys, then values
  /// Keys and values that aren't T come into shared memory as they are stored, in two stages, and go from there into one tile of T.
  static constexpr bool converts = !std::is_same_v<element, T>;
  using row = cache_row<element, D>;
  static constexpr int stage_pitch = converts ? row::words : row_words;
  static constexpr int stage_words = 2 * keys * stage_pitch;
  static constexpr int shared_bytes = (rows * row_words + 2 * stage_words + (converts ? tile_words : 0)) * 4;
  static_assert(shared_bytes <= 99 * 1024, "every device of compute capability 8.0 and above lets a block have this");

  /// Errors: `mismatch` (a plan for another head size), `limit` (65535 key heads).
  static execution::simt::grid plan(const args& a) {
    if (a.heads.head_size != D) {
      throw error(
          error_code::mismatch, "attention::cuda::prefill",
          "compiled for head_size = " + std::to_string(D) + ", the plan is for " + std::to_string(a.heads.head_size));
    }
    if (a.heads.kv_heads > 65535) {
      throw error(error_code::limit, "attention::cuda::prefill",
                  std::to_string(a.heads.kv_heads) + " key heads are more than a grid holds");
    }
    return {a.plan.tiles, a.heads.kv_heads, threads, shared_bytes};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int tile = a.plan.tiles - 1 - t.block(), kv_head = t.block_y();
    const prefill_sequence<T, View>& s = a.sequences[sequence_of(a, tile)];
    const int group = a.heads.heads / a.heads.kv_heads;
    const int first_row = (tile - s.first_tile) * rows, all_rows = static_cast<int>(s.query.rows) * group;
    const int past_row = first_row + rows < all_rows ? first_row + rows : all_rows;
    const int first_query = s.first_position + first_row / group;
    const int last_query = s.first_position + (past_row - 1) / group;

    const auto query = t.template shared<std::uint32_t>(rows * row_words);
    const auto stages = t.template shared<std::uint32_t>(2 * stage_words);
    const auto converted = t.template shared<std::uint32_t>(converts ? tile_words : 0);

    key_range visited{a.mixer.keys(first_query, first_query + 1).begin, a.mixer.keys(last_query, last_query + 1).end};
    if (visited.begin < s.cache.first) visited.begin = s.cache.first;
    if (visited.end > last_query + 1) visited.end = last_query + 1;
    // The first tile from position `key` on with something to see; past the end where there is none.
    const auto next_tile = [&](int key) {
      if constexpr (Mixer::hides_keys) {
        while (key < visited.end) {
          const int next = a.mixer.next_key({first_query, last_query + 1, key, visited.end});
          if (next >= visited.end) return next;
          key = next / keys * keys;
          const int low = key > visited.begin ? key : visited.begin;
          const int high = key + keys < visited.end ? key + keys : visited.end;
          if (a.mixer.any_visible({first_query, last_query + 1, low, high})) return key;
          key += keys;
        }
        return key;
      } else {
        return key / keys * keys;
      }
    };
    int key = next_tile(visited.begin);

    fetch_query(t, s, kv_head, group, first_row, past_row, query);
    if (key < visited.end) fetch(t, s.cache, kv_head, key, stages);
    t.commit();

    // What the thread's rows are: of each strip those of lane / 4 and 8 below it.
    const int warp_row = first_row + t.warp() * (strips * 16);
    const bool idle = warp_row >= past_row;
    const int warp_past = warp_row + strips * 16 < past_row ? warp_row + strips * 16 : past_row;
    const int warp_first_query = s.first_position + warp_row / group;
    const int warp_last_query = s.first_position + (warp_past - 1) / group;
    position at[strips][2];
    EFFINFER_UNROLL
    for (int i = 0; i < strips * 2; ++i) {
      const int r = warp_row + i * 8 + t.lane() / 4, row = r < past_row ? r : past_row - 1;
      at[i / 2][i % 2] = {s.first_position + row / group, 0, kv_head * group + row % group, kv_head, s.index};
    }

    float out[strips][D / 8][4] = {};
    float greatest[strips][2], sum[strips][2];  // sum: the thread's share
    EFFINFER_UNROLL
    for (int i = 0; i < strips * 2; ++i) {
      greatest[i / 2][i % 2] = minus_infinity;
      sum[i / 2][i % 2] = 0;
    }

    for (int stage = 0; key < visited.end; stage ^= 1) {
      t.template wait<0>();
      t.barrier();  // all see the tile, and are done with the other stage
      const int following = next_tile(key + keys);
      if (following < visited.end) fetch(t, s.cache, kv_head, following, stages + (stage ^ 1) * stage_words);
      t.commit();
      const auto stored = stages + stage * stage_words;
      if constexpr (converts) {
        convert(t, stored, converted);
        t.barrier();
      }
      if (!idle && key <= warp_last_query) {
        const auto key_tile = converts ? converted : stored;
        float score[strips][keys / 8][4] = {};
        multiply_query(t, query, key_tile, score);
        if constexpr (row::scaled) {
          EFFINFER_UNROLL
          for (int e = 0; e < keys / 4; ++e) {
            const float scale = row::scale(stored, e / 2 * 8 + t.lane() % 4 * 2 + e % 2);
            EFFINFER_UNROLL
            for (int i = 0; i < strips * 2; ++i) score[i / 2][e / 2][i % 2 * 2 + e % 2] *= scale;
          }
        }

        const tile_of_warp seen{warp_first_query, warp_last_query + 1, key, key + keys};
        const bool whole = key >= s.cache.first && key + keys <= warp_first_query + 1 &&
                           (!Mixer::hides_keys || a.mixer.all_visible(seen));
        apply_policy(t, a, s.cache.first, at, key, whole, score);
        weigh(t, unit(a), score, greatest, sum, out);
        multiply_values(t, key_tile + keys * row_words, score, out);
      }
      key = following;
    }
    t.template wait<0>();
    if (idle) return;

    EFFINFER_UNROLL
    for (int i = 0; i < strips * 2; ++i) {
      float all = sum[i / 2][i % 2];
      all += t.shuffle_xor(all, 1);
      all += t.shuffle_xor(all, 2);
      // What the mixer's start adds, in powers of two.
      const softmax_start start = a.mixer.start(at[i / 2][i % 2].head);
      const float own = greatest[i / 2][i % 2] * unit(a), other = start.max * log2_e;
      const float most = own > other ? own : other, shift = most == minus_infinity ? 0.0F : most;
      const float share = t.exp2(own - shift);
      float total = all * share;
      if (start.sum != 0.0F) total += start.sum * t.exp2(other - shift);
      const float factor = total != 0.0F ? share / total : 0.0F;
      const int r = warp_row + i * 8 + t.lane() / 4;
      if (r >= past_row) continue;
      T* const to = s.out.row(r / group) + std::ptrdiff_t{kv_head * group + r % group} * D + t.lane() % 4 * 2;
      EFFINFER_UNROLL
      for (int c = 0; c < D / 8; ++c) {
        store_pair(to + c * 8, pair(out[i / 2][c][i % 2 * 2] * factor, out[i / 2][c][i % 2 * 2 + 1] * factor));
      }
    }
  }

 private:
  using tile_of_warp = attention::tile;
  static constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
  static constexpr float log2_e = 1.44269504F;

  /// What the scores in the registers are multiplied with to be exponents of two. The scale is in it where no policy wants to see them.
  EFFINFER_HOST_DEVICE static float unit(const args& a) {
    return Mixer::changes_scores ? log2_e : a.heads.scale * log2_e;
  }

  EFFINFER_HOST_DEVICE static std::uint32_t pair(float low, float high) {
    return static_cast<std::uint32_t>(T(low).bits) | static_cast<std::uint32_t>(T(high).bits) << 16;
  }

  EFFINFER_HOST_DEVICE static void store_pair(T* to, std::uint32_t both) {
#if defined(__CUDA_ARCH__)
    *reinterpret_cast<std::uint32_t*>(to) = both;
#else
    __builtin_memcpy(to, &both, sizeof both);
#endif
  }

  /// The last sequence that begins at or before the tile and has one.
  EFFINFER_HOST_DEVICE static int sequence_of(const args& a, int tile) {
    int low = 0, high = a.plan.sequences;  // first_tile of low <= tile < that of high
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (a.sequences[middle].first_tile <= tile ? low : high) = middle;
    }
    return low;
  }

  /// Where piece q of a row stands, in words.
  EFFINFER_HOST_DEVICE static constexpr int place(int row, int q) { return row * row_words + q * 4; }

  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void fetch_query(Simt& t, const prefill_sequence<T, View>& s, int kv_head, int group,
                                               int first_row, int past_row, Shared to) {
    EFFINFER_KEEP_ROLLED
    for (int i = t.thread(); i < rows * pieces; i += threads) {
      const int r = first_row + i / pieces,
                row = r < past_row ? r : past_row - 1;  // past the end: any, it isn't stored
      const T* const from =
          s.query.row(row / group) + std::ptrdiff_t{kv_head * group + row % group} * D + i % pieces * 8;
      t.copy_async(to, place(i / pieces, i % pieces), reinterpret_cast<const std::uint32_t*>(from));
    }
  }

  /// Keys and values of the positions from `key` on, on their way to a stage. Those that the cache doesn't hold: any, their weight is 0.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void fetch(Simt& t, const View& cache, int kv_head, int key, Shared to) {
    fetch_rows<keys, D, threads, stage_pitch>(t, cache, kv_head, key, cache.first, cache.length, to,
                                              to + stage_words / 2);
  }

  /// A tile as it is stored becomes one of T. Keys without their scales, which scores are multiplied with: so they are exact.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void convert(Simt& t, Shared from, Shared to) {
    constexpr int words = D / row::per_word, pairs = row::per_word / 2;
    for (int i = t.thread(); i < 2 * keys * words; i += threads) {
      const int r = i / words, w = i % words;  // rows of keys, then of values
      const std::uint32_t word = from[r * stage_pitch + w];
      const float scale = r < keys ? 1.0F : row::scale(from, r);
      EFFINFER_UNROLL
      for (int e = 0; e < pairs; ++e) {
        to[r * row_words + w * pairs + e] =
            pair(row::number(word, 2 * e) * scale, row::number(word, 2 * e + 1) * scale);
      }
    }
  }

  /// score += q k^T.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void multiply_query(Simt& t, Shared query, Shared key_tile,
                                                  float (&score)[strips][keys / 8][4]) {
    const int lane = t.lane();
    EFFINFER_UNROLL
    for (int k = 0; k < D / 16; ++k) {
      std::uint32_t q[strips][4];
      EFFINFER_UNROLL
      for (int i = 0; i < strips; ++i)
        t.load_matrices(query, place((t.warp() * strips + i) * 16 + lane % 16, k * 2 + lane / 16), q[i]);
      EFFINFER_UNROLL
      for (int n = 0; n < keys / 16; ++n) {
        std::uint32_t b[2][2];
        load_two(t, key_tile, place(n * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2), b, std::false_type{});
        EFFINFER_UNROLL
        for (int i = 0; i < strips; ++i) {
          t.mma(score[i][n * 2], q[i], b[0], T{});
          t.mma(score[i][n * 2 + 1], q[i], b[1], T{});
        }
      }
    }
  }

  /// out += p v. The weights of two neighbouring tiles of 8 keys lie in the registers as the first operand wants them.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void multiply_values(Simt& t, Shared value_tile,
                                                   const float (&weight)[strips][keys / 8][4],
                                                   float (&out)[strips][D / 8][4]) {
    const int lane = t.lane();
    EFFINFER_UNROLL
    for (int k = 0; k < keys / 16; ++k) {
      std::uint32_t p[strips][4];
      EFFINFER_UNROLL
      for (int i = 0; i < strips * 4; ++i) {
        const float(&w)[4] = weight[i / 4][k * 2 + i % 4 / 2];
        p[i / 4][i % 4] = pair(w[i % 2 * 2], w[i % 2 * 2 + 1]);
      }
      EFFINFER_UNROLL
      for (int n = 0; n < D / 16; ++n) {
        std::uint32_t b[2][2];
        load_two(t, value_tile, place(k * 16 + lane % 16, n * 2 + lane / 16), b, std::true_type{});
        EFFINFER_UNROLL
        for (int i = 0; i < strips; ++i) {
          t.mma(out[i][n * 2], p[i], b[0], T{});
          t.mma(out[i][n * 2 + 1], p[i], b[1], T{});
        }
      }
    }
  }

  /// Two second operands of t.mma.
  template <class Simt, class Shared, bool Transposed>
  EFFINFER_HOST_DEVICE static void load_two(Simt& t, Shared from, int place, std::uint32_t (&b)[2][2],
                                            std::bool_constant<Transposed>) {
    std::uint32_t r[4];
    if constexpr (Transposed) {
      t.load_matrices_transposed(from, place, r);
    } else {
      t.load_matrices(from, place, r);
    }
    EFFINFER_UNROLL
    for (int i = 0; i < 4; ++i) b[i / 2][i % 2] = r[i];
  }

  /// Scores as the mixer wants them; minus infinity where a query doesn't see a key.
  template <class Simt>
  EFFINFER_HOST_DEVICE static void apply_policy(Simt& t, const args& a, int first_held, const position (&at)[strips][2],
                                                int key, bool whole, float (&score)[strips][keys / 8][4]) {
    if (!Mixer::changes_scores && whole) return;
    EFFINFER_UNROLL
    for (int i = 0; i < strips; ++i) {
      EFFINFER_UNROLL
      for (int n = 0; n < keys / 8; ++n) {
        // Keeps the policy's work on a few scores behind that on others, where there are no registers for all of it at once.
        if constexpr (Mixer::changes_scores && D > 128) t.warp_barrier();
        EFFINFER_UNROLL
        for (int e = 0; e < 4; ++e) {
          position p = at[i][e / 2];
          p.key = key + n * 8 + t.lane() % 4 * 2 + e % 2;
          float& one = score[i][n][e];
          if constexpr (Mixer::changes_scores) one = a.mixer.score(one * a.heads.scale, p);
          if (!whole) {
            bool seen = p.key <= p.query && p.key >= first_held;
            if constexpr (Mixer::hides_keys) seen = seen && a.mixer.visible(p);
            if (!seen) one = minus_infinity;
          }
        }
      }
    }
  }

  /// Scores become weights e^(score - greatest so far), and what was summed under an older greatest fades.
  template <class Simt>
  EFFINFER_HOST_DEVICE static void weigh(Simt& t, float unit, float (&score)[strips][keys / 8][4],
                                         float (&greatest)[strips][2], float (&sum)[strips][2],
                                         float (&out)[strips][D / 8][4]) {
    EFFINFER_UNROLL
    for (int i = 0; i < strips * 2; ++i) {
      const int strip = i / 2, half = i % 2;
      float most = greatest[strip][half];
      EFFINFER_UNROLL
      for (int n = 0; n < keys / 4; ++n) most = std::fmax(most, score[strip][n / 2][half * 2 + n % 2]);
      most = std::fmax(most, t.shuffle_xor(most, 1));
      most = std::fmax(most, t.shuffle_xor(most, 2));
      const float shift = most == minus_infinity ? 0.0F : most * unit;
      const float fade = t.exp2(std::fma(greatest[strip][half], unit, -shift));
      greatest[strip][half] = most;
      float added = 0;
      EFFINFER_UNROLL
      for (int n = 0; n < keys / 4; ++n) {
        float& one = score[strip][n / 2][half * 2 + n % 2];
        one = t.exp2(std::fma(one, unit, -shift));
        added += one;
      }
      sum[strip][half] = std::fma(sum[strip][half], fade, added);
      EFFINFER_UNROLL
      for (int c = 0; c < D / 4; ++c) out[strip][c / 2][half * 2 + c % 2] *= fade;
    }
  }
};

}  // namespace effinfer::inline v0::attention::cuda
