#pragma once
// The functions that every template can call: range, namespace, dict, cycler, joiner, and those that transformers adds:
// raise_exception and strftime_now.

#include <effinfer/text/jinja/attributes.hpp>

#include <array>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

namespace globals {

/// As in Jinja's sandbox, of at most 100000 elements.
inline value range(runtime& run, const arguments& given) {
  const auto a = given.bind_positional(run, "range", 3, 1);
  const std::int64_t first = a[1] ? need_integer(run, *a[0], "range() argument") : 0;
  const std::int64_t stop = need_integer(run, a[1] ? *a[1] : *a[0], "range() argument");
  const std::int64_t step = a[2] ? need_integer(run, *a[2], "range() argument") : 1;
  if (step == 0) run.fail("range() arg 3 must not be zero");
  std::uint64_t count = 0;
  if (step > 0 ? first < stop : first > stop) {
    // Unsigned: the distance of two 64-bit integers always fits.
    const std::uint64_t a1 = static_cast<std::uint64_t>(first), b1 = static_cast<std::uint64_t>(stop);
    const std::uint64_t pace =
        step > 0 ? static_cast<std::uint64_t>(step) : std::uint64_t{0} - static_cast<std::uint64_t>(step);
    count = ((step > 0 ? b1 - a1 : a1 - b1) - 1) / pace + 1;
  }
  if (count > 100'000)
    run.fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).", error_code::limit);
  run.step(count / 8);
  std::vector<value> all;
  all.reserve(static_cast<std::size_t>(count));
  std::int64_t n = first;
  for (std::uint64_t i = 0; i < count; ++i) {
    all.emplace_back(n);
    if (i + 1 < count) n += step;
  }
  run.make(64 + count * sizeof(value));
  sequence s(sequence_kind::range, std::move(all));
  s.range[0] = first, s.range[1] = stop, s.range[2] = step;
  return std::make_shared<const sequence>(std::move(s));
}

/// What dict(...) makes of its arguments: a dict or pairs, then names.
inline void fill(runtime& run, dictionary& d, const arguments& given) {
  if (given.positional.size() > 1)
    run.fail("dict expected at most 1 argument, got " + std::to_string(given.positional.size()));
  if (!given.positional.empty()) {
    const value& source = given.positional[0];
    if (const dictionary* m = source.mapping()) {
      for (const auto& [key, item] : m->entries()) set_item(run, d, key, item);
    } else {
      value pair;
      for (const auto all = iterate(run, source); all->next(run, pair);) {
        const auto both = collect(run, pair);
        if (both.size() != 2)
          run.fail("dictionary update sequence element has length " + std::to_string(both.size()) + "; 2 is required");
        set_item(run, d, both[0], both[1]);
      }
    }
  }
  for (const auto& [key, item] : given.named) set_item(run, d, key, item);
}
inline value dict(runtime& run, const arguments& given) {
  auto d = std::make_shared<dictionary>();
  fill(run, *d, given);
  return std::shared_ptr<const dictionary>(std::move(d));
}

inline void check_attribute_name(runtime& run, std::string_view name) {
  if (name.starts_with("_"))
    run.fail("a namespace can't have an attribute that begins with an underscore: '" +
             std::string(name.substr(0, 100)) + "'");
}
inline value make_namespace(runtime& run, const arguments& given) {
  auto made = std::make_shared<name_space>();
  run.keep(made);
  fill(run, made->attributes, given);
  for (const auto& [key, item] : made->attributes.entries()) {
    if (key.text()) check_attribute_name(run, key.text()->view());
  }
  return made;
}

/// Gives its values in turn: cycler("a", "b").next()
class cycler : public object_with_attributes {
 public:
  explicit cycler(std::vector<value> all) : all_(std::move(all)) {
    for (const value& v : all_) depth_ = std::max(depth_, v.depth() + 1);
  }
  std::optional<value> attribute(runtime& run, const value& self, std::string_view name) override {
    if (name == "current") return all_[at_];
    if (name == "pos") return at_;
    if (name == "next") return make_object<bound_method>(run, "next", self, &next);
    if (name == "reset") return make_object<bound_method>(run, "reset", self, &reset);
    return std::nullopt;
  }
  [[nodiscard]] std::string written() const override { return "<Cycler object>"; }
  [[nodiscard]] int depth() const override { return depth_; }

 private:
  static value next(runtime& run, const value& self, const arguments& given) {
    static_cast<void>(given.bind_positional(run, "next", 0));
    const auto c = self.as<cycler>();
    value current = c->all_[c->at_];
    c->at_ = (c->at_ + 1) % c->all_.size();
    return current;
  }
  static value reset(runtime& run, const value& self, const arguments& given) {
    static_cast<void>(given.bind_positional(run, "reset", 0));
    self.as<cycler>()->at_ = 0;
    return nullptr;
  }

  std::vector<value> all_;
  std::size_t at_ = 0;
  int depth_ = 1;
};
inline value make_cycler(runtime& run, const arguments& given) {
  static_cast<void>(given.bind_positional(run, "cycler", given.positional.size()));
  if (given.positional.empty()) run.fail("at least one item has to be provided");
  return make_object<cycler>(run, given.positional);
}

/// Nothing the first time, then the separator.
class joiner : public callable {
 public:
  explicit joiner(value separator) : separator_(std::move(separator)) {}
  value call(runtime& run, arguments given) override {
    static_cast<void>(given.bind_positional(run, "joiner", 0));
    return std::exchange(is_used_, true) ? separator_ : value("");
  }
  [[nodiscard]] std::string written() const override { return "<Joiner object>"; }
  [[nodiscard]] int depth() const override { return separator_.depth() + 1; }

