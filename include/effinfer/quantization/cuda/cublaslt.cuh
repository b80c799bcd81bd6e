#pragma once
// Dense products by NVIDIA's cuBLASLt instead of tiled_product.hpp: for programs that ask for it by name, include this and link cuBLASLt (CMake:
// effinfer::cublaslt). Nothing else in the library does.
//
// What it costs: a row's result may depend on how many rows there are, as the library chooses kernels, tiles and splits by shape and from
// one version to the next. What holds: the same plan gives the same bits for the same inputs on the same device (nothing is added by atomics
// with the algorithms that are taken: those without reductions across blocks, or with a workspace for them).
//
// Source: cuBLAS 13 documentation, "Using the cublasLt API".

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace effinfer::inline v0::quantization::cuda {

namespace detail {

inline void check_cublaslt(cublasStatus_t status, const char* asked) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw error(status == CUBLAS_STATUS_NOT_SUPPORTED ? error_code::unsupported : error_code::device,
              "cuBLASLt: " + std::string(asked), cublasLtGetStatusName(status));
}

/// Owns what Destroy lets go.
template <class Handle, cublasStatus_t (*Destroy)(Handle)>
class cublaslt_owner {
 public:
  cublaslt_owner() = default;
  explicit cublaslt_owner(Handle of) : of_(of) {}
  cublaslt_owner(cublaslt_owner&& other) noexcept : of_(std::exchange(other.of_, nullptr)) {}
  cublaslt_owner& operator=(cublaslt_owner&& other) noexcept {
    std::swap(of_, other.of_);
    return *this;
  }
  ~cublaslt_owner() {
    if (of_ != nullptr) Destroy(of_);
  }
  [[nodiscard]] Handle get() const { return of_; }

 private:
  Handle of_ = nullptr;
};

}  // namespace detail

/// cuBLASLt for the current device; of any number of products and threads. It must outlive them.
class cublaslt {
 public:
  /// Errors: `device` (no driver, no device; what cuBLASLt says).
  cublaslt() {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count < 1) {
      cudaGetLastError();  // it is said here
      throw error(error_code::device, "cuBLASLt",
                  status == cudaSuccess ? std::string("this machine has no CUDA device")
                                        : std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status),
                  "products without it: quantization::cuda::matmul");
    }
    cublasLtHandle_t handle = nullptr;
    detail::check_cublaslt(cublasLtCreate(&handle), "a handle");
    handle_ = owner(handle);
  }
  [[nodiscard]] cublasLtHandle_t get() const { return handle_.get(); }

 private:
  using owner = detail::cublaslt_owner<cublasLtHandle_t, cublasLtDestroy>;
  owner handle_;
};

