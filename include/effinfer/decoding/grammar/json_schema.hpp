#pragma once
// JSON Schema as a grammar: the texts are values that are valid under the schema. Every text that comes out is valid; where a schema
// allows a value in many spellings (orders of properties, white space, 1 and 1.0), one or some of them come out, as said below.

#include <effinfer/core/error.hpp>
#include <effinfer/core/json.hpp>
#include <effinfer/decoding/grammar/expression.hpp>
#include <effinfer/decoding/grammar/json_schema_document.hpp>
#include <effinfer/decoding/grammar/json_values.hpp>
#include <effinfer/decoding/grammar/language.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// White space between the parts of a value; never without bound, as a model could go on with it for ever.
enum class json_white_space {
  none,    ///< {"a":1}
  limited  ///< in each place nothing, one space, or a line break with up to 20 spaces
};

struct json_schema_options {
  json_white_space white_space = json_white_space::none;
};

/// Reads one schema (2020-12) into a grammar.
///
/// - Properties come in the order of `properties`, then those that only `required` names, then others; optional ones may be left out.
/// - Strings of a free choice of characters may use all escapes of JSON; names, and strings of a pattern, format or enum, the shortest.
/// - Integers have up to 18 digits and no fraction; numbers within bounds no exponent, and up to 15 digits or as many as keep
///   them apart as doubles.
/// - A schema without `type` allows all types, as the standard says. `format` counts.
/// - oneOf must have branches that provably exclude each other: by type, enum and const, bounds, lengths, patterns, by a required
///   property whose schemas do, or one that the other forbids.
/// Errors: `unsupported`, naming the keyword and where it stands; `malformed` (no schema, nothing is valid, a reference to nothing or
/// to itself); `limit`.
class json_schema_reader {
 public:
  json_schema_reader(std::string_view schema, json_schema_options options, const std::string& name)
      : document_(schema, name), options_(options), values_(rules_) {}

  rule_set read() {
    space_ = rules_.empty();
    if (options_.white_space == json_white_space::limited) {
      const index blank = rules_.literal(" ");
      const index line = rules_.sequence({rules_.literal("\n"), rules_.repeat(blank, 0, 20)});
      space_ = rules_.choice({rules_.empty(), blank, line});
    }
    rules_.root = rule_for({document_.root()});
    while (!open_.empty()) {
      const auto [rule, all] = std::move(open_.back());
      open_.pop_back();
      rules_.define(rule, value(all));
    }
    return std::move(rules_);
  }

 private:
  using places = std::vector<schema_place>;
  using document = json_schema_document;

  /// The rule of the values that are valid under all of some schemas; defined later.
  index rule_for(const places& all) {
    const auto flat = flattened(all);
    std::string key = "false";
    if (flat) {
      key.clear();
      for (const schema_place& p : *flat) key += p.key() + "\n";
    }
    const auto [place, is_new] = rule_of_.try_emplace(key, 0);
    if (is_new) {
      if (rule_of_.size() > limits::rules)
        document_.fail(document_.root(), "", error_code::limit, "it makes too many combinations of schemas");
      place->second = rules_.add_rule(document_.where(all.empty() ? "(any value)" : all[0].pointer));
      if (flat) {
        open_.emplace_back(place->second, *flat);
      } else {
        rules_.define(place->second, rules_.nothing());
      }
    }
    return place->second;
  }

