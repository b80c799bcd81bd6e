#pragma once
// The values of a template: those of Python that Jinja shows, with Python's rules. Immutable and shared, so a copy is a
// pointer; only objects (namespaces, iterators, loops) change.

#include <effinfer/text/jinja/runtime.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace effinfer::inline v0::text::jinja {

class value;
class dictionary;
struct sequence;

/// What a missing name or key evaluates to: prints as nothing, is false, is empty; anything else is an error with `reason`.
struct undefined {
  std::shared_ptr<const std::string> reason;
};

/// A string, well-formed UTF-8; its elements are code points. `is_markup`: Jinja's Markup (what `escape` and `safe` give),
/// which escapes the strings that are added to it.
struct text_value {
  std::shared_ptr<const std::string> bytes;
  bool is_markup = false;

  [[nodiscard]] std::string_view view() const { return *bytes; }
};

/// What is called, iterated once, or changed: namespaces, macros, methods, loops, generators. Its own identity is its equality.
class object {
 public:
  object() = default;
  object(const object&) = delete;
  object& operator=(const object&) = delete;
  virtual ~object() = default;

  /// As Python prints it, more or less.
  [[nodiscard]] virtual std::string written() const = 0;
  /// Drops what it refers to; see runtime::keep.
  virtual void clear() {}
  /// As `depth_of` counts; an object that holds values that can't change counts them.
  [[nodiscard]] virtual int depth() const { return 1; }
};

/// Any value. Default: None.
class value {
 public:
  using data =
      std::variant<std::nullptr_t, undefined, bool, std::int64_t, double, text_value, std::shared_ptr<const sequence>,
                   std::shared_ptr<const dictionary>, std::shared_ptr<object>>;

  value() : data_(nullptr) {}
  value(std::nullptr_t) : data_(nullptr) {}
  template <std::same_as<bool> Boolean>  // only bool itself: pointers and numbers would convert
  value(Boolean b) : data_(b) {}
  template <std::integral Integer>
    requires(!std::same_as<Integer, bool> && !std::same_as<Integer, char>)
  value(Integer n) : data_(static_cast<std::int64_t>(n)) {}
  value(double d) : data_(d) {}
  value(std::string s) : data_(text_value{std::make_shared<const std::string>(std::move(s))}) {}
  value(std::string_view s) : value(std::string(s)) {}
  value(const char* s) : value(std::string(s)) {}
  value(text_value t) : data_(std::move(t)) {}
  value(undefined u) : data_(std::move(u)) {}
  value(std::shared_ptr<const sequence> s) : data_(std::move(s)) {}
  value(std::shared_ptr<const dictionary> d) : data_(std::move(d)) {}
  template <std::derived_from<object> Object>
  value(std::shared_ptr<Object> o) : data_(std::shared_ptr<object>(std::move(o))) {}

  /// [a, b, ...]
  static value list(std::vector<value> elements);
  /// {"a": ..., "b": ...}, in this order; of equal keys the last counts.
  static value dict(std::vector<std::pair<std::string, value>> fields);

  template <class T>
  [[nodiscard]] const T* get_if() const {
    return std::get_if<T>(&data_);
  }
  [[nodiscard]] bool is_none() const { return get_if<std::nullptr_t>() != nullptr; }
  [[nodiscard]] bool is_undefined() const { return get_if<undefined>() != nullptr; }
  [[nodiscard]] const text_value* text() const { return get_if<text_value>(); }
  [[nodiscard]] const sequence* elements() const {
    const auto* s = get_if<std::shared_ptr<const sequence>>();
    return s ? s->get() : nullptr;
  }
  [[nodiscard]] const dictionary* mapping() const {
    const auto* d = get_if<std::shared_ptr<const dictionary>>();
    return d ? d->get() : nullptr;
  }
  /// The object, if there is one of this class.
  template <std::derived_from<object> Object = object>
  [[nodiscard]] std::shared_ptr<Object> as() const {
    const auto* o = get_if<std::shared_ptr<object>>();
    return o ? std::dynamic_pointer_cast<Object>(*o) : nullptr;
  }
  /// A bool or an int, as Python counts them.
  [[nodiscard]] std::optional<std::int64_t> integer() const {
    if (const auto* b = get_if<bool>()) return *b ? 1 : 0;
    if (const auto* n = get_if<std::int64_t>()) return *n;
    return std::nullopt;
  }
  [[nodiscard]] bool is_number() const { return get_if<double>() != nullptr || integer().has_value(); }

