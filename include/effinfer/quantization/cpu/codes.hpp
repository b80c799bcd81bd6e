#pragma once
// 64 codes of a weight row in registers, and the steps by which formats load them: bytes, nibbles, single high bits.
// One register under AVX-512, two halves of 32 otherwise.

#include <effinfer/execution/vector.hpp>

#include <cstddef>
#include <cstdint>

namespace effinfer::inline v0::quantization {

namespace unpacking {

using execution::instruction_set;

template <int Lanes>
using bytes_of = typename execution::detail::lanes_of<std::uint8_t, Lanes>::type;

template <int Lanes>
EFFINFER_ALWAYS_INLINE void load_bytes(bytes_of<Lanes>& v, const void* p) {
  v = *static_cast<const typename execution::detail::lanes_of<std::uint8_t, Lanes>::unaligned*>(p);
}
template <int Lanes>
EFFINFER_ALWAYS_INLINE void store_bytes(void* p, const bytes_of<Lanes>& v) {
  *static_cast<typename execution::detail::lanes_of<std::uint8_t, Lanes>::unaligned*>(p) = v;
}

}  // namespace unpacking

/// Codes of 64 columns, as a format's file has them: unsigned, or signed in 8 bits.
template <execution::instruction_set Set>
struct code_vector {
  unpacking::bytes_of<32> low, high;
};
template <>
struct code_vector<execution::instruction_set::avx512> {
  unpacking::bytes_of<64> all;
};

namespace unpacking {

#if EFFINFER_X86
inline EFFINFER_TARGET_AVX512 void load_pair_avx512(bytes_of<64>& v, const void* a, const void* b) {
  const __m512i first = _mm512_castsi256_si512(_mm256_loadu_si256(static_cast<const __m256i*>(a)));
  v = reinterpret_cast<bytes_of<64>>(
      _mm512_maskz_inserti64x4(0xff, first, _mm256_loadu_si256(static_cast<const __m256i*>(b)), 1));
}
// 32 bytes, twice, of which the second copy is shifted right by 4.
inline EFFINFER_TARGET_AVX512 void load_nibbles_avx512(bytes_of<64>& v, const void* p) {
  const __m512i both = _mm512_maskz_broadcast_i64x4(0xff, _mm256_loadu_si256(static_cast<const __m256i*>(p)));
  const __m512i shifted = _mm512_maskz_srlv_epi64(0xff, both, _mm512_set_epi64(4, 4, 4, 4, 0, 0, 0, 0));
  v = reinterpret_cast<bytes_of<64>>(_mm512_and_si512(shifted, _mm512_set1_epi8(15)));
}
// 16 bytes of a, twice, then 16 of b, twice; every second copy shifted right by 4.
inline EFFINFER_TARGET_AVX512 void load_nibble_pair_avx512(bytes_of<64>& v, const void* a, const void* b) {
  const __m512i first = _mm512_maskz_broadcast_i32x4(0xffff, _mm_loadu_si128(static_cast<const __m128i*>(a)));
  const __m512i both = _mm512_mask_broadcast_i32x4(first, 0xff00, _mm_loadu_si128(static_cast<const __m128i*>(b)));
  const __m512i shifted = _mm512_maskz_srlv_epi64(0xff, both, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0));
  v = reinterpret_cast<bytes_of<64>>(_mm512_and_si512(shifted, _mm512_set1_epi8(15)));
}
inline EFFINFER_TARGET_AVX512 void add_16_where_avx512(bytes_of<64>& v, const std::uint64_t& bits) {
  const auto codes = reinterpret_cast<__m512i>(v);
  v = reinterpret_cast<bytes_of<64>>(_mm512_mask_add_epi8(codes, bits, codes, _mm512_set1_epi8(16)));
}
template <int First, int Second, int Mask>
inline EFFINFER_TARGET_AVX512 void add_planes_avx512(bytes_of<64>& v, const void* p) {
  const __m512i both = _mm512_maskz_broadcast_i64x4(0xff, _mm256_loadu_si256(static_cast<const __m256i*>(p)));
  const __m512i shifts = _mm512_set_epi64(Second, Second, Second, Second, First, First, First, First);
  const __m512i bits = _mm512_and_si512(_mm512_maskz_srlv_epi64(0xff, both, shifts), _mm512_set1_epi8(Mask));
  v = reinterpret_cast<bytes_of<64>>(
      _mm512_or_si512(reinterpret_cast<__m512i>(v), _mm512_maskz_slli_epi64(0xff, bits, 4)));
}
inline EFFINFER_TARGET_AVX512 void high_nibbles_avx512(bytes_of<64>& v) {
  const __m512i shifted = _mm512_maskz_srli_epi64(0xff, reinterpret_cast<__m512i>(v), 4);
  v = reinterpret_cast<bytes_of<64>>(_mm512_and_si512(shifted, _mm512_set1_epi8(15)));
}
inline EFFINFER_TARGET_AVX2 void load_nibble_half_avx2(bytes_of<32>& v, const void* p) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  const __m256i shifted = _mm256_srlv_epi64(both, _mm256_set_epi64x(4, 4, 0, 0));
  v = reinterpret_cast<bytes_of<32>>(_mm256_and_si256(shifted, _mm256_set1_epi8(15)));
}
#endif

