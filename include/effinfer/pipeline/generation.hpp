#pragma once
// A text being generated: a lazy range of pieces. Each step of the iterator runs the model just far enough for the
// next piece that may be shown: whole UTF-8 characters, and nothing that may yet turn out to be a stop string.

#include <effinfer/core/random.hpp>
#include <effinfer/decoding/draft_length.hpp>
#include <effinfer/decoding/draft_tree.hpp>
#include <effinfer/decoding/log_probability.hpp>
#include <effinfer/decoding/policy.hpp>
#include <effinfer/decoding/search.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/decoding/stop.hpp>
#include <effinfer/pipeline/search.hpp>
#include <effinfer/pipeline/session.hpp>
#include <effinfer/text/stream_decoder.hpp>
#include <effinfer/text/tokenizer.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace effinfer::inline v0 {

/// Why a generation ended.
enum class finish_reason {
  running,       ///< it hasn't
  length,        ///< max_tokens were generated
  stop_token,    ///< the model gave an end-of-text token
  stop_text,     ///< a stop string came up; it is not part of the text
  context_full,  ///< the context holds no further token
  cancelled,     ///< the caller asked
};

constexpr std::string_view to_string(finish_reason reason) noexcept {
  switch (reason) {
    case finish_reason::running: return "running";
    case finish_reason::length: return "length";
    case finish_reason::stop_token: return "stop_token";
    case finish_reason::stop_text: return "stop_text";
    case finish_reason::context_full: return "context_full";
    case finish_reason::cancelled: return "cancelled";
  }
  return "unknown";
}

/// What one generation should do. `Decoding` is the pipeline's decoding policy.
template <class Decoding>
struct generate_options {
  int max_tokens = 256;                       ///< at most this many tokens
  std::uint64_t seed = 0;                     ///< the same seed gives the same text, whatever the threads or the batch
  Decoding decoding = {};                     ///< the policy's run-time parameters
  std::vector<std::string> stop = {};         ///< texts that end the generation
  std::vector<int> stop_tokens = {};          ///< tokens that end it, besides the checkpoint's own
  bool ignore_end_of_text = false;            ///< go on behind the checkpoint's end-of-text tokens
  bool add_special_tokens = true;             ///< let the tokenizer put its beginning-of-text token in front
  std::stop_token cancel = {};                ///< ends prefill or generation between two layers
  std::optional<int> log_probabilities = {};  ///< keep each token's log-probability, and those of so many likeliest
};

/// How long it took.
struct generation_statistics {
  int prompt_tokens = 0;
  int generated_tokens = 0;
  int forward_passes = 0;              ///< of the decode phase; fewer than generated_tokens where speculation helped
  int drafted_tokens = 0;              ///< guesses that were verified
  int accepted_tokens = 0;             ///< those of them that stayed
  std::int64_t early_exit_layers = 0;  ///< that the tokens of the decode phase went through, where they may leave early
  double prefill_seconds = 0;
  double decode_seconds = 0;

  [[nodiscard]] double prefill_tokens_per_second() const {
    return prefill_seconds > 0 ? prompt_tokens / prefill_seconds : 0;
  }
  /// The first token comes out of the prefill, so it isn't counted.
  [[nodiscard]] double decode_tokens_per_second() const {
    return decode_seconds > 0 ? (generated_tokens - 1) / decode_seconds : 0;
  }
};

/// The range that `pipeline::generate` returns. Single pass; move-only.
///
/// Exact: the tokens are a pure function of the prompt, the seed, the options and the build; a speculative policy gives the
/// same tokens as its rule alone. A search (decoding/search.hpp) has found its text before the first piece is there.
template <class Decoder, class Decoding>
class generation {
  static constexpr bool searches = decoding::search_policy<Decoding>;
  /// True of a strategy that takes tokens through the model itself, as early_exit does.
  static constexpr bool reads = requires(const Decoding& d, session<Decoder>& s, const std::stop_token& stop, int* n) {
    d.read(s, 0, 0, stop, n);
  };

