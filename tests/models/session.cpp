// Sessions: what must not depend on how a sequence is cut, batched, forked, saved or threaded, and what they refuse.

#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/model.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory_resource>
#include <new>
#include <string>
#include <thread>
#include <vector>

namespace session_tests {

namespace ei = effinfer;

namespace {

const std::string folder = std::string(EFFINFER_TEST_DATA) + "/models/";

std::vector<int> some_tokens(int count, unsigned seed = 1) {
  std::vector<int> tokens;
  for (int i = 0; i < count; ++i)
    tokens.push_back(static_cast<int>((seed = seed * 1664525U + 1013904223U) >> 16) % 90 + 3);
  return tokens;
}

std::vector<float> copy(std::span<const float> row) { return {row.begin(), row.end()}; }

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && !a.empty() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
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

using windowed = ei::model<ei::attention::sliding_window<16>>;  // on a ring
using linear = ei::model<ei::models::linear_llama>;
using linear_int8 = ei::model<ei::models::linear_llama, ei::quantization::int8>;
using quantized = ei::model<ei::quantization::int4<32>>;
using capped = ei::model<ei::attention::soft_cap, ei::kv_cache::contiguous<ei::bf16>>;
using small_cache = ei::model<ei::kv_cache::contiguous<ei::kv_cache::int8>>;
using paged = ei::model<ei::kv_cache::paged<>>;

template <class Model>
std::string checkpoint_for() {
  return folder + (Model::parts::model::recurrent ? "linear" : "llama3");
}

template <class Model>
Model load(int threads = 2) {
  if constexpr (std::is_same_v<Model, capped>) {
    return Model::load(checkpoint_for<Model>(), {}, ei::attention::soft_cap{20.0F});
  } else {
    (void)threads;
    return Model::load(checkpoint_for<Model>());
  }
}

}  // namespace

TEST_CASE_TEMPLATE("chunks, token by token and whole give the same bits", Model, ei::model<>, windowed, linear,
                   linear_int8, quantized, capped, small_cache, paged) {
  const Model model = load<Model>();
  const auto tokens = some_tokens(101);
  auto whole = model.start({.context_tokens = 128, .prefill_chunk = 128});
  const auto expected = copy(whole.append(tokens));
  for (const int chunk : {1, 7, 64}) {
    CAPTURE(chunk);
    auto session = model.start({.context_tokens = 128, .prefill_chunk = chunk});
    CHECK(same_bits(session.append(tokens), expected));
  }
  auto by_hand = model.start({.context_tokens = 128, .prefill_chunk = 128});
  by_hand.append(std::span(tokens).first(50));
  CHECK(same_bits(by_hand.append(std::span(tokens).subspan(50)), expected));
}

TEST_CASE_TEMPLATE("a prompt in chunks is the whole, and differs from other tokens only in tiles of bf16", Model,
                   ei::model<>, windowed, linear_int8, quantized) {
  const Model model = load<Model>();
  const auto tokens = some_tokens(101);
  auto whole = model.start({.context_tokens = 128, .prefill_chunk = 128});
  const auto expected = copy(whole.prefill(tokens));
  for (const int chunk : {1, 7, 33, 100}) {
    auto session = model.start({.context_tokens = 128, .prefill_chunk = chunk});
    CHECK(same_bits(session.prefill(tokens), expected));
    // What comes behind a prompt depends on how that was read, and on nothing else.
    auto again = model.start({.context_tokens = 128, .prefill_chunk = 128});
    again.prefill(tokens);
    CHECK(same_bits(session.append(std::vector<int>{5, 6}), again.append(std::vector<int>{5, 6})));
  }
  auto appended = model.start({.context_tokens = 128});
  const auto others = copy(appended.append(tokens));
  constexpr bool integers = !std::is_same_v<typename Model::parts::quantization, ei::quantization::none>;
  if (model.decoder_model().execution().set() != ei::execution::instruction_set::amx) {
    CHECK(same_bits(others, expected));
    return;
  }
  CHECK(!same_bits(others, expected));
  double difference = 0, power = 0;
  for (std::size_t i = 0; i < others.size(); ++i) {
    difference += std::pow(static_cast<double>(others[i]) - static_cast<double>(expected[i]), 2);
    power += std::pow(static_cast<double>(expected[i]), 2);
  }
  CHECK(std::sqrt(difference) < (integers ? 0.03 : 0.001) * std::sqrt(power));
}

TEST_CASE_TEMPLATE("a batch gives each session what it gets alone", Model, ei::model<>, windowed, linear, quantized,
                   paged) {
  const Model model = load<Model>();
  std::vector<ei::session<typename Model::decoder>> sessions;
  std::vector<std::vector<float>> alone;
  const auto next = some_tokens(5, 99);
  for (int i = 0; i < 5; ++i) {
    sessions.push_back(model.start({.context_tokens = 128}));
    sessions.back().append(some_tokens(3 + 17 * i, static_cast<unsigned>(i)));
    auto copy_of = sessions.back().fork();
    alone.push_back(copy(copy_of.append(std::span(next).subspan(static_cast<std::size_t>(i), 1))));
  }
  auto batch = model.make_batch(8);
  std::vector<ei::session<typename Model::decoder>*> members;
  for (auto& s : sessions) members.push_back(&s);
  const auto logits = batch.step(members, next);
  for (int i = 0; i < 5; ++i) {
    CHECK(same_bits({logits.row(i), static_cast<std::size_t>(logits.columns)}, alone[static_cast<std::size_t>(i)]));
    CHECK(sessions[static_cast<std::size_t>(i)].position() == 4 + 17 * i);
  }
  members[1] = members[0];
  CHECK(code_of([&] { batch.step(members, next); }) == ei::error_code::invalid_argument);
}

TEST_CASE_TEMPLATE("forked, cut back and restored sessions equal fresh ones", Model, ei::model<>, windowed, linear,
                   quantized, paged) {
  const Model model = load<Model>();
  const auto tokens = some_tokens(90), other = some_tokens(20, 7);
  auto fresh = model.start({.context_tokens = 128});
  fresh.append(tokens);
  const auto expected = copy(fresh.append(other));

  auto original = model.start({.context_tokens = 128});
  original.append(tokens);
  auto fork = original.fork();
  fork.append(some_tokens(10, 3));
  CHECK(same_bits(original.append(other), expected));

  fork.truncate(90);
  CHECK(fork.position() == 90);
  CHECK(same_bits(fork.append(other), expected));
  fork.truncate(3);
  fork.append(std::span(tokens).subspan(3));
  CHECK(same_bits(fork.append(other), expected));

  original.truncate(90);
  original.mark();
  original.append(some_tokens(9, 5));
  original.rollback(93);
  CHECK(original.position() == 93);
  original.truncate(90);
  const auto bytes = original.save();
  auto restored = model.start({.context_tokens = 128});
  restored.append(some_tokens(5));
  restored.restore(bytes);
  CHECK(restored.position() == 90);
  CHECK(same_bits(restored.append(other), expected));

  // A file cut short anywhere is an error, and the session goes on as it was.
  const auto before = restored.position();
  for (std::size_t size = 0; size < bytes.size(); size += 1 + bytes.size() / 23) {
    CHECK(code_of([&] { restored.restore(std::span(bytes).first(size)); }) == ei::error_code::malformed);
  }
  CHECK(restored.position() == before);
  auto small = model.start({.context_tokens = 64});
  CHECK(code_of([&] { small.restore(bytes); }) == ei::error_code::mismatch);
}

TEST_CASE("a session of another model isn't restored") {
  const auto a = ei::model<>::load(folder + "llama-f16"), b = ei::model<>::load(folder + "llama-bf16");
  auto from = a.start({.context_tokens = 32});
  from.append(some_tokens(4));
  auto to = b.start({.context_tokens = 32});
  CHECK(code_of([&] { to.restore(from.save()); }) == ei::error_code::mismatch);
}

TEST_CASE("a contiguous cache overflows with an error, a ring slides") {
  const auto model = load<ei::model<>>();
  auto session = model.start({.context_tokens = 32});
  session.append(some_tokens(30));
  CHECK(code_of([&] { session.append(some_tokens(3)); }) == ei::error_code::context_overflow);
  CHECK(session.position() == 30);
  session.append(some_tokens(2));
  CHECK(session.room() == 0);

  // Sliding: with one layer, what a token sees is exactly its window, so a session that forgot the rest equals full attention with that window.
  using sliding = ei::model<ei::kv_cache::ring<float>>;
  using masked = ei::model<ei::attention::sliding_window<>, ei::kv_cache::contiguous<float>>;
  auto slides = sliding::load(folder + "llama-f16").start({.context_tokens = 32, .prefill_chunk = 8});
  auto sees_all = masked::load(folder + "llama-f16", {},
                               [] {
                                 ei::attention::sliding_window<> w;
                                 w.window = 32;
                                 return w;
                               }())
                      .start({.context_tokens = 256});
  const auto tokens = some_tokens(200);
  CHECK(same_bits(slides.append(tokens), sees_all.append(tokens)));
  CHECK(slides.position() == 200);
}

TEST_CASE_TEMPLATE("logits asked for of many tokens are those that each would end with", Model, ei::model<>, linear) {
  const Model model = load<Model>();
  const auto tokens = some_tokens(50);
  auto alone = model.start({.context_tokens = 64});
  std::vector<std::vector<float>> expected;
  for (std::size_t i = 0; i < tokens.size(); ++i)
    expected.push_back(copy(alone.append(std::span(tokens).subspan(i, 1))));
  for (const int rows : {1, 2, 20, 50}) {
    for (const int chunk : {16, 50}) {
      auto session = model.start({.context_tokens = 64, .prefill_chunk = chunk});
      int next = 50 - rows;
      session.append(tokens, {}, rows, [&](int position, std::span<const float> logits) {
        CHECK(position == next);
        CHECK(same_bits(logits, expected[static_cast<std::size_t>(next++)]));
      });
      CHECK(next == 50);
    }
  }
}

TEST_CASE_TEMPLATE("a tree gives each token what its path alone gives, and keeps one path", Model, ei::model<>,
                   windowed, linear, capped, small_cache, paged) {
  const Model m = load<Model>();
  const std::vector<int> text = some_tokens(45), guesses = some_tokens(12, 7), after = some_tokens(3, 9);
  const std::vector<std::vector<int>> trees = {{0, 1, 2, 2, 3, 1, 1, 2, 3, 4, 5, 1},
                                               {0, 0, 1, 1, 2, 0},
                                               {0, 1, 2, 3, 4},
                                               {0},
                                               {0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}};
  for (const std::vector<int>& depths : trees) {
    for (const int before : {1, 15, 44, 45}) {
      CAPTURE(before);
      CAPTURE(depths.size());
      const std::size_t count = depths.size();
      auto tree = m.start({.context_tokens = 64, .prefill_chunk = 13});
      tree.append(std::span(text).first(static_cast<std::size_t>(before)));
      const auto root = tree.fork();
      std::vector<std::vector<float>> logits(count);
      const auto read = [&] {
        tree.append_tree(std::span(guesses).first(count), depths, {},
                         [&](int row, std::span<const float> l) { logits[static_cast<std::size_t>(row)] = copy(l); });
      };
      for (int row = 0; row < static_cast<int>(count); ++row) {
        std::vector<int> path;  // from the token up
        for (int r = row, depth = depths[static_cast<std::size_t>(row)]; r >= 0; --r) {
          if (depths[static_cast<std::size_t>(r)] != depth) continue;
          path.insert(path.begin(), r);
          --depth;
        }
        std::vector<int> tokens;
        for (const int r : path) tokens.push_back(guesses[static_cast<std::size_t>(r)]);
        auto alone = root.fork();
        std::vector<float> expected;
        for (const int token : tokens) expected = copy(alone.append(std::span(&token, 1)));
        tree = root.fork();
        read();
        CHECK(tree.position() == before);
        CHECK(same_bits(logits[static_cast<std::size_t>(row)], expected));
        tree.keep(path);
        CHECK(std::equal(tree.tokens().begin(), tree.tokens().end(), alone.tokens().begin(), alone.tokens().end()));
        CHECK(same_bits(copy(tree.append(after)), copy(alone.append(after))));
      }
      // A tree that nobody keeps leaves nothing behind.
      tree = root.fork();
      read();
      auto alone = root.fork();
      CHECK(same_bits(copy(tree.append(after)), copy(alone.append(after))));
      CHECK_THROWS_AS(tree.keep(std::vector<int>{0}), ei::error);
    }
  }
}

TEST_CASE("trees and paths that are none are refused, and nothing changes") {
  const auto m = load<ei::model<>>();
  auto s = m.start({.context_tokens = 8, .prefill_chunk = 6});
  s.append(some_tokens(5));
  const auto none = [](int, std::span<const float>) {};
  const auto read = [&](const std::vector<int>& depths, std::size_t tokens) {
    return code_of([&] { s.append_tree(some_tokens(static_cast<int>(tokens)), depths, {}, none); });
  };
  CHECK(read({}, 0) == ei::error_code::invalid_argument);
  CHECK(read({0, 1}, 3) == ei::error_code::invalid_argument);
  CHECK(read({1, 2}, 2) == ei::error_code::invalid_argument);
  CHECK(read({0, 2}, 2) == ei::error_code::invalid_argument);
  CHECK(read({0, -1}, 2) == ei::error_code::invalid_argument);
  CHECK(read({0, 1, 2, 3}, 4) == ei::error_code::context_overflow);
  CHECK(read({0, 0, 0, 0, 0, 0, 0}, 7) == ei::error_code::invalid_argument);
  const auto keep = [&](const std::vector<int>& path) { return code_of([&] { s.keep(path); }); };
  CHECK(keep({0}) == ei::error_code::invalid_argument);
  s.append_tree(some_tokens(6), std::vector<int>{0, 1, 2, 1, 2, 0}, {}, none);  // three deep: as many as fit
  CHECK(keep({1}) == ei::error_code::invalid_argument);
  CHECK(keep({0, 2}) == ei::error_code::invalid_argument);
  CHECK(keep({0, 1, 4}) == ei::error_code::invalid_argument);
  CHECK(keep({5, 3}) == ei::error_code::invalid_argument);
  CHECK(keep({0, 6}) == ei::error_code::invalid_argument);
  CHECK(s.position() == 5);
  s.keep(std::vector<int>{0, 3, 4});
  CHECK(s.position() == 8);
  CHECK(keep({}) == ei::error_code::invalid_argument);
}

TEST_CASE("a cache of 8 bits changes what the shipped model predicts by little") {
  const std::string shipped = std::string(EFFINFER_SHIPPED_MODELS) + "/shakespeare-llama";
  const auto log_probabilities = [&](const auto& model) {
    std::vector<double> all;
    const auto tokens = some_tokens(400, 7);
    auto session = model.start({.context_tokens = 400});
    session.append(tokens, {}, 400, [&](int position, std::span<const float> logits) {
      if (position == 399) return;
      double sum = 0;
      for (const float l : logits) sum += std::exp(static_cast<double>(l));
      const int next = tokens[static_cast<std::size_t>(position) + 1];
      all.push_back(static_cast<double>(logits[static_cast<std::size_t>(next)]) - std::log(sum));
    });
    return all;
  };
  const auto exact = log_probabilities(ei::model<ei::kv_cache::contiguous<float>>::load(shipped));
  const auto half = log_probabilities(ei::model<>::load(shipped));
  const auto eight = log_probabilities(small_cache::load(shipped));
  REQUIRE(exact.size() == 399);
  double of_half = 0, of_eight = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    of_half += std::abs(half[i] - exact[i]) / 399;
    of_eight += std::abs(eight[i] - exact[i]) / 399;
  }
  MESSAGE("mean difference in log-probability: f16 ", of_half, ", int8 ", of_eight);
  CHECK(of_eight > of_half);  // it is another cache
  // A code's error is at most 1/254 of its row's largest number, in f16 2^-11 of the number itself.
  CHECK(of_eight < 0.02);
}

