#pragma once
// Softmax attention of one new token a sequence (decode) on a GPU. Keys are taken in splits of a fixed number of positions, each a
// block of its own, with all query heads that share the key head; a second kernel merges the splits in order. What a split
// covers doesn't depend on the batch, so a sequence's result doesn't either.
//
// Source: Dao et al., "Flash-Decoding for long-context inference" (2023); the online softmax of Milakov and Gimelshein (2018).

#include <effinfer/attention/cuda/cache_rows.hpp>
#include <effinfer/attention/policy.hpp>
#include <effinfer/attention/sequence.hpp>
#include <effinfer/attention/softmax.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

namespace effinfer::inline v0::attention::cuda {

/// Positions of a split.
inline constexpr int split_keys = 1024;

/// One sequence of a decode call. Shapes: query, out [H*D].
template <class T, kv_cache::cache_view View>
struct decode_sequence {
  const T* query = nullptr;
  T* out = nullptr;
  View cache;          ///< keys and values of all tokens, the new one included
  int first_part = 0;  ///< filled in by the plan: where its splits' results begin, in splits
  int first_key = 0;   ///< and the first and one past the last position that it visits
  int end_key = 0;
  int index = 0;           ///< what policies get as position::sequence
  float* parts = nullptr;  ///< device memory for its splits' results, where the call's isn't to be used
};

/// What a decode call needs, known on the host before anything runs.
struct decode_plan {
  int sequences = 0, most_splits = 0;
  std::size_t parts = 0;            ///< splits of all sequences
  std::size_t workspace_bytes = 0;  ///< of device memory, 16-byte aligned
};

/// The softmax of one head over one split: the greatest score, the sum of e^(score - greatest), and the outputs under that sum.
/// In the workspace a part is head_size + 2 floats: outputs, greatest, sum.
EFFINFER_HOST_DEVICE constexpr int part_floats(int head_size) { return head_size + 2; }

/// Fills in what decode_sequence says that the plan does. Head sizes D of the kernels: 32, 64, 96, 128, 256.
/// Errors: `invalid_argument` (heads, a cache that holds no token), `unsupported` (a head size, rows of keys or values
/// that aren't aligned to 16 bytes, of int8 to 4).
template <class Mixer, class T, class View>
decode_plan plan_decode(const Mixer& mixer, const head_layout& h, std::span<decode_sequence<T, View>> sequences) {
  const char* const who = "attention::cuda::plan_decode";
  detail::check_heads(who, h);
  decode_plan plan;
  plan.sequences = static_cast<int>(sequences.size());
  for (decode_sequence<T, View>& s : sequences) {
    const std::string which = "sequence " + std::to_string(&s - sequences.data()) + ": ";
    if (s.cache.length < 1) throw error(error_code::invalid_argument, who, which + "the cache holds no token");
    detail::check_rows(who, which, s.cache, h.kv_heads);
    const int query = s.cache.length - 1;
    const key_range k = mixer.keys(query, query + 1);
    s.first_key = k.begin > s.cache.first ? k.begin : s.cache.first;
    s.end_key = k.end < query + 1 ? k.end : query + 1;
    s.first_part = static_cast<int>(plan.parts);
    const int splits = s.first_key < s.end_key ? (s.end_key - 1) / split_keys - s.first_key / split_keys + 1 : 0;
    plan.parts += static_cast<std::size_t>(splits);
    plan.most_splits = plan.most_splits > splits ? plan.most_splits : splits;
  }
  plan.workspace_bytes = plan.parts * static_cast<std::size_t>(h.heads) *
                         static_cast<std::size_t>(part_floats(h.head_size)) * sizeof(float);
  return plan;
}

/// What both kernels are told. `sequences` and `parts` lie in device memory.
template <class Mixer, class T, class View>
struct decode_args {
  Mixer mixer;
  head_layout heads;
  const decode_sequence<T, View>* sequences;
  decode_plan plan;
  float* parts;  ///< [plan.parts, H, part_floats(D)]
};

/// Where the results of a sequence's splits begin.
template <class Mixer, class T, class View>
EFFINFER_HOST_DEVICE float* parts_of(const decode_args<Mixer, T, View>& a, const decode_sequence<T, View>& s) {
  if (s.parts != nullptr) return s.parts;
  return a.parts + std::ptrdiff_t{s.first_part} * a.heads.heads * part_floats(a.heads.head_size);
}

/// Errors: `mismatch`: a kernel compiled for another head size; `limit`: more blocks along y than the 65535 of a grid.
inline void check_compiled(const head_layout& h, int compiled, std::ptrdiff_t blocks_y) {
  if (h.head_size != compiled) {
    throw error(
        error_code::mismatch, "attention::cuda: decode kernel",
        "compiled for head_size = " + std::to_string(compiled) + ", the plan is for " + std::to_string(h.head_size));
  }
  if (blocks_y > 65535) {
    throw error(error_code::limit, "attention::cuda: decode kernel",
                std::to_string(blocks_y) + " sequences times heads are more than a grid holds", "call it in parts");
  }
}

/// One split of one sequence for the query heads of one key head, at most Heads of them at a time: block x is the split, y the
/// sequence, key head and group of heads. D: the head size.
template <class Mixer, class T, class View, int D, int Heads = 8>
struct decode_split {
  using args = decode_args<Mixer, T, View>;
  using element = typename View::element_type;
  using row = cache_row<element, D>;
  static constexpr int threads = 128;
  /// Keys of a tile: 32 where two stages of 64 would take what keeps a second block off the multiprocessor, or more than there is.
  static constexpr int tile = 2 * 2 * 64 * row::pitch * 4 <= 72 * 1024 ? 64 : 32;
  static constexpr int tile_words = tile * row::pitch;