 public:
  class iterator;
  struct sentinel {};

  /// Reads the prompt at the first `begin()`, not here. `sequence` must outlive this object.
  generation(std::shared_ptr<const text::tokenizer> tokenizer, session<Decoder>& sequence, std::vector<int> prompt,
             generate_options<Decoding> options)
      : tokenizer_(std::move(tokenizer)),
        sequence_(&sequence),
        prompt_(std::move(prompt)),
        options_(std::move(options)),
        decoder_(*tokenizer_),
        stop_(options_.stop),
        scratch_(sequence_->model().execution().set()) {
    validate();
  }
  /// The same on a session of its own.
  generation(std::shared_ptr<const text::tokenizer> tokenizer, session<Decoder>&& sequence, std::vector<int> prompt,
             generate_options<Decoding> options)
      : owned_(std::make_unique<session<Decoder>>(std::move(sequence))),
        tokenizer_(std::move(tokenizer)),
        sequence_(owned_.get()),
        prompt_(std::move(prompt)),
        options_(std::move(options)),
        decoder_(*tokenizer_),
        stop_(options_.stop),
        scratch_(sequence_->model().execution().set()) {
    validate();
  }
  generation(generation&&) noexcept = default;
  generation& operator=(generation&&) noexcept = default;
  generation(const generation&) = delete;
  generation& operator=(const generation&) = delete;

  iterator begin() {
    advance();
    return iterator(this);
  }
  sentinel end() const { return {}; }

  /// Runs to the end and returns the whole text.
  std::string text() {
    std::string all;
    for (const std::string_view piece : *this) all += piece;
    return all;
  }

  [[nodiscard]] finish_reason finished() const { return reason_; }
  /// The ids generated so far; the end-of-text token is not among them.
  [[nodiscard]] std::span<const int> tokens() const { return generated_; }
  /// With options.log_probabilities = n, one for each of `tokens()`: of the model's distribution, before any rule or temperature.
  [[nodiscard]] std::span<const decoding::token_log_probabilities> log_probabilities() const {
    return log_probabilities_;
  }
  [[nodiscard]] const generation_statistics& statistics() const { return statistics_; }
  /// All that a search found, best first; the first is the text. Empty until it has begun.
  [[nodiscard]] std::span<const decoding::hypothesis> hypotheses() const requires searches { return hypotheses_; }

  /// True where no further piece will come.
  [[nodiscard]] bool over() const { return done_ && piece_.empty(); }

 private:
  using clock = std::chrono::steady_clock;

  void validate() {
    if (options_.max_tokens < 0) {
      throw error(error_code::invalid_argument, "generate_options.max_tokens",
                  std::to_string(options_.max_tokens) + " is negative");
    }
    if (options_.log_probabilities && *options_.log_probabilities < 0) {
      throw error(error_code::invalid_argument, "generate_options.log_probabilities",
                  std::to_string(*options_.log_probabilities) + " is negative");
    }
    if (prompt_.empty()) {
      throw error(error_code::invalid_argument, "generate: prompt", "the prompt has no tokens",
                  "give at least one character, or a model with a beginning-of-text token");
    }
    if (static_cast<long long>(prompt_.size()) > sequence_->room()) {
      throw error(error_code::context_overflow, "generate: prompt",
                  std::to_string(prompt_.size()) + " tokens do not fit the " + std::to_string(sequence_->room()) +
                      " left of a context of " + std::to_string(sequence_->context_tokens()),
                  "raise session_options.context_tokens, or choose kv_cache::ring to let the oldest tokens go");
    }
    options_.decoding.validate();
    decoder_.prime(prompt_);  // whether the first piece begins with a space depends on what stands before it
    statistics_.prompt_tokens = static_cast<int>(prompt_.size());
  }

