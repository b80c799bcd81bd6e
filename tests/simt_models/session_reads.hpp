#pragma once
// Sessions of a model on the host context, read in passes of chosen sizes.

#include <effinfer/testing/attention_oracle.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace session_reads {

// Every access of a fiber is checked under the sanitizer: a few tokens must do.
#if defined(EFFINFER_FIBERS_TELL_ASAN)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

inline std::vector<int> some_tokens(std::size_t count, int vocabulary, std::uint64_t seed = 1) {
  std::vector<int> tokens;
  for (const float v : effinfer::testing::numbers(count, seed))
    tokens.push_back(static_cast<int>((v + 1) / 2 * static_cast<float>(vocabulary)) % vocabulary);
  return tokens;
}

using rows = std::vector<std::vector<float>>;

/// Logits behind each token, read in passes of these sizes, the last as often as needed; each pass a read of its own.
template <class Session>
rows read(Session& s, const std::vector<int>& tokens, std::vector<int> sizes) {
  rows all;
  for (std::size_t done = 0, i = 0; done < tokens.size(); ++i) {
    const auto count = std::min(tokens.size() - done, static_cast<std::size_t>(sizes[std::min(i, sizes.size() - 1)]));
    s.append(std::span(tokens).subspan(done, count), {}, static_cast<int>(count),
             [&](int, std::span<const float> logits) { all.emplace_back(logits.begin(), logits.end()); });
    done += count;
  }
  return all;
}

}  // namespace session_reads
