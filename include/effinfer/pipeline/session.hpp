#pragma once
// One sequence of tokens on a model: the tokens, what the mixers remember of them, and the scratch memory that a
// forward pass needs. The model itself is shared, constant, and used from any number of threads.

#include <effinfer/core/error.hpp>
#include <effinfer/core/random.hpp>
#include <effinfer/models/decoder.hpp>
#include <effinfer/models/exit_maps.hpp>
#include <effinfer/models/token_tree.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <memory_resource>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0 {

/// How much a session holds.
struct session_options {
  int context_tokens = 0;   ///< positions kept; 0: the model's own maximum, but at most 4096
  int prefill_chunk = 256;  ///< tokens a forward pass; more is faster and takes more memory; results don't depend on it
  /// Of the keys, values and states; null: the default resource. Not for a GPU's, which come from the execution policy.
  std::pmr::memory_resource* memory = nullptr;
};

/// True of a decoder that chooses tokens by this rule where its logits lie.
template <class Decoder, class Rule>
concept chooses_itself = requires(const Decoder& d, typename Decoder::workspace& w, const Rule& rule, random_stream r) {
  { d.choose(w, 0, rule, r, std::uint64_t{}) } -> std::same_as<std::optional<int>>;
};

/// A sequence being read and written. Copying it forks it: both go on from the same point, independently.
///
/// One thread at a time may use a session; different sessions of one model may run at the same time.
template <class Decoder>
class session {
 public:
  using decoder_type = Decoder;

  /// Allocates all that the session will ever need. Errors: `invalid_argument` (options out of range).
  session(std::shared_ptr<const Decoder> model, session_options options)
      : model_(std::move(model)),
        options_(checked(model_->config(), options)),
        state_(model_->make_state(options_.context_tokens, options_.prefill_chunk, options_.memory)),
        workspace_(model_->make_workspace(options_.prefill_chunk)) {
    tokens_.reserve(static_cast<std::size_t>(options_.context_tokens));
  }

  /// A fork. Its scratch memory is made when it first reads by itself: in a batch it never needs any.
  session(const session& other)
      : model_(other.model_),
        options_(other.options_),
        state_(other.state_),
        tokens_(other.tokens_),
        marked_(other.marked_) {}
  session& operator=(const session& other) {
    if (this != &other) *this = session(other);
    return *this;
  }
  session(session&&) noexcept = default;
  session& operator=(session&&) noexcept = default;
  ~session() = default;

  /// The options with defaults filled in. Errors: `invalid_argument`.
  static session_options checked(const checkpoint::model_config& config, session_options options) {
    if (options.context_tokens < 0 || options.context_tokens > (1 << 24)) {
      throw error(error_code::invalid_argument, "session_options.context_tokens",
                  std::to_string(options.context_tokens) + " is not in [0, 16777216]");
    }
    if (options.prefill_chunk < 1 || options.prefill_chunk > 8192) {
      throw error(error_code::invalid_argument, "session_options.prefill_chunk",
                  std::to_string(options.prefill_chunk) + " is not in [1, 8192]");
    }
    if (options.memory == nullptr) options.memory = std::pmr::get_default_resource();
    if (options.context_tokens == 0) options.context_tokens = std::min(config.max_positions, 4096);
    options.prefill_chunk = std::min(options.prefill_chunk, options.context_tokens);
    return options;
  }

  [[nodiscard]] const Decoder& model() const { return *model_; }
  /// The tokens so far, oldest first.
  [[nodiscard]] std::span<const int> tokens() const { return tokens_; }
  /// How many tokens there are; the next one gets this position.
  [[nodiscard]] int position() const { return static_cast<int>(tokens_.size()); }
  /// The most tokens this session holds; a sliding one (ring cache, recurrent state) holds any number.
  [[nodiscard]] int context_tokens() const { return options_.context_tokens; }
  /// The most tokens of a tree.
  [[nodiscard]] int pass_tokens() const { return std::min(options_.prefill_chunk, Decoder::tree_tokens); }
  /// How many more tokens fit.
  [[nodiscard]] int room() const {
    return Decoder::slides ? (1 << 30) - position() : options_.context_tokens - position();
  }