  /// 0 for what holds no values, else one more than the deepest of them.
  [[nodiscard]] int depth() const;
  /// Python's name of the type, for messages.
  [[nodiscard]] std::string type_name() const;

 private:
  data data_;
};

/// All that is a list to Python in one way or another; the kinds print, compare and index differently.
enum class sequence_kind { list, tuple, range, keys, values, items };

struct sequence {
  sequence_kind kind;
  std::vector<value> elements;
  int depth = 1;
  std::int64_t range[3] = {};  ///< of kind range: first, stop, step

  /// A list or tuple that holds `e`.
  sequence(sequence_kind k, std::vector<value> e) : kind(k), elements(std::move(e)) {
    for (const value& v : elements) depth = std::max(depth, 1 + v.depth());
  }
};

/// How a key is spelled so that equal keys (1, 1.0, True) are spelled the same; nothing for what Python can't hash, or where the
/// spelling is longer than 64 KiB (tuples can share parts and so be huge without being big).
inline std::optional<std::string> spelling(const value& key, std::size_t room = 1 << 16) {
  if (const auto* t = key.text()) return "s" + *t->bytes;
  if (key.is_none()) return "n";
  if (key.is_undefined()) return "u";
  if (const auto n = key.integer()) return "i" + std::to_string(*n);
  if (const auto* d = key.get_if<double>()) {
    if (*d == std::floor(*d) && std::fabs(*d) < 9e18) return "i" + std::to_string(static_cast<std::int64_t>(*d));
    return "d" + std::string(reinterpret_cast<const char*>(d), sizeof *d);
  }
  if (const auto* o = key.get_if<std::shared_ptr<object>>()) {
    return "o" + std::to_string(reinterpret_cast<std::uintptr_t>(o->get()));
  }
  const sequence* s = key.elements();
  if (!s || (s->kind != sequence_kind::tuple && s->kind != sequence_kind::range)) return std::nullopt;
  std::string all = s->kind == sequence_kind::tuple ? "(" : "r";
  for (const value& v : s->elements) {
    const auto part = spelling(v, room);
    if (!part) return std::nullopt;
    all += std::to_string(part->size()) + ":" + *part;
    if (all.size() > room) return std::nullopt;
  }
  return all;
}

/// A dict: keys in the order in which they first came.
class dictionary {
 public:
  struct entry {
    value key;
    value item;
  };

  [[nodiscard]] const std::vector<entry>& entries() const { return entries_; }
  [[nodiscard]] int depth() const { return depth_; }

  /// The item at a string key, or null.
  [[nodiscard]] const value* find(std::string_view key) const {
    if (index_.empty()) {  // few keys: looking at each is quicker than spelling one
      for (const entry& e : entries_) {
        if (const auto* t = e.key.text(); t && t->view() == key) return &e.item;
      }
      return nullptr;
    }
    return find_spelled("s" + std::string(key));
  }
  /// The item at the key with this spelling, or null.
  [[nodiscard]] const value* find_spelled(const std::string& spelled) const {
    const std::size_t at = position(spelled);
    return at == entries_.size() ? nullptr : &entries_[at].item;
  }
  /// Sets an item; an equal key that is there stays. `spelled` is the key's spelling.
  void set(const std::string& spelled, value key, value item) {
    depth_ = std::max({depth_, 1 + key.depth(), 1 + item.depth()});
    const std::size_t at = position(spelled);
    if (at != entries_.size()) {
      entries_[at].item = std::move(item);
      return;
    }
    entries_.push_back({std::move(key), std::move(item)});
    if (!index_.empty()) {
      index_.emplace(spelled, at);
    } else if (entries_.size() > few) {
      for (std::size_t i = 0; i < entries_.size(); ++i) index_.emplace(*spelling(entries_[i].key), i);
    }
  }
  void set(std::string key, value item) {
    const std::string spelled = "s" + key;
    set(spelled, value(std::move(key)), std::move(item));
  }

