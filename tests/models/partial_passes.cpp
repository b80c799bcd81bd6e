// Passes that hand out hidden states, leave layers out, or leave early: against plain passes bit for bit, and against the oracle.

#include <effinfer/model.hpp>

#include <models/oracle.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace partial_passes_tests {

namespace ei = effinfer;

namespace {

const std::string folder = std::string(EFFINFER_TEST_DATA) + "/models/";
using softmax = ei::model<ei::kv_cache::contiguous<float>>;
using windowed = ei::model<ei::attention::sliding_window<16>>;  // on a ring
using linear = ei::model<ei::models::linear_llama>;

/// Products in f32: the shipped weights are bfloat16, and the machine may round activations to that.
const ei::execution::cpu in_f32{.set = ei::execution::instruction_set::portable};

template <class Model>
Model load() {
  return Model::load(folder + (Model::parts::model::recurrent ? "linear" : "llama2"));
}

std::vector<int> some_tokens(int count, unsigned seed = 1) {
  std::vector<int> tokens;
  for (int i = 0; i < count; ++i)
    tokens.push_back(static_cast<int>((seed = seed * 1664525U + 1013904223U) >> 16) % 90 + 3);
  return tokens;
}

std::vector<float> copy(std::span<const float> row) { return {row.begin(), row.end()}; }
std::vector<float> copy(ei::matrix_view<const float> m, std::ptrdiff_t row) {
  return {m.row(row), m.row(row) + m.columns};
}
bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && !a.empty() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// The largest difference to log-probabilities of the oracle.
double difference(std::span<const float> logits, const oracle::row& expected) {
  double top = -1e300, sum = 0, most = 0;
  for (const float x : logits) top = std::max(top, double{x});
  for (const float x : logits) sum += std::exp(double{x} - top);
  for (std::size_t i = 0; i < logits.size(); ++i)
    most = std::max(most, std::abs(double{logits[i]} - top - std::log(sum) - expected[i]));
  return most;
}

template <class F>
ei::error_code code_of(const F& f) {
  try {
    f();
  } catch (const ei::error& e) {
    return e.code();
  }
  FAIL("nothing was thrown");
  return ei::error_code::io;
}

}  // namespace

TEST_CASE_TEMPLATE("taps hand out states and change nothing", Model, softmax, windowed, linear) {
  const Model m = load<Model>();
  using tap = typename Model::decoder::tap;
  const int layers = m.config().layers;
  const std::ptrdiff_t e = m.config().width;
  const auto tokens = some_tokens(11);
  auto plain = m.start();
  std::vector<std::vector<float>> expected;
  plain.append(tokens, {}, 11, [&](int, std::span<const float> l) { expected.push_back(copy(l)); });

  std::vector<float> memory(static_cast<std::size_t>(11 * e * (layers + 1)));
  std::vector<tap> taps;  // side by side, as EAGLE-3 wants them
  for (int i = 0; i <= layers; ++i) taps.push_back({i, {memory.data() + i * e, 11, e, e * (layers + 1)}});
  auto tapped = m.start();
  const auto last = copy(tapped.append(
      tokens, {}, 1, [](int, std::span<const float>) {}, taps));
  CHECK(same_bits(last, expected.back()));

  // Chunked, the same; and of fewer tokens the last ones.
  std::vector<float> again(memory.size());
  auto chunked = m.start({.prefill_chunk = 4});
  std::vector<tap> some = taps;
  for (std::size_t i = 0; i < some.size(); ++i)
    some[i].out = {again.data() + static_cast<std::ptrdiff_t>(i) * e, 7, e, e * (layers + 1)};
  CHECK(same_bits(copy(chunked.append(
                      tokens, {}, 1, [](int, std::span<const float>) {}, some)),
                  expected.back()));
  const auto row_bytes = static_cast<std::size_t>(e * (layers + 1));
  CHECK(std::memcmp(again.data(), memory.data() + 4 * row_bytes, 7 * row_bytes * sizeof(float)) == 0);

  // The first are the embeddings, the last what the output head reads.
  std::vector<float> embedding(static_cast<std::size_t>(e));
  m.decoder_model().weights().look_up(tokens[3], embedding.data());
  CHECK(same_bits(embedding, copy(taps.front().out, 3)));
  auto reader = m.start();
  for (int t = 0; t < 11; ++t) {  // each token alone through all layers: states and logits of that row
    const auto states = reader.append_through(std::span(tokens).subspan(static_cast<std::size_t>(t), 1),
                                              std::vector<std::pair<int, int>>{{0, layers}});
    CHECK(same_bits(copy(states, 0), copy(taps.back().out, t)));
    CHECK(same_bits(reader.logits(0), expected[static_cast<std::size_t>(t)]));
  }
  CHECK(code_of([&] {
          tapped.append(
              tokens, {}, 1, [](int, std::span<const float>) {}, std::vector<tap>{{layers + 1, taps[0].out}});
        }) == ei::error_code::invalid_argument);
  CHECK(code_of([&] {
          tapped.append(
              std::span(tokens).subspan(1), {}, 1, [](int, std::span<const float>) {}, taps);
        }) == ei::error_code::invalid_argument);
}

