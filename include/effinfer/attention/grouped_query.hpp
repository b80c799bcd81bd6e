#pragma once
// How query heads share keys and values: query head h reads key head h / (H / KV).
//
// Source: Ainslie et al., "GQA" (2023), section 2.2; multi-query is Shazeer, "Fast Transformer Decoding" (2019).
// The kernels read the numbers of heads from the model; this policy pins them in the type, to be checked against it.

#include <effinfer/core/slot.hpp>

namespace effinfer::inline v0::attention {

/// H query heads in KV groups.
template <int H, int KV>
struct grouped_query {
  static_assert(H >= 1 && KV >= 1, "effinfer: attention::grouped_query<H, KV> needs at least one head of each kind");
  static_assert(
      H < 1 || KV < 1 || H % KV == 0,
      "effinfer: attention::grouped_query<H, KV> needs H % KV == 0: every key head serves as many query heads");
  using slot = effinfer::slot::attention_heads;
  static constexpr int heads = H;
  static constexpr int kv_heads = KV;
};

/// Every query head has keys of its own.
template <int H>
using multi_head = grouped_query<H, H>;

/// All query heads share one key head.
template <int H>
using multi_query = grouped_query<H, 1>;

static_assert(policy_of<grouped_query<32, 8>, slot::attention_heads>);

}  // namespace effinfer::inline v0::attention
