// Trees of guesses: their shapes, what Medusa and EAGLE put into them, and the likeliest tokens they are made of.

#include <effinfer/decoding/draft_tree.hpp>
#include <effinfer/decoding/eagle.hpp>
#include <effinfer/decoding/medusa.hpp>
#include <effinfer/decoding/top_tokens.hpp>
#include <effinfer/model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace draft_tree_tests {

namespace ei = effinfer;
namespace dec = ei::decoding;

namespace {

std::vector<float> some_logits(int size, unsigned seed) {
  std::vector<float> x;
  for (int i = 0; i < size; ++i) {
    seed = seed * 1664525U + 1013904223U;
    x.push_back(static_cast<float>(seed >> 20) / 256.0F - 8.0F);  // a few equal ones among many
  }
  return x;
}

std::vector<double> softmax(std::span<const float> x) {
  const double top = static_cast<double>(*std::max_element(x.begin(), x.end()));
  std::vector<double> p;
  double sum = 0;
  for (const float v : x) sum += std::exp(double{v} - top);
  for (const float v : x) p.push_back(std::exp(double{v} - top) / sum);
  return p;
}

const ei::execution::cpu in_f32{.threads = 1, .set = ei::execution::instruction_set::portable};

/// A drafter of the tests' own on the model it goes with, behind a few tokens.
struct drafting {
  ei::model<ei::execution::cpu> m =
      ei::model<ei::execution::cpu>::load(std::string(EFFINFER_TEST_DATA) + "/models/llama3", {}, in_f32);
  ei::models::feature_drafter network;
  ei::models::feature_drafter::state state;
  std::vector<float> states;

  explicit drafting(const std::string& kind)
      : network(ei::models::feature_drafter::load(std::string(EFFINFER_TEST_DATA) + "/drafters/" + kind, m.config(),
                                                  m.decoder_model().execution())),
        state(network.make_state(64)) {
    for (int i = 0; i < 4 * network.states_width(); ++i) states.push_back(static_cast<float>(std::sin(i)));
    begin();
  }
  void begin() {
    state.truncate(0);
    network.advance(state, m.decoder_model().weights(), m.decoder_model().execution(), std::vector<int>{5, 9, 100, 31},
                    {states.data(), 4, network.states_width()});
  }
  dec::feature_draft draft() { return {network, state, m.decoder_model().weights(), m.decoder_model().execution()}; }

  /// Probabilities [V of the model] behind a path of guesses, made anew.
  std::vector<double> behind(const std::vector<int>& path) {
    begin();
    for (const int token : path) {
      const int parent = state.nodes() - 1;
      network.expand(state, m.decoder_model().weights(), m.decoder_model().execution(), std::span(&token, 1),
                     std::span(&parent, 1));
    }
    std::vector<double> of_model(288, 0.0);
    const auto p = softmax(state.logits(0));
    for (std::size_t i = 0; i < p.size(); ++i)
      of_model[static_cast<std::size_t>(network.token(static_cast<int>(i)))] = p[i];
    return of_model;
  }
};

std::vector<int> path_to(const dec::draft_tree& tree, int node) {
  std::vector<int> path;
  for (; node >= 0; node = tree.parents[static_cast<std::size_t>(node)])
    path.insert(path.begin(), tree.tokens[static_cast<std::size_t>(node)]);
  return path;
}

std::vector<int> best_of(const std::vector<double>& p, std::size_t count) {
  std::vector<int> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return p[static_cast<std::size_t>(a)] > p[static_cast<std::size_t>(b)]; });
  order.resize(count);
  return order;
}

}  // namespace

TEST_CASE("the likeliest tokens are those of a sort, on every instruction set") {
  for (const auto set : {ei::execution::instruction_set::portable, ei::execution::best_instruction_set()}) {
    for (const int size : {1, 5, 16, 100, 1024, 3001, 40000}) {
      CAPTURE(size);
      auto x = some_logits(size, static_cast<unsigned>(size));
      if (size > 50)
        x[7] = std::numeric_limits<float>::quiet_NaN(), x[20] = -std::numeric_limits<float>::infinity(),
        x[30] = x[31] = 9.0F;
      auto clean = x;
      for (float& v : clean) v = std::isnan(v) ? -std::numeric_limits<float>::infinity() : v;
      const auto p = softmax(clean);
      std::vector<dec::token_probability> best(static_cast<std::size_t>(std::min(size, 12)));
      dec::top_tokens(set, x, best);
      std::vector<int> order(p.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return clean[static_cast<std::size_t>(a)] > clean[static_cast<std::size_t>(b)];
      });
      for (std::size_t i = 0; i < best.size(); ++i) {
        CHECK(best[i].id == order[i]);
        if (size < 50)
          CHECK(double{best[i].probability} == doctest::Approx(p[static_cast<std::size_t>(order[i])]).epsilon(1e-5));
      }
    }
  }
}

