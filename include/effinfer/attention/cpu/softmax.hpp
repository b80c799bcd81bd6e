#pragma once
// Softmax attention on the CPU, prefill and decode by one path: some query rows at a time go over the keys in tiles
// of 64 positions, keeping a running maximum and sum (online softmax), so that no row of scores is ever held whole.
//
// The query heads that share a key head are rows of one tile, so a decode step reads each key and value once, not
// once a query head. Only tiles inside the policy's `keys` are visited.
//
// Source: Dao et al., "FlashAttention" (2022), algorithm 1; Dao et al., "Flash-Decoding" (2023) for the segments.

#include <effinfer/attention/cpu/split_products.hpp>
#include <effinfer/attention/cpu/tile_softmax.hpp>
#include <effinfer/attention/sequence.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/execution/cpu.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::attention {

/// The largest head size that `attend` takes with keys and values stored as T.
template <class T>
inline constexpr int largest_softmax_head_size =
    std::is_same_v<T, kv_cache::int8> || std::is_same_v<T, fp8_e4m3> ? 256 : detail::largest_head_size;

namespace detail {

/// Keys are taken in segments between these multiples of positions, each with a softmax of its own, and the segments
/// are then merged in order: so they may also be worked on at the same time, with the same result. A multiple of
/// tile_keys.
inline constexpr int segment_keys = 1024;

/// How the rows of one sequence are cut into tiles.
struct row_tiling {
  int group;        ///< query heads a key head
  int tile_heads;   ///< of them in a tile
  int head_tiles;   ///< a group
  int tile_tokens;  ///< tokens in a tile

  row_tiling(const head_layout& h, int rows) : group(h.heads / h.kv_heads) {
    tile_heads = std::min(group, rows);
    head_tiles = (group + tile_heads - 1) / tile_heads;
    tile_tokens = rows / tile_heads;
  }
  [[nodiscard]] int token_tiles(std::ptrdiff_t tokens) const {
    return static_cast<int>((tokens + tile_tokens - 1) / tile_tokens);
  }
  /// Tiles of a sequence with `tokens` new tokens.
  [[nodiscard]] std::ptrdiff_t tiles(int kv_heads, std::ptrdiff_t tokens) const {
    return std::ptrdiff_t{kv_heads} * head_tiles * token_tiles(tokens);
  }
};

/// Whether split_products.hpp multiplies for a sequence: whatever its number of rows, as that depends on how a prompt is cut.
template <class View>
bool splits(execution::instruction_set set, const head_layout& h, const sequence<View>& s) {
  return s.prompt && set == execution::instruction_set::amx && h.head_size <= largest_split_head_size;
}

/// How many rows a tile has: 32, and more of prompts as long as every thread gets some tiles.
template <class View>
int tile_rows_for(const execution::cpu::context& exec, const head_layout& h,
                  std::span<const sequence<View>> sequences) {
  int rows = std::min(tile_rows, tile_floats / padded(h.head_size));
  for (const sequence<View>& s : sequences) {
    if (!splits(exec.set(), h, s)) return rows;
  }
  while (2 * rows <= std::min(most_rows, tile_floats / (split::steps(h.head_size) * split::step))) {
    const row_tiling twice(h, 2 * rows);
    std::ptrdiff_t tiles = 0;
    for (const sequence<View>& s : sequences) tiles += twice.tiles(h.kv_heads, s.query.rows);
    if (tiles < 8 * exec.threads()) break;
    rows *= 2;
  }
  return rows;
}

/// One tile of query rows of one sequence: scratch memory (about 260 KiB, on the stack of the thread that works on
/// it) and the steps.
template <class Mixer, class View>
class query_tile {
 public:
  using element = typename View::element_type;
  static constexpr bool always_widens = std::is_same_v<element, kv_cache::int8> || std::is_same_v<element, fp8_e4m3>;
  static constexpr int widened_size = always_widens ? 256 : 128;  ///< the largest head size that is widened

