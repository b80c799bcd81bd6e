#pragma once
// A tensor in a checkpoint: its name, shape and where its bytes lie.

#include <effinfer/core/error.hpp>
#include <effinfer/core/weight_format.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::checkpoint {

struct tensor {
  std::string name;
  weight_format format = weight_format::other;
  std::vector<std::int64_t> shape;  ///< outermost first, as in PyTorch: a product's weight is [outputs, inputs]
  std::span<const std::byte> data;  ///< inside the mapped file
  std::string file;                 ///< for messages
};

/// Throws `malformed` where two tensors of one file share bytes: each is named.
inline void check_disjoint(std::span<const tensor> tensors) {
  std::vector<const tensor*> order;
  order.reserve(tensors.size());
  for (const tensor& t : tensors) {
    if (!t.data.empty()) order.push_back(&t);
  }
  std::sort(order.begin(), order.end(),
            [](const tensor* a, const tensor* b) { return a->data.data() < b->data.data(); });
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (order[i]->data.data() < order[i - 1]->data.data() + order[i - 1]->data.size()) {
      throw error(error_code::malformed, order[i]->file + ": tensor " + order[i]->name,
                  "its bytes overlap those of " + order[i - 1]->name);
    }
  }
}

}  // namespace effinfer::inline v0::checkpoint