TEST_CASE("trees stand depth first, and keep who is whose child") {
  dec::draft_tree tree;
  for (const auto& [token, parent] : {std::pair{10, -1}, {11, -1}, {20, 1}, {21, 0}, {22, 0}, {30, 3}, {31, 2}})
    tree.add(token, parent, static_cast<float>(token) / 100);
  CHECK(tree.depths() == std::vector<int>{0, 0, 1, 1, 1, 2, 2});
  tree.sort_depth_first();
  CHECK(tree.tokens == std::vector<int>{10, 21, 30, 22, 11, 20, 31});
  CHECK(tree.parents == std::vector<int>{-1, 0, 1, 0, -1, 4, 5});
  CHECK(tree.probability[2] == 0.3F);
  CHECK_NOTHROW(ei::models::check_depths(tree.depths(), tree.tokens.size()));
  tree.keep_first(3);
  CHECK(tree.tokens == std::vector<int>{10, 21, 30});
  const auto chain = dec::draft_tree::chain(std::vector<int>{5, 6, 7});
  CHECK(chain.parents == std::vector<int>{-1, 0, 1});
}

TEST_CASE("what pays is the nodes that win most over their price, and what is right is learned by rank") {
  dec::least_chances least;  // two rows cost next to nothing, each further one half a token
  least.set_prices([](int k) { return 0.01 * k + 0.5 * std::max(k - 2, 0); });
  CHECK(least.to_verify(0) == doctest::Approx(0.01));
  CHECK(least.to_verify(2) == doctest::Approx(0.51));
  dec::paying_guesses pays(0);
  pays.expect(least);
  const auto tree_of = [] {
    dec::draft_tree tree;
    for (const auto& [token, parent, p] : {std::tuple{1, -1, 0.9F}, {2, 0, 0.1F}, {3, 0, 0.05F}, {4, -1, 0.3F}})
      tree.add(token, parent, p);
    return tree;
  };
  // Chances by what is assumed at first: 0.94, 0.94 * 0.46, 0.94 * 0.035, 0.21: two rows are cheap.
  auto tree = tree_of();
  pays.propose(tree);
  CHECK(tree.tokens == std::vector<int>{1, 2});
  // The second guess for a place was right, time and again: it now comes in place of what stands behind the first.
  for (int i = 0; i < 100; ++i) {
    tree = tree_of();
    pays.expect({});
    pays.propose(tree);
    CHECK(tree.size() == 4);
    pays.learn(std::vector<int>{0, 4});
  }
  CHECK(pays.chance(1, 0.3F) > 0.9);
  CHECK(pays.chance(0, 0.9F) < 0.1);
  pays.expect(least);
  tree = tree_of();
  pays.propose(tree);
  CHECK(tree.tokens == std::vector<int>{1, 4});
  tree = tree_of();
  pays.propose(tree, true);  // drawn: nothing is dropped
  CHECK(tree.size() == 4);
}

TEST_CASE("tree shapes: from paths, and the best for measured accuracies") {
  const auto shape = dec::tree_shape::from_paths({{0, 0, 1}, {1}, {0}});
  CHECK(shape.parents == std::vector<int>{-1, -1, 0, 2});
  CHECK(shape.ranks == std::vector<int>{0, 1, 0, 1});
  CHECK(shape.depth() == 3);
  CHECK_THROWS_AS(dec::tree_shape::from_paths({{}}), ei::error);
  CHECK_THROWS_AS(dec::tree_shape::from_paths({{0, 64}}), ei::error);

  const std::vector<std::vector<double>> accuracy{{0.6, 0.2, 0.1}, {0.5, 0.25, 0.05}, {0.4, 0.1, 0.01}};
  // All nodes by brute force: the chances of the best n add up to what the greedy construction has.
  std::vector<double> all;
  for (const double a : accuracy[0]) {
    all.push_back(a);
    for (const double b : accuracy[1]) {
      all.push_back(a * b);
      for (const double c : accuracy[2]) all.push_back(a * b * c);
    }
  }
  std::sort(all.rbegin(), all.rend());
  for (const int nodes : {1, 4, 9, 20, 39, 50}) {
    const auto best = dec::tree_shape::from_accuracy(accuracy, nodes);
    REQUIRE(best.size() == std::min(nodes, 39));
    std::vector<double> chance;
    std::vector<std::size_t> depth;
    double sum = 0;
    for (std::size_t i = 0; i < best.ranks.size(); ++i) {
      const int parent = best.parents[i];
      REQUIRE(parent < static_cast<int>(i));
      depth.push_back(parent < 0 ? 0 : depth[static_cast<std::size_t>(parent)] + 1);
      chance.push_back((parent < 0 ? 1.0 : chance[static_cast<std::size_t>(parent)]) *
                       accuracy[depth[i]][static_cast<std::size_t>(best.ranks[i])]);
      sum += chance.back();
    }
    CHECK(sum == doctest::Approx(std::accumulate(all.begin(), all.begin() + best.size(), 0.0)));
  }
}

