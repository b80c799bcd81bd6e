#pragma once
// The two products of attention for one warp: up to 16 query rows with a strip of keys, and their weights with its values, which lie in
// shared memory as the cache stores them. What a lane holds of scores and outputs is what execution::simt::d_element says, so that
// query_rows.hpp does the rest.
//
// Activations and caches of one 16-bit type meet on matrix instructions as they are. Keys of int8 and fp8 become that type on the way into
// the registers, which is exact: of int8 the codes. Scores are multiplied with the scales of keys; weights with those of values, or, where that
// type is f16, values with theirs, which are then rounded to it. Weights are rounded to it. Other types (float among them) are multiplied as
// floats, rounded nowhere, and slower.

#include <effinfer/attention/cuda/cache_rows.hpp>
#include <effinfer/attention/cuda/query_rows.hpp>
#include <effinfer/core/config.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/execution/simt/number_pairs.hpp>
#include <effinfer/kv_cache/view.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace effinfer::inline v0::attention::cuda {

/// Keys of a strip of heads of D: as many as the registers hold scores of.
template <int D>
inline constexpr int strip_keys = D > 128 ? 16 : 32;

/// True where attention multiplies on matrix instructions of T.
template <class T, class Element>
inline constexpr bool on_matrix_instructions = (std::is_same_v<T, bf16> || std::is_same_v<T, f16>)&&(
    std::is_same_v<Element, T> || std::is_same_v<Element, kv_cache::int8> || std::is_same_v<Element, fp8_e4m3>);

namespace detail {

/// Words from a row of a strip to the next: rows below each other begin in other banks; at multiples of 16 bytes but for int8, whose rows lie
/// as they do in a cache that has them one after another.
template <class Element, int D>
inline constexpr int strip_pitch = cache_row<Element, D>::words + (cache_row<Element, D>::scaled ? 0 : 4);

/// The keys or the values of positions [key, key + strip_keys<D>) of one head, on their way to a strip's rows, Pitch words apart. Called by a
/// warp. Positions outside [begin, end), which isn't empty there: any row of it. No strip crosses a multiple of kv_cache::tile_positions.
template <bool Values, int D, int Pitch, class Simt, class View, class Shared>
EFFINFER_HOST_DEVICE void fetch_strip(Simt& t, const View& cache, int kv_head, int key, int begin, int end, Shared to) {
  using element = typename View::element_type;
  using row = cache_row<element, D>;
  static_assert(kv_cache::tile_positions % strip_keys<D> == 0);
  constexpr int copy_words = row::copy_bytes / 4, copy_elements = row::copy_bytes / static_cast<int>(sizeof(element));
  constexpr int pieces = row::words / copy_words;
  const auto row_of = [&](int position) {
    return Values ? cache.value(kv_head, position) : cache.key(kv_head, position);
  };
  const bool whole = key >= begin && key + strip_keys<D> <= end && are_rows_apart(cache, key + strip_keys<D>);
  if constexpr (row::scaled) {
    static_assert(Pitch == row::words && strip_keys<D> * Pitch % 4 == 0);
    const element* const from = row_of(whole ? key : begin);
    if (whole && cache.row_stride == kv_cache::row_elements<element>(D) &&
        reinterpret_cast<std::uintptr_t>(from) % 16 == 0) {
      EFFINFER_UNROLL
      for (int i = t.lane() * 4; i < strip_keys<D> * Pitch; i += 128)
        t.copy_async(to, i, reinterpret_cast<const std::uint32_t*>(from) + i);
      return;
    }
  } else if (pieces <= 32 && whole) {
    constexpr int at_once = pieces <= 32 ? static_cast<int>(std::bit_floor(32U / pieces)) : 1;  // rows
    const std::ptrdiff_t stride = cache.row_stride;
    const int r = t.lane() / pieces, q = t.lane() % pieces;
    if (at_once * pieces < 32 && r >= at_once) return;
    const element* from = row_of(key) + r * stride + q * copy_elements;
    EFFINFER_UNROLL
    for (int i = 0; i < strip_keys<D>; i += at_once) {
      t.copy_async(to, (r + i) * Pitch + q * copy_words, reinterpret_cast<const std::uint32_t*>(from));
      from += at_once * stride;
    }
    return;
  }
  EFFINFER_KEEP_ROLLED
  for (int i = t.lane(); i < strip_keys<D> * pieces; i += 32) {
    const int r = i / pieces, q = i % pieces;
    int p = key + r < begin ? begin : key + r;
    if (p >= end) p = end - 1;
    t.template copy_async<row::copy_bytes>(to, r * Pitch + q * copy_words,
                                           reinterpret_cast<const std::uint32_t*>(row_of(p) + q * copy_elements));
  }
}

/// Bytes `low` of a and b, then `low` + 1 of both.
EFFINFER_HOST_DEVICE inline std::uint32_t interleave(std::uint32_t a, std::uint32_t b, int low) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(a, b, low == 0 ? 0x5140U : 0x7362U);
#else
  const auto byte = [](std::uint32_t word, int i) { return word >> (i * 8) & 0xffU; };
  return byte(a, low) | byte(b, low) << 8 | byte(a, low + 1) << 16 | byte(b, low + 1) << 24;
#endif
}

