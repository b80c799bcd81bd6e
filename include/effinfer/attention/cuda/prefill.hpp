#pragma once
// Softmax attention of several new tokens a sequence (prefill, chunked prefill, a draft that is checked) on a GPU's matrix
// instructions: the form of FlashAttention-2, where a block of query rows stays while tiles of keys and values pass through shared
// memory, two stages deep, and scores, weights and outputs never leave the registers.
//
//   std::vector<prefill_sequence<bf16, view>> sequences = {{query, out, cache, first_position}, ...};    // views of device memory
//   const prefill_plan plan = plan_prefill(mixer, heads, std::span(sequences));                      // on the host, may throw
//   // copy `sequences` to device memory `on_device`, then
//   execution::simt::launch<prefill<Mixer, bf16, view, 128>>({mixer, heads, on_device, plan}, stream);   // of simt/launch.cuh
// prefill_wgmma.hpp is the form for Hopper, and starts the one that the plan names.
// All query heads of a key head are rows of one block, so few tokens of a grouped-query model fill a tile as well.
//
// Exact: a row's result depends on the sequence's keys, values and that query alone: chunked is whole, batched is alone.
//
// Source: Dao, "FlashAttention-2" (2023), algorithm 1 and section 3.3; Milakov and Gimelshein (2018) for the online softmax.

#include <effinfer/attention/cuda/cache_rows.hpp>
#include <effinfer/attention/cuda/query_rows.hpp>
#include <effinfer/attention/policy.hpp>
#include <effinfer/attention/sequence.hpp>
#include <effinfer/attention/softmax.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/hopper.hpp>
#include <effinfer/execution/simt/number_pairs.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::attention::cuda {

/// Which kernel a call runs: that of this file, on the matrix instructions of warps, or that of prefill_wgmma.hpp.
enum class prefill_form { mma, wgmma };

/// Where the second form may find keys and values by the copying engine: made by map_cache (prefill_wgmma.hpp), in device memory.
struct prefill_maps {
  execution::simt::tensor_map keys, values;
  const void *first_key, *first_value;
};

