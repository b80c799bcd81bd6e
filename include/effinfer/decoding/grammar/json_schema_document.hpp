#pragma once
// A JSON Schema as it stands: its keywords checked, references followed, and whether a given value is valid. json_schema.hpp makes
// a grammar of it. Source: JSON Schema 2020-12, Core and Validation.

#include <effinfer/core/error.hpp>
#include <effinfer/core/json.hpp>
#include <effinfer/decoding/grammar/expression.hpp>
#include <effinfer/decoding/grammar/json_formats.hpp>
#include <effinfer/decoding/grammar/json_values.hpp>
#include <effinfer/decoding/grammar/language.hpp>
#include <effinfer/decoding/grammar/regular_expression.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// One schema inside a document.
struct schema_place {
  json::value schema;
  std::string pointer;  ///< from the root, as in a reference: "#/properties/name"
  /// Bit 0: its anyOf was chosen from and doesn't count any more; bit 1: its oneOf; `followed`: where its $ref and allOf lead
  /// stands beside it already.
  unsigned chosen = 0;
  static constexpr unsigned followed = 4;

  [[nodiscard]] std::string key() const { return pointer + (chosen ? "!" + std::to_string(chosen) : ""); }
};

/// Not movable: places point to it.
class json_schema_document {
 public:
  /// Errors: `malformed` (no JSON; neither object nor boolean), `limit`.
  json_schema_document(std::string_view text, std::string name)
      : name_(std::move(name)), document_(text, name_, {.bytes = limits::text_bytes, .depth = limits::nesting}) {}

  [[nodiscard]] schema_place root() const { return {document_.root(), "#", 0}; }

  [[nodiscard]] std::string where(const std::string& pointer) const { return name_ + ": " + pointer; }
  [[noreturn]] void fail(const schema_place& at, const std::string& keyword, error_code code,
                         const std::string& problem) const {
    throw error(code, where(at.pointer + (keyword.empty() ? "" : "/" + escaped(keyword))), problem);
  }
  [[noreturn]] void unsupported(const schema_place& at, const std::string& keyword, const std::string& why) const {
    fail(at, keyword, error_code::unsupported, "the keyword " + keyword + " " + why);
  }

  /// The schema under a keyword (and a name or a number in it).
  static schema_place below(const schema_place& at, const json::value& schema, std::string_view keyword,
                            std::string_view name = {}, bool has_name = false) {
    return {schema, at.pointer + "/" + escaped(keyword) + (has_name ? "/" + escaped(name) : ""), 0};
  }
  /// The schemas of an array under a keyword.
  [[nodiscard]] std::vector<schema_place> elements(const schema_place& at, std::string_view keyword) const {
    std::vector<schema_place> all;
    if (const auto list = at.schema.find(keyword)) {
      if (!list->is_array()) fail(at, std::string(keyword), error_code::malformed, "it must be an array of schemas");
      for (std::size_t i = 0; i < list->size(); ++i)
        all.push_back(below(at, (*list)[i], keyword, std::to_string(i), true));
    }
    return all;
  }

  /// Every keyword is one that is computed, or says nothing about validity. Errors: `unsupported`, naming it; `malformed`.
  void check(const schema_place& at) const {
    if (at.schema.is_boolean()) return;
    if (!at.schema.is_object()) fail(at, "", error_code::malformed, "a schema is an object, true or false");
    static constexpr std::array known{
        "type", "enum", "const", "properties", "required", "additionalProperties", "patternProperties", "propertyNames",
        "minProperties", "maxProperties", "items", "prefixItems", "minItems", "maxItems", "uniqueItems", "minLength",
        "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
        "anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions",
        // Annotations:
        "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$schema",
        "$id", "$comment", "$anchor", "contentEncoding", "contentMediaType", "contentSchema"};
    for (const auto& [keyword, value] : at.schema.members()) {
      if (std::find(known.begin(), known.end(), keyword) == known.end()) {
        unsupported(at, std::string(keyword), "is not supported");
      }
      if (keyword == "uniqueItems" && !value.is_boolean())
        fail(at, "uniqueItems", error_code::malformed, "it must be a boolean");
    }
    // A $id in a subschema changes what references in it mean.
    if (at.pointer != "#" && at.schema.find("$id")) unsupported(at, "$id", "is supported at the root only");
  }

