#pragma once
// The two products of attention on a tile: scores = q k^T and out += p v, for a few query rows and up to 64 keys.
//
// Exact: a score is summed in sixteen lanes over ascending dimensions and its lanes in a fixed order; an output adds
// its keys in ascending order. Neither depends on how many rows or keys the tile has.
//
// Head sizes are run-time numbers: as a constant, D = 128 gained 1 to 4 %, and every size more is compiled anew.

#include <effinfer/execution/vector.hpp>
#include <effinfer/execution/vector_sums.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <cstddef>
#include <cstring>
#include <utility>

namespace effinfer::inline v0::attention::detail {

using execution::f32x16;
using execution::instruction_set;

inline constexpr int tile_keys = kv_cache::tile_positions;
/// Query rows that share a tile of keys.
inline constexpr int tile_rows = 32;
inline constexpr int largest_head_size = 512;
/// Floats of scratch for the rows of a tile: 32 rows of 256, or fewer of more.
inline constexpr int tile_floats = 32 * 256;

/// D rounded up to whole vectors: the stride of scratch rows.
constexpr int padded(int head_size) { return (head_size + 15) / 16 * 16; }

/// The tile that comes next: its rows are on their way from memory while this one is computed. Only where few query
/// rows share a tile, as then memory is the limit; null otherwise.
template <class T>
struct coming_rows {
  const T* start = nullptr;
  std::ptrdiff_t stride = 0;

  EFFINFER_ALWAYS_INLINE void fetch(int row, int size) const {
    const char* p = reinterpret_cast<const char*>(start + row * stride);
    for (int i = 0; i < size * static_cast<int>(sizeof(T)); i += 64) __builtin_prefetch(p + i);
  }
};

/// Rows x Keys dot products in registers. Index sequences and not loops: registers can't be indexed.
template <instruction_set Set, int Rows, int Keys>
struct score_block {
  using vector = f32x16<Set>;
  using all_rows = std::make_integer_sequence<int, Rows>;
  using all_keys = std::make_integer_sequence<int, Keys>;
  vector sum[Rows * Keys];

  template <class T>
  EFFINFER_ALWAYS_INLINE void run(const float* q, std::ptrdiff_t q_stride, const T* k, std::ptrdiff_t k_stride,
                                  int size, float* s, std::ptrdiff_t s_stride) {
    clear(std::make_integer_sequence<int, Rows * Keys>{});
    for (int d = 0; d < size; d += 16) step(q + d, q_stride, k + d, k_stride, all_rows{}, all_keys{});
    float all[Rows * Keys];
    execution::sums<Set>(sum, all);
    for (int r = 0; r < Rows; ++r) std::memcpy(s + r * s_stride, all + r * Keys, Keys * sizeof(float));
  }