/// One sequence of a prefill call: T new tokens in front of its keys and values.
template <class T, kv_cache::cache_view View>
struct prefill_sequence {
  matrix_view<const T> query;  ///< [T, H*D], position embedding applied
  matrix_view<T> out;          ///< [T, H*D], may be the memory of `query`
  View cache;  ///< keys and values of all tokens, the T new ones included: cache.length = first_position + T
  int first_position = 0;              ///< of the first new token
  int index = 0;                       ///< what policies get as position::sequence
  const prefill_maps* maps = nullptr;  ///< of `cache`, in device memory; without them rows are copied by threads
  int first_tile = 0;                  ///< filled in by the plan: where its blocks begin
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

/// True where the second form exists; for float, int8 and fp8 caches and other head sizes there is the first.
template <class T, class View>
constexpr bool has_wgmma_form(int head_size) {
  return std::is_same_v<typename View::element_type, T> && sizeof(T) == 2 &&
         (head_size == 64 || head_size == 128 || head_size == 256);
}
inline constexpr int wgmma_prefill_rows = 128;

/// What a prefill call needs, known on the host before anything runs.
struct prefill_plan {
  int sequences = 0;
  int tiles = 0;                    ///< blocks of query rows of all sequences, for each key head
  std::size_t workspace_bytes = 0;  ///< of device memory: none
  prefill_form form = prefill_form::mma;
  int multiprocessors = 1;  ///< of the device
};

/// Fills in what prefill_sequence says that the plan does. Sequences without new tokens are allowed. Head sizes D of the kernels: 32,
/// 64, 96, 128, 256. `limits`: of the device; the form is `wgmma` where it has that and its shared memory, and the kernel exists, whatever the lengths.
/// Errors: `invalid_argument` (heads, a scale that isn't above 0), `mismatch` (shapes, a cache that doesn't end with the new tokens),
/// `unsupported` (a head size, rows that aren't 16-byte aligned), `limit` (2^31 rows or blocks, 65536 key heads).
template <class Mixer, class T, class View>
prefill_plan plan_prefill(const Mixer&, const head_layout& h, std::span<prefill_sequence<T, View>> sequences,
                          const execution::simt::device_limits& limits = {}) {
  const char* const who = "attention::cuda::plan_prefill";
  detail::check_heads(who, h);
  const std::ptrdiff_t columns = std::ptrdiff_t{h.heads} * h.head_size, group = h.heads / h.kv_heads;
  prefill_plan plan;
  plan.multiprocessors = limits.multiprocessors;
  if (limits.wgmma && limits.shared_bytes >= execution::simt::hopper_shared_bytes &&
      has_wgmma_form<T, View>(h.head_size))
    plan.form = prefill_form::wgmma;
  const int rows = plan.form == prefill_form::wgmma ? wgmma_prefill_rows : prefill_rows<Mixer>(h.head_size);
  constexpr std::ptrdiff_t most = std::numeric_limits<int>::max();
  if (h.kv_heads > 65535) {  // a grid's y
    throw error(error_code::limit, who, std::to_string(h.kv_heads) + " key heads are more than a grid holds");
  }
  std::ptrdiff_t tiles = 0;
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
    if (tiles > most / h.kv_heads)
      throw error(error_code::limit, who, "the tokens of all sequences are more than a grid holds");
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
  static_assert(shared_bytes <= execution::simt::least_shared_bytes);

  /// Error: `mismatch` (a plan for another head size or form).
  static execution::simt::grid plan(const args& a) {
    if (a.heads.head_size != D || a.plan.form != prefill_form::mma) {
      throw error(error_code::mismatch, "attention::cuda::prefill",
                  "compiled for head_size = " + std::to_string(D) + ", the plan is for " +
                      std::to_string(a.heads.head_size) +
                      (a.plan.form != prefill_form::mma ? " and another form" : ""));
    }
    return {a.plan.tiles, a.heads.kv_heads, threads, shared_bytes};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int tile = a.plan.tiles - 1 - t.block(), kv_head = t.block_y();
    const prefill_sequence<T, View>& s = a.sequences[detail::sequence_of(a, tile)];
    const detail::query_block block(a.mixer, a.heads, s, tile, rows);

    const auto query = t.template shared<std::uint32_t>(rows * row_words);
    const auto stages = t.template shared<std::uint32_t>(2 * stage_words);
    const auto converted = t.template shared<std::uint32_t>(converts ? tile_words : 0);

    int key = block.next_tile<keys>(a.mixer, block.visited.begin);

    fetch_query(t, s, kv_head, block, query);
    if (key < block.visited.end) fetch(t, s.cache, kv_head, key, stages);
    t.commit();

    const int warp_row = block.first_row + t.warp() * (strips * 16);
    const bool idle = warp_row >= block.past_row;
    const int warp_past = warp_row + strips * 16 < block.past_row ? warp_row + strips * 16 : block.past_row;
    const int warp_first_query = s.first_position + warp_row / block.group;
    const int warp_last_query = s.first_position + (warp_past - 1) / block.group;
    position at[strips][2];
    detail::locate_rows(t, block, s.first_position, s.index, kv_head, warp_row, at);

    float out[strips][D / 8][4] = {};
    float greatest[strips][2], sum[strips][2], fade[strips][2];
    EFFINFER_UNROLL
    for (int i = 0; i < strips * 2; ++i) {
      greatest[i / 2][i % 2] = detail::minus_infinity;
      sum[i / 2][i % 2] = 0;
    }

    const float unit = detail::score_unit<Mixer>(a.heads);
    for (int stage = 0; key < block.visited.end; stage ^= 1) {
      t.template wait<0>();
      t.barrier();  // all see the tile, and are done with the other stage
      const int following = block.next_tile<keys>(a.mixer, key + keys);
      if (following < block.visited.end) fetch(t, s.cache, kv_head, following, stages + (stage ^ 1) * stage_words);
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
        detail::apply_policy<(D > 128)>(t, a.mixer, a.heads, s.cache.first, at, key, whole, score);
        detail::weigh(t, unit, score, greatest, sum, fade);
        detail::fade_out(fade, out);
        multiply_values(t, key_tile + keys * row_words, score, out);
      }
      key = following;
    }
    t.template wait<0>();
    if (idle) return;

    EFFINFER_UNROLL
    for (int i = 0; i < strips * 2; ++i) {
      const float factor =
          detail::final_factor(t, a.mixer, unit, at[i / 2][i % 2].head, greatest[i / 2][i % 2], sum[i / 2][i % 2]);
      const int r = warp_row + i * 8 + t.lane() / 4;
      if (r >= block.past_row) continue;
      T* const to =
          s.out.row(r / block.group) + std::ptrdiff_t{kv_head * block.group + r % block.group} * D + t.lane() % 4 * 2;
      EFFINFER_UNROLL
      for (int c = 0; c < D / 8; ++c) {
        execution::simt::store_pair(to + c * 8, execution::simt::round_pair<T>(out[i / 2][c][i % 2 * 2] * factor,
                                                                               out[i / 2][c][i % 2 * 2 + 1] * factor));
      }
    }
  }

 private:
  using tile_of_warp = attention::tile;

  /// Where piece q of a row stands, in words.
  EFFINFER_HOST_DEVICE static constexpr int place(int row, int q) { return row * row_words + q * 4; }

  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void fetch_query(Simt& t, const prefill_sequence<T, View>& s, int kv_head,
                                               const detail::query_block& block, Shared to) {
    EFFINFER_KEEP_ROLLED
    for (int i = t.thread(); i < rows * pieces; i += threads) {
      const int r = block.first_row + i / pieces,
                row = r < block.past_row ? r : block.past_row - 1;  // past the end: any, it isn't stored
      const T* const from = s.query.row(row / block.group) +
                            std::ptrdiff_t{kv_head * block.group + row % block.group} * D + i % pieces * 8;
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
            execution::simt::round_pair<T>(row::number(word, 2 * e) * scale, row::number(word, 2 * e + 1) * scale);
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
        detail::load_two(t, key_tile, place(n * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2), b,
                         std::false_type{});
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
        p[i / 4][i % 4] = execution::simt::round_pair<T>(w[i % 2 * 2], w[i % 2 * 2 + 1]);
      }
      EFFINFER_UNROLL
      for (int n = 0; n < D / 16; ++n) {
        std::uint32_t b[2][2];
        detail::load_two(t, value_tile, place(k * 16 + lane % 16, n * 2 + lane / 16), b, std::true_type{});
        EFFINFER_UNROLL
        for (int i = 0; i < strips; ++i) {
          t.mma(out[i][n * 2], p[i], b[0], T{});
          t.mma(out[i][n * 2 + 1], p[i], b[1], T{});
        }
      }
    }
  }
};

}  // namespace effinfer::inline v0::attention::cuda
