#pragma once
// The prefill attention of prefill.hpp in the form of FlashAttention-3, for GPUs of compute capability 9.0: one warpgroup
// brings keys and values into a ring of stages in shared memory, two others multiply and weigh them. Each of these issues the
// scores of the next tile before the values of this one, so that the softmax of one tile runs while the tensor cores work on
// another, and the two take turns at the tensor cores.
//
//   const prefill_plan plan = plan_prefill(mixer, heads, std::span(sequences), device.limits());
//   start_prefill<Mixer, bf16, view, 128>({mixer, heads, on_device, plan}, [&](auto kernel, const auto& args) {
//     q.template launch<typename decltype(kernel)::type>(args);    // this form or that of prefill.hpp, as plan.form says
//   });
//
// Tiles come into shared memory in one of two ways. Where a sequence has `maps`, its cache lies in a matrix that the copying
// engine was told of (map_cache), and one thread asks for boxes of 64 positions: contiguous, ring and paged caches are all
// such, as 64 positions lie one behind the other. Tiles that the cache holds only a part of, and all tiles of sequences without
// maps, are copied by 64 threads, 16 bytes each, as a box can't leave out rows in its midst: what lies there may be NaN, which
// a weight of 0 doesn't cure.
//
// Exact: as in prefill.hpp, within this form: chunked is whole, batched is alone, with maps is without.
//
// Source: Shah et al., "FlashAttention-3: Fast and Accurate Attention with Asynchrony and Low-precision" (2024), algorithm 2
// and sections 3.1, 3.2.

#include <effinfer/attention/cuda/prefill.hpp>
#include <effinfer/attention/cuda/query_rows.hpp>
#include <effinfer/attention/policy.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/hopper.hpp>
#include <effinfer/execution/simt/number_pairs.hpp>
#include <effinfer/execution/simt/pack.hpp>
#include <effinfer/execution/simt/settled.hpp>
#include <effinfer/execution/simt/transpose.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::attention::cuda {

/// Tells the copying engine of the memory that a cache lies in: `rows` rows, `row_stride` elements apart, from `keys` and from
/// `values` on. For each position held, view.key(...) must be in it, and D elements from there on in one row. `make`:
/// simt::make_tensor_map. The result is copied to device memory, and may be used as long as the cache's memory stays where it
/// is. Errors: those of `make`.
template <class T, class Make>
prefill_maps map_cache(const T* keys, const T* values, std::ptrdiff_t row_stride, std::ptrdiff_t rows,
                       const Make& make) {
  static_assert(sizeof(T) == 2, "effinfer: attention::cuda::map_cache is for keys and values of 16 bits");
  const auto source = [&](const T* data) {
    return execution::simt::box_source{data, rows, row_stride, row_stride, kv_cache::tile_positions};
  };
  return {make(source(keys)), make(source(values)), keys, values};
}
/// The same for a view of all positions or a ring, whose heads lie side by side in a row or one behind the other. Error:
/// `unsupported` (other heads).
template <class T, class Make>
prefill_maps map_cache(const kv_cache::view<T>& cache, int kv_heads, const Make& make) {
  if (cache.head_stride > cache.row_stride && cache.head_stride % cache.row_stride != 0) {
    throw error(
        error_code::unsupported, "attention::cuda::map_cache",
        "heads are " + std::to_string(cache.head_stride) + " elements apart, rows " + std::to_string(cache.row_stride));
  }
  const std::ptrdiff_t rows = cache.head_stride <= cache.row_stride
                                  ? std::ptrdiff_t{cache.capacity}
                                  : (kv_heads - 1) * (cache.head_stride / cache.row_stride) + cache.capacity;
  return map_cache(cache.keys, cache.values, cache.row_stride, rows, make);
}

/// Work is a tile of query rows and a key head: those that see the most keys first, of a tile all heads.
template <class Mixer, class T, class View, int D>
struct prefill_wgmma {
  using args = prefill_args<Mixer, T, View>;
  static_assert(has_wgmma_form<T, View>(D));
  /// A block may take several pieces of work, as many blocks as there are multiprocessors: the next one's queries, keys and values come while
  /// the last one ends. So with one sequence, whose tiles differ in length evenly, where these are short enough for that to count: few for
  /// each block. Otherwise a block has one, and the device deals them; of wide heads always, as there are no registers.
  static constexpr bool persistent = D <= 128;
  static constexpr int most_pieces = 20;