/// The four numbers of a word of int8 (its codes) or fp8 as pairs of T. Exact.
template <class T, class Element>
EFFINFER_HOST_DEVICE void to_pairs(std::uint32_t word, std::uint32_t (&to)[2]) {
  using row = cache_row<Element, 64>;
  EFFINFER_UNROLL
  for (int i = 0; i < 2; ++i) {
#if defined(__CUDA_ARCH__)
    if constexpr (row::scaled) {
      const std::uint32_t spread =
          __byte_perm(word, std::is_same_v<T, f16> ? 0x64646464U : 0U, i == 0 ? 0x4140U : 0x4342U);
      if constexpr (std::is_same_v<T, f16>) {  // 1024 + byte
        to[i] = quantization::cuda::add_pairs<T>(spread, quantization::cuda::pair_of<T>(-1152.0F));
      } else {  // 128 + the lower seven bits, less 128 where the eighth is set, else 256
        to[i] = quantization::cuda::add_pairs<T>((spread & 0x007f007fU) | 0x43004300U,
                                                 (spread & 0x00800080U) ^ 0xc380c380U);
      }
      continue;
    }
#endif
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    if constexpr (!row::scaled) {
      asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(to[i]) : "h"(static_cast<std::uint16_t>(word >> (i * 16))));
      if constexpr (std::is_same_v<T, bf16>) {
        to[i] =
            execution::simt::round_pair<T>(static_cast<float>(f16::from_bits(static_cast<std::uint16_t>(to[i]))),
                                           static_cast<float>(f16::from_bits(static_cast<std::uint16_t>(to[i] >> 16))));
      }
      continue;
    }
#endif
    to[i] = execution::simt::round_pair<T>(row::number(word, i * 2), row::number(word, i * 2 + 1));
  }
}

/// Numbers d and d + 1 of a row of queries.
template <class T>
EFFINFER_HOST_DEVICE std::uint32_t load_pair(const T* from) {
#if defined(__CUDA_ARCH__)
  return *reinterpret_cast<const std::uint32_t*>(from);
#else
  std::uint32_t both;
  __builtin_memcpy(&both, from, sizeof both);
  return both;
#endif
}

}  // namespace detail

/// Scores of a lane, then weights.
template <int D>
using strip_tile = float[1][strip_keys<D> / 8][4];

/// As floats. In all of these `rows` are the lane's two query rows, lane / 4 and 8 below it.
template <class T, class Element, int D>
struct strip_products {
  using row = cache_row<Element, D>;
  using tile = strip_tile<D>;
  static constexpr int pitch = detail::strip_pitch<Element, D>;

  struct query {
    const T* rows[2];
  };
  template <class Simt>
  EFFINFER_HOST_DEVICE static query load_query(Simt&, const T* const (&rows)[2]) {
    return {{rows[0], rows[1]}};
  }

