// The kernel tests of tests/simt on a GPU: their main program, whose memory both sides see.

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace {

// Before the device is asked for, and behind its end, memory is the host's.
bool managed = false;

void* take(std::size_t bytes) {
  void* p = nullptr;
  if (!managed) return std::malloc(bytes);
  return cudaMallocManaged(&p, bytes < 1 ? 1 : bytes) == cudaSuccess ? p : nullptr;
}

}  // namespace

void* operator new(std::size_t bytes) {
  void* p = take(bytes);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void operator delete(void* p) noexcept {
  cudaPointerAttributes of{};
  if (p != nullptr && cudaPointerGetAttributes(&of, p) == cudaSuccess && of.type == cudaMemoryTypeManaged) {
    cudaFree(p);
  } else {
    std::free(p);
  }
}
void operator delete(void* p, std::size_t) noexcept { operator delete(p); }

// Managed memory begins at multiples of 256 and more.
void* operator new(std::size_t bytes, std::align_val_t to) {
  if (managed) return operator new(bytes);
  const auto unit = static_cast<std::size_t>(to);
  void* const p = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void operator delete(void* p, std::align_val_t) noexcept { operator delete(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { operator delete(p); }

int main(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fputs("no CUDA device\n", stderr);
    return 77;
  }
  doctest::Context context(argc, argv);
  cudaFree(nullptr);  // makes the context
  managed = true;
  const int result = context.run();
  managed = false;
  return result;
}
