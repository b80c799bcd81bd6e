// testing/decoding_conformance.hpp: all of the library's policies pass, and each way of breaking the promise is found.

#include <effinfer/decoding/chain.hpp>
#include <effinfer/decoding/dry.hpp>
#include <effinfer/decoding/epsilon_cutoff.hpp>
#include <effinfer/decoding/eta_cutoff.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/locally_typical.hpp>
#include <effinfer/decoding/logit_bias.hpp>
#include <effinfer/decoding/min_length.hpp>
#include <effinfer/decoding/min_p.hpp>
#include <effinfer/decoding/mirostat.hpp>
#include <effinfer/decoding/no_repeat_ngram.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/rule.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/decoding/temperature.hpp>
#include <effinfer/decoding/top_k.hpp>
#include <effinfer/decoding/top_n_sigma.hpp>
#include <effinfer/decoding/top_p.hpp>
#include <effinfer/testing/decoding_conformance.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace decoding_conformance_tests {

using namespace effinfer;
using namespace effinfer::decoding;
using testing::violations_of_drafter;
using testing::violations_of_rule;
using testing::violations_of_strategy;

namespace {

/// The rule of the folder's README.
struct no_immediate_repeat {
  void validate() const {}
  void apply(std::span<float> logits, std::span<const int> history, workspace&) const {
    if (!history.empty()) logits[static_cast<std::size_t>(history.back())] = -INFINITY;
  }
};

struct broken {
  using slot = effinfer::slot::decoding;
  int how = 0;
  void validate() const {}
  int operator()(std::span<float> logits, std::span<const int>, random_stream, std::uint64_t,
                 workspace& scratch) const {
    if (how == 1) return static_cast<int>(logits.size());
    if (how == 2) return static_cast<int>(logits.size()) - 1;  // may be out
    scratch.history.push_back(0);
    if (how == 3) return static_cast<int>(scratch.history.size() % logits.size());
    return 0;  // never throws
  }
  void apply(std::span<float> logits, std::span<const int>, workspace& scratch) const {
    scratch.history.push_back(0);
    if (how == 1) logits[0] = static_cast<float>(scratch.history.size());
    if (how == 2) {
      for (float& l : logits) l = 0;
    }
    if (how == 3) logits[0] = NAN;
  }
  [[nodiscard]] std::vector<int> propose(std::span<const int>, int most) const {
    return std::vector<int>(static_cast<std::size_t>(most + 1), 1);
  }
};

}  // namespace

TEST_CASE("the library's strategies keep what a strategy promises") {
  CHECK(violations_of_strategy(greedy{}) == std::vector<std::string>{});
  for (const float t : {0.0f, 0.5f, 1.0f, 3.0f}) {
    CHECK(violations_of_strategy(temperature{.value = t}) == std::vector<std::string>{});
    CHECK(violations_of_strategy(top_k{.k = 3, .temperature = t}) == std::vector<std::string>{});
    CHECK(violations_of_strategy(top_p{.p = 0.8f, .temperature = t}) == std::vector<std::string>{});
    CHECK(violations_of_strategy(min_p{.p = 0.1f, .temperature = t}) == std::vector<std::string>{});
    CHECK(violations_of_strategy(sample{.temperature = t, .top_k = 20, .top_p = 0.9f, .repetition_penalty = 1.3f}) ==
          std::vector<std::string>{});
  }
  for (const float t : {0.0f, 0.7f, 2.0f}) {
    CHECK(violations_of_strategy(locally_typical{.mass = 0.5f, .temperature = t}) == std::vector<std::string>{});
    CHECK(violations_of_strategy(epsilon_cutoff{.epsilon = 0.01f, .temperature = t}) == std::vector<std::string>{});
    CHECK(violations_of_strategy(eta_cutoff{.epsilon = 0.01f, .temperature = t}) == std::vector<std::string>{});
    CHECK(violations_of_strategy(top_n_sigma{.temperature = t}) == std::vector<std::string>{});
    CHECK(violations_of_strategy(mirostat{.temperature = t}) == std::vector<std::string>{});
  }
  CHECK(violations_of_strategy(sample{}) == std::vector<std::string>{});
  CHECK(violations_of_strategy(chain<repetition_penalty, top_p>{}) == std::vector<std::string>{});
  CHECK(violations_of_strategy(speculative<prompt_lookup<3>, top_p>{}) == std::vector<std::string>{});
}

