#pragma once
// Regular expressions: PCRE2 with its just-in-time compiler, over UTF-8 that has been checked already. A compiled
// pattern is immutable and shared among threads; what a match needs to write belongs to a `regex_search`, one a call.

#include <effinfer/core/error.hpp>
#include <effinfer/text/regex_syntax.hpp>

#if !defined(PCRE2_CODE_UNIT_WIDTH)
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>
#if PCRE2_MAJOR == 10 && PCRE2_MINOR < 40
#error "effinfer's tokenizers need PCRE2 10.40 or later: older ones don't know the property White_Space"
#endif

#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace effinfer::inline v0::text {

/// A compiled pattern in Oniguruma's syntax (that of tokenizer.json; see regex_syntax.hpp).
class regex {
 public:
  /// Errors, at `where`: unsupported for a pattern that can't be compiled here; limit for one over 32 KiB.
  regex(std::string_view pattern, std::string where) : where_(std::move(where)) {
    if (pattern.size() > max_pattern_bytes) {
      throw error(error_code::limit, where_, "the pattern has " + std::to_string(pattern.size()) + " bytes",
                  "at most " + std::to_string(max_pattern_bytes));
    }
    if (find_invalid_utf8(pattern) != std::string_view::npos) {
      throw error(error_code::malformed, where_, "the pattern isn't UTF-8");
    }
    const std::string text = regex_translation(pattern, where_).text();
    const std::unique_ptr<pcre2_compile_context_8, context_deleter> context(pcre2_compile_context_create_8(nullptr));
    if (!context) throw std::bad_alloc();
    pcre2_set_newline_8(context.get(), PCRE2_NEWLINE_LF);
    int code = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code_8* compiled = pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(text.data()), text.size(),
                                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code,
                                             &offset, context.get());
    if (!compiled) {
      throw error(
          error_code::unsupported, where_,
          "PCRE2 does not take the pattern: " + message(code) + " at byte " + std::to_string(offset) + " of " + text);
    }
    code_.reset(compiled, pcre2_code_free_8);
    pcre2_jit_compile_8(compiled, PCRE2_JIT_COMPLETE);  // where there is no JIT, matching falls back to the interpreter
  }

  [[nodiscard]] const pcre2_code_8* code() const { return code_.get(); }
  [[nodiscard]] const std::string& where() const { return where_; }

  static std::string message(int code) {
    unsigned char text[160] = {};
    pcre2_get_error_message_8(code, text, sizeof text);
    return reinterpret_cast<const char*>(text);
  }

 private:
  static constexpr std::size_t max_pattern_bytes = 32 * 1024;
  struct context_deleter {
    void operator()(pcre2_compile_context_8* p) const { pcre2_compile_context_free_8(p); }
  };
  std::string where_;
  std::shared_ptr<pcre2_code_8> code_;
};

/// Half-open byte range.
struct text_range {
  std::size_t begin, end;
};

/// Searches with one pattern; holds the memory that matching writes to. Belongs to one thread at a time.
class regex_search {
 public:
  explicit regex_search(const regex& pattern)
      : pattern_(&pattern),
        data_(pcre2_match_data_create_from_pattern_8(pattern.code(), nullptr)),
        context_(pcre2_match_context_create_8(nullptr)) {
    if (!data_ || !context_) throw std::bad_alloc();
    // Enough for a run of some million characters, and an end to patterns that try everything.
    pcre2_set_match_limit_8(context_.get(), 10'000'000);
    pcre2_set_depth_limit_8(context_.get(), 1'000'000);
    pcre2_set_heap_limit_8(context_.get(), 256 * 1024);
  }

  /// The leftmost match at or after byte `from` of well-formed `subject`.
  /// Errors: limit for a match that takes too many steps or too much memory.
  std::optional<text_range> find(std::string_view subject, std::size_t from) {
    int result = match(subject, from);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT && !stack_) {
      // Compiled code runs on 32 KiB of the caller's stack, which serves nearly every pattern; this one needs more.
      stack_.reset(pcre2_jit_stack_create_8(32 * 1024, 64 * 1024 * 1024, nullptr));
      if (!stack_) throw std::bad_alloc();
      pcre2_jit_stack_assign_8(context_.get(), nullptr, stack_.get());
      result = match(subject, from);
    }
    if (result == PCRE2_ERROR_NOMATCH) return std::nullopt;
    if (result < 0) {
      throw error(error_code::limit, pattern_->where(), "matching the pattern failed: " + regex::message(result),
                  "the pattern takes too many steps on this text");
    }
    const PCRE2_SIZE* found = pcre2_get_ovector_pointer_8(data_.get());
    // \K can move a match's begin beyond its end; Oniguruma's patterns have none.
    return text_range{found[0], found[1]};
  }

  /// Calls `use(range, is_match)` for all matches and the text between them, in order, as Oniguruma's iterator finds
  /// them: an empty match right after a match is passed over. Nothing for an empty subject.
  template <class Use>
  void for_each(std::string_view subject, Use&& use) {
    std::size_t covered = 0;
    std::size_t from = 0;
    std::size_t last_match_end = std::string_view::npos;
    while (from <= subject.size() && !subject.empty()) {
      const std::optional<text_range> found = find(subject, from);
      if (!found) break;
      if (found->begin == found->end && found->end == last_match_end) {
        from = found->end;
        from += from < subject.size() ? static_cast<std::size_t>(utf8_length(subject[from])) : 1;
        continue;
      }
      from = last_match_end = found->end;
      if (covered != found->begin) use(text_range{covered, found->begin}, false);
      use(*found, true);
      covered = found->end;
    }
    if (covered != subject.size()) use(text_range{covered, subject.size()}, false);
  }

 private:
  int match(std::string_view subject, std::size_t from) {
    return pcre2_match_8(pattern_->code(), reinterpret_cast<PCRE2_SPTR8>(subject.data()), subject.size(), from,
                         PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
  }

  struct deleter {
    void operator()(pcre2_match_data_8* p) const { pcre2_match_data_free_8(p); }
    void operator()(pcre2_match_context_8* p) const { pcre2_match_context_free_8(p); }
    void operator()(pcre2_jit_stack_8* p) const { pcre2_jit_stack_free_8(p); }
  };
  const regex* pattern_;
  std::unique_ptr<pcre2_match_data_8, deleter> data_;
  std::unique_ptr<pcre2_match_context_8, deleter> context_;
  std::unique_ptr<pcre2_jit_stack_8, deleter> stack_;
};

}  // namespace effinfer::inline v0::text
