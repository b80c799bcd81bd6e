// Drafters that look inside the model, and early exit, on the models that ship: the text is the plain one's, token for token,
// where it says so, and drafts do help.

#include <effinfer/decoding/eagle.hpp>
#include <effinfer/decoding/early_exit.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/medusa.hpp>
#include <effinfer/decoding/otherwise.hpp>
#include <effinfer/decoding/self_speculation.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/decoding/suffix_automaton.hpp>
#include <effinfer/decoding/top_p.hpp>
#include <effinfer/pipeline.hpp>

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace drafting_tests {

namespace ei = effinfer;

namespace {

const std::string models = EFFINFER_SHIPPED_MODELS;
namespace dec = ei::decoding;

std::vector<std::string> prompts() {
  std::ifstream file(models + "/heldout.txt");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::string> some;
  for (std::size_t i = 0; i < 6; ++i) some.push_back(text.substr(1000 + 5000 * i, 60));
  return some;
}

struct outcome {
  std::vector<std::vector<int>> tokens;
  int generated = 0, passes = 0;
  std::int64_t layers = 0;
};

template <class Decoding, class... More>
outcome run(const Decoding& decoding, int context = 0) {
  using pipeline = ei::pipeline<Decoding, ei::execution::cpu, More...>;
  const std::string name = pipeline::parts::model::recurrent ? "/shakespeare-linear" : "/shakespeare-llama";
  const auto llm =
      pipeline::load(models + name, {.session = {.context_tokens = context}}, ei::execution::cpu{.threads = 1});
  outcome all;
  for (const std::string& prompt : prompts()) {
    typename pipeline::generate_options options;
    options.max_tokens = 64;
    options.seed = 3;
    options.ignore_end_of_text = true;
    options.decoding = decoding;
    auto generation = llm.generate(prompt, options);
    generation.text();
    all.tokens.emplace_back(generation.tokens().begin(), generation.tokens().end());
    all.generated += generation.statistics().generated_tokens - 1;
    all.passes += generation.statistics().forward_passes;
    all.layers += generation.statistics().early_exit_layers;
  }
  return all;
}

/// Knows the texts, and hides what comes next among guesses that are wrong: a tree three deep, of which one path is right.
struct hinted {
  static constexpr bool reads_states = true;
  std::shared_ptr<const std::vector<std::vector<int>>> texts;
  void validate() const {}
  template <class Session>
  class run {
   public:
    using tap = typename Session::decoder_type::tap;
    run(const hinted& drafter, Session& session) : texts_(drafter.texts), start_(session.position()) {}
    std::span<const tap> taps(int /*rows*/) { return {}; }
    void read(std::span<const int> /*rows*/) {}
    void propose(std::span<const int> history, int most, dec::draft_tree& tree) {
      if (start_ == 0) start_ = static_cast<int>(history.size()) - 1;
      const auto known = history.subspan(static_cast<std::size_t>(start_));
      for (const std::vector<int>& text : *texts_) {
        if (text.size() <= known.size() || !std::equal(known.begin(), known.end(), text.begin())) continue;
        int parent = -1;
        for (std::size_t depth = 0; depth < 3 && known.size() + depth < text.size(); ++depth) {
          const int token = text[known.size() + depth], at = tree.size();
          const bool right_first = (known.size() + depth) % 2 == 0;
          tree.add(right_first ? token : (token + 1) % 1000, parent, 0.5F);
          tree.add(right_first ? (token + 7) % 1000 : token, parent, 0.5F);
          tree.add((token + 3) % 1000, right_first ? at + 1 : at, 0.5F);  // behind the wrong one
          parent = right_first ? at : at + 1;
        }
        break;
      }
      tree.keep_first(most);
      tree.sort_depth_first();
    }

   private:
    std::shared_ptr<const std::vector<std::vector<int>>> texts_;
    int start_;
  };
};

/// The drafters' weights, for the shipped model.
struct loaded {
  ei::model<ei::execution::cpu> m = ei::model<ei::execution::cpu>::load(models + "/shakespeare-llama");
  const ei::execution::cpu::context& exec = m.decoder_model().execution();
  std::shared_ptr<const ei::models::feature_drafter> network(const std::string& name) const {
    return std::make_shared<const ei::models::feature_drafter>(
        ei::models::feature_drafter::load(models + "/" + name, m.config(), exec));
  }
  std::shared_ptr<const ei::models::medusa_heads> heads() const {
    return std::make_shared<const ei::models::medusa_heads>(
        ei::models::medusa_heads::load(models + "/shakespeare-medusa", m.config(), exec));
  }
  std::shared_ptr<const ei::models::exit_maps> maps() const {
    return std::make_shared<const ei::models::exit_maps>(
        ei::models::exit_maps::load(models + "/shakespeare-exits", m.config(), exec));
  }
};

}  // namespace

TEST_CASE("learned drafters give the plain text in fewer passes") {
  const loaded from;
  const outcome plain = run(dec::greedy{});
  const auto check = [&](const outcome& drafted, double tokens_a_pass) {
    CHECK(drafted.tokens == plain.tokens);
    CHECK(drafted.generated == plain.generated);
    CHECK(drafted.generated > tokens_a_pass * drafted.passes);
  };
  CHECK(plain.passes == plain.generated);
  for (const std::string name : {"shakespeare-eagle", "shakespeare-eagle3", "shakespeare-mtp"}) {
    CAPTURE(name);
    check(run(dec::speculative<dec::eagle>{
              .drafter = {.network = from.network(name), .least_chance = 0}, .max_draft = 4, .row_cost = 0}),
          2.5);
  }
  // As many as pay: with a row at a tenth of a pass, and measured on whatever runs this.
  check(run(dec::speculative<dec::eagle>{
            .drafter = {.network = from.network("shakespeare-eagle")}, .max_draft = 8, .row_cost = 0.1F}),
        1.3);
  const dec::speculative<dec::eagle> measured{.drafter = {.network = from.network("shakespeare-eagle")},
                                              .max_draft = 8};
  CHECK(run(measured).tokens == plain.tokens);
  using automaton_or_eagle = dec::otherwise<dec::suffix_automaton, dec::eagle>;
  check(run(dec::speculative<automaton_or_eagle>{
            .drafter = {.second = {.network = from.network("shakespeare-eagle")}}, .max_draft = 8, .row_cost = 0.1F}),
        1.4);
  check(run(dec::speculative<dec::medusa>{.drafter = {.heads = from.heads(), .least_chance = 0}, .row_cost = 0}), 1.6);
  check(run(dec::speculative<dec::self_speculation>{
            .drafter = {.layers = {{0, 2}}, .maps = from.maps(), .least_chance = 0}, .max_draft = 4, .row_cost = 0}),
        1.8);
  check(run(dec::speculative<dec::self_speculation>{
            .drafter = {.layers = {{0, 2}, {3, 4}}, .least_chance = 0}, .max_draft = 4, .row_cost = 0}),
        1.1);
  // On other caches, and with a context that the text outgrows.
  const outcome on_int8 = run<dec::greedy, ei::kv_cache::contiguous<ei::kv_cache::int8>>(dec::greedy{});
  using eagle = dec::speculative<dec::eagle>;
  const eagle drafted{.drafter = {.network = from.network("shakespeare-eagle")}, .max_draft = 4};
  CHECK(run<eagle, ei::kv_cache::contiguous<ei::kv_cache::int8>>(drafted).tokens == on_int8.tokens);
  const outcome on_ring = run<dec::greedy, ei::attention::sliding_window<24>>(dec::greedy{}, 48);
  CHECK(run<eagle, ei::attention::sliding_window<24>>(drafted, 48).tokens == on_ring.tokens);
}

TEST_CASE("learned drafters give the sampled text of the rule alone") {
  const loaded from;
  const dec::top_p rule{.p = 0.9F, .temperature = 0.8F};
  const outcome plain = run(rule);
  const outcome drafted = run(dec::speculative<dec::eagle, dec::top_p>{
      .drafter = {.network = from.network("shakespeare-eagle3"), .least_chance = 0}, .rule = rule, .max_draft = 3});
  CHECK(drafted.tokens == plain.tokens);
  CHECK(drafted.passes < drafted.generated);
  CHECK(run(dec::speculative<dec::medusa, dec::top_p>{.drafter = {.heads = from.heads()}, .rule = rule}).tokens ==
        plain.tokens);
}

TEST_CASE("trees with the right guesses anywhere in them give the plain text, on caches and on recurrent states") {
  const auto check = [](auto policy, int context) {
    using policy_type = decltype(policy);
    const auto texts_of = [&](const auto& decoding) {
      if constexpr (std::is_same_v<policy_type, int>) {
        return run(decoding, context);
      } else {
        return run<std::remove_cvref_t<decltype(decoding)>, policy_type>(decoding, context);
      }
    };
    const outcome plain = texts_of(dec::greedy{});
    hinted drafter;
    drafter.texts = std::make_shared<const std::vector<std::vector<int>>>(plain.tokens);
    const outcome drafted = texts_of(dec::speculative<hinted>{.drafter = drafter, .max_draft = 12, .row_cost = 0.0F});
    CHECK(drafted.tokens == plain.tokens);
    CHECK(drafted.generated > 2 * drafted.passes);
  };
  check(0, 0);
  check(ei::kv_cache::contiguous<ei::kv_cache::int8>(), 0);
  check(ei::attention::sliding_window<24>(), 48);
  check(ei::models::linear_llama(), 0);
}

TEST_CASE("a drafter without its network is an error") {
  const auto refused = [](const auto& decoding) { CHECK_THROWS_AS(decoding.validate(), ei::error); };
  refused(dec::speculative<dec::eagle>{});
  refused(dec::speculative<dec::medusa>{});
  refused(dec::speculative<dec::self_speculation>{.drafter = {.layers = {}}});
  refused(dec::speculative<dec::self_speculation>{.drafter = {.layers = {{0, 2}, {1, 3}}}});
}

TEST_CASE("early exit: never is the plain text, sometimes runs fewer layers") {
  const loaded from;
  const auto maps = from.maps();
  const outcome plain = run(dec::greedy{});
  using dec::early_exit;
  const outcome never = run(early_exit<>{.exit = {.threshold = 1}, .maps = maps});
  CHECK(never.tokens == plain.tokens);
  CHECK(never.layers == 4 * never.passes);
  const outcome patient = run(early_exit<dec::patience>{.exit = {.times = 4}, .maps = maps});
  CHECK(patient.tokens == plain.tokens);
  const outcome whole = run(early_exit<dec::monotone_schedule>{.exit = {.fewest = 4}});
  CHECK(whole.tokens == plain.tokens);
  const dec::top_p rule{.p = 0.9F, .temperature = 0.8F};
  CHECK(run(early_exit<dec::confidence, dec::top_p>{.exit = {.threshold = 1}, .rule = rule}).tokens ==
        run(rule).tokens);

  const outcome sometimes = run(early_exit<>{.exit = {.threshold = 0.5F}, .maps = maps});
  CHECK(sometimes.layers < 4 * sometimes.passes);
  CHECK(sometimes.layers > sometimes.passes);
  const outcome at_once = run(early_exit<dec::patience>{.exit = {.times = 1}, .maps = maps});
  CHECK(at_once.layers == at_once.passes);
  const outcome second = run(early_exit<>{.exit = {.threshold = 0}, .maps = maps, .exits = {2, 3}});
  CHECK(second.layers == 2 * second.passes);
  const outcome scheduled = run(early_exit<dec::monotone_schedule>{.exit = {.fewest = 2, .warm_up = 1, .length = 40}});
  CHECK(scheduled.layers < 4 * scheduled.passes);
  CHECK(scheduled.layers >= 2 * scheduled.passes);
  CHECK_THROWS_AS(run(early_exit<>{.exits = {2, 2}}), ei::error);
  CHECK_THROWS_AS(run(early_exit<>{.exits = {4}}), ei::error);
}

TEST_CASE("the schedules are the papers'") {
  const dec::confidence decaying{.threshold = 0.8F, .temperature = 4, .length = 100};
  CHECK(decaying.threshold_at(0) == doctest::Approx(0.72 + 0.1));
  CHECK(decaying.threshold_at(25) == doctest::Approx(0.72 + 0.1 * std::exp(-1.0)));
  CHECK(dec::confidence{.threshold = 0.8F}.threshold_at(9) == 0.8F);
  const dec::monotone_schedule schedule{.most = 10, .fewest = 4, .warm_up = 2, .length = 60};
  int before = 10;
  for (int t = 0; t < 100; ++t) {
    const int now = schedule.layers_at(t, 12);
    CHECK(now <= before);
    before = now;
  }
  CHECK(schedule.layers_at(0, 12) == 10);
  CHECK(schedule.layers_at(30, 12) == 7);
  CHECK(schedule.layers_at(60, 12) == 4);
}

}  // namespace drafting_tests
