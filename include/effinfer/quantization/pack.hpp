#pragma once
// From rows as a checkpoint stores them to panels as products stream them (packed_matrix.hpp), and back, a row at a time.
// Encoding to int8 or int4 happens on the way. Each weight is moved once; formats of files keep every bit.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/quantization/formats.hpp>
#include <effinfer/quantization/policy.hpp>
#include <effinfer/quantization/weight_storage.hpp>

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace effinfer::inline v0::quantization {

struct pack_options {
  std::string name = "weights";  ///< for error messages
  /// Called on the caller's thread every few rows, when the source's rows up to `rows_done` aren't needed any more; what
  /// it throws ends the work and reaches the caller.
  std::function<void(std::ptrdiff_t rows_done, std::ptrdiff_t rows)> progress;
};

namespace detail {

template <class Format>
packed_matrix layout_of(std::ptrdiff_t rows, std::ptrdiff_t columns, int group) {
  packed_matrix p;
  p.format = Format::name;
  p.rows = rows, p.columns = columns, p.group = group;
  if constexpr (Format::is_float) {
    const int step = Format::name == weight_format::bf16 ? 2 : 1;
    p.units = (columns + step - 1) / step;
    p.unit_bytes = rows_a_half * step * Format::bytes_a_column;
  } else {
    using scales = typename Format::scales;
    p.panel_head = scales::in_row ? rows_a_panel * 4 : 0;
    p.units = (columns + scales::columns_a_unit - 1) / scales::columns_a_unit;
    p.unit_bytes =
        scales::bytes_a_unit(Format::scale_columns(p)) + scales::columns_a_unit / 32 * Format::codes::bytes_a_block;
  }
  p.panel_bytes = (p.panel_head + 2 * p.units * p.unit_bytes + 63) / 64 * 64;
  return p;
}

/// Sixteen rows' parts, with room for whole units, zero beyond the columns.
struct unpacked_rows {
  std::vector<std::uint8_t> codes, block_scales, block_minimums;
  std::vector<std::uint16_t> scales, minimums;
  std::vector<float> values;  ///< one row's, before it is encoded
  unpacked_row row[rows_a_half];

  explicit unpacked_rows(std::ptrdiff_t columns) {
    const auto padded = static_cast<std::size_t>((columns + 255) / 256 * 256);
    codes.resize(rows_a_half * padded);
    block_scales.resize(rows_a_half * padded / 16), block_minimums.resize(rows_a_half * padded / 16);
    scales.resize(rows_a_half * padded / 32), minimums.resize(rows_a_half * padded / 32);
    values.resize(padded);
    for (std::size_t i = 0; i < rows_a_half; ++i) {
      const std::size_t at = i * padded;
      row[i] = {&codes[at], &scales[at / 32], &minimums[at / 32], &block_scales[at / 16], &block_minimums[at / 16], 0};
    }
  }
  unpacked_rows(const unpacked_rows&) = delete;
  unpacked_rows& operator=(const unpacked_rows&) = delete;
  unpacked_rows(unpacked_rows&&) = default;
  unpacked_rows& operator=(unpacked_rows&&) = default;
  ~unpacked_rows() = default;
};

/// A few words of each of sixteen rows, on their way to lying side by side. (Row by row, every line of a panel would be fetched
/// sixteen times.)
template <class Word, int Words>
struct words_of_rows {
  Word of[rows_a_half][Words] = {};

  /// Word i of all rows to at + i * stride.
  void store(std::byte* at, std::ptrdiff_t stride, int words) const {
    int i = 0;
    if constexpr (sizeof(Word) == 4 && Words >= 4) {
      for (; i + 4 <= words; i += 4) {
        for (int lane = 0; lane < rows_a_half; lane += 4) {
          store_4_by_4(&of[lane][i], at + i * stride + lane * 4, stride);
        }
      }
    }
    for (; i < words; ++i) {
      Word together[rows_a_half];
      for (int lane = 0; lane < rows_a_half; ++lane) together[lane] = of[lane][i];
      __builtin_memcpy(at + i * stride, together, sizeof together);
    }
  }

 private:
  /// Four words of four rows, turned.
  static EFFINFER_ALWAYS_INLINE void store_4_by_4(const Word* from, std::byte* at, std::ptrdiff_t stride) {
    using four = typename execution::detail::lanes_of<Word, 4>::type;
    four row[4];
    for (int i = 0; i < 4; ++i) __builtin_memcpy(&row[i], from + i * Words, sizeof(four));
    const four a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5),
               b = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
    const four c = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5),
               d = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
    const four column[4] = {__builtin_shufflevector(a, c, 0, 1, 4, 5), __builtin_shufflevector(a, c, 2, 3, 6, 7),
                            __builtin_shufflevector(b, d, 0, 1, 4, 5), __builtin_shufflevector(b, d, 2, 3, 6, 7)};
    for (int i = 0; i < 4; ++i) __builtin_memcpy(at + i * stride, &column[i], sizeof(four));
  }
};

