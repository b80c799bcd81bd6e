#pragma once
// How tokens become text again. A decoder is a chain of steps, and a tokenizer.json says which (field "decoder").
// There is one implementation for whole sequences and for streams: token texts run through the chain one by one, and
// each step hands on what can no longer change.

#include <effinfer/text/byte_level.hpp>
#include <effinfer/text/regex.hpp>
#include <effinfer/text/utf8.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace effinfer::inline v0::text {

namespace decoders {

/// Reads token texts in the byte alphabet; a text with another character in it stands for its own bytes.
struct byte_level {};
/// Reads <0x00> to <0xFF> as bytes; a run of them is one text, in which each broken byte becomes U+FFFD. (Hugging
/// Face's decoder gives up the whole run for one broken byte; here the whole characters in it are kept.)
struct byte_fallback {};
/// Makes one text of all that follow.
struct fuse {};
/// Replaces each occurrence of a non-empty text.
struct replace_text {
  std::string pattern, content;
};
/// Replaces each match. After `fuse` it can hand nothing on before the end.
struct replace_regex {
  regex pattern;
  std::string content;
};
/// Drops up to `start` of a character from the beginning of each text, and up to `stop` from its end.
struct strip {
  char32_t content;
  std::size_t start, stop;
};
/// Replaces `replacement` by a space, or in the first text, unless `keeps_first`, by nothing.
struct metaspace {
  std::string replacement;
  bool keeps_first;
};
/// Puts a space between texts (what Hugging Face does where there is no decoder).
struct join_by_space {};

}  // namespace decoders

using decoder_step =
    std::variant<decoders::byte_level, decoders::byte_fallback, decoders::fuse, decoders::replace_text,
                 decoders::replace_regex, decoders::strip, decoders::metaspace, decoders::join_by_space>;

/// The byte that a text of the form <0xAB> stands for.
inline std::optional<char> byte_of_fallback(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = 16 * value + digit;
  }
  return static_cast<char>(static_cast<unsigned char>(value));
}

/// The steps in order. Immutable once built.
struct decoder {
  std::vector<decoder_step> steps;

  /// The bytes that a token adds in the middle of a text, before they are put together to characters. `is_literal`
  /// texts stand for themselves. Strips and what happens at the first token are left out.
  [[nodiscard]] std::string bytes_of(std::string_view token, bool is_literal) const {
    std::string bytes(token);
    if (is_literal) return bytes;
    for (const decoder_step& step : steps) {
      if (std::holds_alternative<decoders::byte_level>(step)) {
        if (auto read = bytes_of_byte_level(token)) return *read;
      } else if (std::holds_alternative<decoders::byte_fallback>(step)) {
        if (const auto byte = byte_of_fallback(bytes)) return std::string(1, *byte);
      } else if (const auto* r = std::get_if<decoders::replace_text>(&step)) {
        replace_all(bytes, r->pattern, r->content);
      } else if (const auto* m = std::get_if<decoders::metaspace>(&step)) {
        replace_all(bytes, m->replacement, " ");
      }
    }
    return bytes;
  }

  static void replace_all(std::string& text, std::string_view pattern, std::string_view content) {
    for (std::size_t at = 0; (at = text.find(pattern, at)) != std::string::npos; at += content.size()) {
      text.replace(at, pattern.size(), content);
    }
  }
};

/// One run through the chain. Belongs to one thread; holds a reference to the decoder.
///
/// A stream is a sequence of texts (at first: token texts). A step takes a text in parts, by `take`, and learns of its
/// end by `end_text`; what it hands on goes to the next step in the same way, and after the last step to the output.
class decoding {
 public:
  explicit decoding(const decoder& chain) : chain_(&chain), states_(chain.steps.size()) {}

