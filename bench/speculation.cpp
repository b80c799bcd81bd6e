// What each drafter gains on the shipped model: tokens a pass, guesses that were right, and time, each text beside its plain
// one. Also the proof of what it gives: a text that differs from the plain one ends the program with 1.
//
//   bench_speculation [prompts [tokens [file.json]]]       200 prompts of 128 tokens; bench/speculation.py draws the file
//   bench_speculation --repetitive MODEL                   any model, all threads, on prompts that repeat themselves
//
// Texts: `greedy`, held-out prompts; `sampled`, the same at temperature 0.8 and top-p 0.9; `copied`, prompts that end in what they
// began with; `random`, prompts of random tokens continued at temperature 5, where no drafter can know anything.

#include <effinfer/decoding/chain.hpp>
#include <effinfer/decoding/draft_model.hpp>
#include <effinfer/decoding/eagle.hpp>
#include <effinfer/decoding/either.hpp>
#include <effinfer/decoding/lookahead.hpp>
#include <effinfer/decoding/medusa.hpp>
#include <effinfer/decoding/otherwise.hpp>
#include <effinfer/decoding/output_store.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/rule.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/decoding/self_speculation.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/decoding/suffix_automaton.hpp>
#include <effinfer/pipeline.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ei = effinfer;
namespace dec = ei::decoding;

