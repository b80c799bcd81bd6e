#pragma once
// How pipeline<Policies...> reads its arguments: each policy goes to the slot that its tag names, a missing
// one gets the default, and a wrong combination is one sentence at the top of the compiler's output.

#include <effinfer/attention/grouped_query.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/policy.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/softmax.hpp>
#include <effinfer/checkpoint/model_files.hpp>
#include <effinfer/core/slot.hpp>
#include <effinfer/decoding/policy.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/decoding/search.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/cuda.hpp>
#include <effinfer/kv_cache/contiguous.hpp>
#include <effinfer/kv_cache/paged.hpp>
#include <effinfer/kv_cache/ring.hpp>
#include <effinfer/models/decoder.hpp>
#include <effinfer/models/mixer.hpp>
#include <effinfer/models/policy.hpp>
#include <effinfer/quantization/int4.hpp>
#include <effinfer/quantization/int8.hpp>
#include <effinfer/quantization/none.hpp>

#include <string>
#include <type_traits>

namespace effinfer::inline v0::models::cuda {
// models/cuda/decoder.hpp, which model.hpp brings under nvcc: programs for the CPU needn't compile it.
template <class Mixer, class Quantization, class Execution>
class decoder;
}  // namespace effinfer::inline v0::models::cuda

namespace effinfer::inline v0::detail {

/// The decoder of an execution policy.
template <class Mixer, class Quantization, class Execution>
struct decoder_on {
  using type = models::decoder<Mixer, Quantization>;
};
template <class Mixer, class Quantization, execution::simt::device_policy Execution>
struct decoder_on<Mixer, Quantization, Execution> {
  using type = models::cuda::decoder<Mixer, Quantization, Execution>;
};

/// The type of cached keys and values where the pipeline doesn't say: what kernels of a device multiply with.
template <class Execution>
struct default_element {
  using type = f16;
};
template <execution::simt::device_policy Execution>
struct default_element<Execution> {
  using type = typename Execution::activation;
};

/// False of a policy whose kernels this compiler can't compile.
template <class Execution>
inline constexpr bool can_run_on = true;
template <execution::simt::device_policy Execution>
inline constexpr bool can_run_on<Execution> = requires {
  sizeof(typename Execution::context);
};

/// Caches that devices have memory for.
template <class Cache>
inline constexpr bool is_on_devices = false;
template <class T>
inline constexpr bool is_on_devices<kv_cache::contiguous<T>> = true;
template <class T>
inline constexpr bool is_on_devices<kv_cache::ring<T>> = true;
template <class T, int Block>
inline constexpr bool is_on_devices<kv_cache::paged<T, Block>> = true;

template <class Slot, class... Policies>
inline constexpr int count_in_slot = (0 + ... + int{policy_of<Policies, Slot>});

/// The one policy of `Policies` in `Slot`, else `Default`.
template <class Slot, class Default, class... Policies>
struct pick {
  using type = Default;
};
template <class Slot, class Default, class First, class... Rest>
struct pick<Slot, Default, First, Rest...>
    : std::conditional_t<policy_of<First, Slot>, std::type_identity<First>, pick<Slot, Default, Rest...>> {};

template <class... Ts>
struct type_list {};

/// The modifiers of `Policies`, in order, behind those of `Mixer` = softmax<...>.
template <class Mixer, class... Policies>
struct with_modifiers {
  using type = Mixer;
};
template <class... Modifiers, class First, class... Rest>
struct with_modifiers<attention::softmax<Modifiers...>, First, Rest...>
    : std::conditional_t<policy_of<First, slot::attention_modifier>,
                         with_modifiers<attention::softmax<Modifiers..., First>, Rest...>,
                         with_modifiers<attention::softmax<Modifiers...>, Rest...>> {};

/// The value of type T among `values`, else a default one.
template <class T>
T value_or_default() {
  return T{};
}
template <class T, class First, class... Rest>
T value_or_default(const First& first, const Rest&... rest) {
  if constexpr (std::is_same_v<T, First>) {
    return first;
  } else {
    return value_or_default<T>(rest...);
  }
}

template <class T>
inline constexpr bool is_linear = false;
template <class... Parameters>
inline constexpr bool is_linear<attention::linear<Parameters...>> = true;

template <class T>
inline constexpr bool is_window = false;
template <int Window>
inline constexpr bool is_window<attention::sliding_window<Window>> = true;

/// True where softmax<...> holds a sliding window already.
template <class Mixer>
inline constexpr bool has_window = false;
template <class... Modifiers>
inline constexpr bool has_window<attention::softmax<Modifiers...>> = (is_window<Modifiers> || ...);

/// The ladder of the slot that P names.
template <class P>
constexpr bool check_members() {
  if constexpr (policy_of<P, slot::attention_modifier>)
    return attention::check_attention_variant<P>::complete;
  else if constexpr (policy_of<P, slot::decoding>)
    return decoding::check_strategy<P>::complete;
  else if constexpr (policy_of<P, slot::quantization>)
    return quantization::check_policy<P>();
  else
    return true;
}

/// One assertion a policy: is it one at all, and is it whole?
template <class P>
struct check_policy {
  static_assert(std::is_object_v<P> && std::is_same_v<P, std::remove_cv_t<P>>,
                "effinfer: pipeline<...> takes plain policy types: drop the const, & or * from this argument.");
  static_assert(!std::is_object_v<P> || !std::is_same_v<P, std::remove_cv_t<P>> || policy<P>,
                "effinfer: pipeline<...> takes policies only, and this type is none: a policy has a nested type `slot` "
                "(using slot = effinfer::slot::decoding; for instance; see effinfer/core/slot.hpp).");
  static_assert(
      !policy_of<P, slot::model> || models::model_policy<P>,
      "effinfer: a model policy needs  static constexpr std::string_view name;  static constexpr bool recurrent; "
      " static constexpr bool accepts(std::string_view architecture);  (see effinfer/models/policy.hpp).");
  static_assert(check_members<P>());
  static_assert(
      !decoding::searches_inside<P>,
      "effinfer: a search (beam, best_of, contrastive) can't be the rule of another strategy: it follows several "
      "sequences, and what is around it one. Put it into the slot `decoding` by itself.");
  static constexpr bool checked = true;
};

/// All of the assertions on the combination. A base of pipeline, so that they come first.
template <class... Policies>
struct check_composition {
  static_assert((check_policy<Policies>::checked && ...));
  static_assert(count_in_slot<slot::model, Policies...> <= 1,
                "effinfer: pipeline<...> has two policies in the slot `model`: keep one of the models::... policies.");
  static_assert(
      count_in_slot<slot::attention, Policies...> <= 1,
      "effinfer: pipeline<...> has two policies in the slot `attention`: keep one of attention::full, softmax<...> "
      "or linear<...> (modifiers such as sliding_window or alibi may be several).");
  static_assert(count_in_slot<slot::attention_heads, Policies...> <= 1,
                "effinfer: pipeline<...> has two policies in the slot `attention_heads`: keep one of grouped_query, "
                "multi_head or multi_query.");
  static_assert(
      count_in_slot<slot::quantization, Policies...> <= 1,
      "effinfer: pipeline<...> has two policies in the slot `quantization`: keep one of none, int8 or int4<group>.");
  static_assert(count_in_slot<slot::kv_cache, Policies...> <= 1,
                "effinfer: pipeline<...> has two policies in the slot `kv_cache`: keep one of contiguous<T>, ring<T> "
                "or paged<T>.");
  static_assert(count_in_slot<slot::decoding, Policies...> <= 1,
                "effinfer: pipeline<...> has two policies in the slot `decoding`: put one inside the other, as in "
                "speculative<prompt_lookup<3>, top_p> or chain<...>, or keep one.");
  static_assert(count_in_slot<slot::execution, Policies...> <= 1,
                "effinfer: pipeline<...> has two policies in the slot `execution`: a pipeline runs in one place.");
  using execution = typename pick<slot::execution, effinfer::execution::cpu, Policies...>::type;
  static_assert(can_run_on<execution>,
                "effinfer: execution::cuda needs nvcc: compile this file with nvcc -std=c++20 (a .cu file, or nvcc -x "
                "cu), or run the pipeline "
                "with execution::cpu.");