  /// Appends to `out` what the next token makes certain. `is_literal`: its text stands for itself, whatever it holds.
  void push(std::string_view token, bool is_literal, std::string& out) {
    out_ = &out;
    is_literal_ = is_literal;
    take(0, token);
    end_text(0);
  }
  /// Appends the rest.
  void finish(std::string& out) {
    out_ = &out;
    for (std::size_t i = 0; i < states_.size(); ++i) finish_step(i);
  }

 private:
  struct state {
    std::string held;        // what came but was not handed on yet
    utf8_assembler bytes;    // byte_level, byte_fallback
    std::size_t texts = 0;   // texts begun before this one
    std::size_t cut = 0;     // strip: characters dropped from the beginning of this text
    bool is_open = false;    // byte_fallback, fuse: a text was handed on whose end was not
    bool is_inside = false;  // strip: past the beginning of the text
  };

  void take(std::size_t i, std::string_view text) {
    if (i == chain_->steps.size()) {
      out_->append(text);
      return;
    }
    state& s = states_[i];
    std::visit([&](const auto& step) { take_step(step, s, i, text); }, chain_->steps[i]);
  }
  void end_text(std::size_t i) {
    if (i == chain_->steps.size()) return;
    state& s = states_[i];
    std::visit([&](const auto& step) { end_step(step, s, i); }, chain_->steps[i]);
    ++s.texts;
  }
  void finish_step(std::size_t i) {
    state& s = states_[i];
    const decoder_step& step = chain_->steps[i];
    if (std::holds_alternative<decoders::byte_level>(step) || std::holds_alternative<decoders::byte_fallback>(step)) {
      close_bytes(s, i);
    } else if (std::holds_alternative<decoders::fuse>(step) && s.is_open) {
      s.is_open = false;
      end_text(i + 1);
    }
  }

  void take_step(const decoders::byte_level&, state& s, std::size_t, std::string_view text) { s.held.append(text); }
  void end_step(const decoders::byte_level&, state& s, std::size_t i) {
    const std::optional<std::string> bytes = is_literal_ ? std::nullopt : bytes_of_byte_level(s.held);
    push_bytes(s, i, bytes ? *bytes : s.held);
    s.held.clear();
  }

  void take_step(const decoders::byte_fallback&, state& s, std::size_t, std::string_view text) { s.held.append(text); }
  void end_step(const decoders::byte_fallback&, state& s, std::size_t i) {
    const std::optional<char> byte = is_literal_ ? std::nullopt : byte_of_fallback(s.held);
    if (byte) {
      push_bytes(s, i, {&*byte, 1});
    } else {
      close_bytes(s, i);
      take(i + 1, s.held);
      end_text(i + 1);
    }
    s.held.clear();
  }

  void push_bytes(state& s, std::size_t i, std::string_view bytes) {
    if (!s.is_open) {
      const bool is_fallback = std::holds_alternative<decoders::byte_fallback>(chain_->steps[i]);
      s.bytes = utf8_assembler(is_fallback ? broken_bytes::one_a_byte : broken_bytes::one_a_subpart);
      s.is_open = true;
    }
    std::string whole;
    s.bytes.push(bytes, whole);
    if (!whole.empty()) take(i + 1, whole);
  }
  void close_bytes(state& s, std::size_t i) {
    if (!s.is_open) return;
    std::string rest;
    s.bytes.finish(rest);
    if (!rest.empty()) take(i + 1, rest);
    s.is_open = false;
    end_text(i + 1);
  }

  void take_step(const decoders::fuse&, state& s, std::size_t i, std::string_view text) {
    s.is_open = true;
    take(i + 1, text);
  }
  void end_step(const decoders::fuse&, state&, std::size_t) {}

