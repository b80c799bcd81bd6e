// The everyday command: load a checkpoint, continue a prompt, show the text as it comes.
//
//   generate --model models/shakespeare-llama --prompt "ROMEO:" --max-tokens 200 --temperature 0.8
//
// Text goes to stdout, everything else to stderr. Options choose among pipelines (full, windowed and linear attention; sampling
// and beam search); a program that knows what it wants compiles one. With generate_cuda.cu (CMake: -DEFFINFER_CUDA=ON) it takes
// --device cuda too.

#include "generate.hpp"

#include <CLI/CLI.hpp>

#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ei = effinfer;
using generate::arguments;
using generate::run;

namespace {

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
  app.add_option("--device", a.device, "cpu, or cuda (cuda:1 ...) where the program was built with it")
      ->capture_default_str();
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

template <class Decoding>
int choose(const arguments& a, const Decoding& decoding) {
  using ei::execution::cpu;
  using ei::quantization::at_load;
  const at_load weights = generate::weights_of(a);
  const cpu where{.threads = a.threads};
  if (ei::checkpoint::model_files::open(a.model).config().architecture == "effinfer_linear") {
    if (a.attention != "full") throw std::runtime_error("--attention: a linear-attention model has no window");
    return run<ei::pipeline<ei::models::linear_llama, at_load, Decoding, cpu>>(a, "linear", decoding, weights, where);
  }
  if (a.attention == "full") return run<ei::pipeline<at_load, Decoding, cpu>>(a, "full", decoding, weights, where);
  if (a.attention.rfind("window:", 0) != 0)
    throw std::runtime_error("--attention: " + a.attention + " is neither full nor window:N");
  ei::attention::sliding_window<> window;
  window.window = std::atoi(a.attention.c_str() + 7);
  return run<ei::pipeline<ei::attention::sliding_window<>, at_load, Decoding, cpu>>(a, a.attention, decoding, weights,
                                                                                    where, window);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const arguments a = parse(argc, argv);
    if (a.device.rfind("cuda", 0) == 0) {
#if defined(EFFINFER_EXAMPLE_CUDA)
      return generate::on_cuda(a);
#else
      throw std::runtime_error("--device: this program was built without CUDA (CMake: -DEFFINFER_CUDA=ON)");
#endif
    }
    if (a.device != "cpu") throw std::runtime_error("--device: " + a.device + " is neither cpu nor cuda");
    return a.beam.beams != 0 ? choose(a, a.beam) : choose(a, generate::sampling_of(a));
  } catch (const std::exception& e) {
    std::cerr << "generate: " << e.what() << std::endl;
    return 1;
  }
}
