#pragma once
// execution::cuda under nvcc: the device, its memory, its queue, graphs.
//
// Whatever CUDA refuses is an effinfer::error of code `device` that says what was asked of which device; a machine without a driver or a GPU is
// one when a model is loaded, and nothing else.

#include <effinfer/core/error.hpp>
#include <effinfer/execution/cuda.hpp>
#include <effinfer/execution/instruction_set.hpp>
#include <effinfer/execution/simt/device.hpp>
#include <effinfer/execution/simt/launch.cuh>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory_resource>
#include <string>
#include <utility>

namespace effinfer::inline v0::execution {

namespace detail {

/// Makes a device the calling thread's, and puts back the one that was.
class device_guard {
 public:
  explicit device_guard(int device) {
    simt::check(cudaGetDevice(&before_), "the current device");
    if (before_ == device) return;
    simt::check(cudaSetDevice(device), "a device");
    changed_ = true;
  }
  device_guard(const device_guard&) = delete;
  device_guard& operator=(const device_guard&) = delete;
  ~device_guard() {
    if (changed_) cudaSetDevice(before_);
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

/// Compiled for whatever this program is compiled for: whether a device can run it tells whether it can run the rest.
struct probe {
  struct args {
    int* out;
  };
  static simt::grid plan(const args&) { return {1, 1, 32, 0}; }
  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    if (a.out != nullptr) a.out[0] = t.threads();
  }
};

/// Where the code that a device would run was compiled for sm_90a, it takes some shared memory: so a program knows without starting it. A template, as
/// every translation unit has it.
template <class>
__global__ void tell_target(int* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ int turned[32];
  turned[31 - threadIdx.x] = out[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = turned[threadIdx.x];
#else
  (void)out;
#endif
}

}  // namespace detail

template <class Activation, int... HeadSizes>
class on_cuda<Activation, HeadSizes...>::context {
 public:
  class queue_type {
   public:
    queue_type(int device, cudaStream_t stream, bool overlaps) : guard_(device), stream_(stream), overlaps_(overlaps) {}

    template <class K>
    void launch(const typename K::args& a) {
      simt::launch<K>(a, stream_, overlaps_);
    }
    void upload(void* to, const void* from, std::size_t bytes) {
      simt::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "a copy to the device");
    }
    void download(void* to, const void* from, std::size_t bytes) {
      simt::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "a copy from the device");
    }
    void copy(void* to, const void* from, std::size_t bytes) {
      simt::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "a copy within the device");
    }
    void synchronize() { simt::check(cudaStreamSynchronize(stream_), "what was started on a stream"); }
    [[nodiscard]] cudaStream_t stream() const { return stream_; }

   private:
    detail::device_guard guard_;
    cudaStream_t stream_;
    bool overlaps_;
  };

  /// Kernels that are started together.
  class graph {
   public:
    graph() = default;
    explicit graph(cudaGraphExec_t of) : of_(of) {}
    graph(graph&& other) noexcept : of_(std::exchange(other.of_, nullptr)) {}
    graph& operator=(graph&& other) noexcept {
      std::swap(of_, other.of_);
      return *this;
    }
    ~graph() {
      if (of_ != nullptr) cudaGraphExecDestroy(of_);
    }
    explicit operator bool() const { return of_ != nullptr; }
    void start(queue_type& q) const { simt::check(cudaGraphLaunch(of_, q.stream()), "start of a graph"); }

   private:
    cudaGraphExec_t of_ = nullptr;
  };