TEST_CASE("a window narrower than the checkpoint's is taken, a wider one is an error naming both") {
  CHECK_NOTHROW(ei::model<ei::attention::sliding_window<8>>::load(folder + "mistral"));
  try {
    (void)ei::model<ei::attention::sliding_window<4096>>::load(folder + "mistral");
    FAIL("it was taken");
  } catch (const ei::error& e) {
    CHECK(e.code() == ei::error_code::mismatch);
    CHECK(std::string(e.what()).find("16") != std::string::npos);
    CHECK(std::string(e.what()).find("4096") != std::string::npos);
  }
  CHECK(code_of([] { (void)ei::model<ei::attention::full>::load(folder + "mistral"); }) == ei::error_code::mismatch);
  CHECK(code_of([] { (void)ei::model<ei::models::qwen2>::load(folder + "llama3"); }) == ei::error_code::mismatch);
  CHECK(code_of([] { (void)ei::model<ei::attention::grouped_query<4, 4>>::load(folder + "llama3"); }) ==
        ei::error_code::mismatch);
  CHECK_NOTHROW(ei::model<ei::attention::grouped_query<4, 2>>::load(folder + "llama3"));
  CHECK(code_of([] { (void)ei::model<>::load(folder + "linear"); }) == ei::error_code::mismatch);
  CHECK(code_of([] { (void)ei::model<ei::quantization::int8>::load(folder + "llama-q4_k/model.gguf"); }) ==
        ei::error_code::unsupported);
}

