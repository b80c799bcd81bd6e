// Searches on whole models: what transformers and plain references find (tests/reference/make_search_references.py), identities
// with the strategies that they become, log-probabilities, cascades, and sessions that become others.

#include <effinfer/core/json.hpp>
#include <effinfer/decoding/beam.hpp>
#include <effinfer/decoding/best_of.hpp>
#include <effinfer/decoding/contrastive.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/no_repeat_ngram.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/repetition_penalty.hpp>
#include <effinfer/decoding/top_p.hpp>
#include <effinfer/pipeline.hpp>
#include <effinfer/pipeline/cascade.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace search_tests {

namespace ei = effinfer;
namespace dec = ei::decoding;

namespace {

const std::string data = EFFINFER_TEST_DATA;
const std::string models = EFFINFER_SHIPPED_MODELS;
const std::string small_model = models + "/shakespeare-draft", linear_model = models + "/shakespeare-linear";
const std::string prompt = "To be, or not to be: to be, or not to be: to be, or not";

template <class Decoding>
using on_cache = ei::pipeline<ei::kv_cache::contiguous<float>, Decoding, ei::execution::cpu>;
template <class Decoding>
using on_state = ei::pipeline<ei::models::linear_llama, Decoding>;

std::vector<int> integers(const ei::json::value& list) {
  std::vector<int> all;
  for (const auto& i : list.elements()) all.push_back(static_cast<int>(i.integer()));
  return all;
}
float number(const ei::json::value& of, const char* key) { return static_cast<float>(of.at(key).number()); }
int integer(const ei::json::value& of, const char* key) { return static_cast<int>(of.at(key).integer()); }

dec::early_stopping stopping(const ei::json::value& of) {
  const auto stop = of.find("stop");
  if (!stop || stop->string() == "no") return dec::early_stopping::no;
  return stop->string() == "yes" ? dec::early_stopping::yes : dec::early_stopping::never;
}

/// What `decoding` finds on the model llama3 for one case of search.json is what stands there.
template <class Decoding>
void check_case(const ei::json::value& c, const Decoding& decoding) {
  static const auto llm = on_cache<Decoding>::load(data + "/models/llama3", {}, ei::execution::cpu{.threads = 1});
  auto generation = llm.generate(llm.start(), integers(c.at("prompt")),
                                 {.max_tokens = integer(c, "max_tokens"),
                                  .decoding = decoding,
                                  .stop_tokens = integers(c.at("stop_tokens")),
                                  .ignore_end_of_text = true});
  (void)generation.text();
  const auto expected = c.at("found").elements();
  const auto found = generation.hypotheses();
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i);
    CHECK(found[i].tokens == integers(expected[i].at("tokens")));
    if (c.at("kind").string() != "contrastive")
      CHECK(found[i].score == doctest::Approx(expected[i].at("score").number()).epsilon(1e-4));
  }
}

template <class Pipeline>
std::vector<int> tokens_of(const Pipeline& llm, const std::string& from, typename Pipeline::generate_options options) {
  auto generation = llm.generate(from, std::move(options));
  (void)generation.text();
  return {generation.tokens().begin(), generation.tokens().end()};
}

/// The same search with every sequence read from its first token at each step.
template <class Model, class Policy>
std::vector<dec::hypothesis> search_plainly(const Model& model, const Policy& policy, std::span<const int> start,
                                            const dec::search_request& request) {
  auto search = policy.begin(request);
  std::vector<std::vector<int>> texts(1, {start.begin(), start.end()});
  for (;;) {
    std::vector<float> logits;
    for (const auto& text : texts) {
      auto session = model.start();
      const auto row = session.append(text);
      logits.insert(logits.end(), row.begin(), row.end());
    }
    const auto rows = static_cast<std::ptrdiff_t>(texts.size());
    const auto next = search.advance({logits.data(), rows, static_cast<std::ptrdiff_t>(logits.size()) / rows});
    if (next.empty()) return search.hypotheses();
    std::vector<std::vector<int>> children;
    for (const auto& c : next) {
      children.push_back(texts[static_cast<std::size_t>(c.parent)]);
      children.back().push_back(c.token);
    }
    texts = std::move(children);
  }
}