  static constexpr int consumers = 2, rows = wgmma_prefill_rows, keys = D > 128 ? 64 : 128, stages = D > 128 ? 2 : 3;
  static constexpr int threads = (1 + consumers) * execution::simt::warpgroup_size;
  static constexpr bool for_hopper = true;  ///< launch: code of sm_90a, one block at a time on a multiprocessor
  /// Of a thread, when the roles are taken: the block begins with as many for each as fit.
  static constexpr int producer_registers = D > 128 ? 40 : D > 64 ? 56 : 72;
  static constexpr int consumer_registers = (504 - producer_registers) / consumers;
  static_assert((producer_registers + consumers * consumer_registers) * execution::simt::warpgroup_size <= 65536);
  static_assert(rows == consumers * 64 && keys % kv_cache::tile_positions == 0);

  static constexpr int panels = D / 64;  ///< of 64 columns, one behind the other: a row is 128 bytes of each
  static constexpr int tile_bytes = keys * D * 2, query_bytes = rows * D * 2;
  static constexpr int barriers = 4 * stages;
  static constexpr int shared_bytes = query_bytes + 2 * stages * tile_bytes + barriers * 8;
  static_assert(shared_bytes <= execution::simt::hopper_shared_bytes);

  /// Error: `mismatch` (a plan for another head size or form).
  static execution::simt::grid plan(const args& a) {
    if (a.heads.head_size != D || a.plan.form != prefill_form::wgmma) {
      throw error(error_code::mismatch, "attention::cuda::prefill_wgmma",
                  "compiled for head_size = " + std::to_string(D) + ", the plan is for " +
                      std::to_string(a.heads.head_size) +
                      (a.plan.form != prefill_form::wgmma ? " and another form" : ""));
    }
    const int all = a.plan.tiles * a.heads.kv_heads;
    const bool shared = persistent && a.plan.sequences == 1 && all > a.plan.multiprocessors &&
                        all / most_pieces <= a.plan.multiprocessors;
    return {shared ? a.plan.multiprocessors : all, 1, threads, shared_bytes};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto memory = t.template shared<std::uint32_t>((query_bytes + 2 * stages * tile_bytes) / 4);
    const auto barrier = t.template shared<execution::simt::mbarrier>(barriers);
    execution::simt::hopper<Simt> h(t);
    if (t.thread() == 0) {
      for (int i = 0; i < 2 * stages; ++i) {
        h.init(barrier, i, warps / 2);                       // filled: a lane of each of its producers
        h.init(barrier, 2 * stages + i, consumers * warps);  // empty: of each that has read
      }
      h.publish();
    }
    t.barrier();
    const int role = t.shuffle(t.warp() / warps, 0);  // so that the compiler knows it is one for a warp
    if (role == 0) {
      h.template give_registers<producer_registers>();
      produce(t, h, a, memory, barrier);
    } else {
      h.template take_registers<consumer_registers>();
      consume(t, h, a, role - 1, memory, barrier);
    }
  }

 private:
  static constexpr int group_size = execution::simt::warpgroup_size, half_size = group_size / 2,
                       warps = group_size / execution::simt::warp_size;
  /// Positions that are one behind the other in any cache, and how many such a tile has.
  static constexpr int box_rows = kv_cache::tile_positions, halves = keys / box_rows;
  /// Named barriers: of each consumer, and of each one's turn.
  static constexpr int among_consumers = 1, turn = 1 + consumers;

  /// A block's i-th piece of work. They take theirs in turn, forwards and backwards, so that each gets long ones and short ones.
  template <class Simt>
  EFFINFER_HOST_DEVICE static int number_of(Simt& t, int i) {
    return i * t.blocks() + (i % 2 == 0 ? t.block() : t.blocks() - 1 - t.block());
  }
  struct piece_of_work {
    const prefill_sequence<T, View>& s;
    detail::query_block block;
    int kv_head;

