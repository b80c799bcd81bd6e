#pragma once
// Matrices of weights as the products of a GPU read them, and how 16 bytes of one become operands of a matrix instruction.
//
// The order in which a sum runs over the inputs is free, as long as weights and activations agree on it. Here lane 4 g + c of a
// warp (g in [0, 8), c in [0, 4)) holds the inputs 8 c ... 8 c + 7 of each 32, which two instructions mma.m16n8k16 consume: the first
// takes inputs 8 c ... + 3 of each lane, the second the rest. So 16 bytes of activations are two operands as they lie in memory, 16
// bytes of 16-bit weights likewise, and nothing is moved between lanes. Integer codes are put offline into the order that makes unpacking
// a mask and an addition (pack.hpp).
//
// A strip is 16 rows of the matrix (outputs), a unit 64 inputs of a strip. A lane's share of a unit is `pieces` times 16 bytes, and where codes
// have bits beyond those, `high_words` times 4 (block_weights.hpp).
//
// Weights with a group have scales, and what else codes need, in runs of sixteen, one a row of a strip: `unit_halves` runs of f16 and
// `unit_bytes` runs of bytes a unit, which products may bring to shared memory, where scale_in and center_in find theirs.
//
// Source of the conversions: Kim et al., "Who Says Elephants Can't Run: Bringing Large Scale MoE Models into Cloud Scale
// Production" (2022), section 3.3: a code put into the low bits of a float's fraction is that float plus the code.

#include <effinfer/core/config.hpp>
#include <effinfer/core/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace effinfer::inline v0::quantization::cuda {

inline constexpr int strip_rows = 16;
inline constexpr int unit_inputs = 64;

/// Units of a strip. Unsigned, as a signed division takes several instructions.
EFFINFER_HOST_DEVICE constexpr int units_across(int columns) {
  return static_cast<int>(static_cast<unsigned>(columns) / unit_inputs);
}

/// Sixteen bytes, as they are loaded at once, and half as many.
struct alignas(16) words {
  std::uint32_t w[4];
};
struct alignas(8) word_pair {
  std::uint32_t w[2];
};

/// Word i of packed unit `unit` of all. 32 bits, which are enough for matrices of 64 GiB, take a register and an addition less.
EFFINFER_HOST_DEVICE constexpr std::uint32_t word_of(int unit, int pieces, int i) {
  return static_cast<std::uint32_t>(unit) * static_cast<std::uint32_t>(pieces * 32) + static_cast<std::uint32_t>(i);
}

/// Words of global memory that will be read again, at a multiple of their size.
template <class Words = words>
EFFINFER_HOST_DEVICE Words load_words(const void* p) {
#if defined(__CUDA_ARCH__)
  return *static_cast<const Words*>(p);
#else
  Words v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
#endif
}

/// The same of 16 bytes that are read once: they pass the first-level cache by.
EFFINFER_HOST_DEVICE inline words load_words_once(const void* p) {
#if defined(__CUDA_ARCH__)
  words v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
               : "l"(p));
  return v;
#else
  return load_words(p);
#endif
}

/// The same pointer to global memory, which compilers then don't compute anew where it is used.
template <class T>
EFFINFER_HOST_DEVICE inline const T* keep(const T* p) {
#if defined(__CUDA_ARCH__)
  std::size_t at = __cvta_generic_to_global(p);
  asm("" : "+l"(at));
  p = static_cast<const T*>(__cvta_global_to_generic(at));
#endif
  return p;
}

/// a & mask | bits, which compilers don't find by themselves where both are constants.
EFFINFER_HOST_DEVICE inline std::uint32_t and_or(std::uint32_t a, std::uint32_t mask, std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  std::uint32_t out;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(out) : "r"(a), "r"(mask), "r"(bits));
  return out;
#else
  return (a & mask) | bits;
#endif
}

/// The sums of two pairs of T.
template <class T>
EFFINFER_HOST_DEVICE inline std::uint32_t add_pairs(std::uint32_t a, std::uint32_t b) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, f16>);
#if defined(__CUDA_ARCH__)
  std::uint32_t sum;
  if constexpr (std::is_same_v<T, bf16>) {
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(0x3f803f80U), "r"(b));  // sm_80 has no add
  } else {
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(a), "r"(b));
  }
  return sum;
#else
  const auto half = [](std::uint32_t v, int shift) {
    return static_cast<float>(T::from_bits(static_cast<std::uint16_t>(v >> shift)));
  };
  return static_cast<std::uint32_t>(T(half(a, 0) + half(b, 0)).bits) |
         static_cast<std::uint32_t>(T(half(a, 16) + half(b, 16)).bits) << 16;
#endif
}

/// T, twice.
template <class T>
EFFINFER_HOST_DEVICE inline std::uint32_t pair_of(float v) {
  return T(v).bits * 0x00010001U;
}

