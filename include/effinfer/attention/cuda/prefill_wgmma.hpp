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
// maps, are copied by 128 threads, 16 bytes each, as a box can't leave out rows in its midst: what lies there may be NaN, which
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

/// Blocks as those of prefill: x a tile of query rows, y the key head.
template <class Mixer, class T, class View, int D>
struct prefill_wgmma {
  using args = prefill_args<Mixer, T, View>;
  static_assert(has_wgmma_form<T, View>(D));

  static constexpr int consumers = 2, rows = wgmma_prefill_rows, keys = D > 128 ? 64 : 128, stages = 2;
  static constexpr int threads = (1 + consumers) * execution::simt::warpgroup_size;
  static constexpr bool for_hopper = true;  ///< launch: code of sm_90a, one block at a time on a multiprocessor
  /// Of a thread, when the roles are taken: the block begins with as many for each as fit.
  static constexpr int producer_registers = 40, consumer_registers = 232;
  static_assert((producer_registers + consumers * consumer_registers) * execution::simt::warpgroup_size <= 65536);
  static_assert(rows == consumers * 64 && keys % kv_cache::tile_positions == 0);

  static constexpr int panels = D / 64;  ///< of 64 columns, one behind the other: a row is 128 bytes of each
  static constexpr int tile_bytes = keys * D * 2, query_bytes = rows * D * 2;
  static constexpr int barriers = 4 * stages;
  static constexpr int shared_bytes = query_bytes + 2 * stages * tile_bytes + barriers * 8;
  static_assert(shared_bytes <= 227 * 1024);

  /// Errors: `mismatch` (a plan for another head size or form), `limit` (65535 key heads).
  static execution::simt::grid plan(const args& a) {
    const char* const who = "attention::cuda::prefill_wgmma";
    if (a.heads.head_size != D || a.plan.form != prefill_form::wgmma) {
      throw error(error_code::mismatch, who,
                  "compiled for head_size = " + std::to_string(D) + ", the plan is for " +
                      std::to_string(a.heads.head_size) +
                      (a.plan.form != prefill_form::wgmma ? " and another form" : ""));
    }
    if (a.heads.kv_heads > 65535) {
      throw error(error_code::limit, who, std::to_string(a.heads.kv_heads) + " key heads are more than a grid holds");
    }
    return {a.plan.tiles, a.heads.kv_heads, threads, shared_bytes};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int tile = a.plan.tiles - 1 - t.block(), kv_head = t.block_y();
    const prefill_sequence<T, View>& s = a.sequences[detail::sequence_of(a, tile)];
    const detail::query_block block(a.mixer, a.heads, s, tile, rows);
    // A warpgroup without rows has nothing to do, and nobody waits for it.
    const int active = (block.past_row - block.first_row + 63) / 64;

    const auto memory = t.template shared<std::uint32_t>((query_bytes + 2 * stages * tile_bytes) / 4);
    const auto barrier = t.template shared<execution::simt::mbarrier>(barriers);
    execution::simt::hopper<Simt> h(t);
    if (t.thread() == 0) {
      for (int i = 0; i < 2 * stages; ++i) {
        h.init(barrier, i, 1);                        // filled: the producers
        h.init(barrier, 2 * stages + i, active * 4);  // empty: a lane of each warp that has read
      }
      h.publish();
    }
    t.barrier();
    const int role = t.shuffle(t.warp() / 4, 0);  // so that the compiler knows it is one for a warp
    if (role == 0) {
      h.template give_registers<producer_registers>();
      produce(t, h, a, s, kv_head, block, memory, barrier);
    } else {
      h.template take_registers<consumer_registers>();
      if (role <= active) consume(t, h, a, s, kv_head, block, active, role - 1, memory, barrier);
    }
  }

 private:
  static constexpr int group_size = execution::simt::warpgroup_size;
  /// Positions that are one behind the other in any cache, and how many such a tile has.
  static constexpr int box_rows = kv_cache::tile_positions, halves = keys / box_rows;
  /// Named barriers: of the producers, of each consumer, and of each one's turn.
  static constexpr int among_producers = 1, among_consumers = 2, turn = 2 + consumers;

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

