// expect: effinfer: kv_cache policy needs a nested type `cache` with the members of sequence_memory
#include <effinfer/kv_cache/contiguous.hpp>

namespace ei = effinfer;

struct forgetful {
  using slot = ei::slot::kv_cache;
  using element_type = float;
  using view = ei::kv_cache::view<float>;
  class cache : public ei::kv_cache::contiguous<float>::cache {
   public:
    using ei::kv_cache::contiguous<float>::cache::cache;
#ifdef EFFINFER_BAD
    void truncate(int) {}
#endif
  };
};

static_assert(ei::kv_cache::check_kv_cache<forgetful>::complete);
