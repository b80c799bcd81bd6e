// Times of CUDA kernels and of a Llama-3.1-8B-shaped decoder, each beside what the device could do at most, measured in the same run: the
// rate of reading memory, and that of the matrix instructions that the kernels use (mma.sync; for prefill attention on Hopper wgmma).
//
// Operands are random: with zeros and constants matrix instructions draw less power, and run faster than with anybody's data.
//
//   time [--only attention,decode-attention,products,blocks,model,model-apart] [layers of the model, 8]     prints a line a measurement; errors end it

#include "../random_checkpoint.hpp"

#include <effinfer/attention/cuda/prefill_wgmma.hpp>
#include <effinfer/attention/cuda/softmax.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/execution/cuda.cuh>
#include <effinfer/kv_cache/view.hpp>
#include <effinfer/model.hpp>
#include <effinfer/quantization/at_load.hpp>
#include <effinfer/quantization/cuda/block_weights.hpp>
#include <effinfer/quantization/cuda/cublaslt.cuh>
#include <effinfer/quantization/cuda/matmul.cuh>
#include <effinfer/quantization/cuda/pack_blocks.hpp>
#include <effinfer/quantization/cuda/wgmma_product.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace ei = effinfer;
namespace simt = ei::execution::simt;
using ei::bf16;
using context = ei::execution::cuda::context;
using memory = simt::memory<context>;

namespace {

/// Sums of a block of memory, read once.
struct read_memory {
  struct args {
    const std::byte* from;
    std::ptrdiff_t words;
    float* out;
  };
  static simt::grid plan(const args&) { return {132 * 16, 1, 256, 0}; }
  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    std::uint32_t sum = 0;
    const std::ptrdiff_t step = std::ptrdiff_t{t.blocks()} * t.threads();
    EFFINFER_UNROLL
    for (std::ptrdiff_t i = std::ptrdiff_t{t.block()} * t.threads() + t.thread(); i < a.words; i += step) {
      const auto w = ei::quantization::cuda::load_words_once(a.from + i * 16);
      sum += w.w[0] ^ w.w[1] ^ w.w[2] ^ w.w[3];
    }
    if (sum == 1) a.out[0] = 1;  // so that it is needed
  }
};

/// Random bits, but as floats of 16 bits in pairs what has a size in [1/2, 2); or any bits.
struct fill_random {
  struct args {
    std::uint32_t* to;
    std::ptrdiff_t words;
    bool any;
  };
  static simt::grid plan(const args&) { return {132 * 16, 1, 256, 0}; }
  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const std::ptrdiff_t step = std::ptrdiff_t{t.blocks()} * t.threads();
    for (std::ptrdiff_t i = std::ptrdiff_t{t.block()} * t.threads() + t.thread(); i < a.words; i += step)
      a.to[i] = a.any ? bits(i) : floats(i);
  }
  EFFINFER_HOST_DEVICE static std::uint32_t bits(std::ptrdiff_t i) {
    std::uint64_t v = static_cast<std::uint64_t>(i) * 0x9e3779b97f4a7c15U;
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9U;
    v = (v ^ v >> 27) * 0x94d049bb133111ebU;
    return static_cast<std::uint32_t>(v >> 32);
  }
  EFFINFER_HOST_DEVICE static std::uint32_t floats(std::ptrdiff_t i) { return (bits(i) & 0x80ff80ffU) | 0x3f003f00U; }
};

/// Products of fragments and nothing else: 8 accumulators a warp, `rounds` times.
struct multiply {
  struct args {
    int rounds;
    float* out;
  };
  static constexpr int threads = 256;
  static simt::grid plan(const args&) { return {132 * 8, 1, threads, 0}; }
  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    float d[8][4] = {};
    std::uint32_t left[4], right[2];
    EFFINFER_UNROLL
    for (int i = 0; i < 6; ++i) (i < 4 ? left[i] : right[i - 4]) = fill_random::floats(t.thread() * 6 + i);
    for (int r = 0; r < a.rounds; ++r) {
      EFFINFER_UNROLL
      for (int i = 0; i < 8; ++i) t.mma(d[i], left, right, bf16{});
    }
    float sum = 0;
    EFFINFER_UNROLL
    for (int i = 0; i < 32; ++i) sum += d[i / 4][i % 4];
    if (sum == 1.5F) a.out[0] = sum;
  }
};