template <class Model, class Policy>
void check_runner(const Model& model, const Policy& policy) {
  const std::vector<int> start = {1, 45, 300, 77, 5, 260, 12, 99, 41, 3, 8, 64};
  dec::search_request request{.prompt = start, .max_tokens = 20, .seed = 5};
  request.ends = [](std::span<const int> text) { return text.back() % 13 == 0; };
  auto session = model.start();
  const auto logits = session.append(start);
  const auto got = ei::run_search(policy, session, logits, {}, request).hypotheses;
  const auto expected = search_plainly(model, policy, start, request);
  CHECK(session.position() == static_cast<int>(start.size()));
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CHECK(got[i].tokens == expected[i].tokens);
    CHECK(got[i].score == expected[i].score);
  }
}

/// A search of one's own, which goes on with a row that isn't there.
struct astray : dec::greedy {
  struct search {
    std::vector<dec::continuation> next;
    std::span<const dec::continuation> advance(ei::matrix_view<const float>) {
      next = {{1, 5}};
      return next;
    }
    std::vector<dec::hypothesis> hypotheses() const { return {}; }
  };
  [[nodiscard]] int sequences() const { return 1; }
  [[nodiscard]] search begin(const dec::search_request&) const { return {}; }
};

/// generation.log_probabilities() are log softmax of a pass over the prompt and one over the text.
template <class Pipeline>
void check_log_probabilities(const Pipeline& llm, typename Pipeline::generate_options options) {
  options.log_probabilities = 3;
  auto generation = llm.generate(prompt, options);
  (void)generation.text();
  std::vector<int> all = llm.tokenizer().encode(prompt);
  const std::size_t known = all.size();
  const auto tokens = generation.tokens();
  const auto kept = generation.log_probabilities();
  REQUIRE(!tokens.empty());
  REQUIRE(kept.size() == tokens.size());
  all.insert(all.end(), tokens.begin(), tokens.end());
  auto session = llm.start();
  std::vector<float> row;
  const auto check = [&](int position, std::span<const float> logits) {
    const std::size_t i = static_cast<std::size_t>(position) + 1 - known;
    if (static_cast<std::size_t>(position) + 1 < known || i >= tokens.size()) return;
    row.resize(logits.size());
    dec::log_softmax(logits, row);
    CHECK(kept[i].chosen.id == tokens[i]);
    CHECK(static_cast<float>(kept[i].chosen.log_probability) == row[static_cast<std::size_t>(tokens[i])]);
    std::vector<float> sorted = row;
    std::partial_sort(sorted.begin(), sorted.begin() + 3, sorted.end(), std::greater<>());
    REQUIRE(kept[i].best.size() == 3);
    for (std::size_t j = 0; j < 3; ++j) {
      CHECK(static_cast<float>(kept[i].best[j].log_probability) == sorted[j]);
      CHECK(row[static_cast<std::size_t>(kept[i].best[j].id)] == sorted[j]);
    }
  };
  session.prefill(std::span(all).first(known), {}, 1, check);
  session.append(std::span(all).subspan(known), {}, static_cast<int>(tokens.size()), check);
}

}  // namespace

TEST_CASE("searches find what transformers and the papers' equations find") {
  std::ifstream file(data + "/decoding/search.json");
  const ei::json::document document(std::string(std::istreambuf_iterator<char>(file), {}), "search.json");
  for (const auto& c : document.root().at("cases").elements()) {
    CAPTURE(c.where());
    if (c.at("kind").string() == "contrastive") {
      check_case(c, dec::contrastive{.k = integer(c, "k"), .penalty = number(c, "penalty")});
      continue;
    }
    dec::beam<> beam{.beams = integer(c, "beams"), .length_penalty = number(c, "length_penalty"), .stop = stopping(c)};
    if (c.at("kind").string() == "diverse") {
      beam.groups = integer(c, "groups");
      beam.diversity = number(c, "diversity");
      check_case(c, beam);
      continue;
    }
    using rules = dec::chain<dec::repetition_penalty, dec::no_repeat_ngram>;
    const dec::repetition_penalty repetition{.penalty = number(c, "repetition")};
    const dec::no_repeat_ngram no_repeat{.size = integer(c, "no_repeat")};
    check_case(c, dec::beam<4, rules>{.beams = beam.beams,
                                      .rule = {{repetition, no_repeat}},
                                      .length_penalty = beam.length_penalty,
                                      .stop = beam.stop});
    if (repetition.penalty == 1 && no_repeat.size == 0) check_case(c, beam);
  }
}

