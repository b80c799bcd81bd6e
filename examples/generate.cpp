// The everyday command: load a checkpoint, continue a prompt, show the text as it comes.
//
//   generate --model models/shakespeare-llama --prompt "ROMEO:" --max-tokens 200 --temperature 0.8
//
// Text goes to stdout, everything else to stderr. Options choose among pipelines (full, windowed and linear attention; sampling
// and beam search); a program that knows what it wants compiles one.

#include "command_line.hpp"

#include <effinfer/effinfer.hpp>

#include <CLI/CLI.hpp>

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

namespace ei = effinfer;

namespace {

struct arguments {
  std::string model, packed_cache, prompt, prompt_file, weights = "as-stored", attention = "full", decoding = "sample";
  std::vector<std::string> stop;
  ei::decoding::sample sample;
  ei::decoding::beam<> beam{.beams = 0};
  std::uint64_t seed = 0;
  int max_tokens = 256, threads = 0, context = 0;
  bool json = false, ignore_eos = false;
};

arguments parse(int argc, char** argv) {
  arguments a;
  CLI::App app{"Continues a text with a language model."};
  app.add_option("--model", a.model, "Hugging Face folder, or .gguf file")->required();
  auto* prompt = app.add_option("--prompt", a.prompt, "the text to continue");
  app.add_option("--prompt-file", a.prompt_file, "read the text from a file; - is stdin")->excludes(prompt);
  app.add_option("--max-tokens", a.max_tokens, "at most this many tokens")->capture_default_str();
  app.add_option("--temperature", a.sample.temperature, "0 takes the likeliest token")->capture_default_str();
  app.add_option("--top-k", a.sample.top_k, "only the k likeliest; 0 is all")->capture_default_str();
  app.add_option("--top-p", a.sample.top_p, "only the likeliest that make up p")->capture_default_str();
  app.add_option("--min-p", a.sample.min_p, "only those at least p times as likely as the likeliest")
      ->capture_default_str();
  app.add_option("--repetition-penalty", a.sample.repetition_penalty, "above 1 discourages repetition")
      ->capture_default_str();
  app.add_option("--seed", a.seed, "the same seed gives the same text")->capture_default_str();
  app.add_option("--threads", a.threads, "0 is one a core")->capture_default_str();
  app.add_option("--context", a.context, "positions to keep; 0 is the model's maximum, at most 4096")
      ->capture_default_str();
  app.add_option("--weights", a.weights, "as-stored, int8 or int4")
      ->check(CLI::IsMember({"as-stored", "int8", "int4"}));
  app.add_option("--packed-cache", a.packed_cache, "keep packed weights in this file or folder, for faster starts");
  app.add_option("--attention", a.attention, "full (as the checkpoint says), or window:N");
  app.add_option("--decoding", a.decoding, "sample or prompt-lookup")
      ->check(CLI::IsMember({"sample", "prompt-lookup"}));
  app.add_option("--beams", a.beam.beams, "search with so many beams instead of sampling");
  app.add_option("--length-penalty", a.beam.length_penalty, "of beams; above 0 favours longer texts")
      ->capture_default_str();
  app.add_option("--stop", a.stop, "end the text here; may be given several times");
  app.add_flag("--ignore-eos", a.ignore_eos, "go on behind an end-of-text token");
  app.add_flag("--json", a.json, "print one JSON object instead of the text");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }
  if (!a.prompt_file.empty()) a.prompt = command_line::read_text(a.prompt_file);
  return a;
}

