// expect: effinfer: decoding policy needs  int operator()(
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

struct half {
  using slot = ei::slot::decoding;
  void validate() const {}
};
struct whole : half {
  int operator()(std::span<float>, std::span<const int>, ei::random_stream, std::uint64_t,
                 ei::decoding::workspace&) const {
    return 0;
  }
};

#ifdef EFFINFER_BAD
using chat = ei::pipeline<half>;
#else
using chat = ei::pipeline<whole>;
#endif

static_assert(sizeof(chat) > 0);