  /// Errors: `device` (no driver, no such device), `unsupported` (an older device, or one that this program wasn't compiled for).
  explicit context(const on_cuda& policy = {}) : policy_(policy) {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || policy.device < 0 || policy.device >= count) {
      cudaGetLastError();  // it is said here, and not again by the next check
      throw error(error_code::device, "execution::cuda: device " + std::to_string(policy.device),
                  status == cudaSuccess ? "this machine has " + std::to_string(count) + " CUDA devices"
                                        : std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status),
                  "run on the CPU with execution::cpu, or make a driver and a device available");
    }
    const detail::device_guard guard(policy.device);
    const int major = attribute(cudaDevAttrComputeCapabilityMajor),
              minor = attribute(cudaDevAttrComputeCapabilityMinor);
    if (major < 8) {
      throw error(error_code::unsupported, "execution::cuda: device " + std::to_string(policy.device),
                  "its compute capability is " + std::to_string(major) + "." + std::to_string(minor) +
                      ", the kernels need 8.0");
    }
    cudaFuncAttributes of_probe{};
    if (cudaFuncGetAttributes(&of_probe, reinterpret_cast<const void*>(simt::enter<detail::probe>)) != cudaSuccess) {
      cudaGetLastError();
      throw error(
          error_code::unsupported, "execution::cuda: device " + std::to_string(policy.device),
          "this program has no kernels for compute capability " + std::to_string(major) + "." + std::to_string(minor),
          "compile it with nvcc -arch=sm_" + std::to_string(major) + std::to_string(minor));
    }
    overlaps_ = policy.overlap_kernels && simt::kernels_overlap(major, of_probe);
    limits_.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
    limits_.shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    cudaFuncAttributes of_target{};
    simt::check(cudaFuncGetAttributes(&of_target, reinterpret_cast<const void*>(detail::tell_target<void>)),
                "a kernel's attributes");
    limits_.wgmma = major == 9 && of_target.sharedSizeBytes > 0;
    if (policy.stream == nullptr) {
      simt::check(cudaStreamCreateWithFlags(&policy_.stream, cudaStreamNonBlocking), "a stream");
      owns_stream_ = true;
    }
  }
  context(const context&) = delete;
  context& operator=(const context&) = delete;
  ~context() {
    if (owns_stream_) cudaStreamDestroy(policy_.stream);
  }

  [[nodiscard]] simt::device_limits limits() const { return limits_; }
  [[nodiscard]] simt::tensor_map map(const simt::box_source& m) const { return simt::make_tensor_map(m); }
  [[nodiscard]] int device() const { return policy_.device; }
  [[nodiscard]] cudaStream_t stream() const { return policy_.stream; }
  [[nodiscard]] queue_type queue() const { return {policy_.device, policy_.stream, overlaps_}; }
  /// What rules and samplers on the host run with.
  [[nodiscard]] instruction_set set() const { return best_instruction_set(); }

  [[nodiscard]] void* allocate(std::size_t bytes) const {
    if (policy_.memory != nullptr) return policy_.memory->allocate(bytes, 256);
    const detail::device_guard guard(policy_.device);
    void* p = nullptr;
    const cudaError_t status = cudaMalloc(&p, bytes);
    if (status != cudaSuccess) refuse(status, bytes, "bytes of device memory");
    return p;
  }
  /// Waits for what may still use it.
  void release(void* p, std::size_t bytes) const noexcept {
    int before = 0;
    cudaGetDevice(&before);
    cudaSetDevice(policy_.device);
    cudaStreamSynchronize(policy_.stream);
    if (policy_.memory != nullptr) {
      policy_.memory->deallocate(p, bytes, 256);
    } else {
      cudaFree(p);
    }
    cudaSetDevice(before);
  }
  [[nodiscard]] void* allocate_host(std::size_t bytes) const {
    const detail::device_guard guard(policy_.device);
    void* p = nullptr;
    const cudaError_t status = cudaMallocHost(&p, bytes);
    if (status != cudaSuccess) refuse(status, bytes, "bytes of page-locked memory");
    return p;
  }
  void release_host(void* p, std::size_t) const noexcept {
    cudaStreamSynchronize(policy_.stream);
    cudaFreeHost(p);
  }

  /// Captured on a stream of its own: what other threads start meanwhile doesn't get into it.
  template <class F>
  [[nodiscard]] graph record(const F& f) const {
    const detail::device_guard guard(policy_.device);
    struct capture {
      cudaStream_t stream = nullptr;
      cudaGraph_t graph = nullptr;
      ~capture() {
        if (graph != nullptr) cudaGraphDestroy(graph);
        if (stream != nullptr) cudaStreamDestroy(stream);
      }
    } c;
    simt::check(cudaStreamCreateWithFlags(&c.stream, cudaStreamNonBlocking), "a stream");
    // Relaxed: what CUDA itself may have to load for a kernel is no error.
    simt::check(cudaStreamBeginCapture(c.stream, cudaStreamCaptureModeRelaxed), "begin of a capture");
    try {
      queue_type q(policy_.device, c.stream, overlaps_);
      f(q);
    } catch (...) {
      cudaStreamEndCapture(c.stream, &c.graph);
      cudaGetLastError();
      throw;
    }
    simt::check(cudaStreamEndCapture(c.stream, &c.graph), "end of a capture");
    cudaGraphExec_t of = nullptr;
    simt::check(cudaGraphInstantiate(&of, c.graph, 0), "a graph");
    return graph(of);
  }

 private:
  [[nodiscard]] int attribute(cudaDeviceAttr which) const {
    int value = 0;
    simt::check(cudaDeviceGetAttribute(&value, which, policy_.device), "an attribute of the device");
    return value;
  }
  [[noreturn]] void refuse(cudaError_t status, std::size_t bytes, const char* of) const {
    cudaGetLastError();
    throw error(error_code::device, "execution::cuda: device " + std::to_string(policy_.device),
                std::to_string(bytes) + " " + of + ": " + cudaGetErrorName(status) + ", " + cudaGetErrorString(status),
                "memory_footprint says before loading what a model takes");
  }

  on_cuda policy_;
  simt::device_limits limits_;
  bool owns_stream_ = false;
  bool overlaps_ = false;  // kernels with those before them
};

static_assert(simt::device<cuda::context> && simt::device<cuda_f16::context>);

}  // namespace effinfer::inline v0::execution