  /// Some schemas with all those that their $ref and allOf ask for too, sorted, each once; nothing where one of them is false.
  std::optional<places> flattened(const places& all) {
    places out;
    std::vector<std::string> path;
    bool is_false = false;
    const auto add = [&](const auto& self, const schema_place& p) -> void {
      const std::string key = p.key();
      if (std::find(path.begin(), path.end(), key) != path.end()) {
        document_.fail(p, "", error_code::malformed, "the schema refers to itself without an end");
      }
      schema_place followed = p;
      followed.chosen |= schema_place::followed;
      const std::string known = followed.key();
      if (std::any_of(out.begin(), out.end(), [&](const schema_place& o) { return o.key() == known; })) return;
      document_.check(p);
      if (p.schema.is_boolean()) {
        is_false = is_false || !p.schema.boolean();
        return;
      }
      if (path.size() > 4 * static_cast<std::size_t>(limits::nesting)) {
        document_.fail(p, "", error_code::limit, "references nested too deeply");
      }
      if (!(p.chosen & schema_place::followed)) {
        path.push_back(key);
        if (const auto to = document_.reference(p)) self(self, *to);
        for (const schema_place& part : document_.elements(p, "allOf")) self(self, part);
        path.pop_back();
      }
      // A schema of nothing but a reference says nothing by itself.
      if (!says_nothing(p)) out.push_back(std::move(followed));
    };
    for (const schema_place& p : all) add(add, p);
    if (is_false) return std::nullopt;
    std::sort(out.begin(), out.end(), [](const schema_place& a, const schema_place& b) { return a.key() < b.key(); });
    return out;
  }
  static bool says_nothing(const schema_place& p) {
    const auto members = p.schema.members();
    return std::all_of(members.begin(), members.end(), [](const auto& m) {
      return m.first == "$ref" || m.first == "allOf" || m.first == "$defs" || m.first == "definitions" ||
             m.first == "title" || m.first == "description" || m.first == "$schema" || m.first == "$id" ||
             m.first == "$comment";
    });
  }

