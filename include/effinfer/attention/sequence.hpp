#pragma once
// The arguments of the attention kernels: how heads are laid out, and one sequence's share of a call.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/kv_cache/recurrent_state.hpp>
#include <effinfer/kv_cache/view.hpp>

namespace effinfer::inline v0::attention {

/// Query head h reads key head h / (heads / kv_heads).
struct head_layout {
  int heads = 0;       ///< H
  int kv_heads = 0;    ///< K, divides H
  int head_size = 0;   ///< D
  float scale = 1.0f;  ///< of q.k, mostly 1 / sqrt(D); linear attention has none
};

/// T new tokens of one sequence in front of its keys and values. T may differ between the sequences of a call.
template <kv_cache::cache_view View>
struct sequence {
  matrix_view<const float> query;  ///< [T, H*D], position embedding applied
  matrix_view<float> out;          ///< [T, H*D], may be the memory of `query`
  View cache;  ///< keys and values of all tokens, the T new ones included: cache.length = first_position + T
  int first_position = 0;  ///< of the first new token
  int index = 0;           ///< what policies get as position::sequence
  bool prompt = false;  ///< tokens of a prompt, whose products may be in tiles of bf16, see attend in cpu/softmax.hpp
};

/// T new tokens of one sequence in front of its recurrent state.
struct recurrent_sequence {
  matrix_view<const float> query;  ///< [T, H*D]
  matrix_view<const float> key;    ///< [T, K*D]
  matrix_view<const float> value;  ///< [T, K*D]
  matrix_view<float> out;          ///< [T, H*D], may be the memory of `query`
  kv_cache::recurrent_view state;  ///< of H heads; moved on by T tokens
};

}  // namespace effinfer::inline v0::attention
