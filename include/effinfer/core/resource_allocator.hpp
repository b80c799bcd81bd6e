#pragma once
// Containers whose memory comes from the caller's resource, their copies' too (std::pmr's go back to the default).

#include <cstddef>
#include <memory_resource>
#include <type_traits>

namespace effinfer::inline v0 {

/// An allocator over a std::pmr::memory_resource, which must outlive what it allocated. Blocks begin at multiples of 64 bytes.
template <class T>
class resource_allocator {
 public:
  using value_type = T;
  using propagate_on_container_copy_assignment = std::true_type;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;

  resource_allocator() noexcept = default;
  // Implicit, as std::pmr::polymorphic_allocator's: whoever has a resource has an allocator.
  resource_allocator(std::pmr::memory_resource* from) noexcept : from_(from) {}  // NOLINT(google-explicit-constructor)
  template <class U>
  resource_allocator(const resource_allocator<U>& other) noexcept  // NOLINT(google-explicit-constructor)
      : from_(other.resource()) {}

  /// Errors: whatever the resource throws, std::bad_alloc as a rule.
  [[nodiscard]] T* allocate(std::size_t count) { return static_cast<T*>(from_->allocate(count * sizeof(T), 64)); }
  void deallocate(T* p, std::size_t count) noexcept { from_->deallocate(p, count * sizeof(T), 64); }
  [[nodiscard]] std::pmr::memory_resource* resource() const noexcept { return from_; }

  friend bool operator==(const resource_allocator& a, const resource_allocator& b) noexcept {
    return a.from_ == b.from_ || a.from_->is_equal(*b.from_);
  }

 private:
  std::pmr::memory_resource* from_ = std::pmr::get_default_resource();
};

}  // namespace effinfer::inline v0
