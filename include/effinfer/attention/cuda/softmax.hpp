#pragma once
// Softmax attention of one new token a sequence (decode) on a GPU. Keys are taken in splits of a fixed number of positions, each a
// block of its own, with all query heads that share the key head; a second kernel merges the splits in order. What a split
// covers doesn't depend on the batch, so a sequence's result doesn't either.
//
// A block's warps go each its own way through the split, a strip of 16 keys after the other: each fetches its own strips ahead and has a softmax
// of its own, so that none waits for another before the end. How strips are multiplied, and what is rounded: strip_products.hpp.
//
// Source: Dao et al., "Flash-Decoding for long-context inference" (2023); the online softmax of Milakov and Gimelshein (2018).

#include <effinfer/attention/cuda/cache_rows.hpp>
#include <effinfer/attention/cuda/query_rows.hpp>
#include <effinfer/attention/cuda/strip_products.hpp>
#include <effinfer/attention/policy.hpp>
#include <effinfer/attention/sequence.hpp>
#include <effinfer/attention/softmax.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

namespace effinfer::inline v0::attention::cuda {

/// Positions of a split: few, so that a short context is many blocks; of what multiplies as floats, slower, more.
template <class T, class Element>
inline constexpr int split_keys = on_matrix_instructions<T, Element> ? 256 : 1024;

/// Splits that hold the positions [begin, end).
template <int Keys>
EFFINFER_HOST_DEVICE constexpr int splits_of(int begin, int end) {
  return begin < end ? (end - 1) / Keys - begin / Keys + 1 : 0;
}

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

/// The softmax of one head over one split: the greatest score as an exponent of two, the sum of 2^(exponent - greatest), and the outputs
/// under that sum. In the workspace a part is head_size + 4 floats: outputs, greatest, sum, and two that fill 16 bytes.
EFFINFER_HOST_DEVICE constexpr int part_floats(int head_size) { return head_size + 4; }

/// Fills in what decode_sequence says that the plan does. Head sizes D of the kernels: 32, 64, 96, 128, 256.
/// Errors: `invalid_argument` (heads, a scale that isn't above 0, a cache that holds no token), `unsupported` (a head size, rows of keys or
/// values that aren't aligned to 16 bytes, of int8 to 4).
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
    const int splits = splits_of<split_keys<T, typename View::element_type>>(s.first_key, s.end_key);
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
                std::to_string(blocks_y) + " sequences are more than a grid holds", "call it in parts");
  }
}

/// One split of one sequence for the query heads of one key head, at most `rows` of them at a time: block x is the split, the key head and
/// the group of heads, so that blocks that run together read memory that lies together; y the sequence. D: the head size.
template <class Mixer, class T, class View, int D>
struct decode_split {
  using args = decode_args<Mixer, T, View>;
  using element = typename View::element_type;
  using row = cache_row<element, D>;
  using products = strip_products<T, element, D>;
  static constexpr int rows = 16;
  static constexpr int keys = split_keys<T, element>;
  static constexpr int stages = 2;                                      ///< of a warp, a strip each
  static constexpr int stage_words = 2 * strip_keys * products::pitch;  ///< keys, then values
  /// As many as leave room for three blocks on a multiprocessor, so that enough is on its way while some begin or end.
  static constexpr int fitting = 72 * 1024 / (stages * stage_words * 4);
  static constexpr int warps = fitting >= 4 ? 4 : fitting >= 2 ? 2 : 1;
  static constexpr int threads = warps * 32;
  static constexpr int result_pitch = part_floats(D);
  static_assert(rows * result_pitch <= stages * stage_words, "a warp's results take the place of its strips");

