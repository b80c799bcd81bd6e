// expect: effinfer: decoding policy needs  int operator()(
#include <effinfer/decoding/policy.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/speculative.hpp>

namespace ei = effinfer;

struct first_token {
  using slot = ei::slot::decoding;
  void validate() const {}
#ifdef EFFINFER_BAD
  int choose(std::span<float>, std::span<const int>, ei::random_stream, std::uint64_t, ei::decoding::workspace&) const {
    return 0;
  }
#else
  int operator()(std::span<float>, std::span<const int>, ei::random_stream, std::uint64_t,
                 ei::decoding::workspace&) const {
    return 0;
  }
#endif
};

static_assert(sizeof(ei::decoding::speculative<ei::decoding::prompt_lookup<3>, first_token>) > 0);
