// How well a model predicts a text: the number to check ours by from outside.
//
//   perplexity --model models/shakespeare-llama --text models/heldout.txt --context 256
//
// The text is tokenized without special tokens and cut into windows of --context tokens; each window starts afresh behind the
// beginning-of-text token (if the model has one) and each of its tokens is scored. perplexity = exp(-mean log p).

#include "command_line.hpp"

#include <effinfer/effinfer.hpp>

#include <CLI/CLI.hpp>

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

namespace ei = effinfer;

namespace {

struct arguments {
  std::string model, text, weights = "as-stored";
  int context = 256, threads = 0;
  bool json = false;
};

arguments parse(int argc, char** argv) {
  arguments a;
  CLI::App app{"Measures how well a language model predicts a text."};
  app.add_option("--model", a.model, "Hugging Face folder, or .gguf file")->required();
  app.add_option("--text", a.text, "the text file; - is stdin")->required();
  app.add_option("--context", a.context, "tokens a window")->capture_default_str()->check(CLI::Range(2, 1 << 20));
  app.add_option("--weights", a.weights, "as-stored, int8 or int4")
      ->check(CLI::IsMember({"as-stored", "int8", "int4"}));
  app.add_option("--threads", a.threads, "0 is one a core")->capture_default_str();
  app.add_flag("--json", a.json, "print one JSON object with each token's log-probability");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }
  return a;
}

/// The log-probability of each of `tokens`, window by window. A text's very first token has none where the model has no
/// beginning-of-text token to put in front; it is left out then.
template <class Pipeline>
std::vector<double> score(const Pipeline& llm, const std::vector<int>& tokens, int window) {
  std::vector<double> scores;
  scores.reserve(tokens.size());
  const auto bos = llm.tokenizer().bos();
  auto session = llm.start({.context_tokens = window + 1});
  for (std::size_t begin = 0; begin < tokens.size(); begin += static_cast<std::size_t>(window)) {
    const std::size_t end = std::min(tokens.size(), begin + static_cast<std::size_t>(window));
    std::vector<int> input;
    if (bos) input.push_back(*bos);
    input.insert(input.end(), tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                 tokens.begin() + static_cast<std::ptrdiff_t>(end));
    session.truncate(0);
    session.append(input, {}, static_cast<int>(input.size()), [&](int position, std::span<const float> logits) {
      const auto next = static_cast<std::size_t>(position) + 1;
      if (next < input.size()) scores.push_back(ei::decoding::log_probability(logits, input[next]));
    });
    command_line::progress_bar("scoring", static_cast<double>(end) / static_cast<double>(tokens.size()));
  }
  return scores;
}

template <class Pipeline>
int run(const arguments& a) {
  using ei::quantization::at_load;
  const at_load weights{a.weights == "int8"   ? at_load::choice::int8
                        : a.weights == "int4" ? at_load::choice::int4_32
                                              : at_load::choice::none};
  const auto llm = Pipeline::load(a.model, {.progress = command_line::progress_bar},
                                  ei::execution::cpu{.threads = a.threads}, weights);
  const auto tokens = llm.tokenizer().encode(command_line::read_text(a.text), {.add_special_tokens = false});
  const auto scores = score(llm, tokens, a.context);
  double sum = 0;
  for (const double s : scores) sum += s;
  const double perplexity = std::exp(-sum / static_cast<double>(scores.size()));
  if (!a.json) {
    std::printf("%zu tokens in windows of %d, weights %s: perplexity %.4f\n", scores.size(), a.context,
                a.weights.c_str(), perplexity);
    return 0;
  }
  std::printf("{\"tokens\":%zu,\"context\":%d,\"weights\":\"%s\",\"perplexity\":%.9g,\"log_probabilities\":[",
              scores.size(), a.context, a.weights.c_str(), perplexity);
  for (std::size_t i = 0; i < scores.size(); ++i) std::printf("%s%.9g", i == 0 ? "" : ",", scores[i]);
  std::puts("]}");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const arguments a = parse(argc, argv);
    // Exact keys and values: this program is for comparing numbers.
    using ei::execution::cpu;
    using ei::quantization::at_load;
    if (ei::checkpoint::model_files::open(a.model).config().architecture == "effinfer_linear") {
      return run<ei::pipeline<ei::models::linear_llama, at_load, cpu>>(a);
    }
    return run<ei::pipeline<at_load, ei::kv_cache::contiguous<float>, cpu>>(a);
  } catch (const std::exception& e) {
    std::cerr << "perplexity: " << e.what() << std::endl;
    return 1;
  }
}