  query_tile(execution::instruction_set set, const Mixer& mixer, const head_layout& heads)
      : set_(set), mixer_(mixer), heads_(heads) {}

  /// Reads the queries of tile `index` of `s`.
  void begin(const sequence<View>& s, const row_tiling& tiling, int index) {
    sequence_ = &s;
    const int token_tiles = tiling.token_tiles(s.query.rows);
    // The last tokens see the most keys: first come, first served ends more evenly.
    const int token_tile = token_tiles - 1 - index % token_tiles;
    const int head_tile = index / token_tiles % tiling.head_tiles;
    kv_head_ = index / token_tiles / tiling.head_tiles;
    const int first_head = head_tile * tiling.tile_heads;
    tile_heads_ = std::min(tiling.tile_heads, tiling.group - first_head);
    first_token_ = token_tile * tiling.tile_tokens;
    tokens_ = std::min(tiling.tile_tokens, static_cast<int>(s.query.rows) - first_token_);
    rows_ = tokens_ * tile_heads_;
    queries_ = {s.first_position + first_token_, kv_head_ * tiling.group + first_head, tile_heads_, kv_head_, s.index};

    const int d = heads_.head_size;
    splits_ = splits(set_, heads_, s);
    stride_ = splits_ ? split::steps(d) * split::step : padded(d);
    for (int r = 0; r < rows_; ++r) {
      float* to = query_ + r * stride_;
      execution::dispatch<scale_row>(set_, scale_row::args{query_row(r), d, heads_.scale, -0.0f, to});
      std::fill(to + d, to + stride_, 0.0f);
#if EFFINFER_X86
      if (splits_) split::split_row(to, split::steps(d));
#endif
    }
    const key_range first = visited(queries_.first_query), last = visited(queries_.first_query + tokens_ - 1);
    keys_ = {first.begin, last.end};
  }

  /// The segments that the tile's queries visit: [first, last).
  [[nodiscard]] int first_segment() const { return keys_.begin / segment_keys; }
  [[nodiscard]] int last_segment() const {
    return keys_.begin < keys_.end ? (keys_.end + segment_keys - 1) / segment_keys : first_segment();
  }

  /// The first segment from `segment` on with a key worth a visit; last_segment() where there is none.
  [[nodiscard]] int visited_segment(int segment) const {
    const int first = next_key(std::max(keys_.begin, segment * segment_keys)) / segment_keys;
    return std::min(std::max(segment, first), last_segment());
  }

  /// The softmax over the keys of one segment, into `part`.
  void run_segment(int segment) {
    std::fill(part_.max, part_.max + rows_, minus_infinity);
    std::fill(part_.sum, part_.sum + rows_ * 16, 0.0f);
    std::fill(part_out_, part_out_ + rows_ * stride_, 0.0f);
#if EFFINFER_X86
    if (splits_) split::begin();
#endif
    const int end = std::min(keys_.end, (segment + 1) * segment_keys);
    int key = std::max(keys_.begin, segment * segment_keys);
    while ((key = next_key(key)) < end) {
      const int tile = key / tile_keys * tile_keys;
      run_tile(tile);
      key = tile + tile_keys;
    }
#if EFFINFER_X86
    if (splits_) split::end();
#endif
  }

  void begin_total() {
    for (int r = 0; r < rows_; ++r) {
      const softmax_start start = mixer_.start(queries_.first_head + r % tile_heads_);
      total_max_[r] = start.max;
      total_sum_[r] = start.sum;
    }
    std::fill(total_out_, total_out_ + rows_ * stride_, 0.0f);
  }

  /// Adds the segment in `part` to the total. Segments are added in rising order.
  void merge_segment() { merge(part_.max, part_.sum, part_out_); }

  /// The segment in `part` as segment_floats() floats, and such a copy added to the total.
  [[nodiscard]] int segment_floats() const { return rows_ * (1 + 16 + stride_); }
  void copy_segment(float* to) const {
    to = std::copy_n(part_.max, rows_, to);
    to = std::copy_n(part_.sum, rows_ * 16, to);
    std::copy_n(part_out_, rows_ * stride_, to);
  }
  void merge_copy(const float* from) { merge(from, from + rows_, from + rows_ * 17); }