/// Up to sixteen rows of a matrix of floats into a half of a panel, which begins at `unit`.
template <class Format>
void store_floats(const weight_matrix& w, std::ptrdiff_t first, int rows, const packed_matrix& p, std::byte* unit) {
  using word = std::conditional_t<Format::name == weight_format::f16, std::uint16_t, std::uint32_t>;
  constexpr std::ptrdiff_t words = 64 / sizeof(word);  // a line of each row
  const std::ptrdiff_t row_bytes = w.columns * Format::bytes_a_column;
  for (std::ptrdiff_t u = 0; u < p.units; u += words) {
    words_of_rows<word, words> some;
    const std::ptrdiff_t at = u * static_cast<std::ptrdiff_t>(sizeof(word)),
                         bytes = std::min<std::ptrdiff_t>(64, row_bytes - at);
    for (int lane = 0; lane < rows; ++lane)
      __builtin_memcpy(some.of[lane], w.row(first + lane) + at, static_cast<std::size_t>(bytes));
    some.store(unit + u * 2 * p.unit_bytes, 2 * p.unit_bytes, static_cast<int>(std::min(words, p.units - u)));
  }
}

/// The same from the parts of rows of integers; row scales lie at `head`.
template <class Format>
void store_parts(const unpacked_rows& from, int rows, const packed_matrix& p, std::byte* head, std::byte* unit) {
  using scales = typename Format::scales;
  using codes = typename Format::codes;
  const int group = Format::scale_columns(p), scale_bytes = scales::bytes_a_unit(group);
  if constexpr (scales::in_row) {
    for (int lane = 0; lane < rows; ++lane) __builtin_memcpy(head + lane * 4, &from.row[lane].row_scale, 4);
  }
  for (std::ptrdiff_t u = 0; u < p.units; ++u, unit += 2 * p.unit_bytes) {
    const std::ptrdiff_t first = u * scales::columns_a_unit;
    for (int lane = 0; lane < rows; ++lane) scales::store(unit, lane, from.row[lane], first, group);
    for (int b = 0; b < scales::columns_a_unit / 32; ++b) {
      constexpr int words = codes::bytes_a_block / 64;
      words_of_rows<std::uint32_t, words> some;
      for (int lane = 0; lane < rows; ++lane) codes::to_words(from.row[lane].codes + first + b * 32, some.of[lane]);
      some.store(unit + scale_bytes + b * codes::bytes_a_block, 64, words);
    }
  }
}

template <class Format>
void fetch_row(const packed_matrix& p, std::ptrdiff_t r, float* out) {
  const int half = static_cast<int>(r % rows_a_panel) / rows_a_half, lane = static_cast<int>(r % rows_a_half);
  const std::byte* panel = p.panel(r / rows_a_panel);
  const std::byte* unit = panel + p.panel_head + half * p.unit_bytes;
  if constexpr (Format::is_float) {
    constexpr int step = Format::name == weight_format::bf16 ? 2 : 1, bytes = Format::bytes_a_column;
    for (std::ptrdiff_t c = 0; c < p.columns; ++c) {
      Format::decode(unit + c / step * 2 * p.unit_bytes + (lane * step + c % step) * bytes, out + c);
    }
  } else {
    using scales = typename Format::scales;
    const int group = Format::scale_columns(p), scale_bytes = scales::bytes_a_unit(group);
    float row_scale = 1;
    if constexpr (scales::in_row) __builtin_memcpy(&row_scale, panel + r % rows_a_panel * 4, 4);
    std::uint8_t codes[32];
    float scale = 0, minimum = 0;
    for (std::ptrdiff_t c = 0; c < p.columns; ++c) {
      const std::ptrdiff_t u = c / scales::columns_a_unit;
      const int in_unit = static_cast<int>(c % scales::columns_a_unit);
      const std::byte* at = unit + u * 2 * p.unit_bytes;
      if (c % 32 == 0)
        Format::codes::fetch(at + scale_bytes + in_unit / 32 * Format::codes::bytes_a_block, lane, codes);
      if (c % scales::columns_a_scale == 0)
        scales::fetch(at, lane, in_unit / scales::columns_a_scale, group, scale, minimum);
      out[c] = row_scale * scale * static_cast<float>(static_cast<int>(codes[c % 32]) - Format::code_offset) + minimum;
    }
  }
}

