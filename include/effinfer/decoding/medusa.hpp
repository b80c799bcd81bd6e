#pragma once
// Drafts from Medusa heads (models/medusa_heads.hpp): all guesses come from the last token's feature at once.

#include <effinfer/decoding/draft_tree.hpp>
#include <effinfer/decoding/state_drafter.hpp>
#include <effinfer/decoding/top_tokens.hpp>
#include <effinfer/models/medusa_heads.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace effinfer::inline v0::decoding {

/// The tree of `shape` over the heads' guesses: a node at depth d of rank r is head d's r-th best token, whatever stands in front of
/// it. Shapes: logits [heads, V]. Nodes deeper than there are heads are left out. Source: Cai et al. (2024), section 2.1.2.
inline draft_tree medusa_tree(execution::instruction_set set, matrix_view<const float> logits,
                              const tree_shape& shape) {
  std::vector<std::vector<token_probability>> best;
  const int ranks = shape.ranks.empty() ? 0 : *std::max_element(shape.ranks.begin(), shape.ranks.end()) + 1;
  for (std::ptrdiff_t i = 0; i < logits.rows; ++i) {
    best.emplace_back(static_cast<std::size_t>(std::min<std::ptrdiff_t>(ranks, logits.columns)));
    top_tokens(set, {logits.row(i), static_cast<std::size_t>(logits.columns)}, best.back());
  }
  draft_tree tree;
  std::vector<int> depth, in_tree;
  for (std::size_t i = 0; i < shape.ranks.size(); ++i) {
    const int parent = shape.parents[i];
    const int d = parent < 0 ? 0 : depth[static_cast<std::size_t>(parent)] + 1;
    const int above = parent < 0 ? -1 : in_tree[static_cast<std::size_t>(parent)];
    depth.push_back(d);
    const auto level = static_cast<std::size_t>(d), rank = static_cast<std::size_t>(shape.ranks[i]);
    const bool is_there = level < best.size() && rank < best[level].size() && (parent < 0 || above >= 0);
    in_tree.push_back(is_there ? tree.size() : -1);
    if (is_there) tree.add(best[level][rank].id, above, best[level][rank].probability);
  }
  return tree;
}

/// Each head's best tokens, as a tree: of a given shape, or of the nodes likeliest to be right by what the heads say.
///
/// Example: speculative<medusa>{.drafter = {.heads = heads}}
struct medusa {
  static constexpr bool reads_states = true;
  std::shared_ptr<const models::medusa_heads> heads;
  float least_chance = 0;  ///< no further guess where the chance that all hold is below, even if it paid
  int branches = 4;        ///< guesses for a place at most; 1: a chain
  tree_shape shape = {};   ///< Medusa's static tree; of none the likeliest nodes are taken, and such as pay

  void validate() const {
    check_parameter(branches >= 1 && branches <= 64, "medusa.branches", branches, "[1, 64]");
    if (heads == nullptr) {
      throw error(error_code::invalid_argument, "decoding::medusa.heads", "there are none",
                  "std::make_shared<const models::medusa_heads>(models::medusa_heads::load(folder, llm.config(), "
                  "llm.decoder_model().host()))");
    }
    check_parameter(least_chance >= 0 && least_chance <= 1, "medusa.least_chance", least_chance, "[0, 1]");
  }

  template <class Session>
  class run {
   public:
    using tap = typename Session::decoder_type::tap;
    run(const medusa& drafter, Session& session)
        : heads_(drafter.heads),
          branches_(drafter.branches),
          shape_(drafter.shape),
          session_(&session),
          pays_(drafter.least_chance) {}

    std::span<const tap> taps(int rows) {
      const int e = session_->model().config().width;
      states_.resize(static_cast<std::size_t>(rows) * static_cast<std::size_t>(e));
      tap_ = {session_->model().config().layers, {states_.data(), rows, e}};
      return {&tap_, 1};
    }
    void expect(const least_chances& least) { pays_.expect(least); }
    [[nodiscard]] bool chooses() const { return true; }
    void read(std::span<const int> rows) {
      last_ = rows.back();
      pays_.learn(rows);
    }
    void propose(std::span<const int> /*history*/, int most, draft_tree& tree) {
      if (most < 1) return;
      const auto& model = session_->model();
      const auto row = tap_.out.middle_rows(last_, 1);
      model.features(row, row);
      const auto logits = heads_->guess(model.host(), row, workspace_);
      const auto set = model.execution().set();
      if (shape_.size() == 0) {
        std::vector<std::vector<double>> chances;
        std::vector<token_probability> best(
            static_cast<std::size_t>(std::min<std::ptrdiff_t>(branches_, logits.columns)));
        for (std::ptrdiff_t i = 0; i < logits.rows; ++i) {
          top_tokens(set, {logits.row(i), static_cast<std::size_t>(logits.columns)}, best);
          chances.emplace_back();
          for (const token_probability& t : best)
            chances.back().push_back(pays_.chance(static_cast<int>(chances.back().size()), t.probability));
        }
        tree = medusa_tree(set, logits, tree_shape::from_accuracy(chances, most, pays_.to_verify()));
      } else {
        tree = medusa_tree(set, logits, shape_);
        tree.keep_first(most);
      }
      tree.sort_depth_first();
      pays_.propose(tree);
    }

   private:
    std::shared_ptr<const models::medusa_heads> heads_;
    int branches_;
    tree_shape shape_;
    Session* session_;
    paying_guesses pays_;
    int last_ = 0;
    std::vector<float> states_;
    tap tap_{};
    models::medusa_heads::workspace workspace_;
  };
};

static_assert(state_drafter<medusa>);

}  // namespace effinfer::inline v0::decoding