  /// Reads `tokens` and returns the logits [V] behind the last of them, valid until the next call.
  ///
  /// Errors: `invalid_argument` (no tokens, or an id outside the vocabulary), `context_overflow` (more than `room()`), both before
  /// anything changes; `cancelled` (asked through `stop`), with the session cut back to where it was.
  std::span<const float> append(std::span<const int> tokens, const std::stop_token& stop = {}) {
    return append(tokens, stop, 1, [](int, std::span<const float>) {});
  }

  /// The same, and calls `sink(position, logits[V])` for each of the last `rows` tokens in order: the logits
  /// behind the token at `position`. `taps` (models/decoder.hpp) take the states behind some layers: the last out.rows tokens'.
  template <class Sink>
  std::span<const float> append(std::span<const int> tokens, const std::stop_token& stop, int rows, Sink&& sink,
                                std::span<const typename Decoder::tap> taps = {}) {
    return read(tokens, stop, rows, std::forward<Sink>(sink), taps, false);
  }

  /// The same for a prompt, which is read once and in bulk: integer weights may then compute in bf16 instead of 8 bits (a CPU with AMX:
  /// some times as fast, and nearer to f32), and softmax attention in pairs of bf16 (within 2^-15 of each product in f32; see
  /// attention::attend). Where they do, the logits are not `append`'s bit for bit. A prompt's chunks may
  /// be any: they are the whole bit for bit.
  template <class Sink>
  std::span<const float> prefill(std::span<const int> tokens, const std::stop_token& stop, int rows, Sink&& sink,
                                 std::span<const typename Decoder::tap> taps = {}) {
    return read(tokens, stop, rows, std::forward<Sink>(sink), taps, true);
  }
  std::span<const float> prefill(std::span<const int> tokens, const std::stop_token& stop = {}) {
    return prefill(tokens, stop, 1, [](int, std::span<const float>) {});
  }

  /// Reads a tree of guesses (models/token_tree.hpp) in one pass, each token as if only those that lead to it had been read, and calls
  /// `sink(row, logits[V])` for each in order. The session stays as it is until `keep` says which of them count; any other call
  /// drops them all.
  ///
  /// Shapes: tokens, depths [T], T at most `pass_tokens()`; taps as for append. Exact: the logits of a token are bit for bit
  /// those of its path read by itself. Errors: those of append, `invalid_argument` (depths, or more tokens than a chunk).
  template <class Sink>
  void append_tree(std::span<const int> tokens, std::span<const int> depths, const std::stop_token& stop, Sink&& sink,
                   std::span<const typename Decoder::tap> taps = {}) {
    models::check_depths(depths, tokens.size());
    check(tokens, depths.empty() ? 0 : static_cast<std::size_t>(*std::max_element(depths.begin(), depths.end())) + 1);
    const int total = static_cast<int>(tokens.size());
    if (total > pass_tokens()) {
      throw error(error_code::invalid_argument, "session.append_tree",
                  std::to_string(total) + " tokens are more than the " + std::to_string(pass_tokens()) + " of a pass",
                  "raise session_options.prefill_chunk");
    }
    for (const typename Decoder::tap& t : taps) check(t, total);
    tree_tokens_.assign(tokens.begin(), tokens.end());
    tree_depths_.assign(depths.begin(), depths.end());
    tree_position_ = position();
    const auto& c = model_->config();
    const std::ptrdiff_t rows = model_->kept_rows(depths), columns = std::ptrdiff_t{2} * c.kv_heads * c.head_size;
    if (const auto size = static_cast<std::size_t>(rows * columns); tree_kept_.size() < size) tree_kept_.resize(size);
    typename Decoder::item item{&state_, tokens, position(), position() + total, total, depths};
    item.kept = {tree_kept_.data(), rows, columns};
    if (!model_->forward(std::span(&item, 1), scratch(), stop, taps)) {
      tree_position_ = -1;
      throw error(error_code::cancelled, "session.append_tree", "stopped by the caller");
    }
    for (int row = 0; row < total; row += Decoder::logit_rows) {
      const matrix_view<float> some = model_->logits(scratch(), row, std::min(Decoder::logit_rows, total - row));
      for (std::ptrdiff_t r = 0; r < some.rows; ++r)
        sink(row + static_cast<int>(r), std::span<const float>(some.row(r), static_cast<std::size_t>(some.columns)));
    }
  }