  static_assert(!effinfer::execution::simt::device_policy<execution> ||
                    is_on_devices<typename pick<slot::kv_cache, kv_cache::contiguous<float>, Policies...>::type>,
                "effinfer: execution::cuda keeps keys and values in kv_cache::contiguous<T>, ring<T> or paged<T, "
                "Block>: choose one of these, or run the pipeline with execution::cpu.");

  using model = typename pick<slot::model, models::from_checkpoint, Policies...>::type;
  using attention = typename pick<slot::attention, void, Policies...>::type;
  static constexpr int modifiers = count_in_slot<slot::attention_modifier, Policies...>;
  static_assert((0 + ... + int{is_window<Policies>}) <= 1,
                "effinfer: pipeline<...> has two sliding windows: keep the narrower one.");
  static_assert(
      !is_linear<attention> || modifiers == 0,
      "effinfer: attention::linear and an attention modifier (sliding_window, alibi, soft_cap, sinks ...) do not go "
      "together: modifiers change softmax scores, and linear attention has none. Drop one of the two.");
  static_assert(
      !is_linear<attention> || count_in_slot<slot::kv_cache, Policies...> == 0,
      "effinfer: attention::linear and a kv_cache policy do not go together: linear attention keeps a state of fixed "
      "size instead of keys and values. Drop the kv_cache policy.");
  static_assert(model::recurrent || !is_linear<attention>,
                "effinfer: attention::linear needs a model trained with it: add models::linear_llama to the pipeline.");
  static_assert(
      !model::recurrent || is_linear<attention> || (std::is_void_v<attention> && modifiers == 0),
      "effinfer: models::linear_llama was trained with linear attention: drop the softmax attention policy and its "
      "modifiers, or choose another model.");
};

/// What a pipeline is made of, defaults filled in.
template <class... Policies>
struct composition {
  using model = typename pick<slot::model, models::from_checkpoint, Policies...>::type;
  using heads = typename pick<slot::attention_heads, void, Policies...>::type;
  using quantization = typename pick<slot::quantization, effinfer::quantization::none, Policies...>::type;
  using decoding = typename pick<slot::decoding, effinfer::decoding::sample, Policies...>::type;
  using execution = typename pick<slot::execution, effinfer::execution::cpu, Policies...>::type;
  using stated_attention = typename pick<slot::attention, void, Policies...>::type;

