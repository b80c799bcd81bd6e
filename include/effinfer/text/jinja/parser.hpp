#pragma once
// Statements: text, {{ ... }}, and the blocks of Jinja that stand alone. What reads other templates (include, import,
// extends, block) is unsupported: a chat template is one file.

#include <effinfer/text/jinja/expression_parser.hpp>

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// Templates are no longer than this.
inline constexpr std::size_t most_source_bytes = std::size_t{1} << 18;

/// Parses one template. Errors: `malformed` with the line; `unsupported`; `limit`.
class parser : private expression_parser {
 public:
  static std::vector<statement> parse(std::string_view source, const std::string& name) {
    if (source.size() > most_source_bytes) {
      throw error(error_code::limit, name,
                  "the template has more than " + std::to_string(most_source_bytes) + " bytes");
    }
    const std::size_t invalid = find_invalid_utf8(source);
    if (invalid != std::string_view::npos) {
      throw error(error_code::invalid_utf8, name, "the template isn't UTF-8 at byte " + std::to_string(invalid));
    }
    parser p(lexer(source, name).tokens(), name);
    auto body = p.parse_body({});
    p.check_unknown();
    return body;
  }

 private:
  parser(std::vector<token> tokens, const std::string& name) : expression_parser(std::move(tokens), name) {}

  /// Statements up to one of the tags `ends`, whose name stays current; up to the end of the template if there are none.
  std::vector<statement> parse_body(std::initializer_list<std::string_view> ends) {
    std::vector<statement> body;
    while (true) {
      switch (current().kind) {
        case token_kind::data: {
          statement& s = body.emplace_back();
          s.line = current().line;
          s.text = take().text;
          break;
        }
        case token_kind::variable_begin: {
          statement s;
          s.kind = statement_kind::output;
          s.line = take().line;
          s.expressions.push_back(parse_tuple({}));
          expect(token_kind::variable_end, "'}}'");
          body.push_back(std::move(s));
          break;
        }
        case token_kind::block_begin: {
          take();
          for (const std::string_view end : ends) {
            if (is_name(end)) return body;
          }
          parse_statement(body);
          expect(token_kind::block_end, "'%}'");
          break;
        }
        default:
          if (ends.size() == 0) return body;
          fail("the template ends where {% " + std::string(*(ends.end() - 1)) + " %} is missing");
      }
    }
  }
  /// The body behind a tag's `%}`.
  std::vector<statement> parse_block(std::initializer_list<std::string_view> ends) {
    const level inside(*this);
    skip_sign(":");
    expect(token_kind::block_end, "'%}'");
    return parse_body(ends);
  }
  std::vector<statement> parse_whole_block(std::string_view end) {
    auto body = parse_block({end});
    take();
    return body;
  }
  /// The body of what Jinja compiles to a function or an inner frame: an `if` outside doesn't reach into it.
  template <class Parse>
  auto in_frame(Parse parse) {
    const bool was_soft = std::exchange(is_soft_, false);
    auto body = parse();
    is_soft_ = was_soft;
    return body;
  }

  void parse_statement(std::vector<statement>& body) {
    if (current().kind != token_kind::name) fail("expected the name of a tag, got " + described(current()));
    const token t = take();
    statement s;
    s.line = t.line;
    if (t.text == "for") {
      parse_loop(s);
    } else if (t.text == "if") {
      parse_branch(s);
    } else if (t.text == "set") {
      parse_assignment(s);
    } else if (t.text == "macro") {
      s.kind = statement_kind::macro;
      s.text = expect_name();
      parse_macro(s, "endmacro");
    } else if (t.text == "call") {
      s.kind = statement_kind::call_block;
      if (!is_sign("(")) s.text = "no parameters";
      parse_macro(s, "endcall");
    } else if (t.text == "filter") {
      s.kind = statement_kind::filter_block;
      s.expressions.push_back(parse_filters());
      s.body = in_frame([&] { return parse_whole_block("endfilter"); });
    } else if (t.text == "with") {
      parse_with(s);
    } else if (t.text == "generation") {
      s.kind = statement_kind::generation;
      const int loops = std::exchange(loops_, 0);
      s.body = in_frame([&] { return parse_whole_block("endgeneration"); });
      loops_ = loops;
    } else if (t.text == "print") {
      for (bool is_first = true; current().kind != token_kind::block_end; is_first = false) {
        if (!is_first) expect_sign(",");
        statement& printed = body.emplace_back();
        printed.kind = statement_kind::output;
        printed.line = t.line;
        printed.expressions.push_back(parse_expression());
      }
      return;
    } else if (t.text == "break" || t.text == "continue") {
      if (loops_ == 0) fail_at(t.line, "'" + t.text + "' outside of a loop");
      s.kind = t.text == "break" ? statement_kind::break_loop : statement_kind::continue_loop;
    } else {
      for (const std::string_view known : {"include", "import", "from", "extends", "block", "autoescape"}) {
        if (t.text == known) fail_at(t.line, "the tag '" + t.text + "'", error_code::unsupported);
      }
      fail_at(t.line, "unknown tag '" + t.text.substr(0, 100) + "'");
    }
    body.push_back(std::move(s));
  }

