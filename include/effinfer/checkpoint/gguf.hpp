#pragma once
// The GGUF format, versions 2 and 3, little endian: metadata (key, typed value), tensor infos, then the tensors' bytes.
// Source: the specification in ggml's docs/gguf.md. Every length is checked against the bytes left before it is used.

#include <effinfer/checkpoint/tensor.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace effinfer::inline v0::checkpoint {

/// The types of metadata values, numbered as in the file.
enum class gguf_type : std::uint32_t {
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  float32,
  boolean,
  string,
  array,
  uint64,
  int64,
  float64,
};

/// The metadata of a GGUF file, and its tensors. Strings and arrays are views into the bytes it was read from, which must
/// outlive it; nothing in them is copied, so a vocabulary of 100,000 entries costs nothing to open.
class gguf {
 public:
  /// One metadata value. Getters throw `mismatch` naming file and key where the type is another.
  class value {
   public:
    [[nodiscard]] gguf_type type() const { return type_; }
    [[nodiscard]] bool is_array() const { return type_ == gguf_type::array; }
    /// Any integer type. Errors: `mismatch` (no integer, or one beyond 63 bits).
    [[nodiscard]] std::int64_t integer() const;
    /// An integer in [low, high]. Errors: `mismatch`.
    [[nodiscard]] std::int64_t integer(std::int64_t low, std::int64_t high) const {
      const std::int64_t n = integer();
      if (n < low || n > high)
        fail(std::to_string(n) + " is not in [" + std::to_string(low) + ", " + std::to_string(high) + "]");
      return n;
    }
    /// Any floating-point or integer type.
    [[nodiscard]] double number() const;
    [[nodiscard]] bool boolean() const {
      if (type_ != gguf_type::boolean) fail("it is no boolean");
      return bytes_[0] != std::byte{0};
    }
    /// Bytes as they are; nothing promises UTF-8.
    [[nodiscard]] std::string_view string() const {
      if (type_ != gguf_type::string) fail("it is no string");
      return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
    }
    /// Elements of an array; 0 and an error for anything else.
    [[nodiscard]] std::size_t size() const {
      if (!is_array()) fail("it is no array");
      return count_;
    }
    /// Calls `use(element)` for all elements, in order; strings are views. Errors: `mismatch` (no array, or an array of
    /// arrays).
    template <class Use>
    void for_each(const Use& use) const;
    /// All of them. Errors: as for_each.
    [[nodiscard]] std::vector<value> elements() const {
      std::vector<value> all;
      all.reserve(size());
      for_each([&](const value& v) { all.push_back(v); });
      return all;
    }
    [[nodiscard]] std::string where() const { return *file_ + ": " + std::string(key_); }

   private:
    friend class gguf;
    [[noreturn]] void fail(const std::string& problem) const { throw error(error_code::mismatch, where(), problem); }

    gguf_type type_ = gguf_type::uint8;
    gguf_type element_ = gguf_type::uint8;  ///< of an array
    std::size_t count_ = 0;                 ///< of an array
    std::span<const std::byte> bytes_;
    std::string_view key_;
    const std::string* file_ = nullptr;
  };