  /// Writes the outputs; zeros for a query that sees no key.
  void finish() {
    const int d = heads_.head_size;
    for (int r = 0; r < rows_; ++r) {
      const float* from = total_out_ + r * stride_;
      float* to = out_row(r);
      const float share = total_sum_[r] != 0.0f ? 1.0f / total_sum_[r] : 0.0f;
      // Whether a zero has a sign would tell which keys a split product went over.
      execution::dispatch<scale_row>(set_, scale_row::args{from, d, share, splits_ ? 0.0f : -0.0f, to});
    }
  }

 private:
  void merge(const float* part_max, const float* part_sum, const float* part_out) {
    execution::dispatch<merge_rows>(
        set_, merge_rows::args{rows_, stride_, part_max, part_sum, part_out, total_max_, total_sum_, total_out_});
  }

  [[nodiscard]] std::ptrdiff_t column(int row) const {
    return std::ptrdiff_t{queries_.first_head + row % tile_heads_} * heads_.head_size;
  }
  [[nodiscard]] const float* query_row(int r) const {
    return sequence_->query.row(first_token_ + r / tile_heads_) + column(r);
  }
  [[nodiscard]] float* out_row(int r) const { return sequence_->out.row(first_token_ + r / tile_heads_) + column(r); }

  /// The keys that a query visits: those of the policy, none behind the query, none that the cache doesn't hold.
  [[nodiscard]] key_range visited(int query) const {
    // The policy is told of the keys up to the query only: what it answers can't depend on how a prefill is cut.
    const key_range k = mixer_.keys(query, query + 1);
    return {std::max(k.begin, sequence_->cache.first), std::min(k.end, query + 1)};
  }

  /// The first key from `key` on that one of the tile's queries may see.
  [[nodiscard]] int next_key(int key) const {
    if constexpr (Mixer::hides_keys) {
      return mixer_.next_key({queries_.first_query, queries_.first_query + tokens_, key, keys_.end});
    } else {
      return key;
    }
  }

  void run_tile(int tile) {
    int first = tile_keys, last = 0;
    for (int t = 0; t < tokens_; ++t) {
      const key_range k = visited(queries_.first_query + t);
      const int b = std::clamp(k.begin - tile, 0, tile_keys), e = std::clamp(k.end - tile, b, tile_keys);
      for (int h = 0; h < tile_heads_; ++h) begin_[t * tile_heads_ + h] = b, end_[t * tile_heads_ + h] = e;
      if (b < e) first = std::min(first, b), last = std::max(last, e);
    }
    if (first >= last) return;
    const struct tile whole { queries_.first_query, queries_.first_query + tokens_, tile + first, tile + last };
    if constexpr (Mixer::hides_keys) {
      if (!mixer_.any_visible(whole)) return;
    }

#if EFFINFER_X86
    if (splits_) return run_split_products(whole);
#endif
    // Many rows meet each key and value: these are widened once. Few rows (decode) widen them on the way, and fetch
    // what comes next.
    if constexpr (!always_widens) {
      if (std::is_same_v<element, float> || rows_ <= few_rows || heads_.head_size > widened_size) {
        run_products<element>(whole, sequence_->cache.key(kv_head_, tile), sequence_->cache.value(kv_head_, tile),
                              sequence_->cache.row_stride, copy_);
        return;
      }
    }
    run_products<float>(whole, nullptr, nullptr, padded(heads_.head_size), nullptr);
  }

