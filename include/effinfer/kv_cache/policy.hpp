#pragma once
// KV-cache policies: what is remembered of the tokens read, and where.
//
// There are
//   contiguous<T>      every position, up to a capacity; the default                contiguous.hpp
//   ring<T>            the last positions only: memory for a window                 ring.hpp
//   paged<T, Block>    blocks of a pool that sequences share                         paged.hpp
// and for mixers without keys and values
//   recurrent_state    a matrix and a vector a head, of fixed size                  recurrent_state.hpp
// T = float, f16 (the default), bf16, int8 (a scale for each token and head) or fp8_e4m3 is how a number is stored.
//
// A policy has three levels: the policy itself (empty, a slot tag), its non-owning `view` (view.hpp, copied into
// kernels) and its owning `cache`. To add one: a struct with the members of `contiguous`; kernels read any type that
// is a cache_view.

#include <effinfer/core/slot.hpp>
#include <effinfer/kv_cache/shape.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace effinfer::inline v0::kv_cache {

/// What everything that a sequence remembers can do, keys and values or a recurrent state: it is what speculation,
/// beams and forks stand on. Copying one forks the sequence.
///
/// length(): tokens remembered. commit(n): n more have been written. snapshot(): this point, to come back to with
/// rollback(s), where it is as if nothing had been written since. truncate(n): the same without a snapshot where that
/// can be done: false (and no change) if it can't; n in [truncation_limit(), length()] always can. save and load: as
/// bytes, appended to `out`; load returns how many it read. bytes(): what it owns.
template <class M>
concept sequence_memory = std::copyable<M> &&
    requires(M m, const M& c, std::vector<std::byte>& out, std::span<const std::byte> in) {
  { c.length() } -> std::same_as<int>;
  { c.truncation_limit() } -> std::same_as<int>;
  { c.bytes() } -> std::same_as<std::uint64_t>;
  m.commit(1);
  { m.truncate(0) } -> std::same_as<bool>;
  { m.rollback(c.snapshot()) } -> std::same_as<bool>;
  m.clear();
  c.save(out);
  { m.load(in) } -> std::same_as<std::size_t>;
};

/// A policy in the kv_cache slot with all of its members.
template <class P>
concept kv_cache_policy = policy_of<P, slot::kv_cache> && element<typename P::element_type> &&
    cache_view<typename P::view> && sequence_memory<typename P::cache>;

/// `check_kv_cache<P>::complete` is true, or the compiler says which line P lacks.
template <class P>
struct check_kv_cache {
  static_assert(policy_of<P, slot::kv_cache>,
                "effinfer: kv_cache policy needs  using slot = effinfer::slot::kv_cache;");
  static_assert(
      requires { requires element<typename P::element_type>; },
      "effinfer: kv_cache policy needs  using element_type = float, effinfer::f16, effinfer::bf16, "
      "effinfer::kv_cache::int8 or effinfer::fp8_e4m3;");
  static_assert(
      requires { requires cache_view<typename P::view>; },
      "effinfer: kv_cache policy needs a nested type `view` that is a cache_view (see effinfer/kv_cache/view.hpp)");
  static_assert(
      requires { requires sequence_memory<typename P::cache>; },
      "effinfer: kv_cache policy needs a nested type `cache` with the members of sequence_memory (see "
      "effinfer/kv_cache/policy.hpp)");
  static constexpr bool complete = true;
};

}  // namespace effinfer::inline v0::kv_cache