/// The products of two pairs of T, which must be exact.
template <class T>
EFFINFER_HOST_DEVICE inline std::uint32_t multiply_pairs(std::uint32_t a, std::uint32_t b) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, f16>);
#if defined(__CUDA_ARCH__)
  std::uint32_t product;
  if constexpr (std::is_same_v<T, bf16>) {
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(a), "r"(b), "r"(0x80008000U));  // sm_80 has no mul
  } else {
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  }
  return product;
#else
  const auto half = [](std::uint32_t v, int shift) {
    return static_cast<float>(T::from_bits(static_cast<std::uint16_t>(v >> shift)));
  };
  return static_cast<std::uint32_t>(T(half(a, 0) * half(b, 0)).bits) |
         static_cast<std::uint32_t>(T(half(a, 16) * half(b, 16)).bits) << 16;
#endif
}

/// A float whose last fraction bit counts one, so that its lower bits are an integer to be added.
template <class T>
inline constexpr float integer_base = std::is_same_v<T, bf16> ? 128.0F : 1024.0F;
template <class T>
inline constexpr std::uint32_t integer_base_bits = std::is_same_v<T, bf16> ? 0x43004300U : 0x64006400U;
/// -(integer_base + value), twice, of a value below 128.
template <class T>
EFFINFER_HOST_DEVICE constexpr std::uint32_t minus_integer(int value) {
  return (integer_base_bits<T> | 0x80008000U) + static_cast<std::uint32_t>(value) * 0x00010001U;
}

/// bf16 or f16 as checkpoints have them: row r at data + r * stride. 16-byte aligned rows.
template <class T>
struct float_weights {
  static constexpr int pieces = 4;
  static constexpr int group = 0;       ///< inputs that share a scale; 0: nothing to scale within a row
  static constexpr int high_words = 0;  ///< of 4 bytes
  static constexpr int unit_halves = 0, unit_bytes = 0;
  static constexpr bool may_have_minimum = false;  ///< something is added to each weight of a group
  template <class X>
  static constexpr bool multiplies = std::is_same_v<X, T>;

  const T* data = nullptr;
  std::ptrdiff_t stride = 0;  ///< in elements
  int rows = 0, columns = 0;

  EFFINFER_HOST_DEVICE const void* piece(int strip, int unit, int p, int lane) const {
    const int row = strip * strip_rows + lane / 4 + p % 2 * 8;
    return data + (row < rows ? row : rows - 1) * stride + unit * unit_inputs + p / 2 * 32 + lane % 4 * 8;
  }
  /// Piece p of a unit is so many bytes behind piece p % piece_bases of one u units before it.
  static constexpr int piece_bases = 2;
  EFFINFER_HOST_DEVICE static constexpr int piece_bytes(int u, int p) { return (u * unit_inputs + p / 2 * 32) * 2; }
  /// The A operand of step j in [0, 4) of a unit.
  template <class X>
  EFFINFER_HOST_DEVICE static void unpack(const words* raw, const std::uint32_t*, int j, const std::uint32_t*,
                                          std::uint32_t (&a)[4]) {
    const words &upper = raw[j / 2 * 2], &lower = raw[j / 2 * 2 + 1];
    a[0] = upper.w[j % 2 * 2], a[1] = lower.w[j % 2 * 2], a[2] = upper.w[j % 2 * 2 + 1], a[3] = lower.w[j % 2 * 2 + 1];
  }
  EFFINFER_HOST_DEVICE float row_scale(int) const { return 1; }
};

/// int8 codes with one scale a row: w = scale[row] * q. Packed by pack_int8; rows are filled up to whole strips with zeros.
struct int8_weights {
  static constexpr int pieces = 2;
  static constexpr int group = 0, high_words = 0, unit_halves = 0, unit_bytes = 0;
  static constexpr bool may_have_minimum = false;
  template <class X>
  static constexpr bool multiplies = std::is_same_v<X, bf16> || std::is_same_v<X, f16>;

  const words* units = nullptr;   ///< [strips][columns / 64][2][32]
  const float* scales = nullptr;  ///< [rows]
  int rows = 0, columns = 0;

