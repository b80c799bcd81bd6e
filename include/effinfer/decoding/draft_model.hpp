#pragma once
// A smaller model drafts for a larger one. It reads the text in a session of its own, which keeps step: what was refused is taken
// back, what was kept isn't read again. With a drafter of its own it is verified in turn: a draft of a draft.
// Sources: Leviathan, Kalman, Matias (2023), section 2; Spector and Re, "Accelerating LLM Inference with Staged Speculative
// Decoding" (2023), section 3.2.

#include <effinfer/checkpoint/model_config.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/core/random.hpp>
#include <effinfer/decoding/acceptance.hpp>
#include <effinfer/decoding/drafter.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/state_drafter.hpp>
#include <effinfer/decoding/top_tokens.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Never guesses.
struct no_drafter {
  void validate() const {}
  [[nodiscard]] std::vector<int> propose(std::span<const int> /*history*/, int /*most_tokens*/) const { return {}; }
};

/// Guesses with `Model`, a model<...> that speaks the same tokens; `First` drafts for that one, from the text alone.
///
/// With a temperature the guesses are drawn, for acceptance::rejection, which is told what from; else they are its likeliest.
/// Errors, when a generation starts: `mismatch` (the two vocabularies differ in size).
/// Example: speculative<draft_model<small>>{.drafter = {.model = std::make_shared<const small>(small::load(path))}}
template <class Model, class First = no_drafter>
struct draft_model {
  static_assert(check_drafter<First>::complete);
  static constexpr bool reads_states = true;
  std::shared_ptr<const Model> model = nullptr;
  float least_chance = 0;  ///< no further guess where the chance that all hold is below, even if it paid
  float temperature = 0;   ///< 0: the likeliest token
  int siblings = 1;        ///< guesses for a place; behind the first of them the draft goes on
  bool replaced = false;   ///< several drawn for a place may be equal: for acceptance::k_sequential
  First first = {};        ///< drafts for the smaller model
  int most_first = 4;      ///< tokens at once

  void validate() const {
    if (model == nullptr) {
      throw error(error_code::invalid_argument, "decoding::draft_model.model", "there is none",
                  "std::make_shared<const M>(M::load(path))");
    }
    check_parameter(least_chance >= 0 && least_chance <= 1, "draft_model.least_chance", least_chance, "[0, 1]");
    check_temperature(temperature, "draft_model.temperature");
    check_parameter(siblings >= 1 && siblings <= 64, "draft_model.siblings", siblings, "[1, 64]");
    check_parameter(most_first >= 0 && most_first <= 1024, "draft_model.most_first", most_first, "[0, 1024]");
    first.validate();
  }

  template <class Session>
  class run {
   public:
    using tap = typename Session::decoder_type::tap;
    run(const draft_model& drafter, Session& target)
        : drafter_(drafter),
          session_(drafter.model->start({.context_tokens = target.context_tokens()})),
          pays_(drafter.least_chance),
          cost_(passes(drafter.model->config()) / passes(target.model().config())) {
      const int ours = drafter.model->config().vocabulary_size, its = target.model().config().vocabulary_size;
      if (ours != its) {
        throw error(error_code::mismatch, "decoding::draft_model.model",
                    "its vocabulary has " + std::to_string(ours) + " tokens, that of the model it drafts for " +
                        std::to_string(its));
      }
    }

    std::span<const tap> taps(int /*rows*/) { return {}; }
    void expect(const least_chances& least) { pays_.expect(least); }
    [[nodiscard]] bool chooses() const { return true; }
    void read(std::span<const int> rows) { pays_.learn(rows); }
    /// What a guess costs, in passes of the target: by the products of a token.
    [[nodiscard]] double guess_cost() const { return cost_; }
    /// What the nodes were drawn from, but for further siblings, which come last; no rows where they weren't drawn.
    [[nodiscard]] matrix_view<const float> distributions() const {
      const int v = drafter_.model->config().vocabulary_size;
      return {drawn_from_.data(), static_cast<std::ptrdiff_t>(drawn_from_.size()) / v, v};
    }

    void propose(std::span<const int> history, int most, draft_tree& tree, random_stream random) {
      drawn_from_.clear();
      others_.clear();
      most = std::min(most, follow(history, most));
      pays_.begin();
      bool sure = true;
      std::vector<int>& guesses = tree.tokens;  // a chain at first
      const int longest = drafter_.temperature > 0 ? (most + drafter_.siblings - 1) / drafter_.siblings : most;
      while (tree.size() < longest) {
        std::vector<int> ahead;
        if constexpr (!std::is_same_v<First, no_drafter>) {
          const int guessed = tree.size();
          context_.assign(history.begin(), history.end());
          context_.insert(context_.end(), guesses.begin(), guesses.end());
          ahead = drafter_.first.propose(context_, std::min(drafter_.most_first, longest - guessed - 1));
        }
        const int base = session_.position() + static_cast<int>(unread_.size());
        unread_.insert(unread_.end(), ahead.begin(), ahead.end());
        std::size_t right = 0;
        bool valid = true;
        session_.append(unread_, {}, 1 + static_cast<int>(ahead.size()), [&](int, std::span<const float> logits) {
          if (!valid) return;
          valid = sure = guess(logits, history.size() + guesses.size(), random, tree);
          if (!valid) return;
          valid = right < ahead.size() && ahead[right] == guesses.back();
          right += valid ? 1 : 0;
        });
        if (!sure || !pays_.goes_on()) break;
        session_.rollback(base + static_cast<int>(right));
        unread_.assign(1, guesses.back());
      }
      // Depth first: those beside the last guess of the chain, then those beside the one before.
      for (int parent = tree.size() - 2; parent >= -1; --parent) {
        for (const other& o : others_)
          if (o.parent == parent && tree.size() < most) tree.add(o.token, parent, o.probability);
      }
      pays_.propose(tree, drafter_.temperature > 0);
    }

