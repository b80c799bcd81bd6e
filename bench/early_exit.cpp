// What leaving early costs and gains on the shipped model: layers a token, speed beside plain decoding, and what is lost: the
// perplexity of held-out text, and how often the likeliest token is still the whole model's.
//
//   bench_early_exit [prompts [tokens]]       100 prompts of 128 tokens for the speed; 16,384 held-out tokens for the loss
//
// Speed: greedy continuations, each beside its plain one, one thread; the median of the ratios. Loss: held-out tokens in windows of
// 256, each read as a generated one, so that later tokens see the keys and values that early ones left behind. An exit that never
// leaves must give the plain texts and the plain perplexity, or the program ends with 1.

#include "model_report.hpp"

#include <effinfer/decoding/early_exit.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/log_probability.hpp>
#include <effinfer/pipeline.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

namespace ei = effinfer;
namespace dec = ei::decoding;

namespace {

const std::string models = EFFINFER_SHIPPED_MODELS;
using plain = ei::pipeline<dec::greedy, ei::execution::cpu>;

struct held_out {
  std::vector<int> tokens;
  int prompts, tokens_a_prompt, window = 256;
};

int likeliest(std::span<const float> logits) {
  return static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// Of one exit rule.
struct outcome {
  double layers = 0, perplexity = 0, same_best = 0, speed = 0;
  bool same_texts = true;
};

template <class Exit>
outcome measure(const plain& whole, const Exit& exit, std::shared_ptr<const ei::models::exit_maps> maps,
                const held_out& text) {
  using leaving = ei::pipeline<dec::early_exit<Exit>, ei::execution::cpu>;
  static const auto early = leaving::load(models + "/shakespeare-llama", {}, ei::execution::cpu{.threads = 1});
  const dec::early_exit<Exit> strategy{.exit = exit, .maps = std::move(maps)};
  outcome result;

  std::vector<double> ratios;
  const std::size_t step = text.tokens.size() / static_cast<std::size_t>(text.prompts + 1);
  for (int p = 0; p < text.prompts; ++p) {
    const auto first = text.tokens.begin() + static_cast<std::ptrdiff_t>(step) * p;
    const std::vector<int> prompt(first, first + 32);
    typename plain::generate_options options{.max_tokens = text.tokens_a_prompt};
    options.ignore_end_of_text = true;
    auto reference = whole.generate(whole.start(), prompt, options);
    (void)reference.text();
    typename leaving::generate_options with{.max_tokens = text.tokens_a_prompt, .decoding = strategy};
    with.ignore_end_of_text = true;
    auto generation = early.generate(early.start(), prompt, with);
    (void)generation.text();
    ratios.push_back(reference.statistics().decode_seconds / generation.statistics().decode_seconds);
    result.same_texts = result.same_texts && std::ranges::equal(generation.tokens(), reference.tokens());
  }
  result.speed = model_report::median(ratios);

  auto whole_session = whole.start({.context_tokens = text.window + 1});
  auto session = early.start({.context_tokens = text.window + 1});
  double sum = 0, same = 0, layers = 0, scored = 0;
  const std::size_t count = std::min<std::size_t>(text.tokens.size(), 16384);
  for (std::size_t begin = 0; begin + 1 < count; begin += static_cast<std::size_t>(text.window)) {
    whole_session.truncate(0);
    session.truncate(0);
    const std::size_t end = std::min(count, begin + static_cast<std::size_t>(text.window)) - 1;
    for (std::size_t i = begin; i < end; ++i) {
      const int best = likeliest(whole_session.append({&text.tokens[i], 1}));
      int depth = 0;
      const auto logits = strategy.read(session, text.tokens[i], static_cast<int>(i - begin), {}, &depth);
      sum += ei::decoding::log_probability(logits, text.tokens[i + 1]);
      same += likeliest(logits) == best ? 1 : 0;
      layers += depth;
      ++scored;
    }
  }
  result.layers = layers / scored;
  result.perplexity = std::exp(-sum / scored);
  result.same_best = same / scored;
  return result;
}

void print(const std::string& name, const outcome& o) {
  std::printf("%-32s %8.2f %12.3f %10.1f%% %10.2fx\n", name.c_str(), o.layers, o.perplexity, 100 * o.same_best,
              o.speed);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) try {
  const auto whole = plain::load(models + "/shakespeare-llama", {}, ei::execution::cpu{.threads = 1});
  const auto maps = std::make_shared<const ei::models::exit_maps>(
      ei::models::exit_maps::load(models + "/shakespeare-exits", whole.config(), whole.decoder_model().execution()));
  std::ifstream file(models + "/heldout.txt");
  const std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const held_out text{whole.tokenizer().encode(all, {.add_special_tokens = false}), argc > 1 ? std::atoi(argv[1]) : 100,
                      argc > 2 ? std::atoi(argv[2]) : 128};
  if (text.prompts < 1 || text.tokens_a_prompt < 2) {
    std::fprintf(stderr, "bench_early_exit [prompts [tokens]]: at least 1 prompt of 2 tokens\n");
    return 2;
  }

  std::printf("%d layers; greedy text of %d tokens a prompt\n%-32s %8s %12s %11s %11s\n", whole.config().layers,
              text.tokens_a_prompt, "", "layers", "perplexity", "same best", "speed");
  const outcome never = measure(whole, dec::confidence{.threshold = 1}, maps, text);
  print("confidence above 1 (never)", never);
  for (const float threshold : {0.9F, 0.7F, 0.5F, 0.3F}) {
    const outcome o = measure(whole, dec::confidence{.threshold = threshold}, maps, text);
    print("confidence above " + std::to_string(threshold).substr(0, 3), o);
  }
  print("confidence 0.7, falling (t = 4)",
        measure(whole, dec::confidence{.threshold = 0.7F, .temperature = 4, .length = 128}, maps, text));
  for (const int times : {3, 2})
    print("patience of " + std::to_string(times), measure(whole, dec::patience{.times = times}, maps, text));
  for (const int fewest : {3, 2}) {
    print("schedule down to " + std::to_string(fewest) + " layers",
          measure(whole, dec::monotone_schedule{.fewest = fewest, .warm_up = 1, .length = 128}, maps, text));
  }
  const outcome schedule_of_all = measure(whole, dec::monotone_schedule{.fewest = whole.config().layers}, maps, text);
  const bool exact = never.same_texts && never.same_best == 1 && schedule_of_all.same_texts &&
                     schedule_of_all.same_best == 1 && never.perplexity == schedule_of_all.perplexity;
  std::printf("%s\n",
              exact ? "where no token leaves all is the plain model's" : "AN EXIT THAT NEVER LEAVES CHANGES THE TEXT");
  return exact ? 0 : 1;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 2;
}