TEST_CASE_TEMPLATE("the first layers alone give the states that a whole pass has there", Model, softmax, windowed,
                   linear) {
  const Model m = load<Model>();
  using tap = typename Model::decoder::tap;
  const int layers = m.config().layers;
  const std::ptrdiff_t e = m.config().width;
  const auto prompt = some_tokens(9), next = some_tokens(4, 7);
  for (int depth = 1; depth < layers; ++depth) {
    std::vector<float> memory(static_cast<std::size_t>(4 * e));
    const std::vector<tap> taps{{depth, {memory.data(), 4, e}}};
    auto whole = m.start();
    whole.append(prompt);
    const auto expected = copy(whole.append(
        next, {}, 1, [](int, std::span<const float>) {}, taps));

    auto part = m.start();
    part.append(prompt);
    part.mark();
    const std::vector<std::pair<int, int>> first{{0, depth}};
    for (std::size_t i = 0; i < 4; ++i) {
      const auto states = part.append_through(std::span(next).subspan(i, 1), first);
      CHECK(same_bits(copy(states, 0), copy(taps[0].out, static_cast<std::ptrdiff_t>(i))));
    }
    part.rollback(static_cast<int>(prompt.size()));  // nothing is left of the draft
    CHECK(same_bits(part.append(next), expected));
  }
  auto s = m.start();
  CHECK(code_of([&] {
          s.append_through(prompt, std::vector<std::pair<int, int>>{{0, layers + 1}});
        }) == ei::error_code::invalid_argument);
  CHECK(code_of([&] {
          s.append_through(prompt, std::vector<std::pair<int, int>>{{1, 2}, {0, 1}});
        }) == ei::error_code::invalid_argument);
  CHECK(s.position() == 0);
}

TEST_CASE_TEMPLATE("a token that never leaves early is a plain one", Model, softmax, windowed, linear) {
  const Model m = load<Model>();
  const auto tokens = some_tokens(12);
  std::vector<int> exits;
  for (int i = 1; i < m.config().layers; ++i) exits.push_back(i);
  auto plain = m.start(), asked = m.start();
  for (const int token : tokens) {
    int depth = 0, questions = 0;
    const auto expected = copy(plain.append(std::span(&token, 1)));
    const auto logits = asked.append_until(
        token, {}, exits, [&](int, std::span<const float>) { return ++questions, false; }, {}, &depth);
    CHECK(same_bits(logits, expected));
    CHECK(depth == m.config().layers);
    CHECK(questions == m.config().layers - 1);
  }
}

TEST_CASE("tokens that leave early give the oracle's numbers, their own and the later tokens'") {
  // Four layers: in a model of two the second layer's keys and values are those of a whole pass anyway.
  using model = ei::model<ei::kv_cache::contiguous<float>, ei::execution::cpu>;
  const auto m = model::load(std::string(EFFINFER_SHIPPED_MODELS) + "/shakespeare-llama", {}, in_f32);
  const auto tokens = some_tokens(9);
  const std::vector<int> depth{4, 4, 1, 4, 2, 1, 3, 1, 4}, exits{1, 2, 3};
  const auto expected = oracle::llama(m.files(), {})(tokens, depth), whole = oracle::llama(m.files(), {})(tokens);

  auto s = m.start(), ranges = m.start();
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    int went = 0;
    const auto leaves = [&](int at, std::span<const float>) { return at == depth[t]; };
    const auto logits = copy(s.append_until(tokens[t], {}, exits, leaves, {}, &went));
    CHECK(went == depth[t]);
    CHECK(difference(logits, expected[t]) < 2e-4);
    if (t > 2) CHECK(difference(logits, whole[t]) > 1e-2);  // it does matter
    ranges.append_through(std::span(&tokens[t], 1), std::vector<std::pair<int, int>>{{0, depth[t]}}, true);
    CHECK(same_bits(ranges.logits(0), logits));
  }
}

}  // namespace partial_passes_tests
