#pragma once
// Softmax attention of one new token a sequence (decode) on a GPU. Keys are taken in splits of a fixed number of positions, each a
// block of its own, with all query heads that share the key head; the block that ends last merges them in order. What a split
// covers depends on the sequence alone, so its result does too.
//
// A block's warps go each its own way through the split, a strip of keys after the other: each fetches its next keys while it weighs the
// last ones, and has a softmax of its own, so that none waits for another before the end. How strips are multiplied, and what is rounded:
// strip_products.hpp.
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
#include <effinfer/execution/simt/pack.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::attention::cuda {

/// Positions of a split of a query that sees `visible` of them. Few where there are few, so that they are many blocks; then twice as many, as
/// beginning and ending a block costs time too; and so many that there are never more than most_splits (and one, where the first begins
/// inside a split). Of what multiplies as floats, which is slower, more.
inline constexpr int most_splits = 128;
template <class T, class Element>
inline constexpr int least_split_keys = on_matrix_instructions<T, Element> ? 256 : 1024;
template <class T, class Element>
constexpr int split_keys(int visible) {
  constexpr int least = least_split_keys<T, Element>;
  int keys = visible <= 4 * least ? least : 2 * least;
  while (visible > keys * std::ptrdiff_t{most_splits}) keys *= 2;
  return keys;
}

/// Splits of so many positions that hold the positions [begin, end); of none, an empty one.
constexpr int splits_of(int begin, int end, int keys) { return begin < end ? (end - 1) / keys - begin / keys + 1 : 1; }
/// Parts that are merged at once, and what that leaves of many.
inline constexpr int merged_at_once = 16;
EFFINFER_HOST_DEVICE constexpr int merged(int parts) { return (parts + merged_at_once - 1) / merged_at_once; }
/// All parts of a query: of its splits, and where those are too many to be merged at once, what they become on the way.
constexpr int parts_of(int splits) { return splits > merged_at_once ? splits + merged(splits) : splits; }
/// And the most of a query that sees at most `visible` positions.
template <class T, class Element>
constexpr int parts_at_most(int visible) {
  constexpr int least = least_split_keys<T, Element>;
  const auto splits = [](int positions, int keys) { return (positions - 1) / keys + 1; };
  const int few = splits(visible < 4 * least ? visible : 4 * least, least), many = splits(visible, 2 * least);
  const int most = few > many ? few : many;
  return parts_of((most < most_splits ? most : most_splits) + 1);
}
static_assert(merged(merged(most_splits + 1)) == 1, "two rounds merge all");
/// Counters of a head: of each first round, and of the second.
inline constexpr int arrivals_of_head = merged(most_splits + 1) + 1;

/// One sequence of a decode call. Shapes: query, out [H*D].
template <class T, kv_cache::cache_view View>
struct decode_sequence {
  const T* query = nullptr;
  T* out = nullptr;
  View cache;          ///< keys and values of all tokens, the new one included
  int first_part = 0;  ///< filled in by the plan: where its parts begin
  int first_key = 0;   ///< and the first and one past the last position that it visits
  int end_key = 0;
  int split_keys = 1;   ///< and the positions of a split
  int first_split = 0;  ///< and the first of them, and how many
  int splits = 0;
  int index = 0;  ///< what policies get as position::sequence
  // Device memory of its own, where the call's workspace isn't to be used:
  float* parts = nullptr;        ///< [parts_of(splits), H, part_floats(D)]
  unsigned* arrivals = nullptr;  ///< [H, arrivals_of_head], 0 before their first use, and so after each
};

/// What a decode call needs, known on the host before anything runs.
struct decode_plan {
  int sequences = 0;
  int most_splits = 1;              ///< of a sequence; a plan of more is as good
  std::size_t parts = 0;            ///< of all sequences
  std::size_t arrival_bytes = 0;    ///< of the workspace's beginning: 0 before their first use, and so after each
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
    s.split_keys = split_keys<T, typename View::element_type>(s.end_key - s.first_key);
    s.first_split = s.first_key / s.split_keys;
    s.splits = splits_of(s.first_key, s.end_key, s.split_keys);
    plan.parts += static_cast<std::size_t>(parts_of(s.splits));
    plan.most_splits = plan.most_splits > s.splits ? plan.most_splits : s.splits;
  }
  plan.arrival_bytes =
      (sequences.size() * static_cast<std::size_t>(h.heads * arrivals_of_head) * sizeof(unsigned) + 15) / 16 * 16;
  plan.workspace_bytes = plan.arrival_bytes + plan.parts * static_cast<std::size_t>(h.heads) *
                                                  static_cast<std::size_t>(part_floats(h.head_size)) * sizeof(float);
  return plan;
}

