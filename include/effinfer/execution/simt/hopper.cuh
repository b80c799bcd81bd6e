#pragma once
// hopper.hpp on a GPU: each member an instruction of sm_90a, and the host's call that makes a tensor_map.

#include <effinfer/core/dtype.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/execution/simt/device_context.cuh>
#include <effinfer/execution/simt/hopper.hpp>

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::execution::simt {

template <>
class hopper<device_context> {
 public:
  __device__ explicit hopper(device_context&) { asm("mov.u32 %0, %%smid;" : "=r"(multiprocessor_)); }

  __device__ void init(mbarrier* b, int i, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address(b + i)), "r"(arrivals) : "memory");
  }
  __device__ void publish() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
  __device__ void arrive(mbarrier* b, int i) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address(b + i)) : "memory");
  }
  __device__ void arrive_expect(mbarrier* b, int i, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address(b + i)), "r"(bytes) : "memory");
  }
  __device__ void wait(mbarrier* b, int i, int parity) {
    const std::uint32_t at = address(b + i);
    int done = 0;
    while (done == 0) {  // the instruction itself waits a while
      asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.b32 %0, 1, 0, p; }"
                   : "=r"(done)
                   : "r"(at), "r"(parity)
                   : "memory");
    }
  }

  template <class T>
  __device__ void copy_box(T* to, std::ptrdiff_t j, const tensor_map* map, int x, int y, mbarrier* b, int i) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            address(to + j)),
        "l"(map), "r"(x), "r"(y), "r"(address(b + i))
        : "memory");
  }
  __device__ void acquire(const tensor_map* map) {
    asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(map) : "memory");
  }
  __device__ void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

  template <class T>
  __device__ matrix_descriptor describe(const T* a, std::ptrdiff_t j, int leading, int stride) {
    return matrix_descriptor::of(address(a + j), leading, stride);
  }
  template <int... Steps>
  __device__ void begin(std::uint32_t (&... a)[Steps][4]) {
    (touch(a), ...);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  }
  __device__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
  /// The assembler takes registers of operands for free once a product that reads them has been issued: a store that never happens reads them
  /// here.
  template <int... Steps>
  __device__ void keep(const std::uint32_t (&... a)[Steps][4]) {
    (read(a), ...);
  }
  template <int N, int... Columns>
  __device__ void finish(float (&... d)[Columns][4]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
    (touch(d), ...);
  }

// A product's text and operands: accumulators first, and the numbers of the operands behind them.
#define EFFINFER_WGMMA_16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define EFFINFER_WGMMA_32 EFFINFER_WGMMA_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define EFFINFER_WGMMA_64                                            \
  EFFINFER_WGMMA_32                                                  \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47" \
  ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define EFFINFER_WGMMA_128                                                       \
  EFFINFER_WGMMA_64                                                              \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"             \
  ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"             \
  ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111" \
  ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define EFFINFER_WGMMA_ROW(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define EFFINFER_WGMMA_ROWS_4(j) \
  EFFINFER_WGMMA_ROW(j), EFFINFER_WGMMA_ROW(j + 1), EFFINFER_WGMMA_ROW(j + 2), EFFINFER_WGMMA_ROW(j + 3)
#define EFFINFER_WGMMA_ROWS_8(j) EFFINFER_WGMMA_ROWS_4(j), EFFINFER_WGMMA_ROWS_4(j + 4)
#define EFFINFER_WGMMA_ROWS_16(j) EFFINFER_WGMMA_ROWS_8(j), EFFINFER_WGMMA_ROWS_8(j + 8)
#define EFFINFER_WGMMA_ROWS_32(j) EFFINFER_WGMMA_ROWS_16(j), EFFINFER_WGMMA_ROWS_16(j + 16)
#define EFFINFER_WGMMA_SHARED(n, type, numbers, rows, a_at, b_at, add_at, trans_at)                                 \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %" add_at ", 0; wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type \
               "." type " {" numbers "}, %" a_at ", %" b_at ", p, 1, 1, 0, %" trans_at "; }"                        \
               : rows                                                                                               \
               : "l"(a.bits), "l"(b.bits), "r"(add), "n"(Transposed ? 1 : 0)                                        \
               : "memory")
