#pragma once
// The likeliest token of each row of logits, a block a row.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>

#include <limits>

namespace effinfer::inline v0::decoding::cuda {

/// token[r] = argmax_v logits[r][v], the lower id of equals; a NaN is never chosen, and -1 where there is nothing else or only
/// -infinity. Shapes: logits [R, V], token [R]. T: float, bf16 or f16.
template <class T>
struct greedy {
  struct args {
    matrix_view<const T> logits;
    int* token;
  };

  static execution::simt::grid plan(const args& a) {
    return {static_cast<int>(a.logits.rows), 1, threads, 2 * 4 * (threads / 32)};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto values = t.template shared<float>(threads / 32);
    const auto ids = t.template shared<int>(threads / 32);
    const T* const row = a.logits.row(t.block());
    candidate best;
    for (int v = t.thread(); v < static_cast<int>(a.logits.columns); v += threads)
      best.meet({static_cast<float>(row[v]), v});
    for (int mask = 16; mask > 0; mask /= 2) best.meet({t.shuffle_xor(best.value, mask), t.shuffle_xor(best.id, mask)});
    if (t.lane() == 0) values[t.warp()] = best.value, ids[t.warp()] = best.id;
    t.barrier();
    if (t.thread() != 0) return;
    for (int w = 1; w < threads / 32; ++w) best.meet({values[w], ids[w]});
    a.token[t.block()] = best.id;
  }

 private:
  static constexpr int threads = 256;
  struct candidate {
    float value = -std::numeric_limits<float>::infinity();
    int id = -1;
    EFFINFER_HOST_DEVICE void meet(const candidate& other) {
      if (other.id >= 0 && (other.value > value || (other.value == value && other.id < id))) *this = other;
    }
  };
};

}  // namespace effinfer::inline v0::decoding::cuda
