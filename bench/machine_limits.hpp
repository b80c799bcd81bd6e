#pragma once
// What this machine can do at most, measured in the same run as the figures that are held against it: memory reads,
// f32 fused multiply-adds, bf16 and 8-bit dot products.

#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/tile_registers.hpp>
#include <effinfer/execution/vector.hpp>
#include <effinfer/quantization/weight_storage.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

#if EFFINFER_X86
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace machine_limits {

namespace ex = effinfer::execution;

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// What the peaks are measured with: values as products meet them, in [-1, 1]. (Multiplying zeros, tiles of bf16 run up to 29 % faster
/// on a Xeon: they take less power.)
inline std::vector<float> varied_values(std::size_t count) {
  std::vector<float> values(count);
  std::uint32_t state = 1;
  for (float& v : values) {
    state = state * 1664525U + 1013904223U;
    v = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
  }
  return values;
}

/// The best of `repeats` timings of `body`, in seconds: limits are what the machine does undisturbed.
template <class Body>
double best_seconds(int repeats, const Body& body) {
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const double start = seconds_now();
    body();
    best = std::min(best, seconds_now() - start);
  }
  return best;
}

/// Two streams, fetched ahead into both levels of cache: the fastest of those tried (one stream, or none fetched: up to 15 % slower).
struct read_kernel {
  template <ex::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* p, std::ptrdiff_t n, float* out) {
    using vector = ex::f32x16<Set>;
    vector a = vector::zero(), b = a;
    const std::ptrdiff_t half = n / 2;
    for (std::ptrdiff_t i = 0; i + 32 <= half; i += 32) {
      for (const float* stream : {p + i, p + half + i}) {
        __builtin_prefetch(stream + 256), __builtin_prefetch(stream + 272);
        __builtin_prefetch(stream + 1024, 0, 2), __builtin_prefetch(stream + 1040, 0, 2);
        a += vector::load(stream);
        b += vector::load(stream + 16);
      }
    }
    *out = (a + b).sum();
  }
};

struct fma_kernel {
  static constexpr int steps = 1 << 14;
  /// Sums that fit the registers, enough of them that their latency isn't seen.
  static constexpr int chains(ex::instruction_set set) {
    return ex::base_of(set) == ex::instruction_set::avx512 ? 8 : 5;
  }
  template <ex::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* seed, float* out) {
    using vector = ex::f32x16<Set>;
    const vector x = vector::load(seed), y = vector::load(seed + 16);
    // Chains that differ: of equal ones the compiler would compute one.
    vector a = x, b = a + x, c = b + x, d = c + x, e = d + x, f = e + x, g = f + x, h = g + x;
    for (int i = 0; i < steps; ++i) {
      a = fma(x, y, a), b = fma(x, y, b), c = fma(x, y, c), d = fma(x, y, d), e = fma(x, y, e);
      if constexpr (chains(Set) > 5) f = fma(x, y, f), g = fma(x, y, g), h = fma(x, y, h);
    }
    *out = (a + b + c + d + e + f + g + h).sum();
  }
  static constexpr double operations(ex::instruction_set set) { return 2.0 * 16 * chains(set) * steps; }
};

#if EFFINFER_X86
struct byte_dot_loop {
  static constexpr int steps = 1 << 13;
  static constexpr int chains = 16;  // of 8, the instruction's latency would be seen
  static EFFINFER_TARGET_AVX512 void run(const std::int8_t* seed, int* out) {
    const __m512i w = _mm512_loadu_si512(seed), x = _mm512_loadu_si512(seed + 64);
    __m512i sums[chains];
    for (int i = 0; i < chains; ++i) sums[i] = _mm512_set1_epi32(i);
    for (int i = 0; i < steps; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < chains; ++j) sums[j] = _mm512_dpbusd_epi32(sums[j], w, x);
    }
    __m512i sum = sums[0];
    for (int i = 1; i < chains; ++i) sum = _mm512_xor_si512(sum, sums[i]);
    _mm512_storeu_si512(out, sum);
  }
  static constexpr double operations = 2.0 * 64 * chains * steps;
};

/// Without dot products of bytes: sums of two products, added in 16 bits, as those of codes of 4 bits may be. (In 32 bits, as codes of 8
/// bits need it, it takes two more instructions.)
struct byte_pair_loop {
  static constexpr int steps = 1 << 13;
  static constexpr int chains = 8;
  /// Not intrinsics: of the same product each time the compiler would compute one.
  static EFFINFER_TARGET_AVX2 void step(__m256i& sum, const __m256i& w, const __m256i& x) {
    __m256i pairs;
    __asm__("vpmaddubsw {%3, %2, %1|%1, %2, %3}\n\tvpaddw {%1, %0, %0|%0, %0, %1}"
            : "+x"(sum), "=&x"(pairs)
            : "x"(w), "x"(x));
  }
  static EFFINFER_TARGET_AVX2 void run(const std::int8_t* seed, int* out) {
    const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(seed));
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(seed + 32));
    __m256i a = x, b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    for (int i = 0; i < steps; ++i) {
      for (__m256i* sum : {&a, &b, &c, &d, &e, &f, &g, &h}) step(*sum, w, x);
    }
    for (const __m256i& sum : {b, c, d, e, f, g, h}) a = _mm256_xor_si256(a, sum);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), a);
  }
  static constexpr double operations = 2.0 * 32 * chains * steps;
};