  /// Makes piece_ the next text to show; leaves it empty at the end.
  void advance() {
    piece_.clear();
    while (piece_.empty() && !done_) {
      if (next_pending_ == pending_.size()) {
        if (reason_ != finish_reason::running || !step()) {
          finish_text();
          break;
        }
      }
      take(pending_[next_pending_++]);
    }
  }

  /// One token of the plain sequence: ends the generation, or becomes text.
  void take(int token) {
    if (is_stop(token)) return end(finish_reason::stop_token);
    generated_.push_back(token);
    if (options_.log_probabilities)
      log_probabilities_.push_back(std::move(pending_log_probabilities_[next_pending_ - 1]));
    statistics_.generated_tokens = static_cast<int>(generated_.size());
    piece_ += stop_.push(decoder_.push(token));
    if (stop_.stopped()) return end(finish_reason::stop_text);
    if (static_cast<int>(generated_.size()) >= options_.max_tokens) end(finish_reason::length);
  }

  /// What speculation accepted behind the end is dropped, from the session too: it is left as the plain loop leaves it.
  void end(finish_reason reason) {
    reason_ = reason;
    const int dropped = static_cast<int>(pending_.size() - next_pending_);
    if (dropped > 0) sequence_->rollback(sequence_->position() - dropped);
    next_pending_ = pending_.size();
  }

  void finish_text() {
    if (reason_ != finish_reason::stop_text) {
      piece_ += stop_.push(decoder_.finish());
      if (stop_.stopped()) {
        reason_ = finish_reason::stop_text;
      } else {
        piece_ += stop_.finish();
      }
    }
    done_ = true;
  }

  [[nodiscard]] bool is_stop(int token) const {
    for (const int id : options_.stop_tokens) {
      if (id == token) return true;
    }
    if (options_.ignore_end_of_text) return false;
    for (const int id : sequence_->model().config().eos_ids) {
      if (id == token) return true;
    }
    return false;
  }

  /// Runs the model once and queues the tokens that it gives. False at the end.
  bool step() {
    if (options_.max_tokens == 0) {
      reason_ = finish_reason::length;
      return false;
    }
    const auto begin = clock::now();
    const random_stream random{options_.seed};
    try {
      pending_.clear();
      pending_log_probabilities_.clear();
      next_pending_ = 0;
      if (!started_) {
        const auto logits = read_prompt();
        started_ = true;
        if constexpr (!searches) pending_.push_back(choose(logits, random));
        if constexpr (inner_drafter) show_prompt(random);
        statistics_.prefill_seconds = seconds(begin);
        if constexpr (searches) search(logits);
        return true;
      }
      if constexpr (searches) {  // its text ended without an end
        reason_ = finish_reason::context_full;
        return false;
      }
      if (sequence_->room() < 1) {
        reason_ = finish_reason::context_full;
        return false;
      }
      decode(random);
      statistics_.decode_seconds += seconds(begin);
      ++statistics_.forward_passes;
      return true;
    } catch (const error& e) {
      if (e.code() != error_code::cancelled) throw;
      reason_ = finish_reason::cancelled;
      return false;
    }
  }

  static double seconds(clock::time_point begin) { return std::chrono::duration<double>(clock::now() - begin).count(); }

  int choose(std::span<const float> logits, const random_stream& random) {
    row_.assign(logits.begin(), logits.end());
    const int token = options_.decoding(row_, sequence_->tokens(), random,
                                        static_cast<std::uint64_t>(sequence_->position()), scratch_);
    keep_log_probabilities(logits, token);
    return token;
  }

  void keep_log_probabilities(std::span<const float> logits, int token) {
    if (!options_.log_probabilities) return;
    pending_log_probabilities_.push_back(decoding::find_log_probabilities(logits, token, *options_.log_probabilities));
  }