  /// The tokens `path` of the tree just read, each the next one's parent, from one of depth 0 on, become the session's next ones.
  /// Exact: as if they alone had been read. Cost: no product. Errors: `invalid_argument` (no tree was just read, or no such path).
  void keep(std::span<const int> path) {
    if (tree_position_ != position() || !models::is_path(tree_depths_, path)) {
      throw error(error_code::invalid_argument, "session.keep",
                  tree_position_ != position() ? "append_tree wasn't the last call" : "this is no path of the tree");
    }
    const auto& c = model_->config();
    const matrix_view<const float> kept(tree_kept_.data(), model_->kept_rows(tree_depths_),
                                        std::ptrdiff_t{2} * c.kv_heads * c.head_size);
    model_->keep(state_, kept, static_cast<int>(tree_tokens_.size()), path);
    for (const int row : path) tokens_.push_back(tree_tokens_[static_cast<std::size_t>(row)]);
    tree_position_ = -1;
  }

  /// Reads one token and returns the token that `rule` chooses behind it, where the model can choose without handing out its logits:
  /// on a GPU, for decoding::greedy and sample. Nothing, where it can't after all; `logits(0)` are then those to choose from.
  ///
  /// Exact: what the rule chooses from the logits of `append`. Errors: as append.
  template <class Rule>
  std::optional<int> append_and_choose(int token, const Rule& rule, const random_stream& random,
                                       const std::stop_token& stop = {}) requires chooses_itself<Decoder, Rule> {
    const std::span<const int> tokens(&token, 1);
    check(tokens);
    tree_position_ = -1;
    const typename Decoder::item item{&state_, tokens, position(), position() + 1, 1};
    if (!model_->forward(std::span(&item, 1), scratch(), stop)) {
      throw error(error_code::cancelled, "session.append_and_choose", "stopped by the caller");
    }
    tokens_.push_back(token);
    return model_->choose(scratch(), 0, rule, random, static_cast<std::uint64_t>(position()));
  }

  /// Reads one token, and asks behind each of the layers in `exits` (rising, each below the model's layers) whether to leave:
  /// `leaves(layers, logits)` with the logits that `maps` (models/exit_maps.hpp) gives there. Where it says so the deeper layers
  /// get the keys and values of the state as it is (hidden-state propagation), and these logits are the token's. `depth`, if
  /// not null, is set to the layers that the token went through.
  ///
  /// Exact: where it never leaves, bit for bit what `append` does. Errors: as append.
  template <class Leaves>
  std::span<const float> append_until(int token, const models::exit_maps& maps, std::span<const int> exits,
                                      Leaves&& leaves, const std::stop_token& stop = {}, int* depth = nullptr) {
    const std::span<const int> tokens(&token, 1);
    check(tokens);
    tree_position_ = -1;
    const typename Decoder::item item{&state_, tokens, position(), position() + 1, 1};
    const std::span<const typename Decoder::item> items(&item, 1);
    const int layers = model_->config().layers;
    std::span<const float> logits;
    int done = 0;
    bool left = false;
    for (const int exit : exits) {
      if (exit <= done || exit >= layers) {
        throw error(error_code::invalid_argument, "session.append_until: exits",
                    std::to_string(exit) + " doesn't rise inside " + std::to_string(layers) + " layers");
      }
      done = exit;
    }
    done = 0;
    model_->embed(items, scratch());
    const auto run_to = [&](int last) {
      if (!model_->run_layers(items, scratch(), done, last, stop)) {
        truncate(position());
        throw error(error_code::cancelled, "session.append_until", "stopped by the caller");
      }
      done = last;
    };
    for (const int exit : exits) {
      run_to(exit);
      logits = this->logits(maps, exit, 0);
      if ((left = leaves(exit, logits))) break;
    }
    if (left) {
      model_->fill_layers(items, scratch(), done, layers);
    } else {
      run_to(layers);
      logits = model_->logits(scratch(), 0);
    }
    if (depth != nullptr) *depth = done;
    model_->commit(items);
    tokens_.push_back(token);
    return logits;
  }

