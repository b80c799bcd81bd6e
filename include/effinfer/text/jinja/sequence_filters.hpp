#pragma once
// The filters of Jinja that take sequences apart: join, map, select, sort ... `map`, `select` and their kin give an iterator,
// as in Jinja: it has no length, and its elements come once.

#include <effinfer/text/jinja/attributes.hpp>
#include <effinfer/text/jinja/tests.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

struct filter {
  std::string_view name;
  value (*body)(runtime&, const value&, const arguments&);
};
value apply_filter(runtime& run, std::string_view name, const value& v, const arguments& given);

namespace filters {

/// "a.b.0" as a way into values: what `attribute=` names.
class path {
 public:
  path(runtime& run, const std::optional<value>& attribute) {
    if (!attribute || attribute->is_none()) return;
    if (!attribute->text()) {
      parts_.push_back(*attribute);
      return;
    }
    std::string_view rest = attribute->text()->view();
    while (true) {
      const std::size_t dot = rest.find('.');
      const std::string_view part = rest.substr(0, dot);
      const bool is_number = !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
      const read_integer n = is_number ? parse_integer(part, 10) : read_integer();
      if (n.is == read_integer::status::too_large) run.fail("an integer of more than 64 bits", error_code::unsupported);
      parts_.push_back(is_number ? value(n.number) : make_text(run, std::string(part)));
      if (dot == std::string_view::npos) return;
      rest.remove_prefix(dot + 1);
    }
  }
  [[nodiscard]] value of(runtime& run, value v, const std::optional<value>& missing = std::nullopt) const {
    for (const value& part : parts_) {
      v = get_item(run, v, part);
      if (v.is_undefined() && missing) v = *missing;
    }
    return v;
  }

 private:
  std::vector<value> parts_;
};

/// Strings in lower case, all else as it is: how sort and its kin compare unless told otherwise.
inline value without_case(runtime& run, const value& v, bool is_case_sensitive) {
  if (is_case_sensitive || !v.text()) return v;
  return make_text(run, to_lower_case(v.text()->view()));
}
inline bool flag(const std::optional<value>& v) { return v && is_true(*v); }

inline value length(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind_positional(run, "length", 0));
  if (const auto n = length_of(run, v)) return *n;
  run.fail("object of type '" + v.type_name() + "' has no len()");
}
inline value first(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind(run, "first", {}));
  value found;
  return iterate(run, v)->next(run, found) ? found : make_undefined("No first item, sequence was empty.");
}
inline value last(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind(run, "last", {}));
  if (v.as<iterator>())
    run.fail("'" + v.type_name() + "' object is not reversible", error_code::malformed, "put `| list` before `| last`");
  const std::vector<value> all = collect(run, v);
  return all.empty() ? make_undefined("No last item, sequence was empty.") : all.back();
}
inline value list(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind(run, "list", {}));
  return make_list(run, collect(run, v));
}
inline value reverse(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind(run, "reverse", {}));
  if (v.text()) return get_slice(run, v, {}, {}, -1);
  const auto* s = v.get_if<std::shared_ptr<const sequence>>();
  if (s) return make_object<sequence_iterator>(run, *s, true);
  std::vector<value> all = collect(run, v);
  if (!v.as()) {  // a dict
    const value made = make_list(run, std::move(all));
    return make_object<sequence_iterator>(run, *made.get_if<std::shared_ptr<const sequence>>(), true);
  }
  std::reverse(all.begin(), all.end());
  return make_list(run, std::move(all));
}
inline value join(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "join", {"d", "attribute"});
  const printed between(run, a[0] ? *a[0] : value(""));
  const path way(run, a[1]);
  std::string out;
  bool is_first = true;
  value element;
  for (const auto all = iterate(run, v); all->next(run, element);) {
    const printed s(run, way.of(run, std::move(element)));
    run.grow_string(out.size(), s.view().size() + between.view().size());
    if (!is_first) out.append(between.view());
    is_first = false;
    out.append(s.view());
  }
  return make_text(run, std::move(out));
}