    EFFINFER_HOST_DEVICE piece_of_work(const args& a, int number)
        : piece_of_work(a, a.plan.tiles - 1 - number / a.heads.kv_heads, number % a.heads.kv_heads) {}

   private:
    EFFINFER_HOST_DEVICE piece_of_work(const args& a, int tile, int head)
        : s(a.sequences[detail::sequence_of(a, tile)]), block(a.mixer, a.heads, s, tile, rows), kv_head(head) {}
  };
  template <class Simt>
  EFFINFER_HOST_DEVICE static bool has_work(Simt& t, const args& a, int i) {
    return (persistent || i == 0) && number_of(t, i) < a.plan.tiles * a.heads.kv_heads;
  }

  /// Where the barriers of a stage are, of its keys or values.
  EFFINFER_HOST_DEVICE static constexpr int filled(int stage, bool values) { return (values ? stages : 0) + stage; }
  EFFINFER_HOST_DEVICE static constexpr int empty(int stage, bool values) { return 2 * stages + filled(stage, values); }
  /// Bytes from the start of shared memory to a stage's keys or values.
  EFFINFER_HOST_DEVICE static constexpr int place(int stage, bool values) {
    return query_bytes + (values ? stages + stage : stage) * tile_bytes;
  }

  /// The word where piece q of row r of a matrix of `high` rows lies.
  EFFINFER_HOST_DEVICE static constexpr int piece(int high, int r, int q) {
    return (q / 8 * high * 128 + execution::simt::swizzled(r * 128 + q % 8 * 16)) / 4;
  }
  /// The same, so many rows below: behind 8 rows pieces lie as before.
  EFFINFER_HOST_DEVICE static constexpr int piece_below(int high, int r, int q, int below) {
    return piece(high, r + below % 8, q) + below / 8 * 8 * 32;
  }

  /// Two warps bring keys, two values, as the places of either become free. What threads copy is passed on when the next tile is on its way:
  /// so it has had the time to arrive.
  template <class Simt, class Hopper, class Shared, class Barriers>
  EFFINFER_HOST_DEVICE static void produce(Simt& t, Hopper& h, const args& a, Shared memory, Barriers barrier) {
    const bool values = t.shuffle(t.warp(), 0) >= warps / 2;
    const int thread = t.thread() % half_size;
    int stage = 0, parity = 1;  // the first time a stage is empty
    int pending = -1;           // the stage that is still to be passed on
    const auto pass_on = [&] {
      if (pending < 0) return;
      h.fence_async();
      t.warp_barrier();
      if (t.lane() == 0) h.arrive(barrier, filled(pending, values));
      pending = -1;
    };
    EFFINFER_KEEP_ROLLED
    for (int n = 0; has_work(t, a, n); ++n) {
      const piece_of_work w(a, number_of(t, n));
      const View& cache = w.s.cache;
      const prefill_maps* const maps = w.s.maps;
      const detail::query_block& block = w.block;
      if (maps != nullptr && thread == 0) h.acquire(values ? &maps->values : &maps->keys);
      EFFINFER_KEEP_ROLLED
      for (int key = block.next_tile<keys>(a.mixer, block.visited.begin); key < block.visited.end;
           key = block.next_tile<keys>(a.mixer, key + keys)) {
        if (maps != nullptr && key >= cache.first && key + keys <= cache.length) {
          if (pending >= 0) {
            t.template wait<0>();
            pass_on();
          }
          box from[halves];  // found before there is room, as that takes a while
          EFFINFER_UNROLL
          for (int i = 0; thread == 0 && i < halves; ++i)
            from[i] = find_box(cache, w.kv_head, key + i * box_rows, *maps, values);
          h.wait(barrier, empty(stage, values), parity);
          if (thread == 0) {
            h.arrive_expect(barrier, filled(stage, values), tile_bytes);
            EFFINFER_UNROLL
            for (int i = 0; i < halves * panels; ++i) {
              const int half = i / panels, panel = i % panels;
              h.copy_box(memory, (place(stage, values) + (panel * keys + half * box_rows) * 128) / 4,
                         values ? &maps->values : &maps->keys, from[half].column + panel * 64, from[half].row, barrier,
                         filled(stage, values));
            }
          } else if (t.lane() == 0) {
            h.arrive(barrier, filled(stage, values));
          }
        } else {
          h.wait(barrier, empty(stage, values), parity);
          copy_rows(t, cache, w.kv_head, key, values, memory + place(stage, values) / 4);
          t.commit();
          t.template wait<1>();
          pass_on();
          pending = stage;
        }
        if (++stage == stages) stage = 0, parity ^= 1;
      }
    }
    t.template wait<0>();
    pass_on();
  }