  template <class Simt, class Hopper, class Shared, class Barriers>
  EFFINFER_HOST_DEVICE static void produce(Simt& t, Hopper& h, const args& a, const prefill_sequence<T, View>& s,
                                           int kv_head, const detail::query_block& block, Shared memory,
                                           Barriers barrier) {
    const prefill_maps* const maps = s.maps;
    if (maps != nullptr && t.thread() == 0) {
      h.acquire(&maps->keys);
      h.acquire(&maps->values);
    }
    int number = 0;
    EFFINFER_KEEP_ROLLED
    for (int key = block.next_tile<keys>(a.mixer, block.visited.begin); key < block.visited.end;
         key = block.next_tile<keys>(a.mixer, key + keys), ++number) {
      const int stage = number % stages, parity = (number / stages + 1) % 2;  // the first time it is empty
      if (maps != nullptr && key >= s.cache.first && key + keys <= s.cache.length) {
        box from[2][halves];  // found before there is room, as that takes a while
        EFFINFER_UNROLL
        for (int i = 0; t.thread() == 0 && i < 2 * halves; ++i)
          from[i / halves][i % halves] = find_box(s.cache, kv_head, key + i % halves * box_rows, *maps, i >= halves);
        EFFINFER_UNROLL
        for (int v = 0; v < 2; ++v) {
          h.wait(barrier, empty(stage, v == 1), parity);
          if (t.thread() != 0) continue;
          h.arrive_expect(barrier, filled(stage, v == 1), tile_bytes);
          EFFINFER_UNROLL
          for (int i = 0; i < halves * panels; ++i) {
            const int half = i / panels, panel = i % panels;
            h.copy_box(memory, (place(stage, v == 1) + (panel * keys + half * box_rows) * 128) / 4,
                       v == 1 ? &maps->values : &maps->keys, from[v][half].column + panel * 64, from[v][half].row,
                       barrier, filled(stage, v == 1));
          }
        }
        // Nobody falls behind by a phase: parities would deceive them.
        h.sync(among_producers, group_size);
      } else {
        EFFINFER_UNROLL
        for (int v = 0; v < 2; ++v) {
          h.wait(barrier, empty(stage, v == 1), parity);
          copy_rows(t, s.cache, kv_head, key, v == 1, memory + place(stage, v == 1) / 4);
          t.commit();
        }
        t.template wait<1>();
        pass_on(t, h, barrier, filled(stage, false));
        t.template wait<0>();
        pass_on(t, h, barrier, filled(stage, true));
      }
    }
  }

  /// What all producers have written is there.
  template <class Simt, class Hopper, class Barriers>
  EFFINFER_HOST_DEVICE static void pass_on(Simt& t, Hopper& h, Barriers barrier, int which) {
    h.fence_async();
    h.sync(among_producers, group_size);
    if (t.thread() == 0) h.arrive(barrier, which);
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
    constexpr int pieces = D / 8;
    EFFINFER_KEEP_ROLLED
    for (int half = 0; half < halves; ++half) {
      const int begin = key + half * box_rows;
      int low = begin > cache.first ? begin : cache.first;
      if (low >= cache.length) low = cache.length - 1;
      int past = begin + box_rows < cache.length ? begin + box_rows : cache.length;
      if (past <= low) past = low + 1;
      const T* const from = values ? cache.value(kv_head, low) : cache.key(kv_head, low);
      EFFINFER_KEEP_ROLLED
      for (int i = t.thread(); i < box_rows * pieces; i += group_size) {
        const int r = i / pieces, q = i % pieces;
        int p = begin + r < low ? low : begin + r;
        if (p >= past) p = past - 1;
        t.copy_async(to, piece(keys, half * box_rows + r, q),
                     reinterpret_cast<const std::uint32_t*>(from + (p - low) * cache.row_stride + q * 8));
      }
    }
  }

