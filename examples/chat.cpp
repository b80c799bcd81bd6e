// A conversation: the checkpoint's own chat template, one session whose cache is reused from turn to turn.
//
//   chat --model path/to/an/instruct/checkpoint [--system TEXT]     (end with an empty line or Ctrl-D)

#include "command_line.hpp"

#include <effinfer/effinfer.hpp>

#include <CLI/CLI.hpp>

#include <iostream>
#include <string>
#include <vector>

namespace ei = effinfer;
using chat = ei::pipeline<ei::decoding::sample, ei::kv_cache::contiguous<>>;

int main(int argc, char** argv) {
  std::string model, system;
  chat::generate_options options;
  options.max_tokens = 512;
  options.decoding.temperature = 0.7F;
  CLI::App app{"Talks with a language model."};
  app.add_option("--model", model, "Hugging Face folder, or .gguf file")->required();
  app.add_option("--system", system, "what the model is told first");
  app.add_option("--temperature", options.decoding.temperature, "0 takes the likeliest token")->capture_default_str();
  app.add_option("--max-tokens", options.max_tokens, "at most this many tokens an answer")->capture_default_str();
  app.add_option("--seed", options.seed, "the same seed gives the same answers")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const chat llm = chat::load(model, {.progress = command_line::progress_bar});
    const auto chat_template = ei::text::find_chat_template(llm.files());
    if (!chat_template) throw std::runtime_error(model + ": the checkpoint has no chat template; use generate");
    std::vector<ei::text::chat_message> messages;
    if (!system.empty()) messages.push_back({.role = "system", .content = system});
    auto session = llm.start();
    const auto piece_of = [&](std::optional<int> id) {
      return id ? std::string(llm.tokenizer().token_text(*id)) : std::string();
    };
    for (std::string line; std::cout << "> " << std::flush, std::getline(std::cin, line) && !line.empty();) {
      messages.push_back({.role = "user", .content = line});
      const std::string prompt = chat_template->render(messages, {.add_generation_prompt = true,
                                                                  .bos_token = piece_of(llm.tokenizer().bos()),
                                                                  .eos_token = piece_of(llm.tokenizer().eos())});
      // The template writes the special tokens itself. What the session has read already needn't be read again.
      auto tokens = llm.tokenizer().encode(prompt, {.add_special_tokens = false});
      std::size_t common = 0;
      const auto known = session.tokens();
      while (common + 1 < tokens.size() && common < known.size() && tokens[common] == known[common]) ++common;
      session.truncate(static_cast<int>(common));
      tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(common));
      std::string answer;
      for (const std::string_view piece : llm.generate(session, std::move(tokens), options)) {
        std::cout << piece << std::flush;
        answer += piece;
      }
      std::cout << std::endl;
      messages.push_back({.role = "assistant", .content = answer});
    }
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "chat: " << e.what() << std::endl;
    return 1;
  }
}