  /// Reads `tokens` (at most a prefill chunk) through the layers of `ranges` only, as [first, last) pairs that rise: with these as
  /// a model of its own it drafts for the whole one. Returns the states behind the last of them, [T, E], valid until the next
  /// call. With `fill` the layers left out get the keys and values of the states that went past them; without it they
  /// lack these tokens, and the session must be cut back to where it was before it reads through them.
  ///
  /// Exact: with all layers what `append` does. Errors: as append.
  matrix_view<const float> append_through(std::span<const int> tokens, std::span<const std::pair<int, int>> ranges,
                                          bool fill = false) {
    check(tokens);
    if (static_cast<int>(tokens.size()) > options_.prefill_chunk) {
      throw error(error_code::invalid_argument, "session.append_through",
                  std::to_string(tokens.size()) +
                      " tokens are more than prefill_chunk = " + std::to_string(options_.prefill_chunk));
    }
    tree_position_ = -1;
    const int count = static_cast<int>(tokens.size()), layers = model_->config().layers;
    int done = 0;
    for (const auto& [first, last] : ranges) {
      if (first < done || last < first || last > layers) {
        throw error(error_code::invalid_argument, "session.append_through: ranges",
                    "[" + std::to_string(first) + ", " + std::to_string(last) + ") doesn't rise inside " +
                        std::to_string(layers) + " layers");
      }
      done = last;
    }
    const typename Decoder::item item{&state_, tokens, position(), position() + count};
    const std::span<const typename Decoder::item> items(&item, 1);
    model_->embed(items, scratch());
    done = 0;
    for (const auto& [first, last] : ranges) {
      if (fill) model_->fill_layers(items, scratch(), done, first);
      model_->run_layers(items, scratch(), first, last);
      done = last;
    }
    if (fill) model_->fill_layers(items, scratch(), done, layers);
    model_->commit(items);
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    return model_->states(scratch(), 0, count);
  }
  /// Logits [V] of row `row` of the states that `append_through` returned, by way of the model's final norm and output head.
  std::span<const float> logits(int row) { return model_->logits(scratch(), row); }
  /// The same by way of the map that `maps` has behind `layers` layers, if it has one.
  std::span<const float> logits(const models::exit_maps& maps, int layers, int row) {
    const models::linear_layer* map = maps.behind(layers);
    if (map == nullptr) return logits(row);
    const matrix_view<float> out = model_->logits(scratch(), *map, row, 1);
    return {out.data, static_cast<std::size_t>(out.columns)};
  }

  /// Forgets all tokens from `position` on. Cost: nothing for a cache that still holds what is left; where it
  /// doesn't (a ring that has moved on, a recurrent state), the tokens left are read again.
  /// Errors: `invalid_argument` (a position outside [0, position()]).
  void truncate(int position) {
    if (position < 0 || position > this->position()) {
      throw error(error_code::invalid_argument, "session.truncate",
                  std::to_string(position) + " is not in [0, " + std::to_string(this->position()) + "]");
    }
    if (state_.truncate(position)) {
      tokens_.resize(static_cast<std::size_t>(position));
      return;
    }
    const std::vector<int> kept(tokens_.begin(), tokens_.begin() + position);
    state_.clear();
    tokens_.clear();
    if (!kept.empty()) append(kept);
  }

