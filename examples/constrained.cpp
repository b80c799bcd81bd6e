// Text that keeps to a JSON schema, a grammar in llama.cpp's notation (GBNF), or a regular expression, whatever the model says.
//
//   constrained --model models/shakespeare-llama --prompt "ROMEO:" --regex "(Ay|Nay), [a-z ]{3,30}\."
//   constrained --model models/shakespeare-llama --prompt "ROMEO:" --json-schema schema.json --white-space
//
// What the grammar leaves no choice for (keys, brackets) is drafted and read in one pass; the text stays the same.

#include "command_line.hpp"

#include <effinfer/decoding/constrained.hpp>
#include <effinfer/decoding/grammar/tokenizer_vocabulary.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/pipeline.hpp>

#include <CLI/CLI.hpp>

#include <cstdio>
#include <iostream>
#include <string>

namespace ei = effinfer;
namespace grammar = effinfer::decoding::grammar;

namespace {

using policy = ei::decoding::speculative<ei::decoding::forced_text<grammar::any_grammar>,
                                         ei::decoding::constrained<grammar::any_grammar, ei::decoding::sample>>;
using pipeline = ei::pipeline<policy>;

struct arguments {
  std::string model, prompt, json_schema, gbnf, regex;
  std::uint64_t seed = 0;
  int max_tokens = 256;
  float temperature = 1.0F;
  bool white_space = false;
};

grammar::any_grammar compile(const arguments& a, const pipeline& llm) {
  const auto& ends = llm.config().eos_ids;
  const auto vocabulary = grammar::vocabulary_of(llm.tokenizer(), {ends.begin(), ends.end()});
  if (!a.regex.empty()) return grammar::regular_expression(a.regex, vocabulary);
  if (!a.gbnf.empty()) return grammar::gbnf(command_line::read_text(a.gbnf), vocabulary);
  const auto space = a.white_space ? grammar::json_white_space::limited : grammar::json_white_space::none;
  const std::string schema = a.json_schema.empty() ? "true" : command_line::read_text(a.json_schema);
  return grammar::json_schema(schema, vocabulary, {.white_space = space});
}

int run(const arguments& a) {
  const pipeline llm = pipeline::load(a.model);
  pipeline::generate_options options;
  options.max_tokens = a.max_tokens;
  options.seed = a.seed;
  options.decoding.rule.rule.temperature = a.temperature;
  options.decoding.rule.grammar = options.decoding.drafter.grammar = compile(a, llm);
  auto generation = llm.generate(a.prompt, options);
  for (const std::string_view piece : generation) std::cout << piece << std::flush;
  std::cout << std::endl;
  std::fprintf(stderr, "%d tokens in %d passes; ended by %s\n", generation.statistics().generated_tokens,
               generation.statistics().forward_passes + 1, std::string(to_string(generation.finished())).c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  arguments a;
  CLI::App app{"Writes text that keeps to a grammar; without one, any JSON."};
  app.add_option("--model", a.model, "Hugging Face folder, or .gguf file")->required();
  app.add_option("--prompt", a.prompt, "the text to continue")->required();
  auto* schema = app.add_option("--json-schema", a.json_schema, "file with a JSON schema; - is stdin");
  auto* gbnf = app.add_option("--grammar", a.gbnf, "file with a grammar in GBNF; - is stdin")->excludes(schema);
  app.add_option("--regex", a.regex, "the whole text matches this")->excludes(schema)->excludes(gbnf);
  app.add_option("--max-tokens", a.max_tokens, "at most this many tokens")->capture_default_str();
  app.add_option("--temperature", a.temperature, "0 takes the likeliest token")->capture_default_str();
  app.add_option("--seed", a.seed, "the same seed gives the same text")->capture_default_str();
  app.add_flag("--white-space", a.white_space, "JSON may have spaces and line breaks");
  CLI11_PARSE(app, argc, argv);
  try {
    return run(a);
  } catch (const std::exception& e) {
    std::cerr << "constrained: " << e.what() << std::endl;
    return 1;
  }
}
