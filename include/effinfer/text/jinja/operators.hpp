#pragma once
// The operators of a template with Python's rules: truth, equality, order, arithmetic, membership.

#include <effinfer/text/jinja/iteration.hpp>
#include <effinfer/text/jinja/numbers.hpp>
#include <effinfer/text/jinja/print.hpp>
#include <effinfer/text/jinja/value.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// Errors: always, for an undefined value: what it is that isn't there.
[[noreturn]] inline void fail_undefined(runtime& run, const value& v) { run.fail(*v.get_if<undefined>()->reason); }
inline void need_defined(runtime& run, const value& v) {
  if (v.is_undefined()) fail_undefined(run, v);
}

/// bool(v)
inline bool is_true(const value& v) {
  if (v.is_none() || v.is_undefined()) return false;
  if (const auto n = v.integer()) return *n != 0;
  if (const auto* d = v.get_if<double>()) return *d != 0;
  if (const text_value* t = v.text()) return !t->bytes->empty();
  if (const sequence* s = v.elements()) return !s->elements.empty();
  if (const dictionary* m = v.mapping()) return !m->entries().empty();
  return true;
}

/// a == b
inline bool are_equal(runtime& run, const value& a, const value& b) {
  run.step();
  const runtime::level inside(run);
  if (a.is_undefined() || b.is_undefined()) return a.is_undefined() && b.is_undefined();
  if (a.is_none() || b.is_none()) return a.is_none() && b.is_none();
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == std::partial_ordering::equivalent;
  if (a.text() && b.text()) {
    run.look(std::min(a.text()->view().size(), b.text()->view().size()) / 2);
    return a.text()->view() == b.text()->view();
  }
  if (const dictionary* m = a.mapping(), *n = b.mapping(); m && n) {
    if (m->entries().size() != n->entries().size()) return false;
    for (const auto& [key, item] : m->entries()) {
      const value* other = n->find_spelled(spell_key(run, key));
      if (!other || !are_equal(run, item, *other)) return false;
    }
    return true;
  }
  if (const sequence* s = a.elements(), *t = b.elements(); s && t) {
    const bool is_set = s->kind == sequence_kind::keys || s->kind == sequence_kind::items;
    const bool is_other_set = t->kind == sequence_kind::keys || t->kind == sequence_kind::items;
    if (is_set != is_other_set || (!is_set && s->kind != t->kind)) return false;
    if (s->kind == sequence_kind::values) return s == t;
    if (s->elements.size() != t->elements.size()) return false;
    for (std::size_t i = 0; i < s->elements.size(); ++i) {
      if (!is_set) {
        if (!are_equal(run, s->elements[i], t->elements[i])) return false;
      } else if (std::none_of(t->elements.begin(), t->elements.end(),
                              [&](const value& e) { return are_equal(run, s->elements[i], e); })) {
        return false;
      }
    }
    return true;
  }
  const auto o = a.as(), p = b.as();
  return o && o == p;
}

enum class order { less, less_or_equal, greater, greater_or_equal };

/// a < b and the like. Errors: `malformed` for types that have no order.
inline bool is_ordered(runtime& run, const value& a, order wanted, const value& b) {
  run.step();
  const runtime::level inside(run);
  const auto holds = [&](std::partial_ordering o) {
    switch (wanted) {
      case order::less: return o == std::partial_ordering::less;
      case order::less_or_equal: return o == std::partial_ordering::less || o == std::partial_ordering::equivalent;
      case order::greater: return o == std::partial_ordering::greater;
      case order::greater_or_equal:
        return o == std::partial_ordering::greater || o == std::partial_ordering::equivalent;
    }
    return false;
  };
  need_defined(run, a);
  need_defined(run, b);
  if (a.is_number() && b.is_number()) return holds(compare_numbers(a, b));
  if (a.text() && b.text()) {
    run.look(std::min(a.text()->view().size(), b.text()->view().size()) / 2);
    return holds(a.text()->view().compare(b.text()->view()) <=> 0);  // bytes of UTF-8 sort as code points
  }
  const sequence *s = a.elements(), *t = b.elements();
  if (s && t && s->kind == t->kind && (s->kind == sequence_kind::list || s->kind == sequence_kind::tuple)) {
    const std::size_t common = std::min(s->elements.size(), t->elements.size());
    for (std::size_t i = 0; i < common; ++i) {
      if (!are_equal(run, s->elements[i], t->elements[i]))
        return is_ordered(run, s->elements[i], wanted, t->elements[i]);
    }
    return holds(s->elements.size() <=> t->elements.size());
  }
  constexpr const char* signs[] = {"<", "<=", ">", ">="};
  run.fail(std::string("'") + signs[static_cast<int>(wanted)] + "' not supported between instances of '" +
           a.type_name() + "' and '" + b.type_name() + "'");
}