/// What the kernel is told. `sequences` and `workspace` lie in device memory.
template <class Mixer, class T, class View>
struct decode_args {
  Mixer mixer;
  head_layout heads;
  const decode_sequence<T, View>* sequences;
  decode_plan plan;
  /// Of plan.workspace_bytes: arrivals [sequences, H, arrivals_of_head], then parts [plan.parts, H, part_floats(D)].
  std::byte* workspace;
};

/// One split of one sequence for the query heads of one key head, at most `rows` of them at a time: block x is the split, the key head and
/// the group of heads, y the sequence. The block that ends last merges the parts, in an order that depends on their number alone, with what
/// the mixer's `start` adds. A query that sees no key gets zeros. D: the head size.
template <class Mixer, class T, class View, int D>
struct decode {
  using args = decode_args<Mixer, T, View>;
  using element = typename View::element_type;
  using row = cache_row<element, D>;
  using products = strip_products<T, element, D>;
  static constexpr int rows = 16;
  static constexpr int half_words = strip_keys<D> * products::pitch;  ///< of a strip: keys, then values
  static constexpr int result_pitch = part_floats(D);                 ///< of a warp's results, which then stand there
  /// As many warps, and strips of each on their way, as leave room for three blocks on a multiprocessor, so that enough is on its way while some
  /// begin or end.
  static constexpr int fitting = 72 * 1024 / (2 * half_words * 4);
  static constexpr int warps = fitting >= 4 ? 4 : fitting >= 2 ? 2 : 1;
  static constexpr int stages = D <= 128 && fitting >= 2 * warps ? 2 : 1;
  static constexpr int strip_words = stages * 2 * half_words;
  static constexpr int warp_words = strip_words > rows* result_pitch ? strip_words : rows* result_pitch;
  static constexpr int threads = warps * 32;
  static constexpr int shared_bytes = (warps * warp_words + 4) * 4;
  static_assert(shared_bytes <= execution::simt::least_shared_bytes);

  static int chunks(const head_layout& h) { return (h.heads / h.kv_heads + rows - 1) / rows; }
  /// Errors: `mismatch`: a plan for another head size; `limit`: more sequences than the 65535 of a grid.
  static execution::simt::grid plan(const args& a) {
    if (a.heads.head_size != D) {
      throw error(
          error_code::mismatch, "attention::cuda::decode",
          "compiled for head_size = " + std::to_string(D) + ", the plan is for " + std::to_string(a.heads.head_size));
    }
    if (a.plan.sequences > 65535) {
      throw error(error_code::limit, "attention::cuda::decode",
                  std::to_string(a.plan.sequences) + " sequences are more than a grid holds", "call it in parts");
    }
    return {a.plan.most_splits * a.heads.kv_heads * chunks(a.heads), a.plan.sequences, threads, shared_bytes};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const decode_sequence<T, View>& s = a.sequences[t.block_y()];
    const int group = a.heads.heads / a.heads.kv_heads, chunks = (group + rows - 1) / rows;
    const int of_head = t.block() / a.heads.kv_heads, kv_head = t.block() % a.heads.kv_heads;
    const int part = chunks > 1 ? of_head / chunks : of_head, chunk = chunks > 1 ? of_head % chunks : 0;
    if (part >= s.splits) return;
    const int first_head = kv_head * group + chunk * rows;
    const int heads = group - chunk * rows < rows ? group - chunk * rows : rows;
    const auto memory = t.template shared<std::uint32_t>(warps * warp_words);
    const auto is_last = t.template shared<std::uint32_t>(4);

    read_split(t, a, s, part, kv_head, first_head, heads, memory + t.warp() * warp_words);
    t.barrier();
    float* const parts = (s.parts != nullptr ? s.parts
                                             : reinterpret_cast<float*>(a.workspace + a.plan.arrival_bytes) +
                                                   std::ptrdiff_t{s.first_part} * a.heads.heads * part_floats(D)) +
                         std::ptrdiff_t{first_head} * part_floats(D);
    unsigned* const arrivals =
        (s.arrivals != nullptr ? s.arrivals
                               : reinterpret_cast<unsigned*>(a.workspace) +
                                     std::ptrdiff_t{t.block_y()} * a.heads.heads * arrivals_of_head) +
        first_head * arrivals_of_head;
    const std::ptrdiff_t stride = std::ptrdiff_t{a.heads.heads} * part_floats(D);
    join_warps(t, heads, memory, parts + part * stride);

    // In rounds, in each of which the block goes on that is the last to come. Both rounds' groups are the same whoever that is.
    T* const to = s.out + std::ptrdiff_t{first_head} * D;
    const int here = part / merged_at_once * merged_at_once;
    const int beside = s.splits - here < merged_at_once ? s.splits - here : merged_at_once;
    if (!is_last_of(t, beside, arrivals + here / merged_at_once, is_last)) return;
    if (s.splits <= merged_at_once) {
      merge(t, heads, parts, stride, beside, [&](int r, int d, const float(&out)[4], float greatest, float sum) {
        finish(t, a, first_head + r, greatest, sum, out, to + r * D + d);
      });
      return;
    }
    float* const second = parts + s.splits * stride;
    merge(t, heads, parts + here * stride, stride, beside,
          [&](int r, int d, const float(&out)[4], float greatest, float sum) {
            float* const head = second + here / merged_at_once * stride + r * part_floats(D);
            EFFINFER_UNROLL
            for (int e = 0; e < 4; ++e) head[d + e] = out[e];
            if (d == 0) head[D] = greatest, head[D + 1] = sum;
          });
    if (!is_last_of(t, merged(s.splits), arrivals + arrivals_of_head - 1, is_last)) return;
    merge(t, heads, second, stride, merged(s.splits),
          [&](int r, int d, const float(&out)[4], float greatest, float sum) {
            finish(t, a, first_head + r, greatest, sum, out, to + r * D + d);
          });
  }