  void check_target(const expression& e) const {
    if (e.kind == expression_kind::tuple) {
      for (const expression& part : e.parts) check_target(part);
    } else if (e.kind == expression_kind::name) {
      if (e.name == "loop" && loops_ > 0) fail_at(e.line, "can't assign to the special variable 'loop' in a loop");
    } else if (e.kind != expression_kind::attribute || e.parts[0].kind != expression_kind::name) {
      fail_at(e.line, "can't assign to this");
    }
  }
  expression parse_target(std::string_view end_name) {
    expression e = parse_tuple({.is_target = true, .end_name = end_name});
    check_target(e);
    return e;
  }
  [[nodiscard]] bool has_attribute(const expression& e) const {
    return e.kind == expression_kind::attribute ||
           std::any_of(e.parts.begin(), e.parts.end(), [&](const expression& part) { return has_attribute(part); });
  }

  void parse_loop(statement& s) {
    s.kind = statement_kind::loop;
    ++loops_;
    s.targets.push_back(parse_target("in"));
    --loops_;
    if (has_attribute(s.targets[0])) fail_at(s.line, "a loop can't assign to an attribute");
    if (!skip_name("in")) fail("expected 'in', got " + described(current()));
    s.expressions.push_back(parse_tuple({.with_condition = false, .end_name = "recursive"}));
    if (skip_name("if")) {
      s.expressions.push_back(in_frame([&] { return parse_expression(); }));
    }
    s.is_recursive = skip_name("recursive");
    ++loops_;
    s.body = in_frame([&] { return parse_block({"else", "endfor"}); });
    --loops_;
    if (take().text == "else") s.otherwise = in_frame([&] { return parse_whole_block("endfor"); });
  }

  void parse_branch(statement& s) {
    s.kind = statement_kind::branch;
    const bool was_soft = std::exchange(is_soft_, true);
    while (true) {
      branch& b = s.branches.emplace_back();
      b.condition = parse_tuple({.with_condition = false});
      b.body = parse_block({"elif", "else", "endif"});
      const bool goes_on = current().text == "elif", otherwise = current().text == "else";
      take();
      if (goes_on) continue;
      if (otherwise) s.otherwise = parse_whole_block("endif");
      break;
    }
    is_soft_ = was_soft;
  }

  void parse_assignment(statement& s) {
    s.targets.push_back(parse_target({}));
    if (skip_sign("=")) {
      s.kind = statement_kind::assign;
      s.expressions.push_back(parse_tuple({}));
      return;
    }
    s.kind = statement_kind::assign_block;
    if (is_sign("|")) s.expressions.push_back(parse_filters());
    s.body = in_frame([&] { return parse_whole_block("endset"); });
  }
  /// `| a | b(...)` on a captured text; the first sign may be left out.
  expression parse_filters() {
    expression e = parse_filter(make(expression_kind::captured, current().line));
    while (is_sign("|")) e = parse_filter(std::move(e));
    return e;
  }

  /// Parameters and body of a macro or call block.
  void parse_macro(statement& s, std::string_view end) {
    macros_.emplace_back();
    if (s.text != "no parameters" || is_sign("(") || s.kind == statement_kind::macro) {
      expect_sign("(");
      while (!is_sign(")")) {
        if (!s.parameters.empty()) expect_sign(",");
        parameter& p = s.parameters.emplace_back();
        p.name = expect_name();
        check_parameter(s, p);
        p.has_default = skip_sign("=");
        if (p.has_default) {
          p.default_value = in_frame([&] { return parse_expression(); });
        } else if (s.parameters.size() > 1 && s.parameters[s.parameters.size() - 2].has_default) {
          fail("non-default argument follows default argument");
        }
      }
      expect_sign(")");
    }
    const special_names in_parameters = macros_.back();
    macros_.pop_back();
    if (s.kind == statement_kind::call_block) {
      s.expressions.push_back(parse_expression());
      if (s.expressions[0].kind != expression_kind::call) fail_at(s.line, "expected a call");
    }
    macros_.push_back(in_parameters);
    const int loops = std::exchange(loops_, 0);
    s.body = in_frame([&] { return parse_whole_block(end); });
    loops_ = loops;
    s.uses_caller = macros_.back().caller;
    s.uses_varargs = macros_.back().varargs;
    s.uses_kwargs = macros_.back().kwargs;
    macros_.pop_back();
    for (const parameter& p : s.parameters) {
      if (p.name == "caller" && s.uses_caller && !p.has_default) {
        fail_at(s.line, "the parameter 'caller' must be left out or have a default");
      }
      if (p.name == "caller") s.uses_caller = false;
      if (p.name == "varargs") s.uses_varargs = false;
      if (p.name == "kwargs") s.uses_kwargs = false;
    }
  }
  void check_parameter(const statement& s, const parameter& p) const {
    for (const std::string_view reserved : {"true", "false", "none", "True", "False", "None"}) {
      if (p.name == reserved) fail("can't assign to '" + p.name + "'");
    }
    for (const parameter& other : s.parameters) {
      if (&other != &p && other.name == p.name) fail("two parameters '" + p.name + "'");
    }
  }

  void parse_with(statement& s) {
    s.kind = statement_kind::with;
    while (current().kind != token_kind::block_end) {
      if (!s.targets.empty()) expect_sign(",");
      s.targets.push_back(parse_primary());
      check_target(s.targets.back());
      expect_sign("=");
      s.expressions.push_back(parse_expression());
    }
    s.body = in_frame([&] { return parse_whole_block("endwith"); });
  }

  int loops_ = 0;  // around what is parsed, within this macro
};

}  // namespace effinfer::inline v0::text::jinja
