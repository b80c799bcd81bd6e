#pragma once
// The SIMT context on a GPU: empty but for how much shared memory was handed out, every member an intrinsic. See context.hpp.

#include <effinfer/core/dtype.hpp>
#include <effinfer/execution/simt/context.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace effinfer::inline v0::execution::simt {

class device_context {
 public:
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int threads() const { return static_cast<int>(blockDim.x); }
  __device__ int block() const { return static_cast<int>(blockIdx.x); }
  __device__ int block_y() const { return static_cast<int>(blockIdx.y); }
  __device__ int blocks() const { return static_cast<int>(gridDim.x); }
  __device__ int lane() const { return thread() % warp_size; }
  __device__ int warp() const { return thread() / warp_size; }

  __device__ void barrier() { __syncthreads(); }
  __device__ void warp_barrier() { __syncwarp(); }
  __device__ void fence() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

  template <class T>
  __device__ T shuffle(T v, int lane) {
    return __shfl_sync(all, v, lane);
  }
  template <class T>
  __device__ T shuffle_xor(T v, int mask) {
    return __shfl_xor_sync(all, v, mask);
  }
  template <class T>
  __device__ T shuffle_down(T v, int by) {
    return __shfl_down_sync(all, v, static_cast<unsigned>(by));
  }
  __device__ std::uint32_t ballot(bool b) { return __ballot_sync(all, b); }
  __device__ bool any(bool b) { return __any_sync(all, b) != 0; }

  template <class T>
  __device__ T* shared(int count) {
    extern __shared__ __align__(1024) unsigned char effinfer_shared_memory[];
    used_ = (used_ + 15) / 16 * 16;
    T* const array = reinterpret_cast<T*>(effinfer_shared_memory + used_);
    used_ += static_cast<int>(sizeof(T)) * count;
    return array;
  }

  template <class T>
  __device__ T* kept(T* a) const {
    auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(a));
    asm("" : "+r"(at));
    return static_cast<T*>(__cvta_shared_to_generic(at));
  }
  template <class U, class T>
  __device__ U* as(T* a) const {
    return reinterpret_cast<U*>(a);
  }

  template <int Bytes = 16, class T>
  __device__ void copy_async(T* to, std::ptrdiff_t i, const T* from) {
    const std::uint32_t at = shared_address(to, i);
    if constexpr (Bytes == 16) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
    } else {
      asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(at), "l"(from), "n"(Bytes) : "memory");
    }
  }
  __device__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  template <int N>
  __device__ void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
  }

  template <class T>
  __device__ void load_matrices(const T* from, std::ptrdiff_t i, std::uint32_t (&r)[4]) {
    const std::uint32_t at = shared_address(from, i);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  }
  template <class T>
  __device__ void load_matrices_transposed(const T* from, std::ptrdiff_t i, std::uint32_t (&r)[4]) {
    const std::uint32_t at = shared_address(from, i);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  }

  __device__ float exp2(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
  }

  template <class T>
  __device__ void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], T) {
    if constexpr (std::is_same_v<T, bf16>) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
      static_assert(std::is_same_v<T, f16>);
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  }

  __device__ void mma(std::int32_t (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], std::int8_t) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }

  __device__ void await_predecessors() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  }
  __device__ void prefetch(const void* p) {
#if __CUDA_ARCH__ >= 900  // before it nothing overlaps
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#else
    (void)p;
#endif
  }

  template <class T>
  __device__ T atomic_add(T* p, T v) {
    return atomicAdd(p, v);
  }
  template <class T>
  __device__ void atomic_add(T* a, std::ptrdiff_t i, T v) {
    atomicAdd(a + i, v);
  }

 private:
  /// 32 bits from the start, so that offsets take no second register.
  template <class T>
  static __device__ std::uint32_t shared_address(const T* a, std::ptrdiff_t i) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(a)) +
           static_cast<std::uint32_t>(i) * static_cast<std::uint32_t>(sizeof(T));
  }

  static constexpr unsigned all = 0xffffffffU;
  int used_ = 0;
};

/// Kernels that need hopper.hpp: they say K::for_hopper = true and K::threads.
template <class K>
concept hopper_kernel = requires {
  requires K::for_hopper;
};

/// Kernels of K::threads threads, K::blocks_at_once of whose blocks a multiprocessor is to hold: they get no more registers than that leaves.
template <class K>
concept sized_kernel = requires {
  K::threads;
  K::blocks_at_once;
};

/// A kernel K with `K::args` and `K::run(context, args)`, as CUDA starts it. The next one may be started as soon as all its blocks run: what that
/// does before it awaits this one costs nobody anything.
template <class K>
__global__ void enter(const __grid_constant__ typename K::args a) {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
  device_context t;
  run_kernel<K>(t, a);
}

/// The same for a sized_kernel.
template <sized_kernel K>
__global__ void __launch_bounds__(K::threads, K::blocks_at_once)
    enter_sized(const __grid_constant__ typename K::args a) {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
  device_context t;
  run_kernel<K>(t, a);
}

/// The same for a hopper_kernel: with as many registers as a block that is alone on its multiprocessor may have. Code for other targets than
/// sm_90a traps; plans don't start it there.
template <hopper_kernel K>
__global__ void __launch_bounds__(K::threads, 1) enter_alone(const __grid_constant__ typename K::args a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  device_context t;
  run_kernel<K>(t, a);
#else
  (void)a;
  __trap();
#endif
}

/// K's entry, as CUDA's functions want it.
template <class K>
const void* entry_of() {
  if constexpr (hopper_kernel<K>) {
    return reinterpret_cast<const void*>(enter_alone<K>);
  } else if constexpr (sized_kernel<K>) {
    return reinterpret_cast<const void*>(enter_sized<K>);
  } else {
    return reinterpret_cast<const void*>(enter<K>);
  }
}

}  // namespace effinfer::inline v0::execution::simt