  static int groups(const args& a) { return (a.heads.heads / a.heads.kv_heads + Heads - 1) / Heads; }
  static execution::simt::grid plan(const args& a) {
    check_compiled(a.heads, D, std::ptrdiff_t{a.plan.sequences} * a.heads.kv_heads * groups(a));
    constexpr int tiles = 2 * 2 * tile_words * 4;  // keys and values, two stages
    constexpr int floats = Heads * D + Heads * tile + 3 * Heads;
    return {a.plan.most_splits, a.plan.sequences * a.heads.kv_heads * groups(a), threads,
            tiles + floats * static_cast<int>(sizeof(float)) + 64};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int group = a.heads.heads / a.heads.kv_heads, chunks = (group + Heads - 1) / Heads;
    const int chunk = t.block_y() % chunks, kv_head = t.block_y() / chunks % a.heads.kv_heads;
    const decode_sequence<T, View>& s = a.sequences[t.block_y() / chunks / a.heads.kv_heads];
    const int split = s.first_key / split_keys + t.block();
    const int begin = s.first_key > split * split_keys ? s.first_key : split * split_keys;
    const int end = s.end_key < (split + 1) * split_keys ? s.end_key : (split + 1) * split_keys;
    if (begin >= end) return;
    const int first_head = kv_head * group + chunk * Heads;
    const int heads = group - chunk * Heads < Heads ? group - chunk * Heads : Heads;
    const int query_position = s.cache.length - 1;

    const auto keys = t.template shared<std::uint32_t>(2 * tile_words),
               values = t.template shared<std::uint32_t>(2 * tile_words);
    const auto query = t.template shared<float>(Heads * D);
    const auto score = t.template shared<float>(Heads * tile);
    const auto greatest = t.template shared<float>(Heads), sum = t.template shared<float>(Heads);
    const auto fade = t.template shared<float>(Heads);

    const int first_tile = begin / tile, last_tile = (end + tile - 1) / tile;
    fetch_rows<tile, D, threads, row::pitch>(t, s.cache, kv_head, first_tile * tile, begin, end, keys, values);
    t.commit();
    for (int i = t.thread(); i < heads * D; i += threads)
      query[i] = static_cast<float>(s.query[first_head * D + i]) * a.heads.scale;
    if (t.thread() < heads) {
      greatest[t.thread()] = minus_infinity;
      sum[t.thread()] = 0.0F;
    }
    constexpr int columns = (D + threads - 1) / threads;  // of the output, a thread
    float out[columns][Heads] = {};

    for (int n = first_tile; n < last_tile; ++n) {
      const int stage = (n - first_tile) % 2 * tile_words;
      const auto stage_keys = keys + stage, stage_values = values + stage;
      if (n + 1 < last_tile) {
        const int other = tile_words - stage;
        fetch_rows<tile, D, threads, row::pitch>(t, s.cache, kv_head, (n + 1) * tile, begin, end, keys + other,
                                                 values + other);
        t.commit();
        t.template wait<1>();
      } else {
        t.template wait<0>();
      }
      t.barrier();
      const int low = begin > n * tile ? begin - n * tile : 0, high = end - n * tile < tile ? end - n * tile : tile;

      // Two or four threads a key, each its share of the numbers.
      constexpr int sharing = threads / tile, share = D / sharing;
      const int key = t.thread() / sharing, first = t.thread() % sharing * share;
      float dot[Heads] = {}, key_scale = 1;
      if (key >= low && key < high) {
        for (int w = 0; w < share / row::per_word; ++w) {
          const std::uint32_t word = stage_keys[key * row::pitch + first / row::per_word + w];
          EFFINFER_UNROLL
          for (int i = 0; i < row::per_word; ++i) {
            const float k = row::number(word, i);
            EFFINFER_UNROLL
            for (int h = 0; h < Heads; ++h) {
              if (h < heads) dot[h] += query[h * D + first + w * row::per_word + i] * k;
            }
          }
        }
        key_scale = row::scale(stage_keys, key);
      }
      for (int h = 0; h < Heads; ++h) {
        if (h >= heads) break;
        float all = dot[h];
        for (int mask = 1; mask < sharing; mask *= 2) all += t.shuffle_xor(all, mask);
        all *= key_scale;
        if (first != 0) continue;
        const position p{query_position, n * tile + key, first_head + h, kv_head, s.index};
        const bool seen = key >= low && key < high && a.mixer.visible(p);
        score[h * tile + key] = seen ? a.mixer.score(all, p) : minus_infinity;
      }
      t.barrier();

      // A warp a head: its greatest score so far, the weights, their sum.
      for (int h = t.warp(); h < heads; h += threads / 32) {
        const float old = greatest[h];
        float now = minus_infinity, weight = 0;
        EFFINFER_UNROLL
        for (int k = 0; k < tile; k += 32) now = std::fmax(now, static_cast<float>(score[h * tile + k + t.lane()]));
        now = std::fmax(execution::simt::warp_max(t, now), old);
        const float shift = now == minus_infinity ? 0.0F : now;
        EFFINFER_UNROLL
        for (int k = 0; k < tile; k += 32) {
          const float one = std::exp(score[h * tile + k + t.lane()] - shift);
          score[h * tile + k + t.lane()] = one;
          weight += one;
        }
        const float added = execution::simt::warp_sum(t, weight);
        t.warp_barrier();  // all have read greatest[h]
        if (t.lane() == 0) {
          const float f = std::exp(old - shift);
          fade[h] = f;
          greatest[h] = now;
          sum[h] = static_cast<float>(sum[h]) * f + added;
        }
      }
      t.barrier();

      for (int c = 0; c < columns; ++c) {
        const int d = c * threads + t.thread();
        if (d >= D) break;
        for (int h = 0; h < Heads; ++h) {
          if (h < heads) out[c][h] *= fade[h];
        }
        for (int k = low; k < high; ++k) {
          const float v = row::number(stage_values[k * row::pitch + d / row::per_word], d % row::per_word) *
                          row::scale(stage_values, k);
          for (int h = 0; h < Heads; ++h) {
            if (h < heads) out[c][h] += score[h * tile + k] * v;
          }
        }
      }
      t.barrier();  // before this stage is filled again
    }

    for (int h = 0; h < Heads; ++h) {
      if (h >= heads) break;
      float* const part =
          parts_of(a, s) + (std::ptrdiff_t{t.block()} * a.heads.heads + first_head + h) * part_floats(D);
      for (int c = 0; c < columns; ++c) {
        const int d = c * threads + t.thread();
        if (d < D) part[d] = out[c][h];
      }
      if (t.thread() == 0) {
        part[D] = greatest[h];
        part[D + 1] = sum[h];
      }
    }
  }

