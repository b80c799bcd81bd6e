#pragma once
// Runs a parsed template: statements, loops, macros. Recursive, with a limit on the depth (see runtime.hpp).

#include <effinfer/text/jinja/evaluator.hpp>
#include <effinfer/text/jinja/loop.hpp>
#include <effinfer/text/jinja/parser.hpp>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// Renders one template once.
class interpreter : private evaluator, private loop_renderer {
 public:
  /// `variables`: what the template can name, besides the global functions. They and the template must outlive this.
  interpreter(runtime& run, const dictionary& variables) : evaluator(run, variables) {}

  /// Errors: see effinfer::text::chat_template::render.
  std::string render(const std::vector<statement>& program) {
    execute(program);
    return std::move(out_);
  }

 private:
  enum class flow { next, leave_loop, next_turn };

  /// What {% macro %} defines, and the `caller` of a call block.
  class macro : public callable_with_attributes {
   public:
    macro(interpreter& i, const statement& s, scope* outside) : interpreter_(i), statement_(s), outside_(outside) {}
    value call(runtime&, arguments given) override {
      return interpreter_.call_macro(statement_, outside_, std::move(given));
    }
    std::optional<value> attribute(runtime&, const value&, std::string_view name) override {
      if (name == "name") return statement_.kind == statement_kind::macro ? value(statement_.text) : value();
      return std::nullopt;
    }
    [[nodiscard]] std::string written() const override {
      return statement_.kind == statement_kind::macro ? "<Macro '" + statement_.text + "'>" : "<Macro anonymous>";
    }

   private:
    interpreter& interpreter_;
    const statement& statement_;
    scope* outside_;
  };

  void write(std::string_view s) {
    run().grow_string(out_.size(), s.size());
    out_.append(s);
  }

  /// Runs `body` and takes what it writes.
  template <class Body>
  std::string capture(Body body) {
    std::string before = std::exchange(out_, std::string());
    body();  // an error ends the rendering, so nothing need be put back then
    return std::exchange(out_, std::move(before));
  }

  flow execute(const std::vector<statement>& body) {
    const runtime::level inside(run());
    for (const statement& s : body) {
      const flow f = execute(s);
      if (f != flow::next) return f;
    }
    return flow::next;
  }

  flow execute(const statement& s) {
    run().step();
    run().line = s.line;
    switch (s.kind) {
      case statement_kind::data: write(s.text); break;
      case statement_kind::output: write(printed(run(), evaluate(s.expressions[0])).view()); break;
      case statement_kind::loop: return execute_loop(s, evaluate(s.expressions[0]), 0, current_scope());
      case statement_kind::branch:
        for (const branch& b : s.branches) {
          if (is_true(evaluate(b.condition))) return execute(b.body);
        }
        return execute(s.otherwise);
      case statement_kind::assign: assign(s.targets[0], evaluate(s.expressions[0])); break;
      case statement_kind::assign_block: return execute_assign_block(s);
      case statement_kind::macro: define(s.text, make_object<macro>(run(), *this, s, keep_scope())); break;
      case statement_kind::call_block: execute_call(s); break;
      case statement_kind::filter_block: return execute_filter(s);
      case statement_kind::with: {
        std::vector<value> values;
        for (const expression& e : s.expressions) values.push_back(evaluate(e));
        const inner_scope own(*this);
        for (std::size_t i = 0; i < values.size(); ++i) assign(s.targets[i], std::move(values[i]));
        return execute(s.body);
      }
      case statement_kind::generation: {
        const inner_scope own(*this);
        execute(s.body);
        break;
      }
      case statement_kind::break_loop: return flow::leave_loop;
      case statement_kind::continue_loop: return flow::next_turn;
    }
    return flow::next;
  }

