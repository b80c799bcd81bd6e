#pragma once
// Expressions, by recursive descent in Jinja's order of precedence: if-else, or, and, not, comparisons, + -, ~, * / // %,
// **, signs, then attributes, calls, filters and tests.

#include <effinfer/text/jinja/filters.hpp>
#include <effinfer/text/jinja/parser_base.hpp>
#include <effinfer/text/jinja/syntax.hpp>
#include <effinfer/text/jinja/tests.hpp>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// Errors: `malformed` with the line, `limit`.
class expression_parser : protected parser_base {
 protected:
  using parser_base::parser_base;
  ~expression_parser() = default;

  // Grammar.

  expression parse_expression(bool with_condition = true) { return with_condition ? parse_condition() : parse_or(); }

  expression parse_condition() {
    const level inside(*this);
    const int line = current().line;
    const bool was_soft = is_soft_;
    const std::size_t unknown_before = unknown_.size();
    expression e = parse_or();
    while (skip_name("if")) {
      unknown_.resize(unknown_before);
      is_soft_ = true;
      std::vector<expression> parts;
      parts.push_back(std::move(e));
      parts.push_back(parse_or());
      if (skip_name("else")) parts.push_back(parse_condition());
      is_soft_ = was_soft;
      e = make(expression_kind::conditional, line, std::move(parts));
    }
    return e;
  }

  expression parse_or() {
    const int line = current().line;
    expression e = parse_and();
    while (skip_name("or")) e = make_pair(expression_kind::any, line, std::move(e), parse_and());
    return e;
  }
  expression parse_and() {
    const int line = current().line;
    expression e = parse_not();
    while (skip_name("and")) e = make_pair(expression_kind::all, line, std::move(e), parse_not());
    return e;
  }
  expression parse_not() {
    if (!is_name("not")) return parse_compare();
    const level inside(*this);
    const int line = take().line;
    return make_one(expression_kind::negation, line, parse_not());
  }

  expression parse_compare() {
    const int line = current().line;
    expression e = parse_sum();
    std::vector<expression> parts;
    std::vector<comparison> signs;
    while (true) {
      struct spelled {
        std::string_view text;
        comparison is;
      };
      constexpr std::array<spelled, 6> all = {{{"==", comparison::equal},
                                               {"!=", comparison::unequal},
                                               {"<", comparison::less},
                                               {"<=", comparison::less_or_equal},
                                               {">", comparison::greater},
                                               {">=", comparison::greater_or_equal}}};
      const auto* found = std::find_if(all.begin(), all.end(), [&](const spelled& s) { return is_sign(s.text); });
      if (found != all.end()) {
        take();
        signs.push_back(found->is);
      } else if (skip_name("in")) {
        signs.push_back(comparison::in);
      } else if (is_name("not") && following().kind == token_kind::name && following().text == "in") {
        take();
        take();
        signs.push_back(comparison::not_in);
      } else {
        break;
      }
      if (parts.empty()) parts.push_back(std::move(e));  // NOLINT(bugprone-use-after-move): once, with the first sign
      parts.push_back(parse_sum());
    }
    if (signs.empty()) return e;
    expression compared = make(expression_kind::compare, line, std::move(parts));
    compared.comparisons = std::move(signs);
    return compared;
  }

  expression parse_binary(expression (expression_parser::*operand)(),
                          std::initializer_list<std::pair<std::string_view, arithmetic>> signs) {
    const int line = current().line;
    expression e = (this->*operand)();
    while (true) {
      const auto* found = std::find_if(signs.begin(), signs.end(), [&](const auto& s) { return is_sign(s.first); });
      if (found == signs.end()) return e;
      take();
      e = make_pair(expression_kind::binary, line, std::move(e), (this->*operand)());
      e.operation = found->second;
    }
  }
  expression parse_sum() {
    return parse_binary(&expression_parser::parse_concat, {{"+", arithmetic::add}, {"-", arithmetic::subtract}});
  }
  expression parse_concat() {
    const int line = current().line;
    expression e = parse_product();
    if (!is_sign("~")) return e;
    std::vector<expression> parts;
    parts.push_back(std::move(e));
    while (skip_sign("~")) parts.push_back(parse_product());
    return make(expression_kind::concat, line, std::move(parts));
  }
  expression parse_product() {
    return parse_binary(&expression_parser::parse_power, {{"*", arithmetic::multiply},
                                                          {"/", arithmetic::divide},
                                                          {"//", arithmetic::floor_divide},
                                                          {"%", arithmetic::modulo}});
  }
  expression parse_power() { return parse_binary(&expression_parser::parse_filtered, {{"**", arithmetic::power}}); }
  expression parse_filtered() { return parse_unary(true); }

