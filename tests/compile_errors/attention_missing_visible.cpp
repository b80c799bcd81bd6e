// expect: effinfer: attention policy needs  EFFINFER_HOST_DEVICE bool visible(position p) const;
#include <effinfer/attention/grouped_query.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/softmax.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
struct block {
  using slot = ei::slot::attention_modifier;
  EFFINFER_HOST_DEVICE float score(float s, ei::attention::position) const { return 2 * s; }
  EFFINFER_HOST_DEVICE ei::attention::key_range keys(int, int cached) const { return {0, cached}; }
};
using mixer = ei::attention::softmax<block>;
#else
struct block {
  using slot = ei::slot::attention_modifier;
  EFFINFER_HOST_DEVICE float score(float s, ei::attention::position) const { return 2 * s; }
  EFFINFER_HOST_DEVICE bool visible(ei::attention::position) const { return true; }
  EFFINFER_HOST_DEVICE ei::attention::key_range keys(int, int cached) const { return {0, cached}; }
};
using mixer = ei::attention::softmax<block>;
#endif

static_assert(sizeof(mixer) > 0);