  flow execute_loop(const statement& s, const value& source, int level, scope* outside) {
    run().line = s.line;
    if (s.is_recursive) keep_scope();
    const auto loop = make_object<loop_state>(run(), static_cast<evaluator&>(*this), static_cast<loop_renderer&>(*this),
                                              s, source, level, outside);
    struct at_end {
      loop_state& loop;
      ~at_end() { loop.clear(); }
    } const ends{*loop};
    // As in Jinja, `else` also follows where no turn came to its end because of `break` and `continue`.
    bool has_whole_turn = false;
    value element;
    while (loop->advance(run(), element)) {
      const inner_scope turn(*this, outside);
      define("loop", loop);
      assign(s.targets[0], std::move(element));
      const flow f = execute(s.body);
      if (f == flow::leave_loop) break;
      has_whole_turn = has_whole_turn || f == flow::next;
      run().line = s.line;
    }
    if (has_whole_turn || s.otherwise.empty()) return flow::next;
    const inner_scope own(*this, outside);
    return execute(s.otherwise);
  }
  std::string render_loop(const statement& s, const value& source, int level, scope* outside) override {
    return capture([&] { execute_loop(s, source, level, outside); });
  }

  flow execute_assign_block(const statement& s) {
    flow f = flow::next;
    value v;
    {
      const inner_scope own(*this);
      std::string text = capture([&] { f = execute(s.body); });
      if (f != flow::next) return f;
      v = filtered(s, std::move(text));
    }
    assign(s.targets[0], std::move(v));
    return flow::next;
  }
  flow execute_filter(const statement& s) {
    const inner_scope own(*this);
    flow f = flow::next;
    std::string text = capture([&] { f = execute(s.body); });
    if (f == flow::next) write(need_text(run(), filtered(s, std::move(text)), "what a filter block gives"));
    return f;
  }
  /// A captured text through the filters of the statement.
  value filtered(const statement& s, std::string text) {
    value v = make_text(run(), std::move(text));
    if (s.expressions.empty()) return v;
    const value before = std::exchange(captured_, std::move(v));
    value result = evaluate(s.expressions[0]);
    captured_ = before;
    return result;
  }

  void execute_call(const statement& s) {
    const expression& call = s.expressions[0];
    const value callee = evaluate(call.parts[0]);
    arguments given = evaluate_arguments(call);
    given.named.emplace_back("caller", make_object<macro>(run(), *this, s, keep_scope()));
    write(printed(run(), finish_call(call, callee, std::move(given))).view());
  }

  value call_macro(const statement& s, scope* outside, arguments given) {
    const std::string name = s.text;
    const auto take_named = [&](std::string_view key) -> std::optional<value> {
      for (auto it = given.named.begin(); it != given.named.end(); ++it) {
        if (it->first != key) continue;
        value v = std::move(it->second);
        given.named.erase(it);
        return v;
      }
      return std::nullopt;
    };
    std::vector<std::optional<value>> bound(s.parameters.size());
    for (std::size_t i = 0; i < bound.size(); ++i) {
      if (i < given.positional.size()) {
        bound[i] = given.positional[i];
      } else {
        bound[i] = take_named(s.parameters[i].name);
      }
    }
    const inner_scope own(*this, outside);
    for (std::size_t i = 0; i < bound.size(); ++i) {
      define(s.parameters[i].name,
             bound[i] ? *bound[i] : make_undefined("parameter '" + s.parameters[i].name + "' was not provided"));
    }
    if (s.uses_caller) {
      const auto caller = take_named("caller");
      define("caller", caller ? *caller : make_undefined("No caller defined"));
    }
    if (s.uses_kwargs) {
      define("kwargs", globals::dict(run(), {{}, given.named}));
    } else if (!given.named.empty()) {
      run().fail("macro '" + name + "' takes no keyword argument '" + given.named[0].first.substr(0, 100) + "'");
    }
    if (s.uses_varargs) {
      const auto extra = std::min(given.positional.size(), bound.size());
      define("varargs", make_tuple(run(), {given.positional.begin() + static_cast<std::ptrdiff_t>(extra),
                                           given.positional.end()}));
    } else if (given.positional.size() > bound.size()) {
      run().fail("macro '" + name + "' takes not more than " + std::to_string(bound.size()) + " argument(s)");
    }
    for (std::size_t i = 0; i < bound.size(); ++i) {
      if (!bound[i] && s.parameters[i].has_default)
        define(s.parameters[i].name, evaluate(s.parameters[i].default_value));
    }
    return make_text(run(), capture([&] { execute(s.body); }));
  }

  std::string out_;
};

}  // namespace effinfer::inline v0::text::jinja