  /// Remembers this point so that `rollback` can come back to it cheaply also where `truncate` can't: a recurrent state
  /// is copied; a cache needs nothing.
  void mark() {
    marked_ = position();
    state_.mark();
  }

  /// `truncate(position)` for a position at or behind the marked one; a recurrent state goes back to its copy and reads
  /// again only the tokens since.
  void rollback(int position) {
    if (position == this->position()) return;
    if (position < marked_ || !state_.rollback()) return truncate(position);
    const std::vector<int> kept(tokens_.begin() + marked_, tokens_.begin() + position);
    tokens_.resize(static_cast<std::size_t>(marked_));
    if (!kept.empty()) append(kept);
  }

  /// A copy that goes on independently.
  [[nodiscard]] session fork() const { return *this; }

  /// Becomes a copy of `other`, a session of the same model and options. Cost: where a cache is, what is copied are only the
  /// positions behind the tokens that both begin with. Errors: `invalid_argument` (another model, or other options).
  void become(const session& other) {
    if (&other == this) return;
    if (other.model_ != model_ || other.options_.context_tokens != options_.context_tokens ||
        other.options_.prefill_chunk != options_.prefill_chunk) {
      throw error(error_code::invalid_argument, "session.become",
                  "the other session has another model or other options");
    }
    const auto differs = std::mismatch(tokens_.begin(), tokens_.end(), other.tokens_.begin(), other.tokens_.end());
    const auto common = differs.first - tokens_.begin();
    state_.become(other.state_, static_cast<int>(common));
    tokens_.assign(other.tokens_.begin(), other.tokens_.end());
    marked_ = std::numeric_limits<int>::max();  // a mark is not copied
    tree_position_ = -1;
  }

  /// The session as bytes: tokens and what is remembered. Valid for the same model, policies and library version.
  [[nodiscard]] std::vector<std::byte> save() const {
    std::vector<std::byte> bytes;
    const header h{magic, static_cast<std::uint32_t>(options_.context_tokens),
                   static_cast<std::uint64_t>(tokens_.size()), model_->fingerprint()};
    put(bytes, &h, sizeof h);
    put(bytes, tokens_.data(), tokens_.size() * sizeof(int));
    state_.save(bytes);
    return bytes;
  }

  /// Becomes the session that `save` wrote. Errors: `malformed` (not such bytes, or cut short), `mismatch` (another model, or
  /// another context size); the session is then unchanged.
  void restore(std::span<const std::byte> bytes) {
    header h{};
    if (bytes.size() < sizeof h)
      throw error(error_code::malformed, "session.restore", "the bytes end inside the header");
    std::memcpy(&h, bytes.data(), sizeof h);
    if (h.magic != magic) throw error(error_code::malformed, "session.restore", "these bytes are not a saved session");
    if (h.fingerprint != model_->fingerprint()) {
      throw error(error_code::mismatch, "session.restore", "the bytes were saved with another model or other policies");
    }
    if (static_cast<int>(h.context_tokens) != options_.context_tokens) {
      throw error(error_code::mismatch, "session.restore",
                  "saved with context_tokens = " + std::to_string(h.context_tokens) + ", this session has " +
                      std::to_string(options_.context_tokens));
    }
    bytes = bytes.subspan(sizeof h);
    if (h.tokens > bytes.size() / sizeof(int)) {
      throw error(error_code::malformed, "session.restore", "the bytes end inside the tokens");
    }
    std::vector<int> tokens(static_cast<std::size_t>(h.tokens));
    std::memcpy(tokens.data(), bytes.data(), tokens.size() * sizeof(int));
    auto state = model_->make_state(options_.context_tokens, options_.prefill_chunk, options_.memory);
    state.load(bytes.subspan(tokens.size() * sizeof(int)), static_cast<int>(tokens.size()));
    for (const int id : tokens) {
      if (id < 0 || id >= model_->config().vocabulary_size) {
        throw error(error_code::malformed, "session.restore",
                    "token " + std::to_string(id) + " is outside the vocabulary");
      }
    }
    state_ = std::move(state);
    tokens_ = std::move(tokens);
    tree_position_ = -1;
  }