/// The key by which sort, min, max and unique compare.
struct keyed {
  std::vector<value> keys;
  value element;
};
inline bool is_before(runtime& run, const keyed& a, const keyed& b) {
  for (std::size_t i = 0; i < a.keys.size(); ++i) {
    if (!are_equal(run, a.keys[i], b.keys[i])) return is_ordered(run, a.keys[i], order::less, b.keys[i]);
  }
  return false;
}
inline std::vector<value> sorted(runtime& run, std::vector<keyed> all, bool is_reversed) {
  run.step(all.size());
  std::stable_sort(all.begin(), all.end(), [&](const keyed& a, const keyed& b) {
    return is_reversed ? is_before(run, b, a) : is_before(run, a, b);
  });
  std::vector<value> elements;
  for (keyed& k : all) elements.push_back(std::move(k.element));
  return elements;
}
inline value sort(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "sort", {"reverse", "case_sensitive", "attribute"});
  std::vector<path> ways;  // "a,b": by a, then by b
  if (a[2] && a[2]->text()) {
    std::string_view rest = a[2]->text()->view();
    for (std::size_t comma = 0; comma != rest.npos; rest.remove_prefix(comma + 1)) {
      comma = rest.find(',');
      ways.emplace_back(run, value(rest.substr(0, comma)));
      if (comma == rest.npos) break;
    }
  } else {
    ways.emplace_back(run, a[2]);
  }
  std::vector<keyed> all;
  for (value& element : collect(run, v)) {
    keyed k;
    for (const path& way : ways) k.keys.push_back(without_case(run, way.of(run, element), flag(a[1])));
    k.element = std::move(element);
    run.make(sizeof(keyed));
    all.push_back(std::move(k));
  }
  return make_list(run, sorted(run, std::move(all), flag(a[0])));
}
inline value dict_sort(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "dictsort", {"case_sensitive", "by", "reverse"});
  const std::string_view by = a[1] ? need_text(run, *a[1], "by") : std::string_view("key");
  if (by != "key" && by != "value") run.fail("You can only sort by either \"key\" or \"value\"");
  need_defined(run, v);
  if (!v.mapping()) run.fail("dictsort needs a dict, not " + v.type_name());
  std::vector<keyed> all;
  for (const auto& [key, item] : v.mapping()->entries()) {
    all.push_back({{without_case(run, by == "key" ? key : item, flag(a[0]))}, make_tuple(run, {key, item})});
  }
  return make_list(run, sorted(run, std::move(all), flag(a[2])));
}
template <bool Greatest>
value extreme(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "min", {"case_sensitive", "attribute"});
  const path way(run, a[1]);
  std::optional<keyed> best;
  value element;
  for (const auto all = iterate(run, v); all->next(run, element);) {
    keyed k{{without_case(run, way.of(run, element), flag(a[0]))}, element};
    if (!best || is_ordered(run, k.keys[0], Greatest ? order::greater : order::less, best->keys[0])) {
      best = std::move(k);
    }
  }
  return best ? best->element : make_undefined("No aggregated item, sequence was empty.");
}
inline value sum(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "sum", {"attribute", "start"});
  const path way(run, a[0]);
  value total = a[1] ? *a[1] : value(0);
  if (total.text()) run.fail("sum() can't sum strings", error_code::malformed, "use join");
  value element;
  for (const auto all = iterate(run, v); all->next(run, element);) {
    total = calculate(run, total, arithmetic::add, way.of(run, std::move(element)));
  }
  return total;
}

/// Elements of `source` in lists of `size`.
class batch_iterator : public iterator {
 public:
  batch_iterator(std::shared_ptr<iterator> source, std::size_t size, std::optional<value> fill)
      : iterator("generator", std::max(source->depth() + 1, fill ? fill->depth() + 1 : 1)),
        source_(std::move(source)),
        size_(size),
        fill_(std::move(fill)) {}

 protected:
  bool advance(runtime& run, value& v) override {
    std::vector<value> batch;
    value element;
    while (batch.size() < size_ && source_->next(run, element)) {
      run.make(sizeof(value));
      batch.push_back(std::move(element));
    }
    if (batch.empty()) return false;
    while (fill_ && batch.size() < size_) {
      run.make(sizeof(value));
      batch.push_back(*fill_);
    }
    v = make_list(run, std::move(batch));
    return true;
  }

 private:
  std::shared_ptr<iterator> source_;
  std::size_t size_;
  std::optional<value> fill_;
};
inline value batch(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "batch", {"linecount", "fill_with"}, 1);
  std::optional<value> fill = a[1];
  if (fill && fill->is_none()) fill.reset();
  const std::int64_t size = need_integer(run, *a[0], "linecount");
  if (size < 1) run.fail("batch(): linecount is " + std::to_string(size));
  return make_object<batch_iterator>(run, iterate(run, v), static_cast<std::size_t>(size), fill);
}

/// A source, and for each element of it what `map`, `select` and their kin were told to do.
class element_iterator : public iterator {
 public:
  enum class work { map_filter, map_path, select, reject, unique, items };

  element_iterator(std::shared_ptr<iterator> source, work w, path way, std::string name, arguments given,
                   std::optional<value> missing, bool is_case_sensitive, int extra_depth)
      : iterator("generator", std::max(source->depth(), extra_depth) + 1),
        source_(std::move(source)),
        work_(w),
        path_(std::move(way)),
        name_(std::move(name)),
        given_(std::move(given)),
        missing_(std::move(missing)),
        is_case_sensitive_(is_case_sensitive) {}

