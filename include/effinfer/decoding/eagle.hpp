#pragma once
// Drafts from a model's features: EAGLE, EAGLE-3, and DeepSeek-V3's multi-token prediction used again and again. The network is
// models/feature_drafter.hpp; this file says which guesses are made of it.

#include <effinfer/decoding/draft_tree.hpp>
#include <effinfer/decoding/state_drafter.hpp>
#include <effinfer/decoding/top_tokens.hpp>
#include <effinfer/models/feature_drafter.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding {

/// What growing a draft needs besides the network: the model's weights, where it runs, and the sequence's state behind `advance`.
struct feature_draft {
  const models::feature_drafter& network;
  models::feature_drafter::state& state;
  const models::decoder_weights& target;
  const execution::cpu::context& exec;
};

namespace detail {
/// The `count` best guesses behind the i-th node that was added last, with the model's token ids.
inline std::vector<token_probability> best_guesses(const feature_draft& d, int i, int count) {
  std::vector<token_probability> best(static_cast<std::size_t>(std::min(count, d.network.vocabulary_size())));
  top_tokens(d.exec.set(), d.state.logits(i), best);
  for (token_probability& t : best) t.id = d.network.token(t.id);
  return best;
}
}  // namespace detail

/// A tree of a given shape. Source: Li et al., "EAGLE" (2024), section 4.1.
/// `Formats`: as feature_drafter::expand has them.
/// Errors: `invalid_argument` (nodes with children above feature_drafter::most_nodes - 1).
template <class Formats = quantization::all_formats>
draft_tree grow_static(const feature_draft& d, const tree_shape& shape) {
  const auto count = static_cast<std::size_t>(shape.size());
  std::vector<int> asked(count + 1, 0);  // guesses wanted behind each node; entry 0 is the root's, i + 1 node i's
  std::vector<int> inner(count + 1, 0);  // its number in the network's draft
  std::vector<int> in_tree(count, -1);   // its number in the tree
  const auto entry = [](int node) { return static_cast<std::size_t>(node) + 1; };
  for (std::size_t i = 0; i < count; ++i) {
    int& most = asked[entry(shape.parents[i])];
    most = std::max(most, shape.ranks[i] + 1);
  }
  draft_tree tree;
  std::vector<int> level{-1};  // nodes that the network was asked about last, in its order
  while (!level.empty()) {     // a level with children is one pass
    std::vector<int> next, tokens, parents;
    for (std::size_t l = 0; l < level.size(); ++l) {
      const auto best = detail::best_guesses(d, static_cast<int>(l), asked[entry(level[l])]);
      for (std::size_t i = 0; i < count; ++i) {
        if (shape.parents[i] != level[l] || shape.ranks[i] >= static_cast<int>(best.size())) continue;
        const token_probability& t = best[static_cast<std::size_t>(shape.ranks[i])];
        in_tree[i] = tree.size();
        tree.add(t.id, level[l] < 0 ? -1 : in_tree[static_cast<std::size_t>(level[l])], t.probability);
        if (asked[i + 1] == 0) continue;
        inner[i + 1] = d.state.nodes() + static_cast<int>(next.size());
        next.push_back(static_cast<int>(i));
        tokens.push_back(t.id);
        parents.push_back(inner[entry(level[l])]);
      }
    }
    if (!next.empty()) d.network.expand<Formats>(d.state, d.target, d.exec, tokens, parents);
    level = std::move(next);
  }
  return tree;
}

