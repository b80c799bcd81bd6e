// decoding/policy.hpp and drafter.hpp: what counts as a policy, a rule and a drafter. The compiler's sentences for what doesn't are
// tested in tests/compile_errors.

#include <effinfer/decoding/drafter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace policy_tests {

using namespace effinfer;
using namespace effinfer::decoding;

namespace {

// The smallest of each kind.
struct first_token {
  using slot = effinfer::slot::decoding;
  void validate() const {}
  int operator()(std::span<float>, std::span<const int>, random_stream, std::uint64_t, workspace&) const { return 0; }
};
struct no_change {
  void validate() const {}
  void apply(std::span<float>, std::span<const int>, workspace&) const {}
};
struct no_draft {
  void validate() const {}
  std::vector<int> propose(std::span<const int>, int) const { return {}; }
};

// One member short, or misspelt.
struct without_slot {
  void validate() const {}
  int operator()(std::span<float>, std::span<const int>, random_stream, std::uint64_t, workspace&) const { return 0; }
};
struct without_validate {
  using slot = effinfer::slot::decoding;
  int operator()(std::span<float>, std::span<const int>, random_stream, std::uint64_t, workspace&) const { return 0; }
};
struct not_const {
  using slot = effinfer::slot::decoding;
  void validate() const {}
  int operator()(std::span<float>, std::span<const int>, random_stream, std::uint64_t, workspace&) { return 0; }
};
struct misspelt_rule {
  void validate() const {}
  void aply(std::span<float>, std::span<const int>, workspace&) const {}
};
struct misspelt_drafter {
  void validate() const {}
  std::vector<int> propos(std::span<const int>, int) const { return {}; }
};

static_assert(decoding_strategy<first_token> && !logit_rule<first_token>);
static_assert(logit_rule<no_change> && !decoding_strategy<no_change>);
static_assert(token_drafter<no_draft>);
static_assert(!decoding_strategy<without_slot> && !decoding_strategy<without_validate> &&
              !decoding_strategy<not_const>);
static_assert(!logit_rule<misspelt_rule> && !token_drafter<misspelt_drafter>);

}  // namespace

TEST_CASE("the smallest policy is one") {
  workspace scratch;
  std::vector<float> logits{1, 2};
  CHECK(first_token{}(logits, {}, {}, 0, scratch) == 0);
}

}  // namespace policy_tests