  static int chunks(const head_layout& h) { return (h.heads / h.kv_heads + rows - 1) / rows; }
  static execution::simt::grid plan(const args& a) {
    check_compiled(a.heads, D, a.plan.sequences);
    return {a.plan.most_splits * a.heads.kv_heads * chunks(a.heads), a.plan.sequences, threads,
            warps * stages * stage_words * 4};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int group = a.heads.heads / a.heads.kv_heads, chunks = (group + rows - 1) / rows;
    const int chunk = t.block() % chunks, kv_head = t.block() / chunks % a.heads.kv_heads;
    const int part = t.block() / chunks / a.heads.kv_heads;
    const decode_sequence<T, View>& s = a.sequences[t.block_y()];
    const int begin = s.first_key, end = s.end_key;
    const int split = (begin / keys + part) * keys;
    if (split >= end) return;
    const int past = split + keys < end ? split + keys : end;
    const int first_head = kv_head * group + chunk * rows;
    const int heads = group - chunk * rows < rows ? group - chunk * rows : rows;

    const auto all_strips = t.template shared<std::uint32_t>(warps * stages * stage_words);
    const auto own = all_strips + t.warp() * stages * stage_words;
    const int query_position = s.cache.length - 1;
    const auto next_strip = [&](int key) {
      for (; key < past; key += warps * strip_keys) {
        const int low = key > begin ? key : begin, high = key + strip_keys < past ? key + strip_keys : past;
        if (low < high && (!Mixer::hides_keys || a.mixer.any_visible({query_position, query_position + 1, low, high})))
          return key;
      }
      return key;
    };
    const auto fetch = [&](int key, int stage) {
      if (key < past) {
        detail::fetch_strip<D, products::pitch>(t, s.cache, kv_head, key, s.cache.first, s.cache.length,
                                                own + stage * stage_words);
      }
      t.commit();
    };
    int key = next_strip(split + t.warp() * strip_keys), ahead = key;
    EFFINFER_UNROLL
    for (int i = 0; i < stages - 1; ++i) {
      fetch(ahead, i);
      ahead = next_strip(ahead + warps * strip_keys);
    }

    position at[1][2];
    const T* row_of[2];
    EFFINFER_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int r = t.lane() / 4 + i * 8, head = first_head + (r < heads ? r : heads - 1);  // past the last: any
      at[0][i] = {query_position, 0, head, kv_head, s.index};
      row_of[i] = s.query + std::ptrdiff_t{head} * D;
    }
    const auto query = products::load_query(t, row_of);

    float out[1][D / 8][4] = {};
    float greatest[1][2] = {{detail::minus_infinity, detail::minus_infinity}}, sum[1][2] = {}, fade[1][2];
    const float unit = detail::score_unit<Mixer>(a.heads);
    for (int stage = 0; key < past; stage = stage + 1 < stages ? stage + 1 : 0) {
      t.template wait<stages - 2>();
      t.warp_barrier();  // all lanes see the strip, and are done with the one before it
      fetch(ahead, stage > 0 ? stage - 1 : stages - 1);
      ahead = next_strip(ahead + warps * strip_keys);
      const auto strip = own + stage * stage_words;
      float score[1][2][4] = {};
      products::multiply_query(t, query, strip, score);
      if constexpr (row::scaled) {
        EFFINFER_UNROLL
        for (int i = 0; i < 8; ++i)
          score[0][i / 4][i % 4] *= row::scale(strip, i / 4 * 8 + t.lane() % 4 * 2 + i % 2, products::pitch);
      }
      const bool whole =
          key >= s.cache.first && key + strip_keys <= query_position + 1 &&
          (!Mixer::hides_keys || a.mixer.all_visible({query_position, query_position + 1, key, key + strip_keys}));
      detail::apply_policy<(D > 128)>(t, a.mixer, a.heads, s.cache.first, at, key, whole, score);
      detail::weigh(t, unit, score, greatest, sum, fade);
      detail::fade_out(fade, out);
      products::multiply_values(t, strip + stage_words / 2, score, out);
      key = next_strip(key + warps * strip_keys);
    }
    t.template wait<0>();
    t.warp_barrier();

    // What the warps have, where their strips were; then merged, in their order.
    EFFINFER_UNROLL
    for (int i = 0; i < 2; ++i) {
      float all = sum[0][i];
      all += t.shuffle_xor(all, 1);
      all += t.shuffle_xor(all, 2);
      const int r = t.lane() / 4 + i * 8;
      if (r >= heads) continue;
      const auto result = own + r * result_pitch;
      EFFINFER_UNROLL
      for (int e = 0; e < D / 4; ++e)
        result[products::column(t.lane(), e / 2, e)] = std::bit_cast<std::uint32_t>(out[0][e / 2][i * 2 + e % 2]);
      if (t.lane() % 4 == 0) {
        result[D] = std::bit_cast<std::uint32_t>(greatest[0][i] * unit);
        result[D + 1] = std::bit_cast<std::uint32_t>(all);
      }
    }
    t.barrier();
    const auto number = [&](int warp, int r, int d) {
      return std::bit_cast<float>(
          static_cast<std::uint32_t>(all_strips[warp * stages * stage_words + r * result_pitch + d]));
    };
    float* const parts =
        parts_of(a, s) + (std::ptrdiff_t{part} * a.heads.heads + first_head) * std::ptrdiff_t{part_floats(D)};
    for (int i = t.thread(); i < heads * D; i += threads) {
      const int r = i / D, d = i % D;
      float most = number(0, r, D), total = 0, o = 0;
      EFFINFER_UNROLL
      for (int w = 1; w < warps; ++w) most = std::fmax(most, number(w, r, D));
      const float shift = most == detail::minus_infinity ? 0.0F : most;
      EFFINFER_UNROLL
      for (int w = 0; w < warps; ++w) {
        const float weight = t.exp2(number(w, r, D) - shift);
        total = std::fma(number(w, r, D + 1), weight, total);
        o = std::fma(number(w, r, d), weight, o);
      }
      float* const to = parts + r * part_floats(D);
      to[d] = o;
      if (d == 0) to[D] = most, to[D + 1] = total;
    }
  }
};