TEST_CASE("one beam, one candidate, no penalty: greedy") {
  const auto same = [](const auto& plain, const auto& search, const auto& policy) {
    CHECK(tokens_of(search, prompt, {.max_tokens = 40, .decoding = policy}) ==
          tokens_of(plain, prompt, {.max_tokens = 40}));
  };
  const auto plain = on_cache<dec::greedy>::load(small_model);
  same(plain, on_cache<dec::beam<1>>::load(small_model), dec::beam<1>{});
  const auto contrastive = on_cache<dec::contrastive>::load(small_model);
  same(plain, contrastive, dec::contrastive{.k = 1});
  same(plain, contrastive, dec::contrastive{.penalty = 0});
  CHECK(tokens_of(contrastive, prompt, {.max_tokens = 40}) != tokens_of(plain, prompt, {.max_tokens = 40}));
  same(on_state<dec::greedy>::load(linear_model), on_state<dec::beam<1>>::load(linear_model), dec::beam<1>{});
}

TEST_CASE("best_of is the best of the texts that its rule gives alone") {
  const auto plain = on_cache<dec::top_p>::load(small_model);
  const auto several = on_cache<dec::best_of<4, dec::top_p>>::load(small_model);
  const dec::top_p rule{.p = 0.9F};
  std::vector<int> best;
  double best_score = -INFINITY;
  for (std::uint64_t seed = 9; seed < 13; ++seed) {
    auto generation = plain.generate(
        prompt, {.max_tokens = 30, .seed = seed, .decoding = rule, .ignore_end_of_text = true, .log_probabilities = 0});
    (void)generation.text();
    double sum = 0;
    for (const auto& t : generation.log_probabilities()) sum += t.chosen.log_probability;
    if (sum / 30 > best_score) {
      best_score = sum / 30;
      best.assign(generation.tokens().begin(), generation.tokens().end());
    }
  }
  auto generation =
      several.generate(prompt, {.max_tokens = 30, .seed = 9, .decoding = {.rule = rule}, .ignore_end_of_text = true});
  (void)generation.text();
  REQUIRE(generation.hypotheses().size() == 4);
  CHECK(generation.hypotheses()[0].tokens == best);
  CHECK(generation.hypotheses()[0].score == doctest::Approx(best_score).epsilon(1e-12));
  CHECK(generation.hypotheses()[0].score > generation.hypotheses()[1].score);
  CHECK(tokens_of(several, prompt, {.max_tokens = 30, .seed = 9, .decoding = {.n = 1, .rule = rule}}) ==
        tokens_of(plain, prompt, {.max_tokens = 30, .seed = 9, .decoding = rule}));
}

TEST_CASE("forks in a batch change nothing, on caches and on recurrent states") {
  const dec::beam<> beam{.beams = 5};
  const dec::beam<> groups{.beams = 6, .groups = 3, .diversity = 0.7F};
  const dec::best_of<3, dec::top_p> drawn{};
  const auto cache = ei::model<ei::kv_cache::contiguous<float>>::load(small_model);
  check_runner(cache, beam);
  check_runner(cache, groups);
  check_runner(cache, drawn);
  CHECK_THROWS_AS(check_runner(cache, astray{}), ei::error);
  const auto state = ei::model<ei::models::linear_llama>::load(linear_model);
  check_runner(state, beam);
  check_runner(state, drawn);
}