TEST_CASE("cancelling leaves the session where it was, also in the middle of a prefill") {
  const auto check = [](auto model) {
    auto session = model.start({.context_tokens = 128, .prefill_chunk = 16});
    session.append(some_tokens(20));
    auto expected = session.fork();
    for (const int after : {-1, 20, 36}) {  // before the first pass, and behind the first and the second
      std::stop_source stop;
      if (after < 0) stop.request_stop();
      const auto stop_behind = [&](int position, std::span<const float>) {
        if (position == after + 15) stop.request_stop();
      };
      CHECK(code_of([&] { session.append(some_tokens(50, 4), stop.get_token(), 50, stop_behind); }) ==
            ei::error_code::cancelled);
      CHECK(session.position() == 20);
    }
    const auto tokens = some_tokens(5, 8);
    const auto a = copy(session.append(tokens));
    CHECK(same_bits(a, expected.append(tokens)));
  };
  check(load<ei::model<>>());
  check(load<windowed>());
  check(load<linear>());
}

TEST_CASE_TEMPLATE("keys, values and states lie in the caller's memory", Model, ei::model<>, windowed, linear) {
  const auto llm = load<Model>();
  const auto tokens = some_tokens(20);
  alignas(64) static std::byte block[1 << 20];
  std::vector<float> want;
  {
    auto usual = llm.start({.context_tokens = 64, .prefill_chunk = 8});
    want = copy(usual.append(tokens));
  }
  std::pmr::monotonic_buffer_resource memory(block, sizeof block, std::pmr::null_memory_resource());
  auto session = llm.start({.context_tokens = 64, .prefill_chunk = 8, .memory = &memory});
  CHECK(same_bits(session.append(tokens), want));
  auto fork = session;
  session.mark();
  CHECK(same_bits(fork.append(some_tokens(5)), session.append(some_tokens(5))));
  CHECK_THROWS_AS(
      auto none = llm.start({.context_tokens = 64, .prefill_chunk = 8, .memory = std::pmr::null_memory_resource()}),
      std::bad_alloc);
}