/// The same by warpgroups: two of a block, a product of 64 x 256 after the other.
struct multiply_wgmma {
  using args = multiply::args;
  [[maybe_unused]] static constexpr bool for_hopper = true;
  static constexpr int threads = 256, words = (64 + 256) * 32;
  static simt::grid plan(const args&) { return {132, 1, threads, words * 4}; }
  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto memory = t.template shared<std::uint32_t>(words);
    for (int i = t.thread(); i < words; i += threads) memory[i] = fill_random::floats(i);
    simt::hopper<Simt> h(t);
    h.fence_async();
    t.barrier();
    const auto left = h.describe(memory, 0, 16, 1024), right = h.describe(memory, 64 * 32, 16, 1024);
    float d[32][4] = {};
    for (int r = 0; r < a.rounds; ++r) {
      h.begin();
      EFFINFER_UNROLL
      for (int k = 0; k < 16; ++k) h.template multiply<false>(d, left + k % 4 * 32, right + k % 4 * 32, bf16{}, true);
      h.commit();
      h.template finish<0>(d);
    }
    float sum = 0;
    EFFINFER_UNROLL
    for (int i = 0; i < 128; ++i) sum += d[i / 4][i % 4];
    if (sum == 1.5F) a.out[0] = sum;
  }
};

struct clock {
  cudaEvent_t begin = nullptr, end = nullptr;
  clock() {
    simt::check(cudaEventCreate(&begin), "an event");
    simt::check(cudaEventCreate(&end), "an event");
  }
};

