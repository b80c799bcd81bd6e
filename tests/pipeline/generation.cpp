// Text in, text out, on the models that ship: the same text for the same seed, whole characters, stops, speculation, errors.

#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/top_p.hpp>
#include <effinfer/pipeline.hpp>
#include <effinfer/text/utf8.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>
#include <thread>
#include <vector>

namespace generation_tests {

namespace ei = effinfer;

namespace {

const std::string models = EFFINFER_SHIPPED_MODELS;
const std::string llama = models + "/shakespeare-draft";  // the small one: tests are about text, not about quality
const std::string linear = models + "/shakespeare-linear";

using sampled = ei::pipeline<ei::execution::cpu>;
using greedy = ei::pipeline<ei::decoding::greedy>;

template <class F>
ei::error error_of(const F& f) {
  try {
    f();
  } catch (const ei::error& e) {
    return e;
  }
  FAIL("nothing was thrown");
  return {ei::error_code::io, "", ""};
}

template <class Generation>
std::vector<int> ids(Generation&& g) {
  (void)g.text();
  return {g.tokens().begin(), g.tokens().end()};
}

}  // namespace

TEST_CASE("the same seed gives the same text on any number of threads, another seed another") {
  std::string expected;
  for (const int threads : {1, 2, 3}) {
    const auto llm = sampled::load(llama, {}, ei::execution::cpu{.threads = threads});
    const auto text = llm.generate("ROMEO:", {.max_tokens = 60, .seed = 7}).text();
    if (expected.empty()) expected = text;
    CHECK(text == expected);
    CHECK(llm.generate("ROMEO:", {.max_tokens = 60, .seed = 8}).text() != expected);
  }
  CHECK(!expected.empty());
}

TEST_CASE("pieces are whole characters and add up to the decoded tokens") {
  const auto llm = sampled::load(llama);
  auto generation =
      llm.generate("é, 你好 and 🙂",
                   {.max_tokens = 80, .seed = 3, .decoding = {.temperature = 3.0F}, .ignore_end_of_text = true});
  std::string text;
  for (const std::string_view piece : generation) {
    CHECK(!piece.empty());
    CHECK(ei::text::find_invalid_utf8(piece) == std::string_view::npos);
    text += piece;
  }
  CHECK(generation.finished() == ei::finish_reason::length);
  CHECK(generation.tokens().size() == 80);
  CHECK(generation.statistics().generated_tokens == 80);
  CHECK(text == llm.tokenizer().decode(generation.tokens()));
}

TEST_CASE_TEMPLATE("prompt lookup gives the plain text token for token", Rule, ei::decoding::greedy,
                   ei::decoding::sample, ei::decoding::top_p) {
  using drafted = ei::decoding::speculative<ei::decoding::prompt_lookup<3>, Rule>;
  const std::string prompt = "To be, or not to be: to be, or not to be: to be, or not";
  const auto check = [&](const auto& plain, const auto& speculative) {
    int passes = 0, tokens = 0;
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      auto expected = plain.generate(prompt, {.max_tokens = 70, .seed = seed});
      auto got = speculative.generate(prompt, {.max_tokens = 70, .seed = seed});
      CHECK(ids(got) == ids(expected));
      CHECK(got.finished() == expected.finished());
      passes += got.statistics().forward_passes;
      tokens += got.statistics().generated_tokens;
    }
    CHECK(passes < tokens);
  };
  check(ei::pipeline<Rule>::load(llama), ei::pipeline<drafted>::load(llama));
  check(ei::pipeline<Rule, ei::attention::sliding_window<24>>::load(llama),
        ei::pipeline<ei::attention::sliding_window<24>, drafted>::load(llama));
  check(ei::pipeline<Rule, ei::models::linear_llama>::load(linear),
        ei::pipeline<ei::models::linear_llama, drafted>::load(linear));
}

TEST_CASE("stop strings, stop tokens, end of text and limits end a generation and say so") {
  const auto llm = greedy::load(llama);
  const std::string all = llm.generate("KING RICHARD", {.max_tokens = 40, .ignore_end_of_text = true}).text();
  REQUIRE(all.size() > 12);
  const std::string stop = all.substr(7, 4);
  auto cut = llm.generate("KING RICHARD", {.max_tokens = 40, .stop = {stop}, .ignore_end_of_text = true});
  const std::string text = cut.text();
  CHECK(cut.finished() == ei::finish_reason::stop_text);
  CHECK(text == all.substr(0, all.find(stop)));

  auto first = llm.generate("KING RICHARD", {.max_tokens = 40, .ignore_end_of_text = true});
  const auto tokens = ids(first);
  auto by_token =
      llm.generate("KING RICHARD", {.max_tokens = 40, .stop_tokens = {tokens[0]}, .ignore_end_of_text = true});
  CHECK(by_token.text().empty());
  CHECK(by_token.finished() == ei::finish_reason::stop_token);

  auto none = llm.generate("KING RICHARD", {.max_tokens = 0});
  CHECK(none.text().empty());
  CHECK(none.finished() == ei::finish_reason::length);

  auto full = llm.generate(llm.start({.context_tokens = 24}), llm.tokenizer().encode("KING RICHARD"),
                           {.max_tokens = 100, .ignore_end_of_text = true});
  (void)full.text();
  CHECK(full.finished() == ei::finish_reason::context_full);

  std::stop_source cancel;
  cancel.request_stop();
  auto cancelled = llm.generate("KING RICHARD", {.max_tokens = 40, .cancel = cancel.get_token()});
  CHECK(cancelled.text().empty());
  CHECK(cancelled.finished() == ei::finish_reason::cancelled);
}

