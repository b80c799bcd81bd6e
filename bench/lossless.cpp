// The proof at length that speculation gives the plain text: every drafter with every exact acceptance on several attentions,
// caches, quantizations and models, prompts held out from training. A table of texts that are the plain ones; any other ends the
// program with 1.
//
//   bench_lossless [prompts [tokens]]       200 prompts of 128 tokens
//
// Greedy under both acceptances: at a temperature of 0 rejection keeps the text too. Sampled text is compared under sample_and_match,
// token for token; that rejection keeps the distribution is for tests/decoding/acceptance.cpp.

#include <effinfer/decoding/draft_model.hpp>
#include <effinfer/decoding/eagle.hpp>
#include <effinfer/decoding/either.hpp>
#include <effinfer/decoding/lookahead.hpp>
#include <effinfer/decoding/medusa.hpp>
#include <effinfer/decoding/otherwise.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/decoding/self_speculation.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/decoding/suffix_automaton.hpp>
#include <effinfer/pipeline.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ei = effinfer;
namespace dec = ei::decoding;

namespace {

using small = ei::model<ei::execution::cpu>;
using weights = ei::quantization::at_load;
using drafters = dec::either<dec::prompt_lookup<3>, dec::suffix_automaton, dec::lookahead, dec::draft_model<small>,
                             dec::staged<dec::prompt_lookup<3>, small>, dec::self_speculation, dec::medusa, dec::eagle,
                             dec::otherwise<dec::suffix_automaton, dec::eagle>>;

const std::string models = EFFINFER_SHIPPED_MODELS;
const ei::execution::cpu one{.threads = 1};

struct named_drafter {
  std::string name;
  drafters drafter;
};

/// All that fit the model; the networks were trained for shakespeare-llama alone.
template <class Decoder>
std::vector<named_drafter> drafters_for(const Decoder& target, bool llama) {
  const auto draft = std::make_shared<const small>(small::load(models + "/shakespeare-draft", {}, one));
  std::vector<named_drafter> all = {
      {"prompt_lookup", {dec::prompt_lookup<3>{}}},
      {"suffix_automaton", {dec::suffix_automaton{}}},
      {"lookahead", {dec::lookahead{}}},
      {"draft_model", {dec::draft_model<small>{.model = draft}}},
      {"draft_model, siblings", {dec::draft_model<small>{.model = draft, .siblings = 2}}},
      {"staged", {dec::staged<dec::prompt_lookup<3>, small>{.model = draft}}},
      {"self_speculation", {dec::self_speculation{.layers = {{0, 2}}}}},
  };
  if (!llama) return all;
  const auto& exec = target.execution();
  all.push_back({"medusa",
                 {dec::medusa{.heads = std::make_shared<const ei::models::medusa_heads>(ei::models::medusa_heads::load(
                                  models + "/shakespeare-medusa", target.config(), exec))}}});
  for (const std::string name : {"eagle", "eagle3", "mtp"}) {
    const dec::eagle network{.network =
                                 std::make_shared<const ei::models::feature_drafter>(ei::models::feature_drafter::load(
                                     models + "/shakespeare-" + name, target.config(), exec))};
    all.push_back({name, {network}});
    if (name != "eagle3") continue;
    dec::otherwise<dec::suffix_automaton, dec::eagle> automaton_first;
    automaton_first.second = network;
    all.push_back({"suffix or eagle3", {automaton_first}});
  }
  return all;
}

struct job {
  int prompts, tokens;
  bool all_same = true;
  long texts = 0;
  std::map<std::string, std::pair<int, int>> counts = {};  // drafter -> texts that are the same, texts
};

std::vector<std::vector<int>> prompts_of(const ei::text::tokenizer& tokenizer, int count) {
  std::ifstream file(models + "/heldout.txt");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto held_out = tokenizer.encode(text, {.add_special_tokens = false});
  const std::size_t step = held_out.size() / static_cast<std::size_t>(count + 1);
  std::vector<std::vector<int>> all;
  for (int p = 0; p < count; ++p) {
    const auto first = held_out.begin() + static_cast<std::ptrdiff_t>(step) * p;
    all.emplace_back(first, first + 32);
  }
  return all;
}

template <class Acceptance, class... Policies>
void compare(job& of, const char* what, const std::string& model, weights::choice as, dec::sample rule) {
  using plain = ei::pipeline<dec::sample, ei::execution::cpu, weights, Policies...>;
  using speculative = dec::speculative<drafters, dec::sample, Acceptance>;
  using drafting = ei::pipeline<speculative, ei::execution::cpu, weights, Policies...>;
  const auto alone = plain::load(models + "/" + model, {}, one, weights{as});
  const auto drafted = drafting::load(models + "/" + model, {}, one, weights{as});
  const auto all = drafters_for(drafted.decoder_model(), model == "shakespeare-llama");
  std::vector<int> same(all.size());
  const auto prompts = prompts_of(alone.tokenizer(), of.prompts);
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    typename plain::generate_options options{.max_tokens = of.tokens, .seed = p, .decoding = rule};
    options.ignore_end_of_text = true;
    auto reference = alone.generate(alone.start(), prompts[p], options);
    (void)reference.text();
    for (std::size_t d = 0; d < all.size(); ++d) {
      // Always some guesses, so that there is something to go wrong.
      typename drafting::generate_options with{
          .max_tokens = of.tokens,
          .seed = p,
          .decoding = {.drafter = all[d].drafter, .rule = rule, .max_draft = 9, .row_cost = 0.0F}};
      with.ignore_end_of_text = true;
      auto generation = drafted.generate(drafted.start(), prompts[p], with);
      (void)generation.text();
      same[d] += std::equal(generation.tokens().begin(), generation.tokens().end(), reference.tokens().begin(),
                            reference.tokens().end())
                     ? 1
                     : 0;
    }
  }
  std::printf("%-62s", what);
  for (std::size_t d = 0; d < all.size(); ++d) {
    std::printf(" %d", same[d]);
    of.all_same = of.all_same && same[d] == of.prompts;
    of.texts += of.prompts;
    auto& [right, texts] = of.counts[all[d].name];
    right += same[d], texts += of.prompts;
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) try {
  job of{argc > 1 ? std::atoi(argv[1]) : 200, argc > 2 ? std::atoi(argv[2]) : 128};
  using match = dec::acceptance::sample_and_match;
  using reject = dec::acceptance::rejection;
  using enum weights::choice;
  const std::string llama = "shakespeare-llama", linear = "shakespeare-linear";
  const dec::sample greedy{.temperature = 0}, sampled{.temperature = 0.8F, .top_p = 0.9F};
  std::printf("texts of %d that are the plain ones, a column a drafter\n", of.prompts);
  compare<match>(of, "full, contiguous f16, weights as stored, greedy", llama, none, greedy);
  compare<match>(of, "full, contiguous f16, weights as stored, sampled", llama, none, sampled);
  compare<match>(of, "full, contiguous f16, int8, greedy", llama, int8, greedy);
  compare<match>(of, "full, contiguous f16, int4, greedy", llama, int4_32, greedy);
  compare<reject>(of, "full, contiguous f16, weights as stored, greedy, rejection", llama, none, greedy);
  compare<match, ei::kv_cache::contiguous<ei::kv_cache::int8>>(of, "full, contiguous int8, int8, greedy", llama, int8,
                                                               greedy);
  compare<match, ei::attention::sliding_window<48>, ei::kv_cache::ring<>>(
      of, "sliding window 48, ring f16, weights as stored, greedy", llama, none, greedy);
  compare<match, ei::attention::sliding_window<48>, ei::kv_cache::ring<>>(
      of, "sliding window 48, ring f16, int4, sampled", llama, int4_32, sampled);
  compare<match, ei::models::linear_llama>(of, "linear (recurrent state), weights as stored, greedy", linear, none,
                                           greedy);
  compare<match, ei::models::linear_llama>(of, "linear (recurrent state), int8, sampled", linear, int8, sampled);
  std::printf("\n");
  for (const auto& [name, count] : of.counts) std::printf("%-20s %d of %d\n", name.c_str(), count.first, count.second);
  std::printf("%ld texts of %d tokens: %s\n", of.texts, of.tokens,
              of.all_same ? "all are the plain ones" : "SOME DIFFER");
  return of.all_same ? 0 : 1;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 2;
}
