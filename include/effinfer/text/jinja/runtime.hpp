#pragma once
// What one rendering may cost, what it has cost so far, and where it is in the template: a template comes with a checkpoint,
// so from a stranger, and whatever it does ends within these limits. Every error of a rendering leaves through `fail`.

#include <effinfer/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// Bounds on one rendering. The defaults leave room for conversations of many megabytes.
struct limits {
  std::uint64_t steps = 20'000'000;                     ///< statements, expressions, elements and comparisons
  std::uint64_t made_bytes = std::uint64_t{512} << 20;  ///< of all strings, lists and variables made on the way
  std::size_t string_bytes = std::size_t{64} << 20;     ///< of any one string, so of the rendered text too
  int depth = 400;                                      ///< of expressions, blocks and macro calls inside each other
};

/// Values nest no deeper than this: printing, comparing and freeing them recurses.
inline constexpr int most_nested_values = 100;

class object;

/// One rendering in progress.
class runtime {
 public:
  runtime(const std::string& template_name, const limits& bounds) : name_(&template_name), limits_(bounds) {}
  runtime(const runtime&) = delete;
  runtime& operator=(const runtime&) = delete;

  /// The line of the template that is being executed; errors name it.
  int line = 1;

  [[noreturn]] void fail(const std::string& problem, error_code code = error_code::malformed,
                         const std::string& advice = {}) const {
    throw error(code, *name_ + ": line " + std::to_string(line), problem, advice);
  }

  /// Counts work before it is done. Errors: `limit`.
  void step(std::uint64_t count = 1) {
    if (count > limits_.steps - steps_) {
      fail("the template takes more than " + std::to_string(limits_.steps) + " steps", error_code::limit);
    }
    steps_ += count;
  }
  /// Counts bytes that are only looked at. Errors: `limit`.
  void look(std::uint64_t bytes) { step(bytes / 32); }
  /// Counts memory before it is taken. Errors: `limit`.
  void make(std::uint64_t bytes) {
    if (bytes > limits_.made_bytes - made_) {
      fail("the template makes more than " + std::to_string(limits_.made_bytes) + " bytes", error_code::limit);
    }
    made_ += bytes;
  }
  /// The same for one string of this size.
  void make_string(std::uint64_t bytes) {
    check_string(bytes);
    make(bytes);
  }
  /// The same for a string that grows from `bytes` by `more`.
  void grow_string(std::uint64_t bytes, std::uint64_t more) {
    check_string(bytes + more);
    make(more);
  }
  /// For `a` times `b` bytes, which may not fit into 64 bits.
  void make_string(std::uint64_t a, std::uint64_t b) {
    make_string(b != 0 && a > std::numeric_limits<std::uint64_t>::max() / b ? std::numeric_limits<std::uint64_t>::max()
                                                                            : a * b);
  }

  void check_string(std::uint64_t bytes) const {
    if (bytes > limits_.string_bytes) {
      fail("the template makes a string of more than " + std::to_string(limits_.string_bytes) + " bytes",
           error_code::limit);
    }
  }

  /// Something that can refer to itself, which counted references alone would never free: the end of the rendering empties it.
  void keep(std::shared_ptr<object> cyclic) {
    make(64);
    kept_.push_back(std::move(cyclic));
  }
  [[nodiscard]] const std::vector<std::shared_ptr<object>>& kept() const { return kept_; }

  /// One level of recursion, for as long as it lives. Errors: `limit`.
  class level {
   public:
    explicit level(runtime& run) : run_(run) {
      if (run_.depth_ == run_.limits_.depth) {
        run_.fail("expressions, blocks and calls nest deeper than " + std::to_string(run_.limits_.depth),
                  error_code::limit);
      }
      ++run_.depth_;
    }
    ~level() { --run_.depth_; }
    level(const level&) = delete;
    level& operator=(const level&) = delete;

   private:
    runtime& run_;
  };

 private:
  const std::string* name_;
  limits limits_;
  std::uint64_t steps_ = 0;
  std::uint64_t made_ = 0;
  int depth_ = 0;
  std::vector<std::shared_ptr<object>> kept_;
};

}  // namespace effinfer::inline v0::text::jinja