 private:
  template <class>
  friend class batch;

  static constexpr std::uint32_t magic = 0x31534645;  // "EFS1"
  struct header {
    std::uint32_t magic;
    std::uint32_t context_tokens;
    std::uint64_t tokens;
    std::uint64_t fingerprint;
  };

  static void put(std::vector<std::byte>& out, const void* data, std::size_t size) {
    const auto* first = static_cast<const std::byte*>(data);
    out.insert(out.end(), first, first + size);
  }

  template <class Sink>
  std::span<const float> read(std::span<const int> tokens, const std::stop_token& stop, int rows, Sink&& sink,
                              std::span<const typename Decoder::tap> taps, bool prompt) {
    check(tokens);
    tree_position_ = -1;
    const int start = position();
    const int total = static_cast<int>(tokens.size());
    for (const typename Decoder::tap& t : taps) check(t, total);
    std::span<const float> logits;
    std::vector<typename Decoder::tap> here(taps.begin(), taps.end());
    for (int done = 0; done < total;) {
      const int count = std::min(total - done, options_.prefill_chunk);
      const int first_wanted = std::max(0, total - std::max(rows, 1) - done);
      typename Decoder::item item{&state_,
                                  tokens.subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(count)),
                                  position(), start + total, std::max(0, count - first_wanted)};
      if constexpr (requires { item.prompt; }) item.prompt = prompt;
      for (std::size_t i = 0; i < taps.size(); ++i) {  // row r of a tap is of token total - rows + r
        const std::ptrdiff_t before = total - taps[i].out.rows;
        const std::ptrdiff_t first = std::max<std::ptrdiff_t>(done - before, 0);
        here[i].out = taps[i].out.middle_rows(first, std::max<std::ptrdiff_t>(done + count - before - first, 0));
      }
      if (!model_->forward(std::span(&item, 1), scratch(), stop, here)) {
        truncate(start);
        throw error(error_code::cancelled, "session.append", "stopped by the caller");
      }
      tokens_.insert(tokens_.end(), item.tokens.begin(), item.tokens.end());
      for (int row = first_wanted; row < count; row += Decoder::logit_rows) {
        const matrix_view<float> some = model_->logits(scratch(), row, std::min(Decoder::logit_rows, count - row));
        for (std::ptrdiff_t r = 0; r < some.rows; ++r) {
          logits = {some.row(r), static_cast<std::size_t>(some.columns)};
          sink(start + done + row + static_cast<int>(r), logits);
        }
      }
      done += count;
    }
    return logits;
  }

  typename Decoder::workspace& scratch() {
    if (workspace_.tokens() == 0) workspace_ = model_->make_workspace(options_.prefill_chunk);
    return workspace_;
  }

  void check(const typename Decoder::tap& t, int tokens) const {
    if (t.layers < 0 || t.layers > model_->config().layers || t.out.rows > tokens ||
        t.out.columns != model_->config().width) {
      throw error(error_code::invalid_argument, "session.append: taps",
                  "behind " + std::to_string(t.layers) + " layers, [" + std::to_string(t.out.rows) + ", " +
                      std::to_string(t.out.columns) + "] for " + std::to_string(tokens) + " tokens of a model with " +
                      std::to_string(model_->config().layers) + " layers of width " +
                      std::to_string(model_->config().width));
    }
  }

  void check(std::span<const int> tokens) const { check(tokens, tokens.size()); }
  /// The same for tokens that take up so many positions.
  void check(std::span<const int> tokens, std::size_t positions) const {
    if (tokens.empty()) throw error(error_code::invalid_argument, "session.append", "there are no tokens to read");
    for (const int id : tokens) {
      if (id < 0 || id >= model_->config().vocabulary_size) {
        throw error(
            error_code::invalid_argument, "session.append",
            "token " + std::to_string(id) + " is not in [0, " + std::to_string(model_->config().vocabulary_size) + ")");
      }
    }
    if (static_cast<long long>(positions) > room()) {
      throw error(error_code::context_overflow, "session.append",
                  std::to_string(position()) + " + " + std::to_string(positions) + " tokens do not fit a context of " +
                      std::to_string(options_.context_tokens),
                  "raise session_options.context_tokens, or choose kv_cache::ring to let the oldest tokens go");
    }
  }

  std::shared_ptr<const Decoder> model_;
  session_options options_;
  typename Decoder::state state_;
  typename Decoder::workspace workspace_;  // empty in a fork that hasn't read by itself yet
  std::vector<int> tokens_;
  int marked_ = 0;
  std::vector<int> tree_tokens_, tree_depths_;  // of append_tree, for keep
  std::vector<float> tree_kept_;
  int tree_position_ = -1;  // the position that the tree stands behind; -1 where there is none
};