/// A tree that grows where the drafter is sure: at each of `depth` levels the `top_k` likeliest of the nodes just made (by the
/// product of probabilities along the path) get `top_k` children each, and of all nodes made the `total` likeliest stay.
///
/// With `pays` a node's likelihood is its chance to be right as learned so far, and only what is worth its cost is made: another level
/// while the nodes that it goes on from are worth one together, and nodes that are worth a row.
///
/// Source: Li et al., "EAGLE-2" (2024), sections 4.1 (expansion) and 4.2 (reranking).
/// `Formats`: as feature_drafter::expand has them.
/// Errors: `invalid_argument` ((depth - 1) * top_k at or above feature_drafter::most_nodes).
template <class Formats = quantization::all_formats>
draft_tree grow_dynamic(const feature_draft& d, int depth, int top_k, int total, const paying_guesses* pays = nullptr) {
  struct candidate {
    int token, parent, inner;  // parent: a candidate, or -1; inner: the parent's number in the network's draft
    float probability;
    double joint;
  };
  std::vector<candidate> all;
  std::vector<std::size_t> frontier;
  const auto likeliest = [&](std::vector<std::size_t> some,
                             int count) {  // a parent is as likely as its children, and earlier
    std::stable_sort(some.begin(), some.end(),
                     [&](std::size_t a, std::size_t b) { return all[a].joint > all[b].joint; });
    some.resize(std::min(some.size(), static_cast<std::size_t>(std::max(count, 0))));
    return some;
  };
  const double worth = pays == nullptr ? 0 : pays->to_verify();
  const auto offer = [&](int row, int parent, int inner, double joint) {
    int rank = 0;
    for (const token_probability& t : detail::best_guesses(d, row, top_k)) {
      const double own = pays == nullptr ? static_cast<double>(t.probability) : pays->chance(rank++, t.probability);
      if (joint * own < worth) continue;
      frontier.push_back(all.size());
      all.push_back({t.id, parent, inner, t.probability, joint * own});
    }
  };
  if (depth > 0) offer(0, -1, 0, 1.0);
  for (int level = 1; level < depth; ++level) {
    std::vector<std::size_t> chosen = likeliest(std::exchange(frontier, {}), top_k);
    if (pays != nullptr) {
      double together = 0;
      int likelier = 0;  // nodes that a child would stand behind
      std::erase_if(chosen, [&](std::size_t c) {
        likelier = static_cast<int>(
            std::count_if(all.begin(), all.end(), [&](const candidate& o) { return o.joint >= all[c].joint; }));
        const bool dear = all[c].joint < pays->to_verify(likelier);
        together += dear ? 0 : all[c].joint;
        return dear;
      });
      if (together < pays->to_guess(likelier)) break;
    }
    if (chosen.empty()) break;
    std::vector<int> tokens, parents;
    for (const std::size_t c : chosen) {
      tokens.push_back(all[c].token);
      parents.push_back(all[c].inner);
    }
    const int first = d.state.nodes();
    d.network.expand<Formats>(d.state, d.target, d.exec, tokens, parents);
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const int row = static_cast<int>(i);
      offer(row, static_cast<int>(chosen[i]), first + row, all[chosen[i]].joint);
    }
  }
  std::vector<std::size_t> order(all.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  order = likeliest(std::move(order), total);
  std::sort(order.begin(), order.end());
  std::vector<int> in_tree(all.size(), -1);
  draft_tree tree;
  for (const std::size_t c : order) {
    const int parent = all[c].parent;
    in_tree[c] = tree.size();
    tree.add(all[c].token, parent < 0 ? -1 : in_tree[static_cast<std::size_t>(parent)], all[c].probability);
  }
  return tree;
}

/// Guesses with a feature_drafter (EAGLE, EAGLE-3, MTP): a tree that grows where it is sure.
///
/// Example: speculative<eagle>{.drafter = {.network = network}, .max_draft = 6}
struct eagle {
  static constexpr bool reads_states = true;
  std::shared_ptr<const models::feature_drafter> network;
  float least_chance = 0;  ///< no further guess where the chance that all hold is below, even if it paid
  int branches = 4;        ///< guesses for a place, and nodes of a level that are gone on from, at most; 1: a chain
  int depth = 8;           ///< levels at most
  tree_shape shape = {};   ///< EAGLE's static tree; of none the tree grows where the drafter is sure
  int most_unread = 8;     ///< after a longer pause the drafter reads only so many of the tokens that it missed