namespace {

using small = ei::model<ei::execution::cpu>;
using drafters = dec::either<dec::prompt_lookup<3>, dec::suffix_automaton, dec::lookahead, dec::draft_model<small>,
                             dec::staged<dec::prompt_lookup<3>, small>, dec::self_speculation, dec::medusa, dec::eagle,
                             dec::otherwise<dec::suffix_automaton, dec::eagle>>;
using speculative = dec::speculative<drafters, dec::sample>;
using drafting = ei::pipeline<speculative, ei::execution::cpu>;
using plain = ei::pipeline<dec::sample, ei::execution::cpu>;

const std::string models = EFFINFER_SHIPPED_MODELS;

struct contender {
  std::string name;
  drafters drafter;
  int max_draft;
  std::optional<float> row_cost = {};
  double seconds = 0;
  long tokens = 0, passes = 0, drafted = 0, accepted = 0;
  std::vector<double> speed_ups = {};
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

/// What the model said greedily behind five beginnings between each two that are measured, by way of a file: REST's datastore.
std::shared_ptr<const dec::output_store> past_outputs(const plain& alone, const std::vector<int>& held_out,
                                                      std::size_t step, int prompts, int tokens) {
  std::vector<std::vector<int>> texts;
  for (std::size_t i = 0; i < 6 * static_cast<std::size_t>(prompts); ++i) {
    if (i % 6 == 0) continue;
    const auto first = held_out.begin() + static_cast<std::ptrdiff_t>(step * i / 6);
    typename plain::generate_options options{.max_tokens = tokens, .decoding = {.temperature = 0}};
    options.ignore_end_of_text = true;
    auto generation = alone.generate(alone.start(), std::vector<int>(first, first + 32), options);
    (void)generation.text();
    texts.emplace_back(generation.tokens().begin(), generation.tokens().end());
  }
  const std::string path = (std::filesystem::temp_directory_path() / "effinfer_past_outputs").string();
  dec::output_store(texts).save(path);
  auto store = std::make_shared<const dec::output_store>(dec::output_store::load(path));
  std::filesystem::remove(path);
  return store;
}

std::vector<contender> contenders(const std::shared_ptr<const dec::output_store>& past) {
  const ei::execution::cpu one{.threads = 1};
  const auto draft = std::make_shared<const small>(small::load(models + "/shakespeare-draft", {}, one));
  const auto target = small::load(models + "/shakespeare-llama", {}, one);
  const auto& exec = target.decoder_model().execution();
  using weights = ei::quantization::at_load::choice;
  const auto network = [&](const char* name, weights as = weights::none) {
    return dec::eagle{.network = std::make_shared<const ei::models::feature_drafter>(ei::models::feature_drafter::load(
                          models + "/shakespeare-" + name, target.config(), exec, {as}))};
  };
  const auto heads = std::make_shared<const ei::models::medusa_heads>(
      ei::models::medusa_heads::load(models + "/shakespeare-medusa", target.config(), exec));
  const auto maps = std::make_shared<const ei::models::exit_maps>(
      ei::models::exit_maps::load(models + "/shakespeare-exits", target.config(), exec));
  dec::otherwise<dec::suffix_automaton, dec::eagle> automaton_first;
  automaton_first.first.shortest_match = 4;
  automaton_first.second = network("eagle3", weights::int8);
  const auto chain = [](auto drafter) {
    drafter.branches = 1;
    return drafter;
  };
  return {
      {"prompt lookup, always", {dec::prompt_lookup<3>{}}, 10, 0.0F},
      {"prompt lookup", {dec::prompt_lookup<3>{}}, 10},
      {"suffix automaton", {dec::suffix_automaton{}}, 10},
      {"and past outputs", {dec::suffix_automaton{.past = past}}, 10},
      {"lookahead, chain", {dec::lookahead{.branches = 1}}, 6},
      {"lookahead, tree", {dec::lookahead{}}, 10},
      {"draft model, chain", {dec::draft_model<small>{.model = draft}}, 8},
      {"draft model, tree", {dec::draft_model<small>{.model = draft, .siblings = 3}}, 12},
      {"staged", {dec::staged<dec::prompt_lookup<3>, small>{.model = draft}}, 8},
      {"first two layers", {dec::self_speculation{.layers = {{0, 2}}, .maps = maps}}, 8},
      {"Medusa, chain", {chain(dec::medusa{.heads = heads})}, 8},
      {"Medusa, tree", {dec::medusa{.heads = heads}}, 12},
      {"EAGLE, chain", {chain(network("eagle"))}, 8},
      {"EAGLE, tree", {network("eagle")}, 12},
      {"EAGLE-3, chain", {chain(network("eagle3"))}, 8},
      {"EAGLE-3, tree", {network("eagle3")}, 12},
      {"EAGLE-3 int8, chain", {chain(network("eagle3", weights::int8))}, 8},
      {"EAGLE-3 int8, tree", {network("eagle3", weights::int8)}, 12},
      {"EAGLE-3 int8, 3 always", {chain(network("eagle3", weights::int8))}, 3, 0.0F},
      {"EAGLE-3 int8, 8, always", {chain(network("eagle3", weights::int8))}, 8, 0.0F},
      {"the same, tree of 8", {network("eagle3", weights::int8)}, 8, 0.0F},
      {"the same, tree of 30", {network("eagle3", weights::int8)}, 30, 0.0F},
      {"MTP int8, chain", {chain(network("mtp", weights::int8))}, 8},
      {"MTP int8, tree", {network("mtp", weights::int8)}, 12},
      {"suffix, else EAGLE-3 int8", {automaton_first}, 12},
  };
}

/// Makes any model repeat what it said 32 tokens ago: a model of random weights, which has the speed of a real one, doesn't by itself.
struct repeat {
  void operator()(std::span<float> logits, std::span<const int> history) const {
    logits[static_cast<std::size_t>(history[history.size() - 32])] += 1e6F;
  }
};

/// Five prompts of 32 tokens that are repeated eight times and go on so for 128, with the drafters that cost nothing.
bool repetitive(const std::string& model) {
  using rule = dec::chain<dec::rule<repeat>, dec::sample>;
  using repeating = ei::pipeline<rule, ei::execution::cpu>;
  using repeating_drafted = ei::pipeline<dec::speculative<drafters, rule>, ei::execution::cpu>;
  const rule greedy{{dec::rule<repeat>{}, dec::sample{.temperature = 0}}};
  const auto alone = repeating::load(model);
  const auto drafted = repeating_drafted::load(model);
  const int vocabulary = drafted.config().vocabulary_size;
  bool all_same = true;
  struct {
    const char* name;
    drafters drafter;
  } const all[] = {{"prompt lookup", {dec::prompt_lookup<3>{}}}, {"suffix automaton", {dec::suffix_automaton{}}}};
  for (const auto& one : all) {
    std::vector<double> speed_ups, plain_speeds;
    long passes = 0, tokens = 0;
    for (std::uint32_t p = 0; p < 5; ++p) {
      std::vector<int> prompt;
      for (std::uint64_t i = 0; i < 256; ++i)
        prompt.push_back(
            static_cast<int>(ei::random_stream{7}.uniform(i % 32, p) * static_cast<float>(vocabulary - 1)));
      typename repeating::generate_options options{.max_tokens = 128, .decoding = greedy};
      options.ignore_end_of_text = true;
      auto reference = alone.generate(alone.start(), prompt, options);
      (void)reference.text();
      typename repeating_drafted::generate_options with{
          .max_tokens = 128, .decoding = {.drafter = one.drafter, .rule = greedy, .max_draft = 15}};
      with.ignore_end_of_text = true;
      auto generation = drafted.generate(drafted.start(), prompt, with);
      (void)generation.text();
      all_same = all_same && std::equal(generation.tokens().begin(), generation.tokens().end(),
                                        reference.tokens().begin(), reference.tokens().end());
      speed_ups.push_back(reference.statistics().decode_seconds / generation.statistics().decode_seconds);
      plain_speeds.push_back(reference.statistics().decode_tokens_per_second());
      passes += generation.statistics().forward_passes;
      tokens += generation.statistics().generated_tokens - 1;
    }
    const auto [least, most] = std::minmax_element(speed_ups.begin(), speed_ups.end());
    std::printf("%-20s plain %.1f tokens/s, %.2f tokens a pass, %.2f times as fast (%.2f to %.2f)\n", one.name,
                median(plain_speeds), static_cast<double>(tokens) / static_cast<double>(passes), median(speed_ups),
                *least, *most);
  }
  std::printf("%s\n", all_same ? "all texts are the plain ones" : "SOME TEXTS DIFFER");
  return all_same;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc == 3 && std::string(argv[1]) == "--repetitive") return repetitive(argv[2]) ? 0 : 1;
  const int prompts = argc > 1 ? std::atoi(argv[1]) : 200, tokens = argc > 2 ? std::atoi(argv[2]) : 128;
  std::ofstream json;
  if (argc > 3) json.open(argv[3]);
  const ei::execution::cpu one{.threads = 1};
  const auto alone = plain::load(models + "/shakespeare-llama", {}, one);
  const auto drafted = drafting::load(models + "/shakespeare-llama", {}, one);
  std::ifstream file(models + "/heldout.txt");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto held_out = alone.tokenizer().encode(text, {.add_special_tokens = false});
  const std::size_t step = held_out.size() / static_cast<std::size_t>(prompts + 1);