 private:
  template <int... I>
  EFFINFER_ALWAYS_INLINE void clear(std::integer_sequence<int, I...>) {
    ((sum[I] = vector::zero()), ...);
  }
  template <class T, int... R, int... K>
  EFFINFER_ALWAYS_INLINE void step(const float* q, std::ptrdiff_t q_stride, const T* k, std::ptrdiff_t k_stride,
                                   std::integer_sequence<int, R...> rows, std::integer_sequence<int, K...>) {
    const vector query[Rows] = {vector::load(q + R * q_stride)...};
    (add<K>(query, vector::load(k + K * k_stride), rows), ...);
  }
  template <int K, int... R>
  EFFINFER_ALWAYS_INLINE void add(const vector (&query)[Rows], const vector& key, std::integer_sequence<int, R...>) {
    ((sum[R * Keys + K] = fma(query[R], key, sum[R * Keys + K])), ...);
  }
};

/// A tile's keys or values in float.
template <class T>
struct widen_tile {
  struct args {
    const T* from;  ///< [rows, D], stride apart
    std::ptrdiff_t stride;
    int rows;
    int size;   ///< D
    float* to;  ///< [rows, padded D], zeros behind D
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = f32x16<Set>;
    const int whole = padded(a.size);
    for (int r = 0; r < a.rows; ++r) {
      const T* from = a.from + r * a.stride;
      float* to = a.to + r * whole;
      for (int d = 0; d < whole; d += 16) {
        const int left = a.size - d;
        (left >= 16 ? vector::load(from + d) : vector::load_first(from + d, left)).store(to + d);
      }
    }
  }
};

template <>
struct widen_tile<kv_cache::int8> {
  struct args {
    const kv_cache::int8* from;
    std::ptrdiff_t stride;
    int rows;
    int size;
    float* to;
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = f32x16<Set>;
    const int whole = padded(a.size);
    const vector middle = vector::broadcast(128.0f);
    for (int r = 0; r < a.rows; ++r) {
      const auto* codes = reinterpret_cast<const std::uint8_t*>(a.from + r * a.stride);
      float scale;
      __builtin_memcpy(&scale, codes + a.size, sizeof scale);
      const vector factor = vector::broadcast(scale);
      float* to = a.to + r * whole;
      for (int d = 0; d < whole; d += 16) {
        const int left = a.size - d;
        const vector v = left >= 16 ? vector::load(codes + d) : vector::load_first(codes + d, left, 128.0f);
        ((v - middle) * factor).store(to + d);
      }
      for (int d = a.size; d < whole; ++d) to[d] = 0.0f;  // also where the scale is NaN
    }
  }
};

template <>
struct widen_tile<fp8_e4m3> {
  struct args {
    const fp8_e4m3* from;
    std::ptrdiff_t stride;
    int rows;
    int size;
    float* to;
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    const int whole = padded(a.size);
    for (int r = 0; r < a.rows; ++r) {
      const fp8_e4m3* from = a.from + r * a.stride;
      float* to = a.to + r * whole;
      int d = 0;
      for (; d + 16 <= a.size; d += 16) {
        for (int i = 0; i < 16; ++i)
          to[d + i] = static_cast<float>(from[d + i]);  // sixteen at once where the compiler can
      }
      for (; d < a.size; ++d) to[d] = static_cast<float>(from[d]);
      for (; d < whole; ++d) to[d] = 0.0f;
    }
  }
};

/// s[r][n] = q[r] . k[n] over a tile.
template <class T>
struct score_tile {
  struct args {
    const float* q;  ///< [rows, padded D], zeros behind D
    int rows;
    const T* k;  ///< [keys, D], k_stride apart
    std::ptrdiff_t k_stride;
    int keys;
    int size;  ///< D
    float* s;  ///< [rows, keys and up to 15 more that are overwritten], s_stride apart
    std::ptrdiff_t s_stride;
    T* copy;  ///< scratch, [16, padded D]; null where k has 15 more rows to read, and its rows are padded
    coming_rows<T> next;
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    // Sixteen sums fill half of AVX-512's registers; four vectors are eight of AVX2's sixteen.
    constexpr int n = Set == instruction_set::avx512 ? 16 : 4;
    constexpr int most_rows = Set == instruction_set::avx512 ? 4 : 2;
    int r = 0;
    for (; r + most_rows <= a.rows; r += most_rows) rows<Set, most_rows, n / most_rows>(a, r);
    if constexpr (most_rows == 4) {
      if (r + 2 <= a.rows) rows<Set, 2, n / 2>(a, r), r += 2;
    }
    if (r < a.rows) rows<Set, 1, n>(a, r);
  }

 private:
  template <instruction_set Set, int Rows, int Keys>
  static EFFINFER_ALWAYS_INLINE void rows(const args& a, int r) {
    const int size = padded(a.size);
    const float* q = a.q + std::ptrdiff_t{r} * size;
    float* s = a.s + r * a.s_stride;
    const int whole = a.copy == nullptr ? (a.keys + Keys - 1) / Keys * Keys : size == a.size ? a.keys / Keys * Keys : 0;
    score_block<Set, Rows, Keys> block;
    for (int n = 0; n < whole; n += Keys) {
      if (r == 0 && a.next.start != nullptr) {
        for (int i = 0; i < Keys; ++i) a.next.fetch(n + i, size);
      }
      block.run(q, size, a.k + n * a.k_stride, a.k_stride, size, s + n, a.s_stride);
    }
    // The last few keys, and heads of odd size, are copied to where whole vectors can be read.
    for (int n = whole; n < a.keys; n += Keys) {
      T* copy = a.copy;
      const int some = a.keys - n < Keys ? a.keys - n : Keys;
      for (int i = 0; i < some; ++i) {
        std::memcpy(copy + i * size, a.k + (n + i) * a.k_stride, static_cast<std::size_t>(a.size) * sizeof(T));
        std::memset(copy + i * size + a.size, 0, static_cast<std::size_t>(size - a.size) * sizeof(T));
      }
      std::memset(copy + some * size, 0, static_cast<std::size_t>((Keys - some) * size) * sizeof(T));
      block.run(q, size, copy, size, size, s + n, a.s_stride);
    }
  }
};

/// Rows x Vectors pieces of output in registers while a tile's values go by.
template <instruction_set Set, int Rows, int Vectors>
struct mix_block {
  using vector = f32x16<Set>;
  using all = std::make_integer_sequence<int, Rows * Vectors>;
  vector sum[Rows * Vectors];