  EFFINFER_HOST_DEVICE const void* piece(int strip, int unit, int p, int lane) const {
    return units + word_of(strip * units_across(columns) + unit, pieces, p * 32 + lane);
  }
  static constexpr int piece_bases = 1;
  EFFINFER_HOST_DEVICE static constexpr int piece_bytes(int u, int p) { return (u * pieces + p) * 512; }
  /// Two codes in the lower bytes of 16-bit halves.
  template <class X>
  EFFINFER_HOST_DEVICE static std::uint32_t pair(std::uint32_t codes) {
    if constexpr (std::is_same_v<X, bf16>) {
      // Seven fraction bits hold the lower bits of the code; its sign is worth -128, one bit of the exponent of 128.
      const std::uint32_t low = and_or(codes, 0x007f007fU, 0x43004300U), sign = and_or(codes, 0x00800080U, 0xc300c300U);
      return add_pairs<bf16>(low, sign);  // (128 + low) - (sign set ? 256 : 128)
    } else {
      return add_pairs<f16>((codes & 0x00ff00ffU) ^ 0x64806480U, pair_of<f16>(-1152.0F));  // 1024 + (code + 128)
    }
  }
  template <class X>
  EFFINFER_HOST_DEVICE static void unpack(const words* raw, const std::uint32_t*, int j, const std::uint32_t*,
                                          std::uint32_t (&a)[4]) {
    const std::uint32_t upper = raw[j / 2].w[j % 2], lower = raw[j / 2].w[2 + j % 2];
    a[0] = pair<X>(upper), a[1] = pair<X>(lower), a[2] = pair<X>(upper >> 8), a[3] = pair<X>(lower >> 8);
  }
  EFFINFER_HOST_DEVICE float row_scale(int row) const { return scales[row]; }
};

/// int4 codes q in [0, 15] in groups of Group inputs: w = scale[group] * (q - zero[group]), the zero 8 where there are no zeros. Packed by
/// pack_int4; rows are filled up to whole strips with scales of zero.
template <int Group>
struct int4_weights {
  static_assert(Group == 32 || Group == 64 || Group == 128, "effinfer: int4 groups have 32, 64 or 128 inputs");
  static constexpr int pieces = 1;
  static constexpr int group = Group, high_words = 0;
  static constexpr int unit_halves = Group < unit_inputs ? unit_inputs / Group : 1, unit_bytes = unit_halves;
  static constexpr bool may_have_minimum = false;
  template <class X>
  static constexpr bool multiplies = std::is_same_v<X, bf16> || std::is_same_v<X, f16>;

  const words* units = nullptr;         ///< [strips][columns / 64][32]
  const f16* scales = nullptr;          ///< [strips][columns / Group][16]
  const std::uint8_t* zeros = nullptr;  ///< the same shape, each in [0, 16]; null: 8
  int rows = 0, columns = 0;

  EFFINFER_HOST_DEVICE const void* piece(int strip, int unit, int, int lane) const {
    return units + word_of(strip * units_across(columns) + unit, pieces, lane);
  }
  static constexpr int piece_bases = 1;
  EFFINFER_HOST_DEVICE static constexpr int piece_bytes(int u, int p) { return (u * pieces + p) * 512; }
  [[nodiscard]] EFFINFER_HOST_DEVICE std::ptrdiff_t group_place(int strip, int g, int row) const {
    return std::ptrdiff_t{strip * (columns / Group) + g} * strip_rows + row;
  }
  EFFINFER_HOST_DEVICE float scale(int strip, int g, int row) const {
    return static_cast<float>(scales[group_place(strip, g, row)]);
  }
  EFFINFER_HOST_DEVICE int zero(int strip, int g, int row) const {
    return zeros != nullptr ? static_cast<int>(zeros[group_place(strip, g, row)]) : 8;
  }
  /// What is added to 128 + q (bf16) or 1024 + q (f16) for q - zero, twice.
  template <class X>
  EFFINFER_HOST_DEVICE static std::uint32_t center(int zero) {
    return minus_integer<X>(zero);
  }
  template <class X>
  [[nodiscard]] EFFINFER_HOST_DEVICE std::uint32_t center_of(int strip, int g, int row) const {
    return center<X>(zero(strip, g, row));
  }
  /// Run i of a unit; null: it isn't there.
  [[nodiscard]] EFFINFER_HOST_DEVICE const f16* halves(int strip, int unit, int i) const {
    return scales + group_place(strip, unit * unit_inputs / Group + i, 0);
  }
  [[nodiscard]] EFFINFER_HOST_DEVICE const std::uint8_t* bytes(int strip, int unit, int i) const {
    return zeros == nullptr ? nullptr : zeros + group_place(strip, unit * unit_inputs / Group + i, 0);
  }
  static constexpr bool may_be_wide = false;  ///< a scale may be more than a group's
  static constexpr bool is_wide() { return false; }
  /// From the runs of some groups, g among them.
  template <class Halves, class Bytes>
  EFFINFER_HOST_DEVICE float scale_in(int, int, Halves of, Bytes, int g, int row) const {
    return static_cast<float>(static_cast<f16>(of[g * strip_rows + row]));
  }
  template <class X, class Bytes>
  EFFINFER_HOST_DEVICE std::uint32_t center_in(Bytes of, int g, int row) const {
    return center<X>(zeros != nullptr ? static_cast<int>(static_cast<std::uint8_t>(of[g * strip_rows + row])) : 8);
  }
  /// `centers`: of the lane's rows g and g + 8.
  template <class X>
  EFFINFER_HOST_DEVICE static void unpack(const words* raw, const std::uint32_t*, int j, const std::uint32_t* centers,
                                          std::uint32_t (&a)[4]) {
    for (int r = 0; r < 2; ++r) {
      const std::uint32_t codes = raw->w[j / 2 * 2 + r] >> (j % 2 * 8);
      a[r] = add_pairs<X>(and_or(codes, 0x000f000fU, integer_base_bits<X>), centers[r]);
      a[2 + r] = add_pairs<X>(and_or(codes >> 4, 0x000f000fU, integer_base_bits<X>), centers[r]);
    }
  }
  EFFINFER_HOST_DEVICE float row_scale(int) const { return 1; }
};

