// expect: effinfer: kv_cache policy needs  using element_type = float, effinfer::f16, effinfer::bf16, effinfer::kv_cache::int8 or effinfer::fp8_e4m3;
#include <effinfer/kv_cache/contiguous.hpp>

namespace ei = effinfer;

struct integers : ei::kv_cache::contiguous<float> {
#ifdef EFFINFER_BAD
  using element_type = int;
#endif
};

static_assert(ei::kv_cache::check_kv_cache<integers>::complete);
