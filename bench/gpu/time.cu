// Times of CUDA kernels and of a Llama-3.1-8B-shaped decoder, each beside what the device could do at most, measured in the same run: the
// rate of reading memory, and that of the matrix instructions that the kernels use (mma.sync; for prefill attention on Hopper wgmma).
//
//   time [layers of the model, 8]     prints a line a measurement; errors end it

#include "../random_checkpoint.hpp"

#include <effinfer/attention/cuda/prefill_wgmma.hpp>
#include <effinfer/attention/cuda/softmax.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/execution/cuda.cuh>
#include <effinfer/model.hpp>
#include <effinfer/quantization/at_load.hpp>
#include <effinfer/quantization/cuda/matmul.cuh>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
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
    const auto seed = static_cast<std::uint32_t>(t.thread());
    const std::uint32_t left[4] = {seed, seed, seed, seed}, right[2] = {seed, seed};
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
    for (int i = t.thread(); i < words; i += threads) memory[i] = 0;
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

/// Seconds of one call of f(round): the median of 9 groups, after one that isn't counted.
template <class F>
double seconds(context::queue_type& q, const F& f, int calls) {
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
  simt::check(cudaMemsetAsync(block.data(), 7, bytes, q.stream()), "a fill");
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

/// Numbers of bf16 in [-2, -1], from bytes.
memory filled(const context& on, std::size_t bytes) {
  memory m(on, bytes);
  auto q = on.queue();
  simt::check(cudaMemsetAsync(m.data(), 0xbf, bytes, q.stream()), "a fill");
  return m;
}

void time_attention(const context& on) {
  using ei::attention::full;
  namespace cuda = ei::attention::cuda;
  using view = ei::kv_cache::view<bf16>;
  auto q = on.queue();
  const ei::attention::head_layout h{32, 8, 128, 0.088F};
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
          tokens > 4096 ? 2 : 10);
      report_operations("prefill attention, " + std::to_string(tokens) + " tokens, " + w.name, time,
                        2.0 * 128 * 32 * tokens * (tokens + 1.0), w.wgmma);
    }
  }
  for (const auto& [batch, length] :
       {std::pair<int, int>{1, 65536}, std::pair<int, int>{16, 8192}, std::pair<int, int>{64, 2048}}) {
    const std::size_t of_one = static_cast<std::size_t>(length) * 1024, n = static_cast<std::size_t>(batch);
    const memory query = filled(on, n * 4096 * 2), out = filled(on, n * 4096 * 2);
    const memory keys = filled(on, n * of_one * 2), values = filled(on, n * of_one * 2);
    std::vector<cuda::decode_sequence<bf16, view>> s(n);
    for (std::size_t i = 0; i < n; ++i) {
      s[i].query = reinterpret_cast<bf16*>(query.data()) + i * 4096;
      s[i].out = reinterpret_cast<bf16*>(out.data()) + i * 4096;
      s[i].cache = view::of_rows(reinterpret_cast<bf16*>(keys.data()) + i * of_one,
                                 reinterpret_cast<bf16*>(values.data()) + i * of_one, 8, 128, length);
    }
    const auto plan = cuda::plan_decode(full{}, h, std::span(s));
    const memory table(on, s.size() * sizeof s[0]), parts(on, plan.workspace_bytes);
    q.upload(table.data(), s.data(), s.size() * sizeof s[0]);
    q.synchronize();
    const cuda::decode_args<full, bf16, view> args{
        full{}, h, reinterpret_cast<const cuda::decode_sequence<bf16, view>*>(table.data()), plan,
        reinterpret_cast<float*>(parts.data())};
    const double time = seconds(
        q,
        [&](int) {
          q.launch<cuda::decode_split<full, bf16, view, 128, 4>>(args);
          q.launch<cuda::decode_merge<full, bf16, view, 128>>(args);
        },
        10);
    report_bytes("decode attention, " + std::to_string(batch) + " x " + std::to_string(length) + " keys", time,
                 4.0 * static_cast<double>(n * of_one));
  }
}

/// Products with matrices of 14336 x 4096; copies of them, so that no cache holds what is read next.
template <class Weights>
void time_products(const context& on, const std::string& name, std::size_t matrix_bytes, std::size_t scale_bytes) {
  auto q = on.queue();
  const int rows = 14336, columns = 4096, copies = 4;
  const memory weights = filled(on, matrix_bytes * copies), scales = filled(on, scale_bytes * copies + 256);
  const memory x = filled(on, 64 * 4096 * 2), out(on, 64 * 14336 * 2), space(on, std::size_t{64} << 20);
  for (const int tokens : {1, 4, 8, 16, 32, 64}) {
    const auto start = [&](int call) {
      Weights w;
      w.rows = rows, w.columns = columns;
      const std::byte* const data = weights.data() + static_cast<std::size_t>(call % copies) * matrix_bytes;
      if constexpr (requires { w.stride; }) {
        w.data = reinterpret_cast<const bf16*>(data), w.stride = columns;
      } else {
        w.units = reinterpret_cast<const ei::quantization::cuda::words*>(data);
        w.scales = reinterpret_cast<decltype(w.scales)>(scales.data());
      }
      const ei::matrix_view<const bf16> in(reinterpret_cast<const bf16*>(x.data()), tokens, columns);
      const ei::matrix_view<bf16> to(reinterpret_cast<bf16*>(out.data()), tokens, rows);
      const auto plan = ei::quantization::cuda::plan_matmul(in, w, to, on.limits());
      if (plan.workspace_bytes > space.size()) throw ei::error(ei::error_code::limit, "time", "too little workspace");
      const ei::quantization::cuda::product_args<Weights, bf16> args{in, w, to, plan,
                                                                     reinterpret_cast<float*>(space.data())};
      ei::quantization::cuda::matmul(args, q.stream());
    };
    report_bytes("product of " + name + ", " + std::to_string(tokens) + " rows", seconds(q, start, 20),
                 static_cast<double>(matrix_bytes + scale_bytes));
  }
}

void time_model(int layers) {
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
    const model llm = model::load(folder, {}, at_load{choice});
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
    const std::string what = std::to_string(layers) + " layers of Llama-3.1-8B, " + name;
    report_bytes(what + ": decode", times[times.size() / 2], bytes);
    report_operations(what + ": prefill of 512", prefill, 2 * weights * 512);
    std::printf("%-44s %9.1f s\n", (what + ": load").c_str(), load);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const context on;
    cudaDeviceProp of{};
    simt::check(cudaGetDeviceProperties(&of, 0), "its properties");
    std::printf("%s, %d multiprocessors\n", of.name, of.multiProcessorCount);
    time_limits(on);
    time_attention(on);
    namespace cuda = ei::quantization::cuda;
    const std::size_t numbers = std::size_t{14336} * 4096;
    time_products<cuda::float_weights<bf16>>(on, "bf16", numbers * 2, 0);
    time_products<cuda::int8_weights>(on, "int8", numbers, 14336 * 4);
    time_products<cuda::int4_weights<128>>(on, "int4, groups of 128", numbers / 2, numbers / 128 * 2);
    time_model(argc > 1 ? std::atoi(argv[1]) : 8);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "time: %s\n", e.what());
    return 1;
  }
}