struct byte_dot_loop_avx2 {
  static constexpr int steps = 1 << 13;
  static constexpr int chains = 10;
  static EFFINFER_TARGET_AVX2_VNNI void run(const std::int8_t* seed, int* out) {
    const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(seed));
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(seed + 32));
    __m256i sums[chains];
    for (int i = 0; i < chains; ++i) sums[i] = _mm256_set1_epi32(i);
    for (int i = 0; i < steps; ++i) {
#pragma GCC unroll 10
      for (int j = 0; j < chains; ++j) sums[j] = _mm256_dpbusd_avx_epi32(sums[j], w, x);
    }
    __m256i sum = sums[0];
    for (int i = 1; i < chains; ++i) sum = _mm256_xor_si256(sum, sums[i]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), sum);
  }
  static constexpr double operations = 2.0 * 32 * chains * steps;
};

struct bf16_dot_loop {
  static constexpr int steps = 1 << 13;
  static constexpr int chains = 16;
  static __attribute__((target("avx512f,avx512bw,avx512bf16"))) void run(const float* seed, float* out) {
    const __m512 low = _mm512_loadu_ps(seed), high = _mm512_loadu_ps(seed + 16);
    const __m512bh x = _mm512_cvtne2ps_pbh(low, high), y = _mm512_cvtne2ps_pbh(high, low);
    __m512 sums[chains];
    for (int i = 0; i < chains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
    for (int i = 0; i < steps; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < chains; ++j) sums[j] = _mm512_dpbf16_ps(sums[j], x, y);
    }
    __m512 sum = sums[0];
    for (int i = 1; i < chains; ++i) sum = _mm512_add_ps(sum, sums[i]);
    _mm512_storeu_ps(out, sum);
  }
  static constexpr double operations = 2.0 * 32 * chains * steps;
};

/// Operands come from the first-level cache, which keeps up: they change, as they do in products.
struct bf16_tile_loop {
  static constexpr int steps = 1 << 12;
  template <ex::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const effinfer::bf16* seed, float* out) {
    ex::tiles::shapes shapes;
    for (int i = 0; i < 8; ++i) shapes.set(i, 16, 64);
    ex::tiles::configure(shapes);
    for (int i = 0; i < steps; ++i) {
      const effinfer::bf16* p = seed + i % 4 * (4 * 512);
      ex::tiles::load<4, 64>(p), ex::tiles::load<6, 64>(p + 512);
      ex::tiles::load<5, 64>(p + 1024), ex::tiles::add_bf16_products<0, 4, 6>();
      ex::tiles::add_bf16_products<2, 5, 6>();
      ex::tiles::load<7, 64>(p + 1536), ex::tiles::add_bf16_products<1, 4, 7>();
      ex::tiles::add_bf16_products<3, 5, 7>();
    }
    ex::tiles::store<0>(out, 64);
    ex::tiles::release();
  }
  static constexpr double operations = 2.0 * 16 * 16 * 32 * 4 * steps;
};
#endif

/// Memory is timed in slices of 8 MiB out of 128 MiB, the best of them counting: long enough to reach the full rate, short
/// enough that some run undisturbed on a busy machine, and far enough apart that none is left in a cache of
/// 32 MiB when its turn comes again.
inline constexpr std::ptrdiff_t slice_bytes = std::ptrdiff_t{8} << 20;
inline constexpr int slices = 16;

/// Bytes a second that all threads of `exec` read. The buffer is filled beforehand: untouched pages all map to one page of
/// zeros, which lies in the cache.
inline double read_bandwidth(const ex::cpu::context& exec, int repeats = 5) {
  static const std::vector<float> buffer(static_cast<std::size_t>(slice_bytes * slices / 4), 1.0f);
  constexpr std::ptrdiff_t part = 1 << 14;
  std::vector<float> sums(static_cast<std::size_t>(slice_bytes / 4 / part));
  double best = 1e30;
  for (int i = 0; i < repeats * slices; ++i) {
    const float* slice = buffer.data() + i % slices * (slice_bytes / 4);
    best = std::min(best, best_seconds(1, [&] {
                      exec.parallel_for(slice_bytes / 4 / part, 2, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
                        ex::dispatch<read_kernel>(exec.set(), slice + begin * part, (end - begin) * part,
                                                  &sums[static_cast<std::size_t>(begin)]);
                      });
                    }));
  }
  return static_cast<double>(slice_bytes) / best;
}