   private:
    static double passes(const checkpoint::model_config& c) {
      const double w = c.width;
      return c.layers * (2 * w * (c.heads + c.kv_heads) * c.head_size + 3 * w * c.feed_forward_width) +
             w * c.vocabulary_size;
    }

    /// Cuts the session back to what the text kept and sets unread_ to what it lacks, at least the last token. Returns how many
    /// guesses there is room for.
    int follow(std::span<const int> history, int most) {
      const std::span<const int> known = session_.tokens();
      std::span<const int> text = history.subspan(first_);
      std::size_t kept = marked_;  // in front of it nothing has changed since
      while (kept < known.size() && kept + 1 < text.size() && known[kept] == text[kept]) ++kept;
      session_.rollback(static_cast<int>(kept));
      if (session_.room() < static_cast<int>(text.size() - kept) + most) {  // the target slides: begin anew
        const auto half = static_cast<std::size_t>(session_.context_tokens() / 2);
        first_ = history.size() - std::min(history.size(), std::max<std::size_t>(half, 1));
        text = history.subspan(first_);
        session_.truncate(0);
        kept = 0;
      }
      text = text.subspan(kept);
      if (text.size() > 8) {  // else a recurrent state would read them again at each rollback
        session_.append(text.first(text.size() - 1));
        text = text.last(1);
      }
      session_.mark();
      marked_ = static_cast<std::size_t>(session_.position());
      unread_.assign(text.begin(), text.end());
      return session_.room() - static_cast<int>(unread_.size());
    }

    /// Adds the guess behind `logits`, if it should be made. What it is may not decide that: a drawn guess would then come from
    /// another distribution.
    bool guess(std::span<const float> logits, std::uint64_t position, random_stream random, draft_tree& tree) {
      const int parent = tree.size() - 1;
      const double joint = pays_.joint();
      if (drafter_.temperature == 0) {
        best_.resize(std::min(static_cast<std::size_t>(drafter_.siblings), logits.size()));
        top_tokens(drafter_.model->decoder_model().execution().set(), logits, best_);
        if (!pays_.take(best_[0].probability)) return false;
        tree.add(best_[0].id, parent, best_[0].probability);
        for (std::size_t i = 1; i < best_.size(); ++i) {
          const token_probability& t = best_[i];
          if (joint * pays_.chance(static_cast<int>(i), t.probability) < pays_.to_verify()) break;
          others_.push_back({parent, t.id, t.probability});
        }
        return true;
      }
      acceptance::probabilities_of(logits, drafter_.temperature, row_);
      const auto most = static_cast<float>(*std::max_element(row_.begin(), row_.end()));
      if (!pays_.take(most)) return false;
      const std::size_t from = drawn_from_.size();
      drawn_from_.insert(drawn_from_.end(), row_.begin(), row_.end());
      // Of the rounded values, which are what the acceptance is told.
      row_.assign(drawn_from_.begin() + static_cast<std::ptrdiff_t>(from), drawn_from_.end());
      std::uint32_t at = acceptance::draft_draw;
      for (int i = 0; i < drafter_.siblings; ++i, at += acceptance::next_guess) {
        const int token = acceptance::draw(row_, random, position, at);
        if (!(row_[static_cast<std::size_t>(token)] > 0)) break;  // all have been drawn
        if (i == 0) tree.add(token, parent, most);
        if (i > 0) others_.push_back({parent, token, most});
        if (!drafter_.replaced) row_[static_cast<std::size_t>(token)] = 0;
      }
      return true;
    }

    /// A guess beside one of the chain.
    struct other {
      int parent, token;
      float probability;
    };

    draft_model drafter_;
    decltype(std::declval<const Model&>().start()) session_;
    paying_guesses pays_;
    double cost_;
    std::size_t first_ = 0;   // the text's token that is the session's first
    std::size_t marked_ = 0;  // the session's position when it was marked
    std::vector<int> unread_, context_;
    std::vector<other> others_;
    std::vector<token_probability> best_;
    std::vector<double> row_;
    std::vector<float> drawn_from_;
  };
};

/// A draft of a draft: `First` (prompt_lookup, say) drafts for `Model`, and that for the model itself.
///
/// Example: speculative<staged<prompt_lookup<3>, small>>{.drafter = {.model = loaded}}
template <class First, class Model>
using staged = draft_model<Model, First>;

}  // namespace effinfer::inline v0::decoding