  std::span<const float> read_prompt() {
    if constexpr (decoding::searches_states<Decoding>) {
      const auto rows = static_cast<std::ptrdiff_t>(prompt_.size());
      const std::ptrdiff_t width = sequence_->model().config().width;
      std::vector<float> raw(static_cast<std::size_t>(rows * width));
      states_.resize(raw.size());
      const typename Decoder::tap tap{sequence_->model().config().layers, {raw.data(), rows, width}};
      const auto logits = sequence_->append(
          prompt_, options_.cancel, 1, [](int, std::span<const float>) {}, std::span(&tap, 1));
      sequence_->model().features(tap.out, {states_.data(), rows, width});
      return logits;
    }
    if constexpr (inner_drafter) {
      const int rows = static_cast<int>(prompt_.size());
      inner_.emplace(options_.decoding.drafter, *sequence_);
      const auto logits = sequence_->append(
          prompt_, options_.cancel, 1, [](int, std::span<const float>) {}, inner_->taps(rows));
      std::vector<int> all(prompt_.size());
      std::iota(all.begin(), all.end(), 0);
      inner_->read(all);
      return logits;
    } else {
      return sequence_->append(prompt_, options_.cancel);
    }
  }

  /// Finds the text, queues all of it, and reads it as the plain loop does: all but its last token.
  void search(std::span<const float> logits) requires searches {
    const auto begin = clock::now();
    const auto& config = sequence_->model().config();
    decoding::search_request request;
    request.prompt = sequence_->tokens();
    request.max_tokens = std::min(options_.max_tokens, longest_search<Decoding>(*sequence_));
    request.seed = options_.seed;
    request.end_tokens =
        static_cast<int>(options_.stop_tokens.size() + (options_.ignore_end_of_text ? 0 : config.eos_ids.size()));
    request.ends = [this](std::span<const int> generated) {
      if (is_stop(generated.back())) return true;
      if (options_.stop.empty()) return false;
      text::stream_decoder decoder = decoder_;
      decoding::stop_matcher stop = stop_;
      for (const int token : generated) (void)stop.push(decoder.push(token));
      return stop.stopped();
    };
    if (request.max_tokens < 1) {
      throw error(error_code::context_overflow, "generate: search", "the context has no room behind the prompt",
                  "raise session_options.context_tokens");
    }
    const matrix_view<const float> states(states_.data(), static_cast<std::ptrdiff_t>(states_.size()) / config.width,
                                          config.width);
    search_outcome outcome = run_search(options_.decoding, *sequence_, logits, states, request, options_.cancel);
    statistics_.forward_passes = outcome.forward_passes;
    hypotheses_ = std::move(outcome.hypotheses);
    if (hypotheses_.empty() || hypotheses_.front().tokens.empty()) {
      throw error(error_code::malformed, "generate: search", "it ended without a text");
    }
    pending_ = hypotheses_.front().tokens;
    keep_log_probabilities(logits, pending_.front());
    if (pending_.size() > 1) {
      const auto read = std::span<const int>(pending_).first(pending_.size() - 1);
      const auto rows = options_.log_probabilities ? static_cast<int>(read.size()) : 1;
      std::size_t next = 1;
      sequence_->append(read, options_.cancel, rows, [&](int, std::span<const float> behind) {
        if (options_.log_probabilities) keep_log_probabilities(behind, pending_[next++]);
      });
    }
    statistics_.decode_seconds = seconds(begin);
  }

  /// Reads the last chosen token (and drafts behind it) and queues what follows.
  void decode(const random_stream& random) {
    const int last = generated_.back();
    if constexpr (decoding::is_speculative<Decoding>) {
      draft(random);
      const auto begin = clock::now();
      if (tree_.size() > 0) {
        verify(random);
      } else {
        read_last(random);
      }
      length_->passed(1 + tree_.size(), seconds(begin));
      return;
    }
    if constexpr (reads) {
      int depth = 0;
      const int step = static_cast<int>(generated_.size());
      pending_.push_back(choose(options_.decoding.read(*sequence_, last, step, options_.cancel, &depth), random));
      statistics_.early_exit_layers += depth;
    } else {
      pending_.push_back(read_and_choose(last, options_.decoding, random));
    }
  }

