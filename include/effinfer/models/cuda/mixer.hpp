#pragma once
// What the token mixers of a device have in common with those of the CPU (models/mixer.hpp): softmax_mixer.hpp, linear_mixer.hpp.
//
// A mixer's part of a pass is an upload, which `prepare` fills on the host, and the kernels that `mix` starts for a layer: they turn the
// rows [query, key, value] of the pass's tokens into mixed values and move what the sequences remember on. Nothing waits.

#include <effinfer/checkpoint/model_config.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>

#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

namespace effinfer::inline v0::models::cuda {

/// Of a CPU's mixer on a device. Members:
///
///   check(config)                          errors: `unsupported`
///   bytes(config)                          of device memory that it owns
///   state                                  what a sequence remembers
///   upload_bytes(config, tokens)           of an upload for a pass of so many tokens
///   workspace_bytes(config, tokens)        of device memory that `mix` needs
///   prepare(items, rows, workspace, host, device)   fills the upload; returns a `plan`
///   is_long_read(plan)                     a pass that is a part of a read of more than few_tokens, which may have kernels of its own
///   can_repeat(plan)                       makes it one that a graph may be recorded with, for all passes of its `form`; false where not
///   query_key_value(plan, layer, rows)     where the products of a layer go: `rows`, or memory of its own
///   mix(queue, plan, layer, rows, mixed)   starts the kernels of a layer
///   remember(queue, plan, layer, rows, mixed)       what `mix` leaves behind, without an output
///   keep(device, state, path)              the tokens `path` of the tree just read stay
template <class Mixer, class Execution>
class device_mixer;

/// A sequence's part of a pass, as models::decoder's.
template <class State>
struct pass_item {
  State* of = nullptr;
  std::span<const int> tokens;
  int position = 0;
  int length = 0;
  int outputs = std::numeric_limits<int>::max();
  std::span<const int> depths = {};
  matrix_view<float> kept = {};  ///< never written: the state has all that `keep` needs
};

/// Tokens of a read up to which each is a decode step of its own to attention, and of a tree at most.
inline constexpr int few_tokens = 16;

/// True of a chain of guesses: each token is the next one's parent.
inline bool is_chain(std::span<const int> depths) {
  return !depths.empty() && depths.back() + 1 == static_cast<int>(depths.size());
}

/// f(std::integral_constant<int, size>) where attention is compiled for heads of `size`.
template <class Execution, class F>
void with_head_size(int size, const F& f) {
  [&]<int... Sizes>(std::integer_sequence<int, Sizes...>) {
    (void)((size == Sizes ? (f(std::integral_constant<int, Sizes>()), true) : false) || ...);
  }
  (typename Execution::head_sizes());
}

/// Errors: `unsupported`: heads that attention isn't compiled for.
template <class Execution>
void check_head_size(const checkpoint::model_config& c) {
  std::string compiled;
  const auto is_there = [&]<int... Sizes>(std::integer_sequence<int, Sizes...>) {
    ((compiled += (compiled.empty() ? "" : ", ") + std::to_string(Sizes)), ...);
    return ((c.head_size == Sizes) || ...);
  };
  if (is_there(typename Execution::head_sizes())) return;
  throw error(error_code::unsupported, c.file, "heads of " + std::to_string(c.head_size),
              "attention is compiled for heads of " + compiled + " here: run it with execution::cpu");
}

}  // namespace effinfer::inline v0::models::cuda
