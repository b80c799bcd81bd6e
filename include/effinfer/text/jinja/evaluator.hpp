#pragma once
// Expressions with their variables: names are looked up in the scopes from the inside out, then among what the caller gave
// for the rendering, then among the global functions.

#include <effinfer/text/jinja/filters.hpp>
#include <effinfer/text/jinja/format.hpp>
#include <effinfer/text/jinja/globals.hpp>
#include <effinfer/text/jinja/syntax.hpp>
#include <effinfer/text/jinja/tests.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// The variables of one block. Loops (each turn), macros and a few blocks have their own; `if` has not.
struct scope {
  explicit scope(scope* outside) : outer(outside) {}

  scope* outer;
  bool is_kept = false;        ///< a macro was defined in it and may be called later
  scope* next_kept = nullptr;  ///< the list of those
  std::vector<std::pair<std::string_view, value>> variables;

  value* find(std::string_view name) {
    for (auto& [key, item] : variables) {
      if (key == name) return &item;
    }
    return nullptr;
  }
};

class evaluator {
 public:
  /// `variables` and the syntax tree must outlive this.
  evaluator(runtime& run, const dictionary& variables)
      : run_(run), variables_(variables), scope_(&outermost_), outermost_(nullptr) {}
  evaluator(const evaluator&) = delete;
  evaluator& operator=(const evaluator&) = delete;
  ~evaluator() {
    // Namespaces can hold themselves: what they hold is dropped first, and while all of them are still there.
    for (const auto& o : run_.kept()) o->clear();
    while (kept_ != nullptr) delete std::exchange(kept_, kept_->next_kept);
  }

  [[nodiscard]] runtime& run() { return run_; }

  value evaluate(const expression& e) {
    run_.step();
    run_.line = e.line;
    const runtime::level inside(run_);
    switch (e.kind) {
      case expression_kind::constant: return e.constant;
      case expression_kind::name: return look_up(e.name);
      case expression_kind::tuple: return make_tuple(run_, parts(e));
      case expression_kind::list: return make_list(run_, parts(e));
      case expression_kind::dict: return evaluate_dict(e);
      case expression_kind::attribute: return get_attribute(run_, part(e, 0), e.name);
      case expression_kind::item: {
        const value v = part(e, 0);
        return get_item(run_, v, part(e, 1));
      }
      case expression_kind::slice: {
        const std::vector<value> p = parts(e);
        return get_slice(run_, p[0], p[1], p[2], p[3]);
      }
      case expression_kind::call: {
        const value callee = part(e, 0);
        return finish_call(e, callee, evaluate_arguments(e));
      }
      case expression_kind::filter: {
        const value v = part(e, 0);
        const arguments given = evaluate_arguments(e);
        run_.line = e.line;
        return apply_filter(run_, e.name, v, given);
      }
      case expression_kind::test: {
        const value v = part(e, 0);
        const arguments given = evaluate_arguments(e);
        run_.line = e.line;
        return apply_test(run_, e.name, v, given);
      }
      case expression_kind::captured: return captured_;
      case expression_kind::negation: return !is_true(part(e, 0));
      case expression_kind::minus: return with_sign(run_, part(e, 0), true);
      case expression_kind::plus: return with_sign(run_, part(e, 0), false);
      case expression_kind::binary: return evaluate_binary(e);
      case expression_kind::compare: return evaluate_comparison(e);
      case expression_kind::all: {
        value v = part(e, 0);
        return is_true(v) ? part(e, 1) : v;
      }
      case expression_kind::any: {
        value v = part(e, 0);
        return is_true(v) ? v : part(e, 1);
      }
      case expression_kind::conditional:
        if (is_true(part(e, 1))) return part(e, 0);
        if (e.parts.size() == 3) return part(e, 2);
        return make_undefined("the inline if-expression evaluated to false and no else section was defined.");
      case expression_kind::concat: return evaluate_concat(e);
    }
    return nullptr;
  }

  arguments evaluate_arguments(const expression& e) {
    arguments given;
    for (const argument& a : e.arguments) {
      value v = evaluate(a.given);
      run_.make(sizeof(value));
      switch (a.is) {
        case argument::kind::positional: given.positional.push_back(std::move(v)); break;
        case argument::kind::named: add_named(given, a.name, std::move(v)); break;
        case argument::kind::unpacked:
          for (value& element : collect(run_, v)) given.positional.push_back(std::move(element));
          break;
        case argument::kind::unpacked_names:
          if (!v.mapping()) run_.fail("argument after ** must be a mapping, not " + v.type_name());
          for (const auto& [key, item] : v.mapping()->entries()) {
            add_named(given, std::string(need_text(run_, key, "keyword")), item);
          }
          break;
      }
    }
    return given;
  }
  value finish_call(const expression& e, const value& callee, arguments given) {
    run_.line = e.line;
    value result = call(run_, callee, std::move(given));
    run_.line = e.line;
    return result;
  }

