#pragma once
// The two products of attention for one warp: up to 16 query rows with a strip of 16 keys, and their weights with its values, which lie in
// shared memory as the cache stores them. What a lane holds of scores and outputs is what execution::simt::d_element says, so that
// query_rows.hpp does the rest.
//
// Activations and caches of one 16-bit type meet on matrix instructions as they are. Keys of int8 and fp8 become that type on the way into
// the registers, which is exact (of int8 the codes; scores are multiplied with the scale), values of int8 are multiplied with their scale and
// rounded to it. Weights are rounded to it. Other types (float among them) are multiplied as floats, rounded nowhere, and slower.

#include <effinfer/attention/cuda/cache_rows.hpp>
#include <effinfer/attention/cuda/query_rows.hpp>
#include <effinfer/core/config.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace effinfer::inline v0::attention::cuda {

/// Keys of a strip, and query rows.
inline constexpr int strip_keys = 16;

/// True where attention multiplies on matrix instructions of T.
template <class T, class Element>
inline constexpr bool on_matrix_instructions =
    (std::is_same_v<T, bf16> || std::is_same_v<T, f16>) &&
    (std::is_same_v<Element, T> || std::is_same_v<Element, kv_cache::int8> || std::is_same_v<Element, fp8_e4m3>);

namespace detail {

/// Words from a row of a strip to the next: rows below each other begin in other banks, at multiples of 16 bytes.
template <class Element, int D>
inline constexpr int strip_pitch = D / cache_row<Element, D>::per_word + 4;

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

/// As floats. In all of these `rows` are the lane's two query rows, lane / 4 and 8 below it.
template <class T, class Element, int D>
struct strip_products {
  using row = cache_row<Element, D>;
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
  EFFINFER_HOST_DEVICE static void multiply_query(Simt& t, const query& q, Shared keys, float (&score)[1][2][4]) {
    for (int w = 0; w < D / row::per_word; ++w) {
      std::uint32_t k[4];
      EFFINFER_UNROLL
      for (int i = 0; i < 4; ++i) k[i] = keys[(i / 2 * 8 + t.lane() % 4 * 2 + i % 2) * pitch + w];
      EFFINFER_UNROLL
      for (int n = 0; n < row::per_word; ++n) {
        EFFINFER_UNROLL
        for (int i = 0; i < 8; ++i) {
          score[0][i / 4][i % 4] += static_cast<float>(q.rows[i % 4 / 2][w * row::per_word + n]) *
                                    row::number(k[i / 4 * 2 + i % 2], n);
        }
      }
    }
  }

