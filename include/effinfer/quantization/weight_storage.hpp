#pragma once
// Memory for packed weights: whole pages, huge ones where the system has them. (Streams of hundreds of megabytes miss the
// translation buffer on every page of 4 KiB, and hardware prefetching stops at each.)

#include <cstddef>
#include <new>
#include <utility>

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#define EFFINFER_HAS_MMAP 1
#else
#define EFFINFER_HAS_MMAP 0
#endif

namespace effinfer::inline v0::quantization {

/// Owns `size()` bytes, zero, aligned to 64 at least. Pages that nobody writes take no memory.
class weight_storage {
 public:
  weight_storage() = default;
  /// Errors: std::bad_alloc.
  explicit weight_storage(std::size_t bytes) : size_(bytes) {
    if (bytes == 0) return;
#if EFFINFER_HAS_MMAP
    void* p = mmap(nullptr, mapped(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<std::byte*>(p);
#if defined(MADV_HUGEPAGE)
    if (bytes >= huge_page) madvise(data(), bytes, MADV_HUGEPAGE);  // advice: without it all works, slower
#endif
#else
    base_ = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{64}));
    __builtin_memset(base_, 0, bytes);
#endif
  }
  weight_storage(weight_storage&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  weight_storage& operator=(weight_storage&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~weight_storage() {
    if (base_ == nullptr) return;
#if EFFINFER_HAS_MMAP
    munmap(base_, mapped());
#else
    ::operator delete (base_, std::align_val_t{64});
#endif
  }

  [[nodiscard]] std::byte* data() const noexcept {
#if EFFINFER_HAS_MMAP
    // A large one begins at a huge page.
    if (size_ >= huge_page) {
      const auto address = reinterpret_cast<std::size_t>(base_);
      return base_ + ((address + huge_page - 1) / huge_page * huge_page - address);
    }
#endif
    return base_;
  }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  static constexpr std::size_t huge_page = std::size_t{2} << 20;
  [[nodiscard]] std::size_t mapped() const noexcept { return size_ >= huge_page ? size_ + huge_page : size_; }

  std::byte* base_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace effinfer::inline v0::quantization