TEST_CASE("Medusa's tree holds each head's best tokens") {
  std::vector<float> x = some_logits(50, 1);
  const auto second = some_logits(50, 2);
  x.insert(x.end(), second.begin(), second.end());
  const ei::matrix_view<const float> logits(x.data(), 2, 50);
  const auto shape = dec::tree_shape::from_paths({{0, 0}, {0, 2}, {1, 1}, {1, 1, 0}});
  const auto tree = dec::medusa_tree(ei::execution::best_instruction_set(), logits, shape);
  const auto a = best_of(softmax({x.data(), 50}), 3), b = best_of(softmax(second), 3);
  CHECK(tree.tokens == std::vector<int>{a[0], b[0], b[2], a[1], b[1]});  // the third level has no head
  CHECK(tree.parents == std::vector<int>{-1, 0, 0, -1, 3});
}

TEST_CASE("EAGLE's trees are the likeliest nodes, with the drafter's probabilities") {
  for (const std::string kind : {"eagle", "eagle3", "mtp"}) {
    CAPTURE(kind);
    drafting d(kind);
    const int depth = 3, top_k = 3, total = 9;
    const auto tree = dec::grow_dynamic(d.draft(), depth, top_k, total);
    // By hand: levels of three, each grown from the three likeliest of the level before.
    struct node {
      std::vector<int> path;
      double joint;
    };
    std::vector<node> all, level{{{}, 1.0}};
    for (int l = 0; l < depth; ++l) {
      std::vector<node> next;
      for (const node& n : level) {
        const auto p = d.behind(n.path);
        for (const int token : best_of(p, top_k)) {
          next.push_back({n.path, n.joint * p[static_cast<std::size_t>(token)]});
          next.back().path.push_back(token);
        }
      }
      all.insert(all.end(), next.begin(), next.end());
      std::stable_sort(next.begin(), next.end(), [](const node& a, const node& b) { return a.joint > b.joint; });
      next.resize(std::min<std::size_t>(next.size(), top_k));
      level = next;
    }
    std::stable_sort(all.begin(), all.end(), [](const node& a, const node& b) { return a.joint > b.joint; });
    REQUIRE(tree.size() == total);
    std::vector<std::vector<int>> paths;
    for (int i = 0; i < total; ++i) {
      CHECK(tree.parents[static_cast<std::size_t>(i)] < i);
      paths.push_back(path_to(tree, i));
    }
    for (std::size_t i = 0; i < total; ++i) CHECK(std::find(paths.begin(), paths.end(), all[i].path) != paths.end());
    for (int i = 0; i < total; ++i) {
      auto path = paths[static_cast<std::size_t>(i)];
      const int token = path.back();
      path.pop_back();
      CHECK(double{tree.probability[static_cast<std::size_t>(i)]} ==
            doctest::Approx(d.behind(path)[static_cast<std::size_t>(token)]).epsilon(1e-3));
    }

    d.begin();
    const auto shape = dec::tree_shape::from_paths({{0}, {1}, {2}, {0, 0}, {0, 1}, {1, 0}, {0, 0, 0}, {1, 0, 1}});
    const auto fixed = dec::grow_static(d.draft(), shape);
    REQUIRE(fixed.size() == shape.size());
    std::vector<std::vector<int>> expected, got;
    for (int i = 0; i < shape.size(); ++i) {
      std::vector<int> ranks, path;
      for (int n = i; n >= 0; n = shape.parents[static_cast<std::size_t>(n)])
        ranks.insert(ranks.begin(), shape.ranks[static_cast<std::size_t>(n)]);
      for (const int rank : ranks) path.push_back(best_of(d.behind(path), 3)[static_cast<std::size_t>(rank)]);
      expected.push_back(path);
      got.push_back(path_to(fixed, i));
    }
    std::sort(expected.begin(), expected.end());
    std::sort(got.begin(), got.end());
    CHECK(got == expected);
  }
}

}  // namespace draft_tree_tests