/// A row of floats, of one of the three formats or in `values` already, into the parts of an integer row.
struct encode_row {
  struct args {
    storage to;
    weight_format source;
    const std::byte* stored;
    std::ptrdiff_t columns;
    float* values;
    unpacked_row* row;
    bool* fits;
  };
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = execution::f32x16<Set>;
    switch (a.source) {
      case weight_format::f32: widen<Set>(reinterpret_cast<const float*>(a.stored), a); break;
      case weight_format::f16: widen<Set>(reinterpret_cast<const f16*>(a.stored), a); break;
      case weight_format::bf16: widen<Set>(reinterpret_cast<const bf16*>(a.stored), a); break;
      default: break;
    }
    vector poison = vector::zero();  // NaN where a value isn't finite
    for (std::ptrdiff_t i = 0; i < a.columns; i += 16) {
      const vector v = vector::load(a.values + i);
      poison += v - v;
    }
    *a.fits = poison.sum() == 0.0f;
    if (!*a.fits) return;
    if (a.to.format == weight_format::int8) {
      format::int8::encode<Set>(a.values, a.columns, *a.row);
    } else {
      *a.fits = format::int4::encode<Set>(a.values, a.columns, a.to.group, *a.row);
    }
  }
  template <execution::instruction_set Set, class T>
  static EFFINFER_ALWAYS_INLINE void widen(const T* from, const args& a) {
    using vector = execution::f32x16<Set>;
    for (std::ptrdiff_t i = 0; i < a.columns; i += 16) {
      const vector v = i + 16 <= a.columns ? vector::load(from + i) : vector::load_first(from + i, a.columns - i);
      v.store(a.values + i);
    }
  }
};

template <class... Format, class F>
void with_format(formats<Format...>, weight_format f, const F& body) {
  (void)((f == Format::name ? (body(std::type_identity<Format>()), true) : false) || ...);
}

/// Up to sixteen rows of the source as half `half` of a panel, if need be encoded. Returns how many could be: rows, or fewer.
inline int store_half(execution::instruction_set set, storage to, const weight_matrix& source, std::ptrdiff_t first,
                      int rows, const packed_matrix& p, std::byte* panel, int half, unpacked_rows& scratch) {
  std::byte* head = panel + half * rows_a_half * 4;
  std::byte* unit = panel + p.panel_head + half * p.unit_bytes;
  if (to.format == source.format) {
    with_format(all_formats(), to.format, [&](auto f) {
      using format = typename decltype(f)::type;
      if constexpr (format::is_float) {
        store_floats<format>(source, first, rows, p, unit);
      } else {
        for (int lane = 0; lane < rows; ++lane) format::unpack_row(source, first + lane, scratch.row[lane]);
        store_parts<format>(scratch, rows, p, head, unit);
      }
    });
    return rows;
  }
  for (int lane = 0; lane < rows; ++lane) {
    if (!float_formats::contains(source.format)) decode_row(source, first + lane, scratch.values.data());
    bool fits = true;
    const encode_row::args args{
        to, source.format, source.row(first + lane), source.columns, scratch.values.data(), &scratch.row[lane], &fits};
    execution::dispatch<encode_row>(set, args);
    if (!fits) return lane;
  }
  if (to.format == weight_format::int8) {
    store_parts<format::int8>(scratch, rows, p, head, unit);
  } else {
    store_parts<format::int4>(scratch, rows, p, head, unit);
  }
  return rows;
}

}  // namespace detail

/// What a packed matrix of this size looks like, without its data: `bytes()` says what it takes.
/// Errors: those of `row_bytes`; limit, where the size overflows.
inline packed_matrix packed_layout(storage s, std::ptrdiff_t rows, std::ptrdiff_t columns) {
  const std::ptrdiff_t a_row = row_bytes(s.format, columns, s.group) + 4;
  // Padding at most quadruples a row (and adds a unit), and 31 rows are added.
  if (rows < 0 || rows > std::numeric_limits<std::ptrdiff_t>::max() / 64 / (a_row + 1024) - 31) {
    std::string what("rows = ");
    throw error(error_code::limit, "quantization::packed_layout", (what += std::to_string(rows)) += " is out of range");
  }
  packed_matrix p;
  detail::with_format(all_formats(), s.format,
                      [&](auto f) { p = detail::layout_of<typename decltype(f)::type>(rows, columns, s.group); });
  return p;
}