TEST_CASE("bad tokens are refused before anything changes") {
  const auto model = load<ei::model<>>();
  auto session = model.start({.context_tokens = 16});
  CHECK(code_of([&] { session.append({}); }) == ei::error_code::invalid_argument);
  for (const int id : {-1, 288, 1 << 30}) {
    CHECK(code_of([&] { session.append(std::span(&id, 1)); }) == ei::error_code::invalid_argument);
  }
  CHECK(session.position() == 0);
  CHECK(code_of([&] { session.truncate(1); }) == ei::error_code::invalid_argument);
  CHECK(code_of([&] { (void)model.start({.context_tokens = -1}); }) == ei::error_code::invalid_argument);
  CHECK(code_of([&] { (void)model.start({.prefill_chunk = 0}); }) == ei::error_code::invalid_argument);
}

TEST_CASE("many sessions of one model in many threads, on one, two and three threads each") {
  const auto tokens = some_tokens(60);
  std::vector<float> expected;
  for (const int threads : {1, 2, 3}) {
    using pinned = ei::model<ei::execution::cpu>;
    const auto model = pinned::load(folder + "llama3", {}, ei::execution::cpu{.threads = threads});
    std::vector<std::vector<float>> results(4);
    std::vector<std::thread> workers;
    for (auto& result : results) {
      workers.emplace_back([&] {
        auto session = model.start({.context_tokens = 64, .prefill_chunk = 32});
        session.append(std::span(tokens).first(40));
        for (std::size_t i = 40; i < tokens.size(); ++i) result = copy(session.append(std::span(tokens).subspan(i, 1)));
      });
    }
    for (auto& w : workers) w.join();
    if (expected.empty()) expected = results[0];
    for (const auto& result : results) CHECK(same_bits(result, expected));
  }
}

}  // namespace session_tests