  /// Both products of a tile, and what lies between them. T is float where keys and values are widened first.
  template <class T>
  void run_products(const struct tile& whole, const T* keys, const T* values, std::ptrdiff_t stride, T* copy) {
    const auto& cache = sequence_->cache;
    const int tile = whole.key_begin / tile_keys * tile_keys, first = whole.key_begin - tile;
    const int last = whole.key_end - tile;
    const bool widen = keys == nullptr;
    coming_rows<T> next_values, next_keys;
    if constexpr (std::is_same_v<T, element>) {
      if (rows_ <= few_rows) {
        next_values = {cache.value(kv_head_, tile + first), cache.row_stride};
        if (tile + tile_keys < keys_.end) next_keys = {cache.key(kv_head_, tile + tile_keys), cache.row_stride};
      }
    }
    if constexpr (std::is_same_v<T, float>) {
      if (widen) keys = values = widened_;
    }
    if (widen) widen_rows(cache.key(kv_head_, tile + first), first, last);
    execution::dispatch<score_tile<T>>(
        set_, typename score_tile<T>::args{query_, rows_, keys + first * stride, stride, last - first, heads_.head_size,
                                           scores_ + first, score_stride, copy, next_values});
    scores_to_weights(whole);
    if (widen) widen_rows(cache.value(kv_head_, tile + first), first, last);
    execution::dispatch<mix_tile<T>>(
        set_, typename mix_tile<T>::args{scores_, score_stride, rows_, begin_, end_, values, stride, heads_.head_size,
                                         part_out_, next_keys});
  }

#if EFFINFER_X86
  /// The same in tiles of bf16.
  void run_split_products(const struct tile& whole) {
    const auto& cache = sequence_->cache;
    const int tile = whole.key_begin / tile_keys * tile_keys, first = whole.key_begin - tile;
    const int last = whole.key_end - tile;
    constexpr int parts = std::is_same_v<element, bf16> ? 1 : 2, sixteen = split::rows_a_tile;
    const int d = heads_.head_size, count = split::steps(d);
    auto* prepared = reinterpret_cast<std::byte*>(widened_ + sixteen * largest_split_head_size);
    // Sixteen rows from `from` on, as floats where they aren't bf16.
    const auto prepare = [&](int n, const element* from, auto store, std::byte* to) {
      const int begin = std::clamp(first - n, 0, sixteen), end = std::clamp(last - n, begin, sixteen);
      if constexpr (parts == 1) {
        store(from, cache.row_stride, begin, end, d, to);
      } else {
        if (begin < end) widen_rows(from + begin * cache.row_stride, begin, end);
        store(widened_, std::ptrdiff_t{padded(d)}, begin, end, d, to);
      }
    };
    for (int n = first / sixteen * sixteen; n < last; n += sixteen) {
      prepare(
          n, cache.key(kv_head_, tile + n), [](auto... a) { split::store_keys(a...); },
          prepared + n / sixteen * parts * split::tile_bytes);
    }
    split::scores(query_, rows_, prepared, parts, count, first, last, scores_);
    scores_to_weights(whole);
    split::split_weights(scores_, rows_, begin_, end_);
    for (int n = first / 32 * 32; n < (last + 31) / 32 * 32; n += sixteen) {
      prepare(
          n, cache.value(kv_head_, tile + n), [](auto... a) { split::store_values(a...); },
          prepared + n / 32 * count * 2 * parts * split::tile_bytes + n % 32 * 32);
    }
    split::mix(scores_, rows_, prepared, parts, count, first, last, part_out_);
  }
#endif

  /// What lies between the products.
  void scores_to_weights(const struct tile& whole) {
    if constexpr (Mixer::changes_scores || Mixer::hides_keys) {
      const int tile = whole.key_begin / tile_keys * tile_keys;
      const bool all = !Mixer::hides_keys || mixer_.all_visible(whole);
      if (Mixer::changes_scores || !all) {
        execution::dispatch<hooks_tile<Mixer>>(
            set_, typename hooks_tile<Mixer>::args{&mixer_, queries_, rows_, tile, begin_, end_, all, scores_});
      }
    }
    execution::dispatch<weigh_tile>(set_, weigh_tile::args{rows_, begin_, end_, scores_, &part_, part_out_, stride_});
  }

