#pragma once
// a.b and a["b"]: Jinja looks for a Python attribute first with a dot, for an item first with brackets, and for the other
// then; what isn't there is undefined. So `message.items` is the method, and `message["items"]` the field if there is one.
// Lists and dicts can't be changed (transformers renders in Jinja's immutable sandbox), and nothing here has hidden attributes.

#include <effinfer/text/jinja/calling.hpp>
#include <effinfer/text/jinja/string_methods.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// An object with attributes of its own.
class object_with_attributes : public object {
 public:
  /// `self` is this object. Nothing: there is no such attribute.
  virtual std::optional<value> attribute(runtime& run, const value& self, std::string_view name) = 0;
};
/// The same for what can be called too.
class callable_with_attributes : public callable {
 public:
  virtual std::optional<value> attribute(runtime& run, const value& self, std::string_view name) = 0;
};

/// What namespace() gives: the only variable that an inner block can change.
class name_space : public object_with_attributes {
 public:
  dictionary attributes;

  std::optional<value> attribute(runtime& run, const value&, std::string_view name) override {
    run.step(1 + attributes.entries().size() / 8);
    const value* found = attributes.find(name);
    return found ? std::optional<value>(*found) : std::nullopt;
  }
  [[nodiscard]] std::string written() const override { return "<Namespace>"; }
  void clear() override { attributes = {}; }
};

namespace container_methods {

inline value view(runtime& run, const value& self, const arguments& given, sequence_kind kind) {
  static_cast<void>(given.bind_positional(run, "items", 0));
  const dictionary& d = *self.mapping();
  run.step(d.entries().size());
  std::vector<value> all;
  all.reserve(d.entries().size());
  for (const auto& [key, item] : d.entries()) {
    all.push_back(kind == sequence_kind::keys     ? key
                  : kind == sequence_kind::values ? item
                                                  : make_tuple(run, {key, item}));
  }
  return make_sequence(run, kind, std::move(all));
}
inline value keys(runtime& run, const value& self, const arguments& given) {
  return view(run, self, given, sequence_kind::keys);
}
inline value values(runtime& run, const value& self, const arguments& given) {
  return view(run, self, given, sequence_kind::values);
}
inline value items(runtime& run, const value& self, const arguments& given) {
  return view(run, self, given, sequence_kind::items);
}
inline value get(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind_positional(run, "get", 2, 1);
  const value* found = self.mapping()->find_spelled(spell_key(run, *a[0]));
  return found ? *found : a[1] ? *a[1] : value();
}
inline value copy(runtime& run, const value& self, const arguments& given) {
  static_cast<void>(given.bind_positional(run, "copy", 0));
  return self;  // nothing can change it, so the copy may be the same
}
inline value count(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind_positional(run, "count", 1, 1);
  std::int64_t n = 0;
  for (const value& v : self.elements()->elements) n += are_equal(run, v, *a[0]);
  return n;
}
inline value index(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind_positional(run, "index", 3, 1);
  const auto& all = self.elements()->elements;
  const auto size = static_cast<std::int64_t>(all.size());
  const auto position = [&](const std::optional<value>& v, std::int64_t missing) {
    const std::int64_t n = v ? need_integer(run, *v, "slice index") : missing;
    return n < 0 ? (n < -size ? 0 : n + size) : std::min(n, size);
  };
  for (std::int64_t i = position(a[1], 0), end = position(a[2], size); i < end; ++i) {
    if (are_equal(run, all[static_cast<std::size_t>(i)], *a[0])) return i;
  }
  run.fail("the value is not in the list");
}
inline value refuse(runtime& run, const value& self, const arguments&) {
  run.fail("a template can't change a " + self.type_name(), error_code::malformed,
           "use + to make a new one, or a namespace");
}

inline std::span<const method> of_dict() {
  static constexpr method methods[] = {{"items", items},    {"keys", keys},         {"values", values}, {"get", get},
                                       {"copy", copy},      {"fromkeys", nullptr},  {"clear", refuse},  {"pop", refuse},
                                       {"popitem", refuse}, {"setdefault", refuse}, {"update", refuse}};
  return methods;
}
inline std::span<const method> of_list() {
  static constexpr method methods[] = {{"count", count},   {"index", index},    {"copy", copy},     {"append", refuse},
                                       {"clear", refuse},  {"extend", refuse},  {"insert", refuse}, {"pop", refuse},
                                       {"remove", refuse}, {"reverse", refuse}, {"sort", refuse}};
  return methods;
}
inline std::span<const method> of_tuple() { return of_list().first(2); }

inline value is_integer(runtime& run, const value& self, const arguments& given) {
  static_cast<void>(given.bind_positional(run, "is_integer", 0));
  const double d = *self.get_if<double>();
  return std::isfinite(d) && d == std::floor(d);
}
inline std::span<const method> of_float() {
  static constexpr method methods[] = {{"is_integer", is_integer}, {"as_integer_ratio", nullptr},
                                       {"conjugate", nullptr},     {"fromhex", nullptr},
                                       {"hex", nullptr},           {"imag", nullptr},
                                       {"real", nullptr}};
  return methods;
}
inline std::span<const method> of_int() {
  static constexpr method methods[] = {
      {"bit_length", nullptr}, {"bit_count", nullptr},       {"conjugate", nullptr},   {"imag", nullptr},
      {"real", nullptr},       {"numerator", nullptr},       {"denominator", nullptr}, {"to_bytes", nullptr},
      {"from_bytes", nullptr}, {"as_integer_ratio", nullptr}};
  return methods;
}

}  // namespace container_methods