  /// Where a schema's $ref leads. Errors: `unsupported` (another document, an anchor), `malformed` (nothing there).
  [[nodiscard]] std::optional<schema_place> reference(const schema_place& at) const {
    const auto ref = at.schema.find("$ref");
    if (!ref) return std::nullopt;
    if (!ref->is_string()) fail(at, "$ref", error_code::malformed, "it must be a string");
    const std::string_view text = ref->string();
    if (!text.starts_with("#") || (text.size() > 1 && text[1] != '/')) {
      fail(at, "$ref", error_code::unsupported,
           "the keyword $ref is supported for places in this document (#/...), not for " + std::string(text));
    }
    schema_place to = root();
    for (std::size_t begin = 1; begin < text.size();) {
      const std::size_t end = std::min(text.find('/', begin + 1), text.size());
      const std::string step = unescaped(text.substr(begin + 1, end - begin - 1));
      begin = end;
      std::optional<json::value> next;
      if (to.schema.is_object()) {
        next = to.schema.find(step);
      } else if (to.schema.is_array() && !step.empty() && step.size() < 7 &&
                 step.find_first_not_of("0123456789") == std::string::npos) {
        const std::size_t i = std::stoul(step);
        if (i < to.schema.size()) next = to.schema[i];
      }
      if (!next) fail(at, "$ref", error_code::malformed, "there is nothing at " + std::string(text));
      to = {*next, to.pointer + "/" + escaped(step), 0};
    }
    return to;
  }

  // Values of keywords, checked.

  [[nodiscard]] std::optional<int> count(const schema_place& at, const char* keyword) const {
    const auto v = at.schema.find(keyword);
    if (!v) return std::nullopt;
    const double n = v->is_number() ? v->number() : -1;
    if (n < 0 || n != std::floor(n)) fail(at, keyword, error_code::malformed, "it must be a non-negative integer");
    if (n > limits::repetitions) {
      fail(at, keyword, error_code::limit, "more than " + std::to_string(limits::repetitions) + " is not supported");
    }
    return static_cast<int>(n);
  }
  [[nodiscard]] std::optional<double> number(const schema_place& at, const char* keyword) const {
    const auto v = at.schema.find(keyword);
    if (!v) return std::nullopt;
    if (!v->is_number()) fail(at, keyword, error_code::malformed, "it must be a number");
    return v->number();
  }
  /// A divisor, where there is one; only of integers.
  [[nodiscard]] std::optional<std::int64_t> divisor(const schema_place& at) const {
    const auto n = number(at, "multipleOf");
    if (!n) return std::nullopt;
    if (*n <= 0) fail(at, "multipleOf", error_code::malformed, "it must be greater than 0");
    if (*n != std::floor(*n)) unsupported(at, "multipleOf", "is supported for integers only: validators round others");
    if (*n >= 5000) fail(at, "multipleOf", error_code::limit, "5000 and more are not supported");
    return static_cast<std::int64_t>(*n);
  }

  enum type : unsigned {
    null = 1,
    boolean = 2,
    string = 4,
    array = 8,
    object = 16,
    integer = 32,
    fractional = 64,
    any = 127
  };
  /// The types that a schema's `type` allows; a number is an integer or fractional.
  [[nodiscard]] unsigned types(const schema_place& at) const {
    const auto t = at.schema.find("type");
    if (!t) return any;
    const auto one = [&](const json::value& v) -> unsigned {
      const std::string_view name = v.is_string() ? v.string() : std::string_view();
      if (name == "null") return null;
      if (name == "boolean") return boolean;
      if (name == "string") return string;
      if (name == "array") return array;
      if (name == "object") return object;
      if (name == "integer") return integer;
      if (name == "number") return integer | fractional;
      fail(at, "type", error_code::malformed, "there is no such type");
    };
    if (!t->is_array()) return one(*t);
    unsigned all = 0;
    for (const json::value& v : t->elements()) all |= one(v);
    return all;
  }
  static unsigned type_of(const json::value& v) {
    if (v.is_null()) return null;
    if (v.is_boolean()) return boolean;
    if (v.is_string()) return string;
    if (v.is_array()) return array;
    if (v.is_object()) return object;
    return v.number() == std::floor(v.number()) ? integer : fractional;
  }

  /// The strings that hold a match of the pattern at `at` (a place for errors). Errors: those of regular_expression_reader, and `limit`.
  const language& pattern(std::string_view text, const std::string& pointer) {
    const auto [place, is_new] = patterns_.try_emplace(std::string(text));
    if (is_new) {
      rule_set scratch;
      const index inside = regular_expression_reader(scratch, text, where(pointer)).read();
      const index anything = scratch.repeat(scratch.characters(code_point_set::all()), 0, rule_set::unlimited);
      place->second = language(scratch, scratch.sequence({anything, inside, anything}), where(pointer));
    }
    return place->second;
  }
  /// The strings of a format. Errors: `unsupported`, naming it.
  const language& format(const schema_place& at) {
    const json::value v = *at.schema.find("format");
    if (!v.is_string()) fail(at, "format", error_code::malformed, "it must be a string");
    const std::string text = json_format_pattern(v.string());
    if (text.empty())
      fail(at, "format", error_code::unsupported, "the format " + std::string(v.string()) + " is not supported");
    const auto [place, is_new] = formats_.try_emplace(std::string(v.string()));
    if (is_new) {
      rule_set scratch;
      const std::string pointer = where(at.pointer + "/format");
      place->second = language(scratch, regular_expression_reader(scratch, text, pointer).read(), pointer);
    }
    return place->second;
  }