/// needle in haystack
inline bool contains(runtime& run, const value& haystack, const value& needle) {
  if (const text_value* t = haystack.text()) {
    need_defined(run, needle);
    if (!needle.text()) run.fail("'in <string>' requires string as left operand, not " + needle.type_name());
    run.look(2 * t->view().size());
    return t->view().find(needle.text()->view()) != std::string_view::npos;
  }
  if (const dictionary* m = haystack.mapping()) return m->find_spelled(spell_key(run, needle)) != nullptr;
  const auto all = iterate(run, haystack);
  value v;
  while (all->next(run, v)) {
    if (are_equal(run, v, needle)) return true;
  }
  return false;
}

/// &, <, > and quotes as HTML writes them: what Markup does to strings that are not.
inline std::string escape_html(runtime& run, std::string_view s) {
  run.make_string(6 * s.size());
  std::string out;
  for (const char c : s) {
    switch (c) {
      case '&': out.append("&amp;"); break;
      case '<': out.append("&lt;"); break;
      case '>': out.append("&gt;"); break;
      case '\'': out.append("&#39;"); break;
      case '"': out.append("&#34;"); break;
      default: out.push_back(c);
    }
  }
  return out;
}
inline std::string escaped(runtime& run, const value& v) {
  const text_value* t = v.text();
  if (t && t->is_markup) return *t->bytes;
  return escape_html(run, printed(run, v).view());
}

enum class arithmetic { add, subtract, multiply, divide, floor_divide, modulo, power };

[[noreturn]] inline void fail_operands(runtime& run, arithmetic op, const value& a, const value& b) {
  need_defined(run, a);
  need_defined(run, b);
  constexpr const char* signs[] = {"+", "-", "*", "/", "//", "%", "**"};
  run.fail(std::string("unsupported operand types for ") + signs[static_cast<int>(op)] + ": '" + a.type_name() +
           "' and '" + b.type_name() + "'");
}

inline value integer_power(runtime& run, std::int64_t base, std::int64_t exponent);

/// Numbers only. Errors: `malformed` (division by zero), `unsupported` (an integer of more than 64 bits).
inline value compute(runtime& run, const value& a, arithmetic op, const value& b) {
  const auto m = a.integer(), n = b.integer();
  if (m && n && !(op == arithmetic::power && *n < 0)) {
    std::int64_t result = 0;
    bool fits = true;
    if (*n == 0 && (op == arithmetic::divide || op == arithmetic::floor_divide || op == arithmetic::modulo)) {
      run.fail("division by zero");
    }
    switch (op) {
      case arithmetic::add: fits = !__builtin_add_overflow(*m, *n, &result); break;
      case arithmetic::subtract: fits = !__builtin_sub_overflow(*m, *n, &result); break;
      case arithmetic::multiply: fits = !__builtin_mul_overflow(*m, *n, &result); break;
      case arithmetic::divide: return static_cast<double>(static_cast<long double>(*m) / static_cast<long double>(*n));
      case arithmetic::floor_divide: {
        const auto q = floor_divide(*m, *n);
        fits = q.has_value();
        result = q.value_or(0);
        break;
      }
      case arithmetic::modulo: result = floor_modulo(*m, *n); break;
      case arithmetic::power: return integer_power(run, *m, *n);
    }
    if (!fits) run.fail("an integer of more than 64 bits", error_code::unsupported);
    return result;
  }
  const double x = to_float(a), y = to_float(b);
  switch (op) {
    case arithmetic::add: return x + y;
    case arithmetic::subtract: return x - y;
    case arithmetic::multiply: return x * y;
    case arithmetic::power: {
      if (x == 0 && y < 0) run.fail("0.0 cannot be raised to a negative power");
      if (x < 0 && std::isfinite(x) && std::isfinite(y) && y != std::floor(y))
        run.fail("a complex number", error_code::unsupported);
      const double z = std::pow(x, y);
      if (std::isinf(z) && std::isfinite(x) && std::isfinite(y)) run.fail("the result of ** is too large for a float");
      return z;
    }
    default: break;
  }
  if (y == 0) run.fail("float division by zero");
  if (op == arithmetic::divide) return x / y;
  const float_quotient q = floor_divide(x, y);
  return op == arithmetic::modulo ? q.remainder : q.quotient;
}