 private:
  value separator_;
  bool is_used_ = false;
};
inline value make_joiner(runtime& run, const arguments& given) {
  const auto a = given.bind(run, "joiner", {"sep"});
  return make_object<joiner>(run, a[0] ? *a[0] : value(", "));
}

inline value raise_exception(runtime& run, const arguments& given) {
  const auto a = given.bind(run, "raise_exception", {"message"}, 1);
  run.fail("the template refuses this conversation: " + printed(run, *a[0]).string(), error_code::invalid_argument);
}

}  // namespace globals

/// strftime with English names, whatever the locale. Unknown directives stay as they are.
inline std::string write_time(const std::tm& t, std::string_view pattern) {
  constexpr std::array<std::string_view, 7> days = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                                    "Thursday", "Friday", "Saturday"};
  constexpr std::array<std::string_view, 12> months = {"January",   "February", "March",    "April",
                                                       "May",       "June",     "July",     "August",
                                                       "September", "October",  "November", "December"};
  const auto name = [](const auto& names, int i) {
    return i >= 0 && static_cast<std::size_t>(i) < names.size() ? names[static_cast<std::size_t>(i)]
                                                                : std::string_view("?");
  };
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%' || i + 1 == pattern.size()) {
      out.push_back(pattern[i]);
      continue;
    }
    const bool is_bare = pattern[i + 1] == '-' && i + 2 < pattern.size();  // %-d: no zero in front
    i += is_bare ? 2 : 1;
    const auto number = [&](int n, std::size_t width) {
      const std::string digits = std::to_string(n);
      if (!is_bare && digits.size() < width) out.append(width - digits.size(), '0');
      out.append(digits);
    };
    const int hour12 = t.tm_hour % 12 == 0 ? 12 : t.tm_hour % 12;
    switch (pattern[i]) {
      case 'a': out.append(name(days, t.tm_wday).substr(0, 3)); break;
      case 'A': out.append(name(days, t.tm_wday)); break;
      case 'b':
      case 'h': out.append(name(months, t.tm_mon).substr(0, 3)); break;
      case 'B': out.append(name(months, t.tm_mon)); break;
      case 'd': number(t.tm_mday, 2); break;
      case 'e': out.append(t.tm_mday < 10 && !is_bare ? " " : "").append(std::to_string(t.tm_mday)); break;
      case 'H': number(t.tm_hour, 2); break;
      case 'I': number(hour12, 2); break;
      case 'j': number(t.tm_yday + 1, 3); break;
      case 'm': number(t.tm_mon + 1, 2); break;
      case 'M': number(t.tm_min, 2); break;
      case 'S': number(t.tm_sec, 2); break;
      case 'p': out.append(t.tm_hour < 12 ? "AM" : "PM"); break;
      case 'y': number((t.tm_year % 100 + 100) % 100, 2); break;
      case 'Y': out.append(std::to_string(t.tm_year + 1900)); break;
      case 'w': out.append(std::to_string(t.tm_wday)); break;
      case 'F': out.append(write_time(t, "%Y-%m-%d")); break;
      case 'T': out.append(write_time(t, "%H:%M:%S")); break;
      case 'R': out.append(write_time(t, "%H:%M")); break;
      case 'D':
      case 'x': out.append(write_time(t, "%m/%d/%y")); break;
      case 'X': out.append(write_time(t, "%H:%M:%S")); break;
      case 'c': out.append(write_time(t, "%a %b %e %H:%M:%S %Y")); break;
      case 'n': out.push_back('\n'); break;
      case 't': out.push_back('\t'); break;
      case 'Z':
      case 'z': break;  // transformers' time knows no zone
      case '%': out.push_back('%'); break;
      default: out.append(is_bare ? "%-" : "%").push_back(pattern[i]);
    }
  }
  return out;
}

/// strftime_now: the time that the caller of render() gave.
class clock : public callable {
 public:
  explicit clock(const std::tm& now) : now_(now) {}
  value call(runtime& run, arguments given) override {
    const std::string_view pattern = need_text(run, *given.bind(run, "strftime_now", {"format"}, 1)[0], "format");
    run.make_string(32 * pattern.size());
    return make_text(run, write_time(now_, pattern));
  }
  [[nodiscard]] std::string written() const override { return "<function strftime_now>"; }

 private:
  std::tm now_;
};

/// The global function of this name, or nothing.
inline std::optional<value> find_global(std::string_view name) {
  struct entry {
    std::string_view name;
    function::body body;
  };
  static constexpr entry all[] = {{"range", globals::range},
                                  {"dict", globals::dict},
                                  {"namespace", globals::make_namespace},
                                  {"cycler", globals::make_cycler},
                                  {"joiner", globals::make_joiner},
                                  {"raise_exception", globals::raise_exception}};
  for (const entry& e : all) {
    if (e.name == name) return std::make_shared<function>(std::string(name), e.body);
  }
  return std::nullopt;
}

}  // namespace effinfer::inline v0::text::jinja