  expression parse_unary(bool with_filter) {
    const level inside(*this);
    const int line = current().line;
    expression e = skip_sign("-")   ? make_one(expression_kind::minus, line, parse_unary(false))
                   : skip_sign("+") ? make_one(expression_kind::plus, line, parse_unary(false))
                                    : parse_primary();
    e = parse_postfix(std::move(e));
    return with_filter ? parse_filters_and_tests(std::move(e)) : e;
  }

  expression parse_primary(bool is_target = false) {
    const token t = current();
    switch (t.kind) {
      case token_kind::name:
        take();
        if (t.text == "true" || t.text == "True") return make_constant(t.line, true);
        if (t.text == "false" || t.text == "False") return make_constant(t.line, false);
        if (t.text == "none" || t.text == "None") return make_constant(t.line, nullptr);
        if (is_target && skip_sign(".")) {
          return make_one(expression_kind::attribute, t.line, make(expression_kind::name, t.line, {}, t.text),
                          expect_name());
        }
        note_name(t.text);
        return make(expression_kind::name, t.line, {}, t.text);
      case token_kind::string: {
        std::string s;
        while (current().kind == token_kind::string) s += take().text;
        return make_constant(t.line, std::move(s));
      }
      case token_kind::integer: take(); return make_constant(t.line, t.integer);
      case token_kind::floating: take(); return make_constant(t.line, t.floating);
      default: break;
    }
    if (skip_sign("(")) {
      expression e = parse_tuple({.is_in_parentheses = true});
      expect_sign(")");
      return e;
    }
    if (is_sign("[") || is_sign("{")) {
      const bool is_list = take().text == "[";
      const std::string_view end = is_list ? "]" : "}";
      std::vector<expression> parts;
      while (!is_sign(end)) {
        if (!parts.empty()) expect_sign(",");
        if (is_sign(end)) break;
        parts.push_back(parse_expression());
        if (is_list) continue;
        expect_sign(":");
        parts.push_back(parse_expression());
      }
      expect_sign(end);
      return make(is_list ? expression_kind::list : expression_kind::dict, t.line, std::move(parts));
    }
    fail("unexpected " + described(t));
  }

  struct tuple_rules {
    bool is_target = false;
    bool with_condition = true;
    bool is_in_parentheses = false;  ///< () is a tuple there
    std::string_view end_name = {};  ///< a name that ends it
  };
  expression parse_tuple(tuple_rules rules) {
    const level inside(*this);
    const int line = current().line;
    std::vector<expression> parts;
    bool is_tuple = false;
    while (true) {
      if (!parts.empty()) expect_sign(",");
      if (current().kind == token_kind::variable_end || current().kind == token_kind::block_end || is_sign(")") ||
          (!rules.end_name.empty() && is_name(rules.end_name))) {
        break;
      }
      parts.push_back(rules.is_target ? parse_primary(true) : parse_expression(rules.with_condition));
      if (!is_sign(",")) break;
      is_tuple = true;
    }
    if (!is_tuple) {
      if (!parts.empty()) return std::move(parts[0]);
      if (!rules.is_in_parentheses) fail("expected an expression, got " + described(current()));
    }
    return make(expression_kind::tuple, line, std::move(parts));
  }

  expression parse_postfix(expression e) {
    while (true) {
      const int line = current().line;
      if (skip_sign(".")) {
        if (current().kind == token_kind::integer) {
          e = make_pair(expression_kind::item, line, std::move(e), make_constant(line, take().integer));
        } else {
          e = make_one(expression_kind::attribute, line, std::move(e), expect_name("a name or a number"));
        }
      } else if (skip_sign("[")) {
        e = parse_subscript(std::move(e), line);
      } else if (is_sign("(")) {
        e = make_one(expression_kind::call, line, std::move(e));
        e.arguments = parse_arguments();
        count_depth(e);
      } else {
        return e;
      }
    }
  }
  expression parse_subscript(expression e, int line) {
    std::vector<expression> parts;
    std::vector<expression> keys;
    bool is_slice = false, is_tuple = false;
    while (!is_sign("]")) {
      if (!keys.empty() || is_slice) {
        expect_sign(",");
        is_tuple = true;
      }
      if (!is_sign(":")) keys.push_back(parse_expression());
      if (!is_sign(":")) continue;
      is_slice = true;
      parts.push_back(std::move(e));  // NOLINT(bugprone-use-after-move): a second slice is an error below
      for (int i = 0; i < 3; ++i) {
        const bool is_given = i == 0 ? !keys.empty() : !is_sign(":") && !is_sign("]") && !is_sign(",");
        parts.push_back(!is_given ? make_constant(line, nullptr) : i == 0 ? std::move(keys[0]) : parse_expression());
        if (i < 2 && !skip_sign(":")) {
          for (; i < 2; ++i) parts.push_back(make_constant(line, nullptr));
        }
      }
      if (!is_sign("]")) fail("expected ']', got " + described(current()));
    }
    expect_sign("]");
    if (is_slice && is_tuple) fail_at(line, "a slice among other keys");
    if (is_slice) return make(expression_kind::slice, line, std::move(parts));
    expression key = keys.size() == 1 ? std::move(keys[0]) : make(expression_kind::tuple, line, std::move(keys));
    return make_pair(expression_kind::item, line, std::move(e), std::move(key));
  }