  /// Sets a variable of the current scope, several from a sequence, or an attribute of a namespace.
  void assign(const expression& target, value v) {
    run_.step();
    if (target.kind == expression_kind::name) {
      define(target.name, std::move(v));
    } else if (target.kind == expression_kind::tuple) {
      need_iterable(v);
      std::vector<value> all = collect(run_, v);
      if (all.size() != target.parts.size()) {
        run_.fail((all.size() < target.parts.size() ? "not enough values to unpack (expected "
                                                    : "too many values to unpack (expected ") +
                  std::to_string(target.parts.size()) + ", got " + std::to_string(all.size()) + ")");
      }
      for (std::size_t i = 0; i < all.size(); ++i) assign(target.parts[i], std::move(all[i]));
    } else {
      const auto space = look_up(target.parts[0].name).as<name_space>();
      if (!space) run_.fail("cannot assign attribute on non-namespace object");
      globals::check_attribute_name(run_, target.name);
      set_item(run_, space->attributes, value(target.name), std::move(v));
    }
  }
  void define(std::string_view name, value v) {
    if (value* found = scope_->find(name)) {
      *found = std::move(v);
      return;
    }
    run_.make(sizeof(value) + sizeof(name));  // NOLINT(bugprone-sizeof-container): what the entry itself takes
    scope_->variables.emplace_back(name, std::move(v));
  }

  /// A scope inside of `outer` for as long as it lives.
  class inner_scope {
   public:
    inner_scope(evaluator& e, scope* outer) : evaluator_(e), before_(e.scope_), own_(std::make_unique<scope>(outer)) {
      e.scope_ = own_.get();
    }
    explicit inner_scope(evaluator& e) : inner_scope(e, e.scope_) {}
    ~inner_scope() {
      evaluator_.scope_ = before_;
      if (!own_->is_kept) return;
      own_->next_kept = evaluator_.kept_;
      evaluator_.kept_ = own_.release();
    }
    inner_scope(const inner_scope&) = delete;
    inner_scope& operator=(const inner_scope&) = delete;

   private:
    evaluator& evaluator_;
    scope* before_;
    std::unique_ptr<scope> own_;
  };
  [[nodiscard]] scope* current_scope() { return scope_; }
  /// Keeps the current scope and those around it to the end of the rendering, for who refers to it.
  scope* keep_scope() {
    for (scope* s = scope_; s != nullptr && !s->is_kept; s = s->outer) {
      run_.make(256);
      s->is_kept = true;
    }
    return scope_;
  }

 protected:
  value captured_;

 private:
  value part(const expression& e, std::size_t i) {
    value v = evaluate(e.parts[i]);
    run_.line = e.line;
    return v;
  }
  std::vector<value> parts(const expression& e) {
    std::vector<value> all;
    all.reserve(e.parts.size());
    for (const expression& p : e.parts) all.push_back(evaluate(p));
    run_.line = e.line;
    return all;
  }
  void add_named(arguments& given, std::string name, value v) {
    for (const auto& [key, item] : given.named) {
      run_.step();
      if (key == name) run_.fail("got multiple values for keyword argument '" + name + "'");
    }
    given.named.emplace_back(std::move(name), std::move(v));
  }
  void need_iterable(const value& v) {
    if (!is_iterable(v)) run_.fail("cannot unpack non-iterable " + v.type_name() + " object");
  }

  value look_up(const std::string& name) {
    for (scope* s = scope_; s != nullptr; s = s->outer) {
      run_.step(s->variables.size() / 16);
      if (const value* found = s->find(name)) return *found;
    }
    if (const value* found = variables_.find(name)) return *found;
    if (auto found = find_global(name)) return *std::move(found);
    if (name == "strftime_now") {
      return make_undefined("'strftime_now' is undefined, as the caller of the template gave no time");
    }
    return make_undefined("'" + name.substr(0, 100) + "' is undefined");
  }

  value evaluate_dict(const expression& e) {
    auto d = std::make_shared<dictionary>();
    for (std::size_t i = 0; i < e.parts.size(); i += 2) {
      value key = part(e, i);
      set_item(run_, *d, std::move(key), part(e, i + 1));
    }
    return std::shared_ptr<const dictionary>(std::move(d));
  }
  value evaluate_binary(const expression& e) {
    const value a = part(e, 0), b = part(e, 1);
    if (e.operation == arithmetic::modulo && a.text()) return percent_formatter(run_, a, b).format();
    return calculate(run_, a, e.operation, b);
  }
  value evaluate_comparison(const expression& e) {
    value a = part(e, 0);
    for (std::size_t i = 0; i < e.comparisons.size(); ++i) {
      value b = part(e, i + 1);
      if (!compare(a, e.comparisons[i], b)) return false;
      a = std::move(b);
    }
    return true;
  }
  bool compare(const value& a, comparison how, const value& b) {
    switch (how) {
      case comparison::equal: return are_equal(run_, a, b);
      case comparison::unequal: return !are_equal(run_, a, b);
      case comparison::less: return is_ordered(run_, a, order::less, b);
      case comparison::less_or_equal: return is_ordered(run_, a, order::less_or_equal, b);
      case comparison::greater: return is_ordered(run_, a, order::greater, b);
      case comparison::greater_or_equal: return is_ordered(run_, a, order::greater_or_equal, b);
      case comparison::in: return contains(run_, b, a);
      case comparison::not_in: return !contains(run_, b, a);
    }
    return false;
  }
  value evaluate_concat(const expression& e) {
    std::string out;
    for (const value& v : parts(e)) {
      const printed s(run_, v);
      run_.check_string(out.size() + s.view().size());
      out.append(s.view());
    }
    return make_text(run_, std::move(out));
  }

  runtime& run_;
  const dictionary& variables_;
  scope* scope_;
  scope outermost_;
  scope* kept_ = nullptr;
};

}  // namespace effinfer::inline v0::text::jinja
