#pragma once
// The likeliest token of each row of logits. A vocabulary is more than one multiprocessor reads quickly, so there are two kernels: the likeliest
// of each part of a row, all parts at once, and the likeliest of these.
//
//   const auto parts = greedy_parts<float>::count(logits.columns);     // room for candidate[rows * parts] in device memory
//   q.launch<greedy_parts<float>>({logits, candidates});
//   q.launch<greedy>({candidates, parts, rows, token});

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/pack.hpp>

#include <cstddef>
#include <limits>

namespace effinfer::inline v0::decoding::cuda {

/// A token and its logit; -1 and -infinity for none.
struct candidate {
  float value = -std::numeric_limits<float>::infinity();
  int id = -1;

  /// Becomes the likelier one, of equals the lower id. A NaN is never it.
  EFFINFER_HOST_DEVICE void meet(const candidate& other) {
    if (other.id >= 0 && (other.value > value || (other.value == value && other.id < id))) *this = other;
  }
};

namespace detail {
/// Of a warp, in all lanes.
template <class Simt>
EFFINFER_HOST_DEVICE void meet_in_warp(Simt& t, candidate& best) {
  for (int mask = execution::simt::warp_size / 2; mask > 0; mask /= 2)
    best.meet({t.shuffle_xor(best.value, mask), t.shuffle_xor(best.id, mask)});
}
}  // namespace detail

/// candidates[r][p] = the likeliest of part p of row r: a block each. Shapes: logits [R, V], candidates [R, count(V)]. T: float, bf16 or f16.
template <class T>
struct greedy_parts {
  struct args {
    matrix_view<const T> logits;
    candidate* candidates;
  };

  static int count(std::ptrdiff_t columns) { return static_cast<int>((columns + part - 1) / part); }
  static execution::simt::grid plan(const args& a) {
    return {count(a.logits.columns), static_cast<int>(a.logits.rows), threads,
            static_cast<int>(sizeof(float) + sizeof(int)) * warps};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto values = t.template shared<float>(warps);
    const auto ids = t.template shared<int>(warps);
    const T* const row = a.logits.row(t.block_y());
    const bool aligned = execution::simt::takes_packs<T, width>(row);
    execution::simt::pack<T, width> read[packs];
    EFFINFER_UNROLL
    for (int p = 0; p < packs; ++p) {
      const std::ptrdiff_t first = first_of(t, p), left = a.logits.columns - first;
      read[p] =
          execution::simt::load_pack<T, width>(row + first, static_cast<int>(left < width ? left : width), aligned);
    }
    candidate best;
    EFFINFER_UNROLL
    for (int p = 0; p < packs; ++p) {
      const std::ptrdiff_t first = first_of(t, p);
      EFFINFER_UNROLL
      for (int i = 0; i < width; ++i) {
        if (first + i < a.logits.columns) best.meet({static_cast<float>(read[p].v[i]), static_cast<int>(first + i)});
      }
    }
    detail::meet_in_warp(t, best);
    if (t.lane() == 0) values[t.warp()] = best.value, ids[t.warp()] = best.id;
    t.barrier();
    if (t.thread() != 0) return;
    for (int w = 1; w < warps; ++w) best.meet({values[w], ids[w]});
    a.candidates[t.block_y() * t.blocks() + t.block()] = best;
  }

 private:
  static constexpr int threads = 128, warps = threads / execution::simt::warp_size;
  static constexpr int width = 16 / static_cast<int>(sizeof(T)), packs = 2, part = threads * width * packs;

  /// Of the thread's pack number p.
  template <class Simt>
  EFFINFER_HOST_DEVICE static std::ptrdiff_t first_of(Simt& t, int p) {
    return std::ptrdiff_t{t.block()} * part + (p * threads + t.thread()) * width;
  }
};

/// token[r] = argmax_v logits[r][v], the lower id of equals; a NaN is never chosen, and -1 where there is nothing else or only -infinity.
/// Shapes: candidates [R, parts], of greedy_parts; token [R]. A warp a row.
struct greedy {
  struct args {
    const candidate* candidates;
    int parts, rows;
    int* token;
  };

  static execution::simt::grid plan(const args& a) { return {a.rows, 1, execution::simt::warp_size, 0}; }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const candidate* const of_row = a.candidates + std::ptrdiff_t{t.block()} * a.parts;
    candidate best;
    for (int p = t.lane(); p < a.parts; p += execution::simt::warp_size) best.meet(of_row[p]);
    detail::meet_in_warp(t, best);
    if (t.lane() == 0) a.token[t.block()] = best.id;
  }
};

}  // namespace effinfer::inline v0::decoding::cuda
