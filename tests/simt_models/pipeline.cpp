// A pipeline with one policy changed: from checkpoint to text through the CUDA kernels on the host context, beside the CPU.

#include "simt/device.hpp"
#include "simt_models/small_checkpoint.hpp"

#include <effinfer/decoding/contrastive.hpp>
#include <effinfer/decoding/eagle.hpp>
#include <effinfer/decoding/early_exit.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/medusa.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/self_speculation.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/models/cuda/decoder.hpp>
#include <effinfer/models/exit_maps.hpp>
#include <effinfer/models/feature_drafter.hpp>
#include <effinfer/models/medusa_heads.hpp>
#include <effinfer/pipeline.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pipeline_tests {

namespace ei = effinfer;
using simt_host::device_counts;
using host = simt_host::on_host<ei::bf16, 32>;

namespace {

/// none, with the products of one format.
template <class Format>
struct as_stored {
  using slot = ei::slot::quantization;
  static constexpr std::string_view name = "as_stored";
  using formats = ei::quantization::formats<Format>;
  static constexpr ei::quantization::storage target(ei::quantization::matrix_use, ei::weight_format stored,
                                                    std::ptrdiff_t) {
    return {stored, 0};
  }
};

using as_bf16 = as_stored<ei::quantization::format::bf16>;

// Every access of a fiber is checked there: a few tokens must do.
#if defined(EFFINFER_FIBERS_TELL_ASAN)
constexpr int most_tokens = 3;
#else
constexpr int most_tokens = 10;
#endif

const std::string shipped = std::string(EFFINFER_SHIPPED_MODELS) + "/shakespeare-llama";
const ei::load_options options{.session = {.context_tokens = 64}};

template <class Pipeline>
std::vector<int> continued(const Pipeline& llm, std::string_view prompt, typename Pipeline::generate_options of) {
  of.ignore_end_of_text = true;
  auto generation = llm.generate(prompt, of);
  CHECK(!generation.text().empty());
  return {generation.tokens().begin(), generation.tokens().end()};
}

}  // namespace

TEST_CASE("the shipped model writes the CPU's greedy text through the CUDA kernels") {
  const auto on_cpu = ei::pipeline<ei::models::llama, as_bf16, ei::decoding::greedy, ei::execution::cpu>::load(
      shipped, options, ei::execution::cpu{.threads = 1});
  device_counts counts;
  const auto on_gpu = ei::pipeline<ei::models::llama, as_bf16, ei::decoding::greedy, host>::load(
      shipped, options, host{.multiprocessors = 8, .counts = &counts});
  for (const std::string_view prompt : {"ROMEO:", "Once upon a time"}) {
    const std::vector<int> wanted = continued(on_cpu, prompt, {.max_tokens = most_tokens});
    const auto before = counts;
    CHECK(continued(on_gpu, prompt, {.max_tokens = most_tokens}) == wanted);
    CHECK(counts.graphs - before.graphs == std::size_t{most_tokens} - 2);
    // The logits behind the prompt, and then tokens only.
    CHECK(counts.downloaded - before.downloaded == 1024 * sizeof(float) + std::size_t{most_tokens - 1} * sizeof(int));
    CHECK(continued(on_gpu, prompt, {.max_tokens = 2, .log_probabilities = 1}) ==
          std::vector(wanted.begin(), wanted.begin() + 2));
  }
}