  /// out[r] += sum over n in [begin, end) of p[r][n] v[n], 16 Vectors dimensions; of the only vector the first `left`
  /// alone.
  template <class T>
  EFFINFER_ALWAYS_INLINE void run(const float* p, std::ptrdiff_t p_stride, const T* v, std::ptrdiff_t v_stride,
                                  int begin, int end, float* out, std::ptrdiff_t out_stride, int left,
                                  const coming_rows<T>& next, int size) {
    load(out, out_stride, all{});
    for (int n = begin; n < end; ++n) {
      if (next.start != nullptr) next.fetch(n, size);
      step(p + n, p_stride, v + n * v_stride, left, std::make_integer_sequence<int, Rows>{},
           std::make_integer_sequence<int, Vectors>{});
    }
    store(out, out_stride, all{});
  }

 private:
  template <int... I>
  EFFINFER_ALWAYS_INLINE void load(const float* out, std::ptrdiff_t stride, std::integer_sequence<int, I...>) {
    ((sum[I] = vector::load(out + I / Vectors * stride + I % Vectors * 16)), ...);
  }
  template <int... I>
  EFFINFER_ALWAYS_INLINE void store(float* out, std::ptrdiff_t stride, std::integer_sequence<int, I...>) const {
    (sum[I].store(out + I / Vectors * stride + I % Vectors * 16), ...);
  }
  template <class T, int... R, int... V>
  EFFINFER_ALWAYS_INLINE void step(const float* p, std::ptrdiff_t p_stride, const T* v, int left,
                                   std::integer_sequence<int, R...>, std::integer_sequence<int, V...> vectors) {
    const vector value[Vectors] = {(left == 16 ? vector::load(v + V * 16) : vector::load_first(v, left))...};
    (add<R>(vector::broadcast(p[R * p_stride]), value, vectors), ...);
  }
  template <int R, int... V>
  EFFINFER_ALWAYS_INLINE void add(const vector& weight, const vector (&value)[Vectors],
                                  std::integer_sequence<int, V...>) {
    ((sum[R * Vectors + V] = fma(weight, value[V], sum[R * Vectors + V])), ...);
  }
};

/// out[r] += sum over n in [begin[r], end[r]) of p[r][n] v[n].
template <class T>
struct mix_tile {
  struct args {
    const float* p;  ///< [rows, tile_keys], p_stride apart
    std::ptrdiff_t p_stride;
    int rows;
    const int* begin;
    const int* end;
    const T* v;  ///< row n of the tile at v + n * v_stride
    std::ptrdiff_t v_stride;
    int size;    ///< D
    float* out;  ///< [rows, padded D]
    coming_rows<T> next;
  };

  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    for (int r = 0; r < a.rows;) {
      const int b = a.begin[r], e = a.end[r];
      bool alike = r + 4 <= a.rows;
      for (int i = 1; alike && i < 4; ++i) alike = a.begin[r + i] == b && a.end[r + i] == e;
      if (alike) {
        if (b < e) rows<Set, 4, Set == instruction_set::avx512 ? 4 : 1>(a, r, b, e);
        r += 4;
      } else {
        if (b < e) rows<Set, 1, Set == instruction_set::avx512 ? 8 : 4>(a, r, b, e);
        r += 1;
      }
    }
  }

 private:
  template <instruction_set Set, int Rows, int Vectors>
  static EFFINFER_ALWAYS_INLINE void rows(const args& a, int r, int begin, int end) {
    const std::ptrdiff_t stride = padded(a.size);
    const float* p = a.p + r * a.p_stride;
    float* out = a.out + r * stride;
    int d = 0;
    mix_block<Set, Rows, Vectors> wide;
    for (; d + 16 * Vectors <= a.size; d += 16 * Vectors) {
      wide.run(p, a.p_stride, a.v + d, a.v_stride, begin, end, out + d, stride, 16,
               r + d == 0 ? a.next : coming_rows<T>{}, a.size);
    }
    if (d == a.size) return;
    mix_block<Set, Rows, 1> narrow;
    for (; d < a.size; d += 16) {
      narrow.run(p, a.p_stride, a.v + d, a.v_stride, begin, end, out + d, stride, a.size - d < 16 ? a.size - d : 16,
                 coming_rows<T>{}, 0);
    }
  }
};

}  // namespace effinfer::inline v0::attention::detail