TEST_CASE("a search ends as a plain text does and leaves the session as it does") {
  const auto llm = on_cache<dec::beam<4>>::load(small_model);
  auto session = llm.start({.context_tokens = 64});
  const std::vector<int> start = llm.tokenizer().encode("KING RICHARD");
  auto generation = llm.generate(session, start, {.max_tokens = 12, .ignore_end_of_text = true});
  const std::string text = generation.text();
  CHECK(generation.finished() == ei::finish_reason::length);
  std::vector<int> all = start;
  all.insert(all.end(), generation.tokens().begin(), generation.tokens().end());
  all.pop_back();
  CHECK(std::vector<int>(session.tokens().begin(), session.tokens().end()) == all);
  auto fresh = llm.start({.context_tokens = 64});
  fresh.prefill(start);
  fresh.append(std::span(all).subspan(start.size()));
  const int next = generation.tokens().back();
  const auto a = session.append(std::span(&next, 1)), b = fresh.append(std::span(&next, 1));
  CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));

  auto full = llm.generate(llm.start({.context_tokens = 16}), start, {.max_tokens = 99, .ignore_end_of_text = true});
  (void)full.text();
  CHECK(full.finished() == ei::finish_reason::context_full);
  CHECK(full.tokens().size() + start.size() == 17);
  const auto with_states = on_cache<dec::contrastive>::load(small_model);
  auto full_too = with_states.generate(with_states.start({.context_tokens = 16}), start, {.max_tokens = 99});
  (void)full_too.text();
  CHECK(full_too.finished() == ei::finish_reason::context_full);

  const std::string stop = text.substr(4, 3);
  auto stopped = llm.generate("KING RICHARD", {.max_tokens = 12, .stop = {stop}, .ignore_end_of_text = true});
  const std::string shown = stopped.text();
  CHECK(shown.find(stop) == std::string::npos);
  CHECK(std::any_of(stopped.hypotheses().begin(), stopped.hypotheses().end(),
                    [](const auto& h) { return h.tokens.size() < 12; }));
  auto none = llm.generate("KING RICHARD", {.max_tokens = 0});
  CHECK(none.text().empty());
  std::stop_source cancel;
  cancel.request_stop();
  auto cancelled = llm.generate("KING RICHARD", {.max_tokens = 12, .cancel = cancel.get_token()});
  CHECK(cancelled.text().empty());
  CHECK(cancelled.finished() == ei::finish_reason::cancelled);
  CHECK_THROWS_AS((void)llm.generate("a", {.decoding = {.beams = 0}}), ei::error);
  CHECK_THROWS_AS((void)llm.generate("a", {.decoding = {.beams = 4, .groups = 3}}), ei::error);
  CHECK_THROWS_AS((void)with_states.generate("a", {.decoding = {.penalty = 1.5F}}), ei::error);
  CHECK_THROWS_AS((void)llm.generate("a", {.log_probabilities = -1}), ei::error);
}

TEST_CASE("log-probabilities are log softmax of the model's logits, for every strategy") {
  check_log_probabilities(on_cache<dec::greedy>::load(small_model), {.max_tokens = 30});
  check_log_probabilities(on_cache<dec::top_p>::load(small_model),
                          {.max_tokens = 30, .seed = 4, .decoding = {.p = 0.9F, .temperature = 0.7F}});
  check_log_probabilities(on_cache<dec::beam<4>>::load(small_model), {.max_tokens = 30});
  check_log_probabilities(on_cache<dec::contrastive>::load(small_model), {.max_tokens = 30});
  using drafted = dec::speculative<dec::prompt_lookup<3>, dec::top_p>;
  const auto speculative = on_cache<drafted>::load(small_model);
  const typename on_cache<drafted>::generate_options options{
      .max_tokens = 40, .seed = 4, .decoding = {.rule = {.p = 0.8F, .temperature = 0.7F}, .row_cost = 0.0F}};
  auto generation = speculative.generate(prompt, options);
  (void)generation.text();
  CHECK(generation.statistics().accepted_tokens > 0);
  CHECK(generation.log_probabilities().empty());
  check_log_probabilities(speculative, options);
}