  /// Where the rows from a position on are in the engine's matrix.
  struct box {
    int row, column;
  };
  EFFINFER_HOST_DEVICE static box find_box(const View& cache, int kv_head, int position, const prefill_maps& maps,
                                           bool values) {
    const std::ptrdiff_t from = values ? cache.value(kv_head, position) - static_cast<const T*>(maps.first_value)
                                       : cache.key(kv_head, position) - static_cast<const T*>(maps.first_key);
    return {static_cast<int>(from / cache.row_stride), static_cast<int>(from % cache.row_stride)};
  }

  /// The rows of a tile, on their way. Of positions that the cache doesn't hold: any row that it does, their weight is 0.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void copy_rows(Simt& t, const View& cache, int kv_head, int key, bool values, Shared to) {
    constexpr int pieces = D / 8, at_once = half_size / pieces;
    const int q = t.thread() % pieces, row = t.thread() % half_size / pieces;
    EFFINFER_KEEP_ROLLED
    for (int half = 0; half < halves; ++half) {
      const int begin = key + half * box_rows;
      int low = begin > cache.first ? begin : cache.first;
      if (low >= cache.length) low = cache.length - 1;
      int past = begin + box_rows < cache.length ? begin + box_rows : cache.length;
      if (past <= low) past = low + 1;
      const T* const from = (values ? cache.value(kv_head, low) : cache.key(kv_head, low)) + q * 8;
      if (past - low == box_rows) {
        const T* next = from + row * cache.row_stride;
        EFFINFER_UNROLL
        for (int r = 0; r < box_rows; r += at_once, next += at_once * cache.row_stride) {
          t.copy_async(to, piece_below(keys, half * box_rows + row, q, r),
                       reinterpret_cast<const std::uint32_t*>(next));
        }
        continue;
      }
      EFFINFER_KEEP_ROLLED
      for (int r = row; r < box_rows; r += at_once) {
        int p = begin + r < low ? low : begin + r;
        if (p >= past) p = past - 1;
        t.copy_async(to, piece(keys, half * box_rows + r, q),
                     reinterpret_cast<const std::uint32_t*>(from + (p - low) * cache.row_stride));
      }
    }
  }

  /// A warpgroup's queries come by itself, to where only it reads.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void copy_queries(Simt& t, const piece_of_work& w, int own, Shared memory) {
    constexpr int pieces = D / 8, at_once = group_size / pieces;
    const matrix_view<const T> query = w.s.query;
    const int thread = execution::simt::settled(t.thread()) % group_size, group = w.block.group;
    const int q = thread % pieces, row = thread / pieces;
    EFFINFER_UNROLL
    for (int i = 0; i < 64; i += at_once) {
      int r = w.block.first_row + own * 64 + i + row;
      if (r >= w.block.past_row) r = w.block.past_row - 1;
      const T* const from = query.row(r / group) + std::ptrdiff_t{w.kv_head * group + r % group} * D + q * 8;
      t.copy_async(memory, piece_below(rows, own * 64 + row, q, i), reinterpret_cast<const std::uint32_t*>(from));
    }
    t.commit();
  }

  template <class Simt, class Hopper, class Shared, class Barriers>
  EFFINFER_HOST_DEVICE static void consume(Simt& t, Hopper& h, const args& a, int own, Shared memory,
                                           Barriers barrier) {
    using execution::simt::matrix_descriptor;
    const float unit = detail::score_unit<Mixer>(a.heads);
    const matrix_descriptor queries = h.describe(memory, own * 64 * 128 / 4, 16, 1024);
    const matrix_descriptor key_tiles = h.describe(memory, place(0, false) / 4, 16, 1024);
    const matrix_descriptor value_tiles = h.describe(memory, place(0, true) / 4, keys * 128, 1024);
    // A lane for its warp, all of whose lanes have waited for the products that read it.
    const auto release = [&](int which) {
      if (t.lane() == 0) h.arrive(barrier, which);
    };

    int stage = 0, parity = 0;
    if (has_work(t, a, 0)) copy_queries(t, piece_of_work(a, number_of(t, 0)), own, memory);
    EFFINFER_KEEP_ROLLED
    for (int n = 0; has_work(t, a, n); ++n) {
      const piece_of_work w(a, number_of(t, n));
      const detail::query_block& block = w.block;
      const int kv_head = w.kv_head, first_held = w.s.cache.first, first_position = w.s.first_position;
      // What lies behind the last row is computed like it, and not stored.
      const auto clamped = [&](int row) { return row < block.past_row ? row : block.past_row - 1; };
      const int group_row = clamped(block.first_row + own * 64), group_last = clamped(block.first_row + own * 64 + 63);
      const int group_first_query = first_position + group_row / block.group;
      const int group_last_query = first_position + group_last / block.group;
      const int warp_row = block.first_row + own * 64 + execution::simt::settled(t.warp()) % warps * 16;
      position at[1][2];
      detail::locate_rows(t, block, first_position, w.s.index, kv_head, warp_row, at);

      float out[1][D / 8][4] = {}, score[1][keys / 8][4];
      float greatest[1][2] = {{detail::minus_infinity, detail::minus_infinity}}, sum[1][2] = {}, fade[1][2];
      std::uint32_t weight[keys / 16][4];

      const auto multiply_keys = [&](int of) {
        const matrix_descriptor tile = key_tiles + of * tile_bytes;
        h.begin();
        EFFINFER_UNROLL
        for (int k = 0; k < D / 16; ++k) {
          h.template multiply<false>(score[0], queries + (k / 4 * rows * 128 + k % 4 * 32),
                                     tile + (k / 4 * keys * 128 + k % 4 * 32), T{}, k > 0);
        }
        h.commit();
      };
      const auto multiply_values = [&](int of) {
        const matrix_descriptor tile = value_tiles + of * tile_bytes;
        h.begin();
        EFFINFER_UNROLL
        for (int k = 0; k < keys / 16; ++k)
          h.template multiply<true>(out[0], weight[k], tile + k * 16 * 128, T{}, true);
        h.commit();
      };
      // One answer for the warpgroup, so that nothing branches between its products and their end.
      const auto sees_all = [&](int key) {
        return key >= first_held && key + keys <= group_first_query + 1 &&
               (!Mixer::hides_keys || a.mixer.all_visible({group_first_query, group_last_query + 1, key, key + keys}));
      };
      const auto weigh = [&](auto whole, int key) {
        detail::apply_policy<(D > 128)>(t, a.mixer, a.heads, first_held, at, key, whole, score);
        detail::weigh(t, unit, score, greatest, sum, fade);
      };
      const auto pack = [&] {
        EFFINFER_UNROLL
        for (int i = 0; i < keys / 4; ++i) {
          const float(&two)[4] = score[0][i / 2];
          weight[i / 4][i % 4] = execution::simt::round_pair<T>(two[i % 2 * 2], two[i % 2 * 2 + 1]);
        }
      };

      int key = block.next_tile<keys>(a.mixer, block.visited.begin);
      t.template wait<0>();
      h.fence_async();
      h.sync(among_consumers + own, group_size);
      // The next rows' queries come while these end.
      const auto go_on = [&] {
        if (!has_work(t, a, n + 1)) return;
        h.sync(among_consumers + own, group_size);
        copy_queries(t, piece_of_work(a, number_of(t, n + 1)), own, memory);
      };
      if (key < block.visited.end) {
        h.wait(barrier, filled(stage, false), parity);
        multiply_keys(stage);
        h.template finish<0>(score[0]);
        release(empty(stage, false));
        weigh(std::false_type(), key);
        pack();
        int next = block.next_tile<keys>(a.mixer, key + keys);
        bool first = true;
        const auto step = [&](auto whole, int following) {
          const int next_stage = (stage + 1) % stages, next_parity = next_stage == 0 ? parity ^ 1 : parity;
          h.wait(barrier, filled(next_stage, false), next_parity);
          // The first consumer goes first; the last turn is nobody's to wait for.
          if (!(own == 0 && first)) h.sync(turn + own, 2 * group_size);
          multiply_keys(next_stage);
          h.wait(barrier, filled(stage, true), parity);
          multiply_values(stage);
          if (!(own == 1 && following >= block.visited.end)) h.arrive(turn + (own ^ 1), 2 * group_size);
          h.template finish<1>(score[0]);
          release(empty(next_stage, false));
          weigh(whole, next);
          h.template finish<0>(out[0]);
          release(empty(stage, true));
          if (t.any(fade[0][0] != 1 || fade[0][1] != 1)) detail::fade_out(fade, out);  // seldom, after some tiles
          pack();
          stage = next_stage, parity = next_parity;
        };
        EFFINFER_KEEP_ROLLED
        for (; next < block.visited.end; first = false) {
          const int following = block.next_tile<keys>(a.mixer, next + keys);
          if (sees_all(next)) {
            step(std::true_type(), following);
          } else {
            step(std::false_type(), following);
          }
          next = following;
        }
        h.wait(barrier, filled(stage, true), parity);
        multiply_values(stage);
        go_on();
        h.template finish<0>(out[0]);
        release(empty(stage, true));
        stage = (stage + 1) % stages, parity = stage == 0 ? parity ^ 1 : parity;
      } else {
        go_on();
      }
      store(t, a, piece_of_work(a, number_of(t, n)), own, unit, greatest[0], sum[0], out[0]);
    }
  }

  /// Where rows go is found anew, as keeping it would take registers from the loop.
  template <class Simt>
  EFFINFER_HOST_DEVICE static void store(Simt& t, const args& a, const piece_of_work& w, int own, float unit,
                                         const float (&greatest)[2], const float (&sum)[2],
                                         const float (&out)[D / 8][4]) {
    const matrix_view<T> to_rows = w.s.out;
    const detail::query_block& block = w.block;
    const int lane = execution::simt::settled(t.lane());
    const int warp_row = block.first_row + own * 64 + execution::simt::settled(t.warp()) % warps * 16;
    EFFINFER_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int r = warp_row + half * 8 + lane / 4, row = r < block.past_row ? r : block.past_row - 1;
      const int head = w.kv_head * block.group + row % block.group;
      const float factor = detail::final_factor(t, a.mixer, unit, head, greatest[half], sum[half]);
      T* const to = to_rows.row(row / block.group) + std::ptrdiff_t{head} * D + lane % 4 * 8;
      EFFINFER_UNROLL
      for (int c = 0; c < D / 8; c += 4) {
        std::uint32_t words[4];
        EFFINFER_UNROLL
        for (int i = 0; i < 4; ++i)
          words[i] = execution::simt::round_pair<T>(out[c + i][half * 2] * factor, out[c + i][half * 2 + 1] * factor);
        execution::simt::transpose_words<1>(t, words);
        if (r < block.past_row) execution::simt::store_words(to + c * 8, words);
      }
    }
  }
};

/// Starts the form of the kernel that the plan names: start(std::type_identity<kernel>, args).
template <class Mixer, class T, class View, int D, class Start>
void start_prefill(const prefill_args<Mixer, T, View>& a, const Start& start) {
  if constexpr (has_wgmma_form<T, View>(D)) {
    if (a.plan.form == prefill_form::wgmma) return start(std::type_identity<prefill_wgmma<Mixer, T, View, D>>(), a);
  }
  start(std::type_identity<prefill<Mixer, T, View, D>>(), a);
}

}  // namespace effinfer::inline v0::attention::cuda
