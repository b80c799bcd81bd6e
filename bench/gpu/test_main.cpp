// The kernel tests of tests/simt on a GPU: their main program, whose memory both sides see, the stack too. It is the host's, page-locked: taken
// once, as each taking and giving back waits for the device.

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cuda_runtime_api.h>
#include <pthread.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>

namespace {

/// Blocks of powers of two, each kept for the next of its size. Before `begin` is set, memory is that of malloc.
struct {
  std::byte *begin = nullptr, *next = nullptr, *end = nullptr;
  std::array<void*, 64> free{};
  std::mutex one_at_a_time;
} pool;
constexpr std::size_t head =
    128;  // in which a block says of which size it is; what is handed out begins at a multiple of it

void* take(std::size_t bytes) {
  const std::scoped_lock lock(pool.one_at_a_time);
  if (pool.begin == nullptr) return std::malloc(bytes);
  const auto size = std::bit_ceil(bytes + head);
  const auto size_class = static_cast<std::size_t>(std::countr_zero(size));
  if (void* const p = pool.free[size_class]; p != nullptr) {
    pool.free[size_class] = *static_cast<void**>(p);
    return p;
  }
  if (size > static_cast<std::size_t>(pool.end - pool.next)) return nullptr;
  std::byte* const p = pool.next + head;
  *reinterpret_cast<std::size_t*>(pool.next) = size_class;
  pool.next += size;
  return p;
}

void give_back(void* p) noexcept {
  const std::scoped_lock lock(pool.one_at_a_time);
  auto* const at = static_cast<std::byte*>(p);
  if (at < pool.begin || at >= pool.end) return std::free(p);
  void*& first = pool.free[*reinterpret_cast<std::size_t*>(at - head)];
  *static_cast<void**>(p) = first;
  first = p;
}

}  // namespace

void* operator new(std::size_t bytes) {
  void* const p = take(bytes);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void operator delete(void* p) noexcept { give_back(p); }
void operator delete(void* p, std::size_t) noexcept { give_back(p); }
void* operator new(std::size_t bytes, std::align_val_t to) {
  if (pool.begin != nullptr && static_cast<std::size_t>(to) <= head) return operator new(bytes);
  const auto unit = static_cast<std::size_t>(to);
  void* const p = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void operator delete(void* p, std::align_val_t) noexcept { give_back(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { give_back(p); }

int main(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fputs("no CUDA device\n", stderr);
    return 77;
  }
  doctest::Context context(argc, argv);
  void* memory = nullptr;
  const std::size_t bytes = std::size_t{2} << 30;
  if (cudaMallocHost(&memory, bytes) != cudaSuccess) {
    std::fputs("no page-locked memory\n", stderr);
    return 1;
  }
  pool.next = static_cast<std::byte*>(memory), pool.end = pool.next + bytes;
  pool.begin = pool.next;  // the process's to the end: what is static may lie in it

  const std::size_t stack_bytes = std::size_t{64} << 20;
  pool.end -= stack_bytes;
  struct run {
    doctest::Context& of;
    int result = 1;
  } tests{context};
  pthread_attr_t where;
  pthread_t thread{};
  pthread_attr_init(&where);
  pthread_attr_setstack(&where, pool.end, stack_bytes);
  const auto start = [](void* p) -> void* {
    static_cast<run*>(p)->result = static_cast<run*>(p)->of.run();
    return nullptr;
  };
  if (pthread_create(&thread, &where, start, &tests) != 0) {
    std::fputs("no thread\n", stderr);
    return 1;
  }
  pthread_join(thread, nullptr);
  return tests.result;
}
