#pragma once
// Strings from patterns: "%s: %5.2f" % values, and "{}: {name}".format(...) without format specifications.

#include <effinfer/text/jinja/calling.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

namespace effinfer::inline v0::text::jinja {

/// `pattern % operand`: the conversions s r d i u f F e E g G x X o c %, flags - 0 + space, width and precision.
class percent_formatter {
 public:
  percent_formatter(runtime& run, const value& pattern, const value& operand)
      : run_(run), pattern_(*pattern.text()), operand_(operand), rest_(pattern_.view()) {
    if (const sequence* s = operand.elements(); s && s->kind == sequence_kind::tuple) tuple_ = s;
  }

  value format() {
    while (!rest_.empty()) {
      const std::size_t at = rest_.find('%');
      add(rest_.substr(0, at));
      if (at == std::string_view::npos) break;
      rest_.remove_prefix(at + 1);
      conversion();
    }
    // What can be looked into by key may stay unused.
    const bool may_stay = !tuple_ && (operand_.mapping() || operand_.elements() || operand_.is_undefined());
    if (used_ < (tuple_ ? tuple_->elements.size() : 1) && !may_stay) {
      run_.fail("not all arguments converted during string formatting");
    }
    return make_text(run_, std::move(out_), pattern_.is_markup);
  }

 private:
  void add(std::string_view s) {
    run_.grow_string(out_.size(), s.size());
    out_.append(s);
  }
  char take() {
    if (rest_.empty()) run_.fail("incomplete format");
    const char c = rest_[0];
    rest_.remove_prefix(1);
    return c;
  }
  const value& next_argument() {
    const std::size_t given = tuple_ ? tuple_->elements.size() : 1;
    if (used_ >= given) run_.fail("not enough arguments for format string");
    return tuple_ ? tuple_->elements[used_++] : (++used_, operand_);
  }
  int number() {
    int n = 0;
    if (!rest_.empty() && rest_[0] == '*') run_.fail("'*' in a format string", error_code::unsupported);
    while (!rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9') {
      n = 10 * n + (take() - '0');
      if (n > 10'000) run_.fail("a width or precision above 10000", error_code::limit);
    }
    return n;
  }

  void conversion() {
    const value* named = nullptr;
    if (!rest_.empty() && rest_[0] == '(') {
      const std::size_t end = rest_.find(')');
      if (end == std::string_view::npos) run_.fail("incomplete format key");
      const std::string_view key = rest_.substr(1, end - 1);
      if (!operand_.mapping()) run_.fail("format requires a mapping");
      named = operand_.mapping()->find(key);
      if (!named) run_.fail("format key '" + std::string(key) + "' is missing");
      rest_.remove_prefix(end + 1);
    }
    bool is_left = false, is_zero = false, has_plus = false, has_space = false, has_precision = false;
    for (; !rest_.empty() && std::string_view("-0+ #").find(rest_[0]) != std::string_view::npos;
         rest_.remove_prefix(1)) {
      is_left = is_left || rest_[0] == '-';
      is_zero = is_zero || rest_[0] == '0';
      has_plus = has_plus || rest_[0] == '+';
      has_space = has_space || rest_[0] == ' ';
      if (rest_[0] == '#') run_.fail("'#' in a format string", error_code::unsupported);
    }
    const int width = number();
    int precision = 0;
    if (!rest_.empty() && rest_[0] == '.') {
      rest_.remove_prefix(1);
      has_precision = true;
      precision = number();
    }
    const char kind = take();
    if (kind == '%') {
      add("%");
      return;
    }
    if (std::string_view("srdiufFeEgGxXoc").find(kind) == std::string_view::npos) {
      run_.fail(std::string("unsupported format character '") + kind + "'");
    }
    const value& v = named ? *named : next_argument();
    std::string sign, body;
    if (kind == 's' || kind == 'r' || kind == 'c') {
      if (kind == 'c') {
        need_text(run_, v, "%c");
        if (count_characters(v.text()->view()) != 1) run_.fail("%c requires a single character");
      }
      if (kind == 'r') {
        append_written(run_, body, v);
      } else {
        body = pattern_.is_markup ? escaped(run_, v) : printed(run_, v).string();
      }
      if (has_precision && count_characters(body) > static_cast<std::size_t>(precision)) {
        body.resize(byte_of_character(body, static_cast<std::size_t>(precision)));
      }
      is_zero = false;
    } else {
      body = number_text(v, kind, has_precision ? precision : -1);
      if (body[0] == '-') {
        sign = "-";
        body.erase(0, 1);
      } else if (has_plus || has_space) {
        sign = has_plus ? "+" : " ";
      }
    }
    const auto filled = sign.size() + count_characters(body);
    const std::string fill(static_cast<std::size_t>(width) > filled ? static_cast<std::size_t>(width) - filled : 0,
                           is_zero && !is_left ? '0' : ' ');
    if (is_left) {
      add(sign + body + fill);
    } else {
      add(is_zero ? sign + fill + body : fill + sign + body);
    }
  }

  std::string number_text(const value& v, char kind, int precision) {
    need_defined(run_, v);
    if (!v.is_number()) run_.fail(std::string("%") + kind + " format: a number is required, not " + v.type_name());
    if (kind == 'x' || kind == 'X' || kind == 'o' || kind == 'd' || kind == 'i' || kind == 'u') {
      std::int64_t n = 0;
      if (const auto whole = v.integer()) {
        n = *whole;
      } else {
        const double d = std::trunc(*v.get_if<double>());
        if (kind == 'x' || kind == 'X' || kind == 'o')
          run_.fail(std::string("%") + kind + " format: an integer is required");
        if (!(std::fabs(d) < 0x1p63)) run_.fail("an integer of more than 64 bits", error_code::unsupported);
        n = static_cast<std::int64_t>(d);
      }
      std::array<char, 72> buffer;
      const int base = kind == 'o' ? 8 : kind == 'x' || kind == 'X' ? 16 : 10;
      std::string s(buffer.data(), std::to_chars(buffer.data(), buffer.data() + buffer.size(), n, base).ptr);
      if (kind == 'X') s = to_upper_case(s);
      const std::size_t digits = s.size() - (s[0] == '-');
      if (precision > 0 && digits < static_cast<std::size_t>(precision)) {
        s.insert(s[0] == '-' ? 1 : 0, static_cast<std::size_t>(precision) - digits, '0');
      }
      return s;
    }
    const double d = to_float(v);
    if (precision < 0) precision = 6;
    if ((kind == 'g' || kind == 'G') && precision == 0) precision = 1;
    const auto style = kind == 'f' || kind == 'F'   ? std::chars_format::fixed
                       : kind == 'e' || kind == 'E' ? std::chars_format::scientific
                                                    : std::chars_format::general;
    std::string buffer(static_cast<std::size_t>(precision) + 400, '\0');
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), d, style, precision).ptr;
    buffer.resize(static_cast<std::size_t>(end - buffer.data()));
    return kind >= 'a' ? buffer : to_upper_case(buffer);
  }

