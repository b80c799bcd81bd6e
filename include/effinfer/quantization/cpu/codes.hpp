#pragma once
// How the codes of a panel lie in memory. Sixteen rows lie side by side: a group is four columns of each, 64 bytes, one
// 32-bit lane a row, which is what a dot product of bytes adds up by itself. A block is 32 columns, eight groups.
//
//   codes_8_bit  group g in bytes [64 g, 64 g + 64)
//   codes_4_bit  64 bytes hold groups 2 i (low nibbles) and 2 i + 1 (high nibbles)
//   codes_5_bit  the same, then 64 bytes whose bit g is the fifth bit of group g
//   codes_6_bit  the same, then twice 64 bytes: bits 2 i, 2 i + 1 of plane h are the top two of group 4 h + i
//
// Codes are unsigned: the format's offset has been added (quantization/README.md).

#include <effinfer/execution/vector.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace effinfer::inline v0::quantization {

using execution::instruction_set;

inline constexpr int rows_a_half = 16;
inline constexpr int rows_a_panel = 32;  ///< two halves, whose units alternate in memory

namespace detail {

template <int Lanes>
using bytes_of = typename execution::detail::lanes_of<std::uint8_t, Lanes>::type;

template <int Lanes>
EFFINFER_ALWAYS_INLINE void load_bytes(bytes_of<Lanes>& v, const std::byte* p) {
  v = *reinterpret_cast<const typename execution::detail::lanes_of<std::uint8_t, Lanes>::unaligned*>(p);
}

/// A group in registers.
template <instruction_set Set>
struct code_group {
  static constexpr int registers = execution::base_of(Set) == instruction_set::avx512 ? 1
                                   : execution::base_of(Set) == instruction_set::avx2 ? 2
                                                                                      : 4;
  static constexpr int lanes = 64 / registers;
  bytes_of<lanes> part[registers];

  /// The 64 bytes at p, each register of them changed by f.change<lanes>(register, its offset).
  template <class F>
  EFFINFER_ALWAYS_INLINE void load(const std::byte* p, const F& f) {
    apply<0>(p, f);
  }
  EFFINFER_ALWAYS_INLINE void store(std::byte* p) const { __builtin_memcpy(p, part, 64); }
  // No loops: g++ keeps what is indexed in memory.
  EFFINFER_ALWAYS_INLINE void subtract(std::uint8_t offset) {
    part[0] -= offset;
    if constexpr (registers > 1) part[1] -= offset;
    if constexpr (registers > 2) part[2] -= offset, part[3] -= offset;
  }

 private:
  template <int I, class F>
  EFFINFER_ALWAYS_INLINE void apply(const std::byte* p, const F& f) {
    load_bytes<lanes>(part[I], p + I * lanes);
    f.template change<lanes>(part[I], I * lanes);
    if constexpr (I + 1 < registers) apply<I + 1>(p, f);
  }
};

// What is done to the bytes on their way into registers. Structs, as lambdas don't take on a caller's instruction set.
struct as_they_are {
  template <int Lanes>
  EFFINFER_ALWAYS_INLINE void change(bytes_of<Lanes>&, int) const {}
};
template <int Shift>
struct nibbles {
  template <int Lanes>
  EFFINFER_ALWAYS_INLINE void change(bytes_of<Lanes>& v, int) const {
    if constexpr (Shift == 0) {
      v &= 15;
    } else {
      v >>= 4;
    }
  }
};
/// A nibble and, above it, the bits of `Mask` of a byte of `plane`, shifted left by `Left` (right, if below zero).
template <int Shift, int Left, int Mask>
struct nibbles_and_plane {
  const std::byte* plane;
  template <int Lanes>
  EFFINFER_ALWAYS_INLINE void change(bytes_of<Lanes>& v, int offset) const {
    nibbles<Shift>().template change<Lanes>(v, offset);
    // In words, as x86 has no shifts of bytes (g++ adds instead); what crosses from byte to byte is masked.
    using words = typename execution::detail::lanes_of<std::uint16_t, Lanes / 2>::type;
    bytes_of<Lanes> bytes;
    load_bytes<Lanes>(bytes, plane + offset);
    auto high = reinterpret_cast<words>(bytes);
    if constexpr (Left >= 0) {
      high <<= Left;
    } else {
      high >>= -Left;
    }
    v |= reinterpret_cast<bytes_of<Lanes>>(high) & static_cast<std::uint8_t>(Mask);
  }
};

}  // namespace detail

/// Codes of 8 bits. Each of these structs says how many bytes a block takes, its largest code, what a row's lane of it holds (its 32 codes as words,
/// bytes_a_block / 64 of them, each of which lies in 64 bytes of its own), how the codes are read back, and how a group is loaded.
struct codes_8_bit {
  static constexpr int bytes_a_block = 512, largest = 255;
  static void to_words(const std::uint8_t* codes, std::uint32_t* words) { __builtin_memcpy(words, codes, 32); }
  static void fetch(const std::byte* block, int lane, std::uint8_t* codes) {
    for (int g = 0; g < 8; ++g) __builtin_memcpy(codes + g * 4, block + g * 64 + lane * 4, 4);
  }
  template <instruction_set Set, int Group>
  static EFFINFER_ALWAYS_INLINE void load(const std::byte* block, detail::code_group<Set>& v) {
    v.load(block + Group * 64, detail::as_they_are());
  }
};