/// out = x w^T with weights in bf16 or f16 and sums in float, for one shape: the plan is made once, `run` is as often as one likes.
///
/// Shapes: x [T, K], w [N, K], out [T, N] of T or float; rows 16-byte aligned. Cost: `run` allocates nothing, waits for nothing, and can be
/// captured into a graph. Exact: see the head of this file.
template <class T, class Out = T>
class dense_product {
 public:
  /// Of these shapes and strides; data is not looked at. Errors: `mismatch` (shapes), `unsupported` (strides no multiple of 16 bytes, or
  /// no algorithm), `device`.
  dense_product(const cublaslt& with, const matrix_view<const T>& x, const float_weights<T>& w,
                const matrix_view<Out>& out, std::size_t most_workspace = std::size_t{32} << 20)
      : with_(&with), x_(x), w_(w), out_(out) {
    static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, f16>);
    static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>);
    const char* const who = "quantization::cuda::dense_product";
    if (x.rows < 1 || w.rows < 1 || x.columns != w.columns || out.columns != w.rows || out.rows != x.rows)
      throw error(error_code::mismatch, who, "the shapes of x, weights and out do not go together");
    if (x.stride % 8 != 0 || w.stride % 8 != 0 || out.stride * static_cast<std::ptrdiff_t>(sizeof(Out)) % 16 != 0)
      throw error(error_code::unsupported, who, "rows that are not 16-byte aligned");
    constexpr cudaDataType_t type = std::is_same_v<T, bf16> ? CUDA_R_16BF : CUDA_R_16F;
    constexpr cudaDataType_t out_type = std::is_same_v<Out, float> ? CUDA_R_32F : type;
    cublasLtMatmulDesc_t product = nullptr;
    detail::check_cublaslt(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product");
    product_ = owner<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>(product);
    // To it matrices are column by column: out^T = w x^T, with w transposed once more.
    const cublasOperation_t transposed = CUBLAS_OP_T;
    detail::check_cublaslt(
        cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
        "an attribute");
    layout(w_layout_, type, w.columns, w.rows, w.stride);
    layout(x_layout_, type, x.columns, x.rows, x.stride);
    layout(out_layout_, out_type, out.columns, out.rows, out.stride);
    cublasLtMatmulPreference_t preference = nullptr;
    detail::check_cublaslt(cublasLtMatmulPreferenceCreate(&preference), "a preference");
    const owner<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy> owned(preference);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
      detail::check_cublaslt(cublasLtMatmulPreferenceSetAttribute(preference, what, &value, sizeof value),
                             "a preference");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, most_workspace);
    // No reduction in an order that isn't the same each time.
    const std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
    const std::uint32_t alignment = 16;
    for (const auto of : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      prefer(of, alignment);
    int found = 0;
    detail::check_cublaslt(
        cublasLtMatmulAlgoGetHeuristic(with.get(), product, w_layout_.get(), x_layout_.get(), out_layout_.get(),
                                       out_layout_.get(), preference, 1, &chosen_, &found),
        "an algorithm");
    if (found < 1) throw error(error_code::unsupported, who, "cuBLASLt has no algorithm for this shape");
    detail::check_cublaslt(chosen_.state, "an algorithm");
  }

  /// Of device memory, 256-byte aligned.
  [[nodiscard]] std::size_t workspace_bytes() const { return chosen_.workspaceSize; }

  /// Errors: `mismatch` (other shapes or strides than planned), `unsupported` (addresses), `device`.
  void run(const matrix_view<const T>& x, const float_weights<T>& w, const matrix_view<Out>& out, void* workspace,
           cudaStream_t stream) const {
    const char* const who = "quantization::cuda::dense_product";
    const auto same = [](const auto& a, const auto& b) {
      return a.rows == b.rows && a.columns == b.columns && a.stride == b.stride;
    };
    if (!same(x, x_) || !same(w, w_) || !same(out, out_))
      throw error(error_code::mismatch, who, "other shapes or strides than those it was planned for");
    const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
    if (!aligned(x.data) || !aligned(w.data) || !aligned(out.data))
      throw error(error_code::unsupported, who, "rows that are not 16-byte aligned");
    const float one = 1, zero = 0;
    detail::check_cublaslt(cublasLtMatmul(with_->get(), product_.get(), &one, w.data, w_layout_.get(), x.data,
                                          x_layout_.get(), &zero, out.data, out_layout_.get(), out.data,
                                          out_layout_.get(), &chosen_.algo, workspace, workspace_bytes(), stream),
                           "start of a product");
  }

 private:
  template <class Handle, cublasStatus_t (*Destroy)(Handle)>
  using owner = detail::cublaslt_owner<Handle, Destroy>;
  using layout_owner = owner<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;

  static void layout(layout_owner& to, cudaDataType_t type, std::ptrdiff_t rows, std::ptrdiff_t columns,
                     std::ptrdiff_t stride) {
    cublasLtMatrixLayout_t made = nullptr;
    detail::check_cublaslt(cublasLtMatrixLayoutCreate(&made, type, static_cast<std::uint64_t>(rows),
                                                      static_cast<std::uint64_t>(columns), stride),
                           "a matrix");
    to = layout_owner(made);
  }

  const cublaslt* with_;
  matrix_view<const T> x_;
  float_weights<T> w_;
  matrix_view<Out> out_;
  owner<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> product_;
  layout_owner w_layout_, x_layout_, out_layout_;
  cublasLtMatmulHeuristicResult_t chosen_ = {};
};

}  // namespace effinfer::inline v0::quantization::cuda