  /// True where the user's policies say how far a token sees; else the checkpoint's windows do.
  static constexpr bool pins_reach = !std::is_void_v<stated_attention> || (is_window<Policies> || ...);

  using softmax = typename with_modifiers<
      std::conditional_t<attention::is_softmax<stated_attention>, stated_attention, attention::softmax<>>,
      Policies...>::type;
  using linear = std::conditional_t<is_linear<stated_attention>, stated_attention,
                                    attention::linear<attention::elu_plus_one, attention::decay_per_head>>;

  /// A window in the type needs only a ring; without one every position is kept.
  using element = typename default_element<execution>::type;
  using default_cache = std::conditional_t<has_window<softmax>, kv_cache::ring<element>, kv_cache::contiguous<element>>;
  using cache = typename pick<slot::kv_cache, default_cache, Policies...>::type;

  using mixer = std::conditional_t<model::recurrent, models::linear_mixer<linear>,
                                   models::softmax_mixer<softmax, cache, !pins_reach>>;
  using decoder = typename decoder_on<mixer, quantization, execution>::type;

  /// The value of policy `P` among `values`, else its default.
  template <class P, class... Values>
  static P value(const Values&... values) {
    return value_or_default<P>(values...);
  }

  /// Checks what the policies pin against the checkpoint and collects what the mixer needs.
  /// Errors: `mismatch`, naming both values; those of the modifiers' own validate().
  template <class... Values>
  static typename mixer::settings settings(const checkpoint::model_files& files, const Values&... values) {
    static_assert(
        ((count_of<Values, Policies...> > 0 || attention::is_softmax<Values>)&&...),
        "effinfer: load takes values of the pipeline's own policies only: add this type to pipeline<...> first.");
    const checkpoint::model_config& config = files.config();
    if (!model::accepts(config.architecture)) {
      throw error(error_code::mismatch, files.path(),
                  "the checkpoint's architecture is \"" + config.architecture + "\", and the pipeline says " +
                      std::string(model::name),
                  "choose the matching models::... policy");
    }
    if constexpr (!std::is_void_v<heads>) {
      if (heads::heads != config.heads || heads::kv_heads != config.kv_heads) {
        throw error(error_code::mismatch, files.path(),
                    "the checkpoint has " + std::to_string(config.heads) + " query and " +
                        std::to_string(config.kv_heads) + " kv heads, and the pipeline says grouped_query<" +
                        std::to_string(heads::heads) + ", " + std::to_string(heads::kv_heads) + ">");
      }
    }
    if constexpr (model::recurrent) {
      return mixer::configure(config, value_or_default<linear>(values...));
    } else {
      return mixer::configure(config, make_softmax(type_list<softmax>{}, values...));
    }
  }

 private:
  template <class T, class... Ts>
  static constexpr int count_of = (0 + ... + int{std::is_same_v<T, Ts>});

  template <class... Modifiers, class... Values>
  static softmax make_softmax(type_list<attention::softmax<Modifiers...>>, const Values&... values) {
    if constexpr (count_of < softmax, Values... >> 0) {
      return value_or_default<softmax>(values...);
    } else {
      return softmax(value_or_default<Modifiers>(values...)...);
    }
  }
};

}  // namespace effinfer::inline v0::detail
