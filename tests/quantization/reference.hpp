#pragma once
// What the tests of this folder share: matrices of random blocks in every format, and a decoder of our own reading of
// the formats, bit by bit in double precision, apart from the library's.

#include "execution/instruction_sets.hpp"

#include <effinfer/execution/cpu.hpp>
#include <effinfer/quantization/matmul.hpp>
#include <effinfer/quantization/pack.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace reference {

namespace ei = effinfer;
namespace eq = effinfer::quantization;
using ei::weight_format;

inline const std::vector<ei::execution::instruction_set>& sets() {
  static const std::vector<ei::execution::instruction_set> all = instruction_sets::supported();
  return all;
}

inline const std::vector<eq::storage>& storages() {
  static const std::vector<eq::storage> all = {
      {weight_format::f32},      {weight_format::f16},      {weight_format::bf16},     {weight_format::q8_0},
      {weight_format::q4_0},     {weight_format::q4_1},     {weight_format::q5_0},     {weight_format::q5_1},
      {weight_format::q4_k},     {weight_format::q5_k},     {weight_format::q6_k},     {weight_format::int8},
      {weight_format::int4, 32}, {weight_format::int4, 64}, {weight_format::int4, 128}};
  return all;
}

inline int columns_multiple(eq::storage s) { return s.group > 0 ? s.group : ei::block_size(s.format); }

/// Bytes that end where a page that can't be read begins, at any offset from alignment.
class guarded_bytes {
 public:
  explicit guarded_bytes(std::size_t n) : size_(n), page_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    mapped_ = (n + page_ - 1) / page_ * page_ + page_;
    base_ = static_cast<std::byte*>(mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + mapped_ - page_, page_, PROT_NONE);
  }
  ~guarded_bytes() { munmap(base_, mapped_); }
  guarded_bytes(const guarded_bytes&) = delete;
  guarded_bytes& operator=(const guarded_bytes&) = delete;
  std::byte* data() const { return base_ + mapped_ - page_ - size_; }
  std::size_t size() const { return size_; }

 private:
  std::size_t size_, page_, mapped_ = 0;
  std::byte* base_ = nullptr;
};

/// A matrix of random codes (or of one byte everywhere) and sane scales, its bytes at the end of a page.
struct matrix {
  std::unique_ptr<guarded_bytes> bytes;
  std::vector<float> scales;
  eq::weight_matrix view;
};

inline void put_half(std::byte* p, float value) {
  const ei::f16 h(value);
  std::memcpy(p, &h.bits, 2);
}

inline matrix random_matrix(eq::storage s, std::ptrdiff_t rows, std::ptrdiff_t columns, unsigned seed,
                            std::optional<std::byte> everywhere = {}) {
  matrix m;
  m.view.format = s.format;
  m.view.rows = rows;
  m.view.columns = columns;
  m.view.group = s.group;
  // int8 rows of exactly `columns` bytes: no padding to hide behind.
  m.view.row_bytes = s.format == weight_format::int8 ? columns : eq::row_bytes(s.format, columns, s.group);
  m.bytes = std::make_unique<guarded_bytes>(static_cast<std::size_t>(rows * m.view.row_bytes));
  m.view.data = m.bytes->data();
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto scale = [&] {
    return (random() % 4 == 0 ? -1.0f : 1.0f) * (0.01f + 0.0001f * static_cast<float>(random() % 100));
  };
  std::byte* p = m.bytes->data();
  for (std::size_t i = 0; i < m.bytes->size(); ++i) p[i] = everywhere.value_or(static_cast<std::byte>(random()));
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    std::byte* row = p + r * m.view.row_bytes;
    m.scales.push_back(0.001f + 0.0001f * static_cast<float>(random() % 50));
    if (s.format == weight_format::int4) {
      for (std::byte* h = row + (columns + 63) / 64 * 32; h < row + m.view.row_bytes; h += 2) put_half(h, scale());
      if (columns % 64 != 0) std::memset(row + columns / 64 * 32, 0, 32);
      if (columns % 64 != 0) {
        for (int i = 0; i < 32; ++i)
          row[columns / 64 * 32 + i] = everywhere.value_or(static_cast<std::byte>(random())) & std::byte{15};
      }
      continue;
    }
    const int block = ei::block_size(s.format), bytes = ei::block_bytes(s.format);
    if (bytes == 0) continue;
    for (std::ptrdiff_t b = 0; b < columns / block; ++b) {
      std::byte* at = row + b * bytes;
      const float value = normal(random);
      const ei::bf16 brain(value);
      switch (s.format) {
        case weight_format::f32: std::memcpy(at, &value, 4); break;
        case weight_format::f16: put_half(at, value); break;
        case weight_format::bf16: std::memcpy(at, &brain.bits, 2); break;
        case weight_format::q4_1:
        case weight_format::q5_1:
        case weight_format::q4_k:
        case weight_format::q5_k:
          put_half(at, scale());
          put_half(at + 2, scale());
          break;
        case weight_format::q6_k: put_half(at + 208, scale()); break;
        default: put_half(at, scale()); break;
      }
    }
  }
  m.view.scales = m.scales.data();
  return m;
}