  expression parse_filters_and_tests(expression e) {
    while (true) {
      const int line = current().line;
      if (is_sign("|")) {
        e = parse_filter(std::move(e));
      } else if (is_name("is")) {
        e = parse_test(std::move(e));
      } else if (is_sign("(")) {
        e = make_one(expression_kind::call, line, std::move(e));
        e.arguments = parse_arguments();
        count_depth(e);
      } else {
        return e;
      }
    }
  }
  std::string dotted_name() {
    std::string name = expect_name();
    while (skip_sign(".")) name += "." + expect_name();
    return name;
  }
  /// One `| name(...)`, or `name(...)` alone at the beginning of a filter block.
  expression parse_filter(expression e) {
    skip_sign("|");
    const int line = current().line;
    const std::string name = dotted_name();
    if (!is_known_filter(name)) note_unknown("filter", name, line);
    expression filtered = make_one(expression_kind::filter, line, std::move(e), name);
    if (is_sign("(")) filtered.arguments = parse_arguments();
    count_depth(filtered);
    return filtered;
  }
  expression parse_test(expression e) {
    const int line = take().line;
    const bool is_negated = skip_name("not");
    const std::string name = dotted_name();
    if (!is_known_test(name)) note_unknown("test", name, line);
    expression tested = make_one(expression_kind::test, line, std::move(e), name);
    const token_kind next = current().kind;
    if (is_sign("(")) {
      tested.arguments = parse_arguments();
    } else if ((next == token_kind::name && !is_name("else") && !is_name("or") && !is_name("and")) ||
               next == token_kind::string || next == token_kind::integer || next == token_kind::floating ||
               is_sign("[") || is_sign("{")) {
      if (is_name("is")) fail("tests with `is` can't be chained");
      tested.arguments.push_back({argument::kind::positional, "", parse_postfix(parse_primary())});
    }
    count_depth(tested);
    return is_negated ? make_one(expression_kind::negation, line, std::move(tested)) : tested;
  }

  std::vector<argument> parse_arguments() {
    const level inside(*this);
    const int line = current().line;
    expect_sign("(");
    std::vector<argument> all;
    bool has_names = false, has_unpacked = false, has_unpacked_names = false;
    const auto check = [&](bool holds) {
      if (!holds) fail_at(line, "invalid syntax for function call expression");
    };
    while (!is_sign(")")) {
      if (!all.empty()) {
        expect_sign(",");
        if (is_sign(")")) break;
      }
      argument a{argument::kind::positional, "", {}};
      if (skip_sign("*")) {
        check(!has_unpacked && !has_unpacked_names);
        has_unpacked = true;
        a.is = argument::kind::unpacked;
      } else if (skip_sign("**")) {
        check(!has_unpacked_names);
        has_unpacked_names = true;
        a.is = argument::kind::unpacked_names;
      } else if (current().kind == token_kind::name && following().kind == token_kind::sign &&
                 following().text == "=") {
        check(!has_unpacked_names);
        has_names = true;
        a.is = argument::kind::named;
        a.name = take().text;
        take();
        check(std::none_of(all.begin(), all.end(), [&](const argument& b) { return b.name == a.name; }));
      } else {
        check(!has_unpacked && !has_unpacked_names && !has_names);
      }
      a.given = parse_expression();
      all.push_back(std::move(a));
    }
    expect_sign(")");
    return all;
  }

  /// An unknown filter or test is an error of the template, but inside of an `if`, where Jinja waits until it is used.
  void note_unknown(const std::string& kind, const std::string& name, int line) {
    if (!is_soft_) unknown_.push_back({line, "no " + kind + " named '" + name.substr(0, 100) + "'"});
  }
  void check_unknown() const {
    if (!unknown_.empty()) fail_at(unknown_[0].first, unknown_[0].second);
  }
  /// A macro must know whether its body reads these names.
  struct special_names {
    bool caller = false, varargs = false, kwargs = false;
  };
  void note_name(const std::string& name) {
    for (special_names& s : macros_) {
      s.caller = s.caller || name == "caller";
      s.varargs = s.varargs || name == "varargs";
      s.kwargs = s.kwargs || name == "kwargs";
    }
  }

  bool is_soft_ = false;               ///< inside of an `if`
  std::vector<special_names> macros_;  ///< the macros around what is parsed

 private:
  std::vector<std::pair<int, std::string>> unknown_;  // line and problem
};

}  // namespace effinfer::inline v0::text::jinja