  void take_step(const decoders::replace_text& step, state& s, std::size_t i, std::string_view text) {
    s.held.append(text);
    std::string done;
    std::size_t covered = 0;
    for (std::size_t found; (found = s.held.find(step.pattern, covered)) != std::string::npos;) {
      done.append(s.held, covered, found - covered).append(step.content);
      covered = found + step.pattern.size();
    }
    // The end may be the beginning of an occurrence, if more comes.
    std::size_t kept = std::min(step.pattern.size() - 1, s.held.size() - covered);
    while (kept > 0 && !std::string_view(s.held).ends_with(std::string_view(step.pattern).substr(0, kept))) --kept;
    done.append(s.held, covered, s.held.size() - kept - covered);
    s.held.erase(0, s.held.size() - kept);
    if (!done.empty()) take(i + 1, done);
  }
  void end_step(const decoders::replace_text&, state& s, std::size_t i) { hand_on_held(s, i); }

  void take_step(const decoders::replace_regex&, state& s, std::size_t, std::string_view text) { s.held.append(text); }
  void end_step(const decoders::replace_regex& step, state& s, std::size_t i) {
    std::string done;
    regex_search(step.pattern).for_each(s.held, [&](text_range range, bool is_match) {
      done.append(is_match ? std::string_view(step.content)
                           : std::string_view(s.held).substr(range.begin, range.end - range.begin));
    });
    s.held = std::move(done);
    hand_on_held(s, i);
  }

  void take_step(const decoders::strip& step, state& s, std::size_t i, std::string_view text) {
    while (!s.is_inside && !text.empty()) {
      const code_point c = first_code_point(text);
      if (s.cut == step.start || c.value != step.content) {
        s.is_inside = true;
      } else {
        ++s.cut;
        text.remove_prefix(static_cast<std::size_t>(c.length));
      }
    }
    if (text.empty()) return;
    if (step.stop == 0) return take(i + 1, text);
    // Up to `stop` characters at the end may have to go: they wait.
    s.held.append(text);
    const std::size_t kept = s.held.size() - bytes_to_strip(s.held, step);
    const std::string done = s.held.substr(0, kept);
    s.held.erase(0, kept);
    if (!done.empty()) take(i + 1, done);
  }
  void end_step(const decoders::strip& step, state& s, std::size_t i) {
    s.held.resize(s.held.size() - bytes_to_strip(s.held, step));
    hand_on_held(s, i);
    s.cut = 0;
    s.is_inside = false;
  }
  static std::size_t bytes_to_strip(std::string_view text, const decoders::strip& step) {
    const std::size_t before = text.size();
    for (std::size_t n = 0; n < step.stop && !text.empty(); ++n) {
      const code_point c = last_code_point(text);
      if (c.value != step.content) break;
      text.remove_suffix(static_cast<std::size_t>(c.length));
    }
    return before - text.size();
  }

  void take_step(const decoders::metaspace& step, state& s, std::size_t i, std::string_view text) {
    std::string done;
    for (std::size_t at = 0; at < text.size();) {
      const auto length = static_cast<std::size_t>(utf8_length(text[at]));
      if (text.substr(at, length) != step.replacement) {
        done.append(text.substr(at, length));
      } else if (s.texts > 0 || step.keeps_first) {
        done.push_back(' ');
      }
      at += length;
    }
    if (!done.empty()) take(i + 1, done);
  }
  void end_step(const decoders::metaspace&, state&, std::size_t i) { end_text(i + 1); }

  void take_step(const decoders::join_by_space&, state& s, std::size_t i, std::string_view text) {
    if (s.texts > 0 && !s.is_inside) take(i + 1, " ");
    s.is_inside = true;
    take(i + 1, text);
  }
  void end_step(const decoders::join_by_space& step, state& s, std::size_t i) {
    if (!s.is_inside) take_step(step, s, i, {});
    s.is_inside = false;
    end_text(i + 1);
  }

  void hand_on_held(state& s, std::size_t i) {
    if (!s.held.empty()) take(i + 1, s.held);
    s.held.clear();
    end_text(i + 1);
  }

  const decoder* chain_;
  std::vector<state> states_;
  std::string* out_ = nullptr;
  bool is_literal_ = false;
};

}  // namespace effinfer::inline v0::text
