// Two models and many sessions in threads: models are shared and constant, each thread has sessions of its own.
//
//   sessions models/shakespeare-llama models/shakespeare-draft

#include <effinfer/effinfer.hpp>

#include <iostream>
#include <string>
#include <thread>
#include <vector>

namespace ei = effinfer;

int main(int argc, char** argv) {
  try {
    using pipeline = ei::pipeline<ei::decoding::sample>;
    const std::vector<pipeline> models = {pipeline::load(argc > 1 ? argv[1] : "models/shakespeare-llama"),
                                          pipeline::load(argc > 2 ? argv[2] : "models/shakespeare-draft")};
    std::vector<std::string> texts(8);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      threads.emplace_back([&, i] {
        try {
          texts[i] = models[i % 2].generate("KING:\n", {.max_tokens = 24, .seed = i / 2}).text();
        } catch (const ei::error& e) {
          texts[i] = e.what();
        }
      });
    }
    for (std::thread& t : threads) t.join();
    for (std::size_t i = 0; i < texts.size(); ++i)
      std::cout << "--- model " << i % 2 << ", seed " << i / 2 << "\n" << texts[i] << "\n";

    // A session can be forked: the prompt is read once, and both copies go on from there.
    auto session = models[0].start();
    session.append(models[0].tokenizer().encode("To be, or not to be"));
    auto other = session.fork();
    const auto comma = models[0].tokenizer().encode(",", {.add_special_tokens = false});
    std::cout << "--- forked: " << models[0].generate(session, comma, {.max_tokens = 12, .seed = 1}).text() << "\n"
              << "--- forked: " << models[0].generate(other, comma, {.max_tokens = 12, .seed = 2}).text() << "\n";
  } catch (const ei::error& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