 private:
  static constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
};

/// The parts of each head merged in rising order, and what the mixer's `start` adds: block x is the head, y the sequence.
/// A query that sees no key gets zeros.
template <class Mixer, class T, class View, int D>
struct decode_merge {
  using args = decode_args<Mixer, T, View>;
  static constexpr int threads = D < 128 ? (D + 31) / 32 * 32 : 128;

  static execution::simt::grid plan(const args& a) {
    check_compiled(a.heads, D, a.plan.sequences);
    return {a.heads.heads, a.plan.sequences, threads, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const decode_sequence<T, View>& s = a.sequences[t.block_y()];
    const int head = t.block();
    const int splits = s.first_key < s.end_key ? (s.end_key - 1) / split_keys - s.first_key / split_keys + 1 : 0;
    const float* const first = parts_of(a, s) + std::ptrdiff_t{head} * part_floats(D);
    const std::ptrdiff_t stride = std::ptrdiff_t{a.heads.heads} * part_floats(D);
    const softmax_start start = a.mixer.start(head);
    float greatest = start.max;
    for (int i = 0; i < splits; ++i) {
      const float one = first[i * stride + D];
      greatest = one > greatest ? one : greatest;
    }
    const bool any = greatest != -std::numeric_limits<float>::infinity();
    float sum = any ? start.sum * std::exp(start.max - greatest) : 0.0F;
    for (int i = 0; any && i < splits; ++i)
      sum += first[i * stride + D + 1] * std::exp(first[i * stride + D] - greatest);
    for (int d = t.thread(); d < D; d += threads) {
      float o = 0;
      for (int i = 0; any && i < splits; ++i) o += first[i * stride + d] * std::exp(first[i * stride + D] - greatest);
      s.out[head * D + d] = T(sum != 0.0F ? o / sum : 0.0F);
    }
  }
};

}  // namespace effinfer::inline v0::attention::cuda