/// FP8 E4M3 codes, packed as int8's. w = scale * code with Group 0 a scale a row, with Group 128 one for 128 inputs of each strip: the blocks
/// of 128 x 128 that checkpoints have, eight strips a block, or any rows' that are the same within strips. No code is a NaN's.
///
/// Source of the layout of blocks: DeepSeek-AI, "DeepSeek-V3 Technical Report" (2024), section 3.3.2.
template <int Group>
struct fp8_weights {
  static_assert(Group == 0 || Group == 128, "effinfer: fp8 weights have a scale a row or blocks of 128 inputs");
  static constexpr bool is_fp8 = true;
  static constexpr int pieces = 2;
  static constexpr int group = Group, high_words = 0, unit_halves = 0, unit_bytes = 0;
  static constexpr bool may_have_minimum = false;
  template <class X>
  static constexpr bool multiplies = std::is_same_v<X, bf16> || std::is_same_v<X, f16>;

  const words* units = nullptr;   ///< [strips][columns / 64][2][32]
  const float* scales = nullptr;  ///< [rows], or [strips][columns / 128]
  int rows = 0, columns = 0;

  EFFINFER_HOST_DEVICE const void* piece(int strip, int unit, int p, int lane) const {
    return units + word_of(strip * units_across(columns) + unit, pieces, p * 32 + lane);
  }
  static constexpr int piece_bases = 1;
  EFFINFER_HOST_DEVICE static constexpr int piece_bytes(int u, int p) { return (u * pieces + p) * 512; }
  /// Two codes in the lower bytes of 16-bit halves: their bits in the places of a float of 16 bits, whose exponent is then too small by the
  /// difference of the biases; as a subnormal too.
  template <class X>
  EFFINFER_HOST_DEVICE static std::uint32_t pair(std::uint32_t codes) {
    constexpr int shift = std::is_same_v<X, bf16> ? 4 : 7;
    const std::uint32_t bits = (codes & 0x00800080U) << 8 | (codes & 0x007f007fU) << shift;
    return multiply_pairs<X>(bits, pair_of<X>(std::is_same_v<X, bf16> ? 0x1p120F : 0x1p8F));
  }
  template <class X>
  EFFINFER_HOST_DEVICE static void unpack(const words* raw, const std::uint32_t*, int j, const std::uint32_t*,
                                          std::uint32_t (&a)[4]) {
    const std::uint32_t upper = raw[j / 2].w[j % 2], lower = raw[j / 2].w[2 + j % 2];
    a[0] = pair<X>(upper), a[1] = pair<X>(lower), a[2] = pair<X>(upper >> 8), a[3] = pair<X>(lower >> 8);
  }
  EFFINFER_HOST_DEVICE float row_scale(int row) const {
    if constexpr (Group == 0) return scales[row];
    return 1;
  }
  EFFINFER_HOST_DEVICE float scale(int strip, int g, int) const {
    return scales[std::ptrdiff_t{strip} * (columns / 128) + g];
  }
  template <class X>
  EFFINFER_HOST_DEVICE std::uint32_t center_of(int, int, int) const {
    return 0;
  }
  static constexpr bool may_be_wide = false;  ///< a scale may be more than a group's
  static constexpr bool is_wide() { return false; }
  EFFINFER_HOST_DEVICE const f16* halves(int, int, int) const { return nullptr; }
  EFFINFER_HOST_DEVICE const std::uint8_t* bytes(int, int, int) const { return nullptr; }
  template <class Halves, class Bytes>
  EFFINFER_HOST_DEVICE float scale_in(int strip, int unit, Halves, Bytes, int, int) const {
    return scale(strip, unit / 2, 0);
  }
  template <class X, class Bytes>
  EFFINFER_HOST_DEVICE std::uint32_t center_in(Bytes, int, int) const {
    return 0;
  }
};

}  // namespace effinfer::inline v0::quantization::cuda