TEST_CASE("the library's rules keep what a rule promises") {
  CHECK(violations_of_rule(greedy{}) == std::vector<std::string>{});
  CHECK(violations_of_rule(temperature{.value = 0.7f}) == std::vector<std::string>{});
  CHECK(violations_of_rule(top_k{.k = 3}) == std::vector<std::string>{});
  CHECK(violations_of_rule(top_p{.p = 0.5f}) == std::vector<std::string>{});
  CHECK(violations_of_rule(min_p{.p = 0.5f}) == std::vector<std::string>{});
  CHECK(violations_of_rule(sample{.top_p = 0.9f, .presence_penalty = 1}) == std::vector<std::string>{});
  CHECK(violations_of_rule(repetition_penalty{}) == std::vector<std::string>{});
  CHECK(violations_of_rule(frequency_penalty{}) == std::vector<std::string>{});
  CHECK(violations_of_rule(presence_penalty{}) == std::vector<std::string>{});
  CHECK(violations_of_rule(chain<top_k, top_p>{}) == std::vector<std::string>{});
  CHECK(violations_of_rule(locally_typical{.mass = 0.5f}) == std::vector<std::string>{});
  CHECK(violations_of_rule(epsilon_cutoff{}) == std::vector<std::string>{});
  CHECK(violations_of_rule(eta_cutoff{}) == std::vector<std::string>{});
  CHECK(violations_of_rule(top_n_sigma{}) == std::vector<std::string>{});
  CHECK(violations_of_rule(mirostat{.target = 2}) == std::vector<std::string>{});
  CHECK(violations_of_rule(dry{.allowed = 1, .breakers = {3}}) == std::vector<std::string>{});
  CHECK(violations_of_rule(no_repeat_ngram{.size = 2}) == std::vector<std::string>{});
  CHECK(violations_of_rule(logit_bias{.biases = {{0, -2.5f}}}) == std::vector<std::string>{});
  CHECK(violations_of_rule(min_length{.tokens = 9, .prompt_tokens = 4, .ends = {0}}) == std::vector<std::string>{});
  CHECK(violations_of_rule(chain<dry, mirostat, logit_bias, top_n_sigma>{}) == std::vector<std::string>{});
  CHECK(violations_of_rule(no_immediate_repeat{}) == std::vector<std::string>{});
}

TEST_CASE("the library's drafters keep what a drafter promises") {
  CHECK(violations_of_drafter(prompt_lookup<1>{}) == std::vector<std::string>{});
  CHECK(violations_of_drafter(prompt_lookup<4>{}) == std::vector<std::string>{});
}

TEST_CASE("what breaks a promise is found and said") {
  const auto says = [](const std::vector<std::string>& found, const std::string& part) {
    for (const auto& sentence : found) {
      if (sentence.find(part) != std::string::npos) return true;
    }
    return false;
  };
  CHECK(says(violations_of_strategy(broken{0}), "must be an effinfer::error"));
  CHECK(says(violations_of_strategy(broken{1}), "outside the vocabulary"));
  CHECK(says(violations_of_strategy(broken{2}), "its logit is -infinity or NaN"));
  CHECK(says(violations_of_strategy(broken{3}), "must not depend on the workspace"));
  CHECK(says(violations_of_rule(broken{1}), "must not depend on the workspace"));
  CHECK(says(violations_of_rule(broken{2}), "is back in"));
  CHECK(says(violations_of_rule(broken{3}), "became NaN"));
  CHECK(says(violations_of_drafter(broken{}), "6 tokens were drafted where 5 may be"));
}

}  // namespace decoding_conformance_tests