  runtime& run_;
  text_value pattern_;
  const value& operand_;
  std::string_view rest_;
  const sequence* tuple_ = nullptr;
  std::size_t used_ = 0;
  std::string out_;
};

/// str.format with fields {}, {0} and {name}.
inline value format_braces(runtime& run, const text_value& pattern, const arguments& given) {
  std::string out;
  std::string_view rest = pattern.view();
  std::size_t automatic = 0;
  bool is_automatic = false, is_numbered = false;
  while (!rest.empty()) {
    const std::size_t at = rest.find_first_of("{}");
    run.grow_string(out.size(), rest.substr(0, at).size() + 1);
    out.append(rest.substr(0, at));
    if (at == std::string_view::npos) break;
    const char brace = rest[at];
    rest.remove_prefix(at + 1);
    if (!rest.empty() && rest[0] == brace) {
      out.push_back(brace);
      rest.remove_prefix(1);
      continue;
    }
    if (brace == '}') run.fail("single '}' encountered in format string");
    const std::size_t end = rest.find('}');
    if (end == std::string_view::npos) run.fail("expected '}' before end of string");
    const std::string_view field = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    if (field.find_first_of(":!.[{") != std::string_view::npos) {
      run.fail("format(): the field {" + std::string(field) + "}", error_code::unsupported,
               "fields here are {}, {0} and {name}");
    }
    const value* v = nullptr;
    if (field.empty() || field.find_first_not_of("0123456789") == std::string_view::npos) {
      (field.empty() ? is_automatic : is_numbered) = true;
      if (is_automatic && is_numbered) run.fail("cannot mix automatic and manual field numbering");
      std::size_t i = automatic++;
      if (!field.empty() && std::from_chars(field.data(), field.data() + field.size(), i).ec != std::errc())
        i = std::size_t(-1);
      if (i >= given.positional.size()) run.fail("replacement index out of range for positional args");
      v = &given.positional[i];
    } else {
      for (const auto& [key, item] : given.named) {
        if (key == field) v = &item;
      }
      if (!v) run.fail("format(): no argument '" + std::string(field) + "'");
    }
    const std::string made = pattern.is_markup ? escaped(run, *v) : printed(run, *v).string();
    run.grow_string(out.size(), made.size());
    out.append(made);
  }
  return make_text(run, std::move(out), pattern.is_markup);
}

}  // namespace effinfer::inline v0::text::jinja