TEST_CASE("bad prompts and options are typed errors, before the model runs") {
  const auto llm = sampled::load(llama);
  CHECK(error_of([&] { (void)llm.generate("abc\xff", {}); }).code() == ei::error_code::invalid_utf8);
  CHECK(error_of([&] { (void)llm.generate("", {.add_special_tokens = false}); }).code() ==
        ei::error_code::invalid_argument);
  CHECK(error_of([&] { (void)llm.generate("a", {.max_tokens = -1}); }).code() == ei::error_code::invalid_argument);
  CHECK(error_of([&] { (void)llm.generate("a", {.decoding = {.top_p = 2.0F}}); }).code() ==
        ei::error_code::invalid_argument);
  CHECK(error_of([&] { (void)llm.generate("a", {.stop = {""}}); }).code() == ei::error_code::invalid_argument);
  std::string book;
  for (int i = 0; i < 3000; ++i) book += "word ";
  const auto overflow = error_of([&] { (void)llm.generate(book, {}); });
  CHECK(overflow.code() == ei::error_code::context_overflow);
  CHECK(std::string(overflow.what()).find("1024") != std::string::npos);
  CHECK(error_of([&] { (void)sampled::load(models + "/nothing-here"); }).code() == ei::error_code::io);
}

TEST_CASE("two models and many sessions in threads") {
  const auto a = sampled::load(llama);
  const auto b = ei::pipeline<ei::models::linear_llama>::load(linear);
  const auto expected_a = a.generate("JULIET:", {.max_tokens = 30, .seed = 1}).text();
  const auto expected_b = b.generate("JULIET:", {.max_tokens = 30, .seed = 1}).text();
  std::vector<std::string> texts(6);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    threads.emplace_back([&, i] {
      texts[i] = i % 2 == 0 ? a.generate("JULIET:", {.max_tokens = 30, .seed = 1}).text()
                            : b.generate("JULIET:", {.max_tokens = 30, .seed = 1}).text();
    });
  }
  for (auto& t : threads) t.join();
  for (std::size_t i = 0; i < texts.size(); ++i) CHECK(texts[i] == (i % 2 == 0 ? expected_a : expected_b));
}

TEST_CASE("every quantization policy loads the shipped model and keeps its footprint") {
  const auto check = [](auto policy) {
    using pipeline = ei::pipeline<decltype(policy)>;
    const auto bytes = pipeline::memory_footprint(llama);
    const auto llm = pipeline::load(llama);
    CHECK(bytes.owned_bytes == llm.decoder_model().weights().owned_bytes);
    CHECK(bytes.mapped_bytes == llm.decoder_model().weights().mapped_bytes);
    CHECK(!llm.generate("ROMEO:", {.max_tokens = 8, .seed = 2}).text().empty());
    return bytes.owned_bytes;
  };
  check(ei::quantization::none{});
  const auto int8 = check(ei::quantization::int8{}), int4 = check(ei::quantization::int4<32>{});
  CHECK(int4 < int8);
}

TEST_CASE("a speculative generation that ends inside a draft leaves its session as the plain loop does") {
  using drafted = ei::decoding::speculative<ei::decoding::prompt_lookup<3>, ei::decoding::greedy>;
  const auto plain = greedy::load(llama);
  const auto speculative = ei::pipeline<drafted>::load(llama);
  const auto prompt = plain.tokenizer().encode("to be, or not to be, or not to be, or not");
  for (int length = 1; length < 30; ++length) {
    CAPTURE(length);
    auto a = plain.start();
    auto b = speculative.start();
    (void)plain.generate(a, prompt, {.max_tokens = length, .ignore_end_of_text = true}).text();
    (void)speculative.generate(b, prompt, {.max_tokens = length, .ignore_end_of_text = true}).text();
    CHECK(std::equal(a.tokens().begin(), a.tokens().end(), b.tokens().begin(), b.tokens().end()));
  }
  // A stop string that comes up in the middle of a draft.
  const std::string all =
      plain.generate("to be, or not to be, or not", {.max_tokens = 60, .ignore_end_of_text = true}).text();
  for (std::size_t at = 5; at + 3 < all.size() && at < 60; at += 11) {
    auto a = plain.start();
    auto b = speculative.start();
    const std::vector<std::string> stop = {all.substr(at, 3)};
    const auto tokens = plain.tokenizer().encode("to be, or not to be, or not");
    (void)plain.generate(a, tokens, {.max_tokens = 60, .stop = stop, .ignore_end_of_text = true}).text();
    (void)speculative.generate(b, tokens, {.max_tokens = 60, .stop = stop, .ignore_end_of_text = true}).text();
    CHECK(std::equal(a.tokens().begin(), a.tokens().end(), b.tokens().begin(), b.tokens().end()));
  }
}

TEST_CASE("a chat goes on in one session") {
  const auto llm = greedy::load(llama);
  auto session = llm.start();
  auto generation = llm.generate(session, llm.tokenizer().encode("First Citizen:\n"), {.max_tokens = 20});
  const std::string first = generation.text();
  const auto known = session.position();
  CHECK(known > 0);
  auto second = llm.generate(session, {generation.tokens().back()}, {.max_tokens = 5});
  const std::string rest = second.text();
  CHECK(first + rest == llm.generate("First Citizen:\n", {.max_tokens = 25}).text());
}

}  // namespace generation_tests
