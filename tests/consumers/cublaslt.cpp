// A program that links effinfer::cublaslt. Where there is a GPU its products are those of the other kernels up to the order of sums; where there is
// none, that is an error with a type.

#include <effinfer/quantization/cuda/cublaslt.cuh>
#include <effinfer/testing/attention_oracle.hpp>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

namespace ei = effinfer;
using ei::bf16;

namespace {

/// Memory that the device and the host see.
class managed {
 public:
  explicit managed(std::size_t bytes) { ok_ = bytes == 0 || cudaMallocManaged(&p_, bytes) == cudaSuccess; }
  managed(const managed&) = delete;
  managed& operator=(const managed&) = delete;
  ~managed() { cudaFree(p_); }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bf16* numbers() const { return static_cast<bf16*>(p_); }
  [[nodiscard]] void* data() const { return p_; }

 private:
  void* p_ = nullptr;
  bool ok_ = false;
};

/// 0 where all is as it should be.
int compare(const ei::quantization::cuda::cublaslt& library, int tokens, int rows, int columns) {
  const auto size = [](int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); };
  const managed for_x(size(tokens, columns) * 2), for_w(size(rows, columns) * 2), for_out(size(tokens, rows) * 2);
  if (!for_x.ok() || !for_w.ok() || !for_out.ok()) return 1;
  bf16 *const x = for_x.numbers(), *const w = for_w.numbers(), *const out = for_out.numbers();
  const std::vector<float> of_x = ei::testing::numbers(size(tokens, columns), 1),
                           of_w = ei::testing::numbers(size(rows, columns), 2);
  for (std::size_t i = 0; i < of_x.size(); ++i) x[i] = bf16(of_x[i]);
  for (std::size_t i = 0; i < of_w.size(); ++i) w[i] = bf16(of_w[i]);
  const ei::matrix_view<const bf16> in(x, tokens, columns);
  const ei::matrix_view<bf16> to(out, tokens, rows);
  const ei::quantization::cuda::float_weights<bf16> weights{w, columns, rows, columns};
  const ei::quantization::cuda::dense_product<bf16> product(library, in, weights, to);
  const managed workspace(product.workspace_bytes());
  if (!workspace.ok()) return 1;
  std::memset(static_cast<void*>(out), 0xff, size(tokens, rows) * 2);
  product.run(in, weights, to, workspace.data(), nullptr);
  if (cudaDeviceSynchronize() != cudaSuccess) return 1;
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < rows; ++r) {
      double wanted = 0;
      for (int c = 0; c < columns; ++c)
        wanted += static_cast<double>(static_cast<float>(in.row(t)[c])) *
                  static_cast<double>(static_cast<float>(w[size(r, columns) + static_cast<std::size_t>(c)]));
      const auto got = static_cast<double>(static_cast<float>(to.row(t)[r]));
      if (!(std::abs(got - wanted) <= std::abs(wanted) * 0x1p-8 + columns * 0x1p-22)) return 1;
    }
  }
  return 0;
}

}  // namespace

int main() {
  try {
    const ei::quantization::cuda::cublaslt library;
    const int wrong = compare(library, 1, 64, 128) + compare(library, 67, 136, 320);
    std::printf("cuBLASLt: %s\n", wrong == 0 ? "products as they should be" : "wrong products");
    return wrong;
  } catch (const ei::error& e) {
    std::printf("%s\n", e.what());
    int count = 0;
    const bool has_device = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
    return !has_device && e.code() == ei::error_code::device ? 0 : 1;
  }
}
