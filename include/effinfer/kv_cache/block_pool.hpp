#pragma once
// Memory for keys and values in blocks of equal size that sequences take, share and give back: paged.hpp is the cache on it.
//
// Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention" (2023), sections 4.1 and 4.4.

#include <effinfer/kv_cache/held_blocks.hpp>
#include <effinfer/kv_cache/shape.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <cstddef>
#include <memory>
#include <memory_resource>

namespace effinfer::inline v0::kv_cache {

/// See detail::counted_blocks; the memory is the host's.
template <element T, int Block>
class block_pool : public detail::counted_blocks<T, Block> {
  using counted = detail::counted_blocks<T, Block>;

 public:
  /// Memory comes from `from`, which must outlive the pool. Errors: as `footprint`, std::bad_alloc.
  block_pool(const shape& s, int blocks, std::pmr::memory_resource* from = std::pmr::get_default_resource())
      : counted(s, blocks),
        data_(static_cast<T*>(from->allocate(static_cast<std::size_t>(counted::bytes()), 64)),
              release_memory{from, static_cast<std::size_t>(counted::bytes())}) {}

  [[nodiscard]] T* data() const { return data_.get(); }
  /// Block 0 of a layer; block b is b block_elements() further.
  [[nodiscard]] T* layer(int layer) const { return data() + layer * counted::layer_elements(); }

 private:
  struct release_memory {
    std::pmr::memory_resource* from;
    std::size_t bytes;
    void operator()(T* p) const { from->deallocate(p, bytes, 64); }
  };

  std::unique_ptr<T[], release_memory> data_;
};

}  // namespace effinfer::inline v0::kv_cache
