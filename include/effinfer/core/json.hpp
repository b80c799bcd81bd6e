#pragma once
// JSON documents read safely: RapidJSON behind a reader whose every mistake is an effinfer::error that names the
// file and the path of the field. Parsing is iterative (input can't recurse), and depth and size are limited. RapidJSON's
// assertions can't fire: every access checks the type first. Numbers: integers of 64 bits are exact, others are the nearest
// double.

#include <effinfer/core/error.hpp>
#include <effinfer/core/rapidjson.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace effinfer::inline v0::json {

/// Bounds on what is parsed.
struct limits {
  std::size_t bytes = std::size_t{1} << 30;  ///< of text
  int depth = 64;                            ///< of nested arrays and objects
};

class document;

/// A value inside a document; a pair of pointers, valid as long as the document. Getters throw `mismatch` where the type
/// is another, `missing` where a field isn't there; `find` is for fields that may be absent. Of equal keys the last
/// counts, as in Python.
class value {
 public:
  [[nodiscard]] bool is_null() const { return v_->IsNull(); }
  [[nodiscard]] bool is_boolean() const { return v_->IsBool(); }
  [[nodiscard]] bool is_number() const { return v_->IsNumber(); }
  [[nodiscard]] bool is_integer() const { return v_->IsInt64(); }
  [[nodiscard]] bool is_string() const { return v_->IsString(); }
  [[nodiscard]] bool is_array() const { return v_->IsArray(); }
  [[nodiscard]] bool is_object() const { return v_->IsObject(); }

  [[nodiscard]] bool boolean() const {
    if (!is_boolean()) wrong("true or false");
    return v_->GetBool();
  }
  /// An integer of at most 63 bits and a sign; 1.0 is none.
  [[nodiscard]] std::int64_t integer() const {
    if (!is_integer()) wrong("an integer");
    return v_->GetInt64();
  }
  /// An integer in [low, high]. Errors: `mismatch`.
  [[nodiscard]] std::int64_t integer(std::int64_t low, std::int64_t high) const {
    const std::int64_t n = integer();
    if (n < low || n > high) {
      fail(std::to_string(n) + " is not in [" + std::to_string(low) + ", " + std::to_string(high) + "]");
    }
    return n;
  }
  [[nodiscard]] double number() const {
    if (!is_number()) wrong("a number");
    return v_->GetDouble();
  }
  /// UTF-8; a view into the document.
  [[nodiscard]] std::string_view string() const {
    if (!is_string()) wrong("a string");
    return {v_->GetString(), v_->GetStringLength()};
  }

  /// Elements of an array. Errors: `mismatch`.
  [[nodiscard]] std::size_t size() const {
    if (!is_array()) wrong("an array");
    return v_->Size();
  }
  [[nodiscard]] value operator[](std::size_t i) const {
    if (i >= size()) fail("it has no element " + std::to_string(i));
    return value(&(*v_)[static_cast<rapid::SizeType>(i)], document_);
  }
  [[nodiscard]] std::vector<value> elements() const {
    std::vector<value> all;
    all.reserve(size());
    for (const auto& e : v_->GetArray()) all.emplace_back(value(&e, document_));
    return all;
  }

  /// Fields of an object, in the order of the text. Errors: `mismatch`.
  [[nodiscard]] std::vector<std::pair<std::string_view, value>> members() const {
    if (!is_object()) wrong("an object");
    std::vector<std::pair<std::string_view, value>> all;
    all.reserve(v_->MemberCount());
    for (const auto& m : v_->GetObject()) {
      all.emplace_back(std::string_view(m.name.GetString(), m.name.GetStringLength()), value(&m.value, document_));
    }
    return all;
  }
  /// The field `key`, if it is there; a null counts as there. Errors: `mismatch` (this is no object).
  [[nodiscard]] std::optional<value> find(std::string_view key) const {
    if (!is_object()) wrong("an object");
    for (auto it = v_->MemberEnd(); it != v_->MemberBegin();) {
      --it;
      if (std::string_view(it->name.GetString(), it->name.GetStringLength()) == key)
        return value(&it->value, document_);
    }
    return std::nullopt;
  }
  /// As `find`, and a null counts as absent.
  [[nodiscard]] std::optional<value> find_set(std::string_view key) const {
    auto found = find(key);
    if (found && found->is_null()) found.reset();
    return found;
  }
  /// Errors: `missing`, `mismatch` (this is no object).
  [[nodiscard]] value at(std::string_view key) const;

