#pragma once
// Token trees that drafters propose, and the shapes that static trees have.

#include <effinfer/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Guesses at what follows the last token, several for one place where they differ. Node i stands behind node parents[i], or behind the last token itself where that is -1;
/// parents come before their children.
struct draft_tree {
  std::vector<int> tokens;
  std::vector<int> parents;
  std::vector<float> probability;  ///< the drafter's, of the token behind its parent

  /// Tokens one behind the other.
  static draft_tree chain(std::span<const int> tokens) {
    draft_tree tree;
    for (const int token : tokens) tree.add(token, tree.size() - 1, 1);
    return tree;
  }

  [[nodiscard]] int size() const { return static_cast<int>(tokens.size()); }
  void add(int token, int parent, float p) {
    tokens.push_back(token);
    parents.push_back(parent);
    probability.push_back(p);
  }
  void clear() {
    tokens.clear();
    parents.clear();
    probability.clear();
  }

  /// Drops all nodes but the first `count`.
  void keep_first(int count) {
    const auto kept = std::min(tokens.size(), static_cast<std::size_t>(std::max(count, 0)));
    tokens.resize(kept);
    parents.resize(kept);
    probability.resize(kept);
  }

  /// How many nodes lead to each.
  [[nodiscard]] std::vector<int> depths() const {
    std::vector<int> all;
    for (const int parent : parents) all.push_back(parent < 0 ? 0 : all[static_cast<std::size_t>(parent)] + 1);
    return all;
  }
  /// Puts the nodes in the order that a pass reads them in (models/token_tree.hpp): each behind its parent or behind the descendants
  /// of a sibling, siblings as they stood.
  void sort_depth_first() {
    const draft_tree old = std::move(*this);
    clear();
    std::vector<int> now(old.tokens.size(), -1), open;  // where each node went; nodes yet to place, the next one last
    const auto place_children = [&](int parent) {
      for (int i = old.size() - 1; i > parent; --i)
        if (old.parents[static_cast<std::size_t>(i)] == parent) open.push_back(i);
    };
    place_children(-1);
    while (!open.empty()) {
      const int node = open.back();
      const auto i = static_cast<std::size_t>(node);
      open.pop_back();
      now[i] = size();
      add(old.tokens[i], old.parents[i] < 0 ? -1 : now[static_cast<std::size_t>(old.parents[i])], old.probability[i]);
      place_children(node);
    }
  }
};

/// The shape of a static tree: node i takes, of the guesses behind node parents[i] (-1: the root), the one of rank ranks[i].
struct tree_shape {
  std::vector<int> parents, ranks;

  [[nodiscard]] int size() const { return static_cast<int>(ranks.size()); }
  /// Levels below the root.
  [[nodiscard]] int depth() const {
    int most = 0;
    std::vector<int> level;
    for (const int parent : parents) {
      level.push_back(parent < 0 ? 1 : level[static_cast<std::size_t>(parent)] + 1);
      most = std::max(most, level.back());
    }
    return most;
  }

  /// From Medusa's own way of writing one: each node as the ranks on the way to it, {{0}, {1}, {0, 0}}. Prefixes may be left out.
  /// Errors: `invalid_argument` (an empty path, a rank outside [0, 64), more than 1024 nodes).
  static tree_shape from_paths(std::vector<std::vector<int>> paths) {
    tree_shape shape;
    std::vector<std::vector<int>> known;
    std::sort(paths.begin(), paths.end(),
              [](const auto& a, const auto& b) { return a.size() != b.size() ? a.size() < b.size() : a < b; });
    const auto find = [&](std::span<const int> path) {
      for (std::size_t i = 0; i < known.size(); ++i) {
        if (std::equal(known[i].begin(), known[i].end(), path.begin(), path.end())) return static_cast<int>(i);
      }
      return -1;
    };
    for (const auto& path : paths) {
      if (path.empty()) throw error(error_code::invalid_argument, "tree_shape: paths", "one of them is empty");
      for (std::size_t n = 1; n <= path.size(); ++n) {
        const std::span<const int> prefix(path.data(), n);
        if (find(prefix) >= 0) continue;
        if (path[n - 1] < 0 || path[n - 1] >= 64 || known.size() == 1024) {
          throw error(error_code::invalid_argument, "tree_shape: paths",
                      known.size() == 1024 ? "they make more than 1024 nodes"
                                           : "rank " + std::to_string(path[n - 1]) + " is not in [0, 64)");
        }
        shape.parents.push_back(find(prefix.first(n - 1)));
        shape.ranks.push_back(path[n - 1]);
        known.emplace_back(prefix.begin(), prefix.end());
      }
    }
    return shape;
  }

  /// The `nodes` nodes likeliest to be right where the guess of rank r at depth d is so with rank_accuracy[d][r], independently, but
  /// none with a chance below `least`: the greedy construction of Medusa (Cai et al. 2024, section 2.3.3). A node's chance is the product along its path, so it
  /// never comes before its parent, and the sum of chances, the tokens won a step, is the greatest of all trees of so many.
  static tree_shape from_accuracy(const std::vector<std::vector<double>>& rank_accuracy, int nodes, double least = 0) {
    struct candidate {
      double chance;
      int parent, depth, rank;
    };
    tree_shape shape;
    std::vector<candidate> open;
    const auto offer = [&](double chance, int parent, int depth, int rank) {
      if (static_cast<std::size_t>(depth) >= rank_accuracy.size()) return;
      const auto& level = rank_accuracy[static_cast<std::size_t>(depth)];
      if (static_cast<std::size_t>(rank) < level.size())
        open.push_back({chance * level[static_cast<std::size_t>(rank)], parent, depth, rank});
    };
    std::vector<double> chances;  // of the nodes
    offer(1.0, -1, 0, 0);
    while (!open.empty() && shape.size() < nodes) {
      const auto best = std::max_element(open.begin(), open.end(),
                                         [](const candidate& a, const candidate& b) { return a.chance < b.chance; });
      const candidate c = *best;
      if (c.chance < least) break;
      open.erase(best);
      const int node = shape.size();
      shape.parents.push_back(c.parent);
      shape.ranks.push_back(c.rank);
      chances.push_back(c.chance);
      offer(c.parent < 0 ? 1.0 : chances[static_cast<std::size_t>(c.parent)], c.parent, c.depth, c.rank + 1);
      offer(c.chance, node, c.depth + 1, 0);
    }
    return shape;
  }
};

}  // namespace effinfer::inline v0::decoding
