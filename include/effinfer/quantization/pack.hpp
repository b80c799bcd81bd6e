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

/// One row's parts, with room for whole units, zero beyond the columns.
struct unpacked_storage {
  std::vector<std::uint8_t> codes, block_scales, block_minimums;
  std::vector<std::uint16_t> scales, minimums;
  std::vector<float> values;
  std::vector<std::byte> encoded;
  unpacked_row row{};

  explicit unpacked_storage(std::ptrdiff_t columns) {
    const auto padded = static_cast<std::size_t>((columns + 255) / 256 * 256);
    codes.resize(padded);
    block_scales.resize(padded / 16), block_minimums.resize(padded / 16);
    scales.resize(padded / 32), minimums.resize(padded / 32);
    row = {codes.data(), scales.data(), minimums.data(), block_scales.data(), block_minimums.data(), 0};
  }
};

template <class Format>
void store_row(const weight_matrix& w, std::ptrdiff_t r, const packed_matrix& p, int row_of_panel, std::byte* panel,
               unpacked_storage& scratch) {
  const int half = row_of_panel / rows_a_half, lane = row_of_panel % rows_a_half;
  std::byte* unit = panel + p.panel_head + half * p.unit_bytes;
  if constexpr (Format::is_float) {
    constexpr int step = Format::name == weight_format::bf16 ? 2 : 1, bytes = Format::bytes_a_column;
    const std::byte* value = w.row(r);
    for (std::ptrdiff_t c = 0; c < w.columns; c += step, unit += 2 * p.unit_bytes, value += step * bytes) {
      if (step == 1 || c + 1 < w.columns) {
        __builtin_memcpy(unit + lane * step * bytes, value, step * bytes);
      } else {
        __builtin_memcpy(unit + lane * step * bytes, value, bytes);
      }
    }
  } else {
    using scales = typename Format::scales;
    const int group = Format::scale_columns(p), scale_bytes = scales::bytes_a_unit(group);
    Format::unpack_row(w, r, scratch.row);
    if constexpr (scales::in_row) __builtin_memcpy(panel + row_of_panel * 4, &scratch.row.row_scale, 4);
    for (std::ptrdiff_t u = 0; u < p.units; ++u, unit += 2 * p.unit_bytes) {
      const std::ptrdiff_t first = u * scales::columns_a_unit;
      scales::store(unit, lane, scratch.row, first, group);
      for (int b = 0; b < scales::columns_a_unit / 32; ++b) {
        Format::codes::store(unit + scale_bytes + b * Format::codes::bytes_a_block, lane,
                             scratch.row.codes + first + b * 32);
      }
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

struct encode_row {
  struct args {
    storage to;
    const float* values;
    std::ptrdiff_t columns;
    std::byte* row;
    std::ptrdiff_t row_bytes;
    float* scale;
    bool* fits;
  };
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    float poison = 0;  // zero, or NaN where a value isn't finite
    for (std::ptrdiff_t i = 0; i < a.columns; ++i) poison += a.values[i] - a.values[i];
    *a.fits = poison == 0.0f;
    if (!*a.fits) return;
    if (a.to.format == weight_format::int8) {
      format::int8::encode<Set>(a.values, a.columns, a.row_bytes, a.row, a.scale);
    } else {
      *a.fits = format::int4::encode<Set>(a.values, a.columns, a.to.group, a.row);
    }
  }
};

template <class... Format, class F>
void with_format(formats<Format...>, weight_format f, const F& body) {
  (void)((f == Format::name ? (body(std::type_identity<Format>()), true) : false) || ...);
}

/// Row r of the source as a row of `to`, if need be encoded. False where it can't be.
inline bool store_any_row(execution::instruction_set set, storage to, const weight_matrix& source, std::ptrdiff_t r,
                          const packed_matrix& p, std::byte* panel, unpacked_storage& scratch) {
  const int row_of_panel = static_cast<int>(r % rows_a_panel);
  if (to.format == source.format) {
    with_format(all_formats(), to.format,
                [&](auto f) { store_row<typename decltype(f)::type>(source, r, p, row_of_panel, panel, scratch); });
    return true;
  }
  scratch.values.resize(static_cast<std::size_t>(source.columns));
  decode_row(source, r, scratch.values.data());
  float scale = 0;
  bool fits = true;
  weight_matrix encoded;
  encoded.format = to.format;
  encoded.rows = 1, encoded.columns = source.columns, encoded.group = to.group;
  encoded.row_bytes = row_bytes(to.format, source.columns, to.group);
  scratch.encoded.resize(static_cast<std::size_t>(encoded.row_bytes));
  encoded.data = scratch.encoded.data();
  encoded.scales = &scale;
  const encode_row::args args{
      to, scratch.values.data(), source.columns, scratch.encoded.data(), encoded.row_bytes, &scale, &fits};
  execution::dispatch<encode_row>(set, args);
  if (!fits) return false;
  if (to.format == weight_format::int8) {
    store_row<format::int8>(encoded, 0, p, row_of_panel, panel, scratch);
  } else {
    store_row<format::int4>(encoded, 0, p, row_of_panel, panel, scratch);
  }
  return true;
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
/// Cost: reads the source once. int4 spends about a hundred operations a weight on the search for scales. Exact: the same
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
  std::vector<detail::unpacked_storage> scratch(static_cast<std::size_t>(at_once), detail::unpacked_storage(0));
  for (auto& s : scratch) s = detail::unpacked_storage(source.columns);
  std::atomic<std::ptrdiff_t> bad_row{source.rows};
  for (std::ptrdiff_t first = 0; first < panels; first += at_once) {
    exec.parallel_for(std::min(at_once, panels - first), 1, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      for (std::ptrdiff_t i = begin; i < end; ++i) {
        const std::ptrdiff_t row = (first + i) * rows_a_panel;
        for (std::ptrdiff_t r = row; r < std::min(row + rows_a_panel, source.rows); ++r) {
          const bool fits = detail::store_any_row(exec.set(), to, source, r, p, into + (first + i) * p.panel_bytes,
                                                  scratch[static_cast<std::size_t>(i)]);
          std::ptrdiff_t seen = bad_row.load();
          while (!fits && r < seen && !bad_row.compare_exchange_weak(seen, r)) {
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