TEST_CASE("a GGUF file gives the CPU's greedy tokens through the CUDA kernels") {
  using as_q4_k = as_stored<ei::quantization::format::q4_k>;
  const std::string file = std::string(EFFINFER_TEST_DATA) + "/models/llama-q4_k/model.gguf";
  const auto tokens_of = [&](const auto& model) {
    auto session = model.start({.context_tokens = 64});
    std::vector<int> tokens{3, 1, 4, 1, 5, 9, 2, 6};
    std::span<const int> next = tokens;
    while (tokens.size() < 8 + most_tokens) {
      const auto logits = session.append(next);
      tokens.push_back(static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      next = std::span(&tokens.back(), 1);
    }
    return tokens;
  };
  const auto on_cpu = ei::model<as_q4_k, ei::execution::cpu>::load(file, {}, ei::execution::cpu{.threads = 1});
  const auto on_gpu = ei::model<as_q4_k, simt_host::on_host<ei::bf16, 64>>::load(file);
  CHECK(tokens_of(on_gpu) == tokens_of(on_cpu));

  const small_checkpoint::folder folder;
  small_checkpoint::write(folder.path(), {.dtype = "F8_E4M3", .layers = 1});
  try {
    (void)ei::model<as_q4_k, ei::execution::cpu>::load(folder.path());
    FAIL("the CPU computes FP8");
  } catch (const ei::error& e) {
    CHECK(e.code() == ei::error_code::unsupported);
    CHECK(std::string(e.what()).find("FP8 weights are computed on a GPU only") != std::string::npos);
  }
}

TEST_CASE("speculation on a device gives its rule's own tokens, as does a choice made on the host") {
  using ei::decoding::sample;
  const auto llm = ei::pipeline<as_bf16, ei::decoding::speculative<ei::decoding::prompt_lookup<3>, sample>, host>::load(
      shipped, options, host{.multiprocessors = 8});
  const std::string_view prompt = "To be, or not to be, to be, or not";
  ei::decoding::speculative<ei::decoding::prompt_lookup<3>, sample> rule{.rule = {.temperature = 0.3F, .top_p = 0.9F}};
  rule.max_draft = 0;
  const std::vector<int> plain = continued(llm, prompt, {.max_tokens = most_tokens, .seed = 5, .decoding = rule});
  CHECK(continued(llm, prompt, {.max_tokens = most_tokens, .seed = 5, .decoding = rule, .log_probabilities = 0}) ==
        plain);
  rule.max_draft = 4;
  CHECK(continued(llm, prompt, {.max_tokens = most_tokens, .seed = 5, .decoding = rule}) == plain);
}

namespace {

const std::string models = EFFINFER_SHIPPED_MODELS;
const std::string_view line = "ROMEO:";

template <class Decoding>
auto load() {
  return ei::pipeline<as_bf16, Decoding, host>::load(shipped, options, host{.multiprocessors = 8});
}

/// Greedy's tokens, with fewer passes than tokens.
template <class Drafter, class Make>
void check_drafted(const std::vector<int>& wanted, const Make& make) {
  using decoding = ei::decoding::speculative<Drafter>;
  const auto llm = load<decoding>();
  const decoding rule{.drafter = make(llm), .max_draft = 5, .row_cost = 0};
  auto generation =
      llm.generate(line, {.max_tokens = static_cast<int>(wanted.size()), .decoding = rule, .ignore_end_of_text = true});
  CHECK(!generation.text().empty());
  CHECK(std::vector<int>(generation.tokens().begin(), generation.tokens().end()) == wanted);
  if (most_tokens > 3) CHECK(generation.statistics().forward_passes < static_cast<int>(wanted.size()));
}

}  // namespace

TEST_CASE("drafters that look at states, with trees, give greedy's own tokens on a device") {
  namespace dec = ei::decoding;
  const auto greedy = load<dec::greedy>();
  const std::vector<int> wanted = continued(greedy, line, {.max_tokens = most_tokens});
  for (const std::string name : {"/shakespeare-eagle", "/shakespeare-eagle3"}) {  // with the model's head and their own
    check_drafted<dec::eagle>(wanted, [&](const auto& llm) {
      return dec::eagle{.network =
                            std::make_shared<const ei::models::feature_drafter>(ei::models::feature_drafter::load(
                                models + name, llm.config(), llm.decoder_model().host()))};
    });
  }
  check_drafted<dec::medusa>(wanted, [&](const auto& llm) {
    return dec::medusa{.heads = std::make_shared<const ei::models::medusa_heads>(ei::models::medusa_heads::load(
                           models + "/shakespeare-medusa", llm.config(), llm.decoder_model().host()))};
  });
  check_drafted<dec::self_speculation>(wanted, [&](const auto& llm) {
    return dec::self_speculation{.layers = {{0, 2}},
                                 .maps = std::make_shared<const ei::models::exit_maps>(ei::models::exit_maps::load(
                                     models + "/shakespeare-exits", llm.config(), llm.decoder_model().host()))};
  });
}

TEST_CASE("early exit and contrastive search on a device choose what they choose on the CPU") {
  namespace dec = ei::decoding;
  using exits = dec::early_exit<dec::confidence>;
  const auto on_cpu = ei::pipeline<ei::models::llama, as_bf16, exits, ei::execution::cpu>::load(
      shipped, options, ei::execution::cpu{.threads = 1});
  const auto on_gpu = load<exits>();
  const auto maps = std::make_shared<const ei::models::exit_maps>(
      ei::models::exit_maps::load(models + "/shakespeare-exits", on_gpu.config(), on_gpu.decoder_model().host()));
  for (const float threshold : {1.0F, 0.3F}) {
    exits rule;
    rule.exit.threshold = threshold;
    rule.maps = maps;
    const auto wanted = continued(on_cpu, line, {.max_tokens = most_tokens, .decoding = rule});
    CHECK(continued(on_gpu, line, {.max_tokens = most_tokens, .decoding = rule}) == wanted);
  }
  const auto searched = ei::pipeline<ei::models::llama, as_bf16, dec::contrastive, ei::execution::cpu>::load(
      shipped, options, ei::execution::cpu{.threads = 1});
  // Of this name's tokens none is chosen by less than 0.01, where roundings to bf16 move scores by 0.001.
  const std::string_view other = "JULIET:";
  const auto wanted = continued(searched, other, {.max_tokens = most_tokens});
  CHECK(continued(load<dec::contrastive>(), other, {.max_tokens = most_tokens}) == wanted);
}

}  // namespace pipeline_tests