/// Seconds of one call of f(round): the median of 9 groups, after one that isn't counted. Long products of matrices make a device hot, which then
/// slows down: with `rests` it rests before, as it does before PyTorch's.
template <class F>
double seconds(context::queue_type& q, const F& f, int calls, bool rests = false) {
  if (rests) {
    q.synchronize();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  clock c;
  std::vector<double> times;
  for (int group = 0; group < 10; ++group) {
    simt::check(cudaEventRecord(c.begin, q.stream()), "an event");
    for (int i = 0; i < calls; ++i) f(i);
    simt::check(cudaEventRecord(c.end, q.stream()), "an event");
    simt::check(cudaEventSynchronize(c.end), "a measurement");
    float ms = 0;
    simt::check(cudaEventElapsedTime(&ms, c.begin, c.end), "a measurement");
    if (group > 0) times.push_back(static_cast<double>(ms) / 1e3 / calls);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

double read_limit = 0, multiply_limit = 0, wgmma_limit = 0;

void report_bytes(const std::string& name, double s, double bytes) {
  std::printf("%-44s %9.1f us %8.1f GB/s  %.2f of the read rate\n", name.c_str(), s * 1e6, bytes / s / 1e9,
              bytes / s / read_limit);
}
void report_operations(const std::string& name, double s, double operations, bool by_wgmma = false) {
  std::printf("%-44s %9.1f us %8.1f TFLOP/s  %.2f of the rate of %s\n", name.c_str(), s * 1e6, operations / s / 1e12,
              operations / s / (by_wgmma ? wgmma_limit : multiply_limit), by_wgmma ? "wgmma" : "mma.sync");
}

void time_limits(const context& on) {
  auto q = on.queue();
  const std::size_t bytes = std::size_t{2} << 30;
  const memory block(on, bytes), out(on, 256);
  q.launch<fill_random>({reinterpret_cast<std::uint32_t*>(block.data()), static_cast<std::ptrdiff_t>(bytes / 4), true});
  auto* const sink = reinterpret_cast<float*>(out.data());
  const double read = seconds(
      q,
      [&](int) {
        q.launch<read_memory>({block.data(), static_cast<std::ptrdiff_t>(bytes / 16), sink});
      },
      2);
  read_limit = static_cast<double>(bytes) / read;
  const double times = seconds(
      q,
      [&](int) {
        q.launch<multiply>({2000, sink});
      },
      2);
  multiply_limit = 2.0 * 16 * 8 * 16 * 8 * 2000 * (multiply::threads / 32.0) * 132 * 8 / times;
  std::printf("%-44s %.1f GB/s\n%-44s %.1f TFLOP/s\n", "reading memory", read_limit / 1e9, "mma.sync of bf16",
              multiply_limit / 1e12);
  if (!on.limits().wgmma) return;
  const int rounds = 1000;
  const double by_warpgroups = seconds(
      q,
      [&](int) {
        q.launch<multiply_wgmma>({rounds, sink});
      },
      2);
  wgmma_limit = 2.0 * 64 * 256 * 256 * rounds * 2 * 132 / by_warpgroups;
  std::printf("%-44s %.1f TFLOP/s\n", "wgmma of bf16", wgmma_limit / 1e12);
}

/// Random numbers of bf16, or any bits.
memory filled(const context& on, std::size_t bytes, bool any = false) {
  memory m(on, bytes);
  on.queue().launch<fill_random>(
      {reinterpret_cast<std::uint32_t*>(m.data()), static_cast<std::ptrdiff_t>(bytes / 4), any});
  return m;
}

const ei::attention::head_layout h{32, 8, 128, 0.088F};
using ei::attention::full;
using view = ei::kv_cache::view<bf16>;

void time_attention(const context& on) {
  namespace cuda = ei::attention::cuda;
  auto q = on.queue();
  for (const int tokens : {512, 2048, 4096, 8192, 16384}) {
    const auto rows = static_cast<std::size_t>(tokens);
    const memory query = filled(on, rows * 4096 * 2), out = filled(on, rows * 4096 * 2);
    const memory keys = filled(on, rows * 1024 * 2), values = filled(on, rows * 1024 * 2);
    const memory table(on, 4096), map_table(on, sizeof(cuda::prefill_maps));
    const auto at = [](const memory& m) { return reinterpret_cast<bf16*>(m.data()); };
    cuda::prefill_sequence<bf16, view> s{
        {at(query), tokens, 4096}, {at(out), tokens, 4096}, view::of_rows(at(keys), at(values), 8, 128, tokens)};
    struct way {
      const char* name;
      bool wgmma, maps;
    };
    for (const way& w :
         {way{"mma.sync", false, false}, way{"wgmma, rows by threads", true, false}, way{"wgmma, boxes", true, true}}) {
      auto limits = on.limits();
      if (w.wgmma && !limits.wgmma) continue;
      limits.wgmma = w.wgmma;
      s.maps = nullptr;
      if (w.maps) {
        const cuda::prefill_maps maps = cuda::map_cache(s.cache, 8, simt::make_tensor_map);
        q.upload(map_table.data(), &maps, sizeof maps);
        s.maps = reinterpret_cast<const cuda::prefill_maps*>(map_table.data());
      }
      const auto plan = cuda::plan_prefill(full{}, h, std::span(&s, 1), limits);
      q.upload(table.data(), &s, sizeof s);
      q.synchronize();
      const cuda::prefill_args<full, bf16, view> args{
          full{}, h, reinterpret_cast<const cuda::prefill_sequence<bf16, view>*>(table.data()), plan};
      const double time = seconds(
          q,
          [&](int) {
            cuda::start_prefill<full, bf16, view, 128>(
                args, [&](auto kernel, const auto& a) { q.template launch<typename decltype(kernel)::type>(a); });
          },
          tokens > 4096 ? 2 : 10, true);
      report_operations("prefill attention, " + std::to_string(tokens) + " tokens, " + w.name, time,
                        2.0 * 128 * 32 * tokens * (tokens + 1.0), w.wgmma);
    }
  }
}

/// Of keys and values that no cache holds: where a call's are few, calls take turns at copies.
template <class E>
void time_decode_attention(const context& on, const std::string& name) {
  namespace cuda = ei::attention::cuda;
  using cache = ei::kv_cache::view<E>;
  auto q = on.queue();
  const std::size_t row = 8 * static_cast<std::size_t>(ei::kv_cache::row_elements<E>(128));
  const std::size_t space = std::size_t{1} << 30;
  const memory block = filled(on, space);
  for (const auto& [batch, length] :
       {std::pair<int, int>{1, 1024}, std::pair<int, int>{1, 4096}, std::pair<int, int>{1, 16384},
        std::pair<int, int>{1, 65536}, std::pair<int, int>{8, 4096}, std::pair<int, int>{16, 8192},
        std::pair<int, int>{64, 1024}, std::pair<int, int>{64, 2048}}) {
    const std::size_t of_one = static_cast<std::size_t>(length) * row, n = static_cast<std::size_t>(batch);
    const std::size_t bytes = 2 * n * of_one * sizeof(E), copies = std::min<std::size_t>(space / bytes, 32);
    const memory query = filled(on, n * 4096 * 2), out(on, n * 4096 * 2);
    std::vector<cuda::decode_sequence<bf16, cache>> s;
    cuda::decode_plan plan;
    for (std::size_t copy = 0; copy < copies; ++copy) {
      for (std::size_t i = 0; i < n; ++i) {
        cache view;  // a head's rows one after another, as the decoder's caches have them
        view.keys = reinterpret_cast<const E*>(block.data() + copy * bytes) + 2 * i * of_one;
        view.values = view.keys + of_one;
        view.row_stride = ei::kv_cache::row_elements<E>(128), view.head_stride = view.row_stride * length;
        view.capacity = view.length = length;
        s.push_back({reinterpret_cast<const bf16*>(query.data()) + i * 4096,
                     reinterpret_cast<bf16*>(out.data()) + i * 4096, view});
      }
      plan = cuda::plan_decode(full{}, h, std::span(s).last(n));
    }
    const memory table(on, s.size() * sizeof s[0]), workspace(on, plan.workspace_bytes);
    const std::vector<std::byte> zeros(plan.arrival_bytes);
    q.upload(workspace.data(), zeros.data(), zeros.size());
    q.upload(table.data(), s.data(), s.size() * sizeof s[0]);
    q.synchronize();
    const double time = seconds(
        q,
        [&](int call) {
          const cuda::decode_args<full, bf16, cache> args{
              full{}, h,
              reinterpret_cast<const cuda::decode_sequence<bf16, cache>*>(table.data()) +
                  static_cast<std::size_t>(call) % copies * n,
              plan, workspace.data()};
          q.launch<cuda::decode<full, bf16, cache, 128>>(args);
        },
        bytes > (std::size_t{64} << 20) ? 10 : 32);
    report_bytes("decode attention, " + name + ", " + std::to_string(batch) + " x " + std::to_string(length) + " keys",
                 time, static_cast<double>(bytes));
  }
}

constexpr int matrix_rows = 14336, matrix_columns = 4096;
constexpr std::size_t matrix_numbers = std::size_t{matrix_rows} * matrix_columns;

/// Products with matrices of 14336 x 4096, few rows and as in prefill; copies of them, so that no cache holds what is read next. `bytes`: of a
/// matrix, scales and all; place(w, data) says where in them its parts are.
template <class Weights, class Place>
void time_products(const context& on, const std::string& name, std::size_t bytes, const Place& place) {
  auto q = on.queue();
  const int rows = matrix_rows, columns = matrix_columns, copies = 4;
  const memory weights =
      filled(on, bytes * copies, !std::is_same_v<Weights, ei::quantization::cuda::float_weights<bf16>>);
  const memory x = filled(on, 2048 * 4096 * 2), out(on, 2048 * 14336 * 2), space(on, std::size_t{64} << 20);
  for (const int tokens : {1, 4, 8, 16, 32, 64, 512, 2048}) {
    const auto start = [&](int call) {
      Weights w;
      w.rows = rows, w.columns = columns;
      place(w, weights.data() + static_cast<std::size_t>(call % copies) * bytes);
      const ei::matrix_view<const bf16> in(reinterpret_cast<const bf16*>(x.data()), tokens, columns);
      const ei::matrix_view<bf16> to(reinterpret_cast<bf16*>(out.data()), tokens, rows);
      const auto plan = ei::quantization::cuda::plan_matmul(in, w, to, on.limits());
      if (plan.workspace_bytes > space.size()) throw ei::error(ei::error_code::limit, "time", "too little workspace");
      const ei::quantization::cuda::product_args<Weights, bf16> args{in, w, to, plan,
                                                                     reinterpret_cast<float*>(space.data())};
      ei::quantization::cuda::start_matmul(
          args, [&](auto kernel, const auto& a) { q.template launch<typename decltype(kernel)::type>(a); });
    };
    const std::string what = "product of " + name + ", " + std::to_string(tokens) + " rows";
    if (tokens <= 64) {
      report_bytes(what, seconds(q, start, 20), static_cast<double>(bytes));
    } else {
      const double work = 2.0 * tokens * static_cast<double>(matrix_numbers);
      report_operations(what, seconds(q, start, 4), work);
      if (!ei::quantization::cuda::has_wgmma<Weights, bf16>(on.limits())) continue;
      // x is read as if who wrote it had put it in order.
      const auto start_wgmma = [&](int call) {
        Weights w;
        w.rows = rows, w.columns = columns;
        place(w, weights.data() + static_cast<std::size_t>(call % copies) * bytes);
        ei::quantization::cuda::wgmma_args<Weights, bf16> args;
        args.x = {reinterpret_cast<const bf16*>(x.data()), tokens, columns}, args.weights = w;
        args.out = {reinterpret_cast<bf16*>(out.data()), tokens, rows};
        args.plan = ei::quantization::cuda::plan_wgmma(args.x, w, args.out, on.limits());
        ei::quantization::cuda::start_wgmma(args, simt::make_tensor_map, [&](auto kernel, const auto& a) {
          q.template launch<typename decltype(kernel)::type>(a);
        });
      };
      report_operations(what + ", wgmma", seconds(q, start_wgmma, 4), work, true);
    }
  }
}

/// A matrix whose units of `unit_bytes` come first and its scales behind them.
template <class Weights>
void time_units(const context& on, const std::string& name, std::size_t unit_bytes, std::size_t scale_bytes) {
  time_products<Weights>(on, name, unit_bytes + scale_bytes, [&](Weights& w, const std::byte* data) {
    w.units = reinterpret_cast<const ei::quantization::cuda::words*>(data);
    w.scales = reinterpret_cast<decltype(w.scales)>(data + unit_bytes);
  });
}

/// GGUF blocks.
template <int Bits>
void time_blocks(const context& on, ei::weight_format format) {
  namespace cuda = ei::quantization::cuda;
  const cuda::block_layout layout = cuda::block_layout_of(format);
  const cuda::block_sizes sizes = cuda::block_strip_sizes(format, matrix_columns);
  const std::size_t strip =
      sizes.units + sizes.high + sizes.scales + sizes.minimums + sizes.scale_codes + sizes.minimum_codes;
  time_products<cuda::block_weights<Bits>>(
      on, std::string(to_string(format)), matrix_rows / 16 * strip, [&](auto& w, const std::byte* data) {
        const auto next = [&]<class T>(const T*& to, std::size_t bytes) {
          if (bytes > 0) to = reinterpret_cast<const T*>(data);
          data += matrix_rows / 16 * bytes;
        };
        next(w.units, sizes.units), next(w.high, sizes.high), next(w.scales, sizes.scales);
        next(w.minimums, sizes.minimums), next(w.scale_codes, sizes.scale_codes);
        next(w.minimum_codes, sizes.minimum_codes);
        w.offset = layout.offset, w.wide = layout.is_wide;
      });
}

/// The same products of bf16 by cuBLASLt.
void time_cublaslt(const context& on) {
  namespace cuda = ei::quantization::cuda;
  auto q = on.queue();
  const cuda::cublaslt library;
  const int copies = 4;
  const memory weights = filled(on, matrix_numbers * 2 * copies);
  const memory x = filled(on, 2048 * 4096 * 2), out(on, 2048 * 14336 * 2), space(on, std::size_t{64} << 20);
  for (const int tokens : {1, 16, 64, 512, 2048}) {
    const ei::matrix_view<const bf16> in(reinterpret_cast<const bf16*>(x.data()), tokens, matrix_columns);
    const ei::matrix_view<bf16> to(reinterpret_cast<bf16*>(out.data()), tokens, matrix_rows);
    cuda::float_weights<bf16> w{reinterpret_cast<const bf16*>(weights.data()), matrix_columns, matrix_rows,
                                matrix_columns};
    const cuda::dense_product<bf16> product(library, in, w, to, space.size());
    const auto start = [&](int call) {
      w.data = reinterpret_cast<const bf16*>(weights.data()) + static_cast<std::size_t>(call % copies) * matrix_numbers;
      product.run(in, w, to, space.data(), q.stream());
    };
    const std::string what = "product of bf16 by cuBLASLt, " + std::to_string(tokens) + " rows";
    if (tokens <= 64) {
      report_bytes(what, seconds(q, start, 20), static_cast<double>(matrix_numbers * 2));
    } else {
      report_operations(what, seconds(q, start, 4), 2.0 * tokens * static_cast<double>(matrix_numbers));
    }
  }
}

void time_model(int layers, bool overlap) {
  using clock_type = std::chrono::steady_clock;
  const std::string folder =
      (std::filesystem::temp_directory_path() / ("effinfer_8b_" + std::to_string(layers))).string();
  random_checkpoint::write(folder, {4096, 14336, layers, 32, 8, 128, 128256});
  using ei::quantization::at_load;
  using model = ei::model<at_load, ei::execution::on_cuda<bf16, 128>>;
  for (const auto& [choice, name, bits] :
       {std::tuple<at_load::choice, const char*, double>{at_load::choice::none, "bf16", 16.0},
        std::tuple<at_load::choice, const char*, double>{at_load::choice::int8, "int8", 8.0},
        std::tuple<at_load::choice, const char*, double>{at_load::choice::int4_128, "int4, groups of 128", 4.1875}}) {
    const auto begin = clock_type::now();
    const model llm =
        model::load(folder, {}, at_load{choice}, ei::execution::on_cuda<bf16, 128>{.overlap_kernels = overlap});
    const double load = std::chrono::duration<double>(clock_type::now() - begin).count();
    auto session = llm.start({.context_tokens = 2048, .prefill_chunk = 512});
    std::vector<int> prompt(1024);
    for (std::size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int>(i * 37 % 128256);
    session.append(std::span(prompt).first(512));  // not counted: kernels are loaded
    const auto from = clock_type::now();
    session.append(std::span(prompt).last(512));
    const double prefill = std::chrono::duration<double>(clock_type::now() - from).count();
    int token = 1;
    std::vector<double> times;
    for (int i = 0; i < 80; ++i) {
      const auto start = clock_type::now();
      if (const auto next = session.append_and_choose(token, ei::decoding::greedy{}, {})) token = *next;
      if (i >= 16) times.push_back(std::chrono::duration<double>(clock_type::now() - start).count());
    }
    std::sort(times.begin(), times.end());
    const double weights = layers * (4096.0 * 4096 * 2.5 + 3.0 * 4096 * 14336), head = 128256.0 * 4096;
    const double bytes = weights * bits / 8 + head * (choice == at_load::choice::none ? 2 : 1) + layers * 1100.0 * 4096;
    const std::string what =
        std::to_string(layers) + " layers of Llama-3.1-8B, " + name + (overlap ? "" : ", kernels apart");
    report_bytes(what + ": decode", times[times.size() / 2], bytes);
    report_operations(what + ": prefill of 512", prefill, 2 * weights * 512);
    std::printf("%-44s %9.1f s\n", (what + ": load").c_str(), load);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    std::string only = ",";
    int layers = 8;
    for (int i = 1; i < argc; ++i) {
      if (std::string(argv[i]) == "--only" && i + 1 < argc) {
        only += argv[++i] + std::string(",");
      } else {
        layers = std::atoi(argv[i]);
      }
    }
    const auto wanted = [&](const char* what) {
      return only == "," || only.find("," + std::string(what) + ",") != std::string::npos;
    };
    const context on(ei::execution::cuda{.overlap_kernels = true});
    cudaDeviceProp of{};
    simt::check(cudaGetDeviceProperties(&of, 0), "its properties");
    std::printf("%s, %d multiprocessors\n", of.name, of.multiProcessorCount);
    time_limits(on);
    if (wanted("attention")) time_attention(on);
    if (wanted("decode-attention")) {
      time_decode_attention<bf16>(on, "bf16");
      time_decode_attention<ei::kv_cache::int8>(on, "int8");
      time_decode_attention<ei::fp8_e4m3>(on, "FP8");
    }
    namespace cuda = ei::quantization::cuda;
    using dense = cuda::float_weights<bf16>;
    if (wanted("products")) {
      time_products<dense>(on, "bf16", matrix_numbers * 2, [](dense& w, const std::byte* data) {
        w.data = reinterpret_cast<const bf16*>(data), w.stride = matrix_columns;
      });
      time_cublaslt(on);
      time_units<cuda::int8_weights>(on, "int8", matrix_numbers, matrix_rows * 4);
      time_units<cuda::fp8_weights<0>>(on, "FP8", matrix_numbers, matrix_rows * 4);
      time_units<cuda::fp8_weights<128>>(on, "FP8 in blocks", matrix_numbers, matrix_numbers / 16 / 128 * 4);
      time_units<cuda::int4_weights<128>>(on, "int4, groups of 128", matrix_numbers / 2, matrix_numbers / 128 * 2);
    }
    if (wanted("blocks")) {
      time_blocks<8>(on, ei::weight_format::q8_0);
      time_blocks<4>(on, ei::weight_format::q4_0);
      time_blocks<4>(on, ei::weight_format::q4_k);
      time_blocks<5>(on, ei::weight_format::q5_k);
      time_blocks<6>(on, ei::weight_format::q6_k);
    }
    if (wanted("model")) time_model(layers, true);
    if (wanted("model-apart")) time_model(layers, false);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "time: %s\n", e.what());
    return 1;
  }
}