TEST_CASE("a cascade asks the large model where the small one's score is low") {
  using plain = on_cache<dec::greedy>;
  const auto small = plain::load(small_model), large = plain::load(models + "/shakespeare-llama");
  const ei::cascade two(small, large);
  const plain::generate_options limits{.max_tokens = 20};
  const double least = -INFINITY, most = INFINITY;
  const auto first = two.generate(prompt, {.threshold = least, .small = limits, .large = limits});
  const auto second = two.generate(prompt, {.threshold = most, .small = limits, .large = limits});
  CHECK(first.stage == 0);
  CHECK(first.tokens == tokens_of(small, prompt, limits));
  CHECK(second.stage == 1);
  CHECK(second.tokens == tokens_of(large, prompt, limits));
  CHECK(second.score == first.score);
  double sum = 0;
  for (const auto& t : first.log_probabilities) sum += t.chosen.log_probability;
  CHECK(first.score == doctest::Approx(sum / 20));
  CHECK(two.generate(prompt, {.threshold = first.score, .small = limits, .large = limits}).stage == 0);
  CHECK(two.generate(prompt, {.threshold = first.score + 1e-9, .small = limits, .large = limits}).stage == 1);
  // A score of one's own, and a third stage.
  const auto by_length = [](std::string_view asked, const ei::cascade_answer& a) {
    CHECK(asked == prompt);
    return a.stage == 0 ? static_cast<double>(a.tokens.size()) : 0.0;
  };
  const ei::cascade judged(small, large, by_length);
  CHECK(judged.generate(prompt, {.threshold = 20, .small = limits, .large = limits}).stage == 0);
  CHECK(judged.generate(prompt, {.threshold = 21, .small = limits, .large = limits}).stage == 1);
  const ei::cascade three(small, judged);
  const auto third = three.generate(
      prompt, {.threshold = most, .small = limits, .large = {.threshold = most, .small = limits, .large = limits}});
  CHECK(third.stage == 2);
  CHECK(third.tokens == second.tokens);
  CHECK_THROWS_AS((void)two.generate(prompt, {.threshold = NAN}), ei::error);
}

TEST_CASE_TEMPLATE("a session becomes another; a fork's scratch memory is its own", Model,
                   ei::model<ei::kv_cache::contiguous<float>>, ei::model<ei::models::linear_llama>) {
  const auto model =
      Model::load(std::is_same_v<Model, ei::model<ei::models::linear_llama>> ? linear_model : small_model);
  const std::vector<int> start = {1, 45, 300, 77}, left = {5, 6, 7}, right = {8, 9};
  const auto logits = [](auto& session, int token) {
    const auto row = session.append(std::span(&token, 1));
    return std::vector<float>(row.begin(), row.end());
  };
  auto a = model.start();
  a.append(start);
  auto b = a.fork();
  a.append(left);
  b.append(right);
  b.mark();
  auto expected = a.fork();
  b.become(a);
  CHECK(std::vector<int>(b.tokens().begin(), b.tokens().end()) ==
        std::vector<int>(a.tokens().begin(), a.tokens().end()));
  const int position = b.position();
  const auto first = logits(expected, 11);
  CHECK(logits(b, 11) == first);
  b.rollback(position);  // the mark was another text's
  CHECK(logits(b, 11) == first);
  CHECK_THROWS_AS(b.become(model.start({.context_tokens = 32})), ei::error);

  // What a fork reads is not seen by the session that it came from.
  const std::pair<int, int> whole{0, model.config().layers};
  auto c = a.fork();
  const auto states = a.append_through(right, std::span(&whole, 1));
  const std::vector<float> before(states.row(1), states.row(1) + states.columns);
  auto d = a.fork();
  (void)logits(c, 20);
  (void)logits(d, 21);
  CHECK(std::vector<float>(states.row(1), states.row(1) + states.columns) == before);
}

}  // namespace search_tests