 private:
  static constexpr float minus_infinity = detail::minus_infinity;
  template <class Shared>
  EFFINFER_HOST_DEVICE static float number(const Shared& memory, int i) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(memory[i]));
  }
  EFFINFER_HOST_DEVICE static std::uint32_t bits(float v) { return std::bit_cast<std::uint32_t>(v); }

  /// What a warp finds in its strips of a split, left in `own`, its memory: [rows, result_pitch].
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void read_split(Simt& t, const args& a, const decode_sequence<T, View>& s, int part,
                                              int kv_head, int first_head, int heads, Shared own) {
    const int begin = s.first_key, split = (s.first_split + part) * s.split_keys;
    const int past = split + s.split_keys < s.end_key ? split + s.split_keys : s.end_key;
    const int query_position = s.cache.length - 1;
    const auto next_strip = [&](int key) {
      for (; key < past; key += warps * strip_keys<D>) {
        const int low = key > begin ? key : begin, high = key + strip_keys<D> < past ? key + strip_keys<D> : past;
        if (low < high && (!Mixer::hides_keys || a.mixer.any_visible({query_position, query_position + 1, low, high})))
          return key;
      }
      return key;
    };
    const auto fetch = [&](auto values, int key, int stage) {
      constexpr bool of_values = decltype(values)::value;
      if (key < past) {
        detail::fetch_strip<of_values, D, products::pitch>(t, s.cache, kv_head, key, s.cache.first, s.cache.length,
                                                           own + (stage * 2 + (of_values ? 1 : 0)) * half_words);
      }
      t.commit();
    };
    int key = next_strip(split + t.warp() * strip_keys<D>), ahead = key;
    EFFINFER_UNROLL
    for (int i = 0; i < stages; ++i) {
      fetch(std::false_type{}, ahead, i);
      fetch(std::true_type{}, ahead, i);
      ahead = next_strip(ahead + warps * strip_keys<D>);
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
    float greatest[1][2] = {{minus_infinity, minus_infinity}}, sum[1][2] = {}, fade[1][2];
    const float unit = detail::score_unit<Mixer>(a.heads);
    for (int stage = 0; key < past; stage = stage + 1 < stages ? stage + 1 : 0) {
      const auto strip = own + stage * 2 * half_words;
      strip_tile<D> score = {};
      t.template wait<2 * stages - 1>();
      t.warp_barrier();  // all lanes see the keys
      products::multiply_query(t, query, strip, score);
      if constexpr (row::scaled) {
        EFFINFER_UNROLL
        for (int i = 0; i < strip_keys<D> / 2; ++i)
          score[0][i / 4][i % 4] *= row::scale(strip, i / 4 * 8 + t.lane() % 4 * 2 + i % 2);
      }
      t.warp_barrier();  // and are done with them
      fetch(std::false_type{}, ahead, stage);
      const bool whole =
          key >= s.cache.first && key + strip_keys<D> <= query_position + 1 &&
          (!Mixer::hides_keys || a.mixer.all_visible({query_position, query_position + 1, key, key + strip_keys<D>}));
      detail::apply_policy<(D > 128)>(t, a.mixer, a.heads, s.cache.first, at, key, whole, score);
      detail::weigh(t, unit, score, greatest, sum, fade);
      detail::fade_out(fade, out);
      t.template wait<2 * stages - 1>();
      t.warp_barrier();
      products::multiply_values(t, strip + half_words, score, out);
      t.warp_barrier();
      fetch(std::true_type{}, ahead, stage);
      ahead = next_strip(ahead + warps * strip_keys<D>);
      key = next_strip(key + warps * strip_keys<D>);
    }
    t.template wait<0>();
    t.warp_barrier();

    EFFINFER_UNROLL
    for (int i = 0; i < 2; ++i) {
      float all = sum[0][i];
      all += t.shuffle_xor(all, 1);
      all += t.shuffle_xor(all, 2);
      const int r = t.lane() / 4 + i * 8;
      if (r >= heads) continue;
      const auto result = own + r * result_pitch;
      EFFINFER_UNROLL
      for (int e = 0; e < D / 4; ++e) result[products::column(t.lane(), e / 2, e)] = bits(out[0][e / 2][i * 2 + e % 2]);
      if (t.lane() % 4 == 0) {
        result[D] = bits(greatest[0][i] * unit);
        result[D + 1] = bits(all);
      }
    }
  }

  /// The warps' results as one part, [rows, part_floats(D)].
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void join_warps(Simt& t, int heads, Shared memory, float* to) {
    for (int i = t.thread(); i < heads * D; i += threads) {
      const int r = i / D, d = i % D;
      const auto of = [&](int warp, int column) {
        return number(memory, warp * warp_words + r * result_pitch + column);
      };
      float most = of(0, D), sum = 0, out = 0;
      EFFINFER_UNROLL
      for (int w = 1; w < warps; ++w) most = std::fmax(most, of(w, D));
      const float shift = most == minus_infinity ? 0.0F : most;
      EFFINFER_UNROLL
      for (int w = 0; w < warps; ++w) {
        const float weight = t.exp2(of(w, D) - shift);
        sum = std::fma(of(w, D + 1), weight, sum);
        out = std::fma(of(w, d), weight, out);
      }
      float* const head = to + r * part_floats(D);
      head[d] = out;
      if (d == 0) head[D] = most, head[D + 1] = sum;
    }
  }

  /// True in the one of `count` blocks that is the last to come here; it sees what the others wrote. All threads call it.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static bool is_last_of(Simt& t, int count, unsigned* arrivals, Shared is_last) {
    t.barrier();
    if (count == 1) return true;
    if (t.thread() == 0) {
      t.fence();
      const bool last = t.atomic_add(arrivals, 1U) + 1 == static_cast<unsigned>(count);
      if (last) *arrivals = 0;
      t.fence();
      is_last[0] = last ? 1 : 0;
    }
    t.barrier();
    return is_last[0] != 0;
  }

  /// At most merged_at_once parts, `stride` floats from one to the next, of each of `heads` heads become one: a warp calls
  /// then(head, d, outputs d ... d + 3, greatest, sum).
  template <class Simt, class Then>
  EFFINFER_HOST_DEVICE static void merge(Simt& t, int heads, const float* parts, std::ptrdiff_t stride, int count,
                                         const Then& then) {
    constexpr int pieces = (D + 127) / 128;  // of a head
    for (int i = t.warp(); i < heads * pieces; i += warps) {
      const int r = i / pieces, d = i % pieces * 128 + t.lane() * 4;
      const float* const head = parts + r * part_floats(D);
      execution::simt::pack<float, 4> outputs[merged_at_once] = {};
      EFFINFER_UNROLL
      for (int p = 0; p < merged_at_once; ++p) {
        if (p < count && d < D) outputs[p] = execution::simt::load_pack<float, 4>(head + p * stride + d);
      }
      const bool has_one = t.lane() < count;
      const float greatest = has_one ? head[t.lane() * stride + D] : minus_infinity;
      const float most = execution::simt::warp_max(t, greatest);
      const float weight = t.exp2(greatest - (most == minus_infinity ? 0.0F : most));
      const float sum = execution::simt::warp_sum(t, has_one ? head[t.lane() * stride + D + 1] * weight : 0.0F);
      float out[4] = {};
      EFFINFER_UNROLL
      for (int p = 0; p < merged_at_once; ++p) {
        const float of_part = t.shuffle(weight, p);
        EFFINFER_UNROLL
        for (int e = 0; e < 4; ++e) out[e] = std::fma(outputs[p].v[e], of_part, out[e]);
      }
      if (d < D) then(r, d, out, most, sum);
    }
  }

  /// Four outputs of a head, with what the mixer's start adds to their sum.
  template <class Simt>
  EFFINFER_HOST_DEVICE static void finish(Simt& t, const args& a, int head, float greatest, float sum,
                                          const float (&out)[4], T* to) {
    const float factor = detail::factor_of(t, a.mixer.start(head), greatest, sum);
    EFFINFER_UNROLL
    for (int e = 0; e < 4; ++e) to[e] = T(out[e] * factor);
  }
};

}  // namespace effinfer::inline v0::attention::cuda