/// Bytes a second that all threads of `exec` read in the long run: what a model's weights, hundreds of megabytes one after the
/// other, can come at. Sweeps of 1 GiB in huge pages for at least `seconds`; the mean. (Short slices are up to 1.5 times
/// as fast: what memory controllers and neighbours' traffic allow for a fraction of a millisecond.)
inline double sustained_read_bandwidth(const ex::cpu::context& exec, double seconds) {
  constexpr std::ptrdiff_t bytes = std::ptrdiff_t{1} << 30, part = 1 << 16;
  static const auto buffer = [] {
    effinfer::quantization::weight_storage memory(bytes);
    std::fill_n(memory.data(), bytes, std::byte{1});
    return memory;
  }();
  std::vector<float> sums(bytes / part);
  const auto* values = reinterpret_cast<const float*>(buffer.data());
  const double start = seconds_now();
  double sweeps = 0, taken = 0;
  for (; taken < seconds; ++sweeps, taken = seconds_now() - start) {
    exec.parallel_for(bytes / part, 8, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      ex::dispatch<read_kernel>(exec.set(), values + begin * (part / 4), (end - begin) * (part / 4),
                                &sums[static_cast<std::size_t>(begin)]);
    });
  }
  return static_cast<double>(bytes) * sweeps / taken;
}

/// Operations a second of all threads, where a call of `body(i)` does `operations`; i below 64 picks its output.
template <class Body>
double peak_of(const ex::cpu::context& exec, int repeats, double operations, const Body& body) {
  const std::ptrdiff_t calls = exec.threads() * 16;
  const double seconds = best_seconds(repeats, [&] {
    exec.parallel_for(calls, 1, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      for (std::ptrdiff_t i = begin; i < end; ++i) body(static_cast<std::size_t>(i) % 64);
    });
  });
  return static_cast<double>(calls) * operations / seconds;
}

/// Operations (two a multiply-add) a second of all threads.
inline double fma_peak(const ex::cpu::context& exec, int repeats = 5) {
  const std::vector<float> seed = varied_values(32);
  std::vector<float> out(64);
  return peak_of(exec, repeats, fma_kernel::operations(exec.set()),
                 [&](std::size_t i) { ex::dispatch<fma_kernel>(exec.set(), &seed[0], &out[i]); });
}

/// Operations (two a multiply-add) a second of all threads in products of bytes, by what the set has: AVX-512's VNNI, AVX-VNNI, or AVX2's
/// sums of pairs; 0 without these.
inline double byte_dot_peak([[maybe_unused]] const ex::cpu::context& exec, [[maybe_unused]] int repeats = 5) {
#if EFFINFER_X86
  std::int8_t seed[128];
  std::ranges::transform(varied_values(128), seed, [](float v) { return static_cast<std::int8_t>(v * 127); });
  std::vector<int> out(64 * 16);
  const auto peak = [&]<class Loop>(Loop) {
    return peak_of(exec, repeats, Loop::operations, [&](std::size_t i) { Loop::run(&seed[0], &out[i * 16]); });
  };
  if (ex::base_of(exec.set()) == ex::instruction_set::avx512) return peak(byte_dot_loop());
  if (exec.set() == ex::instruction_set::avx2_vnni) return peak(byte_dot_loop_avx2());
  if (exec.set() == ex::instruction_set::avx2) return peak(byte_pair_loop());
#endif
  return 0;
}

/// Operations (two a multiply-add) a second of all threads in bf16 dot products, of tiles where `exec` has them; 0 without
/// AVX512-BF16.
inline double bf16_dot_peak([[maybe_unused]] const ex::cpu::context& exec, [[maybe_unused]] int repeats = 5) {
#if EFFINFER_X86
  if (exec.set() == ex::instruction_set::amx) {
    alignas(64) effinfer::bf16 seed[4 * 4 * 512];
    std::ranges::transform(varied_values(std::size(seed)), seed, [](float v) { return effinfer::bf16(v); });
    std::vector<float> out(64 * 256);
    return peak_of(exec, repeats, bf16_tile_loop::operations,
                   [&](std::size_t i) { ex::detail::run_amx<bf16_tile_loop>(&seed[0], &out[i * 256]); });
  }
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool has_bf16 = ex::best_instruction_set() >= ex::instruction_set::avx512 &&
                        __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && ((eax >> 5) & 1U) != 0;
  if (has_bf16) {
    const std::vector<float> seed = varied_values(32);
    std::vector<float> out(64 * 16);
    return peak_of(exec, repeats, bf16_dot_loop::operations,
                   [&](std::size_t i) { bf16_dot_loop::run(&seed[0], &out[i * 16]); });
  }
#endif
  return 0;
}

}  // namespace machine_limits
