// expect: effinfer: decoding policy needs  void validate() const;
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/speculative.hpp>

namespace ei = effinfer;

struct first_token {
  using slot = ei::slot::decoding;
#ifdef EFFINFER_BAD
  void valdate() const {}
#else
  void validate() const {}
#endif
  int operator()(std::span<float>, std::span<const int>, ei::random_stream, std::uint64_t,
                 ei::decoding::workspace&) const {
    return 0;
  }
};

static_assert(sizeof(ei::decoding::speculative<ei::decoding::prompt_lookup<3>, first_token>) > 0);
