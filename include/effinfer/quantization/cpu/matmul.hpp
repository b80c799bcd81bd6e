#pragma once
// How products are cut into pieces: panels of weights are dealt to threads, and a thread takes a panel with all tokens, which
// find it in the second-level cache. Several products of the same activations go as one loop.

#include <effinfer/quantization/cpu/activations.hpp>
#include <effinfer/quantization/cpu/float_product.hpp>
#include <effinfer/quantization/cpu/integer_product.hpp>
#include <effinfer/quantization/cpu/tiled_product.hpp>
#include <effinfer/quantization/formats.hpp>

#include <algorithm>
#include <limits>
#include <span>
#include <string>

namespace effinfer::inline v0::quantization {

/// One product of prepared activations: y = x w^T + bias.
struct product {
  const packed_matrix* w;
  matrix_view<float> y;         ///< [T, N]
  const float* bias = nullptr;  ///< [N], or null
  bool adds = false;            ///< y += x w^T + bias: a residual sum
};

namespace detail {

/// Rows [32 panel, 32 (panel + panels)) of one product for `tokens` tokens from `first` on, into y [tokens, 32 panels],
/// y_stride apart. On tiles of bf16 only slabs [first_slab, last_slab) of columns, in ascending order; y holds the sums
/// meanwhile.
struct panel_output {
  const packed_matrix* w;
  const float* bias;
  bool adds;
  std::ptrdiff_t panel;
  int panels;
  std::ptrdiff_t first, tokens;
  float* y;
  std::ptrdiff_t y_stride;
  std::ptrdiff_t first_slab = 0, last_slab = std::numeric_limits<std::ptrdiff_t>::max();
  const panel_output* beside = nullptr;  ///< of one panel: another that goes along (go_beside)
};

/// Whether products of these activations go in turns of tokens and columns (tiled_product.hpp). Fewer tokens go over a
/// panel once.
inline bool goes_in_turns(const execution::cpu::context& exec, const prepared_activations& p) {
  return exec.set() == execution::instruction_set::amx && p.halves != nullptr && p.values.rows > most_tokens_together;
}

/// Whether a panel of one matrix can go beside one of the other: see panel_args::beside.
inline bool go_beside(execution::instruction_set set, const prepared_activations& p, const packed_matrix& a,
                      const packed_matrix& b) {
  return p.values.rows == 1 && p.codes != nullptr && !is_float(a.format) && a.format == b.format &&
         a.group == b.group && execution::base_of(set) == execution::instruction_set::avx512;
}

template <class Format>
void run_panels(execution::instruction_set set, const prepared_activations& p, const panel_output& out) {
  const auto fill_from = [&](panel_args& a, const panel_output& from) {
    a.w = from.w;
    a.panel = from.panel;
    a.panels = from.panels;
    a.tokens = p.values.rows;
    a.first_token = from.first, a.asked_tokens = from.tokens;
    a.y = from.y;
    a.y_stride = from.y_stride;
    a.bias = from.bias;
    a.adds = from.adds;
    // Measured on both; on Intel's all but these distances cost up to a tenth of the rate. (A far one elsewhere: may_fetch_far.)
    const bool intel = set == execution::instruction_set::amx;
    a.ahead = intel ? fetch_distances{2048, 4096} : fetch_distances{4096, 0};
  };
  panel_args beside{};
  const auto fill = [&](panel_args& a) {
    fill_from(a, out);
    if (out.beside != nullptr) fill_from(beside, *out.beside), a.beside = &beside;
  };
#if EFFINFER_X86
  if constexpr (Format::name == weight_format::bf16 || !Format::is_float) {
    if (set == execution::instruction_set::amx && (Format::is_float || p.codes == nullptr)) {
      typename tiled_product<Format>::args a{};
      fill(a);
      a.x = p.halves;
      a.first_slab = out.first_slab, a.last_slab = std::min(out.last_slab, slabs_of(out.w->columns));
      return execution::detail::run_amx<tiled_product<Format>>(a);
    }
  }
#endif
  if (out.first_slab > 0) return;
  if constexpr (Format::is_float) {
    typename float_product<Format>::args a{};
    fill(a);
    a.x = p.values.data, a.x_stride = p.values.stride;
    a.x_halves = p.halves;
    execution::dispatch<float_product<Format>>(set, a);
  } else {
    typename integer_product<Format>::args a{};
    fill(a);
    a.x = p.codes;
    a.x_scales = p.scales, a.x_sums = p.sums;
    a.x_counts = Format::scales::columns_a_scale == 16 ? p.counts_16 : p.counts;
    execution::dispatch<integer_product<Format>>(set, a);
  }
}

template <class... Format>
void run_panels(formats<Format...>, execution::instruction_set set, const prepared_activations& p,
                const panel_output& out) {
  (void)((out.w->format == Format::name ? (run_panels<Format>(set, p, out), true) : false) || ...);
}

/// Panels a part of a loop over `panels` of `bytes`: enough parts for threads of uneven speed, none below some ten
/// microseconds of work. Of one token, whole pairs (panel_args::beside): a panel alone is one stream.
inline std::ptrdiff_t panels_a_part(int threads, std::ptrdiff_t panels, std::size_t bytes, std::ptrdiff_t tokens) {
  const auto work = static_cast<std::ptrdiff_t>(bytes) / panels * std::max<std::ptrdiff_t>(tokens / 4, 1);
  const std::ptrdiff_t some =
      std::max({panels / (16 * threads), (1 << 17) / std::max<std::ptrdiff_t>(work, 1), std::ptrdiff_t{1}});
  return tokens == 1 ? std::max<std::ptrdiff_t>(some / 2 * 2, 2) : some;
}

/// body(first panel, last panel, first token, tokens) for all of a loop over `panels` of `bytes`, on all threads: all panels
/// with the first `some` of the tokens, then with the next, so that those stay in the cache.
template <class Body>
void for_panels(const execution::cpu::context& exec, std::ptrdiff_t tokens, std::ptrdiff_t some, std::ptrdiff_t panels,
                std::size_t bytes, const Body& body) {
  exec.parallel_for((tokens + some - 1) / some * panels, panels_a_part(exec.threads(), panels, bytes, some),
                    [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
                      for (std::ptrdiff_t i = begin, stop = 0; i < end; i = stop) {
                        const std::ptrdiff_t block = i / panels, first = block * some;
                        stop = std::min(end, (block + 1) * panels);
                        body(i - block * panels, stop - block * panels, first, std::min(some, tokens - first));
                      }
                    });
}

template <class Formats>
void run_products(Formats, const execution::cpu::context& exec, const prepared_activations& p,
                  std::span<const product> products) {
  std::ptrdiff_t panels = 0;
  std::size_t bytes = 0;
  for (const product& out : products) panels += out.w->panels(), bytes += out.w->bytes();
  if (p.values.rows <= 0 || panels == 0) return;
  const std::ptrdiff_t slabs = std::max<std::ptrdiff_t>(slabs_of(p.values.columns), 1), all = p.values.rows;
  const bool in_turns = goes_in_turns(exec, p);
  const std::ptrdiff_t slabs_a_part = in_turns ? std::min(slabs, slabs_a_turn) : slabs;
  const std::ptrdiff_t turn = in_turns ? tokens_a_turn(all, slabs_a_part * slab_columns) : all;
  for (std::ptrdiff_t slab = 0; slab < slabs; slab += slabs_a_part) {
    for_panels(exec, all, turn, panels, bytes,
               [&](std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t first, std::ptrdiff_t tokens) {
                 for (const product& out : products) {
                   const std::ptrdiff_t count = out.w->panels();
                   const std::ptrdiff_t last = std::min(end, count);
                   for (std::ptrdiff_t i = std::max<std::ptrdiff_t>(begin, 0); i < last; i += panels_a_group) {
                     const int some = static_cast<int>(std::min<std::ptrdiff_t>(panels_a_group, last - i));
                     float* y = out.y.row(first) + i * rows_a_panel;
                     run_panels(Formats(), exec.set(), p,
                                {out.w, out.bias, out.adds, i, some, first, tokens, y, out.y.stride, slab,
                                 slab + slabs_a_part});
                   }
                   begin -= count, end -= count;
                 }
               });
  }
}

/// combine(a, b) of two products, before either goes to memory: into a.y, if `kinds` asks for values, and prepared as `kinds`
/// says.
template <class Formats, class Combine>
prepared_activations run_combined(Formats, const execution::cpu::context& exec, const prepared_activations& p,
                                  const product& a, const product& b, const Combine& combine,
                                  std::span<std::byte> workspace, activation_kinds kinds) {
  const std::ptrdiff_t tokens = p.values.rows, panels = a.w->panels();
  const activation_writer to(exec.set(), tokens, a.w->rows, workspace, kinds);
  if (tokens <= 0 || panels == 0) return to.result(a.y);
  const bool in_turns = goes_in_turns(exec, p);
  const std::ptrdiff_t turn = in_turns ? tokens_a_turn(tokens, p.values.columns) : tokens;
  const std::ptrdiff_t tokens_a_step = in_turns ? turn : tokens_a_block;
  const bool beside = go_beside(exec.set(), p, *a.w, *b.w);
  for_panels(exec, tokens, turn, panels, a.w->bytes() + b.w->bytes(),
             [&](std::ptrdiff_t begin, std::ptrdiff_t end, std::ptrdiff_t first_token, std::ptrdiff_t asked) {
               constexpr std::ptrdiff_t most = std::max(tokens_a_block, most_tokens_a_turn);
               alignas(64) float of_a[most * rows_a_panel], of_b[most * rows_a_panel];
               const auto one = [&](std::ptrdiff_t i, std::ptrdiff_t first, std::ptrdiff_t some) {
                 const std::ptrdiff_t row = i * rows_a_panel,
                                      rows = std::min<std::ptrdiff_t>(rows_a_panel, a.w->rows - row);
                 if (rows < rows_a_panel) std::fill_n(&of_a[0], some * rows_a_panel, 0.0f);  // what no row will write
                 const panel_output to_b{b.w, b.bias, false, i, 1, first, some, &of_b[0], rows_a_panel};
                 panel_output to_a{a.w, a.bias, false, i, 1, first, some, &of_a[0], rows_a_panel};
                 to_a.beside = beside ? &to_b : nullptr;
                 run_panels(Formats(), exec.set(), p, to_a);
                 if (!beside) run_panels(Formats(), exec.set(), p, to_b);
                 const matrix_view<float> both(&of_a[0], some, rows, rows_a_panel);
                 combine(both, matrix_view<const float>(&of_b[0], some, rows, rows_a_panel), both);
                 if (kinds.values) {
                   for (std::ptrdiff_t t = 0; t < some; ++t) std::copy_n(both.row(t), rows, a.y.row(first + t) + row);
                 }
                 to.write_block(i, first, some, &of_a[0]);
                 if (i + 1 < panels) return;
                 std::fill_n(&of_a[0], some * rows_a_panel, 0.0f);
                 for (std::ptrdiff_t block = panels; block % 8 != 0; ++block)
                   to.write_block(block, first, some, &of_a[0]);
               };
               const std::ptrdiff_t fit =
                   bytes_a_group /
                   static_cast<std::ptrdiff_t>((a.w->bytes() + b.w->bytes()) / static_cast<std::size_t>(panels) + 1);
               const std::ptrdiff_t group = std::clamp<std::ptrdiff_t>(fit, 1, panels_a_group);
               for (std::ptrdiff_t i = begin; i < end; i += group) {
                 for (std::ptrdiff_t done = 0; done < asked; done += tokens_a_step) {
                   for (std::ptrdiff_t j = i; j < std::min(i + group, end); ++j)
                     one(j, first_token + done, std::min(tokens_a_step, asked - done));
                 }
               }
             });
  return to.result(a.y);
}

template <class Formats>
void check_product(Formats, const execution::cpu::context& exec, const prepared_activations& p, const product& out) {
  const auto fail = [](error_code code, const std::string& problem) {
    throw error(code, "quantization::matmul", problem);
  };
  const auto shape = [](std::ptrdiff_t r, std::ptrdiff_t c) {
    std::string s("[");  // += and not "[" + ...: g++ 12 sees an overlapping copy there (-Wrestrict)
    s += std::to_string(r) + ", " + std::to_string(c) + "]";
    return s;
  };
  const packed_matrix& w = *out.w;
  if (!Formats::contains(w.format)) {
    fail(error_code::unsupported, "the format " + std::string(to_string(w.format)) + " isn't among those compiled in");
  }
  if (p.values.columns != w.columns || p.values.rows != out.y.rows || out.y.columns != w.rows) {
    fail(error_code::mismatch, "shapes x " + shape(p.values.rows, p.values.columns) + ", w " +
                                   shape(w.rows, w.columns) + ", y " + shape(out.y.rows, out.y.columns) +
                                   " don't make y = x w^T");
  }
  activation_kinds kinds, of_prompt;
  kinds.add(w.format, exec.set()), of_prompt.add(w.format, exec.set(), true);
  const auto serve = [&p](const activation_kinds& k) {
    return !(k.codes && p.codes == nullptr) && !(k.halves && p.halves == nullptr);
  };
  if (p.values.rows > 0 && p.values.columns > 0 && !serve(kinds) && !serve(of_prompt)) {
    fail(error_code::invalid_argument,
         "weights in " + std::string(to_string(w.format)) + " need activations from quantization::prepare");
  }
}

}  // namespace detail
}  // namespace effinfer::inline v0::quantization