  /// Reads the headers of `file`, which must outlive this. `name` stands in errors.
  ///
  /// Errors: `malformed` (not GGUF, cut short, lengths or offsets out of the file, overlapping tensors, a key or tensor named
  /// twice), `unsupported` (version 1, big endian), `limit` (nested arrays deeper than 4), `mismatch` (general.alignment is no
  /// integer).
  gguf(std::span<const std::byte> file, const std::string& name);
  gguf(const gguf&) = delete;
  gguf& operator=(const gguf&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::span<const tensor> tensors() const { return tensors_; }
  /// The value at `key`, or null.
  [[nodiscard]] const value* find(std::string_view key) const {
    const auto it = values_.find(key);
    return it == values_.end() ? nullptr : &it->second;
  }
  /// Errors: `missing`.
  [[nodiscard]] const value& at(std::string_view key) const {
    if (const value* v = find(key)) return *v;
    throw error(error_code::missing, name_ + ": " + std::string(key), "the key isn't there");
  }

 private:
  /// Reads forward, never past the end.
  class reader {
   public:
    reader(std::span<const std::byte> file, const std::string& name) : file_(file), name_(name) {}
    [[nodiscard]] std::size_t position() const { return position_; }
    [[nodiscard]] std::size_t left() const { return file_.size() - position_; }
    std::span<const std::byte> take(std::uint64_t bytes, std::string_view what) {
      if (bytes > left()) {
        fail(what, "needs " + std::to_string(bytes) + " bytes at byte " + std::to_string(position_) + ", but " +
                       std::to_string(left()) + " are left; the file may be cut short");
      }
      const auto taken = file_.subspan(position_, static_cast<std::size_t>(bytes));
      position_ += static_cast<std::size_t>(bytes);
      return taken;
    }
    template <class T>
    T number(std::string_view what) {
      T n;
      std::memcpy(&n, take(sizeof n, what).data(), sizeof n);
      return n;
    }
    std::string_view string(std::string_view what) {
      const auto bytes = take(number<std::uint64_t>(what), what);
      return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
    /// A key or a tensor's name; 65535 bytes are the format's own limit, and what may stand in a message.
    std::string_view name(const std::string& what) {
      const std::string_view s = string(what);
      if (s.size() > 65535) fail(what, "its name has " + std::to_string(s.size()) + " bytes, more than 65535");
      return s;
    }
    [[noreturn]] void fail(std::string_view what, const std::string& problem) const {
      throw error(error_code::malformed, name_ + ": " + std::string(what), problem);
    }

   private:
    std::span<const std::byte> file_;
    const std::string& name_;
    std::size_t position_ = 0;
  };

  static std::size_t size_of(gguf_type type) {
    switch (type) {
      case gguf_type::uint8:
      case gguf_type::int8:
      case gguf_type::boolean: return 1;
      case gguf_type::uint16:
      case gguf_type::int16: return 2;
      case gguf_type::uint32:
      case gguf_type::int32:
      case gguf_type::float32: return 4;
      case gguf_type::uint64:
      case gguf_type::int64:
      case gguf_type::float64: return 8;
      default: return 0;
    }
  }

  static gguf_type checked_type(const reader& r, std::uint32_t type, std::string_view key) {
    if (type > static_cast<std::uint32_t>(gguf_type::float64))
      r.fail(key, "unknown value type " + std::to_string(type));
    return static_cast<gguf_type>(type);
  }

  /// Passes over a value of `type`, filling `v`.
  void read_value(reader& r, value& v, gguf_type type, int depth) const {
    v.type_ = type;
    if (type == gguf_type::string) {
      const std::string_view s = r.string(v.key_);
      v.bytes_ = std::as_bytes(std::span(s.data(), s.size()));
    } else if (type == gguf_type::array) {
      if (depth == 4) throw error(error_code::limit, v.where(), "arrays nested deeper than 4");
      v.element_ = checked_type(r, r.number<std::uint32_t>(v.key_), v.key_);
      const auto count = r.number<std::uint64_t>(v.key_);
      const std::size_t least = v.element_ == gguf_type::string  ? 8
                                : v.element_ == gguf_type::array ? 12
                                                                 : size_of(v.element_);
      if (count > r.left() / least)
        r.fail(v.key_, "an array of " + std::to_string(count) + " values is longer than the rest of the file");
      v.count_ = static_cast<std::size_t>(count);
      const std::size_t begin = r.position();
      value ignored;
      ignored.key_ = v.key_, ignored.file_ = v.file_;
      if (size_of(v.element_) != 0) {
        v.bytes_ = r.take(count * size_of(v.element_), v.key_);
        return;
      }
      for (std::uint64_t i = 0; i < count; ++i) read_value(r, ignored, v.element_, depth + 1);
      v.bytes_ = file_.subspan(begin, r.position() - begin);
    } else {
      v.bytes_ = r.take(size_of(type), v.key_);
      if (type == gguf_type::boolean && std::to_integer<int>(v.bytes_[0]) > 1)
        r.fail(v.key_, "a boolean that is neither 0 nor 1");
    }
  }

  /// The format that the file numbers so.
  static weight_format format_of(std::uint32_t type) {
    switch (type) {
      case 0: return weight_format::f32;
      case 1: return weight_format::f16;
      case 2: return weight_format::q4_0;
      case 3: return weight_format::q4_1;
      case 6: return weight_format::q5_0;
      case 7: return weight_format::q5_1;
      case 8: return weight_format::q8_0;
      case 12: return weight_format::q4_k;
      case 13: return weight_format::q5_k;
      case 14: return weight_format::q6_k;
      case 30: return weight_format::bf16;
      default: return weight_format::other;
    }
  }

  void read_tensors(reader& r, std::uint64_t count, std::uint64_t alignment);

  std::string name_;
  std::span<const std::byte> file_;
  std::unordered_map<std::string_view, value> values_;
  std::vector<tensor> tensors_;
};

inline std::int64_t gguf::value::integer() const {
  const auto read = [this]<class T>(T n) {
    std::memcpy(&n, bytes_.data(), sizeof n);
    return static_cast<std::int64_t>(n);
  };
  switch (type_) {
    case gguf_type::uint8: return read(std::uint8_t{});
    case gguf_type::int8: return read(std::int8_t{});
    case gguf_type::uint16: return read(std::uint16_t{});
    case gguf_type::int16: return read(std::int16_t{});
    case gguf_type::uint32: return read(std::uint32_t{});
    case gguf_type::int32: return read(std::int32_t{});
    case gguf_type::int64: return read(std::int64_t{});
    case gguf_type::uint64: {
      const std::int64_t n = read(std::uint64_t{});
      if (n < 0) fail("its value is beyond 63 bits");
      return n;
    }
    default: fail("it is no integer");
  }
}

inline double gguf::value::number() const {
  if (type_ == gguf_type::float32) {
    float f = 0;
    std::memcpy(&f, bytes_.data(), sizeof f);
    return static_cast<double>(f);
  }
  if (type_ == gguf_type::float64) {
    double d = 0;
    std::memcpy(&d, bytes_.data(), sizeof d);
    return d;
  }
  return static_cast<double>(integer());
}

template <class Use>
void gguf::value::for_each(const Use& use) const {
  if (!is_array() || element_ == gguf_type::array) fail("it is no array of plain values");
  std::size_t at = 0;
  value v;
  v.type_ = element_, v.key_ = key_, v.file_ = file_;
  for (std::size_t i = 0; i < count_; ++i) {
    std::size_t size = size_of(element_);
    if (element_ == gguf_type::string) {
      std::uint64_t length = 0;  // checked when the file was read
      std::memcpy(&length, bytes_.data() + at, sizeof length);
      at += sizeof length;
      size = static_cast<std::size_t>(length);
    }
    v.bytes_ = bytes_.subspan(at, size);
    at += size;
    use(std::as_const(v));
  }
}

inline gguf::gguf(std::span<const std::byte> file, const std::string& name) : name_(name), file_(file) {
  reader r(file, name_);
  const auto magic = r.take(4, "magic");
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) r.fail("magic", "the file doesn't begin with GGUF");
  const auto version = r.number<std::uint32_t>("version");
  if (version != 2 && version != 3) {
    throw error(
        error_code::unsupported, name_ + ": version",
        (version & 0xffffu) == 0 && version != 0 ? "the file is big endian" : "version " + std::to_string(version),
        "convert it to GGUF version 3, little endian");
  }
  const auto tensor_count = r.number<std::uint64_t>("tensor count");
  const auto value_count = r.number<std::uint64_t>("metadata count");
  // The least that a key (8 + 4 + 1 bytes) and a tensor info (8 + 4 + 4 + 8) take.
  if (value_count > r.left() / 13)
    r.fail("metadata count", std::to_string(value_count) + " is more than the file holds");
  for (std::uint64_t i = 0; i < value_count; ++i) {
    value v;
    v.key_ = r.name("key " + std::to_string(i));
    v.file_ = &name_;
    read_value(r, v, checked_type(r, r.number<std::uint32_t>(v.key_), v.key_), 0);
    if (!values_.emplace(v.key_, v).second) r.fail(v.key_, "the key is there twice");
  }
  if (tensor_count > r.left() / 24)
    r.fail("tensor count", std::to_string(tensor_count) + " is more than the file holds");
  std::uint64_t alignment = 32;
  if (const value* v = find("general.alignment")) {
    const std::int64_t n = v->integer();
    if (n < 1 || n > (1 << 20) || (n & (n - 1)) != 0)
      r.fail("general.alignment", std::to_string(n) + " is no power of two in [1, 1048576]");
    alignment = static_cast<std::uint64_t>(n);
  }
  read_tensors(r, tensor_count, alignment);
}

inline void gguf::read_tensors(reader& r, std::uint64_t count, std::uint64_t alignment) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> places;  // offset, bytes
  std::unordered_map<std::string_view, int> seen;
  for (std::uint64_t i = 0; i < count; ++i) {
    tensor t;
    const std::string_view key = r.name("tensor " + std::to_string(i));
    t.name = std::string(key);
    t.file = name_;
    const std::string where = "tensor " + t.name;
    if (!seen.emplace(key, 1).second) r.fail(where, "the tensor is there twice");
    const auto dimensions = r.number<std::uint32_t>(where);
    if (dimensions > 8) r.fail(where, "it has " + std::to_string(dimensions) + " dimensions");
    std::uint64_t values = 1;
    for (std::uint32_t d = 0; d < dimensions; ++d) {
      const auto n = r.number<std::uint64_t>(where);
      if (n > (std::uint64_t{1} << 48) || (n != 0 && values > (std::uint64_t{1} << 56) / n))
        r.fail(where, "its shape is absurdly large");
      values *= n;
      t.shape.insert(t.shape.begin(), static_cast<std::int64_t>(n));  // the file has the innermost first
    }
    const auto type = r.number<std::uint32_t>(where);
    t.format = format_of(type);
    const auto offset = r.number<std::uint64_t>(where);
    std::uint64_t bytes = 0;
    if (t.format != weight_format::other) {
      const auto block = static_cast<std::uint64_t>(block_size(t.format));
      if (t.shape.empty() || static_cast<std::uint64_t>(t.shape.back()) % block != 0) {
        r.fail(where, "its rows are no whole number of " + std::string(to_string(t.format)) + " blocks");
      }
      bytes = values / block * static_cast<std::uint64_t>(block_bytes(t.format));
    }
    if (offset % alignment != 0)
      r.fail(where, "its offset " + std::to_string(offset) + " is not aligned to " + std::to_string(alignment));
    places.emplace_back(offset, bytes);
    tensors_.push_back(std::move(t));
  }
  const std::uint64_t begin = (r.position() + alignment - 1) / alignment * alignment;
  const std::uint64_t data_bytes = begin <= file_.size() ? file_.size() - begin : 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const auto [offset, bytes] = places[i];
    if (offset > data_bytes || bytes > data_bytes - offset) {
      r.fail("tensor " + tensors_[i].name,
             "its " + std::to_string(bytes) + " bytes at offset " + std::to_string(offset) + " are not in the " +
                 std::to_string(data_bytes) + " bytes of data; the file may be cut short");
    }
    // Where no tensor has a byte, the file may end before its data would begin.
    const auto start = static_cast<std::size_t>(bytes == 0 ? 0 : begin + offset);
    tensors_[i].data = file_.subspan(start, static_cast<std::size_t>(bytes));
  }
  check_disjoint(tensors_);
}

}  // namespace effinfer::inline v0::checkpoint