  /// out += p v.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void multiply_values(Simt& t, Shared values, const float (&weight)[1][2][4],
                                                   float (&out)[1][D / 8][4]) {
    EFFINFER_UNROLL
    for (int key = 0; key < strip_keys; ++key) {
      float p[2];
      EFFINFER_UNROLL
      for (int i = 0; i < 2; ++i)
        p[i] = t.shuffle(weight[0][key / 8][i * 2 + key % 2], t.lane() / 4 * 4 + key % 8 / 2) *
               row::scale(values, key, pitch);
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
  static constexpr int pitch = detail::strip_pitch<Element, D>;
  /// Numbers of 8 bits come four in a word. The order of a sum's terms is free: the four of a word stand in one lane's operands, where pairs of
  /// 16 bits would be 8 apart. And columns of outputs may lie in any: the four are those of four products.
  static constexpr bool in_bytes = sizeof(Element) == 1;

  struct query {
    std::uint32_t words[D / 16][4];
  };
  template <class Simt>
  EFFINFER_HOST_DEVICE static query load_query(Simt& t, const T* const (&rows)[2]) {
    query q;
    EFFINFER_UNROLL
    for (int i = 0; i < D / 4; ++i) {
      const int half = i % 4 / 2, within = t.lane() % 4;
      const int d = i / 4 * 16 + (in_bytes ? within * 4 + half * 2 : half * 8 + within * 2);
      q.words[i / 4][i % 4] = detail::load_pair(rows[i % 2] + d);
    }
    return q;
  }

  EFFINFER_HOST_DEVICE static constexpr int column(int lane, int c, int e) {
    const int within = lane % 4 * 2 + e % 2;
    return in_bytes ? c / 4 * 32 + within * 4 + c % 4 : c * 8 + within;
  }

  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void multiply_query(Simt& t, const query& q, Shared keys, float (&score)[1][2][4]) {
    const int lane = t.lane();
    EFFINFER_UNROLL
    for (int k = 0; k < D / 16; ++k) {
      std::uint32_t b[2][2];
      if constexpr (in_bytes) {
        EFFINFER_UNROLL
        for (int n = 0; n < 2; ++n) {
          const std::uint32_t word = keys[(n * 8 + lane / 4) * pitch + k * 4 + lane % 4];
          EFFINFER_UNROLL
          for (int i = 0; i < 2; ++i)
            b[n][i] = detail::pair<T>(row::number(word, i * 2), row::number(word, i * 2 + 1));
        }
      } else {
        load_two(t, keys, (lane / 16 * 8 + lane % 8) * pitch + k * 8 + lane / 8 % 2 * 4, b, std::false_type{});
      }
      EFFINFER_UNROLL
      for (int n = 0; n < 2; ++n) t.mma(score[0][n], q.words[k], b[n], T{});
    }
  }

  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void multiply_values(Simt& t, Shared values, const float (&weight)[1][2][4],
                                                   float (&out)[1][D / 8][4]) {
    const int lane = t.lane();
    // The weights of two neighbouring tiles of 8 keys lie in the registers as the first operand wants them.
    std::uint32_t p[4];
    EFFINFER_UNROLL
    for (int i = 0; i < 4; ++i)
      p[i] = detail::pair<T>(weight[0][i / 2][i % 2 * 2], weight[0][i / 2][i % 2 * 2 + 1]);
    if constexpr (in_bytes) {
      const auto key = [lane](int i) { return i / 2 * 8 + lane % 4 * 2 + i % 2; };
      float scale[4];
      EFFINFER_UNROLL
      for (int i = 0; i < 4; ++i) scale[i] = row::scale(values, key(i), pitch);
      EFFINFER_UNROLL
      for (int g = 0; g < D / 32; ++g) {
        std::uint32_t word[4];
        EFFINFER_UNROLL
        for (int i = 0; i < 4; ++i) word[i] = values[key(i) * pitch + g * 8 + lane / 4];
        EFFINFER_UNROLL
        for (int c = 0; c < 4; ++c) {
          std::uint32_t b[2];
          EFFINFER_UNROLL
          for (int i = 0; i < 2; ++i)
            b[i] = detail::pair<T>(row::number(word[i * 2], c) * scale[i * 2],
                                   row::number(word[i * 2 + 1], c) * scale[i * 2 + 1]);
          t.mma(out[0][g * 4 + c], p, b, T{});
        }
      }
    } else {
      EFFINFER_UNROLL
      for (int n = 0; n < D / 16; ++n) {
        std::uint32_t b[2][2];
        load_two(t, values, lane % 16 * pitch + n * 8 + lane / 16 * 4, b, std::true_type{});
        EFFINFER_UNROLL
        for (int i = 0; i < 2; ++i) t.mma(out[0][n * 2 + i], p, b[i], T{});
      }
    }
  }

 private:
  /// Two second operands of t.mma.
  template <class Simt, class Shared, bool Transposed>
  EFFINFER_HOST_DEVICE static void load_two(Simt& t, Shared from, int place, std::uint32_t (&b)[2][2],
                                            std::bool_constant<Transposed>) {
    std::uint32_t r[4];
    if constexpr (Transposed) {
      t.load_matrices_transposed(from, place, r);
    } else {
      t.load_matrices(from, place, r);
    }
    EFFINFER_UNROLL
    for (int i = 0; i < 4; ++i) b[i / 2][i % 2] = r[i];
  }
};

}  // namespace effinfer::inline v0::attention::cuda