/// The parts of each head merged in an order that the number of its parts alone says, and what the mixer's `start` adds: block x is the head,
/// y the sequence. A query that sees no key gets zeros.
template <class Mixer, class T, class View, int D>
struct decode_merge {
  using args = decode_args<Mixer, T, View>;
  static constexpr int columns = D / 4;  ///< threads that read a part, 16 bytes each
  static constexpr int threads = D == 96 ? 192 : 256;
  static constexpr int readers = threads / columns;  ///< parts that are read at once
  static constexpr int warps = threads / 32;

  static execution::simt::grid plan(const args& a) {
    check_compiled(a.heads, D, a.plan.sequences);
    return {a.heads.heads, a.plan.sequences, threads,
            (readers * D + threads + warps) * static_cast<int>(sizeof(float))};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const decode_sequence<T, View>& s = a.sequences[t.block_y()];
    const int head = t.block();
    const int splits = splits_of<split_keys<T, typename View::element_type>>(s.first_key, s.end_key);
    const float* const first = parts_of(a, s) + std::ptrdiff_t{head} * part_floats(D);
    const std::ptrdiff_t stride = std::ptrdiff_t{a.heads.heads} * part_floats(D);
    const auto outputs = t.template shared<float>(readers * D), weights = t.template shared<float>(threads),
               scratch = t.template shared<float>(warps);

    const softmax_start start = a.mixer.start(head);
    const float other = start.max * detail::log2_e;
    float most = other;
    for (int i = t.thread(); i < splits; i += threads) most = std::fmax(most, first[i * stride + D]);
    most = execution::simt::warp_max(t, most);
    if (t.lane() == 0) scratch[t.warp()] = most;
    t.barrier();
    EFFINFER_UNROLL
    for (int w = 0; w < warps; ++w) most = std::fmax(most, static_cast<float>(scratch[w]));
    const float shift = most == detail::minus_infinity ? 0.0F : most;

    const int column = t.thread() % columns, reader = t.thread() / columns;
    float sum = 0, out[4] = {};
    for (int chunk = 0; chunk < splits; chunk += threads) {
      const int past = chunk + threads < splits ? threads : splits - chunk;
      if (t.thread() < past) {
        const float* const part = first + (chunk + t.thread()) * stride;
        const float weight = t.exp2(part[D] - shift);
        weights[t.thread()] = weight;
        sum = std::fma(part[D + 1], weight, sum);
      }
      t.barrier();
      constexpr int batch = 8;  // on their way at once
      for (int i = reader; i < past; i += batch * readers) {
        float part[batch][4] = {};
        EFFINFER_UNROLL
        for (int b = 0; b < batch; ++b) {
          const int p = i + b * readers;
          if (p < past) detail::load_floats(first + (chunk + p) * stride + column * 4, part[b]);
        }
        EFFINFER_UNROLL
        for (int b = 0; b < batch; ++b) {
          const int p = i + b * readers;
          const float weight = p < past ? static_cast<float>(weights[p]) : 0.0F;
          EFFINFER_UNROLL
          for (int e = 0; e < 4; ++e) out[e] = std::fma(part[b][e], weight, out[e]);
        }
      }
      t.barrier();
    }
    EFFINFER_UNROLL
    for (int e = 0; e < 4; ++e) outputs[reader * D + column * 4 + e] = out[e];
    float total = execution::simt::block_sum(t, sum, scratch);  // with a barrier: all see the outputs
    if (start.sum != 0.0F) total += start.sum * t.exp2(other - shift);
    const float factor = total != 0.0F ? 1 / total : 0.0F;
    for (int d = t.thread(); d < D; d += threads) {
      float o = 0;
      for (int r = 0; r < readers; ++r) o += outputs[r * D + d];
      s.out[head * D + d] = T(o * factor);
    }
  }
};

}  // namespace effinfer::inline v0::attention::cuda