inline double half_at(const std::byte* p) {
  std::uint16_t bits;
  std::memcpy(&bits, p, 2);
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}
inline unsigned byte_at(const std::byte* p) { return static_cast<unsigned>(*p); }
inline unsigned bit_at(const std::byte* p, int bit) { return (byte_at(p + bit / 8) >> (bit % 8)) & 1u; }
/// The n-bit number whose lowest bit is bit `first` of the bytes at p.
inline unsigned bits_at(const std::byte* p, int first, int n) {
  unsigned v = 0;
  for (int i = 0; i < n; ++i) v |= bit_at(p, first + i) << i;
  return v;
}

/// Value `column` of a row.
inline double value_at(const eq::weight_matrix& w, std::ptrdiff_t row, std::ptrdiff_t column) {
  const std::byte* line = w.data + row * w.row_bytes;
  const int size = ei::block_size(w.format);
  const std::byte* b = line + column / size * ei::block_bytes(w.format);
  const int i = static_cast<int>(column % size);
  const int half = i % 32 / 16 * 4, place = i % 16;  // of the formats of 32 with nibbles
  switch (w.format) {
    case weight_format::f32: {
      float v;
      std::memcpy(&v, b, 4);
      return static_cast<double>(v);
    }
    case weight_format::f16: return half_at(b);
    case weight_format::bf16: {
      const std::uint32_t bits = (byte_at(b) | byte_at(b + 1) << 8) << 16;
      float v;
      std::memcpy(&v, &bits, 4);
      return static_cast<double>(v);
    }
    case weight_format::q8_0: return half_at(b) * static_cast<std::int8_t>(byte_at(b + 2 + i));
    case weight_format::q4_0: return half_at(b) * (static_cast<int>(bits_at(b + 2 + place, half, 4)) - 8);
    case weight_format::q4_1: return half_at(b) * bits_at(b + 4 + place, half, 4) + half_at(b + 2);
    case weight_format::q5_0:
      return half_at(b) * (static_cast<int>(bits_at(b + 6 + place, half, 4) + 16 * bit_at(b + 2, i)) - 16);
    case weight_format::q5_1:
      return half_at(b) * (bits_at(b + 8 + place, half, 4) + 16 * bit_at(b + 4, i)) + half_at(b + 2);
    case weight_format::q4_k:
    case weight_format::q5_k: {
      const std::byte* s = b + 4;
      const int j = i / 32;
      const unsigned scale = j < 4 ? bits_at(s + j, 0, 6) : bits_at(s + 4 + j, 0, 4) | bits_at(s + j - 4, 6, 2) << 4;
      const unsigned least = j < 4 ? bits_at(s + 4 + j, 0, 6) : bits_at(s + 4 + j, 4, 4) | bits_at(s + j, 6, 2) << 4;
      const bool five = w.format == weight_format::q5_k;
      unsigned q = bits_at(b + (five ? 48 : 16) + j / 2 * 32 + i % 32, j % 2 * 4, 4);
      if (five) q |= bit_at(b + 16 + i % 32, j) << 4;
      return half_at(b) * scale * q - half_at(b + 2) * least;
    }
    case weight_format::q6_k: {
      const int in_half = i % 128, part = in_half / 32, l = in_half % 32, h = i / 128;
      const unsigned q =
          bits_at(b + 64 * h + 32 * (part % 2) + l, part / 2 * 4, 4) | bits_at(b + 128 + 32 * h + l, 2 * part, 2) << 4;
      return half_at(b + 208) * static_cast<std::int8_t>(byte_at(b + 192 + i / 16)) * (static_cast<int>(q) - 32);
    }
    case weight_format::int8:
      return static_cast<double>(w.scales[row]) * static_cast<std::int8_t>(byte_at(line + column));
    case weight_format::int4: {
      const std::byte* d = line + (w.columns + 63) / 64 * 32;
      const std::ptrdiff_t g = column / w.group, groups = w.columns / w.group;
      const unsigned q = bits_at(line + column / 64 * 32 + column % 32, static_cast<int>(column % 64 / 32 * 4), 4);
      return half_at(d + 2 * g) * q + half_at(d + 2 * (groups + g));
    }
    default: return std::numeric_limits<double>::quiet_NaN();
  }
}

/// Activations as an integer product sees them: rounded to 8 bits in blocks of 32.
inline std::vector<double> as_8_bits(const float* x, std::ptrdiff_t columns) {
  std::vector<double> r(static_cast<std::size_t>(columns));
  for (std::ptrdiff_t first = 0; first < columns; first += 32) {
    const std::ptrdiff_t last = std::min(first + 32, columns);
    float greatest = 0;
    for (std::ptrdiff_t i = first; i < last; ++i) greatest = std::max(greatest, std::abs(x[i]));
    if (greatest == 0) continue;
    const float inverse = 127.0f / greatest, scale = greatest / 127.0f;
    for (std::ptrdiff_t i = first; i < last; ++i) {
      r[static_cast<std::size_t>(i)] = static_cast<double>(std::nearbyint(x[i] * inverse)) * static_cast<double>(scale);
    }
  }
  return r;
}

inline std::vector<float> random_floats(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> v(n);
  for (float& x : v) x = normal(random);
  return v;
}

}  // namespace reference