  void widen_rows(const element* from, int first, int last) {
    const int stride = padded(heads_.head_size);
    execution::dispatch<widen_tile<element>>(
        set_, typename widen_tile<element>::args{from, sequence_->cache.row_stride, last - first, heads_.head_size,
                                                 widened_ + first * stride});
  }

  static constexpr int few_rows = 8;

  execution::instruction_set set_;
  const Mixer& mixer_;
  const head_layout& heads_;
  const sequence<View>* sequence_ = nullptr;
  tile_queries queries_{};
  key_range keys_{};
  int kv_head_ = 0, tile_heads_ = 0, first_token_ = 0, tokens_ = 0, rows_ = 0;
  int stride_ = 0;       ///< of the scratch rows of D floats
  bool splits_ = false;  ///< split_products.hpp multiplies
  int begin_[most_rows], end_[most_rows];
  row_state part_;
  float total_max_[most_rows], total_sum_[most_rows];
  alignas(64) float query_[tile_floats];
  alignas(64) float part_out_[tile_floats];
  alignas(64) float total_out_[tile_floats];
  alignas(64) float scores_[most_rows * score_stride];
  alignas(64) element copy_[always_widens ? 1 : 16 * largest_head_size];
#if EFFINFER_X86
  alignas(64) float widened_[split::scratch_floats];
  static_assert(split::scratch_floats >= (tile_keys + 16) * widened_size);
#else
  alignas(64) float widened_[(tile_keys + 16) * widened_size];
#endif
};

/// One tile with its segments spread over the threads, as many at a time as there is scratch for: long contexts with
/// fewer key heads than threads. The same operations in the same order as one thread alone.
template <class Mixer, class View>
void attend_by_segments(const execution::cpu::context& exec, const Mixer& mixer, const head_layout& heads,
                        const sequence<View>& s, const row_tiling& tiling, int tile) {
  constexpr int slots = 64;
  alignas(64) float parts[slots * 1568];  // 32 rows of 32 dimensions each
  query_tile<Mixer, View> total(exec.set(), mixer, heads);
  total.begin(s, tiling, tile);
  total.begin_total();
  const int floats = total.segment_floats(), last = total.last_segment();
  const int wave = std::min(slots, slots * 1568 / floats);
  int segments[slots];
  for (int next = total.visited_segment(total.first_segment()); next < last;) {
    int count = 0;
    for (; count < wave && next < last; next = total.visited_segment(next + 1)) segments[count++] = next;
    exec.parallel_for(count, 1, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      query_tile<Mixer, View> work(exec.set(), mixer, heads);
      work.begin(s, tiling, tile);
      for (std::ptrdiff_t i = begin; i < end; ++i) {
        work.run_segment(segments[i]);
        work.copy_segment(parts + i * floats);
      }
    });
    for (int i = 0; i < count; ++i) total.merge_copy(parts + i * floats);
  }
  total.finish();
}

inline void check_heads(const head_layout& h) {
  if (h.heads < 1 || h.kv_heads < 1 || h.heads % h.kv_heads != 0 || h.head_size < 1 ||
      h.head_size > largest_head_size) {
    throw error(error_code::invalid_argument, "attention::attend",
                std::to_string(h.heads) + " heads, " + std::to_string(h.kv_heads) + " key heads, head size " +
                    std::to_string(h.head_size),
                "kv_heads divides heads, and head sizes go up to " + std::to_string(largest_head_size));
  }
}

template <class View>
void check_sequence(const head_layout& h, const sequence<View>& s) {
  constexpr int largest = largest_softmax_head_size<typename View::element_type>;
  if (h.head_size > largest) {
    throw error(error_code::unsupported, "attention::attend",
                "head size " + std::to_string(h.head_size) + " on an int8 cache",
                "int8 caches go up to " + std::to_string(largest));
  }
  const std::ptrdiff_t columns = std::ptrdiff_t{h.heads} * h.head_size;
  if (s.query.columns != columns || s.out.columns != columns || s.query.rows != s.out.rows || s.first_position < 0 ||
      s.first_position + s.query.rows != s.cache.length) {
    throw error(error_code::mismatch, "attention::attend",
                "query [" + std::to_string(s.query.rows) + ", " + std::to_string(s.query.columns) + "], out [" +
                    std::to_string(s.out.rows) + ", " + std::to_string(s.out.columns) + "], first_position " +
                    std::to_string(s.first_position) + ", cache.length " + std::to_string(s.cache.length) +
                    " for rows of " + std::to_string(columns),
                "query and out are [T, H*D], and cache.length = first_position + T");
  }
}

}  // namespace detail