  void validate() const {
    check_parameter(branches >= 1 && branches <= 64, "eagle.branches", branches, "[1, 64]");
    check_parameter(depth >= 1 && (depth - 1) * branches < models::feature_drafter::most_nodes, "eagle.depth", depth,
                    "[1, 63 / branches + 1]");
    check_parameter(most_unread >= 1, "eagle.most_unread", most_unread, "[1, 2147483647]");
    if (network == nullptr) {
      throw error(error_code::invalid_argument, "decoding::eagle.network", "there is none",
                  "std::make_shared<const models::feature_drafter>(models::feature_drafter::load(folder, llm.config(), "
                  "llm.decoder_model().host()))");
    }
    check_parameter(least_chance >= 0 && least_chance <= 1, "eagle.least_chance", least_chance, "[0, 1]");
  }

  template <class Session>
  class run {
   public:
    using tap = typename Session::decoder_type::tap;
    run(const eagle& drafter, Session& session)
        : network_(drafter.network),
          branches_(drafter.branches),
          depth_(drafter.depth),
          most_unread_(drafter.most_unread),
          shape_(drafter.shape),
          session_(&session),
          capacity_(session.context_tokens()),
          state_(network_->make_state(capacity_)),
          pays_(drafter.least_chance) {}

    std::span<const tap> taps(int rows) {
      const auto width = static_cast<std::size_t>(network_->states_width());
      const auto size = (static_cast<std::size_t>(unread_) + static_cast<std::size_t>(rows)) * width;
      if (states_.size() < size) states_.resize(size);
      taps_.clear();
      const std::ptrdiff_t e = session_->model().config().width, stride = network_->states_width();
      float* const first = states_.data() + unread_ * stride;
      for (const int layer : network_->feature_layers())
        taps_.push_back({layer, {first + static_cast<std::ptrdiff_t>(taps_.size()) * e, rows, e, stride}});
      return taps_;
    }
    void expect(const least_chances& least) { pays_.expect(least); }
    [[nodiscard]] bool chooses() const { return true; }
    void read(std::span<const int> rows) {
      const std::ptrdiff_t width = network_->states_width();
      float* to = states_.data() + unread_ * width;
      for (std::size_t i = 0; i < rows.size(); ++i, to += width)  // rows rise: none is written before it is read
        if (rows[i] != static_cast<int>(i)) std::copy_n(to + (rows[i] - static_cast<int>(i)) * width, width, to);
      unread_ += static_cast<int>(rows.size());
      pays_.learn(rows);
      if (state_.length() == 0 || unread_ <= 2 * most_unread_) return;
      std::copy_n(states_.data() + (unread_ - most_unread_) * width, most_unread_ * width, states_.data());
      unread_ = most_unread_;
    }
    [[nodiscard]] double guess_cost() const { return 1.0 / session_->model().config().layers; }  // a layer of its kind
    void propose(std::span<const int> history, int most, draft_tree& tree) {
      const auto& model = session_->model();
      const feature_draft d{*network_, state_, model.weights(), model.host()};
      if (state_.length() + unread_ > capacity_) state_.truncate(0);  // a sliding session: the drafter begins anew
      const auto fresh = static_cast<std::size_t>(unread_);
      if (fresh > 0) {  // none behind the call that reads the prompt
        network_->advance(state_, d.target, d.exec, history.last(fresh),
                          {states_.data(), unread_, network_->states_width()});
      }
      unread_ = 0;
      if (most < 1) return;
      if (shape_.size() == 0) {
        tree = grow_dynamic(d, std::min(depth_, most), branches_, most, &pays_);
      } else {
        tree = grow_static(d, shape_);
        tree.keep_first(most);
      }
      tree.sort_depth_first();
      pays_.propose(tree);
    }

   private:
    std::shared_ptr<const models::feature_drafter> network_;
    int branches_, depth_, most_unread_;
    tree_shape shape_;
    Session* session_;
    int capacity_;
    models::feature_drafter::state state_;
    paying_guesses pays_;
    int unread_ = 0;             // rows of states_ that the drafter hasn't read
    std::vector<float> states_;  // [unread_ and the next pass's, states_width()]
    std::vector<tap> taps_;
  };
};

static_assert(state_drafter<eagle>);

}  // namespace effinfer::inline v0::decoding