 protected:
  bool advance(runtime& run, value& v) override {
    value element;
    while (source_->next(run, element)) {
      switch (work_) {
        case work::map_filter: v = apply_filter(run, name_, element, given_); return true;
        case work::map_path: v = path_.of(run, std::move(element), missing_); return true;
        case work::items: v = std::move(element); return true;
        case work::unique: {
          run.make(64);
          std::string key = spell_key(run, without_case(run, path_.of(run, element), is_case_sensitive_));
          if (!seen_.insert(std::move(key)).second) break;
          v = std::move(element);
          return true;
        }
        case work::select:
        case work::reject: {
          const value tested = path_.of(run, element);
          const bool holds = name_.empty() ? is_true(tested) : apply_test(run, name_, tested, given_);
          if (holds != (work_ == work::select)) break;
          v = std::move(element);
          return true;
        }
      }
    }
    return false;
  }

 private:
  std::shared_ptr<iterator> source_;
  work work_;
  path path_;
  std::string name_;
  arguments given_;
  std::optional<value> missing_;
  bool is_case_sensitive_;
  std::unordered_set<std::string> seen_;
};

inline int depth_of(const arguments& given) {
  int depth = 0;
  for (const value& v : given.positional) depth = std::max(depth, v.depth());
  for (const auto& [key, item] : given.named) depth = std::max(depth, item.depth());
  return depth;
}
inline value element_by_element(runtime& run, const value& v, element_iterator::work w, path way, std::string name,
                                arguments given, std::optional<value> missing = std::nullopt,
                                bool is_case_sensitive = false) {
  // Jinja looks at the source's truth first: None gives no elements, and no error.
  const bool is_checked = w != element_iterator::work::unique && w != element_iterator::work::items;
  const auto source = is_checked && !is_true(v) ? iterate(run, make_undefined("")) : iterate(run, v);
  const int depth = std::max(depth_of(given), missing ? missing->depth() : 0);
  return make_object<element_iterator>(run, source, w, std::move(way), std::move(name), std::move(given),
                                       std::move(missing), is_case_sensitive, depth);
}

inline value map(runtime& run, const value& v, const arguments& given) {
  if (given.positional.empty() && !given.named.empty()) {
    const auto a = given.bind(run, "map", {"attribute", "default"}, 1);
    std::optional<value> missing = a[1];
    if (missing && missing->is_none()) missing.reset();
    return element_by_element(run, v, element_iterator::work::map_path, path(run, a[0]), "", {}, missing);
  }
  if (given.positional.empty()) run.fail("map requires a filter argument");
  arguments rest = given;
  rest.positional.erase(rest.positional.begin());
  return element_by_element(run, v, element_iterator::work::map_filter, path(run, std::nullopt),
                            std::string(need_text(run, given.positional[0], "filter name")), std::move(rest));
}
template <element_iterator::work Work, bool ByAttribute>
value choose(runtime& run, const value& v, const arguments& given) {
  arguments rest = given;
  std::optional<value> attribute;
  std::string name;
  if (ByAttribute) {
    if (rest.positional.empty()) run.fail("Missing parameter for attribute name");
    attribute = rest.positional[0];
    rest.positional.erase(rest.positional.begin());
  }
  if (!rest.positional.empty()) {
    name = need_text(run, rest.positional[0], "test name");
    rest.positional.erase(rest.positional.begin());
    if (!is_known_test(name)) run.fail("no test named '" + name.substr(0, 100) + "'");
  }
  return element_by_element(run, v, Work, path(run, attribute), std::move(name), std::move(rest));
}
inline value unique(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "unique", {"case_sensitive", "attribute"});
  return element_by_element(run, v, element_iterator::work::unique, path(run, a[1]), "", {}, std::nullopt, flag(a[0]));
}
inline value items(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind(run, "items", {}));
  if (!v.mapping() && !v.is_undefined()) run.fail("Can only get item pairs from a mapping.");
  const value all = v.is_undefined() ? v : container_methods::items(run, v, {});
  return element_by_element(run, all, element_iterator::work::items, path(run, std::nullopt), "", {});
}

inline std::span<const filter> of_sequences() {
  using work = element_iterator::work;
  static constexpr filter all[] = {
      {"length", length},
      {"count", length},
      {"first", first},
      {"last", last},
      {"list", list},
      {"reverse", reverse},
      {"join", join},
      {"sort", sort},
      {"dictsort", dict_sort},
      {"min", extreme<false>},
      {"max", extreme<true>},
      {"sum", sum},
      {"batch", batch},
      {"map", map},
      {"unique", unique},
      {"items", items},
      {"select", choose<work::select, false>},
      {"reject", choose<work::reject, false>},
      {"selectattr", choose<work::select, true>},
      {"rejectattr", choose<work::reject, true>},
  };
  return all;
}

}  // namespace filters

}  // namespace effinfer::inline v0::text::jinja
