#pragma once
// Where the elements of a matrix lie in the registers of a warp, for mma.m16n8k16 with 16-bit operands.
// Source: PTX ISA 8.5, section 9.7.14.5.8, "Matrix Fragments for mma.m16n8k16 with floating point type".

#include <effinfer/core/config.hpp>

namespace effinfer::inline v0::execution::simt {

struct element_place {
  int row, column;
};

/// A [16, 16], row-major: the lane's four registers hold two elements each; i in [0, 8), the lower half first.
EFFINFER_HOST_DEVICE constexpr element_place a_element(int lane, int i) {
  const int group = lane / 4, within = lane % 4;
  return {group + (i / 2 % 2) * 8, within * 2 + i % 2 + (i / 4) * 8};
}

/// B [16, 8] (k, n): two registers of two elements; i in [0, 4).
EFFINFER_HOST_DEVICE constexpr element_place b_element(int lane, int i) {
  return {lane % 4 * 2 + i % 2 + (i / 2) * 8, lane / 4};
}

/// C and D [16, 8] in float: four registers; i in [0, 4).
EFFINFER_HOST_DEVICE constexpr element_place d_element(int lane, int i) {
  return {lane / 4 + (i / 2) * 8, lane % 4 * 2 + i % 2};
}

/// The lane that holds an element, and which of its elements it is.
struct lane_place {
  int lane, i;
};
EFFINFER_HOST_DEVICE constexpr lane_place a_place(int row, int k) {
  return {row % 8 * 4 + k % 8 / 2, k % 2 + row / 8 * 2 + k / 8 * 4};
}
EFFINFER_HOST_DEVICE constexpr lane_place b_place(int k, int column) {
  return {column * 4 + k % 8 / 2, k % 2 + k / 8 * 2};
}

/// The same for mma.m16n8k32 with 8-bit operands, four elements a register; D lies as above. Source: there, "Matrix Fragments for
/// mma.m16n8k32".
EFFINFER_HOST_DEVICE constexpr element_place a_element_8_bit(int lane, int i) {
  return {lane / 4 + (i / 4 % 2) * 8, lane % 4 * 4 + i % 4 + (i / 8) * 16};
}
EFFINFER_HOST_DEVICE constexpr element_place b_element_8_bit(int lane, int i) {
  return {lane % 4 * 4 + i % 4 + (i / 4) * 16, lane / 4};
}
EFFINFER_HOST_DEVICE constexpr lane_place a_place_8_bit(int row, int k) {
  return {row % 8 * 4 + k % 16 / 4, k % 4 + row / 8 * 4 + k / 16 * 8};
}
EFFINFER_HOST_DEVICE constexpr lane_place b_place_8_bit(int k, int column) {
  return {column * 4 + k % 16 / 4, k % 4 + k / 16 * 4};
}

namespace detail {
constexpr bool places_agree_8_bit() {
  for (int k = 0; k < 32; ++k) {
    for (int row = 0; row < 16; ++row) {
      const lane_place p = a_place_8_bit(row, k);
      const element_place e = a_element_8_bit(p.lane, p.i);
      if (e.row != row || e.column != k) return false;
    }
    for (int column = 0; column < 8; ++column) {
      const lane_place p = b_place_8_bit(k, column);
      const element_place e = b_element_8_bit(p.lane, p.i);
      if (e.row != k || e.column != column) return false;
    }
  }
  return true;
}
static_assert(places_agree_8_bit());
constexpr bool places_agree() {
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      const lane_place p = a_place(row, k);
      const element_place e = a_element(p.lane, p.i);
      if (e.row != row || e.column != k) return false;
    }
  }
  for (int k = 0; k < 16; ++k) {
    for (int column = 0; column < 8; ++column) {
      const lane_place p = b_place(k, column);
      const element_place e = b_element(p.lane, p.i);
      if (e.row != k || e.column != column) return false;
    }
  }
  return true;
}
static_assert(places_agree());
}  // namespace detail

}  // namespace effinfer::inline v0::execution::simt