  /// The column of the output that element e of the lane's out[c] is.
  EFFINFER_HOST_DEVICE static constexpr int column(int lane, int c, int e) { return c * 8 + lane % 4 * 2 + e % 2; }

  /// score += q k^T.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void multiply_query(Simt& t, const query& q, Shared keys, tile& score) {
    constexpr int own = strip_keys<D> / 4;  // keys of a lane
    for (int w = 0; w < D / row::per_word; ++w) {
      std::uint32_t k[own];
      EFFINFER_UNROLL
      for (int i = 0; i < own; ++i) k[i] = keys[(i / 2 * 8 + t.lane() % 4 * 2 + i % 2) * pitch + w];
      EFFINFER_UNROLL
      for (int n = 0; n < row::per_word; ++n) {
        EFFINFER_UNROLL
        for (int i = 0; i < own * 2; ++i) {
          score[0][i / 4][i % 4] +=
              static_cast<float>(q.rows[i % 4 / 2][w * row::per_word + n]) * row::number(k[i / 4 * 2 + i % 2], n);
        }
      }
    }
  }

  /// out += p v.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void multiply_values(Simt& t, Shared values, const tile& weight,
                                                   float (&out)[1][D / 8][4]) {
    EFFINFER_UNROLL
    for (int key = 0; key < strip_keys<D>; ++key) {
      float p[2];
      EFFINFER_UNROLL
      for (int i = 0; i < 2; ++i)
        p[i] = t.shuffle(weight[0][key / 8][i * 2 + key % 2], t.lane() / 4 * 4 + key % 8 / 2) * row::scale(values, key);
      EFFINFER_UNROLL
      for (int i = 0; i < D / 4; ++i) {
        const int d = column(t.lane(), i / 2, i);
        const float v = row::number(values[key * pitch + d / row::per_word], d % row::per_word);
        out[0][i / 2][i % 2] += p[0] * v;
        out[0][i / 2][2 + i % 2] += p[1] * v;
      }
    }
  }
};

/// On matrix instructions.
template <class T, class Element, int D>
  requires on_matrix_instructions<T, Element>
struct strip_products<T, Element, D> {
  using row = cache_row<Element, D>;
  using tile = strip_tile<D>;
  static constexpr int pitch = detail::strip_pitch<Element, D>;
  /// Numbers of 8 bits come four in a word. The order of a sum's terms is free: the four of a word stand in one lane's operands, where pairs of
  /// 16 bits would be 8 apart. And columns of outputs may lie in any: the four are those of four products. Which words a lane has is
  /// so that lanes read different banks, for either pitch.
  static constexpr bool in_bytes = sizeof(Element) == 1;
  EFFINFER_HOST_DEVICE static constexpr int word_of_key(int step, int within) {
    return row::scaled ? within * (D / 16) + step : step * 4 + within;
  }
  EFFINFER_HOST_DEVICE static constexpr int word_of_value(int step, int group) {
    return row::scaled ? group * (D / 32) + step : step * 8 + group;
  }

  /// The scales of values go to the weights where T has the exponents of a float, else to the values.
  static constexpr bool weights_scaled = row::scaled && std::is_same_v<T, bf16>;

  struct query {
    std::uint32_t words[D / 16][4];
  };
  template <class Simt>
  EFFINFER_HOST_DEVICE static query load_query(Simt& t, const T* const (&rows)[2]) {
    query q;
    EFFINFER_UNROLL
    for (int i = 0; i < D / 4; ++i) {
      const int k = i / 4, half = i % 4 / 2, within = t.lane() % 4;
      const int d = in_bytes ? word_of_key(k, within) * 4 + half * 2 : k * 16 + half * 8 + within * 2;
      q.words[k][i % 4] = detail::load_pair(rows[i % 2] + d);
    }
    return q;
  }

