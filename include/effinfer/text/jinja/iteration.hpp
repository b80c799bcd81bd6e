#pragma once
// Iterating as Python does: lists, strings (by code point), dicts (by key), and iterators, which give their elements once.
// What `map`, `select` and their like give is such an iterator, and does its work when asked for the next element.

#include <effinfer/text/jinja/characters.hpp>
#include <effinfer/text/jinja/value.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// Gives elements one after another, each once.
class iterator : public object {
 public:
  iterator(std::string kind, int depth) : kind_(std::move(kind)), depth_(depth) {}
  /// Moves the next element to `v`, or returns false.
  bool next(runtime& run, value& v) {
    run.step();
    const runtime::level inside(run);
    return advance(run, v);
  }
  [[nodiscard]] std::string written() const override { return "<" + kind_ + " object>"; }
  [[nodiscard]] int depth() const override { return depth_; }

 protected:
  virtual bool advance(runtime& run, value& v) = 0;

 private:
  std::string kind_;
  int depth_;
};

/// Makes an object that holds values, within the limits.
template <class Object, class... Arguments>
std::shared_ptr<Object> make_object(runtime& run, Arguments&&... arguments) {
  run.make(64 + sizeof(Object));
  auto made = std::make_shared<Object>(std::forward<Arguments>(arguments)...);
  if (made->depth() > most_nested_values) {
    run.fail("values nest deeper than " + std::to_string(most_nested_values), error_code::limit);
  }
  return made;
}

/// Over a list or another sequence; backwards, if asked.
class sequence_iterator : public iterator {
 public:
  explicit sequence_iterator(std::shared_ptr<const sequence> s, bool is_backwards = false)
      : iterator(is_backwards ? "list_reverseiterator" : "list_iterator", s->depth + 1),
        sequence_(std::move(s)),
        is_backwards_(is_backwards) {}

 protected:
  bool advance(runtime&, value& v) override {
    const auto& all = sequence_->elements;
    if (at_ == all.size()) return false;
    v = is_backwards_ ? all[all.size() - 1 - at_] : all[at_];
    ++at_;
    return true;
  }

 private:
  std::shared_ptr<const sequence> sequence_;
  std::size_t at_ = 0;
  bool is_backwards_;
};

/// Over the keys of a dict.
class key_iterator : public iterator {
 public:
  explicit key_iterator(std::shared_ptr<const dictionary> d)
      : iterator("dict_keyiterator", d->depth() + 1), dictionary_(std::move(d)) {}

 protected:
  bool advance(runtime&, value& v) override {
    if (at_ == dictionary_->entries().size()) return false;
    v = dictionary_->entries()[at_++].key;
    return true;
  }

 private:
  std::shared_ptr<const dictionary> dictionary_;
  std::size_t at_ = 0;
};

/// Over the characters of a string.
class character_iterator : public iterator {
 public:
  explicit character_iterator(text_value t) : iterator("str_iterator", 1), text_(std::move(t)) {}

 protected:
  bool advance(runtime& run, value& v) override {
    const std::string_view rest = text_.view().substr(at_);
    if (rest.empty()) return false;
    const auto length = static_cast<std::size_t>(utf8_length(rest[0]));
    v = make_text(run, std::string(rest.substr(0, length)));
    at_ += length;
    return true;
  }

 private:
  text_value text_;
  std::size_t at_ = 0;
};

/// Whether iter(v) works.
inline bool is_iterable(const value& v) {
  return v.is_undefined() || v.text() || v.elements() || v.mapping() || v.as<iterator>();
}

/// iter(v). Errors: `malformed` for what can't be iterated.
inline std::shared_ptr<iterator> iterate(runtime& run, const value& v) {
  if (const auto* s = v.get_if<std::shared_ptr<const sequence>>()) return std::make_shared<sequence_iterator>(*s);
  if (const auto* d = v.get_if<std::shared_ptr<const dictionary>>()) return std::make_shared<key_iterator>(*d);
  if (const text_value* t = v.text()) return std::make_shared<character_iterator>(*t);
  if (auto i = v.as<iterator>()) return i;
  if (v.is_undefined()) {
    return std::make_shared<sequence_iterator>(
        std::make_shared<const sequence>(sequence_kind::list, std::vector<value>()));
  }
  run.fail("'" + v.type_name() + "' object is not iterable");
}

/// list(v)
inline std::vector<value> collect(runtime& run, const value& v) {
  if (const sequence* s = v.elements()) {
    run.step(s->elements.size() / 8);
    run.make(s->elements.size() * sizeof(value));
    return s->elements;
  }
  std::vector<value> all;
  const auto i = iterate(run, v);
  value element;
  while (i->next(run, element)) {
    run.make(sizeof(value));
    all.push_back(std::move(element));
  }
  return all;
}

/// len(v), for what has one.
inline std::optional<std::size_t> length_of(runtime& run, const value& v) {
  if (v.is_undefined()) return 0;
  if (const text_value* t = v.text()) {
    run.look(t->view().size());
    return count_characters(t->view());
  }
  if (const sequence* s = v.elements()) return s->elements.size();
  if (const dictionary* d = v.mapping()) return d->entries().size();
  return std::nullopt;
}

}  // namespace effinfer::inline v0::text::jinja
