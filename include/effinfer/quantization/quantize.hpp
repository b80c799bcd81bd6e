#pragma once
// Encodes a matrix of any format as int8 or int4, by rows, on all threads: what a loader does under the policies int8
// and int4.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/quantization/formats.hpp>
#include <effinfer/quantization/policy.hpp>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>

namespace effinfer::inline v0::quantization {

struct quantize_options {
  std::string name = "weights";  ///< for error messages
  /// Called on the caller's thread every few rows; what it throws ends the work and reaches the caller.
  std::function<void(std::ptrdiff_t rows_done, std::ptrdiff_t rows)> progress;
};

namespace detail {

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

}  // namespace detail

/// `source` encoded as `to` (int8, or int4 with its group). Cost: reads the source once; int4 spends about a hundred
/// operations a weight on the search for scales. Exact: the same bytes for any number of threads.
/// Errors: mismatch, where the columns are no whole number of groups (policies fall back to int8 there); unsupported, for
/// another target, and for a row with a NaN, an infinity or, under int4, values beyond f16 (65504): the message
/// names the row.
inline owned_weight_matrix quantize(const execution::cpu::context& exec, storage to, const weight_matrix& source,
                                    const quantize_options& options = {}) {
  if (to.format != weight_format::int8 && to.format != weight_format::int4) {
    throw error(error_code::unsupported, "quantization::quantize: " + options.name,
                "can't encode " + std::string(to_string(to.format)), "int8 and int4 are encoded on load");
  }
  if (!all_formats::contains(source.format)) {
    throw error(error_code::unsupported, "quantization::quantize: " + options.name,
                "can't read the format " + std::string(to_string(source.format)));
  }
  owned_weight_matrix result(to.format, source.rows, source.columns, to.group);
  if (source.rows == 0 || source.columns == 0) return result;
  const std::ptrdiff_t at_once = std::min<std::ptrdiff_t>(source.rows, 16 * exec.threads());
  const std::unique_ptr<float[]> values(new float[static_cast<std::size_t>(at_once * source.columns)]);
  std::atomic<std::ptrdiff_t> bad_row{source.rows};
  for (std::ptrdiff_t first = 0; first < source.rows; first += at_once) {
    const std::ptrdiff_t count = std::min(at_once, source.rows - first);
    exec.parallel_for(count, 4, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      for (std::ptrdiff_t r = begin; r < end; ++r) {
        float* row_values = values.get() + r * source.columns;
        decode_row(source, first + r, row_values);
        float unused = 0;
        bool fits = true;
        const detail::encode_row::args args{to,
                                            row_values,
                                            source.columns,
                                            result.row(first + r),
                                            result.view().row_bytes,
                                            to.format == weight_format::int8 ? result.scales() + first + r : &unused,
                                            &fits};
        execution::dispatch<detail::encode_row>(exec.set(), args);
        std::ptrdiff_t seen = bad_row.load();
        while (!fits && first + r < seen && !bad_row.compare_exchange_weak(seen, first + r)) {
        }
      }
    });
    if (bad_row.load() < source.rows) {
      throw error(error_code::unsupported, "quantization::quantize: " + options.name,
                  "row " + std::to_string(bad_row.load()) + " has a value that " + std::string(to_string(to.format)) +
                      " can't hold (a NaN, an infinity, or one beyond the range of its scales)",
                  "load this checkpoint with quantization::none");
    }
    if (options.progress) options.progress(first + count, source.rows);
  }
  return result;
}

/// The same from floats in memory.
inline owned_weight_matrix quantize(const execution::cpu::context& exec, storage to, matrix_view<const float> source,
                                    const quantize_options& options = {}) {
  weight_matrix w = packed_rows(weight_format::f32, source.data, source.rows, source.columns);
  w.row_bytes = source.stride * 4;
  return quantize(exec, to, w, options);
}

}  // namespace effinfer::inline v0::quantization
