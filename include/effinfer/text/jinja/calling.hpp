#pragma once
// What a template can call, and how arguments find their parameters.

#include <effinfer/text/jinja/iteration.hpp>
#include <effinfer/text/jinja/operators.hpp>

#include <cstddef>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// f(a, b, c=1): `positional` are a and b, `named` is c.
struct arguments {
  std::vector<value> positional;
  std::vector<std::pair<std::string, value>> named;

  /// The value of each parameter, in their order; nothing where it isn't given and isn't among the `required` first.
  ///
  /// Errors: `malformed` (too many, unknown, twice, missing), naming `function`.
  [[nodiscard]] std::vector<std::optional<value>> bind(runtime& run, std::string_view function,
                                                       std::initializer_list<std::string_view> parameters,
                                                       std::size_t required = 0) const {
    const std::string name(function);
    if (positional.size() > parameters.size()) {
      run.fail(name + "() takes at most " + std::to_string(parameters.size()) + " arguments, not " +
               std::to_string(positional.size()));
    }
    std::vector<std::optional<value>> bound(parameters.size());
    for (std::size_t i = 0; i < positional.size(); ++i) bound[i] = positional[i];
    for (const auto& [key, item] : named) {
      std::size_t i = 0;
      while (i < parameters.size() && parameters.begin()[i] != key) ++i;
      if (i == parameters.size()) run.fail(name + "() got an unexpected keyword argument '" + key + "'");
      if (bound[i]) run.fail(name + "() got multiple values for argument '" + key + "'");
      bound[i] = item;
    }
    for (std::size_t i = 0; i < required; ++i) {
      if (!bound[i]) run.fail(name + "() misses the argument '" + std::string(parameters.begin()[i]) + "'");
    }
    return bound;
  }
  /// The same for functions that take no names.
  [[nodiscard]] std::vector<std::optional<value>> bind_positional(runtime& run, std::string_view function,
                                                                  std::size_t most, std::size_t required = 0) const {
    const std::string name(function);
    if (!named.empty()) run.fail(name + "() takes no keyword arguments");
    if (positional.size() > most || positional.size() < required) {
      run.fail(name + "() takes " + std::to_string(required) + " to " + std::to_string(most) + " arguments, not " +
               std::to_string(positional.size()));
    }
    std::vector<std::optional<value>> bound(most);
    for (std::size_t i = 0; i < positional.size(); ++i) bound[i] = positional[i];
    return bound;
  }
};

class callable : public object {
 public:
  virtual value call(runtime& run, arguments given) = 0;
};

/// A global function.
class function : public callable {
 public:
  using body = value (*)(runtime&, const arguments&);
  function(std::string name, body f) : name_(std::move(name)), body_(f) {}
  value call(runtime& run, arguments given) override { return body_(run, given); }
  [[nodiscard]] std::string written() const override { return "<function " + name_ + ">"; }

 private:
  std::string name_;
  body body_;
};

/// A method of a value: "abc".upper
class bound_method : public callable {
 public:
  using body = value (*)(runtime&, const value& self, const arguments&);
  bound_method(std::string name, value self, body f) : name_(std::move(name)), self_(std::move(self)), body_(f) {}
  value call(runtime& run, arguments given) override { return body_(run, self_, given); }
  [[nodiscard]] std::string written() const override {
    return "<built-in method " + name_ + " of " + self_.type_name() + " object>";
  }
  [[nodiscard]] int depth() const override { return self_.depth() + 1; }

 private:
  std::string name_;
  value self_;
  body body_;
};

/// A method's name and what it does; null for one that Python has and we haven't.
struct method {
  std::string_view name;
  bound_method::body body;
};

/// v(...). Errors: `malformed` for what can't be called.
inline value call(runtime& run, const value& v, arguments given) {
  run.step();
  const runtime::level inside(run);
  if (const auto c = v.as<callable>()) return c->call(run, std::move(given));
  need_defined(run, v);
  run.fail("'" + v.type_name() + "' object is not callable");
}

// Reading bound arguments.

inline std::string_view need_text(runtime& run, const value& v, std::string_view what) {
  need_defined(run, v);
  if (!v.text()) run.fail(std::string(what) + " must be str, not " + v.type_name());
  return v.text()->view();
}
inline std::int64_t need_integer(runtime& run, const value& v, std::string_view what) {
  need_defined(run, v);
  const auto n = v.integer();
  if (!n) run.fail(std::string(what) + " must be int, not " + v.type_name());
  return *n;
}

}  // namespace effinfer::inline v0::text::jinja
