#pragma once
// What the everyday command does on any pipeline: generate.cpp chooses among those of the CPU, generate_cuda.cu runs a GPU's.

#include "command_line.hpp"

#include <effinfer/decoding/beam.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/pipeline.hpp>
#include <effinfer/quantization/at_load.hpp>

#include <cstdint>
#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

namespace generate {

namespace ei = effinfer;

struct arguments {
  std::string model, packed_cache, prompt, prompt_file, weights = "as-stored", attention = "full", decoding = "sample",
                                                        device = "cpu";
  std::vector<std::string> stop;
  ei::decoding::sample sample;
  ei::decoding::beam<> beam{.beams = 0};
  std::uint64_t seed = 0;
  int max_tokens = 256, threads = 0, context = 0;
  bool json = false, ignore_eos = false;
};

inline ei::quantization::at_load weights_of(const arguments& a) {
  using ei::quantization::at_load;
  return {a.weights == "int8"   ? at_load::choice::int8
          : a.weights == "int4" ? at_load::choice::int4_32
                                : at_load::choice::none};
}

/// Sampling, with drafts where they are asked for.
using sampling = ei::decoding::speculative<ei::decoding::prompt_lookup<3>, ei::decoding::sample>;
inline sampling sampling_of(const arguments& a) {
  sampling decoding{.rule = a.sample};
  decoding.max_draft = a.decoding == "prompt-lookup" ? 10 : 0;  // without drafts it is plain sampling
  return decoding;
}

inline std::string description(const ei::execution::cpu::context& where) {
  std::string text("cpu, ");
  text += to_string(where.set());
  text += ", ";
  text += std::to_string(where.threads());
  return text += " threads";
}
template <class Context>
std::string description(const Context& where) {
  std::string text("cuda:");
  return text += std::to_string(where.device());
}

template <class Pipeline, class... Values>
int run(const arguments& a, const std::string& attention, const typename Pipeline::decoding& decoding,
        const Values&... values) {
  const Pipeline llm = Pipeline::load(a.model,
                                      {.progress = command_line::progress_bar,
                                       .session = {.context_tokens = a.context},
                                       .packed_cache = a.packed_cache},
                                      values...);
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
            << ",\"decoding\":" << json_string(a.beam.beams > 0 ? "beam" : a.decoding)
            << ",\"execution\":" << json_string(description(llm.decoder_model().execution())) << "}}" << std::endl;
  return 0;
}

/// --device cuda, of a program that is compiled with generate_cuda.cu.
int on_cuda(const arguments& a);

}  // namespace generate