  /// "tokenizer.json: field model.vocab[3]", for messages. Cost: a walk over the document.
  [[nodiscard]] std::string where() const;
  /// Throws an error at this field.
  [[noreturn]] void fail(const std::string& problem, error_code code = error_code::mismatch,
                         const std::string& advice = {}) const {
    throw error(code, where(), problem, advice);
  }

 private:
  friend class document;
  value(const rapid::Value* v, const document* d) : v_(v), document_(d) {}

  [[noreturn]] void wrong(const char* wanted) const {
    const char* is = is_null()      ? "null"
                     : is_boolean() ? "a boolean"
                     : is_number()  ? "a number"
                     : is_string()  ? "a string"
                     : is_array()   ? "an array"
                                    : "an object";
    fail(std::string("it is ") + is +
         (is_number() && std::string_view(wanted) == "an integer" ? " that is no 64-bit integer" : "") + ", not " +
         wanted);
  }

  const rapid::Value* v_;
  const document* document_;
};

/// A parsed text. Not movable: values point to it.
class document {
 public:
  /// `name` stands in errors: the file's name. The text need not outlive the document. Errors: `malformed` (with line and
  /// byte; also text that isn't UTF-8), `limit`.
  document(std::string_view text, std::string name, const limits& bounds = {}) : name_(std::move(name)) {
    if (text.size() > bounds.bytes) {
      throw error(
          error_code::limit, name_,
          "the JSON text has " + std::to_string(text.size()) + " bytes, more than " + std::to_string(bounds.bytes));
    }
    // RapidJSON takes a NUL for the end and would not see what stands behind it.
    if (const auto nul = text.find('\0'); nul != std::string_view::npos) malformed(text, nul, "a NUL byte");
    check_depth(text, bounds.depth);
    rapid::MemoryStream bytes(text.data(), text.size());
    rapid::EncodedInputStream<rapid::UTF8<>, rapid::MemoryStream> input(bytes);
    rapid::Reader reader;
    tree_builder builder{tree_};
    const auto parse = [&](rapid::Document&) {
      constexpr unsigned flags =
          rapid::kParseIterativeFlag | rapid::kParseValidateEncodingFlag | rapid::kParseNumbersAsStringsFlag;
      return !reader.Parse<flags>(input, builder).IsError();
    };
    tree_.Populate(parse);
    if (reader.HasParseError()) {
      const auto problem = builder.is_too_big ? rapid::kParseErrorNumberTooBig : reader.GetParseErrorCode();
      malformed(text, reader.GetErrorOffset(), rapid::GetParseError_En(problem));
    }
  }
  document(const document&) = delete;
  document& operator=(const document&) = delete;

  [[nodiscard]] value root() const { return value(&tree_, this); }
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  friend class value;

  /// Passes what the reader finds on to the tree, numbers as text: RapidJSON 1.1's own exact conversion reads outside of its
  /// tables for some (0.11...1e-500 with 780 digits), so the standard library's is used.
  struct tree_builder {
    rapid::Document& tree;
    bool is_too_big = false;

    // NOLINTBEGIN(readability-identifier-naming): the names are what RapidJSON calls
    bool Null() { return tree.Null(); }
    bool Bool(bool b) { return tree.Bool(b); }
    bool Int(int n) { return tree.Int(n); }
    bool Uint(unsigned n) { return tree.Uint(n); }
    bool Int64(std::int64_t n) { return tree.Int64(n); }
    bool Uint64(std::uint64_t n) { return tree.Uint64(n); }
    bool Double(double d) { return tree.Double(d); }
    bool String(const char* s, rapid::SizeType size, bool copy) { return tree.String(s, size, copy); }
    bool Key(const char* s, rapid::SizeType size, bool copy) { return tree.Key(s, size, copy); }
    bool StartObject() { return tree.StartObject(); }
    bool EndObject(rapid::SizeType count) { return tree.EndObject(count); }
    bool StartArray() { return tree.StartArray(); }
    bool EndArray(rapid::SizeType count) { return tree.EndArray(count); }
    bool RawNumber(const char* text, rapid::SizeType size, bool) {
      // NOLINTEND(readability-identifier-naming)
      const char* end = text + size;
      std::int64_t n = 0;
      if (const auto [last, problem] = std::from_chars(text, end, n); last == end && problem == std::errc()) {
        return tree.Int64(n);
      }
      double d = 0.0;
      if (std::from_chars(text, end, d).ec == std::errc::result_out_of_range) {
        if (!is_below_one({text, size})) {
          is_too_big = true;
          return false;
        }
        d = *text == '-' ? -0.0 : 0.0;
      }
      return tree.Double(d);
    }

