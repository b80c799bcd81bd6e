#pragma once
// What the parser of expressions and the parser of statements stand on: the tokens with a place in them, limits on nesting,
// errors that name the line, and the making of tree nodes.

#include <effinfer/text/jinja/lexer.hpp>
#include <effinfer/text/jinja/syntax.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// What a source may be: brackets and blocks this deep, expressions of operators this deep (`a + b + c` is 2 deep).
inline constexpr int most_nested_syntax = 100;
inline constexpr int deepest_expression = 300;

/// Errors: `malformed` with the line, `limit`.
class parser_base {
 protected:
  parser_base(std::vector<token> tokens, std::string name) : tokens_(std::move(tokens)), name_(std::move(name)) {}
  ~parser_base() = default;

  /// One level of recursion.
  class level {
   public:
    explicit level(parser_base& parser) : parser_(parser) {
      if (++parser_.depth_ > most_nested_syntax) {
        --parser_.depth_;
        parser_.fail("blocks and brackets nest deeper than " + std::to_string(most_nested_syntax), error_code::limit);
      }
    }
    ~level() { --parser_.depth_; }
    level(const level&) = delete;
    level& operator=(const level&) = delete;

   private:
    parser_base& parser_;
  };

  // Tokens.

  [[nodiscard]] const token& current() const { return tokens_[at_]; }
  [[nodiscard]] const token& following() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  token take() {
    token t = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return t;
  }
  [[nodiscard]] bool is_sign(std::string_view s) const {
    return current().kind == token_kind::sign && current().text == s;
  }
  [[nodiscard]] bool is_name(std::string_view s) const {
    return current().kind == token_kind::name && current().text == s;
  }
  bool skip_sign(std::string_view s) {
    if (!is_sign(s)) return false;
    take();
    return true;
  }
  bool skip_name(std::string_view s) {
    if (!is_name(s)) return false;
    take();
    return true;
  }
  [[noreturn]] void fail(const std::string& problem, error_code code = error_code::malformed) const {
    fail_at(current().line, problem, code);
  }
  [[noreturn]] void fail_at(int line, const std::string& problem, error_code code = error_code::malformed) const {
    throw error(code, name_ + ": line " + std::to_string(line), problem);
  }
  [[nodiscard]] static std::string described(const token& t) {
    switch (t.kind) {
      case token_kind::data: return "text";
      case token_kind::block_begin: return "'{%'";
      case token_kind::block_end: return "'%}'";
      case token_kind::variable_begin: return "'{{'";
      case token_kind::variable_end: return "'}}'";
      case token_kind::end: return "the end of the template";
      case token_kind::integer:
      case token_kind::floating: return "a number";
      case token_kind::string: return "a string";
      default: return "'" + t.text.substr(0, 100) + "'";
    }
  }
  void expect_sign(std::string_view s) {
    if (!skip_sign(s)) fail("expected '" + std::string(s) + "', got " + described(current()));
  }
  void expect(token_kind kind, std::string_view what) {
    if (current().kind != kind) fail("expected " + std::string(what) + ", got " + described(current()));
    take();
  }
  std::string expect_name(std::string_view what = "a name") {
    if (current().kind != token_kind::name) fail("expected " + std::string(what) + ", got " + described(current()));
    return take().text;
  }

  // Nodes.

  expression make(expression_kind kind, int line, std::vector<expression> parts = {}, std::string name = {}) const {
    expression e;
    e.kind = kind;
    e.line = line;
    e.parts = std::move(parts);
    e.name = std::move(name);
    count_depth(e);
    return e;
  }
  void count_depth(expression& e) const {
    for (const expression& part : e.parts) e.depth = std::max(e.depth, 1 + part.depth);
    for (const argument& a : e.arguments) e.depth = std::max(e.depth, 1 + a.given.depth);
    if (e.depth > deepest_expression) {
      fail_at(e.line, "an expression is deeper than " + std::to_string(deepest_expression), error_code::limit);
    }
  }
  expression make_pair(expression_kind kind, int line, expression a, expression b) const {
    std::vector<expression> parts;
    parts.push_back(std::move(a));
    parts.push_back(std::move(b));
    return make(kind, line, std::move(parts));
  }
  expression make_one(expression_kind kind, int line, expression a, std::string name = {}) const {
    std::vector<expression> parts;
    parts.push_back(std::move(a));
    return make(kind, line, std::move(parts), std::move(name));
  }
  expression make_constant(int line, value v) const {
    expression e = make(expression_kind::constant, line);
    e.constant = std::move(v);
    return e;
  }

 private:
  std::vector<token> tokens_;
  std::string name_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace effinfer::inline v0::text::jinja