  /// The alternatives of a schema among `all` that has some yet: each with the rest; nothing where none has.
  struct alternatives {
    std::vector<places> branches;
    const char* keyword = nullptr;
    schema_place at;
  };
  std::optional<alternatives> first_alternatives(const places& all) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      for (const unsigned bit : {1u, 2u}) {
        const char* keyword = bit == 1 ? "anyOf" : "oneOf";
        if ((all[i].chosen & bit) || !all[i].schema.find(keyword)) continue;
        alternatives found{{}, keyword, all[i]};
        places rest = all;
        rest[i].chosen |= bit;
        for (const schema_place& branch : document_.elements(all[i], keyword)) {
          found.branches.push_back(rest);
          found.branches.back().push_back(branch);
        }
        return found;
      }
    }
    return std::nullopt;
  }

  /// The values that enum and const leave, where there is one; those that are valid under everything else.
  std::optional<std::vector<json::value>> finite_values(const places& all) {
    for (const schema_place& p : all) {
      std::vector<json::value> candidates;
      if (const auto v = p.schema.find("const")) {
        candidates.push_back(*v);
      } else if (p.schema.find("enum")) {
        candidates = document_.enumerated(p);
      } else {
        continue;
      }
      std::erase_if(candidates, [&](const json::value& v) {
        return !std::all_of(all.begin(), all.end(),
                            [&](const schema_place& other) { return document_.holds(other, v); });
      });
      return candidates;
    }
    return std::nullopt;
  }

  unsigned types_of(const places& all) {
    unsigned types = document::any;
    for (const schema_place& p : all) types &= document_.types(p);
    return types;
  }

  index value(const places& all) {
    if (const auto values = finite_values(all)) {
      std::vector<index> ways;
      for (const json::value& v : *values) ways.push_back(rules_.literal(json_values::text_of(v)));
      return rules_.choice(ways);
    }
    if (const auto found = first_alternatives(all)) {
      if (found->keyword == std::string_view("oneOf")) refuse_overlap(*found);
      std::vector<index> ways;
      for (const places& branch : found->branches) ways.push_back(rules_.reference(rule_for(branch)));
      return rules_.choice(ways);
    }
    const unsigned types = types_of(all);
    std::vector<index> ways;
    if (types & document::object) ways.push_back(object(all));
    if (types & document::array) ways.push_back(array(all));
    if (types & document::string) ways.push_back(string(all));
    if (types & (document::integer | document::fractional))
      ways.push_back(number(all, (types & document::fractional) != 0));
    if (types & document::boolean) ways.push_back(rules_.choice({rules_.literal("true"), rules_.literal("false")}));
    if (types & document::null) ways.push_back(rules_.literal("null"));
    return rules_.choice(ways);
  }

  // Strings

  struct lengths {
    int fewest = 0, most = rule_set::unlimited;
    [[nodiscard]] bool is_empty() const { return most != rule_set::unlimited && most < fewest; }
  };
  lengths bounds(const places& all, const char* fewest, const char* most) {
    lengths b;
    for (const schema_place& p : all) {
      if (const auto n = document_.count(p, fewest)) b.fewest = std::max(b.fewest, *n);
      if (const auto n = document_.count(p, most)) b.most = b.most == rule_set::unlimited ? *n : std::min(b.most, *n);
    }
    return b;
  }

  /// The language of the strings, where patterns or formats say more than the length.
  std::optional<language> string_language(const places& all) {
    std::optional<language> left;
    const auto keep = [&](const language& l, const schema_place& p) {
      left = left ? left->intersection(l, document_.where(p.pointer)) : l;
    };
    for (const schema_place& p : all) {
      if (const auto v = p.schema.find("pattern")) {
        if (!v->is_string()) document_.fail(p, "pattern", error_code::malformed, "it must be a string");
        keep(document_.pattern(v->string(), p.pointer + "/pattern"), p);
      }
      if (p.schema.find("format")) keep(document_.format(p), p);
    }
    const lengths length = bounds(all, "minLength", "maxLength");
    if (left && (length.fewest > 0 || length.most >= 0)) keep(of_length(length, all[0]), all[0]);
    return left;
  }
  language of_length(lengths length, const schema_place& at) {
    if (length.is_empty()) return {};
    rule_set scratch;
    return {scratch, scratch.repeat(scratch.characters(code_point_set::all()), length.fewest, length.most),
            document_.where(at.pointer)};
  }
  /// In quotes, in the shortest spelling.
  index quoted(const language& strings) {
    const index quote = rules_.literal("\"");
    return rules_.sequence(
        {quote, strings.expression(rules_, [&](const code_point_set& set) { return values_.letter(set); }), quote});
  }

  index string(const places& all) {
    if (const auto strings = string_language(all)) return quoted(*strings);
    const lengths length = bounds(all, "minLength", "maxLength");
    if (length.is_empty()) return rules_.nothing();
    const auto [place, is_new] = string_rules_.try_emplace({length.fewest, length.most}, 0);
    if (is_new) {
      place->second = rules_.add_rule("string");
      index letter = values_.any_letter();
      if (std::max(length.fewest, length.most) > longest_written_out) {
        // One rule for the letter keeps the automaton small; its masks are then made for each place inside of a letter only once.
        if (letter_rule_ == no_index) {
          letter_rule_ = rules_.add_rule("character");
          rules_.define(letter_rule_, letter);
          rules_.keep_apart(letter_rule_);
        }
        letter = rules_.reference(letter_rule_);
      }
      const index quote = rules_.literal("\"");
      rules_.define(place->second, rules_.sequence({quote, rules_.repeat(letter, length.fewest, length.most), quote}));
      // One rule for all such strings: its masks, which hold most of the vocabulary, are shared.
      rules_.keep_apart(place->second);
    }
    return rules_.reference(place->second);
  }

  // Numbers

  struct range {
    json_values::bound low{-std::numeric_limits<double>::infinity(), true},
        high{std::numeric_limits<double>::infinity(), true};
    std::vector<std::int64_t> divisors;
    [[nodiscard]] bool is_bounded() const { return !std::isinf(low.value) || !std::isinf(high.value); }
    [[nodiscard]] bool is_empty() const {
      return low.value > high.value || (low.value == high.value && !(low.is_included && high.is_included));
    }
  };
  range range_of(const places& all) {
    range r;
    for (const schema_place& p : all) {
      const auto low = [&](double value, bool is_included) {
        if (value > r.low.value) r.low = {value, is_included};
        if (value == r.low.value) r.low.is_included = r.low.is_included && is_included;
      };
      const auto high = [&](double value, bool is_included) {
        if (value < r.high.value) r.high = {value, is_included};
        if (value == r.high.value) r.high.is_included = r.high.is_included && is_included;
      };
      if (const auto n = document_.number(p, "minimum")) low(*n, true);
      if (const auto n = document_.number(p, "exclusiveMinimum")) low(*n, false);
      if (const auto n = document_.number(p, "maximum")) high(*n, true);
      if (const auto n = document_.number(p, "exclusiveMaximum")) high(*n, false);
      if (const auto d = document_.divisor(p)) r.divisors.push_back(*d);
    }
    return r;
  }

  index number(const places& all, bool may_be_fractional) {
    const range r = range_of(all);
    if (r.is_empty()) return rules_.nothing();
    if (may_be_fractional && r.divisors.empty()) {
      return r.is_bounded() ? values_.decimals(r.low, r.high, document_.where(all[0].pointer)) : values_.any_number();
    }
    constexpr auto greatest = static_cast<double>(json_values::greatest_integer);
    // Doubles beside 10^18 are 128 apart, so the cast below stays inside after clamping.
    const double first = std::ceil(r.low.value), last = std::floor(r.high.value);
    std::int64_t low = first <= -greatest  ? -json_values::greatest_integer
                       : first >= greatest ? json_values::greatest_integer
                                           : static_cast<std::int64_t>(first);
    std::int64_t high = last >= greatest    ? json_values::greatest_integer
                        : last <= -greatest ? -json_values::greatest_integer
                                            : static_cast<std::int64_t>(last);
    if (first > greatest || last < -greatest) return rules_.nothing();
    if (!r.low.is_included && static_cast<double>(low) == r.low.value) ++low;
    if (!r.high.is_included && static_cast<double>(high) == r.high.value) --high;
    if (low > high) return rules_.nothing();
    if (r.divisors.empty()) return values_.integers(low, high);
    const std::string where = document_.where(all[0].pointer);
    rule_set scratch;
    json_values makes(scratch);
    language left(scratch, makes.integers(low, high), where);
    for (const std::int64_t d : r.divisors) left = left.intersection({scratch, makes.multiples(d), where}, where);
    return left.expression(rules_, [&](const code_point_set& set) { return rules_.characters(set); });
  }

  // Arrays

  std::vector<places> items(const places& all, std::size_t count) {
    std::vector<places> each(count);
    for (const schema_place& p : all) {
      const auto prefix = document_.elements(p, "prefixItems");
      const auto rest = document_.items_of(p);
      for (std::size_t i = 0; i < count; ++i) {
        if (i < prefix.size()) {
          each[i].push_back(prefix[i]);
        } else if (rest) {
          each[i].push_back(*rest);
        }
      }
    }
    return each;
  }

  index array(const places& all) {
    const lengths length = bounds(all, "minItems", "maxItems");
    std::size_t prefix = 0;
    for (const schema_place& p : all) {
      prefix = std::max(prefix, document_.elements(p, "prefixItems").size());
      if (document::is_unique(p) && length.most != 0 && length.most != 1) {
        document_.unsupported(p, "uniqueItems", "is not supported where there may be more than one item");
      }
    }
    if (length.is_empty()) return rules_.nothing();
    const auto fewest = static_cast<std::size_t>(length.fewest);
    const bool is_limited = length.most != rule_set::unlimited;
    const std::size_t last = is_limited ? static_cast<std::size_t>(length.most) : std::max(prefix + 1, fewest);
    // Behind the prefix all are alike.
    const std::vector<places> each = items(all, std::min(prefix, last) + 1);
    std::vector<index> item;
    for (const places& p : each) item.push_back(rules_.reference(rule_for(p)));
    rule_set::graph g;
    g.states = static_cast<index>(last + 1);
    const index comma = rules_.sequence({rules_.literal(","), space_});
    for (std::size_t i = 0; i <= last; ++i) {
      if (i >= fewest) g.accepting.push_back(static_cast<index>(i));
      if (i == last && is_limited) break;
      const index one = item[std::min(i, item.size() - 1)];
      const index to = static_cast<index>(std::min(i + 1, last));
      g.edges.push_back({static_cast<index>(i), to, i == 0 ? one : rules_.sequence({comma, one})});
    }
    return enclosed("[", rules_.path(std::move(g)), "]");
  }

  index enclosed(const char* open, index inside, const char* close) {
    return rules_.sequence({rules_.literal(open), space_, inside, space_, rules_.literal(close)});
  }

  // Objects

  struct property {
    std::string_view name;
    bool is_required = false;
  };
  std::vector<property> properties_of(const places& all) {
    std::vector<property> out;
    const auto add = [&](std::string_view name, bool is_required) {
      const auto known = std::find_if(out.begin(), out.end(), [&](const property& p) { return p.name == name; });
      if (known == out.end()) {
        out.push_back({name, is_required});
      } else {
        known->is_required = known->is_required || is_required;
      }
    };
    for (const schema_place& p : all) {
      if (const auto named = document_.map(p, "properties")) {
        for (const auto& [name, schema] : named->members()) add(name, false);
      }
    }
    for (const schema_place& p : all) {
      for (const std::string_view name : document_.required(p)) add(name, true);
    }
    return out;
  }
  places schemas_of(const places& all, std::string_view name) {
    places out;
    for (const schema_place& p : all) {
      for (schema_place& of_one : document_.for_property(p, name)) out.push_back(std::move(of_one));
    }
    return out;
  }

  /// Names that no schema lists, by the patterns that they match, with the schemas of their values.
  struct region {
    language names;
    places schemas;
  };
  std::vector<region> regions_of(const places& all, const std::vector<property>& listed) {
    constexpr std::size_t most_patterns = 4;
    struct pattern {
      std::size_t place;
      const language* names;
      schema_place schema;
    };
    std::vector<pattern> patterns;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto map = document_.map(all[i], "patternProperties");
      if (!map) continue;
      for (const auto& [text, schema] : map->members()) {
        const auto at = document::below(all[i], schema, "patternProperties", text, true);
        patterns.push_back({i, &document_.pattern(text, at.pointer), at});
      }
    }
    if (patterns.size() > most_patterns) {
      document_.unsupported(patterns[most_patterns].schema, "patternProperties",
                            "is supported with up to 4 patterns for one object");
    }
    language free;
    bool is_free_known = false;
    std::vector<region> out;
    for (std::size_t chosen = 0; chosen < std::size_t{1} << patterns.size(); ++chosen) {
      region r;
      bool is_false = false;
      const auto add = [&](const schema_place& schema) {
        is_false = is_false || (schema.schema.is_boolean() && !schema.schema.boolean());
        r.schemas.push_back(schema);
      };
      for (std::size_t i = 0; i < all.size(); ++i) {
        bool has_match = false;
        for (std::size_t k = 0; k < patterns.size(); ++k) {
          if (patterns[k].place != i || !(chosen >> k & 1)) continue;
          has_match = true;
          add(patterns[k].schema);
        }
        const auto additional = all[i].schema.find("additionalProperties");
        if (!has_match && additional) add(document::below(all[i], *additional, "additionalProperties"));
      }
      if (is_false) continue;
      if (!is_free_known) {
        is_free_known = true;
        free = unlisted_names(all, listed);
      }
      r.names = free;
      const std::string where = document_.where(all.empty() ? "#" : all[0].pointer);
      for (std::size_t k = 0; k < patterns.size(); ++k) {
        r.names = r.names.intersection(chosen >> k & 1 ? *patterns[k].names : patterns[k].names->complement(), where);
      }
      if (!r.names.empty()) out.push_back(std::move(r));
    }
    return out;
  }
  language unlisted_names(const places& all, const std::vector<property>& listed) {
    rule_set scratch;
    std::vector<index> names;
    for (const property& p : listed) names.push_back(scratch.literal(p.name));
    const std::string where = document_.where(all.empty() ? "#" : all[0].pointer);
    language free = language(scratch, scratch.choice(names), where).complement();
    for (const schema_place& p : names_of(all)) free = free.intersection(allowed_names(p), where);
    return free;
  }
  places names_of(const places& all) {
    places out;
    for (const schema_place& p : all) {
      if (const auto names = p.schema.find("propertyNames")) out.push_back(document::below(p, *names, "propertyNames"));
    }
    return out;
  }
  /// The strings that are valid under one schema of names.
  language allowed_names(const schema_place& names) {
    const auto flat = flattened({names});
    if (!flat) return {};
    for (const schema_place& p : *flat) {
      for (const char* keyword : {"enum", "const", "anyOf", "oneOf"}) {
        if (p.schema.find(keyword)) document_.unsupported(p, keyword, "in propertyNames is not supported");
      }
    }
    if (!(types_of(*flat) & document::string)) return {};
    if (auto strings = string_language(*flat)) return std::move(*strings);
    return of_length(bounds(*flat, "minLength", "maxLength"), names);
  }

  index object(const places& all) {
    const std::vector<property> listed = properties_of(all);
    const lengths count = bounds(all, "minProperties", "maxProperties");
    if (count.is_empty()) return rules_.nothing();
    const places name_schemas = names_of(all);
    std::vector<language> allowed;
    for (const schema_place& p : name_schemas) allowed.push_back(allowed_names(p));
    const std::vector<region> regions = regions_of(all, listed);
    std::size_t required = 0;
    for (const property& p : listed) required += p.is_required ? 1 : 0;
    // Of names that may repeat no more than one counts towards the fewest.
    if (!regions.empty() && count.fewest > 1 && static_cast<std::size_t>(count.fewest) > required) {
      for (const schema_place& p : all) {
        if (p.schema.find("minProperties")) {
          document_.unsupported(
              p, "minProperties",
              "is supported up to the number of required properties, or with additionalProperties: false");
        }
      }
    }
    // State (i, n): the first i listed properties are behind us, n stand in the text; n stops counting where it no longer matters.
    const auto limited = static_cast<std::size_t>(count.most == rule_set::unlimited ? std::max(1, count.fewest)
                                                                                    : std::max(1, count.most));
    const bool stops = count.most != rule_set::unlimited;
    const std::size_t width = std::min(limited, listed.size() + (stops && !regions.empty() ? limited : 1)) + 1;
    if (width * (listed.size() + 1) > limits::states) {
      document_.fail(all[0], "maxProperties", error_code::limit,
                     "it takes too many states together with this number of properties");
    }
    const auto state = [&](std::size_t i, std::size_t n) { return static_cast<index>(i * width + n); };
    const index colon = rules_.sequence({rules_.literal(":"), space_});
    const index comma = rules_.sequence({rules_.literal(","), space_});
    rule_set::graph g;
    g.states = static_cast<index>(width * (listed.size() + 1));
    const auto member = [&](std::size_t i, std::size_t to_i, index text) {
      for (std::size_t n = 0; n < width; ++n) {
        if (stops && n == static_cast<std::size_t>(count.most)) continue;
        g.edges.push_back(
            {state(i, n), state(to_i, std::min(n + 1, width - 1)), n == 0 ? text : rules_.sequence({comma, text})});
      }
    };
    for (std::size_t i = 0; i < listed.size(); ++i) {
      if (!listed[i].is_required) {
        for (std::size_t n = 0; n < width; ++n) g.edges.push_back({state(i, n), state(i + 1, n), rules_.empty()});
      }
      const bool is_allowed =
          std::all_of(allowed.begin(), allowed.end(), [&](const language& l) { return l.contains(listed[i].name); });
      if (!is_allowed) continue;
      const index text = rules_.literal(json_values::quoted(listed[i].name));
      member(i, i + 1, rules_.sequence({text, colon, rules_.reference(rule_for(schemas_of(all, listed[i].name)))}));
    }
    for (const region& r : regions) {
      const index name = name_rule(r.names);
      member(listed.size(), listed.size(), rules_.sequence({name, colon, rules_.reference(rule_for(r.schemas))}));
    }
    for (std::size_t n = 0; n < width; ++n) {
      if (n >= static_cast<std::size_t>(count.fewest)) g.accepting.push_back(state(listed.size(), n));
    }
    return enclosed("{", rules_.path(std::move(g)), "}");
  }
  /// A rule of its own, as it is used in two places.
  index name_rule(const language& names) {
    const index rule = rules_.add_rule("property name");
    rules_.define(rule, quoted(names));
    rules_.keep_apart(rule);
    return rules_.reference(rule);
  }

  // oneOf

  void refuse_overlap(const alternatives& found) {
    for (std::size_t i = 0; i < found.branches.size(); ++i) {
      for (std::size_t k = i + 1; k < found.branches.size(); ++k) {
        if (!are_disjoint(found.branches[i], found.branches[k], 0)) {
          document_.unsupported(
              found.at, "oneOf",
              "is supported where no value can be valid under two branches; that could not be shown for " +
                  std::to_string(i) + " and " + std::to_string(k) + " (anyOf says \"at least one\")");
        }
      }
    }
  }

  /// True where it is sure that no value is valid under both.
  bool are_disjoint(const places& left, const places& right, int depth) {
    if (depth > 6) return false;
    const auto a = flattened(left), b = flattened(right);
    if (!a || !b) return true;
    for (const bool is_left : {true, false}) {
      const places& one = is_left ? *a : *b;
      const places& other = is_left ? *b : *a;
      if (const auto values = finite_values(one)) {
        return std::all_of(values->begin(), values->end(), [&](const json::value& v) {
          return !std::all_of(other.begin(), other.end(), [&](const schema_place& p) { return document_.holds(p, v); });
        });
      }
      // What both have in common is in both; only what is still open of one side decides.
      if (const auto found = first_alternatives(one)) {
        return std::all_of(found->branches.begin(), found->branches.end(),
                           [&](const places& branch) { return are_disjoint(branch, other, depth + 1); });
      }
    }
    const unsigned types = types_of(*a) & types_of(*b);
    if (types & (document::null | document::boolean)) return false;
    places both = *a;
    both.insert(both.end(), b->begin(), b->end());
    if ((types & (document::integer | document::fractional)) && !range_of(both).is_empty()) return false;
    if ((types & document::string) && !strings_exclude(both)) return false;
    if ((types & document::array) && !bounds(both, "minItems", "maxItems").is_empty()) return false;
    return !(types & document::object) || objects_exclude(*a, *b, depth);
  }
  bool strings_exclude(const places& both) {
    if (bounds(both, "minLength", "maxLength").is_empty()) return true;
    const auto left = string_language(both);
    return left && left->empty();
  }
  bool objects_exclude(const places& a, const places& b, int depth) {
    places both = a;
    both.insert(both.end(), b.begin(), b.end());
    for (const property& p : properties_of(both)) {
      if (p.is_required && are_disjoint(schemas_of(a, p.name), schemas_of(b, p.name), depth + 1)) return true;
    }
    return bounds(both, "minProperties", "maxProperties").is_empty();
  }

  static constexpr int longest_written_out = 256;  // letters of a string whose automaton has states for each of them

  rule_set rules_;
  json_schema_document document_;
  json_schema_options options_;
  json_values values_;
  index space_ = 0;
  index letter_rule_ = no_index;
  std::map<std::string, index, std::less<>> rule_of_;
  std::vector<std::pair<index, places>> open_;
  std::map<std::pair<int, int>, index> string_rules_;
};

/// The rules of the values that are valid under a schema; see json_schema_reader.
inline rule_set read_json_schema(std::string_view schema, json_schema_options options = {},
                                 const std::string& name = "JSON schema") {
  return json_schema_reader(schema, options, name).read();
}

}  // namespace effinfer::inline v0::decoding::grammar