  template <class Simt, class Hopper, class Shared, class Barriers>
  EFFINFER_HOST_DEVICE static void consume(Simt& t, Hopper& h, const args& a, const prefill_sequence<T, View>& s,
                                           int kv_head, const detail::query_block& block, int active, int own,
                                           Shared memory, Barriers barrier) {
    using execution::simt::matrix_descriptor;
    // The warpgroup's queries come by itself, to where only it reads.
    constexpr int pieces = D / 8;
    EFFINFER_KEEP_ROLLED
    for (int i = t.thread() % group_size; i < 64 * pieces; i += group_size) {
      const int r = block.first_row + own * 64 + i / pieces, row = r < block.past_row ? r : block.past_row - 1;
      const T* const from = s.query.row(row / block.group) +
                            std::ptrdiff_t{kv_head * block.group + row % block.group} * D + i % pieces * 8;
      t.copy_async(memory, piece(rows, own * 64 + i / pieces, i % pieces),
                   reinterpret_cast<const std::uint32_t*>(from));
    }
    t.commit();

    const int warp_row = block.first_row + own * 64 + t.warp() % 4 * 16;
    const int warp_past = warp_row + 16 < block.past_row ? warp_row + 16 : block.past_row;
    const int warp_first_query = s.first_position + warp_row / block.group;
    const int warp_last_query = s.first_position + (warp_past - 1) / block.group;
    position at[1][2];
    detail::locate_rows(t, block, s.first_position, s.index, kv_head, warp_row, at);
    const float unit = detail::score_unit<Mixer>(a.heads);

    float out[1][D / 8][4] = {}, score[1][keys / 8][4];
    float greatest[1][2] = {{detail::minus_infinity, detail::minus_infinity}}, sum[1][2] = {}, fade[1][2];
    std::uint32_t weight[keys / 16][4];

    const matrix_descriptor queries = h.describe(memory, own * 64 * 128 / 4, 16, 1024);
    const matrix_descriptor key_tiles = h.describe(memory, place(0, false) / 4, 16, 1024);
    const matrix_descriptor value_tiles = h.describe(memory, place(0, true) / 4, keys * 128, 1024);
    const auto multiply_keys = [&](int stage) {
      const matrix_descriptor tile = key_tiles + stage * tile_bytes;
      h.begin();
      EFFINFER_UNROLL
      for (int k = 0; k < D / 16; ++k) {
        h.template multiply<false>(score[0], queries + (k / 4 * rows * 128 + k % 4 * 32),
                                   tile + (k / 4 * keys * 128 + k % 4 * 32), T{}, k > 0);
      }
      h.commit();
    };
    const auto multiply_values = [&](int stage) {
      const matrix_descriptor tile = value_tiles + stage * tile_bytes;
      h.begin();
      EFFINFER_UNROLL
      for (int k = 0; k < keys / 16; ++k) h.template multiply<true>(out[0], weight[k], tile + k * 16 * 128, T{}, true);
      h.commit();
    };
    const auto weigh = [&](int key) {
      const bool whole =
          key >= s.cache.first && key + keys <= warp_first_query + 1 &&
          (!Mixer::hides_keys || a.mixer.all_visible({warp_first_query, warp_last_query + 1, key, key + keys}));
      detail::apply_policy<(D > 128)>(t, a.mixer, a.heads, s.cache.first, at, key, whole, score);
      detail::weigh(t, unit, score, greatest, sum, fade);
    };
    const auto pack = [&] {
      EFFINFER_UNROLL
      for (int i = 0; i < keys / 4; ++i) {
        const float(&w)[4] = score[0][i / 2];
        weight[i / 4][i % 4] = detail::pair<T>(w[i % 2 * 2], w[i % 2 * 2 + 1]);
      }
    };
    // A lane for its warp, all of whose lanes have waited for the products that read it.
    const auto release = [&](int which) {
      if (t.lane() == 0) h.arrive(barrier, which);
    };

    int key = block.next_tile<keys>(a.mixer, block.visited.begin), stage = 0, parity = 0;
    t.template wait<0>();
    h.fence_async();
    h.sync(among_consumers + own, group_size);
    if (key < block.visited.end) {
      h.wait(barrier, filled(0, false), 0);
      multiply_keys(0);
      h.template finish<0>(score[0]);
      release(empty(0, false));
      weigh(key);
      pack();
      int next = block.next_tile<keys>(a.mixer, key + keys);
      EFFINFER_KEEP_ROLLED
      for (bool first = true; next < block.visited.end; first = false) {
        const int following = block.next_tile<keys>(a.mixer, next + keys);
        const int next_stage = (stage + 1) % stages, next_parity = next_stage == 0 ? parity ^ 1 : parity;
        h.wait(barrier, filled(next_stage, false), next_parity);
        // The first consumer goes first; the last turn is nobody's to wait for.
        if (active > 1 && !(own == 0 && first)) h.sync(turn + own, 2 * group_size);
        multiply_keys(next_stage);
        h.wait(barrier, filled(stage, true), parity);
        multiply_values(stage);
        if (active > 1 && !(own == 1 && following >= block.visited.end)) h.arrive(turn + (own ^ 1), 2 * group_size);
        h.template finish<1>(score[0]);
        release(empty(next_stage, false));
        weigh(next);
        h.template finish<0>(out[0]);
        release(empty(stage, true));
        detail::fade_out(fade, out);
        pack();
        stage = next_stage, parity = next_parity;
        next = following;
      }
      h.wait(barrier, filled(stage, true), parity);
      multiply_values(stage);
      h.template finish<0>(out[0]);
    }

    EFFINFER_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float factor = detail::final_factor(t, a.mixer, unit, at[0][half].head, greatest[0][half], sum[0][half]);
      const int r = warp_row + half * 8 + t.lane() / 4;
      T* const to = s.out.row((r < block.past_row ? r : block.first_row) / block.group) +
                    std::ptrdiff_t{kv_head * block.group + r % block.group} * D + t.lane() % 4 * 8;
      EFFINFER_UNROLL
      for (int c = 0; c < D / 8; c += 4) {
        std::uint32_t words[4];
        EFFINFER_UNROLL
        for (int i = 0; i < 4; ++i)
          words[i] = detail::pair<T>(out[0][c + i][half * 2] * factor, out[0][c + i][half * 2 + 1] * factor);
        detail::gather_pieces(t, words);
        if (r < block.past_row) detail::store_words(to + c * 8, words);
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
