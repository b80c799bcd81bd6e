#pragma once
// JSON as values of a template: what json.loads gives.

#include <effinfer/core/json.hpp>
#include <effinfer/text/jinja/value.hpp>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// The same value. Numbers with a fraction or exponent, and integers beyond 63 bits, become floats.
inline value from_json(const json::value& v) {
  if (v.is_boolean()) return v.boolean();
  if (v.is_integer()) return v.integer();
  if (v.is_number()) return v.number();
  if (v.is_string()) return v.string();
  if (v.is_array()) {
    std::vector<value> all;
    for (const json::value& element : v.elements()) all.push_back(from_json(element));
    return value::list(std::move(all));
  }
  if (v.is_object()) {
    auto d = std::make_shared<dictionary>();
    for (const auto& [key, item] : v.members()) d->set(std::string(key), from_json(item));
    return std::shared_ptr<const dictionary>(std::move(d));
  }
  return nullptr;
}

/// Parses a text; `name` stands in errors. Errors: as of json::document.
inline value from_json(std::string_view text, const std::string& name = "text::jinja::from_json, argument text") {
  const json::document document(text, name, {.bytes = std::size_t{64} << 20, .depth = 64});
  return from_json(document.root());
}

}  // namespace effinfer::inline v0::text::jinja
