#pragma once
// A tree of tokens that one pass reads: several guesses at what follows a text, verified together. The tokens stand depth first, so
// that the depth of each says all: token t has depths[t] tokens of the tree in front of it, and its parent is the last one before it
// whose depth is less by one. A chain has the depths 0, 1, 2, ...; several tokens of depth 0 are guesses for the same place.
// Source: Miao et al., "SpecInfer" (2024), section 4.2, with a depth-first order in place of its topology-aware mask.

#include <effinfer/core/error.hpp>

#include <cstddef>
#include <span>
#include <string>

namespace effinfer::inline v0::models {

/// f(first, count, depth) for each run of tokens of which each is the next one's parent; `depth`: of its first token.
template <class F>
void for_each_run(std::span<const int> depths, const F& f) {
  for (std::size_t first = 0; first < depths.size();) {
    std::size_t end = first + 1;
    while (end < depths.size() && depths[end] == depths[end - 1] + 1) ++end;
    f(static_cast<std::ptrdiff_t>(first), static_cast<std::ptrdiff_t>(end - first), depths[first]);
    first = end;
  }
}

/// Errors: `invalid_argument` (another number of depths than `tokens`, a token without its parent).
inline void check_depths(std::span<const int> depths, std::size_t tokens) {
  if (depths.size() != tokens) {
    throw error(error_code::invalid_argument, "token tree: depths",
                std::to_string(depths.size()) + " for " + std::to_string(tokens) + " tokens");
  }
  int most = 0;  // of the next token
  for (const int depth : depths) {
    if (depth < 0 || depth > most) {
      throw error(error_code::invalid_argument, "token tree: depths",
                  std::to_string(depth) + " where at most " + std::to_string(most) + " may stand",
                  "tokens stand depth first: a child right behind its parent or behind its sibling's descendants");
    }
    most = depth + 1;
  }
}

/// True if `path` leads from a token of depth 0 from parent to child. Shapes: depths [T], path [n], n <= T.
inline bool is_path(std::span<const int> depths, std::span<const int> path) {
  int before = -1;
  for (std::size_t i = 0; i < path.size(); ++i) {
    const int row = path[i];
    if (row <= before || row >= static_cast<int>(depths.size()) ||
        depths[static_cast<std::size_t>(row)] != static_cast<int>(i)) {
      return false;
    }
    for (int between = before + 1; i > 0 && between < row; ++between) {  // else `before` is not its parent
      if (depths[static_cast<std::size_t>(between)] < static_cast<int>(i)) return false;
    }
    before = row;
  }
  return true;
}

}  // namespace effinfer::inline v0::models
