#pragma once
// The tests of Jinja: `x is defined`, `x is divisibleby 3`, and by name in select("odd").

#include <effinfer/text/jinja/attributes.hpp>

#include <cmath>
#include <span>
#include <string>
#include <string_view>

namespace effinfer::inline v0::text::jinja {

struct test {
  std::string_view name;
  bool (*body)(runtime&, const value&, const arguments&);
};

bool is_known_filter(std::string_view name);
bool is_known_test(std::string_view name);

namespace tests {

inline void take_none(runtime& run, const arguments& given) { static_cast<void>(given.bind(run, "test", {})); }

template <bool (*Holds)(const value&)>
bool simple(runtime& run, const value& v, const arguments& given) {
  take_none(run, given);
  return Holds(v);
}
inline bool defined(const value& v) { return !v.is_undefined(); }
inline bool not_defined(const value& v) { return v.is_undefined(); }
inline bool none(const value& v) { return v.is_none(); }
inline bool boolean(const value& v) { return v.get_if<bool>() != nullptr; }
inline bool is_exactly_true(const value& v) { return v.get_if<bool>() && *v.get_if<bool>(); }
inline bool is_exactly_false(const value& v) { return v.get_if<bool>() && !*v.get_if<bool>(); }
inline bool integer(const value& v) { return v.get_if<std::int64_t>() != nullptr; }
inline bool floating(const value& v) { return v.get_if<double>() != nullptr; }
inline bool number(const value& v) { return v.is_number(); }
inline bool string(const value& v) { return v.text() != nullptr; }
inline bool mapping(const value& v) { return v.mapping() != nullptr; }
inline bool iterable(const value& v) { return is_iterable(v); }
/// Has a length and can be indexed: dicts are sequences to Jinja.
inline bool sequence_like(const value& v) {
  return v.is_undefined() || v.text() || v.mapping() || (v.elements() && v.elements()->kind <= sequence_kind::range);
}
inline bool can_be_called(const value& v) { return v.as<callable>() != nullptr || v.is_undefined(); }
inline bool is_escaped(const value& v) { return v.text() && v.text()->is_markup; }

inline bool lower(runtime& run, const value& v, const arguments& given) {
  take_none(run, given);
  return string_methods::all_cased_are(run, printed(run, v).view(), is_lower_case);
}
inline bool upper(runtime& run, const value& v, const arguments& given) {
  take_none(run, given);
  return string_methods::all_cased_are(run, printed(run, v).view(), is_upper_case);
}

/// v % n == wanted. (Of a string this would be formatting; nobody means that.)
inline bool has_remainder(runtime& run, const value& v, const value& n, std::int64_t wanted) {
  return are_equal(run, calculate(run, v, arithmetic::modulo, n), wanted);
}
inline bool odd(runtime& run, const value& v, const arguments& given) {
  take_none(run, given);
  return has_remainder(run, v, 2, 1);
}
inline bool even(runtime& run, const value& v, const arguments& given) {
  take_none(run, given);
  return has_remainder(run, v, 2, 0);
}
inline bool divisible(runtime& run, const value& v, const arguments& given) {
  return has_remainder(run, v, *given.bind(run, "divisibleby", {"num"}, 1)[0], 0);
}
inline bool same(runtime& run, const value& v, const arguments& given) {
  const value other = *given.bind(run, "sameas", {"other"}, 1)[0];
  if (v.is_none() || v.get_if<bool>()) return v.type_name() == other.type_name() && are_equal(run, v, other);
  if (const auto* s = v.get_if<std::shared_ptr<const sequence>>()) return v.elements() == other.elements() && s;
  if (v.mapping()) return v.mapping() == other.mapping();
  if (v.as()) return v.as() == other.as();
  return v.type_name() == other.type_name() && !v.is_undefined() && are_equal(run, v, other);
}
inline bool in(runtime& run, const value& v, const arguments& given) {
  return contains(run, *given.bind(run, "in", {"seq"}, 1)[0], v);
}
inline bool equal(runtime& run, const value& v, const arguments& given) {
  return are_equal(run, v, *given.bind_positional(run, "eq", 1, 1)[0]);
}
inline bool unequal(runtime& run, const value& v, const arguments& given) { return !equal(run, v, given); }
template <order Wanted>
bool ordered(runtime& run, const value& v, const arguments& given) {
  return is_ordered(run, v, Wanted, *given.bind_positional(run, "compare", 1, 1)[0]);
}
inline bool filter(runtime& run, const value& v, const arguments& given) {
  take_none(run, given);
  spell_key(run, v);  // unhashable values are an error
  return v.text() && is_known_filter(v.text()->view());
}
inline bool test_name(runtime& run, const value& v, const arguments& given) {
  take_none(run, given);
  spell_key(run, v);
  return v.text() && is_known_test(v.text()->view());
}

inline std::span<const test> table() {
  static constexpr test all[] = {
      {"defined", simple<defined>},
      {"undefined", simple<not_defined>},
      {"none", simple<none>},
      {"boolean", simple<boolean>},
      {"true", simple<is_exactly_true>},
      {"false", simple<is_exactly_false>},
      {"integer", simple<integer>},
      {"float", simple<floating>},
      {"number", simple<number>},
      {"string", simple<string>},
      {"mapping", simple<mapping>},
      {"iterable", simple<iterable>},
      {"sequence", simple<sequence_like>},
      {"callable", simple<can_be_called>},
      {"escaped", simple<is_escaped>},
      {"lower", lower},
      {"upper", upper},
      {"odd", odd},
      {"even", even},
      {"divisibleby", divisible},
      {"sameas", same},
      {"in", in},
      {"filter", filter},
      {"test", test_name},
      {"==", equal},
      {"eq", equal},
      {"equalto", equal},
      {"!=", unequal},
      {"ne", unequal},
      {"<", ordered<order::less>},
      {"lt", ordered<order::less>},
      {"lessthan", ordered<order::less>},
      {"<=", ordered<order::less_or_equal>},
      {"le", ordered<order::less_or_equal>},
      {">", ordered<order::greater>},
      {"gt", ordered<order::greater>},
      {"greaterthan", ordered<order::greater>},
      {">=", ordered<order::greater_or_equal>},
      {"ge", ordered<order::greater_or_equal>},
  };
  return all;
}

}  // namespace tests

inline const test* find_test(std::string_view name) {
  for (const test& t : tests::table()) {
    if (t.name == name) return &t;
  }
  return nullptr;
}
inline bool is_known_test(std::string_view name) { return find_test(name) != nullptr; }

/// v is name(...). Errors: `malformed` for an unknown test.
inline bool apply_test(runtime& run, std::string_view name, const value& v, const arguments& given) {
  run.step();
  const test* t = find_test(name);
  if (!t) run.fail("no test named '" + std::string(name.substr(0, 100)) + "'");
  return t->body(run, v, given);
}

}  // namespace effinfer::inline v0::text::jinja