template <class Pipeline, class... Values>
int run(const arguments& a, const std::string& attention, const typename Pipeline::decoding& decoding,
        const Values&... values) {
  const Pipeline llm = Pipeline::load(a.model,
                                      {.progress = command_line::progress_bar,
                                       .session = {.context_tokens = a.context},
                                       .packed_cache = a.packed_cache},
                                      ei::execution::cpu{.threads = a.threads}, values...);
  typename Pipeline::generate_options options;
  options.max_tokens = a.max_tokens;
  options.seed = a.seed;
  options.stop = a.stop;
  options.ignore_end_of_text = a.ignore_eos;
  options.decoding = decoding;
  auto generation = llm.generate(a.prompt, options);
  std::string text;
  for (const std::string_view piece : generation) {
    text += piece;
    if (!a.json) std::cout << piece << std::flush;
  }
  const auto& s = generation.statistics();
  if (!a.json) {
    std::cout << std::endl;
    std::fprintf(
        stderr,
        "\nprefill %d tokens, %.1f tokens/s; decode %d tokens, %.1f tokens/s; peak memory %.1f MB; ended by %s\n",
        s.prompt_tokens, s.prefill_tokens_per_second(), s.generated_tokens, s.decode_tokens_per_second(),
        static_cast<double>(command_line::peak_bytes()) / 1e6, std::string(to_string(generation.finished())).c_str());
    return 0;
  }
  std::string ids;
  for (const int id : generation.tokens()) ids += (ids.empty() ? "" : ",") + std::to_string(id);
  using command_line::json_string;
  std::cout << "{\"prompt_tokens\":" << s.prompt_tokens << ",\"tokens\":[" << ids << "],\"text\":" << json_string(text)
            << ",\"finish_reason\":" << json_string(to_string(generation.finished()))
            << ",\"prefill_tokens_per_second\":" << s.prefill_tokens_per_second()
            << ",\"decode_tokens_per_second\":" << s.decode_tokens_per_second()
            << ",\"forward_passes\":" << s.forward_passes << ",\"peak_bytes\":" << command_line::peak_bytes()
            << ",\"pipeline\":{\"model\":" << json_string(llm.config().architecture)
            << ",\"attention\":" << json_string(attention) << ",\"quantization\":" << json_string(a.weights)
            << ",\"decoding\":" << json_string(a.beam.beams > 0 ? "beam" : a.decoding) << ",\"execution\":"
            << json_string("cpu, " + std::string(to_string(llm.decoder_model().execution().set())) + ", " +
                           std::to_string(llm.decoder_model().execution().threads()) + " threads")
            << "}}" << std::endl;
  return 0;
}

template <class Decoding>
int choose(const arguments& a, const Decoding& decoding) {
  using ei::execution::cpu;
  using ei::quantization::at_load;
  const at_load weights{a.weights == "int8"   ? at_load::choice::int8
                        : a.weights == "int4" ? at_load::choice::int4_32
                                              : at_load::choice::none};
  if (ei::checkpoint::model_files::open(a.model).config().architecture == "effinfer_linear") {
    if (a.attention != "full") throw std::runtime_error("--attention: a linear-attention model has no window");
    return run<ei::pipeline<ei::models::linear_llama, at_load, Decoding, cpu>>(a, "linear", decoding, weights);
  }
  if (a.attention == "full") return run<ei::pipeline<at_load, Decoding, cpu>>(a, "full", decoding, weights);
  if (a.attention.rfind("window:", 0) != 0)
    throw std::runtime_error("--attention: " + a.attention + " is neither full nor window:N");
  ei::attention::sliding_window<> window;
  window.window = std::atoi(a.attention.c_str() + 7);
  return run<ei::pipeline<ei::attention::sliding_window<>, at_load, Decoding, cpu>>(a, a.attention, decoding, weights,
                                                                                    window);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const arguments a = parse(argc, argv);
    if (a.beam.beams != 0) return choose(a, a.beam);
    ei::decoding::speculative<ei::decoding::prompt_lookup<3>, ei::decoding::sample> decoding{.rule = a.sample};
    decoding.max_draft = a.decoding == "prompt-lookup" ? 10 : 0;  // without drafts it is plain sampling
    return choose(a, decoding);
  } catch (const std::exception& e) {
    std::cerr << "generate: " << e.what() << std::endl;
    return 1;
  }
}