 private:
  static constexpr std::size_t few = 8;

  [[nodiscard]] std::size_t position(const std::string& spelled) const {
    if (index_.empty()) {
      for (std::size_t i = 0; i < entries_.size(); ++i) {
        if (const auto* t = entries_[i].key.text()) {
          if (spelled[0] == 's' && std::string_view(spelled).substr(1) == t->view()) return i;
        } else if (spelled[0] != 's' && *spelling(entries_[i].key) == spelled) {
          return i;
        }
      }
      return entries_.size();
    }
    const auto it = index_.find(spelled);
    return it == index_.end() ? entries_.size() : it->second;
  }

  std::vector<entry> entries_;
  std::unordered_map<std::string, std::size_t> index_;  // of spellings; empty while there are few
  int depth_ = 1;
};

inline value value::list(std::vector<value> elements) {
  return std::make_shared<const sequence>(sequence_kind::list, std::move(elements));
}

// NOLINTNEXTLINE(performance-unnecessary-value-param): its parts are moved from
inline value value::dict(std::vector<std::pair<std::string, value>> fields) {
  auto d = std::make_shared<dictionary>();
  for (auto& [key, item] : fields) d->set(std::move(key), std::move(item));
  return std::shared_ptr<const dictionary>(std::move(d));
}

inline int value::depth() const {
  if (const sequence* s = elements()) return s->depth;
  if (const dictionary* d = mapping()) return d->depth();
  if (const auto* o = get_if<std::shared_ptr<object>>()) return (*o)->depth();
  return 0;
}

inline std::string value::type_name() const {
  if (is_none()) return "None";
  if (is_undefined()) return "Undefined";
  if (get_if<bool>()) return "bool";
  if (get_if<std::int64_t>()) return "int";
  if (get_if<double>()) return "float";
  if (const auto* t = text()) return t->is_markup ? "Markup" : "str";
  if (mapping()) return "dict";
  if (const sequence* s = elements()) {
    constexpr const char* names[] = {"list", "tuple", "range", "dict_keys", "dict_values", "dict_items"};
    return names[static_cast<int>(s->kind)];
  }
  return as()->written();
}

// What the interpreter makes counts towards its limits.

inline value make_text(runtime& run, std::string s, bool is_markup = false) {
  run.make_string(s.size() + 64);
  return text_value{std::make_shared<const std::string>(std::move(s)), is_markup};
}

inline value make_sequence(runtime& run, sequence_kind kind, std::vector<value> elements) {
  run.make(64 + sizeof(value) * elements.size());
  run.step(elements.size() / 8);
  auto s = std::make_shared<const sequence>(kind, std::move(elements));
  if (s->depth > most_nested_values) {
    run.fail("values nest deeper than " + std::to_string(most_nested_values), error_code::limit);
  }
  return s;
}
inline value make_list(runtime& run, std::vector<value> elements) {
  return make_sequence(run, sequence_kind::list, std::move(elements));
}
inline value make_tuple(runtime& run, std::vector<value> elements) {
  return make_sequence(run, sequence_kind::tuple, std::move(elements));
}

/// Errors: `malformed` for a key that Python can't hash.
inline std::string spell_key(runtime& run, const value& key) {
  auto spelled = spelling(key);
  if (!spelled) run.fail("unhashable type: '" + key.type_name() + "'");
  run.step(1 + spelled->size() / 64);
  return *std::move(spelled);
}
inline void set_item(runtime& run, dictionary& d, value key, value item) {
  run.make(128);
  const std::string spelled = spell_key(run, key);
  d.set(spelled, std::move(key), std::move(item));
  if (d.depth() > most_nested_values) {
    run.fail("values nest deeper than " + std::to_string(most_nested_values), error_code::limit);
  }
}

inline value make_undefined(std::string reason) {
  return undefined{std::make_shared<const std::string>(std::move(reason))};
}

}  // namespace effinfer::inline v0::text::jinja