    /// True where the magnitude of a number beyond the doubles is too small, not too large.
    static bool is_below_one(std::string_view number) {
      const std::size_t e = std::min(number.find_first_of("eE"), number.size());
      std::int64_t exponent = 0;
      if (e < number.size()) {
        const char* digits = number.data() + e + (number[e + 1] == '+' ? 2 : 1);
        const auto problem = std::from_chars(digits, number.data() + number.size(), exponent).ec;
        if (problem == std::errc::result_out_of_range || std::abs(exponent) > (std::int64_t{1} << 40)) {
          return *digits == '-';
        }
      }
      const std::string_view digits = number.substr(0, e);
      const std::size_t first = digits.find_first_of("123456789"), point = std::min(digits.find('.'), digits.size());
      if (first == std::string_view::npos) return true;
      return static_cast<std::int64_t>(point) - static_cast<std::int64_t>(first) + exponent <= 0;
    }
  };

  [[noreturn]] void malformed(std::string_view text, std::size_t byte, const std::string& problem) const {
    const std::string_view before = text.substr(0, byte);
    throw error(error_code::malformed, name_,
                "invalid JSON in line " + std::to_string(std::count(before.begin(), before.end(), '\n') + 1) +
                    ", at byte " + std::to_string(byte) + ": " + problem);
  }

  /// Brackets outside of strings, before anything is built from them.
  void check_depth(std::string_view text, int most) const {
    int depth = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const char c = text[i];
      if (in_string) {
        if (c == '\\')
          ++i;
        else if (c == '"')
          in_string = false;
      } else if (c == '"') {
        in_string = true;
      } else if (c == '[' || c == '{') {
        if (++depth > most) {
          throw error(error_code::limit, name_,
                      "JSON nested deeper than " + std::to_string(most) + " at byte " + std::to_string(i));
        }
      } else if (c == ']' || c == '}') {
        --depth;
      }
    }
  }

  /// The path from the root to `target`, found by walking the tree: only errors pay for paths.
  [[nodiscard]] std::string path_of(const rapid::Value* target) const {
    struct step {
      const rapid::Value* v;
      std::size_t parent;
      std::string label;
    };
    if (target == &tree_) return "";
    std::vector<step> steps{{&tree_, 0, ""}};
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const rapid::Value* v = steps[i].v;
      const auto add = [&](const rapid::Value* child, std::string label) {
        if (child == target || child->IsObject() || child->IsArray()) steps.push_back({child, i, std::move(label)});
        return child == target;
      };
      bool found = false;
      if (v->IsObject()) {
        for (const auto& m : v->GetObject()) {
          found = add(&m.value, (i == 0 ? "" : ".") + std::string(m.name.GetString(), m.name.GetStringLength()));
          if (found) break;
        }
      } else if (v->IsArray()) {
        for (rapid::SizeType k = 0; k < v->Size() && !found; ++k) found = add(&(*v)[k], "[" + std::to_string(k) + "]");
      }
      if (found) {
        std::string path;
        for (std::size_t s = steps.size() - 1; s != 0; s = steps[s].parent) path.insert(0, steps[s].label);
        return path;
      }
    }
    return "?";
  }

  std::string name_;
  rapid::Document tree_;
};

inline std::string value::where() const {
  const std::string path = document_->path_of(v_);
  return path.empty() ? document_->name() : document_->name() + ": field " + path;
}

inline value value::at(std::string_view key) const {
  if (auto found = find(key)) return *found;
  const std::string path = document_->path_of(v_);
  throw error(error_code::missing, document_->name() + ": field " + (path.empty() ? "" : path + ".") + std::string(key),
              "it isn't there");
}

}  // namespace effinfer::inline v0::json
