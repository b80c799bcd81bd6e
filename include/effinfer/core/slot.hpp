#pragma once
// Policy slots: each policy is a struct with a nested type `slot`, one of these tags, that says which
// question it answers. `pipeline<...>` sorts its policies by the tag, so their order is free.

#include <effinfer/core/config.hpp>

#include <concepts>

namespace effinfer::inline v0 {

namespace slot {
struct model {};               ///< which layers, in which order
struct attention {};           ///< a token mixer: softmax<...> or linear<...>
struct attention_modifier {};  ///< part of softmax<...>; may stand directly in pipeline<...>
struct attention_heads {};     ///< grouped_query<H, KV>: how heads share keys
struct quantization {};        ///< how a weight is stored
struct kv_cache {};            ///< what is remembered, and where
struct decoding {};            ///< which token comes next
struct execution {};           ///< where it runs
}  // namespace slot

/// True of a type that carries one of the tags above.
template <class T>
concept policy = requires {
  typename T::slot;
}
&&(std::same_as<typename T::slot, slot::model> || std::same_as<typename T::slot, slot::attention> ||
   std::same_as<typename T::slot, slot::attention_modifier> || std::same_as<typename T::slot, slot::attention_heads> ||
   std::same_as<typename T::slot, slot::quantization> || std::same_as<typename T::slot, slot::kv_cache> ||
   std::same_as<typename T::slot, slot::decoding> || std::same_as<typename T::slot, slot::execution>);

/// True of a policy that sits in the slot `Slot`.
template <class T, class Slot>
concept policy_of = policy<T> && std::same_as<typename T::slot, Slot>;

}  // namespace effinfer::inline v0