#define EFFINFER_WGMMA_REGISTERS(n, type, numbers, rows, a_at, b_at, add_at, trans_at)                              \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %" add_at ", 0; wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type \
               "." type " {" numbers "}, {" a_at "}, %" b_at ", p, 1, 1, %" trans_at "; }"                          \
               : rows                                                                                               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits), "r"(add), "n"(Transposed ? 1 : 0)         \
               : "memory")

  template <bool Transposed, int Columns, class T>
  __device__ void multiply(float (&d)[Columns][4], matrix_descriptor a, matrix_descriptor b, T, bool accumulate) {
    constexpr int N = Columns * 8;
    static_assert(N == 64 || N == 128 || N == 256);
    const int add = accumulate ? 1 : 0;
    if constexpr (std::is_same_v<T, bf16>) {
      if constexpr (N == 64) {
        EFFINFER_WGMMA_SHARED("64", "bf16", EFFINFER_WGMMA_32, EFFINFER_WGMMA_ROWS_8(0), "32", "33", "34", "35");
      } else if constexpr (N == 128) {
        EFFINFER_WGMMA_SHARED("128", "bf16", EFFINFER_WGMMA_64, EFFINFER_WGMMA_ROWS_16(0), "64", "65", "66", "67");
      } else if constexpr (N == 256) {
        EFFINFER_WGMMA_SHARED("256", "bf16", EFFINFER_WGMMA_128, EFFINFER_WGMMA_ROWS_32(0), "128", "129", "130", "131");
      }
    } else {
      static_assert(std::is_same_v<T, f16>);
      if constexpr (N == 64) {
        EFFINFER_WGMMA_SHARED("64", "f16", EFFINFER_WGMMA_32, EFFINFER_WGMMA_ROWS_8(0), "32", "33", "34", "35");
      } else if constexpr (N == 128) {
        EFFINFER_WGMMA_SHARED("128", "f16", EFFINFER_WGMMA_64, EFFINFER_WGMMA_ROWS_16(0), "64", "65", "66", "67");
      } else if constexpr (N == 256) {
        EFFINFER_WGMMA_SHARED("256", "f16", EFFINFER_WGMMA_128, EFFINFER_WGMMA_ROWS_32(0), "128", "129", "130", "131");
      }
    }
  }

  template <bool Transposed, int Columns, class T>
  __device__ void multiply(float (&d)[Columns][4], const std::uint32_t (&a)[4], matrix_descriptor b, T,
                           bool accumulate) {
    constexpr int N = Columns * 8;
    static_assert(N == 64 || N == 128 || N == 256);
    const int add = accumulate ? 1 : 0;
    if constexpr (std::is_same_v<T, bf16>) {
      if constexpr (N == 64) {
        EFFINFER_WGMMA_REGISTERS("64", "bf16", EFFINFER_WGMMA_32, EFFINFER_WGMMA_ROWS_8(0), "%32,%33,%34,%35", "36",
                                 "37", "38");
      } else if constexpr (N == 128) {
        EFFINFER_WGMMA_REGISTERS("128", "bf16", EFFINFER_WGMMA_64, EFFINFER_WGMMA_ROWS_16(0), "%64,%65,%66,%67", "68",
                                 "69", "70");
      } else if constexpr (N == 256) {
        EFFINFER_WGMMA_REGISTERS("256", "bf16", EFFINFER_WGMMA_128, EFFINFER_WGMMA_ROWS_32(0), "%128,%129,%130,%131",
                                 "132", "133", "134");
      }
    } else {
      static_assert(std::is_same_v<T, f16>);
      if constexpr (N == 64) {
        EFFINFER_WGMMA_REGISTERS("64", "f16", EFFINFER_WGMMA_32, EFFINFER_WGMMA_ROWS_8(0), "%32,%33,%34,%35", "36",
                                 "37", "38");
      } else if constexpr (N == 128) {
        EFFINFER_WGMMA_REGISTERS("128", "f16", EFFINFER_WGMMA_64, EFFINFER_WGMMA_ROWS_16(0), "%64,%65,%66,%67", "68",
                                 "69", "70");
      } else if constexpr (N == 256) {
        EFFINFER_WGMMA_REGISTERS("256", "f16", EFFINFER_WGMMA_128, EFFINFER_WGMMA_ROWS_32(0), "%128,%129,%130,%131",
                                 "132", "133", "134");
      }
    }
  }