inline value integer_power(runtime& run, std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  if (base == 1 || exponent == 0) return std::int64_t{1};
  if (base == 0) return std::int64_t{0};
  if (base == -1) return std::int64_t{exponent % 2 == 0 ? 1 : -1};
  for (; exponent > 0; --exponent) {  // overflows within 64 steps, as |base| >= 2
    if (__builtin_mul_overflow(result, base, &result))
      run.fail("an integer of more than 64 bits", error_code::unsupported);
  }
  return result;
}

/// Strings and lists, `count` times.
inline std::optional<value> repeat(runtime& run, const value& v, const value& times) {
  const auto count = times.integer();
  if (!count) return std::nullopt;
  const auto n = static_cast<std::uint64_t>(std::max<std::int64_t>(*count, 0));
  if (const text_value* t = v.text()) {
    run.make_string(n, t->view().size());
    std::string out;
    out.reserve(n * t->view().size());
    if (!t->view().empty()) {
      for (std::uint64_t i = 0; i < n; ++i) out.append(t->view());
    }
    return make_text(run, std::move(out), t->is_markup);
  }
  const sequence* s = v.elements();
  if (!s || (s->kind != sequence_kind::list && s->kind != sequence_kind::tuple)) return std::nullopt;
  run.make_string(n, s->elements.size() * sizeof(value));
  std::vector<value> all;
  all.reserve(n * s->elements.size());
  if (!s->elements.empty()) {
    for (std::uint64_t i = 0; i < n; ++i) all.insert(all.end(), s->elements.begin(), s->elements.end());
  }
  return make_sequence(run, s->kind, std::move(all));
}

/// All of + - * / // % **, but for `%` with a string on the left (see format.hpp).
inline value calculate(runtime& run, const value& a, arithmetic op, const value& b) {
  if (a.is_number() && b.is_number()) return compute(run, a, op, b);
  if (op == arithmetic::add) {
    if (const text_value* s = a.text(), *t = b.text(); s && t) {
      const bool is_markup = s->is_markup || t->is_markup;
      std::string left = is_markup ? escaped(run, a) : std::string();
      const std::string right = is_markup ? escaped(run, b) : std::string();
      const std::string_view l = is_markup ? std::string_view(left) : s->view();
      const std::string_view r = is_markup ? std::string_view(right) : t->view();
      run.check_string(l.size() + r.size());
      std::string out;
      out.reserve(l.size() + r.size());
      out.append(l).append(r);
      return make_text(run, std::move(out), is_markup);
    }
    if (const sequence* s = a.elements(), *t = b.elements();
        s && t && s->kind == t->kind && (s->kind == sequence_kind::list || s->kind == sequence_kind::tuple)) {
      run.make((s->elements.size() + t->elements.size()) * sizeof(value));
      std::vector<value> all;
      all.reserve(s->elements.size() + t->elements.size());
      all.insert(all.end(), s->elements.begin(), s->elements.end());
      all.insert(all.end(), t->elements.begin(), t->elements.end());
      return make_sequence(run, s->kind, std::move(all));
    }
  }
  if (op == arithmetic::multiply) {
    if (auto repeated = repeat(run, a, b)) return *std::move(repeated);
    if (auto repeated = repeat(run, b, a)) return *std::move(repeated);
  }
  fail_operands(run, op, a, b);
}

/// +v and -v
inline value with_sign(runtime& run, const value& v, bool is_negated) {
  need_defined(run, v);
  if (const auto n = v.integer())
    return is_negated ? compute(run, std::int64_t{0}, arithmetic::subtract, *n) : value(*n);
  if (const auto* d = v.get_if<double>()) return is_negated ? -*d : *d;
  run.fail(std::string("bad operand type for unary ") + (is_negated ? "-" : "+") + ": '" + v.type_name() + "'");
}

}  // namespace effinfer::inline v0::text::jinja