/// 32 bytes of a, then 32 of b.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void load_pair(code_vector<Set>& v, const void* a, const void* b) {
  if constexpr (Set == instruction_set::avx512) {
    load_pair_avx512(v.all, a, b);
  } else {
    load_bytes<32>(v.low, a);
    load_bytes<32>(v.high, b);
  }
}
/// The low nibbles of 32 bytes, then the high ones.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void load_nibbles(code_vector<Set>& v, const void* p) {
  if constexpr (Set == instruction_set::avx512) {
    load_nibbles_avx512(v.all, p);
  } else {
    load_bytes<32>(v.low, p);
    v.high = v.low >> 4;
    v.low &= 15;
  }
}
/// The low nibbles of 16 bytes, then the high ones, of a and then of b.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void load_nibble_pair(code_vector<Set>& v, const std::byte* a, const std::byte* b) {
  if constexpr (Set == instruction_set::avx512) {
    load_nibble_pair_avx512(v.all, a, b);
  } else if constexpr (Set == instruction_set::avx2) {
    load_nibble_half_avx2(v.low, a);
    load_nibble_half_avx2(v.high, b);
  } else {
    std::uint8_t codes[64];
    for (int i = 0; i < 16; ++i) {
      codes[i] = static_cast<std::uint8_t>(a[i] & std::byte{15});
      codes[i + 16] = static_cast<std::uint8_t>(a[i] >> 4);
      codes[i + 32] = static_cast<std::uint8_t>(b[i] & std::byte{15});
      codes[i + 48] = static_cast<std::uint8_t>(b[i] >> 4);
    }
    load_pair<Set>(v, codes, codes + 32);
  }
}
/// The low (or high) nibble of each byte.
template <instruction_set Set, bool High>
EFFINFER_ALWAYS_INLINE void keep_nibbles(code_vector<Set>& v) {
  if constexpr (Set == instruction_set::avx512) {
    if constexpr (High) {
      high_nibbles_avx512(v.all);
    } else {
      v.all &= 15;
    }
  } else {
    v.low = High ? v.low >> 4 : v.low & 15;
    v.high = High ? v.high >> 4 : v.high & 15;
  }
}
/// Adds 16 where bit i of the 32 bits at a (for the first 32 codes) and b is set.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void add_fifth_bits(code_vector<Set>& v, const std::byte* a, const std::byte* b) {
  if constexpr (Set == instruction_set::avx512) {
    std::uint32_t first, second;
    __builtin_memcpy(&first, a, 4);
    __builtin_memcpy(&second, b, 4);
    add_16_where_avx512(v.all, first | std::uint64_t{second} << 32);
  } else {
    // Each byte of the bits to eight lanes, the lane's own bit kept.
    constexpr bytes_of<32> own_bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128,
                                      1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    bytes_of<32> spread{};
    for (int i = 0; i < 32; ++i) spread[i] = static_cast<std::uint8_t>(a[i / 8]);
    v.low += reinterpret_cast<bytes_of<32>>((spread & own_bit) == own_bit) & 16;
    for (int i = 0; i < 32; ++i) spread[i] = static_cast<std::uint8_t>(b[i / 8]);
    v.high += reinterpret_cast<bytes_of<32>>((spread & own_bit) == own_bit) & 16;
  }
}
/// Adds 16 * ((p[i] >> First) & Mask) to code i and 16 * ((p[i] >> Second) & Mask) to code 32 + i.
template <instruction_set Set, int First, int Second, int Mask>
EFFINFER_ALWAYS_INLINE void add_planes(code_vector<Set>& v, const void* p) {
  if constexpr (Set == instruction_set::avx512) {
    add_planes_avx512<First, Second, Mask>(v.all, p);
  } else {
    bytes_of<32> plane;
    load_bytes<32>(plane, p);
    constexpr auto mask = static_cast<std::uint8_t>(Mask);
    v.low |= ((plane >> First) & mask) << 4;
    v.high |= ((plane >> Second) & mask) << 4;
  }
}

}  // namespace unpacking
}  // namespace effinfer::inline v0::quantization