/// A Python attribute: a method, or what an object gives by name. Errors: `unsupported` for methods that Python has and we haven't.
inline std::optional<value> own_attribute(runtime& run, const value& v, std::string_view name) {
  if (const auto o = v.as<object_with_attributes>()) return o->attribute(run, v, name);
  if (const auto o = v.as<callable_with_attributes>()) return o->attribute(run, v, name);
  std::span<const method> methods;
  if (v.text()) {
    methods = string_methods::table();
  } else if (v.mapping()) {
    methods = container_methods::of_dict();
  } else if (const sequence* s = v.elements(); s && s->kind == sequence_kind::list) {
    methods = container_methods::of_list();
  } else if (s && (s->kind == sequence_kind::tuple || s->kind == sequence_kind::range)) {
    methods = container_methods::of_tuple();
  } else if (v.get_if<double>()) {
    methods = container_methods::of_float();
  } else if (v.integer()) {
    methods = container_methods::of_int();
  }
  for (const method& m : methods) {
    if (m.name != name) continue;
    if (m.body == nullptr)
      run.fail("the attribute " + std::string(name) + " of " + v.type_name(), error_code::unsupported);
    return make_object<bound_method>(run, std::string(name), v, m.body);
  }
  return std::nullopt;
}

/// v[key] of Python, or nothing where it raises KeyError, IndexError or TypeError.
inline std::optional<value> own_item(runtime& run, const value& v, const value& key) {
  if (const dictionary* d = v.mapping()) {
    const auto spelled = spelling(key);
    const value* found = spelled ? d->find_spelled(*spelled) : nullptr;
    return found ? std::optional<value>(*found) : std::nullopt;
  }
  const auto n = key.integer();
  if (!n) return std::nullopt;
  const text_value* t = v.text();
  const sequence* s = v.elements();
  if (s && s->kind > sequence_kind::range) return std::nullopt;
  if (!t && !s) return std::nullopt;
  if (t) run.look(t->view().size());
  const auto size = static_cast<std::int64_t>(t ? count_characters(t->view()) : s->elements.size());
  if (*n >= size || *n < -size) return std::nullopt;
  const auto i = static_cast<std::size_t>(*n < 0 ? *n + size : *n);
  if (s) return s->elements[i];
  const std::size_t at = byte_of_character(t->view(), i);
  return make_text(run, std::string(t->view().substr(at, static_cast<std::size_t>(utf8_length(t->view()[at])))),
                   t->is_markup);
}

inline value nothing_there(const value& v, const value& key) {
  if (const text_value* t = key.text())
    return make_undefined("'" + v.type_name() + " object' has no attribute '" + std::string(t->view().substr(0, 100)) +
                          "'");
  return make_undefined(v.type_name() + " object has no such element");
}