  EFFINFER_HOST_DEVICE static constexpr int column(int lane, int c, int e) {
    const int within = lane % 4 * 2 + e % 2;
    return in_bytes ? word_of_value(c / 4, within) * 4 + c % 4 : c * 8 + within;
  }

  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void multiply_query(Simt& t, const query& q, Shared keys, tile& score) {
    const int lane = t.lane();
    EFFINFER_UNROLL
    for (int k = 0; k < D / 16; ++k) {
      EFFINFER_UNROLL
      for (int n = 0; n < strip_keys<D> / 8; n += 2) {
        std::uint32_t b[2][2];
        if constexpr (in_bytes) {
          EFFINFER_UNROLL
          for (int i = 0; i < 2; ++i) {
            detail::to_pairs<T, Element>(keys[((n + i) * 8 + lane / 4) * pitch + word_of_key(k, lane % 4)], b[i]);
          }
        } else {
          detail::load_two(t, keys, (n * 8 + lane / 16 * 8 + lane % 8) * pitch + k * 8 + lane / 8 % 2 * 4, b,
                           std::false_type{});
        }
        EFFINFER_UNROLL
        for (int i = 0; i < 2; ++i) t.mma(score[0][n + i], q.words[k], b[i], T{});
      }
    }
  }

  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void multiply_values(Simt& t, Shared values, const tile& weight,
                                                   float (&out)[1][D / 8][4]) {
    const int lane = t.lane();
    EFFINFER_UNROLL
    for (int k = 0; k < strip_keys<D> / 16; ++k) {
      const auto key = [lane, k](int i) { return k * 16 + i / 2 * 8 + lane % 4 * 2 + i % 2; };
      float scale[4];
      EFFINFER_UNROLL
      for (int i = 0; i < 4; ++i) scale[i] = row::scale(values, key(i));
      // The weights of two neighbouring tiles of 8 keys lie in the registers as the first operand wants them.
      std::uint32_t p[4];
      EFFINFER_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float(&w)[4] = weight[0][k * 2 + i / 2];
        const float low = w[i % 2 * 2], high = w[i % 2 * 2 + 1];
        p[i] = weights_scaled ? execution::simt::round_pair<T>(low * scale[i / 2 * 2], high * scale[i / 2 * 2 + 1])
                              : execution::simt::round_pair<T>(low, high);
      }
      if constexpr (in_bytes) {
        EFFINFER_UNROLL
        for (int g = 0; g < D / 32; ++g) {
          std::uint32_t word[4];
          EFFINFER_UNROLL
          for (int i = 0; i < 4; ++i) word[i] = values[key(i) * pitch + word_of_value(g, lane / 4)];
          EFFINFER_UNROLL
          for (int c = 0; c < 4; c += 2) {
            std::uint32_t b[2][2];  // of keys, then of columns
            EFFINFER_UNROLL
            for (int i = 0; i < 2; ++i) {
              detail::to_pairs<T, Element>(detail::interleave(word[i * 2], word[i * 2 + 1], c), b[i]);
              if constexpr (row::scaled && !weights_scaled) {
                EFFINFER_UNROLL
                for (int column = 0; column < 2; ++column) {
                  b[i][column] = execution::simt::round_pair<T>(number(b[i][column], 0) * scale[i * 2],
                                                                number(b[i][column], 1) * scale[i * 2 + 1]);
                }
              }
            }
            EFFINFER_UNROLL
            for (int column = 0; column < 2; ++column) {
              const std::uint32_t of_column[2] = {b[0][column], b[1][column]};
              t.mma(out[0][g * 4 + c + column], p, of_column, T{});
            }
          }
        }
      } else {
        EFFINFER_UNROLL
        for (int n = 0; n < D / 16; ++n) {
          std::uint32_t b[2][2];
          detail::load_two(t, values, (k * 16 + lane % 16) * pitch + n * 8 + lane / 16 * 4, b, std::true_type{});
          EFFINFER_UNROLL
          for (int i = 0; i < 2; ++i) t.mma(out[0][n * 2 + i], p, b[i], T{});
        }
      }
    }
  }

 private:
  EFFINFER_HOST_DEVICE static float number(std::uint32_t both, int i) {
    return static_cast<float>(T::from_bits(static_cast<std::uint16_t>(both >> (i * 16))));
  }
};

}  // namespace effinfer::inline v0::attention::cuda
