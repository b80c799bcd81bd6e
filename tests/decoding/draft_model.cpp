// decoding/draft_model.hpp, lookahead.hpp and either.hpp on models that are functions from a history to logits: drafts are the
// smaller model's own text whatever was refused before, and nothing is read twice.

#include <effinfer/decoding/draft_model.hpp>
#include <effinfer/decoding/either.hpp>
#include <effinfer/decoding/lookahead.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/models/token_tree.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <stop_token>
#include <vector>

#include "decoding/reference.hpp"

namespace draft_model_tests {

using namespace effinfer;
using namespace effinfer::decoding;
using ids = std::vector<int>;

namespace {

constexpr int v = 13;

std::vector<float> logits_behind(std::span<const int> history) {
  std::uint64_t key = 3;
  for (const int token : history.last(std::min<std::size_t>(2, history.size())))
    key = key * 31 + static_cast<std::uint64_t>(token);
  return reference::logits(v, key, 2.0F);
}
int best_behind(std::span<const int> history) {
  const auto logits = logits_behind(history);
  return static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

struct toy_options {
  int context_tokens = 64;
};
struct toy_execution {
  [[nodiscard]] execution::instruction_set set() const { return execution::best_instruction_set(); }
};

/// What drafters ask of a session.
struct toy_session {
  struct decoder_type {
    struct tap {};
  };
  struct model_type {
    checkpoint::model_config c;
    [[nodiscard]] const checkpoint::model_config& config() const { return c; }
    [[nodiscard]] toy_execution execution() const { return {}; }
  };

  model_type m;
  int most = 64;
  ids read_tokens = {};
  std::vector<float> row = {};
  int* reads = nullptr;  // counts tokens read

  [[nodiscard]] const model_type& model() const { return m; }
  [[nodiscard]] std::span<const int> tokens() const { return read_tokens; }
  [[nodiscard]] int position() const { return static_cast<int>(read_tokens.size()); }
  [[nodiscard]] int context_tokens() const { return most; }
  [[nodiscard]] int room() const { return most - position(); }
  void mark() {}
  void truncate(int position) {
    REQUIRE((position >= 0 && position <= this->position()));
    read_tokens.resize(static_cast<std::size_t>(position));
  }
  void rollback(int position) { truncate(position); }
  void append(std::span<const int> more) {
    append(more, {}, 1, [](int, std::span<const float>) {});
  }
  template <class Sink>
  void append(std::span<const int> more, const std::stop_token&, int rows, Sink&& sink) {
    REQUIRE((!more.empty() && static_cast<int>(more.size()) <= room()));
    for (std::size_t i = 0; i < more.size(); ++i) {
      read_tokens.push_back(more[i]);
      ++*reads;
      row = logits_behind(read_tokens);
      if (static_cast<int>(more.size() - i) <= rows) sink(position() - 1, std::span<const float>(row));
    }
  }
};

struct toy_model {
  toy_session::model_type m;
  int* reads;
  [[nodiscard]] toy_session start(const toy_options& options = {}) const {
    return {.m = m, .most = options.context_tokens, .reads = reads};
  }
  [[nodiscard]] const checkpoint::model_config& config() const { return m.c; }
  [[nodiscard]] const toy_session::model_type& decoder_model() const { return m; }
};

struct toys {
  int reads = 0;
  toy_session target;
  std::shared_ptr<const toy_model> small;

  explicit toys(int context = 4096) {
    checkpoint::model_config c;
    c.vocabulary_size = v;
    c.width = c.feed_forward_width = 8;
    c.layers = c.heads = c.kv_heads = 1;
    c.head_size = 8;
    small = std::make_shared<const toy_model>(toy_model{{c}, &reads});
    target = {.m = {c}, .most = context, .reads = &reads};
    target.m.c.layers = 4;
  }
};

ids own_text(ids history, int count) {
  ids text;
  for (int i = 0; i < count; ++i) {
    text.push_back(best_behind(history));
    history.push_back(text.back());
  }
  return text;
}

/// Drafts along a text that keeps some of each draft and then goes its own way.
template <class Drafter>
void follow_a_text(const Drafter& drafter, toys& t, int steps) {
  typename Drafter::template run<toy_session> run(drafter, t.target);
  ids history{1, 2, 3};
  for (int step = 0; step < steps; ++step) {
    draft_tree guesses;
    run.propose(history, 5, guesses, {1});
    REQUIRE(guesses.tokens == own_text(history, 5));
    const int kept = static_cast<int>(random_stream{4}.uniform(static_cast<std::uint64_t>(step)) * 6.0F);
    history.insert(history.end(), guesses.tokens.begin(), guesses.tokens.begin() + kept);
    history.push_back(step % 3 == 0 ? best_behind(history) : step % v);
    const ids rows{0, 1, 2, 3, 4, 5};
    run.read(std::span(rows).first(static_cast<std::size_t>(kept) + 1));
  }
}

}  // namespace

TEST_CASE("a draft model drafts its own text, and reads nothing twice") {
  toys t;
  follow_a_text(draft_model<toy_model>{.model = t.small, .least_chance = 0}, t, 100);
  // A pass reads its token of its own and four guesses; the fifth only if it stayed.
  CHECK(t.reads <= 3 + 100 * 6);
  CHECK_THROWS_AS(draft_model<toy_model>{}.validate(), error);
  toys other;
  other.target.m.c.vocabulary_size = v + 1;
  CHECK_THROWS_AS((draft_model<toy_model>::run<toy_session>({.model = other.small}, other.target)), error);
}

TEST_CASE("a staged draft is that of the middle model") {
  toys t;
  follow_a_text(staged<prompt_lookup<3>, toy_model>{.model = t.small, .least_chance = 0}, t, 100);
}

TEST_CASE("a draft model begins anew where the text outgrows its context") {
  toys t(24);
  follow_a_text(draft_model<toy_model>{.model = t.small, .least_chance = 0}, t, 60);
}

TEST_CASE("drawn guesses come with what they were drawn from") {
  toys t;
  draft_model<toy_model>::run<toy_session> run({.model = t.small, .least_chance = 0, .temperature = 1}, t.target);
  ids history{1, 2, 3};
  draft_tree guesses;
  run.propose(history, 4, guesses, {7});
  REQUIRE(guesses.size() == 4);
  const auto q = run.distributions();
  REQUIRE((q.rows == 4 && q.columns == v));
  for (int i = 0; i < 4; ++i) {
    const auto p = reference::probabilities(logits_behind(history));
    for (int id = 0; id < v; ++id) CHECK(q.row(i)[id] == doctest::Approx(p[static_cast<std::size_t>(id)]));
    history.push_back(guesses.tokens[static_cast<std::size_t>(i)]);
  }
}

TEST_CASE("siblings stand beside each guess, the likeliest or drawn") {
  toys t;
  const ids history{1, 2, 3};
  const auto propose = [&](const draft_model<toy_model>& drafter, int most, draft_tree& tree) {
    draft_model<toy_model>::run<toy_session> run(drafter, t.target);
    run.propose(history, most, tree, {7});
    CHECK_NOTHROW(effinfer::models::check_depths(tree.depths(), tree.tokens.size()));
    return run.distributions().rows;
  };
  draft_tree tree;
  CHECK(propose({.model = t.small, .siblings = 3}, 4, tree) == 0);
  CHECK(tree.tokens == own_text(history, 4));  // no room
  tree.clear();
  draft_model<toy_model>::run<toy_session> run({.model = t.small, .siblings = 3}, t.target);
  least_chances dear;  // a chain of one
  dear.a_level = 2;
  run.expect(dear);
  run.propose(history, 4, tree, {7});
  REQUIRE(tree.size() == 3);
  CHECK(tree.tokens[0] == best_behind(history));
  CHECK(tree.parents == ids{-1, -1, -1});
  CHECK((tree.tokens[1] != tree.tokens[0] && tree.tokens[1] != tree.tokens[2] && tree.tokens[0] != tree.tokens[2]));

  tree.clear();
  CHECK(propose({.model = t.small, .temperature = 2, .siblings = 3}, 9, tree) ==
        3);  // a chain of three, two beside each
  CHECK(tree.parents == ids{-1, 0, 1, 1, 1, 0, 0, -1, -1});
  CHECK((tree.tokens[0] != tree.tokens[7] && tree.tokens[0] != tree.tokens[8] && tree.tokens[7] != tree.tokens[8]));
  bool equal = false;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    tree.clear();
    draft_model<toy_model>::run<toy_session> again(
        {.model = t.small, .temperature = 0.3F, .siblings = 2, .replaced = true}, t.target);
    again.propose(history, 2, tree, {seed});
    REQUIRE(tree.size() == 2);
    equal = equal || tree.tokens[0] == tree.tokens[1];
  }
  CHECK(equal);
}

TEST_CASE("lookahead verifies n-grams of the text, and iterates behind them") {
  toys t;
  lookahead::run<toy_session> run({.ngram = 3, .jacobi = false}, t.target);
  draft_tree guesses;
  run.propose(ids{1, 2, 3, 4, 1}, 4, guesses);
  CHECK(guesses.tokens == ids{2, 3, 4, 1});
  guesses.clear();
  // Two continuations of 1: the newest first, the other a branch.
  run.propose(ids{1, 2, 3, 4, 1, 2, 7, 8, 1}, 6, guesses);
  CHECK(guesses.tokens == ids{2, 7, 8, 1, 2, 3});
  CHECK(guesses.parents == ids{-1, 0, 1, 2, 3, 0});
  lookahead::run<toy_session> iterated({.ngram = 2}, t.target);
  guesses.clear();
  iterated.propose(ids{1}, 2, guesses);
  REQUIRE(guesses.size() == 2);
  std::vector<float> row(v, 0.0F);
  for (const int token : {5, 6, 8}) {  // behind the last token and two guesses, the first of them wrong
    row.assign(v, 0.0F);
    row[static_cast<std::size_t>(token)] = 1;
    iterated.row(row);
  }
  iterated.read(ids{0});
  guesses.clear();
  iterated.propose(ids{1, 5}, 2, guesses);
  CHECK(guesses.tokens == ids{6, 8});
}

TEST_CASE("either is the drafter that was chosen") {
  toys t;
  using two = either<prompt_lookup<3>, draft_model<toy_model>>;
  follow_a_text(two{{draft_model<toy_model>{.model = t.small, .least_chance = 0}}}, t, 20);
  two::run<toy_session> run({prompt_lookup<3>{}}, t.target);
  draft_tree guesses;
  run.propose(ids{1, 2, 3, 1, 2}, 1, guesses, {1});
  CHECK(guesses.tokens == ids{3});
  CHECK(run.guess_cost() == 0);
  CHECK(run.distributions().rows == 0);
  CHECK_THROWS_AS((two{{draft_model<toy_model>{}}}.validate()), error);
}

}  // namespace draft_model_tests
