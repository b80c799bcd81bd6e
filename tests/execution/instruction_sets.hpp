#pragma once
// The instruction sets that this machine runs, for tests to go through.

#include <effinfer/execution/instruction_set.hpp>

#include <vector>

namespace instruction_sets {

using effinfer::execution::instruction_set;

inline std::vector<instruction_set> supported() {
  std::vector<instruction_set> sets;
  for (const auto set : effinfer::execution::all_instruction_sets) {
    if (effinfer::execution::is_supported(set)) sets.push_back(set);
  }
  return sets;
}

/// Without those that differ from another in their dot products only: for kernels that have none.
inline std::vector<instruction_set> supported_bases() {
  std::vector<instruction_set> sets = supported();
  std::erase_if(sets, [](instruction_set set) { return effinfer::execution::base_of(set) != set; });
  return sets;
}

}  // namespace instruction_sets