  /// True where `value` is valid under the schema. Formats count. Errors: as for the keywords; `malformed` (a schema that is its own
  /// condition).
  bool holds(const schema_place& at, const json::value& value, int depth = 0) {
    if (depth > 4 * limits::nesting) fail(at, "", error_code::malformed, "the schema refers to itself without an end");
    if (++steps_ > 4 * limits::states)
      fail(at, "", error_code::limit, "comparing values of enum or const with it takes too long");
    check(at);
    if (at.schema.is_boolean()) return at.schema.boolean();
    const auto holds_below = [&](const schema_place& p, const json::value& v) { return holds(p, v, depth + 1); };
    if (const auto to = reference(at); to && !holds_below(*to, value)) return false;
    for (const schema_place& p : elements(at, "allOf")) {
      if (!holds_below(p, value)) return false;
    }
    const auto valid_among = [&](const char* keyword) {
      const auto all = elements(at, keyword);
      return std::count_if(all.begin(), all.end(), [&](const schema_place& p) { return holds_below(p, value); });
    };
    if (!(at.chosen & 1) && at.schema.find("anyOf") && valid_among("anyOf") == 0) return false;
    if (!(at.chosen & 2) && at.schema.find("oneOf") && valid_among("oneOf") != 1) return false;
    if (const auto v = at.schema.find("const"); v && !equal(*v, value)) return false;
    if (const auto v = at.schema.find("enum")) {
      const auto all = enumerated(at);
      if (std::none_of(all.begin(), all.end(), [&](const json::value& e) { return equal(e, value); })) return false;
    }
    const unsigned is = type_of(value);
    if ((types(at) & is) == 0) return false;
    if (is == string) return holds_for_string(at, value.string());
    if (is & (integer | fractional)) return holds_for_number(at, value);
    if (is == array) {
      const auto few = count(at, "minItems"), many = count(at, "maxItems");
      if ((few && value.size() < static_cast<std::size_t>(*few)) ||
          (many && value.size() > static_cast<std::size_t>(*many)))
        return false;
      const auto prefix = elements(at, "prefixItems");
      const auto items = items_of(at);
      const auto all = value.elements();
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (i < prefix.size() ? !holds_below(prefix[i], all[i]) : items && !holds_below(*items, all[i])) return false;
        const auto same = [&](const json::value& other) { return equal(all[i], other); };
        if (is_unique(at) && std::any_of(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(i), same)) return false;
      }
    }
    if (is == object) {
      const auto members = value.members();
      const auto few = count(at, "minProperties"), many = count(at, "maxProperties");
      if ((few && members.size() < static_cast<std::size_t>(*few)) ||
          (many && members.size() > static_cast<std::size_t>(*many))) {
        return false;
      }
      for (const std::string_view name : required(at)) {
        if (!value.find(name)) return false;
      }
      const auto names = at.schema.find("propertyNames");
      for (const auto& [name, member] : members) {
        for (const schema_place& p : for_property(at, name)) {
          if (!holds_below(p, member)) return false;
        }
        if (!names) continue;
        const json::document text(json_values::quoted(name), name_);
        if (!holds_below(below(at, *names, "propertyNames"), text.root())) return false;
      }
    }
    return true;
  }

  /// The schemas that a property's value must be valid under.
  std::vector<schema_place> for_property(const schema_place& at, std::string_view name) {
    std::vector<schema_place> all;
    if (const auto properties = map(at, "properties")) {
      if (const auto p = properties->find(name)) all.push_back(below(at, *p, "properties", name, true));
    }
    if (const auto patterns = map(at, "patternProperties")) {
      for (const auto& [text, schema] : patterns->members()) {
        if (pattern(text, at.pointer + "/patternProperties/" + escaped(text)).contains(name)) {
          all.push_back(below(at, schema, "patternProperties", text, true));
        }
      }
    }
    if (all.empty()) {
      if (const auto additional = at.schema.find("additionalProperties")) {
        all.push_back(below(at, *additional, "additionalProperties"));
      }
    }
    return all;
  }
  /// An object under a keyword.
  [[nodiscard]] std::optional<json::value> map(const schema_place& at, const char* keyword) const {
    auto v = at.schema.find(keyword);
    if (v && !v->is_object()) fail(at, keyword, error_code::malformed, "it must be an object of schemas");
    return v;
  }
  [[nodiscard]] std::vector<std::string_view> required(const schema_place& at) const {
    std::vector<std::string_view> names;
    if (const auto v = at.schema.find("required")) {
      if (!v->is_array()) fail(at, "required", error_code::malformed, "it must be an array of names");
      for (const json::value& name : v->elements()) {
        if (!name.is_string()) fail(at, "required", error_code::malformed, "it must be an array of names");
        names.push_back(name.string());
      }
    }
    return names;
  }
  [[nodiscard]] std::vector<json::value> enumerated(const schema_place& at) const {
    const json::value v = *at.schema.find("enum");
    if (!v.is_array()) fail(at, "enum", error_code::malformed, "it must be an array");
    return v.elements();
  }
  [[nodiscard]] std::optional<schema_place> items_of(const schema_place& at) const {
    const auto items = at.schema.find("items");
    if (!items) return std::nullopt;
    if (items->is_array())
      fail(at, "items", error_code::unsupported, "the keyword items as an array is that of old drafts: prefixItems");
    return below(at, *items, "items");
  }
  [[nodiscard]] static bool is_unique(const schema_place& at) {
    const auto v = at.schema.find("uniqueItems");
    return v && v->boolean();
  }

  static bool equal(const json::value& a, const json::value& b) {
    if (a.is_number() && b.is_number()) {
      return a.is_integer() && b.is_integer() ? a.integer() == b.integer() : a.number() == b.number();
    }
    if (type_of(a) != type_of(b)) return false;
    if (a.is_boolean()) return a.boolean() == b.boolean();
    if (a.is_string()) return a.string() == b.string();
    if (a.is_array()) {
      if (a.size() != b.size()) return false;
      for (std::size_t i = 0; i < a.size(); ++i) {
        if (!equal(a[i], b[i])) return false;
      }
    }
    if (a.is_object()) {
      const auto all = a.members();
      if (all.size() != b.members().size()) return false;
      for (const auto& [name, member] : all) {
        const auto other = b.find(name);
        if (!other || !equal(member, *other)) return false;
      }
    }
    return true;
  }

  /// A step of a JSON pointer (RFC 6901).
  static std::string escaped(std::string_view step) {
    std::string out;
    for (const char c : step) {
      if (c == '~') {
        out += "~0";
      } else if (c == '/') {
        out += "~1";
      } else {
        out += c;
      }
    }
    return out;
  }

 private:
  static std::string unescaped(std::string_view step) {
    std::string out;
    const auto hex = [](char c) {
      return c >= '0' && c <= '9'   ? c - '0'
             : c >= 'a' && c <= 'f' ? c - 'a' + 10
             : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                    : -1;
    };
    for (std::size_t i = 0; i < step.size(); ++i) {
      if (step[i] == '%' && i + 2 < step.size() && hex(step[i + 1]) >= 0 && hex(step[i + 2]) >= 0) {
        out += static_cast<char>(16 * hex(step[i + 1]) + hex(step[i + 2]));
        i += 2;
      } else if (step[i] == '~' && i + 1 < step.size() && (step[i + 1] == '0' || step[i + 1] == '1')) {
        out += step[++i] == '0' ? '~' : '/';
      } else {
        out += step[i];
      }
    }
    return out;
  }

  bool holds_for_string(const schema_place& at, std::string_view text) {
    const auto few = count(at, "minLength"), many = count(at, "maxLength");
    const auto length =
        std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
    if ((few && length < *few) || (many && length > *many)) return false;
    if (const auto v = at.schema.find("pattern")) {
      if (!v->is_string()) fail(at, "pattern", error_code::malformed, "it must be a string");
      if (!pattern(v->string(), at.pointer + "/pattern").contains(text)) return false;
    }
    return !at.schema.find("format") || format(at).contains(text);
  }
  bool holds_for_number(const schema_place& at, const json::value& value) const {
    const double n = value.number();
    if (const auto b = number(at, "minimum"); b && n < *b) return false;
    if (const auto b = number(at, "maximum"); b && n > *b) return false;
    if (const auto b = number(at, "exclusiveMinimum"); b && n <= *b) return false;
    if (const auto b = number(at, "exclusiveMaximum"); b && n >= *b) return false;
    const auto d = divisor(at);
    if (!d) return true;
    return value.is_integer() ? value.integer() % *d == 0 : std::fmod(n, static_cast<double>(*d)) == 0;
  }

  std::string name_;
  json::document document_;
  std::map<std::string, language, std::less<>> patterns_, formats_;
  std::size_t steps_ = 0;
};

}  // namespace effinfer::inline v0::decoding::grammar
