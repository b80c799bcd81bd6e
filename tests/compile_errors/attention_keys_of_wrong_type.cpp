// expect: effinfer: attention policy needs  EFFINFER_HOST_DEVICE key_range keys(int query, int cached) const;
#include <effinfer/attention/grouped_query.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/softmax.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
struct last : ei::attention::no_hooks {
  EFFINFER_HOST_DEVICE int keys(int query) const { return query; }
};
using mixer = ei::attention::softmax<last>;
#else
struct last : ei::attention::no_hooks {
  EFFINFER_HOST_DEVICE ei::attention::key_range keys(int query, int cached) const { return {query, cached}; }
};
using mixer = ei::attention::softmax<last>;
#endif

static_assert(sizeof(mixer) > 0);
