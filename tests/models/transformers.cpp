// Whole models against Hugging Face transformers: tests/reference/make_references.py wrote the checkpoints and the answers.

#include "execution/instruction_sets.hpp"
#include "oracle.hpp"

#include <effinfer/decoding/log_probability.hpp>
#include <effinfer/model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace transformers_tests {

namespace ei = effinfer;

namespace {

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), path);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct reference {
  std::vector<int> prompt, greedy;
  std::vector<float> log_probabilities;  // [prompt, V]

  explicit reference(const std::string& folder) {
    const ei::json::document document(read(folder + "/reference.json"), "reference.json");
    for (const auto& id : document.root().at("prompt").elements()) prompt.push_back(static_cast<int>(id.integer()));
    for (const auto& id : document.root().at("greedy").elements()) greedy.push_back(static_cast<int>(id.integer()));
    const std::string bytes = read(folder + "/logprobs.f32");
    log_probabilities.resize(bytes.size() / 4);
    std::memcpy(log_probabilities.data(), bytes.data(), log_probabilities.size() * 4);
    REQUIRE(greedy.size() == 64);
  }
};

int argmax(std::span<const float> row) {
  return static_cast<int>(std::max_element(row.begin(), row.end()) - row.begin());
}

/// The greatest distance of a log-probability from the reference, over the whole prompt; then checks 64 greedy tokens.
template <class Model>
double distance(const Model& model, const reference& expected, bool check_greedy = true) {
  auto session = model.start({.context_tokens = 256, .prefill_chunk = 256});
  const auto v = static_cast<std::size_t>(model.config().vocabulary_size);
  REQUIRE(expected.log_probabilities.size() == expected.prompt.size() * v);
  double worst = 0;
  const auto last = session.append(
      expected.prompt, {}, static_cast<int>(expected.prompt.size()), [&](int position, std::span<const float> logits) {
        const float* row = expected.log_probabilities.data() + static_cast<std::size_t>(position) * v;
        for (std::size_t i = 0; i < v; ++i) {
          const double d =
              std::abs(ei::decoding::log_probability(logits, static_cast<int>(i)) - static_cast<double>(row[i]));
          worst = std::isnan(d) ? INFINITY : std::max(worst, d);
        }
      });
  if (!check_greedy) return worst;
  int next = argmax(last);
  for (std::size_t step = 0; step < expected.greedy.size(); ++step) {
    INFO("step " << step);
    REQUIRE(next == expected.greedy[step]);
    next = argmax(session.append(std::span(&next, 1)));
  }
  return worst;
}

using exact = ei::model<ei::kv_cache::contiguous<float>, ei::execution::cpu>;
/// Products in f32, also of weights in bf16.
const ei::execution::cpu in_f32{.threads = 2, .set = [] {
                                  auto sets = instruction_sets::supported();
                                  std::erase_if(sets, ei::execution::has_bf16_dot_products);
                                  return sets.back();
                                }()};
const std::string folder = std::string(EFFINFER_TEST_DATA) + "/models/";

}  // namespace

TEST_CASE("float checkpoints of every family give transformers' log-probabilities and greedy tokens") {
  for (const std::string name :
       {"llama2", "llama3", "llama-linear-rope", "llama-dynamic-ntk", "llama-yarn", "llama-multi-query",
        "llama-sharded", "llama-f16", "llama-bf16", "mistral", "mistral-nowindow", "qwen2", "qwen2-untied", "qwen3"}) {
    CAPTURE(name);
    const reference expected(folder + name);
    CHECK(distance(exact::load(folder + name, {}, in_f32), expected) < 2e-4);
  }
}

TEST_CASE("GGUF files of the same models give the same answers") {
  for (const std::string name : {"llama2", "llama3", "llama-linear-rope", "mistral", "qwen2", "qwen3"}) {
    CAPTURE(name);
    const reference expected(folder + name);
    CHECK(distance(exact::load(folder + name + "/model.gguf", {}, in_f32), expected) < 2e-4);
  }
}

