// expect: effinfer: drafter needs  std::vector<int> propose(std::span<const int> history, int most_tokens) const;
#include <effinfer/decoding/speculative.hpp>

namespace ei = effinfer;

struct no_draft {
  void validate() const {}
#ifdef EFFINFER_BAD
  std::vector<int> draft(std::span<const int>, int) const { return {}; }
#else
  std::vector<int> propose(std::span<const int>, int) const { return {}; }
#endif
};

static_assert(sizeof(ei::decoding::speculative<no_draft>) > 0);
