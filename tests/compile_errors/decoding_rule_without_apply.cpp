// expect: effinfer: logit rule needs  void apply(std::span<float> logits, std::span<const int> history, workspace&
#include <effinfer/decoding/chain.hpp>
#include <effinfer/decoding/policy.hpp>
#include <effinfer/decoding/top_p.hpp>

namespace ei = effinfer;

struct ban_token {
  int token = 0;
  void validate() const {}
#ifndef EFFINFER_BAD
  void apply(std::span<float> logits, std::span<const int>, ei::decoding::workspace&) const {
    logits[static_cast<std::size_t>(token)] = -1e30f;
  }
#endif
};

static_assert(sizeof(ei::decoding::chain<ban_token, ei::decoding::top_p>) > 0);