/// Packs `source` into `into`, which is zero, aligned to 64 and holds packed_layout(to, ...).bytes(). `to` is the format
/// of the source, or int8, or int4 with its group.
///
/// Cost: reads the source once. int4 spends about 150 operations a weight on the search for scales. Exact: the same
/// bytes for any number of threads; formats of files lose nothing.
/// Errors: mismatch, where the columns are no whole number of groups (policies fall back to int8 there); unsupported,
/// for another target, and for a row with a NaN, an infinity or, under int4, values beyond f16 (65504): the
/// message names the row.
inline packed_matrix pack(const execution::cpu::context& exec, storage to, const weight_matrix& source, std::byte* into,
                          const pack_options& options = {}) {
  const auto fail = [&](const std::string& problem, const std::string& hint) {
    std::string where("quantization::pack: ");
    throw error(error_code::unsupported, where += options.name, problem, hint);
  };
  std::string what("can't read the format ");  // += and not +: g++ 12 sees an overlapping copy there (-Wrestrict)
  if (!all_formats::contains(source.format)) fail(what += to_string(source.format), "");
  if (to.format != source.format && to.format != weight_format::int8 && to.format != weight_format::int4) {
    what = "can't encode ";
    fail(what += to_string(to.format), "int8 and int4 are encoded on load");
  }
  if (to.format == source.format) to.group = source.group;
  packed_matrix p = packed_layout(to, source.rows, source.columns);
  p.data = into;
  const std::ptrdiff_t panels = p.panels(), at_once = std::min<std::ptrdiff_t>(panels, 4 * exec.threads());
  std::vector<detail::unpacked_rows> scratch;
  for (std::ptrdiff_t i = 0; i < at_once; ++i) scratch.emplace_back(source.columns);
  std::atomic<std::ptrdiff_t> bad_row{source.rows};
  for (std::ptrdiff_t first = 0; first < panels; first += at_once) {
    exec.parallel_for(std::min(at_once, panels - first), 1, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      for (std::ptrdiff_t i = begin; i < end; ++i) {
        std::byte* panel = into + (first + i) * p.panel_bytes;
        for (int half = 0; half < 2; ++half) {
          const std::ptrdiff_t row = (first + i) * rows_a_panel + half * rows_a_half;
          const int rows = static_cast<int>(std::clamp<std::ptrdiff_t>(source.rows - row, 0, rows_a_half));
          const int stored = detail::store_half(exec.set(), to, source, row, rows, p, panel, half,
                                                scratch[static_cast<std::size_t>(i)]);
          std::ptrdiff_t seen = bad_row.load();
          while (stored < rows && row + stored < seen && !bad_row.compare_exchange_weak(seen, row + stored)) {
          }
        }
      }
    });
    if (bad_row.load() < source.rows) {
      what = "row ";
      what += std::to_string(bad_row.load());
      what += " has a value that ";
      what += to_string(to.format);
      what += " can't hold (a NaN, an infinity, or one beyond the range of its scales)";
      fail(what, "load this checkpoint with quantization::none");
    }
    if (options.progress) {
      options.progress(std::min((first + at_once) * rows_a_panel, source.rows), source.rows);
    }
  }
  return p;
}

/// A packed matrix with its memory. Movable; the view stays valid across moves.
class owned_packed_matrix {
 public:
  owned_packed_matrix() = default;
  owned_packed_matrix(weight_storage memory, const packed_matrix& view) : memory_(std::move(memory)), view_(view) {}
  [[nodiscard]] const packed_matrix& view() const noexcept { return view_; }
  operator const packed_matrix&() const noexcept { return view_; }  // NOLINT(google-explicit-constructor): it is one

 private:
  weight_storage memory_;
  packed_matrix view_;
};

/// The same into memory of its own. Errors: also std::bad_alloc.
inline owned_packed_matrix pack(const execution::cpu::context& exec, storage to, const weight_matrix& source,
                                const pack_options& options = {}) {
  if (to.format == source.format) to.group = source.group;
  weight_storage memory(packed_layout(to, source.rows, source.columns).bytes());
  const packed_matrix view = pack(exec, to, source, memory.data(), options);
  return owned_packed_matrix(std::move(memory), view);
}
/// The same in the source's own format.
inline owned_packed_matrix pack(const execution::cpu::context& exec, const weight_matrix& source,
                                const pack_options& options = {}) {
  return pack(exec, storage{source.format, source.group}, source, options);
}
/// The same from floats in memory.
inline owned_packed_matrix pack(const execution::cpu::context& exec, storage to, matrix_view<const float> source,
                                const pack_options& options = {}) {
  weight_matrix w = packed_rows(weight_format::f32, source.data, source.rows, source.columns);
  w.row_bytes = source.stride * 4;
  return pack(exec, to, w, options);
}

/// The values of one row of a packed matrix: an embedding lookup. `out` has w.columns floats.
/// Errors: invalid_argument, for a row outside of the matrix.
inline void decode_row(const packed_matrix& w, std::ptrdiff_t row, float* out) {
  if (row < 0 || row >= w.rows) {
    std::string what("row ");
    what += std::to_string(row);
    what += " of a matrix of ";
    what += std::to_string(w.rows);
    throw error(error_code::invalid_argument, "quantization::decode_row", what += " rows");
  }
  detail::with_format(all_formats(), w.format,
                      [&](auto f) { detail::fetch_row<typename decltype(f)::type>(w, row, out); });
}

}  // namespace effinfer::inline v0::quantization