  /// Reads the token chosen last and chooses the next one, where the logits are if that can be.
  template <class Rule>
  int read_and_choose(int last, const Rule& rule, const random_stream& random) {
    if constexpr (chooses_itself<Decoder, Rule>) {
      if (!options_.log_probabilities) {
        const auto token = sequence_->append_and_choose(last, rule, random, options_.cancel);
        return token ? *token : choose(sequence_->logits(0), random);
      }
    }
    return choose(sequence_->append(std::span(&last, 1), options_.cancel), random);
  }

  /// The drafter reads the prompt and the first token too: part of the prefill.
  void show_prompt(const random_stream& random) {
    if (options_.decoding.max_draft == 0) return;
    history_.assign(sequence_->tokens().begin(), sequence_->tokens().end());
    history_.push_back(pending_.back());
    ask(0, random);
    history_.pop_back();
  }
  /// Guesses behind history_ into tree_, at most `most`.
  void ask(int most, const random_stream& random) {
    tree_.clear();
    if constexpr (requires { inner_->propose(history_, most, tree_, random); }) {
      inner_->propose(history_, most, tree_, random);
    } else {
      inner_->propose(history_, most, tree_);
    }
  }

  /// Fills tree_ with guesses, as many as pay.
  void draft(const random_stream& random) requires decoding::is_speculative<Decoding> {
    const Decoding& policy = options_.decoding;
    const std::span<const int> known = sequence_->tokens();  // history_ is its beginning, with the token chosen last
    history_.insert(history_.end(), known.begin() + static_cast<std::ptrdiff_t>(history_.size()), known.end());
    history_.push_back(generated_.back());
    tree_.clear();
    if (!length_) length_.emplace(policy.max_draft, policy.row_cost);
    double cost = 0;
    if constexpr (requires { inner_->guess_cost(); }) cost = inner_->guess_cost();
    int most = length_->next(cost);
    if constexpr (requires { inner_->expect(length_->least()); }) {
      if (most > 0) inner_->expect(length_->least());
    }
    if constexpr (requires { inner_->chooses(); }) {
      if (most > 0 && length_->pays() && inner_->chooses()) most = policy.max_draft;
    }
    most = std::min({most, sequence_->room() - 1, sequence_->pass_tokens() - 1,
                     options_.max_tokens - static_cast<int>(generated_.size()) - 1});
    if (most < 1) return;
    const auto begin = clock::now();
    if constexpr (inner_drafter) {
      ask(most, random);
    } else {
      tree_ = decoding::draft_tree::chain(policy.drafter.propose(history_, most));
    }
    depths_ = tree_.depths();
    length_->drafted(levels(), seconds(begin));
    if (depths_.empty()) length_->learn(0, 0, 0);
  }
  [[nodiscard]] int levels() const {
    return depths_.empty() ? 0 : 1 + *std::max_element(depths_.begin(), depths_.end());
  }

  /// Reads the last token alone: there are no guesses.
  void read_last(const random_stream& random) {
    const int last = generated_.back(), row = 0;
    if constexpr (inner_drafter) {
      const auto logits = sequence_->append(
          std::span(&last, 1), options_.cancel, 1, [](int, std::span<const float>) {}, inner_->taps(1));
      if constexpr (requires { inner_->row(logits); }) inner_->row(logits);
      inner_->read(std::span(&row, 1));
      pending_.push_back(choose(logits, random));
    } else {
      pending_.push_back(read_and_choose(last, options_.decoding.rule, random));
    }
  }