/// Several sessions of one model, read one token each in a single pass: every weight is read once for all of them. Each
/// session's logits are bit for bit those that it would get alone.
template <class Decoder>
class batch {
 public:
  /// Room for `max_sessions` sessions a step. Errors: `invalid_argument`.
  batch(std::shared_ptr<const Decoder> model, int max_sessions)
      : model_(std::move(model)), max_sessions_(max_sessions) {
    if (max_sessions < 1 || max_sessions > 8192) {
      throw error(error_code::invalid_argument, "batch.max_sessions",
                  std::to_string(max_sessions) + " is not in [1, 8192]");
    }
    workspace_ = model_->make_workspace(max_sessions);
    logits_.resize(static_cast<std::size_t>(max_sessions) * static_cast<std::size_t>(model_->config().vocabulary_size));
  }

  /// The same for sessions of the model of `like`.
  batch(const session<Decoder>& like, int max_sessions) : batch(like.model_, max_sessions) {}

  /// Appends tokens[i] to *sessions[i]. Returns the logits, one row a session, valid until the next step.
  ///
  /// Shapes: sessions [N], tokens [N] -> [N, V]; N <= max_sessions; no session twice. `taps` (models/decoder.hpp) take the states
  /// behind some layers, the last out.rows sessions'. Errors: as session::append.
  matrix_view<const float> step(std::span<session<Decoder>* const> sessions, std::span<const int> tokens,
                                std::span<const typename Decoder::tap> taps = {}) {
    if (sessions.size() != tokens.size() || sessions.empty() || static_cast<int>(sessions.size()) > max_sessions_) {
      throw error(error_code::invalid_argument, "batch.step",
                  std::to_string(sessions.size()) + " sessions and " + std::to_string(tokens.size()) +
                      " tokens: both must be the same number in [1, " + std::to_string(max_sessions_) + "]");
    }
    std::vector<typename Decoder::item> items;
    items.reserve(sessions.size());
    for (std::size_t i = 0; i < sessions.size(); ++i) {
      sessions[i]->check(tokens.subspan(i, 1));
      for (std::size_t j = 0; j < i; ++j) {
        if (sessions[j] == sessions[i]) {
          throw error(error_code::invalid_argument, "batch.step",
                      "session " + std::to_string(i) + " stands in the batch twice");
        }
      }
      items.push_back(
          {&sessions[i]->state_, tokens.subspan(i, 1), sessions[i]->position(), sessions[i]->position() + 1, 1});
    }
    for (const typename Decoder::tap& t : taps) sessions[0]->check(t, static_cast<int>(sessions.size()));
    model_->forward(items, workspace_, {}, taps);
    const auto n = static_cast<std::ptrdiff_t>(sessions.size());
    const matrix_view<float> out(logits_.data(), n, model_->config().vocabulary_size);
    model_->logits(workspace_, 0, out);
    for (std::size_t i = 0; i < sessions.size(); ++i) sessions[i]->tokens_.push_back(tokens[i]);
    return out;
  }

 private:
  std::shared_ptr<const Decoder> model_;
  int max_sessions_;
  typename Decoder::workspace workspace_;
  std::vector<float> logits_;
};

}  // namespace effinfer::inline v0