TEST_CASE("every instruction set gives the same answers") {
  for (const auto set : instruction_sets::supported()) {
    CAPTURE(to_string(set));
    for (const std::string name : {"llama3", "qwen3"}) {
      const reference expected(folder + name);
      using pinned = ei::model<ei::kv_cache::contiguous<float>, ei::execution::cpu>;
      CHECK(distance(pinned::load(folder + name, {}, ei::execution::cpu{.threads = 2, .set = set}), expected) < 2e-4);
    }
  }
}

TEST_CASE("the linear decoder gives the recurrence's answers") {
  const reference expected(folder + "linear");
  CHECK(distance(ei::model<ei::models::linear_llama>::load(folder + "linear"), expected) < 2e-4);
}

namespace {

/// Root mean square of the distance from `expected` over all positions and tokens.
double spread(const std::vector<oracle::row>& rows, const reference& expected) {
  double sum = 0;
  std::size_t n = 0;
  for (const auto& row : rows) {
    for (const double p : row) {
      const double d = p - static_cast<double>(expected.log_probabilities[n++]);
      sum += d * d;
    }
  }
  return std::sqrt(sum / static_cast<double>(n));
}

template <class Model>
std::vector<oracle::row> log_probabilities(const Model& model, const reference& expected) {
  std::vector<oracle::row> rows;
  auto session = model.start({.context_tokens = 256});
  session.append(expected.prompt, {}, static_cast<int>(expected.prompt.size()),
                 [&](int, std::span<const float> logits) {
                   rows.emplace_back();
                   for (int i = 0; i < static_cast<int>(logits.size()); ++i)
                     rows.back().push_back(ei::decoding::log_probability(logits, i));
                 });
  return rows;
}

}  // namespace

TEST_CASE("the oracle itself is right") {
  const reference expected(folder + "llama2");
  const auto files = ei::checkpoint::model_files::open(folder + "llama2");
  CHECK(spread(oracle::llama(files, {})(expected.prompt), expected) < 1e-4);
}

TEST_CASE("a 16-bit cache costs what rounding keys and values costs") {
  const reference expected(folder + "llama2");
  const auto files = ei::checkpoint::model_files::open(folder + "llama2");
  const double by_rounding = spread(oracle::llama(files, {.cache_to_f16 = true})(expected.prompt), expected);
  using model = ei::model<ei::execution::cpu>;
  const double ours = spread(log_probabilities(model::load(folder + "llama2", {}, in_f32), expected), expected);
  CAPTURE(by_rounding);
  CHECK(ours > 0);
  CHECK(ours < 2 * by_rounding + 1e-5);
}

TEST_CASE("products of bf16 pairs cost what rounding activations to bf16 costs") {
  if (!has_bf16_dot_products(ei::execution::best_instruction_set())) return;
  for (const std::string name : {"llama2", "llama-bf16"}) {
    CAPTURE(name);
    const reference expected(folder + name);
    const auto files = ei::checkpoint::model_files::open(folder + name);
    const double by_rounding = spread(oracle::llama(files, {.activations_to_bf16 = true})(expected.prompt), expected);
    const double ours = spread(log_probabilities(exact::load(folder + name), expected), expected);
    CAPTURE(by_rounding);
    CHECK(ours > 0);
    CHECK(ours < 2 * by_rounding + 1e-5);
  }
}

TEST_CASE("GGUF block formats are computed with as stored, at the cost of rounding activations to 8 bits") {
  for (const std::string name :
       {"llama-q8_0", "llama-q4_0", "llama-q4_1", "llama-q5_0-q5_1", "llama-q4_k", "llama-q5_k", "llama-q6_k"}) {
    CAPTURE(name);
    const reference expected(folder + name);
    const auto files = ei::checkpoint::model_files::open(folder + name + "/model.gguf");
    const double exactly = spread(oracle::llama(files, {})(expected.prompt), expected);
    CHECK(exactly < 1e-4);
    const double by_rounding = spread(oracle::llama(files, {.activations_to_int8 = true})(expected.prompt), expected);
    const double ours =
        spread(log_probabilities(exact::load(folder + name + "/model.gguf", {}, in_f32), expected), expected);
    CAPTURE(by_rounding);
    CHECK(ours < 2 * by_rounding + 1e-5);
  }
}

}  // namespace transformers_tests
