// expect: effinfer: a model policy needs  static constexpr std::string_view name;
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

struct half {
  using slot = ei::slot::model;
  static constexpr std::string_view name = "half";
};
struct whole : half {
  static constexpr bool recurrent = false;
  static constexpr bool accepts(std::string_view architecture) { return architecture == "llama"; }
};

#ifdef EFFINFER_BAD
using chat = ei::pipeline<half>;
#else
using chat = ei::pipeline<whole>;
#endif

static_assert(sizeof(chat) > 0);