#undef EFFINFER_WGMMA_16
#undef EFFINFER_WGMMA_32
#undef EFFINFER_WGMMA_64
#undef EFFINFER_WGMMA_128
#undef EFFINFER_WGMMA_ROW
#undef EFFINFER_WGMMA_ROWS_4
#undef EFFINFER_WGMMA_ROWS_8
#undef EFFINFER_WGMMA_ROWS_16
#undef EFFINFER_WGMMA_ROWS_32
#undef EFFINFER_WGMMA_SHARED
#undef EFFINFER_WGMMA_REGISTERS

  __device__ void sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
  __device__ void arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
  template <int N>
  __device__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
  }
  template <int N>
  __device__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
  }

 private:
  template <class T>
  static __device__ std::uint32_t address(const T* p) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
  }
  /// The compiler must have written these before what stands below.
  template <int Steps>
  static __device__ void touch(std::uint32_t (&a)[Steps][4]) {
    EFFINFER_UNROLL
    for (int i = 0; i < Steps * 4; ++i) asm volatile("" : "+r"(a[i / 4][i % 4]));
  }
  template <int Steps>
  __device__ void read(const std::uint32_t (&a)[Steps][4]) {
    EFFINFER_UNROLL
    for (int i = 0; i < Steps; ++i) {
      asm volatile(
          "{ .reg .pred p; setp.eq.u32 p, %4, 0xffffffff; @p st.shared.v4.b32 [%4], {%0, %1, %2, %3}; }" ::"r"(a[i][0]),
          "r"(a[i][1]), "r"(a[i][2]), "r"(a[i][3]), "r"(multiprocessor_));
    }
  }
  /// The compiler must not read these before the wait that stands above.
  template <int Columns>
  static __device__ void touch(float (&d)[Columns][4]) {
    EFFINFER_UNROLL
    for (int i = 0; i < Columns * 4; ++i) asm volatile("" : "+f"(d[i / 4][i % 4]));
  }

  std::uint32_t multiprocessor_;
};

/// What the copying engine is told of a matrix. Asks the driver, which isn't linked with. Errors: `device` (a driver without
/// it), `unsupported` (an address or stride that it doesn't take).
inline tensor_map make_tensor_map(const box_source& from) {
  using encode = CUresult(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                          const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                          CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
  if (status != cudaSuccess || found != cudaDriverEntryPointSuccess || entry == nullptr) {
    cudaGetLastError();
    throw error(error_code::device, "cuda: cuTensorMapEncodeTiled", "the driver doesn't have it",
                "update the driver to one of CUDA 12 or newer");
  }
  static_assert(sizeof(CUtensorMap) == sizeof(tensor_map) && alignof(tensor_map) >= alignof(CUtensorMap));
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(from.columns), static_cast<cuuint64_t>(from.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(from.stride) * 2};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(from.box_rows)}, steps[2] = {1, 1};
  // Bits are copied: the zeros outside are zeros of f16 as well.
  const CUresult encoded =
      reinterpret_cast<encode*>(entry)(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(from.data), sizes,
                                       strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                       CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (encoded != CUDA_SUCCESS) {
    throw error(error_code::unsupported, "cuda: cuTensorMapEncodeTiled",
                std::to_string(from.rows) + " x " + std::to_string(from.columns) + " elements, rows " +
                    std::to_string(from.stride) + " apart: error " + std::to_string(static_cast<int>(encoded)));
  }
  tensor_map out;
  __builtin_memcpy(&out, &map, sizeof out);
  return out;
}

}  // namespace effinfer::inline v0::execution::simt