/// v.name
inline value get_attribute(runtime& run, const value& v, const std::string& name) {
  run.step();
  need_defined(run, v);
  if (auto found = own_attribute(run, v, name)) return *std::move(found);
  if (const dictionary* d = v.mapping()) {
    run.step(1 + d->entries().size() / 64);
    if (const value* found = d->find(name)) return *found;
  }
  return nothing_there(v, name);
}

/// v[key]
inline value get_item(runtime& run, const value& v, const value& key) {
  run.step();
  need_defined(run, v);
  if (auto found = own_item(run, v, key)) return *std::move(found);
  if (const text_value* t = key.text()) {
    if (auto found = own_attribute(run, v, t->view())) return *std::move(found);
  }
  return nothing_there(v, key);
}

/// v[start:stop:step]; None or nothing: left out. Errors: `malformed`.
inline value get_slice(runtime& run, const value& v, const value& start, const value& stop, const value& step) {
  need_defined(run, v);
  const text_value* t = v.text();
  const sequence* s = v.elements();
  if (!t && !(s && s->kind <= sequence_kind::range)) run.fail("'" + v.type_name() + "' object can't be sliced");
  for (const value* part : {&start, &stop, &step}) {
    if (!part->is_none() && !part->integer()) run.fail("slice indices must be integers or None");
  }
  const std::int64_t stride = step.is_none() ? 1 : *step.integer();
  if (stride == 0) run.fail("slice step cannot be zero");
  if (t) run.look(t->view().size());
  const auto size = static_cast<std::int64_t>(t ? count_characters(t->view()) : s->elements.size());
  const std::int64_t lowest = stride < 0 ? -1 : 0, highest = stride < 0 ? size - 1 : size;
  const auto bound = [&](const value& part, std::int64_t missing) {
    if (part.is_none()) return missing;
    const std::int64_t n = *part.integer();
    return n < 0 ? (n < -size ? lowest : std::max(n + size, lowest)) : std::min(n, highest);
  };
  const std::int64_t first = bound(start, stride < 0 ? highest : lowest),
                     last = bound(stop, stride < 0 ? lowest : highest);
  if (t && stride == 1) {
    if (first >= last) return make_text(run, std::string(), t->is_markup);
    const std::size_t from = byte_of_character(t->view(), static_cast<std::size_t>(first));
    const std::size_t to = byte_of_character(t->view(), static_cast<std::size_t>(last - first), from);
    return make_text(run, std::string(t->view().substr(from, to - from)), t->is_markup);
  }
  std::vector<std::size_t> chosen;
  if (stride > 0 ? first < last : first > last) {
    const std::uint64_t distance = static_cast<std::uint64_t>(stride > 0 ? last - first : first - last);
    const std::uint64_t pace =
        stride > 0 ? static_cast<std::uint64_t>(stride) : std::uint64_t{0} - static_cast<std::uint64_t>(stride);
    const std::uint64_t count = (distance - 1) / pace + 1;
    run.step(count);
    run.make(count * sizeof(value));
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto gone = static_cast<std::int64_t>(i * pace);
      chosen.push_back(static_cast<std::size_t>(stride > 0 ? first + gone : first - gone));
    }
  }
  if (t) {
    run.make_string(4 * t->view().size());
    const auto all = to_code_points(t->view());
    std::string out;
    for (const std::size_t i : chosen) append_utf8(out, all[i]);
    return make_text(run, std::move(out), t->is_markup);
  }
  std::vector<value> all;
  for (const std::size_t i : chosen) all.push_back(s->elements[i]);
  if (s->kind == sequence_kind::range) {
    sequence part(sequence_kind::range, std::move(all));
    const auto at = [&](std::int64_t i) {  // modulo 2^64: the ends of a range may lie where no element does
      return static_cast<std::int64_t>(static_cast<std::uint64_t>(s->range[0]) +
                                       static_cast<std::uint64_t>(i) * static_cast<std::uint64_t>(s->range[2]));
    };
    part.range[0] = at(first), part.range[1] = at(last);
    part.range[2] =
        static_cast<std::int64_t>(static_cast<std::uint64_t>(stride) * static_cast<std::uint64_t>(s->range[2]));
    return std::make_shared<const sequence>(std::move(part));
  }
  return make_sequence(run, s->kind, std::move(all));
}

}  // namespace effinfer::inline v0::text::jinja