/// out = softmax(mixer(scale q k^T)) v for the new tokens of some sequences, each on its own.
///
/// Math: see policy.hpp. Key <= query always holds on top of the policy. A query that sees no key gets zeros.
/// Shapes: as in `sequence`; T may be 1 (decode) or more (prefill), and differ between sequences. Head sizes 1 to
/// 512; multiples of 16 are fast. Numbers: float32 inside; keys and values as stored in the cache.
///
/// On AMX the products of a sequence that is a `prompt`, with heads up to 256, are those of bf16 parts: q k is within 2^-15 |q k| of
/// its value, and p v within 2^-15 |p v|, before they are summed in float32 (2^-17 with caches of bf16; root mean square 2^-18).
/// Twice as fast and more where some tens of tokens come at a time. It takes values to be finite: one that isn't may also reach
/// tokens of the same call in front of it.
/// Cost: reads each visited key and value once for every 32 query rows that share them, up to 128 of a prompt on AMX. Nothing is
/// allocated; a working thread needs 280 KiB of stack, the calling one 1 MiB.
/// Errors: `invalid_argument` (head layout), `mismatch` (shapes), `unsupported` (an int8 cache with heads above 256), before
/// anything is computed.
/// Exact: an output doesn't depend on how a prefill is cut into calls, on the other sequences, or on threads; that of a prompt's token
/// not on how the prompt is cut into calls that are told so.
template <class Mixer, kv_cache::cache_view View>
  requires is_softmax<Mixer>
void attend(const execution::cpu::context& exec, const Mixer& mixer, const head_layout& heads,
            std::span<const sequence<View>> sequences) {
  detail::check_heads(heads);
  const detail::row_tiling tiling(heads, detail::tile_rows_for(exec, heads, sequences));
  std::ptrdiff_t tiles = 0, segments = 0;
  for (const sequence<View>& s : sequences) {
    detail::check_sequence(heads, s);
    if (s.query.rows == 0) continue;
    tiles += tiling.tiles(heads.kv_heads, s.query.rows);
    const key_range last = mixer.keys(s.cache.length - 1, s.cache.length);
    segments = std::max<std::ptrdiff_t>(segments, (last.end - last.begin) / detail::segment_keys);
  }
  if (tiles < exec.threads() && tiles < segments) {
    for (const sequence<View>& s : sequences) {
      const auto own = static_cast<int>(tiling.tiles(heads.kv_heads, s.query.rows));
      for (int tile = 0; tile < own; ++tile) detail::attend_by_segments(exec, mixer, heads, s, tiling, tile);
    }
    return;
  }
  exec.parallel_for(tiles, 1, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    detail::query_tile<Mixer, View> work(exec.set(), mixer, heads);
    std::size_t i = 0;
    std::ptrdiff_t before = 0;  // tiles of the sequences in front of sequences[i]
    for (std::ptrdiff_t tile = begin; tile < end; ++tile) {
      while (tile - before >= tiling.tiles(heads.kv_heads, sequences[i].query.rows)) {
        before += tiling.tiles(heads.kv_heads, sequences[i++].query.rows);
      }
      work.begin(sequences[i], tiling, static_cast<int>(tile - before));
      work.begin_total();
      int segment = work.visited_segment(work.first_segment());
      for (; segment < work.last_segment(); segment = work.visited_segment(segment + 1)) {
        work.run_segment(segment);
        work.merge_segment();
      }
      work.finish();
    }
  });
}

}  // namespace effinfer::inline v0::attention