  /// Reads the last token and the guesses in tree_ in one pass, and keeps what the rule itself would have chosen.
  void verify(const random_stream& random) requires decoding::is_speculative<Decoding> {
    matrix_view<const float> drawn_from;
    if constexpr (requires { inner_->distributions(); }) drawn_from = inner_->distributions();
    decoding::verification walk(options_.decoding.rule, tree_, history_, random, history_.size(), scratch_,
                                options_.decoding.accept, drawn_from);
    run_.assign(1, history_.back());
    run_.insert(run_.end(), tree_.tokens.begin(), tree_.tokens.end());
    const int levels = this->levels();
    for (int& depth : depths_) ++depth;
    depths_.insert(depths_.begin(), 0);
    const auto sink = [&](int row, std::span<const float> logits) {
      if constexpr (requires { inner_->row(logits); }) inner_->row(logits);
      if (row != walk.row()) return;
      row_.assign(logits.begin(), logits.end());
      walk.next(row_);
      keep_log_probabilities(logits, walk.accepted().back());
    };
    if constexpr (inner_drafter) {
      sequence_->append_tree(run_, depths_, options_.cancel, sink, inner_->taps(static_cast<int>(run_.size())));
      inner_->read(walk.rows());
    } else {
      sequence_->append_tree(run_, depths_, options_.cancel, sink);
    }
    pending_.assign(walk.accepted().begin(), walk.accepted().end());
    const int kept = static_cast<int>(pending_.size()) - 1;
    length_->learn(tree_.size(), levels, kept);
    // What follows an end isn't read: a recurrent state couldn't let it go.
    const auto end = std::find_if(pending_.begin(), pending_.end(), [this](int token) { return is_stop(token); });
    if (end != pending_.end()) pending_.erase(end + 1, pending_.end());
    if (!options_.stop.empty()) sequence_->mark();
    sequence_->keep(walk.rows().first(pending_.size()));
    statistics_.drafted_tokens += tree_.size();
    statistics_.accepted_tokens += kept;
  }

  /// What a drafter that looks inside the model keeps; nothing for the others.
  struct no_run {};
  static constexpr bool inner_drafter = decoding::drafts_from_states<Decoding>;
  static auto run_type() {
    if constexpr (inner_drafter) {
      return std::type_identity<typename Decoding::drafter_type::template run<session<Decoder>>>();
    } else {
      return std::type_identity<no_run>();
    }
  }

  std::unique_ptr<session<Decoder>> owned_;
  std::shared_ptr<const text::tokenizer> tokenizer_;
  session<Decoder>* sequence_;
  std::vector<int> prompt_;
  generate_options<Decoding> options_;
  text::stream_decoder decoder_;
  decoding::stop_matcher stop_;
  decoding::workspace scratch_;

  bool started_ = false;
  bool done_ = false;
  finish_reason reason_ = finish_reason::running;
  std::vector<int> generated_;
  std::vector<int> pending_;
  std::vector<decoding::token_log_probabilities> log_probabilities_, pending_log_probabilities_;
  std::size_t next_pending_ = 0;
  std::vector<decoding::hypothesis> hypotheses_;  // of a search
  std::vector<float> states_;                     // of the prompt, for a search that wants them
  std::vector<int> history_;
  decoding::draft_tree tree_;
  std::vector<int> run_, depths_;  // of the pass that verifies tree_
  std::optional<typename decltype(run_type())::type> inner_;
  std::optional<decoding::draft_length> length_;
  std::vector<float> row_;
  std::string piece_;
  generation_statistics statistics_;
};

/// Gives `std::string_view` pieces, each valid until the next step.
template <class Decoder, class Decoding>
class generation<Decoder, Decoding>::iterator {
 public:
  using iterator_concept = std::input_iterator_tag;
  using value_type = std::string_view;
  using difference_type = std::ptrdiff_t;

  iterator() = default;
  explicit iterator(generation* of) : of_(of) {}
  std::string_view operator*() const { return of_->piece_; }
  iterator& operator++() {
    of_->advance();
    return *this;
  }
  void operator++(int) { ++*this; }
  friend bool operator==(const iterator& it, sentinel) { return it.of_->over(); }

 private:
  generation* of_ = nullptr;
};

}  // namespace effinfer::inline v0