  const auto past = past_outputs(alone, held_out, step, prompts, tokens);

  bool all_same = true;
  json << "[";
  const char* separator = "\n";
  for (const std::string kind : {"greedy", "sampled", "copied", "random"}) {
    dec::sample rule{.temperature = 0};
    if (kind == "sampled") rule = {.temperature = 0.8F, .top_p = 0.9F};
    if (kind == "random") rule = {.temperature = 5};
    std::vector<contender> all = contenders(past);
    double plain_seconds = 0;
    long plain_tokens = 0;
    for (int p = 0; p < prompts; ++p) {
      const auto first = held_out.begin() + static_cast<std::ptrdiff_t>(step) * p;
      std::vector<int> prompt(first, first + 32);
      if (kind == "copied") {
        prompt.assign(first, first + 96);
        for (int i = 0; i < 2; ++i) prompt.insert(prompt.end(), first, first + 96);
      }
      if (kind == "random") {
        for (std::size_t i = 0; i < prompt.size(); ++i)
          prompt[i] = static_cast<int>(ei::random_stream{9}.uniform(i, static_cast<std::uint32_t>(p)) * 1000);
      }
      typename plain::generate_options options{
          .max_tokens = tokens, .seed = static_cast<std::uint64_t>(p), .decoding = rule};
      options.ignore_end_of_text = true;
      auto reference = alone.generate(alone.start(), prompt, options);
      (void)reference.text();
      const double beside = reference.statistics().decode_seconds;
      plain_seconds += beside;
      plain_tokens += reference.statistics().generated_tokens - 1;
      for (contender& c : all) {
        typename drafting::generate_options with{
            .max_tokens = tokens,
            .seed = static_cast<std::uint64_t>(p),
            .decoding = {.drafter = c.drafter, .rule = rule, .max_draft = c.max_draft, .row_cost = c.row_cost}};
        with.ignore_end_of_text = true;
        auto generation = drafted.generate(drafted.start(), prompt, with);
        (void)generation.text();
        const bool same = std::equal(generation.tokens().begin(), generation.tokens().end(), reference.tokens().begin(),
                                     reference.tokens().end());
        if (!same) std::printf("%s: prompt %d differs from the plain text\n", c.name.c_str(), p);
        all_same = all_same && same;
        const auto& s = generation.statistics();
        c.seconds += s.decode_seconds;
        c.tokens += s.generated_tokens - 1;
        c.passes += s.forward_passes;
        c.drafted += s.drafted_tokens;
        c.accepted += s.accepted_tokens;
        c.speed_ups.push_back(beside / s.decode_seconds);
      }
    }
    std::printf("\n%s: plain %.0f tokens/s\n%-26s %12s %12s %12s %14s\n", kind.c_str(),
                static_cast<double>(plain_tokens) / plain_seconds, "", "tokens/pass", "guesses/pass", "right",
                "speed-up");
    for (const contender& c : all) {
      const double a_pass = static_cast<double>(c.tokens) / static_cast<double>(c.passes);
      const double right = c.drafted > 0 ? static_cast<double>(c.accepted) / static_cast<double>(c.drafted) : 0;
      std::printf("%-26s %12.2f %12.2f %11.1f%% %13.2fx\n", c.name.c_str(), a_pass,
                  static_cast<double>(c.drafted) / static_cast<double>(c.passes), 100 * right, median(c.speed_ups));
      json << separator << R"({"text": ")" << kind << R"(", "drafter": ")" << c.name << R"(", "tokens_per_pass": )"
           << a_pass << R"(, "acceptance": )" << right << R"(, "speed_up": )" << median(c.speed_ups) << "}";
      separator = ",\n";
    }
    std::fflush(stdout);
  }
  json << "\n]\n";
  std::printf("\n%s\n", all_same ? "all texts are the plain ones" : "SOME TEXTS DIFFER");
  return all_same ? 0 : 1;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 2;
}