struct codes_4_bit {
  static constexpr int bytes_a_block = 256, largest = 15;
  static void to_words(const std::uint8_t* codes, std::uint32_t* words) {
    std::uint32_t groups[8];
    __builtin_memcpy(groups, codes, 32);
    for (int i = 0; i < 4; ++i) words[i] = (groups[2 * i] & 0x0f0f0f0fu) | (groups[2 * i + 1] & 0x0f0f0f0fu) << 4;
  }
  static void fetch(const std::byte* block, int lane, std::uint8_t* codes) {
    for (int i = 0; i < 4; ++i) {
      std::uint32_t both;
      __builtin_memcpy(&both, block + i * 64 + lane * 4, 4);
      const std::uint32_t low = both & 0x0f0f0f0fu, high = (both >> 4) & 0x0f0f0f0fu;
      __builtin_memcpy(codes + i * 8, &low, 4);
      __builtin_memcpy(codes + i * 8 + 4, &high, 4);
    }
  }
  template <instruction_set Set, int Group>
  static EFFINFER_ALWAYS_INLINE void load(const std::byte* block, detail::code_group<Set>& v) {
    v.load(block + Group / 2 * 64, detail::nibbles<Group % 2 * 4>());
  }
};

struct codes_5_bit {
  static constexpr int bytes_a_block = 320, largest = 31;
  static void to_words(const std::uint8_t* codes, std::uint32_t* words) {
    codes_4_bit::to_words(codes, words);
    std::uint32_t groups[8];
    __builtin_memcpy(groups, codes, 32);
    words[4] = 0;
    for (int g = 0; g < 8; ++g) words[4] |= ((groups[g] >> 4) & 0x01010101u) << g;
  }
  static void fetch(const std::byte* block, int lane, std::uint8_t* codes) {
    codes_4_bit::fetch(block, lane, codes);
    for (int i = 0; i < 4; ++i) {
      const auto bits = static_cast<unsigned>(block[256 + lane * 4 + i]);
      for (int g = 0; g < 8; ++g)
        codes[g * 4 + i] = static_cast<std::uint8_t>(codes[g * 4 + i] | ((bits >> g) & 1u) << 4);
    }
  }
  template <instruction_set Set, int Group>
  static EFFINFER_ALWAYS_INLINE void load(const std::byte* block, detail::code_group<Set>& v) {
    v.load(block + Group / 2 * 64, detail::nibbles_and_plane<Group % 2 * 4, 4 - Group, 16>{block + 256});
  }
};

struct codes_6_bit {
  static constexpr int bytes_a_block = 384, largest = 63;
  static void to_words(const std::uint8_t* codes, std::uint32_t* words) {
    codes_4_bit::to_words(codes, words);
    std::uint32_t groups[8];
    __builtin_memcpy(groups, codes, 32);
    for (int plane = 0; plane < 2; ++plane) {
      words[4 + plane] = 0;
      for (int g = 0; g < 4; ++g) words[4 + plane] |= ((groups[plane * 4 + g] >> 4) & 0x03030303u) << (2 * g);
    }
  }
  static void fetch(const std::byte* block, int lane, std::uint8_t* codes) {
    codes_4_bit::fetch(block, lane, codes);
    for (int plane = 0; plane < 2; ++plane) {
      for (int i = 0; i < 4; ++i) {
        const auto bits = static_cast<unsigned>(block[256 + plane * 64 + lane * 4 + i]);
        for (int g = 0; g < 4; ++g) {
          std::uint8_t& code = codes[plane * 16 + g * 4 + i];
          code = static_cast<std::uint8_t>(code | ((bits >> (2 * g)) & 3u) << 4);
        }
      }
    }
  }
  template <instruction_set Set, int Group>
  static EFFINFER_ALWAYS_INLINE void load(const std::byte* block, detail::code_group<Set>& v) {
    v.load(block + Group / 2 * 64,
           detail::nibbles_and_plane<Group % 2 * 4, 4 - Group % 4 * 2, 48>{block + 256 + Group / 4 * 64});
  }
};

/// The codes of `Packed`, a byte each.
template <class Packed>
struct codes_in_bytes : codes_8_bit {
  static constexpr int largest = Packed::largest;
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void unpack(const std::byte* packed, std::byte* block) {
    unpack<Set>(packed, block, std::make_integer_sequence<int, 8>());
  }

 private:
  template <instruction_set Set, int... Group>
  static EFFINFER_ALWAYS_INLINE void unpack(const std::byte* packed, std::byte* block,
                                            std::integer_sequence<int, Group...>) {
    detail::code_group<Set> v[8];
    (Packed::template load<Set, Group>(packed, v[Group]), ...);
    (v[Group].store(block + Group * 64), ...);
  }
};

}  // namespace effinfer::inline v0::quantization
